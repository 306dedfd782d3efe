//! Connections: opening and accepting streams, who is connected, and dialling again.
//!
//! A node can open a stream to a peer that it is connected to or whose address it was told.
//! Like a real transport, the network keeps known peers connected: one that was lost is dialled
//! again with growing pauses for as long as its address is known.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;

use commons_port::BoxStream;
use commons_port::net::{Incoming, NetError, Opened, PeerEvent, Protocol};
use commons_record::{Hash, PeerId};
use futures::future::{self, Either};
use tokio::sync::mpsc;

use super::gossip::Subscription;
use super::stream::{SimStream, Stream};
use super::{Fabric, State, pair};
use crate::clock::Micros;
use crate::life::{Life, NodeId};
use crate::lock;

/// Streams that wait to be accepted; what comes beyond is reset.
const BACKLOG: usize = 64;

/// Peer events that wait for a node: a node with more peers than this has other troubles.
const EVENTS_MAX: usize = 16_384;

/// How long a dial waits for an answer, as in `mesh`.
const OPEN_MAX: Micros = Micros::from_secs(15);

/// The first pause before a lost peer is dialled again; each next one is twice as long.
const REDIAL_FIRST: Micros = Micros::from_millis(250);

/// The longest pause between dials.
const REDIAL_MAX: Micros = Micros::from_secs(120);

/// Where a node's address lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// An address of the internet.
    Public,
    /// An address of a local network.
    Lan,
}

impl Place {
    const fn first_octet(self) -> u8 {
        match self {
            Self::Public => 80,
            Self::Lan => 10,
        }
    }
}

/// What a host answers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Power {
    /// The node runs.
    On,
    /// The machine runs and the node does not: who connects is refused.
    Refusing,
    /// Nothing answers.
    Silent,
}

/// A node as the network sees it.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) peer: PeerId,
    pub(super) place: Place,
    pub(super) power: Power,
    /// Whether others can dial it; if not, it can still dial others.
    pub(super) is_dialable: bool,
    pub(super) life: Option<Arc<Life>>,
    /// Nodes whose address it was told.
    pub(super) known: BTreeSet<NodeId>,
    /// Of these, those that are being dialled.
    pub(super) dialling: BTreeSet<NodeId>,
    pub(super) neighbours: BTreeSet<NodeId>,
    pub(super) acceptors: BTreeMap<Protocol, mpsc::Sender<Incoming>>,
    pub(super) listeners: Vec<mpsc::Sender<PeerEvent>>,
    pub(super) topics: BTreeMap<String, Subscription>,
    pub(super) seen: HashSet<Hash>,
    pub(super) seen_order: VecDeque<(Micros, Hash)>,
    pub(super) rejected: BTreeMap<NodeId, u32>,
}

impl Host {
    fn new(peer: PeerId, place: Place) -> Self {
        Self {
            peer,
            place,
            power: Power::Silent,
            is_dialable: true,
            life: None,
            known: BTreeSet::new(),
            dialling: BTreeSet::new(),
            neighbours: BTreeSet::new(),
            acceptors: BTreeMap::new(),
            listeners: Vec::new(),
            topics: BTreeMap::new(),
            seen: HashSet::new(),
            seen_order: VecDeque::new(),
            rejected: BTreeMap::new(),
        }
    }

    fn tell(&mut self, event: &PeerEvent) {
        self.listeners.retain(|listener| !listener.is_closed());
        for listener in &self.listeners {
            // A listener that fell this far behind loses events, as the bound says.
            let _ = listener.try_send(event.clone());
        }
    }
}

fn addr(node: NodeId, place: Place) -> String {
    let [_, high, middle, low] = node.0.to_be_bytes();
    format!("/ip4/{}.{high}.{middle}.{low}/udp/4001/quic-v1", place.first_octet())
}

fn parse_addr(text: &str) -> Option<NodeId> {
    let host = text.strip_prefix("/ip4/")?.split('/').next()?;
    let octets: Vec<u8> = host.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [_, high, middle, low] = octets.try_into().ok()?;
    Some(NodeId(u32::from_be_bytes([0, high, middle, low])))
}

impl State {
    /// Connects two nodes unless they are; tells both.
    pub(super) fn connect(&mut self, one: NodeId, other: NodeId) {
        if self.connections.contains_key(&pair(one, other)) {
            return;
        }
        let id = self.next_id();
        let connection = self.connections.entry(pair(one, other)).or_default();
        connection.id = id;
        for (host, peer) in [(one, other), (other, one)] {
            let remote = &self.hosts[peer.index()];
            let event = PeerEvent::Connected { peer: remote.peer, addr: addr(peer, remote.place) };
            let host = &mut self.hosts[host.index()];
            host.neighbours.insert(peer);
            host.tell(&event);
        }
    }

