//! D1 to D3, by example and by chance.

use proptest::prelude::*;

use super::*;

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes([number; 32])
}

fn machine() -> Redial {
    Redial::new(peer(255), 4)
}

fn known(number: u8) -> Input {
    Input::Known { peer: peer(number), is_connected: false }
}

fn dial(number: u8) -> Vec<Output> {
    vec![Output::Dial(peer(number))]
}

#[test]
fn a_known_peer_is_dialled_at_once() {
    let mut redial = machine();
    assert_eq!(redial.step(Millis(5), known(1)), dial(1));
    assert_eq!(redial.deadline(), None);
}

#[test]
fn a_peer_that_is_connected_already_is_not_dialled() {
    let mut redial = machine();
    let input = Input::Known { peer: peer(1), is_connected: true };
    assert_eq!(redial.step(Millis(5), input), []);
    assert_eq!(redial.step(Millis(5), Input::Wanted(peer(1))), []);
}

#[test]
fn a_lost_peer_is_dialled_again_after_a_short_wait() {
    let mut redial = machine();
    redial.step(Millis(0), known(1));
    redial.step(Millis(10), Input::Connected(peer(1)));
    assert_eq!(redial.step(Millis(60_000), Input::Disconnected(peer(1))), []);
    let deadline = redial.deadline().unwrap();
    assert!((60_000 + 187..=60_250).contains(&deadline.0), "{deadline:?}");
    assert_eq!(redial.step(Millis(deadline.0 - 1), Input::TimerFired), []);
    assert_eq!(redial.step(deadline, Input::TimerFired), dial(1));
    assert_eq!(redial.step(deadline, Input::TimerFired), []);
}

#[test]
fn failures_double_the_wait_up_to_its_maximum() {
    let mut redial = machine();
    let mut now = Millis(0);
    assert_eq!(redial.step(now, known(1)), dial(1));
    for failures in 0..40 {
        assert_eq!(redial.step(now, Input::DialFailed(peer(1))), []);
        let deadline = redial.deadline().unwrap();
        let full = (RETRY_MIN.0 << failures.min(16)).min(RETRY_MAX.0);
        let waited = deadline.since(now).0;
        assert!(waited <= full && waited >= full - full / 4, "{waited} of {full}");
        now = deadline;
        assert_eq!(redial.step(now, Input::TimerFired), dial(1));
    }
}

#[test]
fn a_connection_that_does_not_hold_counts_as_a_failure() {
    let mut redial = machine();
    let mut now = Millis(0);
    redial.step(now, known(1));
    for _ in 0..10 {
        redial.step(now, Input::Connected(peer(1)));
        redial.step(now, Input::Disconnected(peer(1)));
        now = redial.deadline().unwrap();
        redial.step(now, Input::TimerFired);
    }
    assert!(now.0 > RETRY_MAX.0, "ten flaps took only {now:?}");
}

#[test]
fn news_start_afresh_but_do_not_flood() {
    let mut redial = machine();
    redial.step(Millis(0), known(1));
    for _ in 0..12 {
        redial.step(Millis(0), Input::DialFailed(peer(1)));
        redial.step(redial.deadline().unwrap(), Input::TimerFired);
    }
    let now = Millis(1_000_000);
    redial.step(now, Input::DialFailed(peer(1)));
    assert_eq!(redial.step(now, known(1)), dial(1), "new addresses end the wait");
    redial.step(now, Input::DialFailed(peer(1)));
    assert_eq!(redial.step(now, known(1)), [], "but not at any rate");
    assert!(redial.deadline().unwrap() <= Millis(now.0 + RETRY_MIN.0));
}

#[test]
fn a_wanted_peer_is_dialled_in_spite_of_its_back_off() {
    let mut redial = machine();
    redial.step(Millis(0), known(1));
    redial.step(Millis(0), Input::DialFailed(peer(1)));
    assert_eq!(redial.step(Millis(1), Input::Wanted(peer(1))), dial(1));
    assert_eq!(redial.step(Millis(1), Input::Wanted(peer(1))), []);
    assert_eq!(redial.step(Millis(1), Input::Wanted(peer(9))), [], "unknown: nothing to dial");
}

#[test]
fn a_forgotten_peer_is_left_alone() {
    let mut redial = machine();
    redial.step(Millis(0), known(1));
    redial.step(Millis(0), Input::DialFailed(peer(1)));
    redial.step(Millis(0), Input::Forgotten(peer(1)));
    assert_eq!(redial.deadline(), None);
    assert_eq!(redial.step(RETRY_MAX, Input::TimerFired), []);
    assert_eq!(redial.step(RETRY_MAX, Input::DialFailed(peer(1))), []);
}

#[test]
fn a_place_that_becomes_free_goes_to_the_one_that_waits() {
    let mut redial = Redial::new(peer(255), 1);
    assert_eq!(redial.step(Millis(0), known(1)), dial(1));
    assert_eq!(redial.step(Millis(1), known(2)), []);
    redial.step(Millis(2), Input::Connected(peer(1)));
    assert_eq!(redial.deadline(), None, "due, and waiting for room: no timer would help");
    assert_eq!(redial.step(Millis(3), Input::Disconnected(peer(1))), dial(2));
}

fn any_input() -> impl Strategy<Value = Input> {
    let peers = || (0..24_u8).prop_map(peer);
    prop_oneof![
        (peers(), any::<bool>())
            .prop_map(|(peer, is_connected)| Input::Known { peer, is_connected }),
        peers().prop_map(Input::Forgotten),
        peers().prop_map(Input::Wanted),
        peers().prop_map(Input::Connected),
        peers().prop_map(Input::Disconnected),
        peers().prop_map(Input::DialFailed),
        Just(Input::TimerFired),
    ]
}

proptest! {
    /// D1 and D3, whatever peers and clocks do; and the timer always has something to wait for.
    #[test]
    fn nobody_is_dialled_twice_and_no_bound_is_passed(
        inputs in proptest::collection::vec((0..200_000_u64, any_input()), 0..200),
    ) {
        let mut redial = Redial::new(peer(255), 8);
        let mut now = Millis(0);
        for (passed, input) in inputs {
            now = Millis(now.0 + passed);
            let idle_before: Vec<PeerId> = redial
                .peers
                .iter()
                .filter(|(_, entry)| matches!(entry.state, State::Waiting { .. }))
                .map(|(peer, _)| *peer)
                .collect();
            let outputs = redial.step(now, input);
            for Output::Dial(peer) in &outputs {
                let is_news = matches!(input, Input::Known { peer: new, .. } if new == *peer);
                let is_lost = input == Input::Disconnected(*peer) || input == Input::DialFailed(*peer);
                prop_assert!(idle_before.contains(peer) || is_news || is_lost, "D1: {input:?}");
            }
            let willing = outputs.iter().filter(|it| match (it, input) {
                (Output::Dial(peer), Input::Wanted(wanted)) => *peer != wanted,
                (Output::Dial(_), _) => true,
            });
            prop_assert!(willing.count() <= 8, "D3");
            prop_assert!(redial.deadline().is_none_or(|deadline| deadline > now));
        }
    }
}
