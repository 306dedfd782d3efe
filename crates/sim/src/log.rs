//! What happened, in order: node, time and event.
//!
//! The log is the proof of determinism (its digest is equal for equal seeds) and the story that
//! a failing test tells. It keeps the newest events and a digest over all of them.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::Mutex;

use commons_record::Hash;
use commons_record::hash::ContentHasher;

use crate::clock::Micros;
use crate::executor::Executor;
use crate::life::NodeId;
use crate::lock;

/// Enough for the whole of a small scenario and the end of a large one.
const KEPT_MAX: usize = 65_536;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, on the world's timeline.
    pub at: Micros,
    /// To whom; none for what happened to the world.
    pub node: Option<NodeId>,
    /// What, as a stable word.
    pub what: &'static str,
    /// The particulars.
    pub detail: String,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.node.map_or_else(|| "-".to_owned(), |node| node.to_string());
        write!(f, "{:>14} {node:>5} {:<18} {}", self.at.to_string(), self.what, self.detail)
    }
}

/// The log of one world.
#[derive(Debug)]
pub struct Log {
    executor: Executor,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    digest: ContentHasher,
    count: u64,
    kept: VecDeque<Event>,
    line: String,
}

impl Log {
    /// An empty log on that timeline.
    pub fn new(executor: Executor) -> Self {
        Self { executor, state: Mutex::default() }
    }

    /// Adds an event at the present time.
    pub fn note(&self, node: Option<NodeId>, what: &'static str, detail: impl fmt::Display) {
        let event = Event { at: self.executor.now(), node, what, detail: detail.to_string() };
        let mut state = lock(&self.state);
        let state = &mut *state;
        state.line.clear();
        // Writing to a string cannot fail.
        let _ = writeln!(state.line, "{event}");
        state.digest.update(state.line.as_bytes());
        state.count += 1;
        if state.kept.len() == KEPT_MAX {
            state.kept.pop_front();
        }
        state.kept.push_back(event);
    }

    /// A hash over everything that happened so far, in order.
    pub fn digest(&self) -> Hash {
        lock(&self.state).digest.finish()
    }

    /// How much happened so far.
    pub fn count(&self) -> u64 {
        lock(&self.state).count
    }

    /// The events that are kept, of that kind.
    pub fn of_kind(&self, what: &str) -> Vec<Event> {
        lock(&self.state).kept.iter().filter(|event| event.what == what).cloned().collect()
    }

    /// The last events as text, one a line.
    pub fn tail(&self, lines: usize) -> String {
        let state = lock(&self.state);
        let skipped = state.kept.len().saturating_sub(lines);
        let lines = state.kept.iter().skip(skipped).map(ToString::to_string);
        lines.collect::<Vec<_>>().join("\n")
    }
}
