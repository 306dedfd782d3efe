//! The gateway from outside: requests in, responses out, and a node that does as it is told.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

mod access;
mod answers;
mod catalogue;
mod control;
mod fake;
mod forms;
mod hub;
mod hub_files;
mod metrics;
mod models;
mod params;
mod refusals;
mod schema;
mod serving;
mod shelf;
mod streams;
