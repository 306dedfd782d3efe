//! Hosts that talk to each other on loopback: every port is free, every wait is for an event.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod connections;
mod faults;
mod gossip;
mod providers;
mod streams;
mod world;
