//! The mesh: a libp2p host behind `port::Net`.
//!
//! ```text
//! Mesh (handle) --Command, bounded--> Host (one task) --> swarm: QUIC, TCP+Noise+Yamux
//!      |  ^                              |
//!      |  +-- watch: who is connected ---+
//!      +-- Book (under a lock): addresses; the host is woken and takes what is new
//!      +-- Accepting (under a lock): protocol -> channel of incoming streams, bounded
//! ```
//!
//! One task owns the swarm; libp2p adds one small task for each connection. Channels, all
//! bounded with the reason at the constant: commands (callers wait), one for each acceptor
//! (beyond it streams are reset), one for each subscriber (beyond it messages are missed). Who
//! is connected is a picture and not a queue, so a slow listener stalls nothing.
//!
//! # Invariants
//!
//! * Nothing is listened on but what the configuration says: by default, loopback.
//! * A peer is its Ed25519 key, proved by the transport. Other kinds of key are refused.
//! * Only peers that `Net::add_addrs` named are remembered, and dialled and kept connected of our
//!   own will. (libp2p also dials to answer: reachability probes, hole punching, kad queries.)
//! * No gossip is relayed that was not judged.
//!
//! # Known limits
//!
//! * Over QUIC a stream that is dropped looks to the reader like one that was closed: quinn
//!   finishes it. So protocols say themselves when they are done, and an end before that is a
//!   failure. (Over TCP it is an error.) A writer is told in both cases.
//! * libp2p's timers ignore tokio's paused clock: protocols are tested in `sim`.
//!
//! Not here: who is a member, what a record means, sealing of bodies, circuits.

#![forbid(unsafe_code)]

mod addr;
mod behaviour;
mod config;
mod gossip;
mod host;
mod identity;
mod mesh;
mod peers;
mod redial;
mod streams;

pub use config::{Limits, MeshConfig, StartError};
pub use mesh::{Mesh, OPEN_TIMEOUT, VERSIONS_MAX};

/// Chooses the one provider of TLS cryptography. First thing in `main` and in tests: the tree
/// holds two, and rustls panics when it has to choose. Calling it again changes nothing.
pub fn install_crypto_provider() {
    // An error means that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
