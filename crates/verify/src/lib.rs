//! Verification: what makes an answer checkable by somebody who was not there.
//!
//! * [`sampling`]: the seed-synchronised sampler that provider and auditor share, and the
//!   margin by which an auditor judges each token.
//!
//! Not here: models and logits (they are arguments), clocks, random sources, files and sockets.

#![forbid(unsafe_code)]

pub mod sampling;
