//! One decision about one request, with everything that it was made from.
//!
//! [`decide`] is total: it always has an outcome, and the outcome is in the record. [`replay`]
//! recomputes a record that somebody else made (Rule P3).
//!
//! [`replay`]: Decision::replay

use commons_record::codec::{self, DecodeError};
use commons_record::{Hash, Millis, PeerId, RequestId};
use serde::{Deserialize, Serialize};

use crate::cost::{Cost, cost};
use crate::filter::{RejectReason, reject};
use crate::policy::Policy;
use crate::request::{Candidate, Place, QUANTISATION_LEN_MAX, Request};

/// The format of a [`Decision`].
pub const DECISION_VERSION: u32 = 1;

/// A decision weighs this many candidates at most: more of one model than a node can ask for
/// their load within the time that routing may take.
pub const CANDIDATES_MAX: u32 = 256;

/// 256 candidates of under 700 bytes with their verdicts, and the request; a test fills it.
pub const DECISION_SIZE_MAX: usize = 256 * 1024;

/// What was decided, and from what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// [`DECISION_VERSION`].
    pub version: u32,
    /// When.
    pub now: Millis,
    /// The owner's limits and weights at that time.
    pub policy: Policy,
    /// What was asked.
    pub request: Request,
    /// How many candidates there were; the ones beyond [`CANDIDATES_MAX`] were left out.
    pub candidates_offered: u32,
    /// Who was weighed, in canonical order.
    pub candidates: Vec<Candidate>,
    /// The hash of all of the above: an input that is changed later shows, even if the outcome
    /// would be the same.
    pub inputs: Hash,
    /// What was found of each candidate, in their order.
    pub verdicts: Vec<Verdict>,
    /// Who serves, or why nobody does.
    pub outcome: Outcome,
}

/// What was found of one candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Verdict {
    /// A filter stopped it.
    Rejected {
        /// Who.
        peer: PeerId,
        /// By which filter.
        reason: RejectReason,
    },
    /// It passed all filters.
    Scored {
        /// Who.
        peer: PeerId,
        /// What it would cost.
        cost: Cost,
    },
}

/// What comes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// This candidate serves.
    Serve {
        /// Who.
        peer: PeerId,
        /// Where.
        place: Place,
    },
    /// Nobody serves (Rule P2).
    Refuse {
        /// Why. [`RefuseCode::sentence`] says it to people; a record does not hold wording.
        code: RefuseCode,
    },
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RefuseCode {
    /// Nobody who is known holds the model.
    UnknownModel,
    /// Who holds the model does not hold the adapter.
    UnknownAdapter,
    /// No context is long enough.
    ContextTooShort,
    /// The model is only held outside the privacy class (Rule P1).
    PrivacyClass,
    /// The model is only held outside the mesh, and the policy does not let the request go.
    CloudNotAllowed,
    /// Those who could serve have left.
    ProvidersGone,
    /// Everyone who could serve has been tried.
    AllTried,
    /// Those who could serve failed a short while ago.
    CoolingDown,
    /// Those who could serve are busy.
    Overloaded,
    /// The request has had all its attempts.
    AttemptsExhausted,
}

impl RefuseCode {
    /// All codes.
    pub const ALL: [Self; 10] = [
        Self::UnknownModel,
        Self::UnknownAdapter,
        Self::ContextTooShort,
        Self::PrivacyClass,
        Self::CloudNotAllowed,
        Self::ProvidersGone,
        Self::AllTried,
        Self::CoolingDown,
        Self::Overloaded,
        Self::AttemptsExhausted,
    ];

