//! The network as a node sees it: streams to peers by key, and gossip to all of a mesh.
//!
//! A stream is ordered, reliable and authenticated to the peer's key by the transport. It is
//! not private from relays on the way, which is why bodies are sealed above this port.

use std::sync::Arc;

use commons_record::{Hash, PeerId};

use crate::{BoxFuture, BoxStream};

/// How a peer is to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Path {
    /// Straight to it, through whatever the transport needs. Circuits come later.
    Direct,
}

/// A protocol and its version: `/commons/<mesh>/infer/1`. Names end in `/N` (Rule N2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(String);

/// A protocol id is a path of a few short parts.
const PROTOCOL_LEN_MAX: usize = 140;

impl Protocol {
    /// The protocol of that id; `None` unless it begins with `/` and ends in `/N`.
    pub fn new(id: impl Into<String>) -> Option<Self> {
        let id = id.into();
        let (_, version) = id.rsplit_once('/')?;
        let is_number = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
        (id.starts_with('/') && is_number && id.len() <= PROTOCOL_LEN_MAX).then_some(Self(id))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A byte stream to a peer. Closing the writing half tells the peer that nothing follows.
/// Dropping the stream ends it; over some transports the peer cannot tell that from a clean end,
/// so a protocol says itself when it is complete.
pub trait Duplex: futures_io::AsyncRead + futures_io::AsyncWrite + Send + Unpin {}

impl<T: futures_io::AsyncRead + futures_io::AsyncWrite + Send + Unpin> Duplex for T {}

/// A boxed [`Duplex`].
pub type BoxDuplex = Box<dyn Duplex>;

/// A stream that was opened, with the version that both sides speak.
pub struct Opened {
    /// The protocol that was agreed on.
    pub protocol: Protocol,
    /// The stream.
    pub stream: BoxDuplex,
}

/// A stream that a peer opened.
pub struct Incoming {
    /// The peer, as the transport proved it.
    pub peer: PeerId,
    /// The protocol that was agreed on.
    pub protocol: Protocol,
    /// The stream.
    pub stream: BoxDuplex,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Incoming");
        debug.field("peer", &self.peer).field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

/// Why a peer was not reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum NetError {
    #[error("{peer} could not be reached: {detail}")]
    Unreachable { peer: PeerId, detail: String },

    #[error("{peer} speaks none of the offered versions of the protocol")]
    NoCommonProtocol { peer: PeerId },

    #[error("no network address: {detail}")]
    BadAddr { detail: String },

    #[error("the message is {size} bytes, and gossip carries {max}")]
    TooLarge { size: usize, max: usize },

    #[error("this node says of {max} things that it has them, and of no more")]
    TooMany { max: usize },

    #[error("the network is shut down")]
    Closed,
}

/// What a node does with a gossip message: only a [`Acceptance::Accept`]ed one travels on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// Deliver and relay.
    Accept,
    /// Drop without blame: stale or already known.
    Ignore,
    /// Drop, and count it against the one who sent it.
    Reject,
}

/// Judges a gossip message before it is delivered or relayed. Pure and quick.
pub type Validator = Arc<dyn Fn(&[u8]) -> Acceptance + Send + Sync>;

/// Gossip messages are single records.
pub const GOSSIP_SIZE_MAX: usize = 64 * 1024;

/// Peers that one search for providers tells at most.
pub const PROVIDERS_MAX: usize = 64;

/// How a connection to a peer changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerEvent {
    /// The first connection to the peer stands.
    Connected {
        /// The peer.
        peer: PeerId,
        /// The remote end's address.
        addr: String,
    },
    /// The last connection to the peer is gone.
    Disconnected {
        /// The peer.
        peer: PeerId,
    },
}

/// The network.
pub trait Net: Send + Sync {
    /// Our own key.
    fn local_peer(&self) -> PeerId;

    /// Addresses that others can try, as multiaddresses.
    fn listen_addrs(&self) -> BoxFuture<'static, Vec<String>>;

    /// Remembers where a peer says it is. Only for peers that were verified (Rule N4), or that
    /// a ticket names.
    fn add_addrs(&self, peer: PeerId, addrs: Vec<String>) -> Result<(), NetError>;

    /// Opens a stream with the newest of `protocols` (best first) that both sides speak.
    fn open(
        &self,
        peer: PeerId,
        protocols: Vec<Protocol>,
        path: Path,
    ) -> BoxFuture<'static, Result<Opened, NetError>>;

    /// Accepts streams of these protocols until the result is dropped. A bounded number may
    /// wait; what comes beyond is reset.
    fn accept(&self, protocols: Vec<Protocol>) -> BoxStream<'static, Incoming>;

    /// Sends a message to all subscribers of a topic.
    fn publish(&self, topic: String, message: Vec<u8>) -> BoxFuture<'static, Result<(), NetError>>;

    /// Receives a topic's messages that `validator` accepts, until the result is dropped.
    fn subscribe(&self, topic: String, validator: Validator) -> BoxStream<'static, Vec<u8>>;

    /// Says to the members that this node has what `key` names, and says it again while it runs;
    /// or says so no longer, which others learn within hours. A key says nothing of what it names.
    fn provide(&self, key: Hash, is_on: bool) -> BoxFuture<'static, Result<(), NetError>>;

    /// Peers that say to have what `key` names, as they are found, [`PROVIDERS_MAX`] at most and each
    /// once; ends when no more will be found. It is their word: whoever asks them finds out.
    fn providers(&self, key: Hash) -> BoxStream<'static, PeerId>;

    /// Connections as they come and go, beginning with those that stand.
    fn peer_events(&self) -> BoxStream<'static, PeerEvent>;
}
