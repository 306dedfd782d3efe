//! A network that is not there: the local endpoint serves in spite of it.
//!
//! It stands in when no socket could be opened. Every question is answered with the reason.

use std::sync::Arc;

use commons_port::net::{Incoming, Net, NetError, Opened, Path, PeerEvent, Protocol, Validator};
use commons_port::{BoxFuture, BoxStream};
use commons_record::{Hash, PeerId};

/// A network without any socket.
#[derive(Debug, Clone)]
pub(crate) struct OfflineNet {
    local: PeerId,
    reason: Arc<str>,
}

impl OfflineNet {
    /// A network of `local` that is away for this reason.
    pub(crate) fn new(local: PeerId, reason: &str) -> Self {
        Self { local, reason: reason.into() }
    }

    fn error(&self) -> NetError {
        NetError::BadAddr { detail: format!("this node runs without a network: {}", self.reason) }
    }
}

impl Net for OfflineNet {
    fn local_peer(&self) -> PeerId {
        self.local
    }

    fn listen_addrs(&self) -> BoxFuture<'static, Vec<String>> {
        Box::pin(async { Vec::new() })
    }

    fn add_addrs(&self, _peer: PeerId, _addrs: Vec<String>) -> Result<(), NetError> {
        Err(self.error())
    }

    fn open(
        &self,
        peer: PeerId,
        _protocols: Vec<Protocol>,
        _path: Path,
    ) -> BoxFuture<'static, Result<Opened, NetError>> {
        let detail = self.error().to_string();
        Box::pin(async move { Err(NetError::Unreachable { peer, detail }) })
    }

    fn accept(&self, _protocols: Vec<Protocol>) -> BoxStream<'static, Incoming> {
        Box::pin(futures::stream::pending())
    }

    fn publish(
        &self,
        _topic: String,
        _message: Vec<u8>,
    ) -> BoxFuture<'static, Result<(), NetError>> {
        let error = self.error();
        Box::pin(async move { Err(error) })
    }

    fn subscribe(&self, _topic: String, _validator: Validator) -> BoxStream<'static, Vec<u8>> {
        Box::pin(futures::stream::pending())
    }

    fn provide(&self, _key: Hash, _is_on: bool) -> BoxFuture<'static, Result<(), NetError>> {
        let error = self.error();
        Box::pin(async move { Err(error) })
    }

    fn providers(&self, _key: Hash) -> BoxStream<'static, PeerId> {
        Box::pin(futures::stream::empty())
    }

    fn peer_events(&self) -> BoxStream<'static, PeerEvent> {
        Box::pin(futures::stream::pending())
    }
}
