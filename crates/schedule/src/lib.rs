//! What an inference engine computes next: many sequences, one batch a step.
//!
//! ```text
//! Ask --arrive--> waiting --plan--> running --done--> Ended
//!                    ^                 |
//!                    +----- parked <---+        plan -> Batch -> (engine) -> Outcome -> done
//! ```
//!
//! A pure machine. It sees token ids and counts, never a tensor or a text. In reading order:
//!
//! * [`config`]: the limits, each with what it bounds;
//! * [`ask`]: what a caller asks for, and why it may be refused;
//! * [`batch`]: what the engine computes in a step, and what it reports back;
//! * [`scheduler`]: the machine: [`Scheduler::arrive`], [`Scheduler::plan`], [`Scheduler::done`];
//! * `fair`: virtual token counters, one per caller;
//! * `pages`: the pool of key/value pages and the prefix tree over them;
//! * [`adapters`]: which adapters are in memory, a machine of its own;
//! * [`draft`]: proposing the next tokens from what was said before;
//! * `sequence`: one ask on its way.
//!
//! # Invariants
//!
//! * A page is free, owned by one sequence, or in the prefix tree; the three add up to
//!   [`Config::page_count`]. A page of the tree is held as often as tables name it.
//! * What the engine reads at a position was computed from exactly the tokens before it.
//!   Cached blocks are compared token by token; no hash is trusted.
//! * A row writes only to pages that nobody else reads.
//! * Nothing crosses from one caller to another, unless both asked for [`Sharing::Shared`].
//! * What was admitted can finish: it fits when it is alone, and the first in rank is never parked
//!   for another.
//!
//! Equal inputs give equal batches: no clock, no chance, no order of a hash map.
//!
//! Not here: the forward pass, sampling and stop words (`commons-engine`); who may ask and who
//! pays (`commons-node`).

#![forbid(unsafe_code)]

pub mod adapters;
pub mod ask;
pub mod batch;
pub mod config;
pub mod draft;
mod fair;
mod pages;
pub mod scheduler;
mod sequence;
mod slab;

pub use adapters::{
    AdapterCommand, AdapterConfig, AdapterConfigError, AdapterId, AdapterRefusal, AdapterStats,
    Adapters,
};
pub use ask::{
    Ask, CallerId, Drafting, PrefixKey, Priority, Refusal, RefuseCode, SequenceId, Sharing, Work,
};
pub use batch::{
    Batch, DoneError, EndReason, Ended, Outcome, PageCopy, PageId, Row, Status, Wants,
};
pub use config::{Caching, Config, ConfigError};
pub use fair::{DECODE_WEIGHT, PREFILL_WEIGHT};
pub use scheduler::{Scheduler, Stats};
