//! Routing: a policy and candidates in, one replayable decision out.
//!
//! ```text
//! Policy, now, Request, [Candidate] --decide--> Decision --recorded, encoded--> replay
//! ```
//!
//! * [`request`]: what is asked, who could serve it, what is known of them;
//! * [`policy`]: the owner's limits and weights;
//! * [`filter`]: the hard filters, before any scoring;
//! * [`cost`]: how long a candidate that passed would take;
//! * [`decision`]: [`decide`], and the record of what it saw and said.
//!
//! # Rules
//!
//! * Rule P1: the privacy class is a hard filter before any scoring.
//! * Rule P2: when nothing fits, the request is refused with a reason; no fallback crosses a
//!   privacy boundary.
//! * Rule P3: a decision can be recomputed from its record, by anybody, to the last byte.
//!
//! Everything is an integer, and nothing depends on the order in which candidates are listed.
//!
//! Not here: clocks, peers, sockets; who measures and who asks for load (`node`).

#![forbid(unsafe_code)]

pub mod cost;
pub mod decision;
pub mod filter;
pub mod policy;
pub mod request;

pub use cost::Cost;
pub use decision::{Decision, Outcome, RefuseCode, ReplayMismatch, Verdict, decide};
pub use filter::RejectReason;
pub use policy::Policy;
pub use request::{Candidate, HeldModel, Load, Measured, Place, Request};
