//! When an engine process is started again, and what is loaded into it: a pure state machine.
//!
//! ```text
//! Idle --want--> Starting --hello--> Up --ended--> Away --timer--> Starting
//!                   \--ended--> Away
//! any --stop--> Stopped
//! ```
//!
//! Items are models and adapters. They are loaded one at a time, in the order in which they were
//! wanted: after a start all of them, and later each as it comes.
//!
//! # Invariants
//!
//! * S1: a process that keeps ending is started after pauses that double, up to [`PAUSE_MAX`].
//! * S2: a process that was well for [`WELL_AFTER`] is started again after the first pause.
//! * S3: an item that was being loaded at [`DEATHS_MAX`] ends in a row is loaded no more; nor one
//!   that was never loaded, if the process ended as often before it could be.
//! * S4: at most one process, and at most one item that is being loaded.
//!
//! Not here: processes, clocks and what an item is (`actor.rs`).

use std::collections::BTreeMap;

use commons_record::Millis;

/// The first pause: a process that was killed once is back before a person asks again.
pub(super) const PAUSE_MIN: Millis = Millis(100);

/// The longest pause: a driver that is gone costs a start twice a minute.
pub(super) const PAUSE_MAX: Millis = Millis::from_secs(30);

/// A process that lived for this long was not the cause of its own end.
pub(super) const WELL_AFTER: Millis = Millis::from_secs(60);

/// Ends in a row while one item was being loaded. Once may be chance, and twice the memory that
/// something else had just then.
pub(super) const DEATHS_MAX: u32 = 3;

/// Names an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ItemId(pub(super) u64);

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    /// The process said hello.
    Hello,
    /// There is no process any more, or there never was.
    Ended,
    /// Something shall be loaded, now and after each start.
    Want(ItemId),
    /// It shall not be loaded any more.
    Forget(ItemId),
    /// It was loaded.
    Loaded(ItemId),
    /// It cannot be loaded, for a reason that the process told.
    Refused(ItemId),
    /// The time of [`Policy::wake_at`] has come.
    TimerFired,
    /// There shall be no process any more.
    Stop,
}

/// What is to be done, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    /// Start a process.
    Start,
    /// Load it into the process.
    Load(ItemId),
    /// Load it no more: it ended the process too often.
    GiveUp(ItemId),
    /// End the process.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was wanted yet: no process.
    Idle,
    /// A pause.
    Away { until: Millis },
    /// Started, and silent so far.
    Starting,
    /// At work.
    Up { since: Millis, loading: Option<ItemId> },
    /// Over.
    Stopped,
}

#[derive(Debug, Clone, Copy, Default)]
struct Item {
    is_loaded: bool,
    /// Whether it ever was.
    was_loaded: bool,
    /// Ends in a row while it was being loaded.
    deaths: u32,
}

/// The machine.
#[derive(Debug)]
pub(super) struct Policy {
    state: State,
    /// Ends since a process was well.
    failures: u32,
    items: BTreeMap<ItemId, Item>,
}

impl Policy {
    pub(super) fn new() -> Self {
        Self { state: State::Idle, failures: 0, items: BTreeMap::new() }
    }

    /// When [`Input::TimerFired`] is due.
    pub(super) fn wake_at(&self) -> Option<Millis> {
        match self.state {
            State::Away { until } => Some(until),
            State::Idle | State::Starting | State::Up { .. } | State::Stopped => None,
        }
    }

    /// Pure and total: time is an argument, and every input has an outcome in every state.
    pub(super) fn step(&mut self, now: Millis, input: Input) -> Vec<Output> {
        match (self.state, input) {
            (State::Away { until }, Input::TimerFired) if now >= until => self.start(),
            (State::Starting, Input::Hello) => {
                self.state = State::Up { since: now, loading: None };
                self.load_next()
            }
            (State::Starting, Input::Ended) => {
                // What was served before waits for as long as it takes.
                let first = self.items.iter().find(|(_, item)| !item.was_loaded);
                let given_up = first.map(|(id, _)| *id).and_then(|id| self.died_loading(id));
                [given_up.into_iter().collect(), self.rest(now)].concat()
            }
            (State::Up { since, loading }, Input::Ended) => {
                if now.since(since) >= WELL_AFTER {
                    self.failures = 0;
                }
                let given_up = loading.and_then(|id| self.died_loading(id));
                for item in self.items.values_mut() {
                    item.is_loaded = false;
                }
                [given_up.into_iter().collect(), self.rest(now)].concat()
            }
            (State::Idle, Input::Want(id)) => {
                self.items.entry(id).or_default();
                self.start()
            }
            (_, Input::Want(id)) => {
                self.items.entry(id).or_default();
                self.load_next()
            }
            (_, Input::Forget(id)) => {
                self.items.remove(&id);
                Vec::new()
            }
            (State::Up { since, loading: Some(id) }, Input::Loaded(loaded)) if id == loaded => {
                self.state = State::Up { since, loading: None };
                if let Some(item) = self.items.get_mut(&id) {
                    *item = Item { is_loaded: true, was_loaded: true, deaths: 0 };
                }
                self.load_next()
            }
            (State::Up { since, loading: Some(id) }, Input::Refused(refused)) if id == refused => {
                self.state = State::Up { since, loading: None };
                self.items.remove(&id);
                self.load_next()
            }
            (state, Input::Stop) => {
                self.state = State::Stopped;
                let is_there = matches!(state, State::Starting | State::Up { .. });
                is_there.then_some(Output::End).into_iter().collect()
            }
            // Late, early or repeated: a timer of an earlier pause, an answer of an earlier
            // process, a second end.
            (
                _,
                Input::Hello
                | Input::Ended
                | Input::Loaded(_)
                | Input::Refused(_)
                | Input::TimerFired,
            ) => Vec::new(),
        }
    }

    fn start(&mut self) -> Vec<Output> {
        self.state = State::Starting;
        vec![Output::Start]
    }

    /// Pauses before the next start.
    fn rest(&mut self, now: Millis) -> Vec<Output> {
        self.state = State::Away { until: now.saturating_add(pause(self.failures)) };
        self.failures = self.failures.saturating_add(1);
        Vec::new()
    }

    fn died_loading(&mut self, id: ItemId) -> Option<Output> {
        let item = self.items.get_mut(&id)?;
        item.deaths += 1;
        if item.deaths < DEATHS_MAX {
            return None;
        }
        self.items.remove(&id);
        Some(Output::GiveUp(id))
    }

    /// Loads the first item that is not loaded, if nothing is being loaded.
    fn load_next(&mut self) -> Vec<Output> {
        let State::Up { since, loading: None } = self.state else { return Vec::new() };
        let Some(id) = self.items.iter().find(|(_, item)| !item.is_loaded).map(|(id, _)| *id)
        else {
            return Vec::new();
        };
        self.state = State::Up { since, loading: Some(id) };
        vec![Output::Load(id)]
    }
}

/// The pause after so many ends.
fn pause(failures: u32) -> Millis {
    let doubled = 1_u64.checked_shl(failures).and_then(|it| it.checked_mul(PAUSE_MIN.0));
    doubled.map_or(PAUSE_MAX, |it| Millis(it).min(PAUSE_MAX))
}

#[cfg(test)]
mod tests;
