//! Ports: the traits between rooms, and the messages that cross them.
//!
//! A join (`node`, `sim`) is written against these traits. The I/O rooms implement them with a
//! real network, disk, engine and clock; `sim` implements them in virtual time from one seed.
//! Everything that crosses a port is a plain value, so that an engine can move to a child
//! process and a test can record what was said.
//!
//! * [`net`]: streams to peers and gossip;
//! * [`engine`]: models that continue prompts; [`process`]: an engine that is a child process;
//! * [`journal`]: durable state, committed in batches; [`blobs`]: files by their hash;
//! * [`hub`]: repositories of files by name, outside and here;
//! * [`time`]: clocks, randomness and tasks.
//!
//! Not here: any implementation, and any decision.

#![forbid(unsafe_code)]

pub mod blobs;
pub mod engine;
pub mod hub;
pub mod journal;
pub mod net;
pub mod process;
pub mod time;
pub mod tools;

use std::future::Future;
use std::pin::Pin;

/// A boxed future that can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A boxed stream that can move between threads.
pub type BoxStream<'a, T> = Pin<Box<dyn futures_core::Stream<Item = T> + Send + 'a>>;
