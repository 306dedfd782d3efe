//! The scheduler from outside: what it does in tables, what always holds in random histories.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

mod adapters;
mod behaviours;
mod drafting;
mod fairness;
mod histories;
mod prefixes;
mod world;
