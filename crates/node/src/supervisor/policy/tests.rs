//! Random histories of starts, ends and loads: one process, pauses that grow, nothing lost.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const A: ItemId = ItemId(1);
const B: ItemId = ItemId(2);

/// Feeds inputs at their times, and compares what comes out.
fn check(history: &[(u64, Input, &[Output])]) {
    let mut policy = Policy::new();
    for (at, input, want) in history {
        assert_eq!(policy.step(Millis(*at), input.clone()), *want, "{input:?} at {at}");
    }
}

#[test]
fn a_process_that_ends_is_started_after_a_pause_and_loaded_again() {
    check(&[
        (0, Input::Want(A), &[Output::Start]),
        (5, Input::Want(B), &[]),
        (10, Input::Hello, &[Output::Load(A)]),
        (20, Input::Loaded(A), &[Output::Load(B)]),
        (30, Input::Loaded(B), &[]),
        (40, Input::Ended, &[]),
        (139, Input::TimerFired, &[]),
        (140, Input::TimerFired, &[Output::Start]),
        (150, Input::Hello, &[Output::Load(A)]),
        (160, Input::Loaded(A), &[Output::Load(B)]),
    ]);
}

#[test]
fn pauses_double_up_to_half_a_minute_and_begin_anew_after_a_minute_of_health() {
    let mut policy = Policy::new();
    let mut now = Millis(0);
    let mut outputs = policy.step(now, Input::Want(A));
    policy.step(now, Input::Hello);
    policy.step(now, Input::Loaded(A));
    let mut pauses = Vec::new();
    for _ in 0..12 {
        assert_eq!(outputs, [Output::Start]);
        assert_eq!(policy.step(now, Input::Ended), []);
        let wake = policy.wake_at().expect("it will be started");
        pauses.push(wake.since(now).0);
        now = wake;
        outputs = policy.step(now, Input::TimerFired);
    }
    let want = [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000, 30_000];
    assert_eq!(pauses, want);
    policy.step(now, Input::Hello);
    let now = now.saturating_add(WELL_AFTER);
    policy.step(now, Input::Ended);
    assert_eq!(policy.wake_at().map(|it| it.since(now)), Some(PAUSE_MIN));
}

#[test]
fn what_ends_the_process_three_times_while_it_is_loaded_is_given_up() {
    let mut policy = Policy::new();
    policy.step(Millis(0), Input::Want(A));
    policy.step(Millis(0), Input::Want(B));
    let mut given_up = Vec::new();
    for round in 1..=3_u64 {
        let now = Millis(round * 1_000_000);
        policy.step(now, Input::TimerFired);
        assert_eq!(policy.step(now, Input::Hello), [Output::Load(A)], "round {round}");
        given_up.extend(policy.step(now, Input::Ended));
    }
    assert_eq!(given_up, [Output::GiveUp(A)]);
    let now = Millis(9_000_000);
    policy.step(now, Input::TimerFired);
    assert_eq!(policy.step(now, Input::Hello), [Output::Load(B)], "the other goes on");
}

#[test]
fn what_was_never_loaded_does_not_wait_for_a_process_that_never_comes() {
    check(&[
        (0, Input::Want(A), &[Output::Start]),
        (1, Input::Ended, &[]),
        (200, Input::TimerFired, &[Output::Start]),
        (201, Input::Ended, &[]),
        (900, Input::TimerFired, &[Output::Start]),
        (901, Input::Ended, &[Output::GiveUp(A)]),
    ]);
}

#[test]
fn what_the_process_refuses_is_not_asked_again() {
    check(&[
        (0, Input::Want(A), &[Output::Start]),
        (0, Input::Hello, &[Output::Load(A)]),
        (1, Input::Refused(A), &[]),
        (2, Input::Ended, &[]),
        (200, Input::TimerFired, &[Output::Start]),
        (201, Input::Hello, &[]),
    ]);
}

#[test]
fn nothing_is_started_after_the_end() {
    check(&[
        (0, Input::Want(B), &[Output::Start]),
        (1, Input::Hello, &[Output::Load(B)]),
        (2, Input::Stop, &[Output::End]),
        (3, Input::Ended, &[]),
        (99_999, Input::TimerFired, &[]),
        (99_999, Input::Want(A), &[]),
        (99_999, Input::Stop, &[]),
    ]);
}

fn any_input() -> impl Strategy<Value = Input> {
    let item = (1..4_u64).prop_map(ItemId);
    prop_oneof![
        Just(Input::Hello),
        Just(Input::Hello),
        Just(Input::Ended),
        item.clone().prop_map(Input::Want),
        item.clone().prop_map(Input::Forget),
        item.clone().prop_map(Input::Loaded),
        item.clone().prop_map(Input::Loaded),
        item.prop_map(Input::Refused),
        Just(Input::TimerFired),
        Just(Input::TimerFired),
        (0..40_u8).prop_map(|it| if it == 0 { Input::Stop } else { Input::TimerFired }),
    ]
}

proptest! {
    /// Whatever happens in whatever order: S1, S3 and S4 hold, and nothing follows a stop.
    #[test]
    fn whatever_happens_there_is_one_process_and_no_spin(
        inputs in vec((0..40_000_u64, any_input()), 0..200)
    ) {
        let mut policy = Policy::new();
        let mut now = Millis(0);
        let (mut is_running, mut is_stopped) = (false, false);
        let mut last_end: Option<Millis> = None;
        for (wait, input) in inputs {
            now = now.saturating_add(Millis(wait));
            // The shell reports only what a process that there is can do.
            if matches!(input, Input::Hello | Input::Ended) && !is_running {
                continue;
            }
            if input == Input::Ended {
                (is_running, last_end) = (false, Some(now));
            }
            is_stopped |= input == Input::Stop;
            let outputs = policy.step(now, input);
            for output in &outputs {
                match output {
                    Output::Start => {
                        prop_assert!(!is_running && !is_stopped, "S4");
                        let rested = last_end.is_none_or(|it| now.since(it) >= PAUSE_MIN);
                        prop_assert!(rested, "S1");
                        is_running = true;
                    }
                    Output::End => prop_assert!(is_stopped),
                    Output::Load(_) => prop_assert!(is_running && !is_stopped),
                    Output::GiveUp(_) => prop_assert!(!is_running),
                }
            }
            let loads = outputs.iter().filter(|it| matches!(it, Output::Load(_))).count();
            prop_assert!(loads <= 1, "S4");
            prop_assert!(policy.items.values().all(|it| it.deaths < DEATHS_MAX), "S3");
            if let Some(wake) = policy.wake_at() {
                prop_assert!(wake.since(now) <= PAUSE_MAX, "S1");
                prop_assert!(!is_stopped);
            }
        }
    }
}
