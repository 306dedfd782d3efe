//! How files travel between peers: pure machines and formats.
//!
//! * [`tree`]: a file's pieces, and the hashes that let each be checked by itself;
//! * [`catalogue`]: what is published, and what names mean;
//! * [`licence`], [`policy`]: what is held, seeded and published: licences and denylists;
//! * [`outside`]: how a file is taken from a hub, and by which of several nodes;
//! * [`chunk`], [`recipe`], [`dedupe`]: where files are equal in part;
//! * [`wire`]: the messages of a stream that carries pieces;
//! * [`fetch`]: which piece is asked of whom next;
//! * [`upload`]: who is served next.
//!
//! Not here: sockets, files, clocks. Time is an argument.

#![forbid(unsafe_code)]

pub mod catalogue;
pub mod chunk;
pub mod dedupe;
pub mod fetch;
pub mod licence;
pub mod outside;
pub mod policy;
pub mod recipe;
pub mod tree;
pub mod upload;
pub mod wire;
