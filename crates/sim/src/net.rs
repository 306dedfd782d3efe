//! The network: streams, gossip and connections between all nodes of a world.
//!
//! ```text
//! SimNet (one run of one node, implements `port::Net`) -> Fabric (all nodes)
//!   link.rs     how fast, lossy or cut each direction is
//!   stream.rs   ordered bytes with back-pressure, ends and resets
//!   connect.rs  opening, accepting, peers that come and go, dialling again
//!   gossip.rs   messages to all of a topic
//!   fault.rs    cutting, healing, crashing
//! ```
//!
//! # Invariants
//!
//! * No stream, validator or closure of a node is called or dropped under the fabric's lock.
//! * What travels between two nodes waits while their link is cut, and is lost when the
//!   connection is given up: a connection over a cut link ends after [`IDLE_MAX`].
//!
//! Not here: encryption and names. A node is reached by key, and the fabric knows the keys.

mod connect;
mod fault;
mod gossip;
mod link;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use commons_port::net::{
    Incoming, Net, NetError, Opened, PROVIDERS_MAX, Path, PeerEvent, Protocol, Validator,
};
use commons_port::{BoxFuture, BoxStream};
use commons_record::{Hash, PeerId};

use crate::clock::Micros;
use crate::entropy::Rng;
use crate::executor::Executor;
use crate::life::{Life, NodeId};
use crate::lock;
use crate::log::Log;

pub use connect::Place;
pub use fault::Crash;
pub use link::Link;
pub use stream::WINDOW;

/// A connection on which nothing gets through is given up after this long, as `mesh` does.
pub const IDLE_MAX: Micros = Micros::from_secs(6);

/// Messages that wait on one cut connection; more are lost, as in any send buffer.
const WAITING_MAX: usize = 4_096;

/// The network of a world.
#[derive(Debug)]
pub struct Fabric {
    executor: Executor,
    log: Arc<Log>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    links: link::Links,
    hosts: Vec<connect::Host>,
    by_peer: BTreeMap<PeerId, NodeId>,
    /// Who says to have what, as a table that all members share.
    providers: BTreeMap<Hash, BTreeSet<PeerId>>,
    connections: BTreeMap<(NodeId, NodeId), Connection>,
    streams: BTreeMap<stream::StreamId, stream::Stream>,
    next_id: u64,
}

/// What stands between two nodes.
#[derive(Default)]
struct Connection {
    /// Tells it from an earlier one between the same nodes.
    id: u64,
    streams: BTreeSet<stream::StreamId>,
    broken_since: Option<Micros>,
    waiting: Vec<(NodeId, NodeId, Delivery)>,
}

type Delivery = Box<dyn FnOnce(&Arc<Fabric>) + Send>;

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("streams", &self.streams).finish_non_exhaustive()
    }
}

/// A pair of nodes in a fixed order.
fn pair(one: NodeId, other: NodeId) -> (NodeId, NodeId) {
    (one.min(other), one.max(other))
}

impl State {
    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn remove_stream(&mut self, id: stream::StreamId) {
        if let Some(stream) = self.streams.remove(&id)
            && let Some(connection) =
                self.connections.get_mut(&pair(stream.ends[0], stream.ends[1]))
        {
            connection.streams.remove(&id);
        }
    }
}

impl Fabric {
    /// A network without nodes.
    pub fn new(seed: u64, executor: Executor, log: Arc<Log>) -> Arc<Self> {
        let state = State {
            rng: Rng::new(seed, "net", 0),
            links: link::Links::new(seed),
            hosts: Vec::new(),
            by_peer: BTreeMap::new(),
            providers: BTreeMap::new(),
            connections: BTreeMap::new(),
            streams: BTreeMap::new(),
            next_id: 0,
        };
        Arc::new(Self { executor, log, state: Mutex::new(state) })
    }

