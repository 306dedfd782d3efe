//! Each filter, their order, and what a refusal says.

use std::collections::BTreeSet;

use commons_record::order::PrivacyClass;
use commons_record::{Hash, Millis};
use commons_route::{
    Candidate, Outcome, Place, Policy, RefuseCode, RejectReason, Request, Verdict, decide,
};

use crate::world::{NOW, adapter, busy, candidate, cooling, peer, policy, request};

/// A change to one candidate.
type Change = fn(&mut Candidate);

/// The only candidate passes (`None`) or is rejected for that reason.
fn check(policy: &Policy, request: &Request, only: &Candidate, expected: Option<RejectReason>) {
    let decision = decide(policy, NOW, request, std::slice::from_ref(only));
    let found = match decision.verdicts.as_slice() {
        [Verdict::Rejected { reason, peer }] if *peer == only.peer => Some(*reason),
        [Verdict::Scored { peer, .. }] if *peer == only.peer => None,
        other => panic!("one candidate has verdicts {other:?}"),
    };
    assert_eq!(found, expected, "{only:?}");
    let is_served = matches!(decision.outcome, Outcome::Serve { .. });
    assert_eq!(is_served, expected.is_none(), "{:?}", decision.outcome);
    assert_eq!(decision.replay(), Ok(()));
}

#[test]
fn each_filter_rejects_what_it_names() {
    let check = |change: Change, expected| {
        let mut only = candidate(1, Place::Mesh);
        change(&mut only);
        check(&policy(), &request(PrivacyClass::Mesh), &only, expected);
    };
    check(|_| {}, None);
    check(|it| it.place = Place::Cloud, Some(RejectReason::PrivacyClass));
    check(|it| it.holds = None, Some(RejectReason::ModelNotHeld));
    let other: Change = |it| it.holds.as_mut().unwrap().model = Hash::of_content(b"other");
    check(other, Some(RejectReason::ModelNotHeld));
    check(|it| it.holds.as_mut().unwrap().context_len = 1_000, None);
    let short: Change = |it| it.holds.as_mut().unwrap().context_len = 999;
    check(short, Some(RejectReason::ContextTooShort));
    check(|it| it.lease_left = Millis(1), None);
    check(|it| it.lease_left = Millis(0), Some(RejectReason::LeaseExpired));
    check(|it| it.measured = cooling(NOW.0), None);
    check(|it| it.measured = cooling(NOW.0 + 1), Some(RejectReason::CoolingDown));
    check(|it| it.load = None, None);
    check(|it| it.load = busy(4, 7, 4), None);
    check(|it| it.load = busy(4, 8, 4), Some(RejectReason::Overloaded));
    check(|it| it.load = busy(0, 0, 0), Some(RejectReason::Overloaded));
    check(|it| it.load = busy(u32::MAX, u32::MAX, 4), Some(RejectReason::Overloaded));
}

#[test]
fn only_announced_places_need_a_lease() {
    for (place, expected) in [
        (Place::Local, None),
        (Place::Lan, Some(RejectReason::LeaseExpired)),
        (Place::Mesh, Some(RejectReason::LeaseExpired)),
        (Place::Cloud, None),
    ] {
        let only = Candidate { lease_left: Millis(0), ..candidate(1, place) };
        check(&policy(), &request(PrivacyClass::Any), &only, expected);
    }
}

/// Rule P1: the table of classes and places, complete.
#[test]
fn a_place_outside_the_class_is_rejected_before_anything_else() {
    let allowed = [
        (PrivacyClass::LocalOnly, 1),
        (PrivacyClass::Lan, 2),
        (PrivacyClass::Mesh, 3),
        (PrivacyClass::Any, 4),
    ];
    for (class, count) in allowed {
        for (index, place) in Place::ALL.into_iter().enumerate() {
            let expected = (index >= count).then_some(RejectReason::PrivacyClass);
            check(&policy(), &request(class), &candidate(1, place), expected);
            // Failing every other filter too makes no difference to what is said.
            if expected.is_some() {
                let hopeless = Candidate {
                    holds: None,
                    lease_left: Millis(0),
                    load: busy(0, 9, 0),
                    measured: cooling(u64::MAX),
                    ..candidate(1, place)
                };
                check(&policy(), &request(class), &hopeless, expected);
            }
        }
    }
}

#[test]
fn a_request_leaves_the_mesh_only_by_the_owners_policy() {
    let strict = Policy { is_cloud_allowed: false, ..policy() };
    let only = candidate(1, Place::Cloud);
    let expected = Some(RejectReason::CloudNotAllowed);
    check(&strict, &request(PrivacyClass::Any), &only, expected);
    let unset = decide(&Policy::DEFAULT, NOW, &request(PrivacyClass::Any), &[only]).outcome;
    assert_eq!(unset, Outcome::Refuse { code: RefuseCode::CloudNotAllowed });
}