    /// Ends a connection for one side's eyes: it is told, and forgets the neighbour.
    pub(super) fn forget(&mut self, node: NodeId, gone: NodeId) {
        let event = PeerEvent::Disconnected { peer: self.hosts[gone.index()].peer };
        let host = &mut self.hosts[node.index()];
        if host.neighbours.remove(&gone) {
            host.tell(&event);
        }
    }

    /// Whether a dial from one node to another gets an answer.
    fn dial(&self, from: NodeId, to: NodeId) -> Dial {
        let target = &self.hosts[to.index()];
        let is_connected = self.connections.contains_key(&pair(from, to));
        let is_reached = is_connected || target.is_dialable;
        if self.links.is_broken(from, to) || target.power == Power::Silent || !is_reached {
            Dial::Silence
        } else if target.power == Power::Refusing {
            Dial::Refusal
        } else {
            Dial::Answer
        }
    }
}

/// What a dial meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dial {
    Answer,
    Refusal,
    Silence,
}

impl Fabric {
    /// Adds a host that is switched off.
    pub fn add_host(&self, peer: PeerId, place: Place) -> NodeId {
        let mut state = lock(&self.state);
        let index = u32::try_from(state.hosts.len()).unwrap_or(u32::MAX);
        state.hosts.push(Host::new(peer, place));
        state.by_peer.insert(peer, NodeId(index));
        NodeId(index)
    }

    /// The address at which a node can be reached.
    pub fn addr(&self, node: NodeId) -> String {
        addr(node, lock(&self.state).hosts[node.index()].place)
    }

    /// Tells a node where another is, as a ticket would.
    pub fn introduce(self: &Arc<Self>, node: NodeId, other: NodeId) {
        lock(&self.state).hosts[node.index()].known.insert(other);
        self.redial(node, other);
    }

    /// Connects two running nodes at once.
    pub fn connect(&self, one: NodeId, other: NodeId) {
        lock(&self.state).connect(one, other);
    }

    /// How many nodes a node is connected to.
    pub fn neighbour_count(&self, node: NodeId) -> usize {
        lock(&self.state).hosts[node.index()].neighbours.len()
    }

    pub(super) fn add_addrs(
        self: &Arc<Self>,
        life: &Life,
        peer: PeerId,
        addrs: &[String],
    ) -> Result<(), NetError> {
        if !life.is_alive() {
            return Err(NetError::Closed);
        }
        for text in addrs {
            let bad = || NetError::BadAddr { detail: text.chars().take(80).collect() };
            let node = parse_addr(text).ok_or_else(bad)?;
            let mut state = lock(&self.state);
            // An address that leads to someone else than `peer` is remembered by nobody.
            if state.by_peer.get(&peer) == Some(&node) && node != life.node {
                state.hosts[life.node.index()].known.insert(node);
                drop(state);
                self.redial(life.node, node);
            }
        }
        Ok(())
    }

    /// Connects to a known peer, and goes on trying while it is known.
    pub(super) fn redial(self: &Arc<Self>, node: NodeId, peer: NodeId) {
        let is_new = lock(&self.state).hosts[node.index()].dialling.insert(peer);
        if is_new {
            self.dial_after(node, peer, Micros::ZERO);
        }
    }

    fn dial_after(self: &Arc<Self>, node: NodeId, peer: NodeId, pause: Micros) {
        let fabric = Arc::clone(self);
        let mut state = lock(&self.state);
        let Some(life) = state.hosts[node.index()].life.clone() else { return };
        let link = state.links.link(node, peer);
        let jitter = Micros(state.rng.within(0, 100_000));
        drop(state);
        let at = self.executor.now().plus(pause).plus(link.latency).plus(link.latency).plus(jitter);
        self.executor.schedule(at, move || {
            if life.is_alive() && fabric.dial_once(node, peer) == Dial::Silence {
                let next = Micros(pause.0.saturating_mul(2)).clamp(REDIAL_FIRST, REDIAL_MAX);
                fabric.dial_after(node, peer, next);
            }
        });
    }

    /// One dial. Silence means that another is worth it; refusals count as silence here.
    fn dial_once(&self, node: NodeId, peer: NodeId) -> Dial {
        let mut state = lock(&self.state);
        let is_wanted = state.hosts[node.index()].known.contains(&peer);
        let is_connected = state.connections.contains_key(&pair(node, peer));
        if is_wanted && !is_connected {
            if state.dial(node, peer) != Dial::Answer {
                return Dial::Silence;
            }
            state.connect(node, peer);
            self.log.note(Some(node), "net.connected", peer);
        }
        state.hosts[node.index()].dialling.remove(&peer);
        Dial::Answer
    }

