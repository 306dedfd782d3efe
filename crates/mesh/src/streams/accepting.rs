//! Which protocols are accepted, and where the streams go.
//!
//! Connections read this table from their own tasks while handles change it, so it sits behind
//! a lock that is held for a look-up only.

use std::sync::{Mutex, MutexGuard, PoisonError};

use commons_port::net::{Incoming, Protocol};
use commons_record::PeerId;
use libp2p::{Stream, StreamProtocol};
use tokio::sync::mpsc;

/// Streams that wait for an acceptor. It hands each to a task of its own and is back at once, so
/// this covers a burst from every peer; what comes beyond is reset.
const ACCEPT_BOUND: usize = 64;

/// The table of accepted protocols.
#[derive(Debug, Default)]
pub(crate) struct Accepting(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    entries: Vec<Entry>,
    is_closed: bool,
}

#[derive(Debug)]
struct Entry {
    name: StreamProtocol,
    protocol: Protocol,
    deliver: mpsc::Sender<Incoming>,
}

impl Accepting {
    /// Accepts these protocols from now on. One that was accepted already goes to the new
    /// receiver; a receiver that has lost all of its protocols ends.
    pub(crate) fn register(&self, protocols: Vec<Protocol>) -> mpsc::Receiver<Incoming> {
        let (deliver, streams) = mpsc::channel(ACCEPT_BOUND);
        let mut table = self.lock();
        if table.is_closed {
            return streams; // Its sender goes now, so it is at its end.
        }
        for protocol in protocols {
            let Some(name) = name(&protocol) else { continue };
            table.entries.retain(|entry| entry.name != name && !entry.deliver.is_closed());
            table.entries.push(Entry { name, protocol, deliver: deliver.clone() });
        }
        streams
    }

    /// What is accepted at this moment.
    pub(super) fn protocols(&self) -> Vec<StreamProtocol> {
        let mut table = self.lock();
        table.entries.retain(|entry| !entry.deliver.is_closed());
        table.entries.iter().map(|entry| entry.name.clone()).collect()
    }

    /// Hands a stream to its acceptor. Without one, or without room, it is dropped: reset.
    pub(super) fn deliver(&self, peer: PeerId, name: &StreamProtocol, stream: Stream) {
        let table = self.lock();
        let Some(entry) = table.entries.iter().find(|entry| entry.name == *name) else { return };
        let protocol = entry.protocol.clone();
        let incoming = Incoming { peer, protocol, stream: Box::new(stream) };
        if entry.deliver.try_send(incoming).is_err() {
            tracing::debug!(%peer, protocol = %entry.protocol, "no room: an incoming stream was reset");
        }
    }

    /// Ends all receivers: the host is gone.
    pub(crate) fn close(&self) {
        let mut table = self.lock();
        table.is_closed = true;
        table.entries.clear();
    }

    /// The table is never left half-changed, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// libp2p's name of a protocol. Ours begin with a slash, which is all that it asks for.
pub(crate) fn name(protocol: &Protocol) -> Option<StreamProtocol> {
    StreamProtocol::try_from_owned(protocol.as_str().to_owned()).ok()
}
