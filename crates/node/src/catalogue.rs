//! The catalogue of a node: what is published in its mesh, kept on disk and told to others.
//!
//! ```text
//! gossip, sync --Item--> check (signature, mesh, member) --> admit --> journal --> memory
//! publish, bind, revoke --sign--> admit --> journal --> gossip
//! ```
//!
//! What counts and what a name means is decided by `commons_swarm::catalogue`; this gives it a
//! disk and a mesh. One change is made at a time. If the disk fails, memory is read from it anew.
//!
//! # Invariants
//!
//! * Rule C5: a record counts only if its author is a member of the mesh.
//! * Rule C9: what is told to others is durable here, and what others tell is fetched by its id
//!   and checked.

pub(crate) mod gossip;
mod handle;
pub(crate) mod hub;
mod item;
mod publish;
mod query;
pub(crate) mod sync;

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use commons_port::journal::{Change, Journal, JournalError, Table};
use commons_record::catalogue::{RepoName, Version};
use commons_record::mesh::NO_MESH;
use commons_record::{Hash, OwnerId, PeerId, codec};
use commons_swarm::catalogue::{Admission, Catalogue, Limits, NameRef, Revision};
use commons_swarm::policy::Policy;
use serde_bytes::ByteBuf;
use tokio::sync::MutexGuard;

use crate::ledger::LedgerError;
use crate::start::Inner;
use crate::tasks::lock;

pub(crate) use handle::Handle;
pub(crate) use item::{Checked, Item, Unwanted};
pub(crate) use query::judge_blob;

/// Entries read at once.
const PAGE: usize = 256;

/// Ids of records that were not wanted and are not asked for again.
const REFUSED_MAX: usize = 4_096;

/// An owner's rules are a few lines.
const POLICY_SIZE_MAX: usize = 1 << 20;

/// What the tasks of the catalogue share.
#[derive(Default)]
pub(crate) struct Shelf {
    held: tokio::sync::Mutex<Held>,
    refused: Mutex<Refused>,
    /// Peers that are being asked what they have.
    syncing: Mutex<BTreeSet<PeerId>>,
}

/// The catalogue of one mesh, as it is on disk.
pub(crate) struct Held {
    mesh: Hash,
    pub(crate) catalogue: Catalogue,
    pub(crate) policy: Policy,
    /// Whether memory may differ from the disk.
    is_stale: bool,
}

impl Default for Held {
    fn default() -> Self {
        let catalogue = Catalogue::new([], Limits::default());
        Self { mesh: NO_MESH, catalogue, policy: Policy::default(), is_stale: true }
    }
}

/// The last ids that were refused, oldest first.
#[derive(Default)]
struct Refused {
    ids: BTreeSet<Hash>,
    order: VecDeque<Hash>,
}

impl Shelf {
    fn refuse(&self, id: Hash) {
        let mut refused = lock(&self.refused);
        if !refused.ids.insert(id) {
            return;
        }
        refused.order.push_back(id);
        if refused.order.len() > REFUSED_MAX
            && let Some(oldest) = refused.order.pop_front()
        {
            refused.ids.remove(&oldest);
        }
    }

    fn is_refused(&self, id: &Hash) -> bool {
        lock(&self.refused).ids.contains(id)
    }

    /// What was refused may be wanted now.
    fn forget_refusals(&self) {
        *lock(&self.refused) = Refused::default();
    }
}

/// The turn to read or change the catalogue of the present mesh.
pub(crate) async fn turn(inner: &Inner) -> Result<MutexGuard<'_, Held>, LedgerError> {
    let mut held = inner.catalogue.held.lock().await;
    if held.is_stale || held.mesh != inner.place().mesh() {
        inner.catalogue.forget_refusals();
        *held = load(inner).await?;
    }
    Ok(held)
}

