//! The hard filters: what a candidate must pass before it is scored at all.
//!
//! They run in the order of [`RejectReason`]; a candidate is rejected by the first that it
//! fails. Rule P1 is the first.

use commons_record::Millis;
use serde::{Deserialize, Serialize};

use crate::policy::Policy;
use crate::request::{Candidate, Request};

/// Why a candidate is out. The order is that of the filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RejectReason {
    /// It lies outside the privacy class (Rule P1).
    PrivacyClass,
    /// It lies outside the mesh, where the owner's policy lets nothing go.
    CloudNotAllowed,
    /// It does not hold the model.
    ModelNotHeld,
    /// It holds the model without the adapter.
    AdapterNotHeld,
    /// Its context is too short.
    ContextTooShort,
    /// Its announcement has expired.
    LeaseExpired,
    /// It was tried before.
    AlreadyTried,
    /// It failed a short while ago. This holds for the only candidate too: asking it again at
    /// once would make the caller wait for the same failure.
    CoolingDown,
    /// It has no free slot and a full queue.
    Overloaded,
}

impl RejectReason {
    /// All reasons, in the order of the filters.
    pub const ALL: [Self; 9] = [
        Self::PrivacyClass,
        Self::CloudNotAllowed,
        Self::ModelNotHeld,
        Self::AdapterNotHeld,
        Self::ContextTooShort,
        Self::LeaseExpired,
        Self::AlreadyTried,
        Self::CoolingDown,
        Self::Overloaded,
    ];

    /// The stable code, as it is recorded.
    pub const fn code(self) -> &'static str {
        match self {
            Self::PrivacyClass => "privacy_class",
            Self::CloudNotAllowed => "cloud_not_allowed",
            Self::ModelNotHeld => "model_not_held",
            Self::AdapterNotHeld => "adapter_not_held",
            Self::ContextTooShort => "context_too_short",
            Self::LeaseExpired => "lease_expired",
            Self::AlreadyTried => "already_tried",
            Self::CoolingDown => "cooling_down",
            Self::Overloaded => "overloaded",
        }
    }

    /// A sentence for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::PrivacyClass => "it lies outside the privacy class of the request",
            Self::CloudNotAllowed => "it lies outside the mesh, which this node's policy forbids",
            Self::ModelNotHeld => "it does not hold the model",
            Self::AdapterNotHeld => "it holds the model but not the adapter",
            Self::ContextTooShort => "its context is too short for the prompt and the answer",
            Self::LeaseExpired => "it has not announced itself for too long",
            Self::AlreadyTried => "it was tried for this request before",
            Self::CoolingDown => "it failed a short while ago and is left alone for now",
            Self::Overloaded => "it has no free slot and its queue is full",
        }
    }
}

/// The first filter that the candidate fails, if any.
pub fn reject(
    policy: &Policy,
    now: Millis,
    request: &Request,
    candidate: &Candidate,
) -> Option<RejectReason> {
    // Rule P1: before anything about the candidate but its place is read.
    if !candidate.place.is_within(request.class) {
        return Some(RejectReason::PrivacyClass);
    }
    if candidate.place == crate::Place::Cloud && !policy.is_cloud_allowed {
        return Some(RejectReason::CloudNotAllowed);
    }
    let Some(held) = candidate.holds.as_ref().filter(|held| held.model == request.model) else {
        return Some(RejectReason::ModelNotHeld);
    };
    // An unknown adapter is a rejection, never the base model alone.
    if request.adapter.is_some() && held.adapter != request.adapter {
        return Some(RejectReason::AdapterNotHeld);
    }
    if held.context_len < request.context_needed {
        return Some(RejectReason::ContextTooShort);
    }
    if candidate.place.has_lease() && candidate.lease_left == Millis(0) {
        return Some(RejectReason::LeaseExpired);
    }
    if request.excluded.contains(&candidate.peer) {
        return Some(RejectReason::AlreadyTried);
    }
    let cooldown_until = candidate.measured.and_then(|it| it.cooldown_until);
    if cooldown_until.is_some_and(|until| now < until) {
        return Some(RejectReason::CoolingDown);
    }
    let is_overloaded = candidate.load.is_some_and(|it| {
        it.slots == 0 || (!it.has_free_slot() && it.queued >= policy.queue_len_max)
    });
    is_overloaded.then_some(RejectReason::Overloaded)
}
