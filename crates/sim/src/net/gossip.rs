//! Gossip: messages to all subscribers of a topic, hop by hop over standing connections.
//!
//! A node that accepts a message sends it to all its neighbours but the one it came from. It
//! remembers what it saw for a while. Loss, duplicates and disorder come from the links; a
//! neighbour whose messages are rejected too often is no longer listened to.

use std::sync::Arc;

use commons_port::BoxStream;
use commons_port::net::{Acceptance, GOSSIP_SIZE_MAX, NetError, Validator};
use commons_record::Hash;
use tokio::sync::mpsc;

use super::{Fabric, State, pair};
use crate::clock::Micros;
use crate::life::{Life, NodeId};
use crate::lock;

/// Messages that wait for a node, as in `mesh`; more are lost.
const QUEUE: usize = 64;

/// How long a node remembers what it saw: gossipsub's order of magnitude.
const SEEN_FOR: Micros = Micros::from_secs(120);

/// Rejected messages after which a neighbour is no longer listened to.
const REJECTED_MAX: u32 = 16;

/// One topic of one node.
pub(super) struct Subscription {
    validator: Validator,
    queue: mpsc::Sender<Vec<u8>>,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Subscription")
    }
}

/// A message on its way.
#[derive(Debug)]
struct Message {
    id: Hash,
    topic: String,
    bytes: Vec<u8>,
}

/// Whether a message is compared with those that were seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copy {
    First,
    /// A late one, after the network has forgotten the first.
    Again,
}

impl State {
    /// Remembers a message; false if it was known.
    fn see(&mut self, node: NodeId, id: Hash, now: Micros) -> bool {
        let host = &mut self.hosts[node.index()];
        while let Some((at, old)) = host.seen_order.front().copied()
            && at.plus(SEEN_FOR) < now
        {
            host.seen_order.pop_front();
            host.seen.remove(&old);
        }
        let is_new = host.seen.insert(id);
        if is_new {
            host.seen_order.push_back((now, id));
        }
        is_new
    }
}

impl Fabric {
    pub(super) fn subscribe(
        &self,
        life: &Life,
        topic: String,
        validator: Validator,
    ) -> BoxStream<'static, Vec<u8>> {
        let (queue, mut receiver) = mpsc::channel(QUEUE);
        if life.is_alive() {
            let subscription = Subscription { validator, queue };
            let old = lock(&self.state).hosts[life.node.index()].topics.insert(topic, subscription);
            drop(old);
        }
        Box::pin(futures::stream::poll_fn(move |ctx| receiver.poll_recv(ctx)))
    }

    pub(super) fn publish(
        self: &Arc<Self>,
        life: &Life,
        topic: String,
        bytes: Vec<u8>,
    ) -> Result<(), NetError> {
        if !life.is_alive() {
            return Err(NetError::Closed);
        }
        if bytes.len() > GOSSIP_SIZE_MAX {
            return Err(NetError::TooLarge { size: bytes.len(), max: GOSSIP_SIZE_MAX });
        }
        let id = Hash::of_fields("sim/gossip", &[topic.as_bytes(), &bytes]);
        let now = self.executor.now();
        lock(&self.state).see(life.node, id, now);
        self.log.note(Some(life.node), "gossip.published", format_args!("{topic} {}", bytes.len()));
        self.relay(life.node, None, &Arc::new(Message { id, topic, bytes }));
        Ok(())
    }

    /// Sends a message to all neighbours of `node` but `source`.
    fn relay(self: &Arc<Self>, node: NodeId, source: Option<NodeId>, message: &Arc<Message>) {
        let mut sends = Vec::new();
        {
            let now = self.executor.now();
            let mut state = lock(&self.state);
            let state = &mut *state;
            let neighbours = &state.hosts[node.index()].neighbours;
            for to in neighbours.iter().copied().filter(|it| Some(*it) != source) {
                let link = state.links.link(node, to);
                if state.rng.chance(link.loss_per_mille) {
                    continue;
                }
                let jitter = Micros(state.rng.within(0, link.jitter.0));
                sends.push((to, now.plus(link.latency).plus(jitter), Copy::First));
                if state.rng.chance(link.duplicate_per_mille) {
                    let late = Micros(state.rng.within(0, 5_000_000));
                    sends.push((to, now.plus(link.latency).plus(late), Copy::Again));
                }
            }
        }
        for (to, at, copy) in sends {
            let message = Arc::clone(message);
            self.transmit(node, to, at, move |fabric| fabric.receive(to, node, copy, &message));
        }
    }

    fn receive(self: &Arc<Self>, node: NodeId, source: NodeId, copy: Copy, message: &Arc<Message>) {
        let validator = {
            let now = self.executor.now();
            let mut state = lock(&self.state);
            if !state.connections.contains_key(&pair(node, source)) {
                return;
            }
            let host = &state.hosts[node.index()];
            let is_muted = host.rejected.get(&source).is_some_and(|it| *it >= REJECTED_MAX);
            if host.life.is_none() || is_muted || !host.topics.contains_key(&message.topic) {
                return;
            }
            let is_new = state.see(node, message.id, now);
            if !is_new && copy == Copy::First {
                return;
            }
            let Some(topic) = state.hosts[node.index()].topics.get(&message.topic) else { return };
            Arc::clone(&topic.validator)
        };
        match validator(&message.bytes) {
            Acceptance::Accept => self.deliver(node, source, message),
            Acceptance::Ignore => {}
            Acceptance::Reject => {
                let mut state = lock(&self.state);
                let host = &mut state.hosts[node.index()];
                let count = host.rejected.entry(source).or_default();
                *count = count.saturating_add(1);
                self.log.note(Some(node), "gossip.rejected", format_args!("from {source}"));
            }
        }
    }

    fn deliver(self: &Arc<Self>, node: NodeId, source: NodeId, message: &Arc<Message>) {
        let queue = {
            let state = lock(&self.state);
            let topic = state.hosts[node.index()].topics.get(&message.topic);
            topic.map(|topic| topic.queue.clone())
        };
        let Some(queue) = queue else { return };
        match queue.try_send(message.bytes.clone()) {
            Ok(()) => self.log.note(Some(node), "gossip.delivered", format_args!("by {source}")),
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.log.note(Some(node), "gossip.overflow", format_args!("by {source}"));
            }
            // The node dropped its subscription: it no longer relays either.
            Err(mpsc::error::TrySendError::Closed(_)) => {
                let old = lock(&self.state).hosts[node.index()].topics.remove(&message.topic);
                drop(old);
                return;
            }
        }
        self.relay(node, Some(source), message);
    }
}
