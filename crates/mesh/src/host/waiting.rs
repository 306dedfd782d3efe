//! Streams that wait for a connection to stand.

use std::collections::BTreeMap;

use commons_record::PeerId;

use crate::streams::{OpenError, OpenRequest};

/// Streams that may wait for one peer: as many as its connection would take at once.
const PER_PEER_MAX: usize = 64;

/// Streams that may wait in all. Each is a caller of ours that waits with it.
const WAITING_MAX: usize = 1024;

/// The waiting streams, by peer.
#[derive(Debug, Default)]
pub(super) struct Waiting(BTreeMap<PeerId, Vec<OpenRequest>>);

impl Waiting {
    /// Lets a stream wait; gives it back if there is no room.
    pub(super) fn push(&mut self, peer: PeerId, request: OpenRequest) -> Result<(), OpenRequest> {
        let count: usize = self.0.values().map(Vec::len).sum();
        let queue = self.0.entry(peer).or_default();
        if count >= WAITING_MAX || queue.len() >= PER_PEER_MAX {
            return Err(request);
        }
        queue.push(request);
        Ok(())
    }

    /// The streams that wait for a peer, first come first.
    pub(super) fn take(&mut self, peer: PeerId) -> Vec<OpenRequest> {
        self.0.remove(&peer).unwrap_or_default()
    }

    /// Tells all who wait for a peer that it was not reached.
    pub(super) fn fail(&mut self, peer: PeerId, detail: &str) {
        for request in self.take(peer) {
            // Whoever asked may have given up: then nobody needs the answer.
            let _ = request.reply.send(Err(OpenError::Unreachable(detail.to_owned())));
        }
    }

    /// Lets go of those that nobody waits with any more.
    pub(super) fn sweep(&mut self) {
        self.0.retain(|_, queue| {
            queue.retain(|request| !request.reply.is_closed());
            !queue.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_stream_beyond_the_bound_is_given_back_and_abandoned_ones_make_room() {
        let mut waiting = Waiting::default();
        let peer = PeerId::from_bytes([1; 32]);
        let mut answers = Vec::new();
        let mut push = |waiting: &mut Waiting| {
            let (reply, answer) = oneshot::channel();
            answers.push(answer);
            waiting.push(peer, OpenRequest { protocols: vec![], reply }).is_ok()
        };
        for _ in 0..PER_PEER_MAX {
            assert!(push(&mut waiting));
        }
        assert!(!push(&mut waiting));
        answers.clear();
        waiting.sweep();
        assert!(waiting.0.is_empty());
    }

    #[test]
    fn all_who_wait_for_a_peer_are_told_that_it_was_not_reached() {
        let mut waiting = Waiting::default();
        let peer = PeerId::from_bytes([1; 32]);
        let (reply, mut answer) = oneshot::channel();
        assert!(waiting.push(peer, OpenRequest { protocols: vec![], reply }).is_ok());
        waiting.fail(peer, "no route");
        let told = answer.try_recv().unwrap().map(|_| ());
        assert_eq!(told, Err(OpenError::Unreachable("no route".to_owned())));
    }
}
