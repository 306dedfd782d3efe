//! What holds for every policy, request and set of candidates.

use commons_record::order::PrivacyClass;
use commons_record::{Hash, Millis, PeerId, RequestId};
use commons_route::decision::{CANDIDATES_MAX, DECISION_SIZE_MAX};
use commons_route::{
    Candidate, Decision, HeldModel, Load, Measured, Outcome, Place, Policy, ReplayMismatch,
    Request, decide,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::world::{NOW, candidate, peer, policy, request};

fn any_hash() -> impl Strategy<Value = Hash> {
    (0..2_u8).prop_map(|it| Hash::from_bytes([it; 32]))
}

/// Few peers, so that exclusions hit, and one peer is listed at several places.
fn any_peer() -> impl Strategy<Value = PeerId> {
    (0..12_u8).prop_map(peer)
}

/// Small numbers mostly, and the extremes.
fn any_number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..20_u64, 2 => 0..5_000_000_u64, 1 => Just(u64::MAX), 1 => any::<u64>()]
}

fn any_count() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0..12_u32, 1 => Just(u32::MAX)]
}

fn any_class() -> impl Strategy<Value = PrivacyClass> {
    use PrivacyClass::{Any, Lan, LocalOnly, Mesh};
    select(&[LocalOnly, Lan, Mesh, Any])
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let limits = (any::<bool>(), 1..4_u32, any_count(), any_count());
    let times = (any_number(), any_number(), any_number(), any_number(), any_number());
    (limits, times).prop_map(|((is_cloud_allowed, attempts_max, queue, answer), times)| Policy {
        is_cloud_allowed,
        attempts_max,
        queue_len_max: queue,
        first_token_assumed: Millis(times.0),
        micro_tokens_per_s_assumed: times.1,
        answer_tokens_assumed: answer,
        failure_cost: Millis(times.2),
        cooldown_first: Millis(times.3),
        cooldown_max: Millis(times.4),
    })
}

fn any_request() -> impl Strategy<Value = Request> {
    let what = (any_hash(), option::of(any_hash()), any_count(), any_count());
    (any::<[u8; 16]>(), 0..4_u32, what, any_class(), vec(any_peer(), 0..4)).prop_map(
        |(id, attempt, (model, adapter, context_needed, tokens), class, excluded)| Request {
            request: RequestId::from_bytes(id),
            attempt,
            model,
            adapter,
            context_needed,
            completion_tokens_max: tokens,
            class,
            excluded,
        },
    )
}

fn any_held() -> impl Strategy<Value = HeldModel> {
    (any_hash(), option::of(any_hash()), "\\PC{0,40}", any_count()).prop_map(
        |(model, adapter, quantisation, context_len)| HeldModel {
            model,
            adapter,
            quantisation,
            context_len,
        },
    )
}

fn any_measured() -> impl Strategy<Value = Measured> {
    let until = option::of(any_number().prop_map(Millis));
    (any_number(), any_number(), any_count(), any_count(), until).prop_map(
        |(first_token, micro_tokens_per_s, samples, failures, cooldown_until)| Measured {
            first_token: Millis(first_token),
            micro_tokens_per_s,
            samples,
            failures,
            cooldown_until,
        },
    )
}

fn any_candidate() -> impl Strategy<Value = Candidate> {
    let load = (any_count(), any_count(), any_count()).prop_map(|(running, queued, slots)| Load {
        running,
        queued,
        slots,
    });
    let known = (option::of(any_held()), option::of(load), option::of(any_measured()));
    (select(&Place::ALL), any_peer(), any_number(), known).prop_map(
        |(place, peer, lease_left, (holds, load, measured))| Candidate {
            place,
            peer,
            holds,
            lease_left: Millis(lease_left),
            load,
            measured,
        },
    )
}

fn any_decision() -> impl Strategy<Value = Decision> {
    (any_policy(), any_number(), any_request(), vec(any_candidate(), 0..24)).prop_map(
        |(policy, now, request, candidates)| decide(&policy, Millis(now), &request, &candidates),
    )
}

