//! One request between a requester and a provider, as two pure state machines.
//!
//! ```text
//! requester                                     provider
//!   Ask {order, prompt}          ------------>  checks, starts the engine, persists the order
//!                                <------------  Accepted {commitment}
//!   Reveal {nonce}               ------------>  seed known: sampling may begin
//!                                <------------  Prefilled, Tokens..., Heartbeat every second
//!   Voucher (every few tokens)   ------------>  persists; may send as far again
//!                                <------------  Finished
//!   Voucher (the last)           ------------>  persists, signs the receipt, persists it
//!                                <------------  Receipt
//!   Stored                       ------------>  nothing is owed any more
//! ```
//!
//! The rules are E1 to E14 in `docs/PROTOCOL.md`. Both machines persist before they send, both
//! end whatever the other does, and neither claims more than was delivered.
//!
//! * [`message`]: what is said on the wire;
//! * [`sealed`]: frames sealed to the provider's key;
//! * [`requester`], [`provider`]: the two machines;
//! * [`settle`]: what is offered again after a crash or a lost connection;
//! * [`entry`]: the state of an exchange on disk.
//!
//! Not here: streams, disks, engines and clocks (see `node`); who is asked (see `route`).

#![forbid(unsafe_code)]

pub mod entry;
pub mod message;
pub mod provider;
pub mod requester;
pub mod sealed;
pub mod settle;
pub mod standing;

pub use standing::{SequenceRange, Standing};