/// Why a record that was sent did not come in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error(transparent)]
    Unwanted(#[from] Unwanted),

    #[error(transparent)]
    Storage(#[from] LedgerError),
}

/// Takes in what a peer sent.
pub(crate) async fn receive(inner: &Arc<Inner>, item: &Item) -> Result<Admission, ReceiveError> {
    let checked = item.check_now(&inner.standing())?;
    let mut held = turn(inner).await?;
    let admission = checked.admit(&mut held.catalogue);
    if let Admission::Kept { gone } = &admission {
        let changes = held.changes(&[(&checked, item.membership.as_ref())], gone);
        held.commit(inner, changes).await.map_err(LedgerError::from)?;
        tracing::debug!(id = %checked.id(), kind = checked.kind(), "the catalogue grew");
    }
    Ok(admission)
}

impl Held {
    /// The changes that make records durable, and forget those that gave way.
    fn changes(&self, kept: &[(&Checked, Option<&ByteBuf>)], gone: &[Hash]) -> Vec<Change> {
        let mut changes = Vec::with_capacity(2 * (kept.len() + gone.len()));
        for (checked, membership) in kept {
            let membership = membership.map(|it| it.to_vec()).unwrap_or_default();
            let id = checked.id();
            changes.push(Change::put(Table::Record, id.as_bytes().as_slice(), checked.encode()));
            changes.push(Change::put(Table::State, record_key(&self.mesh, &id), membership));
        }
        for id in gone {
            changes.push(Change::remove(Table::Record, id.as_bytes().as_slice()));
            changes.push(Change::remove(Table::State, record_key(&self.mesh, id)));
        }
        changes
    }

    /// Makes changes durable that memory has already.
    async fn commit(&mut self, inner: &Inner, changes: Vec<Change>) -> Result<(), JournalError> {
        // Whoever is stopped here leaves a catalogue that is read again.
        self.is_stale = true;
        inner.commit(changes).await?;
        self.is_stale = false;
        if let Some(stock) = &inner.stock {
            stock.judge_again();
        }
        Ok(())
    }
}

fn prefix(mesh: &Hash, what: &str) -> Vec<u8> {
    [b"catalogue/".as_slice(), mesh.as_bytes(), what.as_bytes()].concat()
}

fn record_key(mesh: &Hash, id: &Hash) -> Vec<u8> {
    [prefix(mesh, "/record/").as_slice(), id.as_bytes()].concat()
}

fn pin_key(mesh: &Hash, name: &RepoName, version: Option<&Version>) -> Vec<u8> {
    let revision = version.map_or(Revision::Current, |it| Revision::Version(it.clone()));
    // As the owner wrote it, and in one form: a pin of another case replaces it.
    let folded = name.folded();
    let name = NameRef { name: folded.parse().unwrap_or_else(|_| name.clone()), revision };
    [prefix(mesh, "/pin/"), name.to_string().into_bytes()].concat()
}

fn subscription_key(mesh: &Hash, author: &OwnerId) -> Vec<u8> {
    [prefix(mesh, "/subscription/").as_slice(), author.as_bytes()].concat()
}

fn policy_key(mesh: &Hash) -> Vec<u8> {
    prefix(mesh, "/policy")
}

/// Reads the catalogue of the present mesh from the disk, which is not trusted either.
async fn load(inner: &Inner) -> Result<Held, LedgerError> {
    let (standing, journal) = (inner.standing(), &inner.ports.journal);
    let mesh = standing.mesh();
    let authorities = standing.genesis.body().authorities.iter().copied();
    let mut catalogue = Catalogue::new(authorities, Limits::default());
    for (key, _) in scan(&**journal, &prefix(&mesh, "/subscription/")).await? {
        if let Ok(author) = key.try_into() {
            catalogue.subscribe(OwnerId::from_bytes(author), true);
        }
    }
    for (key, value) in scan(&**journal, &prefix(&mesh, "/pin/")).await? {
        let damaged = |detail: &str| damaged("pin", detail);
        let release = value.try_into().map(Hash::from_bytes);
        let release = release.map_err(|_| damaged("it has not 32 bytes"))?;
        let name = String::from_utf8(key).map_err(|_| damaged("its name is no text"))?;
        let name: NameRef = name.parse().map_err(|_| damaged("its name is none"))?;
        let version = match &name.revision {
            Revision::Version(version) => Some(version),
            Revision::Current | Revision::Commit(_) => None,
        };
        if let Err(error) = catalogue.restore_pin(&name.name, version, release) {
            tracing::warn!(%error, "a pin was left out");
        }
    }
    let policy = match journal.get(Table::State, policy_key(&mesh)).await? {
        None => Policy::default(),
        Some(bytes) => codec::decode("policy", &bytes, POLICY_SIZE_MAX)
            .map_err(|error| damaged("rules of the catalogue", &error.to_string()))?,
    };
    let mut records = Vec::new();
    for (key, membership) in scan(&**journal, &prefix(&mesh, "/record/")).await? {
        let Some(record) = journal.get(Table::Record, key).await? else { continue };
        let membership = Some(ByteBuf::from(membership)).filter(|it| !it.is_empty());
        match (Item { membership, record: ByteBuf::from(record) }).check(&standing) {
            Ok(checked) => records.push(checked),
            Err(error) => tracing::warn!(%error, "a stored record of the catalogue is left out"),
        }
    }
    // Names first, so that what they hold finds room; revocations last, so that they find what
    // they are about, and a refusal can say why.
    records.sort_by_key(Checked::rank);
    for checked in records {
        checked.admit(&mut catalogue);
    }
    tracing::debug!(releases = catalogue.release_count(), "read the catalogue");
    Ok(Held { mesh, catalogue, policy, is_stale: false })
}

fn damaged(what: &'static str, detail: &str) -> LedgerError {
    LedgerError::Damaged { what, detail: detail.to_owned() }
}

/// All entries of the state whose keys begin so, the beginning cut off.
async fn scan(
    journal: &dyn Journal,
    prefix: &[u8],
) -> Result<Vec<(Vec<u8>, Vec<u8>)>, JournalError> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = journal.scan(Table::State, prefix.to_vec(), after, PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok(all) };
        after = Some(last.clone());
        all.extend(page.into_iter().map(|(key, value)| (key[prefix.len()..].to_vec(), value)));
    }
}
