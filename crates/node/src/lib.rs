//! The node: actors that give the pure machines time, disk, network and compute.
//!
//! A [`Node`] is written against the ports alone, so that `cli` can run it on a real machine and
//! `sim` can run the same code in virtual time. It takes no decision that a machine could take:
//! `route` says who serves, `exchange` says what is sent and stored.
//!
//! Its tasks, each in a module of its own:
//!
//! * `ask`: one for each request: routes it, opens a stream and drives the requester's machine;
//! * `serve`: one that accepts streams, and one for each order that drives the provider's;
//! * `presence`: announces this node and learns of others, into the `roster`;
//! * `settle`: offers what a peer has not acknowledged, and closes what a crash left open;
//! * `join`: asks to be let in, and lets others in;
//! * `catalogue`: keeps what is published, tells of it, and asks others what it missed;
//! * `stock`: the files that are held, pulled and given.
//!
//! [`blobs`] gives files to members and pulls them from many at once; [`outside`] takes one file
//! from a hub.
//!
//! [`engines`] makes several engines one; [`supervisor`] keeps one that is a child process.
//!
//! # Invariants
//!
//! * N1: every refusal has a code and a sentence.
//! * N3: a local answer needs neither the network nor another node.
//! * N5: compute is shared only by the owner's explicit yes.
//!
//! Not here: HTTP (see `gateway`), and any concrete network, disk or engine.

#![forbid(unsafe_code)]

pub mod api;
pub mod blobs;
pub mod engines;
pub mod outside;
pub mod supervisor;

mod adapters;
mod ask;
mod candidates;
mod catalogue;
mod identity;
mod join;
mod ledger;
mod presence;
mod queries;
mod roster;
mod serve;
mod settle;
mod start;
mod stock;
mod target;
mod tasks;
mod wire;

pub use catalogue::hub::ReadFile;
pub use start::{Node, NodeConfig, Ports, StartError};
pub use stock::FilePorts;