/// Rules P1 and P2, as one sentence about any decision, replayed or fresh.
fn invariant_p1_nothing_leaves_its_class(decision: &Decision) {
    let Outcome::Serve { peer, place } = decision.outcome else { return };
    let class = decision.request.class;
    let is_inside = match place {
        Place::Local => true,
        Place::Lan => class >= PrivacyClass::Lan,
        Place::Mesh => class >= PrivacyClass::Mesh,
        Place::Cloud => class == PrivacyClass::Any && decision.policy.is_cloud_allowed,
    };
    assert!(is_inside, "a request of class {class:?} went to {place:?}");
    let is_real = |it: &Candidate| {
        it.peer == peer
            && it.place == place
            && it.holds.as_ref().is_some_and(|held| {
                let adapter = decision.request.adapter;
                held.model == decision.request.model
                    && (adapter.is_none() || held.adapter == adapter)
            })
    };
    assert!(decision.candidates.iter().any(is_real), "nobody there holds what was asked for");
    assert!(!decision.request.excluded.contains(&peer), "a tried peer was tried again");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever is asked of whomever, no request is served outside its class (Rules P1, P2),
    /// and the record of that replays after a journey through its encoding (Rule P3).
    #[test]
    fn every_decision_keeps_its_class_and_replays(decision in any_decision()) {
        invariant_p1_nothing_leaves_its_class(&decision);
        let bytes = decision.encode();
        let read = Decision::decode(&bytes).unwrap();
        prop_assert_eq!(&read, &decision);
        prop_assert_eq!(read.hash(), decision.hash());
        prop_assert_eq!(read.replay(), Ok(()));
        prop_assert_eq!(decision.verdicts.len(), decision.candidates.len());
    }

    /// The order in which candidates and exclusions are listed decides nothing.
    #[test]
    fn the_order_of_the_candidates_does_not_matter(
        (candidates, shuffled) in vec(any_candidate(), 0..16)
            .prop_flat_map(|it| (Just(it.clone()), Just(it).prop_shuffle())),
        request in any_request(),
        policy in any_policy(),
    ) {
        let mut reversed = request.clone();
        reversed.excluded.reverse();
        let first = decide(&policy, NOW, &request, &candidates);
        prop_assert_eq!(first, decide(&policy, NOW, &reversed, &shuffled));
    }

    /// Whoever is out of the privacy class might as well not exist: adding such candidates
    /// never changes who serves (Rule P1).
    #[test]
    fn candidates_outside_the_class_change_nothing(
        request in any_request(),
        candidates in vec(any_candidate(), 0..16),
    ) {
        let inside = candidates.iter().filter(|it| it.place.is_within(request.class)).cloned();
        let inside = inside.collect::<Vec<_>>();
        let all = decide(&policy(), NOW, &request, &candidates).outcome;
        let few = decide(&policy(), NOW, &request, &inside).outcome;
        if matches!(all, Outcome::Serve { .. }) || matches!(few, Outcome::Serve { .. }) {
            prop_assert_eq!(all, few);
        }
    }

    /// Rule P3: a record that was changed anywhere does not replay.
    #[test]
    fn a_changed_record_does_not_replay(
        decision in any_decision(), other in any_decision(), field in 0..8_usize,
    ) {
        let mut changed = decision.clone();
        match field {
            0 => changed.now = Millis(decision.now.0 ^ 1),
            1 => changed.policy = other.policy,
            2 => changed.request = other.request,
            3 => changed.candidates = other.candidates,
            4 => changed.verdicts = other.verdicts,
            5 => changed.outcome = other.outcome,
            6 => changed.inputs = other.inputs,
            _ => changed.candidates_offered ^= 1,
        }
        if changed != decision {
            prop_assert!(changed.replay().is_err(), "field {field} changed");
        }
    }

    /// A flipped bit in the encoding is refused, or makes a record that does not replay.
    #[test]
    fn a_flipped_bit_shows(decision in any_decision(), at in any::<usize>(), bit in 0..8_u32) {
        let mut bytes = decision.encode();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(read) = Decision::decode(&bytes) {
            prop_assert!(read.replay().is_err());
        }
    }
}

