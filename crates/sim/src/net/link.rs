//! Links: how fast, how lossy, and cut or not.
//!
//! A link is one direction between two nodes, so that a cut can be one-sided. What nobody set is
//! drawn from the seed by the pair alone, so ten thousand nodes need no table.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Micros;
use crate::entropy::Rng;
use crate::life::NodeId;

/// One direction between two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The shortest time from end to end.
    pub latency: Micros,
    /// What is added to it at most, drawn for each packet. It is what reorders gossip.
    pub jitter: Micros,
    /// Bytes a second of one stream.
    pub bytes_per_s: u64,
    /// Packets lost in a thousand: a stream sends again and stalls, gossip is gone.
    pub loss_per_mille: u32,
    /// Gossip messages in a thousand that arrive once more, past the network's own memory.
    pub duplicate_per_mille: u32,
}

impl Link {
    /// Machines in one room.
    pub const ROOM: Self = Self {
        latency: Micros(300),
        jitter: Micros(200),
        bytes_per_s: 100_000_000,
        loss_per_mille: 0,
        duplicate_per_mille: 5,
    };

    /// A link so slow that what is written waits.
    pub const SLOW: Self = Self {
        latency: Micros(400_000),
        jitter: Micros(100_000),
        bytes_per_s: 2_000,
        loss_per_mille: 20,
        duplicate_per_mille: 5,
    };

    /// What the internet is like between two nodes of that seed: the same both ways.
    fn drawn(seed: u64, one: NodeId, other: NodeId) -> Self {
        let pair = u64::from(one.min(other).0) << 32 | u64::from(one.max(other).0);
        let mut rng = Rng::new(seed, "link", pair);
        Self {
            latency: Micros(rng.within(2_000, 90_000)),
            jitter: Micros(rng.within(0, 9_000)),
            bytes_per_s: rng.within(500_000, 50_000_000),
            loss_per_mille: 2,
            duplicate_per_mille: 5,
        }
    }
}

/// Everything between the nodes.
#[derive(Debug)]
pub(super) struct Links {
    seed: u64,
    default: Option<Link>,
    set: BTreeMap<(NodeId, NodeId), Link>,
    cut: BTreeSet<(NodeId, NodeId)>,
    groups: BTreeMap<NodeId, u32>,
}

impl Links {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            default: None,
            set: BTreeMap::new(),
            cut: BTreeSet::new(),
            groups: BTreeMap::new(),
        }
    }

    pub(super) fn link(&self, from: NodeId, to: NodeId) -> Link {
        let set = self.set.get(&(from, to)).copied().or(self.default);
        set.unwrap_or_else(|| Link::drawn(self.seed, from, to))
    }

    pub(super) fn set(&mut self, from: NodeId, to: NodeId, link: Link) {
        self.set.insert((from, to), link);
    }

    pub(super) fn set_default(&mut self, link: Link) {
        self.default = Some(link);
    }

    pub(super) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    /// Nodes of different groups cannot reach each other; unnamed nodes are one more group.
    pub(super) fn split(&mut self, groups: &[&[NodeId]]) {
        let numbered = groups.iter().zip(1..);
        self.groups =
            numbered.flat_map(|(nodes, group)| nodes.iter().map(move |it| (*it, group))).collect();
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
        self.groups.clear();
    }

    pub(super) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        let group = |node| self.groups.get(node).copied().unwrap_or(0);
        self.cut.contains(&(from, to)) || group(&from) != group(&to)
    }

    /// Cut in either direction: no connection can live long on it.
    pub(super) fn is_broken(&self, one: NodeId, other: NodeId) -> bool {
        self.is_cut(one, other) || self.is_cut(other, one)
    }
}
