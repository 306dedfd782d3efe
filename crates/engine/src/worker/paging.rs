//! The adapters of a worker: those in memory, and the sequences that wait for theirs.
//!
//! ```text
//! caller: want ----> (schedule::Adapters) -- Load --> loader: reads the file -- loaded | failed
//! thread: admit: whose adapter is here goes to the scheduler; leave: it has ended
//! ```
//!
//! A sequence with an adapter is known to the scheduler only from the moment on at which its
//! adapter is in memory and pinned, so a step never waits for a disk. Which adapters are in memory is
//! decided by [`commons_schedule::Adapters`]; this is its shell.
//!
//! # Invariants
//!
//! * Sequences that wait here are bounded, and those of one adapter start in the order of arrival.
//! * An adapter that a sequence uses stays until the sequence has left.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Weak};

use commons_port::engine::{EngineRefusal, EngineRefusalCode};
use commons_schedule::{
    AdapterCommand, AdapterConfig, AdapterConfigError, AdapterId, AdapterRefusal, AdapterStats,
    Adapters, Ask, Scheduler, SequenceId,
};

use super::Desk;
use crate::adapter::{Adapter, Registered, ShelfError};
use crate::model::Model;

/// Errands that wait for the loader: more loads than the machine asks for at once, and the last word.
pub(super) const ERRANDS_MAX: usize = 64;

/// What the loader is told.
#[derive(Debug)]
pub(super) enum Errand {
    Load(Arc<Registered>),
    End,
}

/// Adapters in memory, and who waits for which.
#[derive(Debug)]
pub(super) struct Paging {
    machine: Adapters,
    waiting_max: usize,
    /// In the order of arrival.
    waiting: Vec<Waiting>,
    /// Those in memory.
    here: BTreeMap<AdapterId, Arc<Adapter>>,
    /// Sequences that have started.
    held: BTreeMap<SequenceId, AdapterId>,
    /// Sequences whose adapter cannot be had.
    refused: Vec<(SequenceId, EngineRefusal)>,
    loader: SyncSender<Errand>,
}

#[derive(Debug)]
struct Waiting {
    ask: Ask,
    adapter: AdapterId,
    registered: Arc<Registered>,
}

/// Why a sequence does not wait.
#[derive(Debug, thiserror::Error)]
pub(super) enum WantError {
    #[error("{waiting} requests wait for an adapter and {max} may: try again later")]
    Full { waiting: usize, max: usize },

    #[error(transparent)]
    Adapter(#[from] AdapterRefusal),
}

impl WantError {
    pub(super) fn code(&self) -> EngineRefusalCode {
        match self {
            Self::Full { .. } | Self::Adapter(AdapterRefusal::Busy { .. }) => {
                EngineRefusalCode::Overloaded
            }
            Self::Adapter(_) => EngineRefusalCode::Unsupported,
        }
    }
}

/// A sequence that the scheduler has now, and its adapter.
pub(super) type Started = (SequenceId, Arc<Adapter>);

impl Paging {
    pub(super) fn new(
        config: AdapterConfig,
        loader: SyncSender<Errand>,
    ) -> Result<Self, AdapterConfigError> {
        Ok(Self {
            machine: Adapters::new(config)?,
            waiting_max: config.waiting_max as usize,
            waiting: Vec::new(),
            here: BTreeMap::new(),
            held: BTreeMap::new(),
            refused: Vec::new(),
            loader,
        })
    }

    /// Sequences that wait for an adapter.
    pub(super) fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn stats(&self) -> AdapterStats {
        self.machine.stats()
    }

    /// A sequence arrived whose ask was checked. Its adapter is read while it waits.
    pub(super) fn want(&mut self, ask: Ask, registered: &Arc<Registered>) -> Result<(), WantError> {
        let (waiting, max) = (self.waiting.len(), self.waiting_max);
        if waiting >= max {
            return Err(WantError::Full { waiting, max });
        }
        let adapter = registered.id();
        self.machine.want(adapter, registered.size_bytes())?;
        self.waiting.push(Waiting { ask, adapter, registered: Arc::clone(registered) });
        self.step();
        Ok(())
    }

