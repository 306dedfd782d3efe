//! Starting and stopping a node, and what its tasks share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use commons_exchange::Standing;
use commons_exchange::entry::Side;
use commons_exchange::requester::Clock as Clocks;
use commons_port::engine::Engine;
use commons_port::journal::{Change, Journal, JournalError};
use commons_port::net::Net;
use commons_port::time::{Clock, Entropy, Spawn};
use commons_record::envelope::{Record as _, Verified};
use commons_record::manifest::{FileEntry, ModelManifest, Provenance};
use commons_record::mesh::Capability;
use commons_record::settlement::EngineClass;
use commons_record::{Hash, Millis, PeerId, SecretKey};
use zeroize::Zeroizing;

use crate::api::{Counters, JoinView};
use crate::catalogue;
use crate::identity::{Keys, Place};
use crate::ledger::{Ledger, LedgerError};
use crate::roster::Roster;
use crate::stock::{FilePorts, Stock};
use crate::tasks::{Tasks, lock};
use crate::{join, presence, serve, settle, stock};

/// What a node is told at its start.
#[derive(Debug)]
pub struct NodeConfig {
    /// The owner's key.
    pub owner: SecretKey,
    /// The node's own key, which is also its network identity.
    pub node: SecretKey,
    /// The seed of the key that requests are sealed to.
    pub hpke_seed: Zeroizing<[u8; 32]>,
    /// The name of the private mesh that a fresh data folder founds.
    pub mesh_name: String,
    /// What the machine claims to be.
    pub capability: Capability,
    /// Whether members of the mesh may use this node's compute: the owner's explicit yes.
    pub share: bool,
    /// The program's version.
    pub version: String,
}

/// What a node is built on.
#[derive(Clone)]
pub struct Ports {
    /// The network.
    pub net: Arc<dyn Net>,
    /// The engine.
    pub engine: Arc<dyn Engine>,
    /// The disk.
    pub journal: Arc<dyn Journal>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Unpredictable bytes.
    pub entropy: Arc<dyn Entropy>,
    /// Tasks.
    pub spawn: Arc<dyn Spawn>,
    /// Files; a node without them serves models and nothing else.
    pub files: Option<FilePorts>,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ports")
    }
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum StartError {
    #[error("the journal could not be used")]
    Journal(#[from] JournalError),

    #[error("the stored {what} is damaged ({detail}); restore the data folder from a copy")]
    Damaged { what: &'static str, detail: String },

    #[error("the mesh cannot be called {name:?}: use up to 128 printable characters")]
    MeshName { name: String },

    #[error("the node key does not belong to the network identity {net}")]
    WrongIdentity { net: PeerId },
}

impl From<LedgerError> for StartError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Journal(error) => Self::Journal(error),
            LedgerError::Damaged { what, detail } => Self::Damaged { what, detail },
        }
    }
}

/// A running node. Dropping it stops all its tasks.
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("peer", &self.inner.peer()).finish_non_exhaustive()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.inner.stop();
    }
}

impl Node {
    /// Starts a node: reads or founds its mesh, and begins to serve. Does not wait for peers.
    pub async fn start(config: NodeConfig, ports: Ports) -> Result<Arc<Self>, StartError> {
        let keys = Keys::of(&config);
        let net = ports.net.local_peer();
        if net != PeerId::from_key(keys.node.public()) {
            return Err(StartError::WrongIdentity { net });
        }
        let place = match Place::load(&ports.journal, &keys).await? {
            Some(place) => place,
            None => found(&config, &keys, &ports).await?,
        };
        let inner = Arc::new(Inner {
            tasks: Tasks::new(ports.spawn.clone()),
            mesh_tasks: Mutex::new(Tasks::new(ports.spawn.clone())),
            ledger: Ledger::new(ports.journal.clone()),
            started: ports.clock.now(),
            place: Mutex::new(place),
            roster: Mutex::default(),
            live: LiveOrders::default(),
            unsettled: Mutex::default(),
            orders: Slots::new(ORDERS_MAX, ORDERS_PER_PEER_MAX),
            talks: Slots::new(TALKS_MAX, TALKS_PER_PEER_MAX),
            counters: Counting::default(),
            manifests: tokio::sync::Mutex::default(),
            join: Mutex::default(),
            joins: tokio::sync::Mutex::default(),
            catalogue: catalogue::Shelf::default(),
            stock: ports.files.clone().map(|files| Arc::new(Stock::new(files))),
            config,
            ports,
            keys,
        });
        settle::recover(&inner).await?;
        inner.clone().enter_mesh();
        Ok(Arc::new(Self { inner }))
    }

    /// Stops taking work and ends all tasks. Records are durable already.
    pub fn stop(&self) {
        self.inner.stop();
    }
}

