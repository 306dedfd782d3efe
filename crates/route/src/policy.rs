//! The owner's limits and weights: integers, each with the reason for its default.

use commons_record::Millis;
use serde::{Deserialize, Serialize};

/// How this node chooses who serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Whether a request of class `any` may leave the mesh at all.
    pub is_cloud_allowed: bool,
    /// A request is given up after this many attempts.
    pub attempts_max: u32,
    /// A candidate without a free slot and with this many waiting is overloaded.
    pub queue_len_max: u32,
    /// The time to the first token that an unmeasured candidate is credited with.
    pub first_token_assumed: Millis,
    /// The speed that an unmeasured candidate is credited with, in millionths of a token/s.
    pub micro_tokens_per_s_assumed: u64,
    /// The length of an answer for estimates, where its limit is higher.
    pub answer_tokens_assumed: u32,
    /// What a failed attempt costs.
    pub failure_cost: Millis,
    /// The pause after a first failure.
    pub cooldown_first: Millis,
    /// The longest pause.
    pub cooldown_max: Millis,
}

impl Policy {
    /// What a node does that was told nothing.
    pub const DEFAULT: Self = Self {
        // Leaving the mesh costs money and trust: only by the owner's word.
        is_cloud_allowed: false,
        // Five-second failures for forty seconds: a person has left by then.
        attempts_max: 8,
        // Behind eight answers of ten seconds another peer, or a refusal, serves better.
        queue_len_max: 8,
        // A warm small model on a local network. Optimistic, so that the unknown is explored.
        first_token_assumed: Millis(300),
        // 50 token/s, a desktop GPU on an 8B model. Optimistic for the same reason.
        micro_tokens_per_s_assumed: 50_000_000,
        // A typical chat answer; limits are mostly left at thousands that are never reached.
        answer_tokens_assumed: 256,
        // A dead provider is noticed within five seconds.
        failure_cost: Millis::from_secs(5),
        // Long enough for a dropped connection to come back.
        cooldown_first: Millis::from_secs(2),
        // A rebooted peer is found again within two minutes.
        cooldown_max: Millis::from_secs(120),
    };
}
