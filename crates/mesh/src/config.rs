//! What a host is told when it starts.

use commons_record::SecretKey;

/// How a host of one mesh is set up.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MeshConfig {
    /// The node's signing key: peers reach us by its public half.
    pub key: SecretKey,
    /// A part of the names of the host's own protocols (gossip, kad, identify), so that networks
    /// with other names do not mix. Meshes are told apart above: by streams and topics.
    pub scope: String,
    /// Multiaddresses to listen on. Nothing else is ever listened on.
    pub listen: Vec<String>,
    /// Multiaddresses at which the owner knows that others reach us: a forwarded port, say. They
    /// are told to peers as they are; the others are found out by asking peers to try.
    pub external: Vec<String>,
    /// Whether connected peers may ask us to try the addresses that they name (AutoNAT server).
    /// Off unless told: whoever reaches us could look around in our network with it.
    pub probes_for_others: bool,
    /// How much peers may make us hold.
    pub limits: Limits,
}

impl MeshConfig {
    /// A host that listens on free loopback ports only, over QUIC and TCP.
    pub fn new(key: SecretKey, scope: impl Into<String>) -> Self {
        let listen = ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"];
        Self {
            key,
            scope: scope.into(),
            listen: listen.map(String::from).to_vec(),
            external: Vec::new(),
            probes_for_others: false,
            limits: Limits::default(),
        }
    }
}

/// How much peers may make us hold.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections that stand at once. A gossip host needs a dozen; the rest is for streams.
    pub connections: u32,
    /// Of these, those that others opened: the remainder is always left for our own dials, so
    /// that strangers cannot surround us.
    pub connections_incoming: u32,
    /// Connections with one peer. Two that dial each other at once hold two; a relayed one that
    /// is being replaced and a reachability probe come on top.
    pub connections_per_peer: u32,
    /// Handshakes in progress, each way. They are cheap and last seconds.
    pub connections_pending: u32,
    /// Peers whose addresses are remembered; the one unheard of for longest makes room.
    pub peers: usize,
    /// Remembered peers that we keep connected by dialling. Gossip holds a mesh together with
    /// far fewer; beyond it, a connection is made when a stream is wanted.
    pub peers_kept: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            connections_incoming: 192,
            connections_per_peer: 8,
            connections_pending: 64,
            peers: 1024,
            peers_kept: 64,
        }
    }
}

/// Scopes go into protocol names, which have a bound of their own.
const SCOPE_LEN_MAX: usize = 64;

/// Addresses of one kind: two transports on a few interfaces and a few relays.
const ADDRS_MAX: usize = 32;

impl MeshConfig {
    /// Refuses what cannot be used, before anything is opened.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_scope = (1..=SCOPE_LEN_MAX).contains(&self.scope.len());
        if !is_scope || !self.scope.bytes().all(is_plain) {
            return Err(StartError::Scope { scope: self.scope.chars().take(80).collect() });
        }
        let count = self.listen.len().max(self.external.len());
        if count > ADDRS_MAX {
            return Err(StartError::TooManyAddrs { count, max: ADDRS_MAX });
        }
        Ok(())
    }
}

/// Why a host did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum StartError {
    #[error("the mesh scope {scope:?} is not 1 to 64 lower-case letters and digits")]
    Scope { scope: String },

    #[error("{count} addresses are more than {max}")]
    TooManyAddrs { count: usize, max: usize },

    #[error("{addr:?} is not an address of this node: {detail}")]
    BadAddr { addr: String, detail: String },

    #[error("failed to listen on {addr}")]
    Listen { addr: String, source: std::io::Error },

    #[error("the network stack refused its configuration: {detail}")]
    Stack { detail: String },
}
