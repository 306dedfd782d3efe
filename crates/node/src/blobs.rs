//! Blobs between members: giving them, and pulling them from many at once.
//!
//! Two shells that decide nothing. [`Seeding`] stands around `swarm::upload`: it accepts streams,
//! answers what it is asked, and tells followers of new pieces. [`pull`] stands around
//! `swarm::fetch`: it opens a stream to each peer, and carries what they send to the store.
//!
//! ```text
//! pull: fetch --Ask--> stream ======= stream --Asked--> upload --Serve--> store :seeding
//!         ^---Data---- stream ======= stream <---raw bytes------------------'
//! ```
//!
//! # Invariants
//!
//! * A blob is given only where [`Rules`] say so, and every refusal has a code and a sentence
//!   (Rule N1).
//! * An answer that nobody asked for is read past and never held.
//! * A peer that does not read, or sends no end of anything, holds one stream's queue and no more.
//!
//! Not here: which peers there are (the caller finds them), and what may be given (the caller's
//! rules).

use commons_port::net::Protocol;
use commons_record::Hash;

mod frames;
mod pull;
mod seed;

pub use pull::{Pull, PullEvent, PullPorts, PullSpec, Source, pull};
pub use seed::{Rules, SeedPorts, Seeding};

/// The protocol that carries blobs in a mesh.
pub fn protocol(mesh: &Hash) -> Vec<Protocol> {
    Protocol::new(format!("/commons/{mesh}/blobs/1")).into_iter().collect()
}
