//! Records: the small signed values that everything in Commons is made of.
//!
//! A record is a body in one canonical encoding (strict DAG-CBOR), inside an [`Envelope`] that
//! says which mesh, epoch and author it belongs to. It is named by a domain-separated hash of
//! all of that, signed over that name, and checkable offline by a stranger.
//!
//! How far a record has been checked is its type: bytes decode to [`Unverified`], and only
//! [`Unverified::verify`] makes a [`Verified`].
//!
//! The modules in reading order:
//!
//! * [`hash`], [`key`], [`amount`]: names, signatures and integers;
//! * [`codec`], [`envelope`]: one encoding, one signature, one identity per record;
//! * [`merkle`]: roots over tokens and proofs of inclusion;
//! * [`mesh`]: who may take part, and under which rules;
//! * [`manifest`], [`order`], [`settlement`]: what is served, asked, acknowledged and owed;
//! * [`catalogue`]: what is published, under which names, and who warns of it;
//! * [`evidence`]: the file that a stranger verifies.
//!
//! Not here: clocks, random numbers, files and sockets. Time and nonces are arguments.

#![forbid(unsafe_code)]

pub mod amount;
pub mod catalogue;
pub mod codec;
pub mod constraint;
pub mod envelope;
pub mod evidence;
pub mod hash;
pub mod key;
pub mod manifest;
pub mod merkle;
pub mod mesh;
pub mod order;
pub mod seed;
pub mod settlement;
pub mod ticket;

pub use amount::{Credits, Epoch, Micro, Millis};
pub use envelope::{
    Author, Envelope, Expect, InvalidBody, Record, Unverified, Verified, VerifyError,
};
pub use hash::Hash;
pub use key::{HpkeKey, Nonce, OwnerId, PeerId, PublicKey, RequestId, Salt, SecretKey, Signature};
