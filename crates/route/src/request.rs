//! What is asked, who could serve it, and what is known of them.

use commons_record::order::PrivacyClass;
use commons_record::{Hash, Millis, PeerId, RequestId};
use serde::{Deserialize, Serialize};

use crate::policy::Policy;

/// One attempt to find somebody for a request.
///
/// It holds no seed: ties are broken by a hash of its id and the peer's, so that equal peers
/// share the load of many requests and one request always goes the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The request; its attempts share the id.
    pub request: RequestId,
    /// Which attempt this is, from 0.
    pub attempt: u32,
    /// The model, by the hash of its file.
    pub model: Hash,
    /// The adapter; none means the base alone.
    pub adapter: Option<Hash>,
    /// Tokens of prompt and answer together: what a context has to hold.
    pub context_needed: u32,
    /// The answer ends after this many tokens.
    pub completion_tokens_max: u32,
    /// How far the request may travel.
    pub class: PrivacyClass,
    /// Who was tried already. A decision keeps those of them that are candidates.
    pub excluded: Vec<PeerId>,
}

/// Where a candidate runs, seen from here. Nearer places come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// This node.
    Local,
    /// A node on the same local network.
    Lan,
    /// A member of the mesh, anywhere.
    Mesh,
    /// A provider outside the mesh, as the owner configured it.
    Cloud,
}

impl Place {
    /// All places, nearest first.
    pub const ALL: [Self; 4] = [Self::Local, Self::Lan, Self::Mesh, Self::Cloud];

    /// Whether a request of this class may go there: the one definition of Rule P1.
    pub const fn is_within(self, class: PrivacyClass) -> bool {
        match class {
            PrivacyClass::LocalOnly => matches!(self, Self::Local),
            PrivacyClass::Lan => matches!(self, Self::Local | Self::Lan),
            PrivacyClass::Mesh => matches!(self, Self::Local | Self::Lan | Self::Mesh),
            PrivacyClass::Any => true,
        }
    }

    /// Whether who runs there is known by announcements that expire.
    pub const fn has_lease(self) -> bool {
        match self {
            Self::Lan | Self::Mesh => true,
            Self::Local | Self::Cloud => false,
        }
    }
}

/// Somebody who might serve a request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// Where it runs.
    pub place: Place,
    /// Who it is.
    pub peer: PeerId,
    /// What it holds of the requested model.
    pub holds: Option<HeldModel>,
    /// How long its last announcement is still good for; read only where a place has leases.
    pub lease_left: Millis,
    /// How busy it says it is; none if it has not been asked, which counts as idle.
    pub load: Option<Load>,
    /// What was measured of it; none if it never served us.
    pub measured: Option<Measured>,
}

/// A label is cut to this many bytes: it is for people to read, and routing ignores it.
pub const QUANTISATION_LEN_MAX: usize = 32;

/// A model that a candidate holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldModel {
    /// The hash of its file.
    pub model: Hash,
    /// The requested adapter, if the candidate holds that too.
    pub adapter: Option<Hash>,
    /// `Q4_K_M`, `F16`.
    pub quantisation: String,
    /// Tokens of context that it serves.
    pub context_len: u32,
}

/// How busy a candidate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Sequences that are being computed.
    pub running: u32,
    /// Sequences that wait.
    pub queued: u32,
    /// Sequences that could be computed at once.
    pub slots: u32,
}

impl Load {
    /// Whether a sequence could start at once.
    pub fn has_free_slot(self) -> bool {
        self.running.saturating_add(self.queued) < self.slots
    }
}

/// What this node measured of a candidate: speed is measured, never believed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// From order to first token.
    pub first_token: Millis,
    /// Millionths of a token per second, after the first.
    pub micro_tokens_per_s: u64,
    /// How many answers this is drawn from; with 0 the two figures above mean nothing.
    pub samples: u32,
    /// Recent failures: each success halves them.
    pub failures: u32,
    /// Not to be asked before then.
    pub cooldown_until: Option<Millis>,
}

impl Measured {
    /// A new answer moves an average by a quarter: after eight answers nine tenths of it are
    /// theirs, and one odd answer does not turn the order around.
    const WEIGHT: u64 = 4;

    /// What is known after one more answer.
    #[must_use]
    pub fn after_success(self, first_token: Millis, micro_tokens_per_s: u64) -> Self {
        let blend = |old: u64, new: u64| {
            if self.samples == 0 { new } else { old - old / Self::WEIGHT + new / Self::WEIGHT }
        };
        Self {
            first_token: Millis(blend(self.first_token.0, first_token.0)),
            micro_tokens_per_s: blend(self.micro_tokens_per_s, micro_tokens_per_s),
            samples: self.samples.saturating_add(1),
            failures: self.failures / 2,
            cooldown_until: None,
        }
    }

    /// What is known after one more failure: each doubles the pause, up to the policy's limit.
    #[must_use]
    pub fn after_failure(self, policy: &Policy, now: Millis) -> Self {
        let failures = self.failures.saturating_add(1);
        let doubled = 1_u64.checked_shl(failures - 1).unwrap_or(u64::MAX);
        let pause = policy.cooldown_first.0.saturating_mul(doubled).min(policy.cooldown_max.0);
        let until = now.saturating_add(Millis(pause));
        Self { failures, cooldown_until: Some(until), ..self }
    }
}
