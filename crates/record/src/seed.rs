//! Where the randomness of an answer comes from, and the record of it.
//!
//! Source: `seed/v1` and `seed/client/v1` (Rules S1 to S3). In `joint` mode the order commits
//! to the client's nonce, the provider answers with its own commitment before it learns that
//! nonce, and neither can grind the seed. In `client` mode the caller chose the seed.

use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::key::{Nonce, RequestId};

/// The 32 bytes that drive the sampler. Not a secret once the answer is out.
pub type Seed32 = [u8; 32];

/// How the seed of a request is made, as its order fixes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SeedMode {
    /// The caller gave a seed: it alone decides, so the same call repeats the same answer.
    Client {
        /// The caller's number.
        seed: i64,
    },
    /// Requester and provider make it together.
    Joint {
        /// [`commit`] of the requester's nonce.
        client_commit: Hash,
    },
}

/// What a third party needs to make the seed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SeedTranscript {
    /// The caller's own seed.
    Client {
        /// The caller's number.
        seed: i64,
    },
    /// Both parties' contributions.
    Joint {
        /// The requester's nonce, opened.
        client_nonce: Nonce,
        /// The provider's commitment, given before the nonce was opened.
        provider_commit: Hash,
    },
}

/// The commitment to a nonce: of the requester in its order, of the provider in its answer.
pub fn commit(nonce: &Nonce) -> Hash {
    Hash::of_fields("seed/commit/v1", &[nonce.as_bytes()])
}

impl SeedTranscript {
    /// The seed of the request.
    pub fn seed32(&self, request: &RequestId) -> Seed32 {
        let hash = match self {
            // Rule S2: the caller's number and nothing else, so that it means the same everywhere.
            Self::Client { seed } => Hash::of_fields("seed/client/v1", &[&seed.to_le_bytes()]),
            // Rule S1.
            Self::Joint { client_nonce, provider_commit } => Hash::of_fields(
                "seed/v1",
                &[request.as_bytes(), client_nonce.as_bytes(), provider_commit.as_bytes()],
            ),
        };
        *hash.as_bytes()
    }

    /// Whether this transcript is what the order's mode allows (Rule S3).
    pub fn follows(&self, mode: &SeedMode) -> bool {
        match (self, mode) {
            (Self::Client { seed }, SeedMode::Client { seed: asked }) => seed == asked,
            (Self::Joint { client_nonce, .. }, SeedMode::Joint { client_commit }) => {
                commit(client_nonce) == *client_commit
            }
            (Self::Client { .. }, SeedMode::Joint { .. })
            | (Self::Joint { .. }, SeedMode::Client { .. }) => false,
        }
    }
}