#[test]
fn an_adapter_that_is_not_held_is_never_replaced_by_the_base() {
    let asked = Request { adapter: Some(adapter()), ..request(PrivacyClass::Mesh) };
    let base = candidate(1, Place::Mesh);
    check(&policy(), &asked, &base, Some(RejectReason::AdapterNotHeld));
    let mut wrong = base.clone();
    wrong.holds.as_mut().unwrap().adapter = Some(Hash::of_content(b"another"));
    check(&policy(), &asked, &wrong, Some(RejectReason::AdapterNotHeld));
    let mut right = base;
    right.holds.as_mut().unwrap().adapter = Some(adapter());
    check(&policy(), &asked, &right, None);
    // Who also holds an adapter serves the base as well.
    check(&policy(), &request(PrivacyClass::Mesh), &right, None);
}

#[test]
fn who_was_tried_is_not_tried_again() {
    let asked = Request { excluded: vec![peer(1)], ..request(PrivacyClass::Mesh) };
    let expected = Some(RejectReason::AlreadyTried);
    check(&policy(), &asked, &candidate(1, Place::Local), expected);
    check(&policy(), &asked, &candidate(2, Place::Local), None);
}

#[test]
fn a_refusal_says_what_is_most_useful() {
    let check = |class, candidates: &[Candidate], code| {
        let decision = decide(&Policy::DEFAULT, NOW, &request(class), candidates);
        assert_eq!(decision.outcome, Outcome::Refuse { code }, "{candidates:?}");
        assert_eq!(decision.replay(), Ok(()));
    };
    let stranger = |name, place| Candidate { holds: None, ..candidate(name, place) };
    let full = |name, place| Candidate { load: busy(4, 9, 4), ..candidate(name, place) };
    let gone = |name, place| Candidate { lease_left: Millis(0), ..candidate(name, place) };
    let (local, mesh, any) = (PrivacyClass::LocalOnly, PrivacyClass::Mesh, PrivacyClass::Any);
    check(mesh, &[], RefuseCode::UnknownModel);
    check(mesh, &[stranger(1, Place::Local)], RefuseCode::UnknownModel);
    // A stranger outside the class says nothing about privacy.
    check(local, &[stranger(1, Place::Mesh)], RefuseCode::UnknownModel);
    let outside = [stranger(1, Place::Local), candidate(2, Place::Mesh)];
    check(local, &outside, RefuseCode::PrivacyClass);
    let inside_is_full = [full(1, Place::Local), candidate(2, Place::Mesh)];
    check(local, &inside_is_full, RefuseCode::Overloaded);
    check(any, &[candidate(1, Place::Cloud)], RefuseCode::CloudNotAllowed);
    check(mesh, &[gone(1, Place::Mesh)], RefuseCode::ProvidersGone);
    check(mesh, &[gone(1, Place::Mesh), full(2, Place::Mesh)], RefuseCode::Overloaded);
    let tired = Candidate { measured: cooling(u64::MAX), ..candidate(1, Place::Mesh) };
    check(mesh, &[tired, gone(2, Place::Lan)], RefuseCode::CoolingDown);
    let mut short = candidate(1, Place::Local);
    short.holds.as_mut().unwrap().context_len = 10;
    check(mesh, &[short], RefuseCode::ContextTooShort);

    let tried = Request { excluded: vec![peer(1)], ..request(mesh) };
    let decision = decide(&policy(), NOW, &tried, &[candidate(1, Place::Mesh)]);
    assert_eq!(decision.outcome, Outcome::Refuse { code: RefuseCode::AllTried });
    let adapted = Request { adapter: Some(adapter()), ..request(mesh) };
    let decision = decide(&policy(), NOW, &adapted, &[candidate(1, Place::Mesh)]);
    assert_eq!(decision.outcome, Outcome::Refuse { code: RefuseCode::UnknownAdapter });
}

#[test]
fn a_request_ends_after_its_attempts() {
    let at = |attempt| {
        let asked = Request { attempt, ..request(PrivacyClass::Mesh) };
        decide(&policy(), NOW, &asked, &[candidate(1, Place::Local)]).outcome
    };
    assert_eq!(at(7), Outcome::Serve { peer: peer(1), place: Place::Local });
    assert_eq!(at(8), Outcome::Refuse { code: RefuseCode::AttemptsExhausted });
}

#[test]
fn codes_are_distinct_and_the_recorded_names() {
    use commons_record::codec::encode;
    for reason in RejectReason::ALL {
        assert_eq!(encode(&reason), encode(&reason.code()));
        assert!(reason.sentence().len() > 20);
    }
    for code in RefuseCode::ALL {
        assert_eq!(encode(&code), encode(&code.code()));
        assert!(code.sentence().ends_with('.'));
    }
    assert!(RejectReason::ALL.is_sorted());
    assert_eq!(BTreeSet::from(RejectReason::ALL.map(RejectReason::code)).len(), 9);
    assert_eq!(BTreeSet::from(RefuseCode::ALL.map(RefuseCode::code)).len(), 10);
}
