//! Which node, and which run of it.
//!
//! A crash ends a [`Life`]; starting again begins another. Everything that a node was lent holds
//! its life, so that whatever a destructor does after the crash reaches nobody.

use std::sync::atomic::{AtomicBool, Ordering};

/// A node of this world, by the order in which it was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl NodeId {
    /// Its index in the world's list.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// One run of a node: from its start to its crash.
#[derive(Debug)]
pub struct Life {
    /// The node.
    pub node: NodeId,
    /// How often it was started before.
    pub run: u32,
    is_alive: AtomicBool,
}

impl Life {
    /// A run that has just begun.
    pub fn new(node: NodeId, run: u32) -> Self {
        Self { node, run, is_alive: AtomicBool::new(true) }
    }

    /// Whether the run goes on.
    pub fn is_alive(&self) -> bool {
        self.is_alive.load(Ordering::Relaxed)
    }

    /// Ends the run. Nothing of it has an effect from here on.
    pub fn end(&self) {
        self.is_alive.store(false, Ordering::Relaxed);
    }
}
