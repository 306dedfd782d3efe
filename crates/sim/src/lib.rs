//! A deterministic world: the second implementation of every port, from one seed.
//!
//! The actors of `node` run here unchanged, on one thread and in virtual time. A [`World`] holds
//! the nodes, draws every delay and fault from its seed, and writes down what happened: the same
//! seed gives the same log, bit for bit, so a failure is replayed by its number.
//!
//! The modules in reading order:
//!
//! * [`seeds`]: which seeds a test runs, and how a failing one is told;
//! * [`entropy`], [`executor`], [`clock`]: chance, tasks and time;
//! * [`log`], [`life`]: what happened, and to which run of which node;
//! * [`net`], [`journal`], [`engine`], [`blobs`]: the ports;
//! * [`world`]: machines that start, crash and start again;
//! * [`cluster`], [`user`]: real nodes on them, and people who ask;
//! * [`books`], [`invariants`]: what is on all disks, and what must hold of it;
//! * [`swarm`]: a thousand nodes that fetch one blob from each other, a world of its own;
//! * [`mocks`]: peers that misbehave, each in its own way.
//!
//! Not here: any decision of a node, and any real clock, socket, file or thread.

#![forbid(unsafe_code)]

pub mod blobs;
pub mod books;
pub mod clock;
pub mod cluster;
pub mod engine;
pub mod entropy;
pub mod executor;
pub mod invariants;
pub mod journal;
pub mod life;
pub mod log;
pub mod mocks;
pub mod net;
pub mod seeds;
pub mod swarm;
pub mod user;
pub mod world;

pub use clock::Micros;
pub use cluster::Cluster;
pub use life::NodeId;
pub use net::Crash;
pub use world::World;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks for one straight piece of code. There is one thread, so a lock is never waited for; a
/// poisoned one belongs to a world that is already being torn down by a failing test.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
