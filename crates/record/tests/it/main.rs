//! Records as a peer, a stranger and a forger meet them.

mod amount;
mod catalogue;
mod cbor;
mod encoding;
mod envelope;
mod evidence;
mod golden;
mod hash;
mod key;
mod merkle;
mod mesh;
mod order;
mod sample;
mod seed;
mod ticket;