    /// Calls `deliver` at `at`, as seen at `to`; later if the link is cut then, and never if
    /// the connection ends before it is mended.
    fn transmit(
        self: &Arc<Self>,
        from: NodeId,
        to: NodeId,
        at: Micros,
        deliver: impl FnOnce(&Arc<Self>) + Send + 'static,
    ) {
        let fabric = Arc::clone(self);
        self.executor.schedule(at, move || {
            let mut state = lock(&fabric.state);
            if !state.links.is_cut(from, to) {
                drop(state);
                deliver(&fabric);
                return;
            }
            if let Some(connection) = state.connections.get_mut(&pair(from, to))
                && connection.waiting.len() < WAITING_MAX
            {
                connection.waiting.push((from, to, Box::new(deliver)));
            }
        });
    }

    /// The network as one run of a node sees it.
    pub fn net(self: &Arc<Self>, life: Arc<Life>) -> SimNet {
        SimNet { fabric: Arc::clone(self), life }
    }

    /// A record outlives the one who wrote it, as in `mesh`.
    fn provide(&self, life: &Life, key: Hash, is_on: bool) {
        let mut state = lock(&self.state);
        let peer = state.hosts[life.node.index()].peer;
        let providers = state.providers.entry(key).or_default();
        if is_on {
            providers.insert(peer);
        } else {
            providers.remove(&peer);
        }
        drop(state);
        self.log.note(Some(life.node), "net.provide", format_args!("{key} {is_on}"));
    }

    fn providers(&self, life: &Life, key: Hash) -> Vec<PeerId> {
        let state = lock(&self.state);
        let found = state.providers.get(&key).into_iter().flatten().copied();
        let is_other = |peer: &PeerId| *peer != state.hosts[life.node.index()].peer;
        found.filter(is_other).take(PROVIDERS_MAX).collect()
    }

    /// The key by which a node is reached.
    pub fn peer(&self, node: NodeId) -> PeerId {
        lock(&self.state).hosts[node.index()].peer
    }
}

/// The network as one run of a node sees it.
#[derive(Debug)]
pub struct SimNet {
    fabric: Arc<Fabric>,
    life: Arc<Life>,
}

impl Net for SimNet {
    fn local_peer(&self) -> PeerId {
        self.fabric.peer(self.life.node)
    }

    fn listen_addrs(&self) -> BoxFuture<'static, Vec<String>> {
        let addrs = vec![self.fabric.addr(self.life.node)];
        Box::pin(async { addrs })
    }

    fn add_addrs(&self, peer: PeerId, addrs: Vec<String>) -> Result<(), NetError> {
        self.fabric.add_addrs(&self.life, peer, &addrs)
    }

    fn open(
        &self,
        peer: PeerId,
        protocols: Vec<Protocol>,
        path: Path,
    ) -> BoxFuture<'static, Result<Opened, NetError>> {
        // The only path there is; a new one must be decided here.
        assert_eq!(path, Path::Direct, "the simulated network knows direct paths only");
        Box::pin(connect::open(Arc::clone(&self.fabric), Arc::clone(&self.life), peer, protocols))
    }

    fn accept(&self, protocols: Vec<Protocol>) -> BoxStream<'static, Incoming> {
        self.fabric.accept(&self.life, protocols)
    }

    fn publish(&self, topic: String, message: Vec<u8>) -> BoxFuture<'static, Result<(), NetError>> {
        let (fabric, life) = (Arc::clone(&self.fabric), Arc::clone(&self.life));
        Box::pin(async move { fabric.publish(&life, topic, message) })
    }

    fn subscribe(&self, topic: String, validator: Validator) -> BoxStream<'static, Vec<u8>> {
        self.fabric.subscribe(&self.life, topic, validator)
    }

    fn provide(&self, key: Hash, is_on: bool) -> BoxFuture<'static, Result<(), NetError>> {
        let (fabric, life) = (Arc::clone(&self.fabric), Arc::clone(&self.life));
        Box::pin(async move {
            fabric.provide(&life, key, is_on);
            Ok(())
        })
    }

    fn providers(&self, key: Hash) -> BoxStream<'static, PeerId> {
        Box::pin(futures::stream::iter(self.fabric.providers(&self.life, key)))
    }

    fn peer_events(&self) -> BoxStream<'static, PeerEvent> {
        self.fabric.peer_events(&self.life)
    }
}

#[cfg(test)]
mod tests;