    /// The seed of a sequence that waits came.
    pub(super) fn reveal(&mut self, id: SequenceId) {
        if let Some(waiting) = self.waiting.iter_mut().find(|it| it.ask.id == id) {
            waiting.ask.is_revealed = true;
        }
    }

    /// Hands sequences whose adapters are here to the scheduler, as far as it takes them.
    pub(super) fn admit(&mut self, scheduler: &mut Scheduler) -> Vec<Started> {
        let mut started = Vec::new();
        let mut index = 0;
        while let Some(waiting) = self.waiting.get(index) {
            let adapter = waiting.adapter;
            let is_ready = self.machine.is_ready(adapter);
            let here = self.here.get(&adapter).filter(|_| is_ready).cloned();
            let Some(here) = here.filter(|_| scheduler.check(&waiting.ask).is_ok()) else {
                index += 1;
                continue;
            };
            let Waiting { ask, .. } = self.waiting.remove(index);
            let id = ask.id;
            if scheduler.arrive(ask).is_ok() && self.machine.start(adapter) {
                self.held.insert(id, adapter);
                started.push((id, here));
            }
        }
        self.step();
        started
    }

    /// A sequence has ended, or its caller has gone.
    pub(super) fn leave(&mut self, id: SequenceId) {
        if let Some(adapter) = self.held.remove(&id) {
            self.machine.end(adapter);
        } else if let Some(index) = self.waiting.iter().position(|it| it.ask.id == id) {
            let waiting = self.waiting.remove(index);
            self.machine.leave(waiting.adapter);
        } else {
            return;
        }
        self.step();
    }

    /// Sequences that are to be refused.
    pub(super) fn take_refused(&mut self) -> Vec<(SequenceId, EngineRefusal)> {
        std::mem::take(&mut self.refused)
    }

    /// The loader has done an errand.
    fn done(&mut self, registered: &Registered, loaded: Result<Adapter, EngineRefusal>) {
        let adapter = registered.id();
        match loaded {
            Ok(loaded) => {
                self.machine.loaded(adapter);
                self.here.insert(adapter, Arc::new(loaded));
            }
            Err(refusal) => {
                self.machine.failed(adapter);
                let refused = self.waiting.extract_if(.., |it| it.adapter == adapter);
                self.refused.extend(refused.map(|it| (it.ask.id, refusal.clone())));
            }
        }
        self.step();
    }

    /// Does what the machine says.
    fn step(&mut self) {
        for command in self.machine.step() {
            match command {
                AdapterCommand::Evict(adapter) => {
                    self.here.remove(&adapter);
                }
                AdapterCommand::Load(adapter) => {
                    // What is loaded is waited for.
                    if let Some(waiting) = self.waiting.iter().find(|it| it.adapter == adapter) {
                        // There is room: the machine asks for few loads at once. A loader that has
                        // ended takes nothing, and its worker computes nothing.
                        let _ = self.loader.try_send(Errand::Load(Arc::clone(&waiting.registered)));
                    }
                }
            }
        }
    }
}

/// What a worker's loader does until it is told to end: it reads files, one after the other.
pub(super) fn load(model: &Model, desk: &Weak<Desk>, errands: &Receiver<Errand>) {
    while let Ok(Errand::Load(registered)) = errands.recv() {
        let read = std::panic::AssertUnwindSafe(|| model.adapters().load(&registered));
        let loaded = match std::panic::catch_unwind(read) {
            Ok(loaded) => loaded.map_err(|error| refuse(&registered, &error)),
            Err(_) => Err(crashed(&registered)),
        };
        let Some(desk) = desk.upgrade() else { return };
        desk.paging().done(&registered, loaded);
        desk.ring();
    }
}

fn refuse(registered: &Registered, error: &ShelfError) -> EngineRefusal {
    let message = format!(
        "adapter {} cannot be read again: {}",
        registered.facts().name,
        super::ask::chain(error)
    );
    EngineRefusal { code: EngineRefusalCode::InvalidAdapter, message }
}

fn crashed(registered: &Registered) -> EngineRefusal {
    let message = format!("reading adapter {} failed badly: see the log", registered.facts().name);
    EngineRefusal { code: EngineRefusalCode::Failed, message }
}
