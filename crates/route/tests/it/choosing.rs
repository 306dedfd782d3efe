//! Who is chosen among those that passed the filters.

use std::collections::BTreeMap;

use commons_record::order::PrivacyClass;
use commons_record::{Millis, RequestId};
use commons_route::cost::{Tier, cost};
use commons_route::{Candidate, Cost, Measured, Outcome, Place, Policy, Request, decide};

use crate::world::{NOW, busy, candidate, peer, policy, request};

fn check(candidates: &[Candidate], expected: u8) {
    let decision = decide(&policy(), NOW, &request(PrivacyClass::Any), candidates);
    let Outcome::Serve { peer: chosen, .. } = decision.outcome else {
        panic!("refused: {:?}", decision.outcome);
    };
    assert_eq!(chosen, peer(expected), "{:?}", decision.verdicts);
    assert_eq!(decision.replay(), Ok(()));
}

fn fast(name: u8, place: Place) -> Candidate {
    let measured = Measured {
        first_token: Millis(10),
        micro_tokens_per_s: 1_000_000_000,
        samples: 50,
        ..Measured::default()
    };
    Candidate { measured: Some(measured), ..candidate(name, place) }
}

#[test]
fn the_local_model_serves_while_it_has_a_free_slot() {
    let local = |load| Candidate { load, ..candidate(1, Place::Local) };
    check(&[fast(2, Place::Lan), local(busy(3, 0, 4))], 1);
    check(&[fast(2, Place::Lan), local(None)], 1);
    // Without a free slot it is one among others: slower than an idle peer, quicker than a
    // queue at another.
    check(&[fast(2, Place::Lan), local(busy(4, 0, 4))], 2);
    check(&[fast(2, Place::Lan), local(busy(3, 1, 4))], 2);
    let queued = Candidate { load: busy(4, 7, 4), ..candidate(2, Place::Lan) };
    check(&[queued, local(busy(4, 0, 4))], 1);
}

#[test]
fn a_cloud_serves_only_if_nobody_in_the_mesh_can() {
    let slow = Candidate { load: busy(4, 7, 4), ..candidate(1, Place::Mesh) };
    check(&[fast(2, Place::Cloud), slow], 1);
    check(&[fast(2, Place::Cloud), Candidate { holds: None, ..candidate(1, Place::Mesh) }], 2);
}

#[test]
fn the_quicker_peer_serves() {
    check(&[candidate(1, Place::Mesh), fast(2, Place::Mesh)], 2);
    check(&[candidate(1, Place::Lan), fast(2, Place::Mesh)], 2);
    let busy_but_fast = Candidate { load: busy(4, 2, 4), ..fast(2, Place::Mesh) };
    check(&[candidate(1, Place::Mesh), busy_but_fast], 2);
    let mut unreliable = fast(2, Place::Mesh);
    unreliable.measured.as_mut().unwrap().failures = 40;
    check(&[candidate(1, Place::Mesh), unreliable], 1);
}

#[test]
fn an_unmeasured_peer_is_explored_before_a_slow_one() {
    let unknown = Candidate { measured: None, ..candidate(1, Place::Mesh) };
    check(&[unknown.clone(), candidate(2, Place::Mesh)], 2);
    let mut slow = candidate(2, Place::Mesh);
    slow.measured.as_mut().unwrap().micro_tokens_per_s = 5_000_000;
    check(&[unknown, slow], 1);
}

#[test]
fn costs_are_what_the_formula_says() {
    let check = |change: fn(&mut Candidate), expected: Cost| {
        let mut it = candidate(1, Place::Mesh);
        change(&mut it);
        assert_eq!(cost(&policy(), &request(PrivacyClass::Any), &it), expected, "{it:?}");
    };
    let ms = Millis;
    let idle = Cost {
        tier: Tier::Peers,
        queue: ms(0),
        first_token: ms(1_000),
        decode: ms(1_000),
        failure: ms(0),
    };
    check(|_| {}, idle);
    assert_eq!(idle.total(), ms(2_000));
    check(|it| it.place = Place::Local, Cost { tier: Tier::LocalIdle, ..idle });
    check(|it| it.place = Place::Cloud, Cost { tier: Tier::Cloud, ..idle });
    // The next of four slots frees after a quarter of an answer.
    check(|it| it.load = busy(4, 0, 4), Cost { queue: ms(500), ..idle });
    check(|it| it.load = busy(1, 3, 1), Cost { queue: ms(8_000), ..idle });
    let unmeasured = Cost { first_token: ms(300), decode: ms(2_000), ..idle };
    check(|it| it.measured = None, unmeasured);
    // One failure and no success: half of what a failure costs.
    let failed = Cost { failure: ms(2_500), ..unmeasured };
    check(|it| it.measured = Some(Measured { failures: 1, ..Measured::default() }), failed);
    let hang: fn(&mut Candidate) = |it| it.measured.as_mut().unwrap().micro_tokens_per_s = 0;
    check(hang, Cost { decode: ms(100_000_000_000), ..idle });
}

#[test]
fn an_answers_length_is_assumed_where_its_limit_is_higher() {
    let long = Request { completion_tokens_max: 100_000, ..request(PrivacyClass::Any) };
    let found = cost(&policy(), &long, &candidate(1, Place::Mesh));
    assert_eq!(found.decode, Millis(2_560));
}

#[test]
fn equal_peers_share_requests_and_a_request_keeps_its_peer() {
    let peers = [1, 2, 3, 4].map(|name| candidate(name, Place::Mesh));
    let mut counts = BTreeMap::new();
    let mut order = vec![];
    for id in 0..=255_u8 {
        let asked =
            Request { request: RequestId::from_bytes([id; 16]), ..request(PrivacyClass::Mesh) };
        let first = decide(&policy(), NOW, &asked, &peers).outcome;
        let again = Request { attempt: 1, ..asked };
        assert_eq!(first, decide(&policy(), Millis(NOW.0 + 1), &again, &peers).outcome);
        let Outcome::Serve { peer, .. } = first else { panic!("refused") };
        *counts.entry(peer).or_insert(0) += 1;
        order.push(peer.as_bytes()[0]);
    }
    // Pinned: whoever replays a decision breaks its ties alike (Rule P3).
    assert_eq!(order[..12], [2, 4, 1, 4, 4, 4, 4, 4, 1, 4, 3, 3]);
    // 64 each are expected; 35 is over four standard deviations below.
    assert!(counts.len() == 4 && counts.values().all(|count| *count > 35), "{counts:?}");
}

#[test]
fn measurements_follow_what_happened() {
    let policy = Policy::DEFAULT;
    let fresh = Measured::default();
    let once = fresh.after_success(Millis(400), 80_000_000);
    assert_eq!((once.first_token, once.micro_tokens_per_s), (Millis(400), 80_000_000));
    let twice = once.after_success(Millis(800), 40_000_000);
    assert_eq!((twice.first_token, twice.micro_tokens_per_s), (Millis(500), 70_000_000));

    let pause = |it: Measured| it.cooldown_until.unwrap().since(NOW);
    let mut failing = twice;
    for expected in [2, 4, 8, 16, 32, 64, 120, 120] {
        failing = failing.after_failure(&policy, NOW);
        assert_eq!(pause(failing), Millis::from_secs(expected));
    }
    assert_eq!((failing.failures, failing.samples), (8, 2));
    let back = failing.after_success(Millis(500), 70_000_000);
    assert_eq!((back.failures, back.cooldown_until, back.samples), (4, None, 3));
    let always = Measured { failures: u32::MAX, ..fresh }.after_failure(&policy, NOW);
    assert_eq!(pause(always), Millis::from_secs(120));
}
