//! Fair shares between callers: virtual token counters.
//!
//! Each caller has a counter of the service it got: [`PREFILL_WEIGHT`] for a token of prompt that
//! was computed (not for one found in the cache, and once, however often it was parked), and
//! [`DECODE_WEIGHT`] for a token drawn. The caller with the smallest counter comes first. A caller
//! that was away is lifted to the smallest counter of those present: idleness is no credit. One
//! that leaves in debt finds its debt when it comes back. When nobody is left, all is forgotten.
//!
//! Source: Sheng et al., "Fairness in Serving Large Language Models" (2024): algorithm VTC, with
//! its weights. Theorem: between two callers that both have work waiting all the time, the service
//! differs by at most `2 * max(PREFILL_WEIGHT * input_len_max, DECODE_WEIGHT * M)`, where `M` is
//! the number of tokens that fit in the pool.
//!
//! A caller is live while one of its sequences could use a step. Sequences that nobody reads, or
//! whose seed is not known, do not make it so: otherwise they would hold the smallest counter down.

use std::collections::{BTreeMap, BTreeSet};

use crate::ask::{CallerId, Priority};
use crate::slab::Slab;

/// What a computed token of a prompt counts.
pub const PREFILL_WEIGHT: u64 = 1;

/// What a drawn token counts: it keeps a row busy for a whole step.
pub const DECODE_WEIGHT: u64 = 2;

/// Debts remembered of callers that left. Each was paid for in real work; beyond this the smallest
/// is forgiven.
const DEBTS_MAX: usize = 4096;

/// One caller with sequences here.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    id: CallerId,
    /// Service so far, in weighted tokens.
    pub service: u64,
    /// Service planned in this step, not yet done.
    pub pending: u64,
    /// Sequences here, and those that could use a step.
    present: usize,
    live: usize,
    /// Sequences that hold no pages.
    pub waiting: usize,
    /// Those of them that could use a step, by priority in the order of arrival: ticket and slot.
    lines: [BTreeSet<(u64, u32)>; 3],
}

impl Caller {
    pub(crate) fn line_mut(&mut self, priority: Priority) -> &mut BTreeSet<(u64, u32)> {
        &mut self.lines[priority.index()]
    }

    pub(crate) fn line(&self, priority: Priority) -> &BTreeSet<(u64, u32)> {
        &self.lines[priority.index()]
    }

    /// The order between callers.
    pub(crate) fn standing(&self) -> u64 {
        self.service + self.pending
    }
}

/// All callers with sequences here, and the debts of those that left.
#[derive(Clone, Debug)]
pub(crate) struct Callers {
    pub slots: Slab<Caller>,
    by_id: BTreeMap<CallerId, u32>,
    debts: BTreeMap<CallerId, u64>,
    /// What a caller is lifted to when nobody is live. Never sinks.
    floor: u64,
}

impl Callers {
    pub(crate) fn new() -> Self {
        Self { slots: Slab::new(), by_id: BTreeMap::new(), debts: BTreeMap::new(), floor: 0 }
    }

    pub(crate) fn get(&self, id: CallerId) -> Option<&Caller> {
        self.by_id.get(&id).map(|&slot| &self.slots[slot])
    }

    /// One more sequence of a caller is here.
    pub(crate) fn enter(&mut self, id: CallerId) -> u32 {
        let slot = match self.by_id.get(&id) {
            Some(&slot) => slot,
            None => {
                let service = self.debts.remove(&id).unwrap_or(0);
                let caller = Caller {
                    id,
                    service,
                    pending: 0,
                    present: 0,
                    live: 0,
                    waiting: 0,
                    lines: Default::default(),
                };
                let slot = self.slots.insert(caller);
                self.by_id.insert(id, slot);
                slot
            }
        };
        self.slots[slot].present += 1;
        slot
    }

    /// One sequence less; it is no longer live and does not wait.
    pub(crate) fn leave(&mut self, slot: u32) {
        let caller = &mut self.slots[slot];
        caller.present -= 1;
        if caller.present > 0 {
            return;
        }
        let (id, service) = (caller.id, caller.service);
        self.by_id.remove(&id);
        self.slots.remove(slot);
        if service > self.floor {
            self.debts.insert(id, service);
        }
        if self.by_id.is_empty() {
            self.debts.clear();
        } else if self.debts.len() > DEBTS_MAX
            && let Some(id) = self.debts.iter().min_by_key(|&(_, debt)| *debt).map(|(id, _)| *id)
        {
            self.debts.remove(&id);
        }
    }

    /// One sequence more could use a step: the caller is lifted if it had none.
    pub(crate) fn wake(&mut self, slot: u32) {
        if self.slots[slot].live == 0 {
            let level = self.level();
            let caller = &mut self.slots[slot];
            caller.service = caller.service.max(level);
        }
        self.slots[slot].live += 1;
    }

    /// One sequence less could use a step.
    pub(crate) fn rest(&mut self, slot: u32) {
        self.slots[slot].live -= 1;
        if self.slots[slot].live == 0 && self.slots.iter().all(|(_, it)| it.live == 0) {
            // The last to go leaves its level behind, as in the paper.
            self.floor = self.floor.max(self.slots[slot].service);
        }
    }

    /// The smallest counter of those that are live.
    fn level(&self) -> u64 {
        let live = self.slots.iter().filter(|(_, it)| it.live > 0);
        live.map(|(_, it)| it.service).min().unwrap_or(self.floor)
    }

    /// Forgets what was planned, lifts the floor, and forgives debts below it.
    pub(crate) fn begin_step(&mut self) {
        let mut level = u64::MAX;
        for caller in self.slots.values_mut() {
            caller.pending = 0;
            if caller.live > 0 {
                level = level.min(caller.service);
            }
        }
        if level != u64::MAX && level > self.floor {
            self.floor = level;
            if !self.debts.is_empty() {
                self.debts.retain(|_, debt| *debt > level);
            }
        }
    }

    /// The caller whose line of a priority comes first: its standing, and the ticket and slot of
    /// the sequence. Lines whose first sequence `is_out` offer the next.
    pub(crate) fn first_waiting(
        &self,
        priority: Priority,
        is_out: impl Fn(u32) -> bool,
    ) -> Option<(u64, u64, u32)> {
        let heads = self.slots.iter().filter_map(|(_, caller)| {
            let mut line = caller.line(priority).iter();
            let &(ticket, slot) = line.find(|&&(_, slot)| !is_out(slot))?;
            Some((caller.standing(), ticket, slot))
        });
        heads.min()
    }

    /// Whether anybody waits at a priority and could use a step.
    pub(crate) fn is_waiting(&self, priority: Priority) -> bool {
        self.slots.iter().any(|(_, caller)| !caller.line(priority).is_empty())
    }

    pub(crate) fn service_of(&self, id: CallerId) -> Option<u64> {
        self.get(id).map(|caller| caller.service)
    }
}
