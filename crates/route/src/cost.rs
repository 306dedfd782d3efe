//! How long a candidate would take to complete a request, in milliseconds.
//!
//! ```text
//! cost = queue + first token + answer tokens / speed + expected cost of failing
//! ```

use std::num::NonZeroU64;

use commons_record::Millis;
use serde::{Deserialize, Serialize};

use crate::policy::Policy;
use crate::request::{Candidate, Load, Measured, Place, Request};

/// An estimate and its parts, so that `commons why` can say what decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// What goes before the rest.
    pub tier: Tier,
    /// Until a slot is free.
    pub queue: Millis,
    /// From then to the first token.
    pub first_token: Millis,
    /// From there to the end of the answer.
    pub decode: Millis,
    /// A failed attempt, by how likely it is.
    pub failure: Millis,
}

/// What no cost can outweigh. Lower tiers are chosen first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// This node with a free slot: the owner's own machine, whatever another would take.
    LocalIdle,
    /// Peers, and this node when it is busy: the quickest serves.
    Peers,
    /// Outside the mesh, for money: only if nobody in it can serve.
    Cloud,
}

impl Cost {
    /// The expected time to completion.
    pub fn total(&self) -> Millis {
        self.queue
            .saturating_add(self.first_token)
            .saturating_add(self.decode)
            .saturating_add(self.failure)
    }
}

/// What a candidate that passed the filters would cost.
pub fn cost(policy: &Policy, request: &Request, candidate: &Candidate) -> Cost {
    let measured = candidate.measured.unwrap_or_default();
    let (first_token, speed) = match measured.samples {
        0 => (policy.first_token_assumed, policy.micro_tokens_per_s_assumed),
        _ => (measured.first_token, measured.micro_tokens_per_s),
    };
    let tokens = request.completion_tokens_max.min(policy.answer_tokens_assumed);
    let decode = decode_time(tokens, speed);
    Cost {
        tier: tier(candidate),
        queue: queue_time(candidate, first_token.saturating_add(decode)),
        first_token,
        decode,
        failure: failure_cost(policy, measured),
    }
}

fn tier(candidate: &Candidate) -> Tier {
    let is_idle = candidate.load.is_none_or(Load::has_free_slot);
    match candidate.place {
        Place::Local if is_idle => Tier::LocalIdle,
        Place::Local | Place::Lan | Place::Mesh => Tier::Peers,
        Place::Cloud => Tier::Cloud,
    }
}

/// A millisecond is a thousandth, a speed is in millionths. A speed of 0 counts as the lowest
/// that there is: such a candidate is taken if it is the only one.
fn decode_time(tokens: u32, micro_tokens_per_s: u64) -> Millis {
    let speed = NonZeroU64::new(micro_tokens_per_s).unwrap_or(NonZeroU64::MIN);
    Millis((u64::from(tokens) * 1_000_000_000).div_ceil(speed.get()))
}

/// Those ahead take as long as this request would, as many at a time as there are slots.
fn queue_time(candidate: &Candidate, service: Millis) -> Millis {
    let Some(load) = candidate.load else { return Millis(0) };
    let present = u64::from(load.running) + u64::from(load.queued) + 1;
    let slots = u64::from(load.slots).max(1);
    let ahead = present.saturating_sub(slots);
    Millis(service.0.saturating_mul(ahead).div_ceil(slots))
}

/// The share of recent attempts that failed, one success assumed, of what a failure costs.
fn failure_cost(policy: &Policy, measured: Measured) -> Millis {
    let (failures, samples) = (u64::from(measured.failures), u64::from(measured.samples));
    Millis(policy.failure_cost.0.saturating_mul(failures) / (failures + samples + 1))
}
