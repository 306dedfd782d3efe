//! Who is connected, told to any number of listeners without a queue.
//!
//! The host publishes the whole picture; each listener remembers the one it saw last and is told
//! the difference. A slow listener therefore costs nothing, stalls nobody and never sees a state
//! that was not there: it only misses what came and went while it looked away. A peer that went
//! and came back meanwhile is told as gone and connected again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use commons_port::BoxStream;
use commons_port::net::PeerEvent;
use commons_record::PeerId;
use futures::{StreamExt as _, stream};
use tokio::sync::watch;

/// All connected peers at one moment. As many as there may be connections.
pub(crate) type Standing = Arc<BTreeMap<PeerId, Session>>;

/// A time during which at least one connection with a peer stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    /// Never the same for two sessions.
    number: u64,
    addr: String,
}

/// The host's side of the picture.
#[derive(Debug)]
pub(crate) struct Sessions {
    standing: watch::Sender<Standing>,
    started: u64,
}

impl Sessions {
    /// Nobody yet; and the receiver that listeners are made from.
    pub(crate) fn new() -> (Self, watch::Receiver<Standing>) {
        let (standing, receiver) = watch::channel(Standing::default());
        (Self { standing, started: 0 }, receiver)
    }

    /// A connection with a peer stands. Further ones belong to the same session.
    pub(crate) fn start(&mut self, peer: PeerId, addr: String) {
        if self.standing.borrow().contains_key(&peer) {
            return;
        }
        self.started += 1;
        let session = Session { number: self.started, addr };
        self.standing.send_modify(|standing| {
            Arc::make_mut(standing).insert(peer, session);
        });
    }

    /// The last connection with a peer is gone.
    pub(crate) fn end(&mut self, peer: PeerId) {
        self.standing.send_modify(|standing| {
            Arc::make_mut(standing).remove(&peer);
        });
    }

    /// Nobody is connected any more.
    pub(crate) fn end_all(&mut self) {
        self.standing.send_replace(Standing::default());
    }
}

/// Connections as they come and go, beginning with those that stand; ends with the host.
pub(crate) fn events(mut receiver: watch::Receiver<Standing>) -> BoxStream<'static, PeerEvent> {
    receiver.mark_changed();
    let seen = (receiver, Standing::default(), VecDeque::new());
    let events = stream::unfold(seen, |(mut receiver, mut last, mut queue)| async move {
        while queue.is_empty() {
            receiver.changed().await.ok()?;
            let next = receiver.borrow_and_update().clone();
            queue = difference(&last, &next);
            last = next;
        }
        queue.pop_front().map(|event| (event, (receiver, last, queue)))
    });
    Box::pin(events.fuse()) // Asking after the end is no mistake.
}

/// What happened between two pictures: first who went, then who came.
fn difference(last: &Standing, next: &Standing) -> VecDeque<PeerEvent> {
    let same = |peer, session: &Session| {
        let number = |standing: &Standing| standing.get(peer).map(|it: &Session| it.number);
        number(last) == Some(session.number) && number(next) == Some(session.number)
    };
    let gone = last.iter().filter(|(peer, session)| !same(*peer, session));
    let come = next.iter().filter(|(peer, session)| !same(*peer, session));
    gone.map(|(peer, _)| PeerEvent::Disconnected { peer: *peer })
        .chain(come.map(|(peer, session)| PeerEvent::Connected {
            peer: *peer,
            addr: session.addr.clone(),
        }))
        .collect()
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId::from_bytes([number; 32])
    }

    /// Everything a listener is told at this moment, in short.
    fn drain(events: &mut BoxStream<'static, PeerEvent>) -> Vec<(char, u8)> {
        let mut told = Vec::new();
        while let Some(Some(event)) = events.next().now_or_never() {
            told.push(match event {
                PeerEvent::Connected { peer, .. } => ('+', peer.as_bytes()[0]),
                PeerEvent::Disconnected { peer } => ('-', peer.as_bytes()[0]),
            });
        }
        told
    }

    #[test]
    fn a_listener_begins_with_those_that_stand() {
        let (mut sessions, receiver) = Sessions::new();
        sessions.start(peer(1), "a".into());
        sessions.start(peer(2), "b".into());
        sessions.end(peer(1));
        let mut told = events(receiver.clone());
        assert_eq!(drain(&mut told), [('+', 2)]);
        sessions.start(peer(3), "c".into());
        sessions.end(peer(2));
        assert_eq!(drain(&mut told), [('-', 2), ('+', 3)]);
        assert_eq!(drain(&mut events(receiver)), [('+', 3)]);
    }

    #[test]
    fn a_slow_listener_is_told_of_a_return_and_not_of_a_visit() {
        let (mut sessions, receiver) = Sessions::new();
        let mut told = events(receiver);
        sessions.start(peer(1), "a".into());
        assert_eq!(drain(&mut told), [('+', 1)]);
        sessions.start(peer(1), "a second connection".into());
        assert_eq!(drain(&mut told), []);
        for _ in 0..1000 {
            sessions.end(peer(1));
            sessions.start(peer(1), "a".into());
            sessions.start(peer(2), "b".into());
            sessions.end(peer(2));
        }
        assert_eq!(drain(&mut told), [('-', 1), ('+', 1)]);
    }

    #[test]
    fn a_listener_ends_with_the_host() {
        let (mut sessions, receiver) = Sessions::new();
        let mut told = events(receiver);
        sessions.start(peer(1), "a".into());
        assert_eq!(drain(&mut told), [('+', 1)]);
        sessions.end_all();
        drop(sessions);
        assert_eq!(drain(&mut told), [('-', 1)]);
        assert_eq!(told.next().now_or_never(), Some(None));
    }
}