async fn found(config: &NodeConfig, keys: &Keys, ports: &Ports) -> Result<Place, StartError> {
    let (place, changes) = Place::found(&config.mesh_name, keys, &*ports.clock, &*ports.entropy);
    if place.genesis().body().check().is_err() {
        return Err(StartError::MeshName { name: config.mesh_name.clone() });
    }
    ports.journal.commit(changes).await?;
    Ok(place)
}

/// A model's signed description and what computes it.
pub(crate) type Described = (Verified<ModelManifest>, EngineClass);

/// What the tasks of a node share.
pub(crate) struct Inner {
    pub(crate) config: NodeConfig,
    pub(crate) ports: Ports,
    pub(crate) keys: Keys,
    /// Tasks that live as long as the node.
    pub(crate) tasks: Tasks,
    /// Tasks that belong to the present mesh.
    mesh_tasks: Mutex<Tasks>,
    pub(crate) ledger: Ledger,
    pub(crate) started: Millis,
    place: Mutex<Place>,
    pub(crate) roster: Mutex<Roster>,
    pub(crate) live: LiveOrders,
    /// Served orders whose receipt could not be stored: `settle` tries again.
    pub(crate) unsettled: Mutex<BTreeSet<Hash>>,
    /// Orders under way.
    pub(crate) orders: Slots,
    /// Small conversations under way: hello, load, settle, join.
    pub(crate) talks: Slots,
    pub(crate) counters: Counting,
    manifests: tokio::sync::Mutex<BTreeMap<Hash, Described>>,
    pub(crate) join: Mutex<Option<JoinView>>,
    /// Join requests are considered one at a time.
    pub(crate) joins: tokio::sync::Mutex<()>,
    /// What is published, and what names mean.
    pub(crate) catalogue: catalogue::Shelf,
    /// What is held, pulled and given.
    pub(crate) stock: Option<Arc<Stock>>,
}

impl Inner {
    pub(crate) fn peer(&self) -> PeerId {
        PeerId::from_key(self.keys.node.public())
    }

    pub(crate) fn place(&self) -> Place {
        lock(&self.place).clone()
    }

    /// The standing at this moment.
    pub(crate) fn standing(&self) -> Standing {
        lock(&self.place).at(self.ports.clock.unix())
    }

    pub(crate) fn clocks(&self) -> Clocks {
        serve::clocks(&*self.ports.clock)
    }

    /// Makes changes durable and counts them.
    pub(crate) async fn commit(&self, changes: Vec<Change>) -> Result<(), JournalError> {
        let count = changes.len() as u64;
        let result = self.ports.journal.commit(changes).await;
        match &result {
            Ok(()) => self.counters.records_stored(count),
            Err(error) => tracing::error!(%error, "records could not be stored"),
        }
        result
    }

    /// Moves to another mesh: its tasks begin anew, under its name.
    pub(crate) fn move_to(self: &Arc<Self>, place: Place) {
        *lock(&self.place) = place;
        lock(&self.roster).clear();
        self.clone().enter_mesh();
    }

    fn enter_mesh(self: Arc<Self>) {
        let fresh = Tasks::new(self.ports.spawn.clone());
        let stale = std::mem::replace(&mut *lock(&self.mesh_tasks), fresh.clone());
        stale.stop();
        fresh.start("accept orders", Box::pin(serve::accept_orders(self.clone())));
        fresh.start("presence", Box::pin(presence::run(self.clone())));
        fresh.start("hello", Box::pin(presence::accept_hellos(self.clone())));
        fresh.start("settle", Box::pin(settle::run(self.clone())));
        fresh.start("accept offers", Box::pin(settle::accept_offers(self.clone())));
        fresh.start("catalogue", Box::pin(catalogue::gossip::run(self.clone())));
        fresh.start("accept syncs", Box::pin(catalogue::sync::accept(self.clone())));
        fresh.start("files", Box::pin(stock::run(self.clone())));
        fresh.start("accept joins", Box::pin(join::accept_joins(self.clone())));
    }

    fn stop(&self) {
        lock(&self.mesh_tasks).stop();
        self.tasks.stop();
    }

    /// The signed manifests of all loaded models; a model that is new is described first.
    pub(crate) async fn manifests(&self) -> Result<BTreeMap<Hash, Described>, LedgerError> {
        let mesh = self.place().mesh();
        let mut known = self.manifests.lock().await;
        let models = self.ports.engine.models();
        let is_loaded = |model: &Hash| models.iter().any(|it| it.model == *model);
        known.retain(|model, (manifest, _)| manifest.mesh() == mesh && is_loaded(model));
        for model in models {
            if let Some((_, class)) = known.get_mut(&model.model) {
                *class = model.class; // A foreign engine may have been replaced by its next release.
                continue;
            }
            let sequence = self.ledger.sequences(1).await?.take().unwrap_or_default();
            let body = ModelManifest {
                name: label(&model.name, "model"),
                files: vec![FileEntry {
                    name: label(&model.file_name, "model.gguf"),
                    hash: model.model,
                    size: model.file_size,
                }],
                family: label(&model.family, "unknown"),
                quantisation: label(&model.quantisation, "unknown"),
                tokenizer: model.tokenizer,
                context_len: model.context_len,
                parameter_count: model.parameter_count,
                licence: label(model.licence.as_deref().unwrap_or_default(), "NOASSERTION"),
                provenance: Provenance::default(),
            };
            let manifest = self.standing().author.sign(sequence, body);
            known.insert(model.model, (manifest, model.class));
        }
        Ok(known.clone())
    }
}

