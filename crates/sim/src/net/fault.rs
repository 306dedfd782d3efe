//! Faults: cutting and mending links, crashing and starting hosts.

use std::sync::Arc;

use super::connect::Power;
use super::{Fabric, IDLE_MAX, Link, State, pair};
use crate::clock::Micros;
use crate::life::{Life, NodeId};
use crate::lock;

/// How the peers of a crashed node learn of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process was killed: its machine resets every connection.
    Killed,
    /// The machine lost power or network: peers hear nothing and give up after a while.
    Silent,
}

impl State {
    /// Ends a connection for both sides. What waited on it is returned, to be dropped outside.
    fn disconnect(&mut self, one: NodeId, other: NodeId) -> Option<super::Connection> {
        let connection = self.connections.remove(&pair(one, other))?;
        for id in &connection.streams {
            if let Some(stream) = self.streams.get_mut(id) {
                stream.kill(&mut self.rng);
                if stream.is_abandoned() {
                    self.streams.remove(id);
                }
            }
        }
        self.forget(one, other);
        self.forget(other, one);
        Some(connection)
    }
}

impl Fabric {
    /// Uses `link` wherever no other was set, in place of what the seed draws.
    pub fn set_default_link(&self, link: Link) {
        lock(&self.state).links.set_default(link);
    }

    /// Uses `link` from one node to another, in that direction.
    pub fn set_link(&self, from: NodeId, to: NodeId, link: Link) {
        lock(&self.state).links.set(from, to, link);
    }

    /// Whether others can dial a node. One that cannot be dialled can still dial.
    pub fn set_dialable(&self, node: NodeId, is_dialable: bool) {
        lock(&self.state).hosts[node.index()].is_dialable = is_dialable;
    }

    /// Lets nothing through from one node to another, in that direction only.
    pub fn cut(self: &Arc<Self>, from: NodeId, to: NodeId) {
        lock(&self.state).links.cut(from, to);
        self.log.note(Some(from), "link.cut", to);
        self.watch_broken();
    }

    /// Lets nothing through between these groups; nodes that are named in none form another.
    pub fn split(self: &Arc<Self>, groups: &[&[NodeId]]) {
        lock(&self.state).links.split(groups);
        self.log.note(None, "net.split", format_args!("{groups:?}"));
        self.watch_broken();
    }

    /// Mends every cut. What waited on connections that still stand arrives.
    pub fn heal(self: &Arc<Self>) {
        self.log.note(None, "net.healed", "");
        let now = self.executor.now();
        let mut waiting = Vec::new();
        {
            let mut state = lock(&self.state);
            let state = &mut *state;
            state.links.heal();
            for connection in state.connections.values_mut() {
                connection.broken_since = None;
                for (from, to, deliver) in std::mem::take(&mut connection.waiting) {
                    waiting.push((from, to, now.plus(state.links.link(from, to).latency), deliver));
                }
            }
        }
        for (from, to, at, deliver) in waiting {
            self.transmit(from, to, at, deliver);
        }
    }

    /// Ends connections that stay broken for too long.
    fn watch_broken(self: &Arc<Self>) {
        let now = self.executor.now();
        let mut broken = Vec::new();
        let mut state = lock(&self.state);
        let state = &mut *state;
        for ((one, other), connection) in &mut state.connections {
            if connection.broken_since.is_none() && state.links.is_broken(*one, *other) {
                connection.broken_since = Some(now);
                broken.push((*one, *other, connection.id));
            }
        }
        for (one, other, id) in broken {
            self.give_up_later(one, other, id, now);
        }
    }

    fn give_up_later(self: &Arc<Self>, one: NodeId, other: NodeId, id: u64, since: Micros) {
        let fabric = Arc::clone(self);
        self.executor.schedule(since.plus(IDLE_MAX), move || {
            let mut state = lock(&fabric.state);
            let connection = state.connections.get(&pair(one, other));
            let is_same =
                connection.is_some_and(|it| it.id == id && it.broken_since == Some(since));
            if !is_same {
                return;
            }
            let dropped = state.disconnect(one, other);
            drop(state);
            drop(dropped);
            fabric.log.note(Some(one), "net.gave_up", other);
            fabric.redial(one, other);
            fabric.redial(other, one);
        });
    }

    /// Switches a host on for a new run of its node. It knows nobody.
    pub(crate) fn power_on(&self, life: Arc<Life>) {
        let mut state = lock(&self.state);
        let host = &mut state.hosts[life.node.index()];
        host.power = Power::On;
        host.life = Some(life);
    }

    /// Switches a host off. Its peers see resets a latency later, or nothing for a while.
    pub(crate) fn power_off(self: &Arc<Self>, node: NodeId, crash: Crash) {
        let mut state = lock(&self.state);
        let host = &mut state.hosts[node.index()];
        host.power = match crash {
            Crash::Killed => Power::Refusing,
            Crash::Silent => Power::Silent,
        };
        host.life = None;
        host.known.clear();
        host.dialling.clear();
        host.seen.clear();
        host.seen_order.clear();
        host.rejected.clear();
        let acceptors = std::mem::take(&mut host.acceptors);
        let listeners = std::mem::take(&mut host.listeners);
        let topics = std::mem::take(&mut host.topics);
        let neighbours: Vec<NodeId> = std::mem::take(&mut host.neighbours).into_iter().collect();
        let mut dropped = Vec::new();
        for peer in neighbours {
            let Some(connection) = state.connections.remove(&pair(node, peer)) else { continue };
            let ids = connection.streams.iter().copied().collect();
            let at = self.noticed_at(&state, node, peer, crash);
            self.lose_later(node, peer, ids, at);
            dropped.push(connection);
        }
        drop(state);
        drop((acceptors, listeners, topics, dropped));
    }

    fn noticed_at(&self, state: &State, node: NodeId, peer: NodeId, crash: Crash) -> Micros {
        let is_told = crash == Crash::Killed && !state.links.is_cut(node, peer);
        let delay = if is_told { state.links.link(node, peer).latency } else { IDLE_MAX };
        self.executor.now().plus(delay)
    }

    /// At `at`, `peer` finds that these streams and its connection to `node` are gone.
    fn lose_later(self: &Arc<Self>, node: NodeId, peer: NodeId, ids: Vec<u64>, at: Micros) {
        let fabric = Arc::clone(self);
        self.executor.schedule(at, move || {
            let mut state = lock(&fabric.state);
            let state = &mut *state;
            for id in ids {
                let Some(stream) = state.streams.get_mut(&id) else { continue };
                let end = usize::from(stream.ends[1] == peer);
                stream.kill_end(end, &mut state.rng);
                stream.release(1 - end);
                if stream.is_abandoned() {
                    state.streams.remove(&id);
                }
            }
            if !state.connections.contains_key(&pair(node, peer)) {
                state.forget(peer, node);
            }
            fabric.log.note(Some(peer), "net.lost", node);
            fabric.redial_unlocked(peer, node);
        });
    }

    /// Dials again from a place that holds the lock: at the executor's next turn.
    fn redial_unlocked(self: &Arc<Self>, node: NodeId, peer: NodeId) {
        let fabric = Arc::clone(self);
        self.executor.schedule(self.executor.now(), move || {
            fabric.redial(node, peer);
        });
    }
}
