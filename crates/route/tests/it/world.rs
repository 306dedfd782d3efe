//! A small world to route in: values that a test changes one field of.

use commons_record::order::PrivacyClass;
use commons_record::{Hash, Millis, PeerId, RequestId};
use commons_route::{Candidate, HeldModel, Load, Measured, Place, Policy, Request};

pub(crate) const NOW: Millis = Millis(1_000_000);

pub(crate) fn model() -> Hash {
    Hash::of_content(b"model")
}

pub(crate) fn adapter() -> Hash {
    Hash::of_content(b"adapter")
}

pub(crate) fn peer(name: u8) -> PeerId {
    PeerId::from_bytes([name; 32])
}

pub(crate) fn policy() -> Policy {
    Policy { is_cloud_allowed: true, ..Policy::DEFAULT }
}

pub(crate) fn request(class: PrivacyClass) -> Request {
    Request {
        request: RequestId::from_bytes([7; 16]),
        attempt: 0,
        model: model(),
        adapter: None,
        context_needed: 1_000,
        completion_tokens_max: 100,
        class,
        excluded: vec![],
    }
}

/// An idle candidate that fits, 1000 ms from its first token and at 100 token/s.
pub(crate) fn candidate(name: u8, place: Place) -> Candidate {
    Candidate {
        place,
        peer: peer(name),
        holds: Some(HeldModel {
            model: model(),
            adapter: None,
            quantisation: "Q4_K_M".into(),
            context_len: 4_096,
        }),
        lease_left: Millis::from_secs(600),
        load: Some(Load { running: 0, queued: 0, slots: 4 }),
        measured: Some(Measured {
            first_token: Millis(1_000),
            micro_tokens_per_s: 100_000_000,
            samples: 5,
            failures: 0,
            cooldown_until: None,
        }),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "a field that may be empty takes it")]
pub(crate) fn busy(running: u32, queued: u32, slots: u32) -> Option<Load> {
    Some(Load { running, queued, slots })
}

#[expect(clippy::unnecessary_wraps, reason = "a field that may be empty takes it")]
pub(crate) fn cooling(until: u64) -> Option<Measured> {
    Some(Measured { cooldown_until: Some(Millis(until)), ..Measured::default() })
}
