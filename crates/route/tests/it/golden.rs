//! The recorded form, pinned: a change here is a new [`DECISION_VERSION`].
//!
//! [`DECISION_VERSION`]: commons_route::decision::DECISION_VERSION

use commons_record::Hash;
use commons_record::order::PrivacyClass;
use commons_route::{
    Candidate, Decision, HeldModel, Measured, Outcome, Place, Policy, Request, decide,
};

use crate::world::{NOW, adapter, busy, candidate, cooling, peer, request};

/// Every kind of value once: all places, scored and rejected, with and without each option.
fn decision() -> Decision {
    let mut adapted = candidate(3, Place::Mesh);
    adapted.holds = adapted.holds.map(|it| HeldModel { adapter: Some(adapter()), ..it });
    let failed = |it| Measured { failures: 1, cooldown_until: Some(NOW), ..it };
    adapted.measured = adapted.measured.map(failed);
    let candidates = [
        candidate(5, Place::Cloud),
        adapted,
        Candidate { load: busy(2, 3, 2), ..candidate(1, Place::Local) },
        Candidate { holds: None, load: None, measured: None, ..candidate(2, Place::Lan) },
        Candidate { measured: cooling(NOW.0 + 5), ..candidate(4, Place::Mesh) },
        candidate(6, Place::Mesh),
    ];
    let asked =
        Request { attempt: 1, excluded: vec![peer(6), peer(9)], ..request(PrivacyClass::Mesh) };
    decide(&Policy::DEFAULT, NOW, &asked, &candidates)
}

#[test]
fn the_recorded_form_is_pinned() {
    let golden = include_bytes!("../golden/decision-1.cbor");
    let decision = decision();
    assert_eq!(decision.outcome, Outcome::Serve { peer: peer(3), place: Place::Mesh });
    let found = decision.encode();
    assert!(found == golden, "the encoding is now {found:02x?}");
    let read = Decision::decode(golden).unwrap();
    assert_eq!(read, decision);
    read.replay().unwrap();
    let name: Hash =
        "0b15b708a4a52740e26b769e78f73b825283e5eeadb9f9eff04eff4bf72a36ee".parse().unwrap();
    assert_eq!(read.hash(), name);
}