    /// The stable code, as it is recorded.
    pub const fn code(self) -> &'static str {
        match self {
            Self::UnknownModel => "unknown_model",
            Self::UnknownAdapter => "unknown_adapter",
            Self::ContextTooShort => "context_too_short",
            Self::PrivacyClass => "privacy_class",
            Self::CloudNotAllowed => "cloud_not_allowed",
            Self::ProvidersGone => "providers_gone",
            Self::AllTried => "all_tried",
            Self::CoolingDown => "cooling_down",
            Self::Overloaded => "overloaded",
            Self::AttemptsExhausted => "attempts_exhausted",
        }
    }

    /// A sentence for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::UnknownModel => "No node that may serve this request is known to hold the model.",
            Self::UnknownAdapter => "No node that holds the model holds the adapter.",
            Self::ContextTooShort => {
                "No node that holds the model has a context for this prompt and answer."
            }
            Self::PrivacyClass => {
                "The model is held only outside the privacy class of this request, and a request \
                 never leaves its class."
            }
            Self::CloudNotAllowed => {
                "The model is held only outside the mesh, and the policy of this node lets no \
                 request leave the mesh."
            }
            Self::ProvidersGone => "The nodes that hold the model have not been heard of lately.",
            Self::AllTried => "Every node that could serve this request has been tried.",
            Self::CoolingDown => {
                "The nodes that could serve this request failed a short while ago; try again soon."
            }
            Self::Overloaded => {
                "The nodes that could serve this request are all busy; try again soon."
            }
            Self::AttemptsExhausted => "This request has had all the attempts that it may have.",
        }
    }
}

/// Decides who serves a request.
///
/// The order of the candidates does not matter. The record holds them, and the request, in a
/// canonical form: sorted, labels cut to their bound, exclusions limited to candidates.
pub fn decide(
    policy: &Policy,
    now: Millis,
    request: &Request,
    candidates: &[Candidate],
) -> Decision {
    let offered = u32::try_from(candidates.len()).unwrap_or(u32::MAX);
    let candidates = canonical_candidates(request, candidates);
    let request = canonical_request(request, &candidates);
    let verdicts = candidates
        .iter()
        .map(|candidate| match reject(policy, now, &request, candidate) {
            Some(reason) => Verdict::Rejected { peer: candidate.peer, reason },
            None => {
                Verdict::Scored { peer: candidate.peer, cost: cost(policy, &request, candidate) }
            }
        })
        .collect::<Vec<_>>();
    let outcome = outcome(policy, &request, &candidates, &verdicts);
    let mut decision = Decision {
        version: DECISION_VERSION,
        now,
        policy: policy.clone(),
        request,
        candidates_offered: offered,
        candidates,
        inputs: Hash::from_bytes([0; 32]),
        verdicts,
        outcome,
    };
    decision.inputs = decision.hash_inputs();
    decision
}

/// Sorted and bounded. Where there are too many, those stay that hold the model, then the
/// nearer; among equals the hash of request and peer decides, so that all peers get their share.
fn canonical_candidates(request: &Request, candidates: &[Candidate]) -> Vec<Candidate> {
    let mut kept = candidates.to_vec();
    for candidate in &mut kept {
        if let Some(held) = &mut candidate.holds {
            let label = &mut held.quantisation;
            label.truncate(label.floor_char_boundary(QUANTISATION_LEN_MAX));
        }
    }
    kept.sort_unstable();
    if kept.len() > CANDIDATES_MAX as usize {
        kept.sort_by_cached_key(|it| {
            let is_holder = it.holds.as_ref().is_some_and(|held| held.model == request.model);
            (!is_holder, it.place, tie(request.request, it.peer))
        });
        kept.truncate(CANDIDATES_MAX as usize);
        kept.sort_unstable();
    }
    kept
}

/// Exclusions sorted, once each, and only those that say something here.
fn canonical_request(request: &Request, candidates: &[Candidate]) -> Request {
    let mut request = request.clone();
    request.excluded.retain(|peer| candidates.iter().any(|it| it.peer == *peer));
    request.excluded.sort_unstable();
    request.excluded.dedup();
    request
}

/// The order of equals: another one for every request, and the same one for everybody.
fn tie(request: RequestId, peer: PeerId) -> Hash {
    Hash::of_fields("route/tie/v1", &[request.as_bytes(), peer.as_bytes()])
}

fn outcome(
    policy: &Policy,
    request: &Request,
    candidates: &[Candidate],
    verdicts: &[Verdict],
) -> Outcome {
    if request.attempt >= policy.attempts_max {
        return Outcome::Refuse { code: RefuseCode::AttemptsExhausted };
    }
    let scored = candidates.iter().zip(verdicts).filter_map(|(candidate, verdict)| match verdict {
        Verdict::Scored { cost, .. } => Some((candidate, cost)),
        Verdict::Rejected { .. } => None,
    });
    let best = scored.min_by_key(|(candidate, cost)| {
        (cost.tier, cost.total(), tie(request.request, candidate.peer), candidate.place)
    });
    match best {
        Some((candidate, _)) => Outcome::Serve { peer: candidate.peer, place: candidate.place },
        None => Outcome::Refuse { code: refusal(request, candidates, verdicts) },
    }
}

