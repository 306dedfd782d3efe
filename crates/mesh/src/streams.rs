//! Streams to and from peers, as one libp2p behaviour.
//!
//! ```text
//! open:   host -> Streams::open -> Handler -> one negotiation, best version first -> reply
//! accept: Handler -> Accepting (protocol -> bounded channel) -> whoever called `Net::accept`
//! ```
//!
//! `libp2p-stream` is not used, for three reasons seen in its 0.5 source: it never forgets the
//! channel of a closed connection, so a peer that reconnects in a loop fills our memory; one
//! waiting stream is all that an acceptor can hold, so a burst is reset; and it negotiates one
//! version per attempt. Here one negotiation offers all versions, a queue of known length waits
//! for the acceptor, and everything goes with its connection.
//!
//! Not here: dialling (see `host.rs`). A peer that is not connected is refused.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::behaviour::ConnectionEstablished;
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler,
    THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};
use tokio::sync::oneshot;

use crate::identity;

mod accepting;
mod handler;

pub(crate) use accepting::{Accepting, name};
use handler::{FromStreams, Handler};

/// A stream and what was agreed on.
pub(crate) type Negotiated = (StreamProtocol, Stream);

/// Why a stream to a peer was not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// The peer is there and speaks none of the versions.
    NoCommonProtocol,
    /// The peer is not there, or did not answer; the detail is for people.
    Unreachable(String),
}

/// Who waits for a stream. Dropping it tells them that the connection is gone.
pub(crate) type Reply = oneshot::Sender<Result<Negotiated, OpenError>>;

/// A stream to be opened: versions, best first.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    pub(crate) protocols: Vec<StreamProtocol>,
    pub(crate) reply: Reply,
}

/// The behaviour: which connections stand, and what is to be told to them.
#[derive(Debug)]
pub(crate) struct Streams {
    accepting: Arc<Accepting>,
    peers: BTreeMap<PeerId, Connections>,
    /// Drained on every poll, and filled only by the host, a few entries at a time.
    outbox: VecDeque<(PeerId, ConnectionId, FromStreams)>,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct Connections {
    /// Oldest first, with whether it is relayed.
    standing: Vec<(ConnectionId, bool)>,
    /// Whether idle connections with the peer are held open.
    is_kept: bool,
}

/// The peer's transport key is of a kind that no member has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer's key is not an ed25519 key")]
pub(crate) struct ForeignKey;

impl Streams {
    /// A behaviour that hands what peers open to `accepting`.
    pub(crate) fn new(accepting: Arc<Accepting>) -> Self {
        Self { accepting, peers: BTreeMap::new(), outbox: VecDeque::new(), waker: None }
    }

    /// Opens a stream on the best connection that stands: a direct one before a relayed one,
    /// and the newest of these, since an older one may be dead without our knowing yet.
    pub(crate) fn open(&mut self, peer: PeerId, request: OpenRequest) {
        let best = self.peers.get(&peer).and_then(|connections| {
            connections.standing.iter().rev().min_by_key(|(_, is_relayed)| *is_relayed)
        });
        match best {
            Some(&(connection, _)) => self.tell(peer, connection, FromStreams::Open(request)),
            None => {
                let refusal = OpenError::Unreachable("it is not connected".to_owned());
                // Whoever asked may have gone: then nobody needs the answer.
                let _ = request.reply.send(Err(refusal));
            }
        }
    }

    /// Holds idle connections with a peer open, or no longer does.
    pub(crate) fn keep(&mut self, peer: PeerId, is_kept: bool) {
        if is_kept {
            self.peers.entry(peer).or_default().is_kept = true;
        } else if let Some(connections) = self.peers.get_mut(&peer) {
            connections.is_kept = false;
        }
        let standing = self.peers.get(&peer).map(|it| it.standing.clone()).unwrap_or_default();
        for (connection, _) in standing {
            self.tell(peer, connection, FromStreams::Keep(is_kept));
        }
        self.forget_if_idle(peer);
    }

    fn tell(&mut self, peer: PeerId, connection: ConnectionId, event: FromStreams) {
        self.outbox.push_back((peer, connection, event));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn handler(&self, peer: PeerId, is_relayed: bool) -> Result<Handler, ConnectionDenied> {
        let Some(remote) = identity::from_libp2p(&peer) else {
            return Err(ConnectionDenied::new(ForeignKey));
        };
        let is_kept = self.peers.get(&peer).is_some_and(|connections| connections.is_kept);
        Ok(Handler::new(remote, self.accepting.clone(), is_kept, is_relayed))
    }

    fn forget_if_idle(&mut self, peer: PeerId) {
        let is_idle = |it: &Connections| it.standing.is_empty() && !it.is_kept;
        if self.peers.get(&peer).is_some_and(is_idle) {
            self.peers.remove(&peer);
        }
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let point =
            ConnectedPoint::Listener { local_addr: local.clone(), send_back_addr: remote.clone() };
        self.handler(peer, point.is_relayed())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role_override: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let point = ConnectedPoint::Dialer { address: address.clone(), role_override, port_use };
        self.handler(peer, point.is_relayed())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => {
                let connections = self.peers.entry(peer_id).or_default();
                connections.standing.push((connection_id, endpoint.is_relayed()));
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                if let Some(connections) = self.peers.get_mut(&peer_id) {
                    connections.standing.retain(|(id, _)| *id != connection_id);
                }
                self.forget_if_idle(peer_id);
            }
            // Addresses and dials are the host's.
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // An event for a connection that has closed meanwhile is dropped, and its reply with it.
        if let Some((peer_id, connection, event)) = self.outbox.pop_front() {
            let handler = NotifyHandler::One(connection);
            return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event });
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