/// A printable label of bounded length out of whatever a file says.
fn label(text: &str, otherwise: &str) -> String {
    let printable = text.chars().filter(|it| !it.is_control() && !matches!(it, '/' | '\\'));
    let mut label = String::new();
    for char in printable {
        if label.len() + char.len_utf8() > 128 {
            break;
        }
        label.push(char);
    }
    if label.is_empty() { otherwise.to_owned() } else { label }
}

/// Exchanges that are under way now. A second copy of an order is a replay (Rule E1), and what
/// is offered about an exchange waits until it is over.
#[derive(Default)]
pub(crate) struct LiveOrders(Mutex<BTreeSet<(Side, Hash)>>);

impl LiveOrders {
    /// False if it is there already.
    pub(crate) fn insert(&self, side: Side, order: Hash) -> bool {
        lock(&self.0).insert((side, order))
    }

    pub(crate) fn remove(&self, side: Side, order: &Hash) {
        lock(&self.0).remove(&(side, *order));
    }

    pub(crate) fn contains(&self, side: Side, order: &Hash) -> bool {
        lock(&self.0).contains(&(side, *order))
    }
}

/// Orders that are worked on or wait at once, from all peers. Each holds a task, a transcript and
/// an engine slot or a place in its queue.
const ORDERS_MAX: usize = 64;

/// Of these, from one peer.
const ORDERS_PER_PEER_MAX: usize = 8;

/// Small conversations at once, from all peers: each is a task for a few seconds.
const TALKS_MAX: usize = 256;

/// Of these, from one peer: one of each kind, and one that is ending.
const TALKS_PER_PEER_MAX: usize = 8;

/// How many streams each peer has open, and how many it may.
pub(crate) struct Slots {
    max: usize,
    per_peer_max: usize,
    taken: Arc<Mutex<BTreeMap<PeerId, usize>>>,
}

/// One open stream; dropping it frees the slot.
pub(crate) struct Slot {
    peer: PeerId,
    taken: Arc<Mutex<BTreeMap<PeerId, usize>>>,
}

impl Slots {
    fn new(max: usize, per_peer_max: usize) -> Self {
        Self { max, per_peer_max, taken: Arc::default() }
    }

    /// A slot, unless all or this peer's are taken. Then the stream is dropped, which resets it:
    /// the cheapest answer to a flood.
    pub(crate) fn take(&self, peer: PeerId) -> Option<Slot> {
        let mut taken = lock(&self.taken);
        let total = taken.values().sum::<usize>();
        let count = taken.get(&peer).copied().unwrap_or_default();
        if total >= self.max || count >= self.per_peer_max {
            tracing::debug!(%peer, "a stream beyond the bound was dropped");
            return None;
        }
        taken.insert(peer, count + 1);
        Some(Slot { peer, taken: self.taken.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        if let Some(count) = taken.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

/// Counters that tasks add to.
#[derive(Default)]
pub(crate) struct Counting {
    asks: AtomicU64,
    asks_failed: AtomicU64,
    orders_served: AtomicU64,
    orders_refused: AtomicU64,
    tokens_computed: AtomicU64,
    tokens_received: AtomicU64,
    records_stored: AtomicU64,
}

impl Counting {
    pub(crate) fn ask(&self) {
        self.asks.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn ask_failed(&self) {
        self.asks_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn orders_served(&self) {
        self.orders_served.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn orders_refused(&self) {
        self.orders_refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn token_computed(&self) {
        self.tokens_computed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn token_received(&self) {
        self.tokens_received.fetch_add(1, Ordering::Relaxed);
    }

    fn records_stored(&self, count: u64) {
        self.records_stored.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self, peers: u64) -> Counters {
        Counters {
            asks: self.asks.load(Ordering::Relaxed),
            asks_failed: self.asks_failed.load(Ordering::Relaxed),
            orders_served: self.orders_served.load(Ordering::Relaxed),
            orders_refused: self.orders_refused.load(Ordering::Relaxed),
            tokens_computed: self.tokens_computed.load(Ordering::Relaxed),
            tokens_received: self.tokens_received.load(Ordering::Relaxed),
            records_stored: self.records_stored.load(Ordering::Relaxed),
            peers,
        }
    }
}