#[test]
fn a_replay_says_what_does_not_match() {
    let decision =
        decide(&policy(), NOW, &request(PrivacyClass::Mesh), &[candidate(1, Place::Mesh)]);
    let check = |change: fn(&mut Decision), expected| {
        let mut changed = decision.clone();
        change(&mut changed);
        assert_eq!(changed.replay(), Err(expected));
    };
    check(|it| it.version = 2, ReplayMismatch::Version { found: 2 });
    let offered = ReplayMismatch::Offered { offered: 2, recorded: 1 };
    check(|it| it.candidates_offered = 2, offered);
    check(|it| it.request.excluded.push(peer(9)), ReplayMismatch::NotCanonical);
    check(|it| it.now = Millis(0), ReplayMismatch::Inputs);
    check(|it| it.verdicts.clear(), ReplayMismatch::Verdicts);
    let elsewhere = |it: &mut Decision| {
        it.outcome = Outcome::Serve { peer: peer(1), place: Place::Local };
    };
    check(elsewhere, ReplayMismatch::Outcome);
}

#[test]
fn too_many_candidates_keep_the_holders_and_the_nearest() {
    let mut many = (0..2_000_u32)
        .map(|index| {
            let mut peer = [0; 32];
            peer[..4].copy_from_slice(&index.to_be_bytes());
            let peer = PeerId::from_bytes(peer);
            Candidate { peer, holds: None, ..candidate(0, Place::Lan) }
        })
        .collect::<Vec<_>>();
    many.push(candidate(200, Place::Mesh));
    let decision = decide(&policy(), NOW, &request(PrivacyClass::Mesh), &many);
    assert_eq!(decision.candidates.len(), CANDIDATES_MAX as usize);
    assert_eq!(decision.candidates_offered, 2_001);
    assert_eq!(decision.outcome, Outcome::Serve { peer: peer(200), place: Place::Mesh });
    decision.replay().unwrap();
}

#[test]
fn the_largest_decision_is_within_its_bound() {
    let largest = |index: u16| {
        let [high, low] = index.to_be_bytes();
        let mut it = candidate(low, Place::Local);
        let mut id = [low; 32];
        id[0] = high;
        it.peer = PeerId::from_bytes(id);
        let held = it.holds.as_mut().unwrap();
        held.quantisation = "x".repeat(1_000);
        held.adapter = Some(held.model);
        held.context_len = u32::MAX;
        it.lease_left = Millis(u64::MAX);
        it.load = Some(Load { running: u32::MAX - 1, queued: 1 << 31, slots: u32::MAX });
        it.measured = Some(Measured {
            first_token: Millis(u64::MAX),
            micro_tokens_per_s: u64::MAX,
            samples: u32::MAX,
            failures: u32::MAX,
            cooldown_until: Some(Millis(u64::MAX)),
        });
        it
    };
    let candidates = (0..1_000).map(largest).collect::<Vec<_>>();
    let vast = Policy {
        queue_len_max: u32::MAX,
        failure_cost: Millis(u64::MAX),
        micro_tokens_per_s_assumed: u64::MAX,
        ..policy()
    };
    for excluded in [vec![], candidates.iter().map(|it| it.peer).collect::<Vec<_>>()] {
        let asked = Request { excluded, ..request(PrivacyClass::Mesh) };
        let decision = decide(&vast, Millis(u64::MAX), &asked, &candidates);
        let size = decision.encode().len();
        assert!(size <= DECISION_SIZE_MAX, "{size} bytes");
        Decision::decode(&decision.encode()).unwrap().replay().unwrap();
    }
    assert!(Decision::decode(&vec![0; DECISION_SIZE_MAX + 1]).is_err());
}