/// The most useful reason: that of the candidate that came furthest through the filters. Only
/// if nobody inside the boundary holds the model is a holder outside it worth naming.
fn refusal(request: &Request, candidates: &[Candidate], verdicts: &[Verdict]) -> RefuseCode {
    let rejected = |(candidate, verdict): (&Candidate, &Verdict)| match verdict {
        Verdict::Rejected { reason, .. } => {
            let is_holder = candidate.holds.as_ref().is_some_and(|it| it.model == request.model);
            is_holder.then_some(*reason)
        }
        Verdict::Scored { .. } => None,
    };
    match candidates.iter().zip(verdicts).filter_map(rejected).max() {
        None | Some(RejectReason::ModelNotHeld) => RefuseCode::UnknownModel,
        Some(RejectReason::PrivacyClass) => RefuseCode::PrivacyClass,
        Some(RejectReason::CloudNotAllowed) => RefuseCode::CloudNotAllowed,
        Some(RejectReason::AdapterNotHeld) => RefuseCode::UnknownAdapter,
        Some(RejectReason::ContextTooShort) => RefuseCode::ContextTooShort,
        Some(RejectReason::LeaseExpired) => RefuseCode::ProvidersGone,
        Some(RejectReason::AlreadyTried) => RefuseCode::AllTried,
        Some(RejectReason::CoolingDown) => RefuseCode::CoolingDown,
        Some(RejectReason::Overloaded) => RefuseCode::Overloaded,
    }
}

/// Why a recorded decision is not the one that its inputs lead to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum ReplayMismatch {
    #[error("the decision has version {found}, and this program replays {DECISION_VERSION}")]
    Version { found: u32 },

    #[error("{offered} candidates were offered, and {recorded} are recorded")]
    Offered { offered: u32, recorded: usize },

    #[error("the request or the candidates are not in their canonical form")]
    NotCanonical,

    #[error("the inputs are not those that were hashed")]
    Inputs,

    #[error("the verdicts are not what the inputs lead to")]
    Verdicts,

    #[error("the outcome is not what the inputs lead to")]
    Outcome,
}

impl Decision {
    /// The decision's name.
    pub fn hash(&self) -> Hash {
        Hash::of_fields("route/decision/v1", &[&self.encode()])
    }

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads the canonical encoding, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode("routing decision", bytes, DECISION_SIZE_MAX)
    }

    /// Makes the decision again from its own inputs and compares (Rule P3).
    pub fn replay(&self) -> Result<(), ReplayMismatch> {
        if self.version != DECISION_VERSION {
            return Err(ReplayMismatch::Version { found: self.version });
        }
        let (offered, recorded) = (self.candidates_offered, self.candidates.len());
        if u32::try_from(recorded) != Ok(offered.min(CANDIDATES_MAX)) {
            return Err(ReplayMismatch::Offered { offered, recorded });
        }
        let again = decide(&self.policy, self.now, &self.request, &self.candidates);
        if again.request != self.request || again.candidates != self.candidates {
            return Err(ReplayMismatch::NotCanonical);
        }
        if self.hash_inputs() != self.inputs {
            return Err(ReplayMismatch::Inputs);
        }
        if again.verdicts != self.verdicts {
            return Err(ReplayMismatch::Verdicts);
        }
        if again.outcome != self.outcome {
            return Err(ReplayMismatch::Outcome);
        }
        Ok(())
    }

    fn hash_inputs(&self) -> Hash {
        let fields = [
            codec::encode(&self.now),
            codec::encode(&self.policy),
            codec::encode(&self.request),
            codec::encode(&self.candidates_offered),
            codec::encode(&self.candidates),
        ];
        Hash::of_fields("route/inputs/v1", &fields.each_ref().map(Vec::as_slice))
    }
}