    pub(super) fn accept(
        &self,
        life: &Life,
        protocols: Vec<Protocol>,
    ) -> BoxStream<'static, Incoming> {
        let (sender, mut receiver) = mpsc::channel(BACKLOG);
        if life.is_alive() {
            let mut state = lock(&self.state);
            let host = &mut state.hosts[life.node.index()];
            host.acceptors.extend(protocols.into_iter().map(|it| (it, sender.clone())));
        }
        Box::pin(futures::stream::poll_fn(move |ctx| receiver.poll_recv(ctx)))
    }

    pub(super) fn peer_events(&self, life: &Life) -> BoxStream<'static, PeerEvent> {
        let (sender, mut receiver) = mpsc::channel(EVENTS_MAX);
        if life.is_alive() {
            let mut state = lock(&self.state);
            let state = &mut *state;
            for peer in &state.hosts[life.node.index()].neighbours {
                let remote = &state.hosts[peer.index()];
                let addr = addr(*peer, remote.place);
                let _ = sender.try_send(PeerEvent::Connected { peer: remote.peer, addr });
            }
            state.hosts[life.node.index()].listeners.push(sender);
        }
        Box::pin(futures::stream::poll_fn(move |ctx| receiver.poll_recv(ctx)))
    }

    /// Creates a stream and hands its far end to the acceptor; `None` if no protocol fits.
    fn join(
        self: &Arc<Self>,
        life: &Arc<Life>,
        to: NodeId,
        protocols: &[Protocol],
    ) -> Option<Opened> {
        let mut state = lock(&self.state);
        let host = &state.hosts[to.index()];
        let is_open = |protocol: &&Protocol| {
            host.acceptors.get(*protocol).is_some_and(|acceptor| !acceptor.is_closed())
        };
        let protocol = protocols.iter().find(is_open)?.clone();
        let acceptor = host.acceptors.get(&protocol)?.clone();
        let remote = host.life.clone()?;
        let id = state.next_id();
        state.connect(life.node, to);
        state.streams.insert(id, Stream::new([life.node, to]));
        let peer = state.hosts[life.node.index()].peer;
        if let Some(connection) = state.connections.get_mut(&pair(life.node, to)) {
            connection.streams.insert(id);
        }
        drop(state);
        let near = SimStream::new(Arc::clone(self), Arc::clone(life), id, 0);
        let far = SimStream::new(Arc::clone(self), remote, id, 1);
        // A full backlog drops the far end here, which resets it.
        let _ =
            acceptor.try_send(Incoming { peer, protocol: protocol.clone(), stream: Box::new(far) });
        let detail = format_args!("s{id} to {to} {protocol}");
        self.log.note(Some(life.node), "stream.opened", detail);
        Some(Opened { protocol, stream: Box::new(near) })
    }
}

/// Opens a stream: one round trip, a refusal, or silence until patience ends.
pub(super) async fn open(
    fabric: Arc<Fabric>,
    life: Arc<Life>,
    peer: PeerId,
    protocols: Vec<Protocol>,
) -> Result<Opened, NetError> {
    let unreachable = |detail: &str| NetError::Unreachable { peer, detail: detail.to_owned() };
    let (to, round_trip) = {
        let state = lock(&fabric.state);
        let to = state.by_peer.get(&peer).copied().ok_or_else(|| unreachable("no address"))?;
        let is_connected = state.connections.contains_key(&pair(life.node, to));
        if to == life.node {
            return Err(unreachable("it is this node"));
        }
        if !is_connected && !state.hosts[life.node.index()].known.contains(&to) {
            return Err(unreachable("no address"));
        }
        let (there, back) = (state.links.link(life.node, to), state.links.link(to, life.node));
        (to, there.latency.plus(back.latency))
    };
    let patience = fabric.executor.sleep(OPEN_MAX);
    let attempt = async {
        fabric.executor.sleep(round_trip).await;
        loop {
            let dial = lock(&fabric.state).dial(life.node, to);
            match dial {
                Dial::Answer => {
                    let opened = fabric.join(&life, to, &protocols);
                    return opened.ok_or(NetError::NoCommonProtocol { peer });
                }
                Dial::Refusal => return Err(unreachable("the connection was refused")),
                // The first packets are sent again until someone answers.
                Dial::Silence => fabric.executor.sleep(Micros::from_millis(500)).await,
            }
        }
    };
    let result = match future::select(pin!(attempt), pin!(patience)).await {
        Either::Left((result, _)) => result,
        Either::Right(((), _)) => Err(unreachable("it did not answer in time")),
    };
    if !life.is_alive() {
        return Err(NetError::Closed);
    }
    if let Err(error) = &result {
        fabric.log.note(Some(life.node), "stream.not_opened", error);
    }
    result
}
