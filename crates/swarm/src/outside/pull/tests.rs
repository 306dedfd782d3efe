//! A file that comes, in pieces, late, not at all, or as another one.

use proptest::prelude::*;

use super::*;

const SIZE: u64 = 1_000_000;

fn pull() -> Pull {
    Pull::new(SIZE, Hash::from_bytes([7; 32]), Policy::default())
}

fn busy(after_ms: u64) -> OriginError {
    OriginError::Busy { host: "h".to_owned(), after_ms }
}

fn broken() -> OriginError {
    OriginError::Broken { host: "h".to_owned(), detail: "x".to_owned() }
}

/// The attempt and offset of the fetch that must be among these.
fn fetched(outputs: &[Output]) -> (u32, u64) {
    let found = outputs.iter().find_map(|it| match it {
        Output::Fetch { attempt, offset } => Some((*attempt, *offset)),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("nothing is fetched: {outputs:?}"))
}

fn timer(outputs: &[Output]) -> Millis {
    let found = outputs.iter().find_map(|it| match it {
        Output::SetTimer(at) => Some(*at),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no timer is set: {outputs:?}"))
}

fn reason(outputs: &[Output]) -> Option<&GiveUp> {
    outputs.iter().find_map(|it| match it {
        Output::GiveUp(reason) => Some(reason),
        _ => None,
    })
}

#[test]
fn a_file_that_comes_well_is_held() {
    let mut pull = pull();
    let (attempt, offset) = fetched(&pull.step(Millis(0), Input::Start { kept: 0 }));
    assert_eq!(offset, 0);
    assert_eq!(pull.step(Millis(1), Input::Opened { attempt, offset: 0 }), []);
    assert_eq!(pull.step(Millis(2), Input::Kept { attempt, len: 10 }), []);
    let whole = pull.step(Millis(3), Input::Kept { attempt, len: SIZE });
    assert_eq!(whole, [Output::Stop { attempt }, Output::Finish]);
    assert_eq!(pull.step(Millis(4), Input::Ended { attempt }), [Output::Refuse]);
    assert_eq!(pull.step(Millis(5), Input::Hashed { is_right: true }), [Output::Done]);
    assert!(pull.is_over());
    assert_eq!(pull.step(Millis(6), Input::TimerFired), []);
    assert_eq!(pull.step(Millis(7), Input::Start { kept: 0 }), [Output::Refuse]);
}

#[test]
fn what_is_kept_is_not_asked_for_again() {
    let mut pull = pull();
    let (attempt, offset) = fetched(&pull.step(Millis(0), Input::Start { kept: 400_000 }));
    assert_eq!(offset, 400_000);
    pull.step(Millis(0), Input::Opened { attempt, offset });
    pull.step(Millis(0), Input::Kept { attempt, len: 700_000 });
    let outputs = pull.step(Millis(0), Input::Failed { attempt, error: broken() });
    assert_eq!(outputs[0], Output::Stop { attempt });
    let at = timer(&outputs);
    assert!(at >= Millis(1_000) && at <= Millis(1_250), "{at}");
    // Early and repeated timers are harmless.
    assert_eq!(pull.step(Millis(500), Input::TimerFired), [Output::SetTimer(at)]);
    let (next, offset) = fetched(&pull.step(at, Input::TimerFired));
    assert_eq!(offset, 700_000);
    assert_ne!(next, attempt);
    // A late word of the first attempt is not heard.
    assert_eq!(pull.step(at, Input::Opened { attempt, offset }), [Output::Refuse]);
}

#[test]
fn a_place_that_cannot_resume_begins_anew() {
    let mut pull = pull();
    let (attempt, _) = fetched(&pull.step(Millis(0), Input::Start { kept: 400_000 }));
    let outputs = pull.step(Millis(0), Input::Opened { attempt, offset: 0 });
    assert_eq!(outputs, [Output::Restart]);
    assert_eq!(pull.kept(), 0);
    pull.step(Millis(0), Input::Kept { attempt, len: SIZE });
    assert_eq!(pull.step(Millis(0), Input::Hashed { is_right: true }), [Output::Done]);
}

#[test]
fn more_than_the_file_on_the_disk_is_another_file() {
    let outputs = pull().step(Millis(0), Input::Start { kept: SIZE + 1 });
    assert_eq!(outputs[0], Output::Restart);
    assert_eq!(fetched(&outputs).1, 0);
    assert_eq!(pull().step(Millis(0), Input::Start { kept: SIZE }), [Output::Finish]);
}

/// Each attempt restarts and breaks off at the half: the bytes flow, and nothing is won.
#[test]
fn a_place_that_breaks_off_at_the_half_for_ever_is_given_up() {
    let mut pull = pull();
    let mut outputs = pull.step(Millis(0), Input::Start { kept: 0 });
    for round in 1..=20 {
        let (attempt, offset) = fetched(&outputs);
        pull.step(Millis(0), Input::Opened { attempt, offset: 0 });
        pull.step(Millis(0), Input::Kept { attempt, len: SIZE / 2 });
        outputs = pull.step(Millis(0), Input::Failed { attempt, error: broken() });
        if let Some(reason) = reason(&outputs) {
            // The first brought something new, the next eight did not.
            assert_eq!(round, 8, "{offset}");
            assert!(matches!(reason, GiveUp::NoProgress { attempts: 8, .. }), "{reason:?}");
            return;
        }
        outputs = pull.step(timer(&outputs), Input::TimerFired);
    }
    panic!("it is not given up");
}

#[test]
fn a_busy_place_is_left_alone_for_as_long_as_it_asks() {
    let mut pull = pull();
    let (attempt, _) = fetched(&pull.step(Millis(0), Input::Start { kept: 0 }));
    let outputs = pull.step(Millis(0), Input::Failed { attempt, error: busy(120_000) });
    assert!(timer(&outputs) >= Millis(121_000), "{outputs:?}");
    let (attempt, _) = fetched(&pull.step(timer(&outputs), Input::TimerFired));
    let outputs = pull.step(Millis(0), Input::Failed { attempt, error: busy(86_400_000) });
    let want = GiveUp::TooBusy { after_ms: 86_400_000, max_ms: 3_600_000 };
    assert_eq!(reason(&outputs), Some(&want));
}

#[test]
fn what_will_not_change_is_given_up_at_once() {
    let what = || "x".to_owned();
    for error in [
        OriginError::Offline,
        OriginError::NotFound { what: what() },
        OriginError::Unauthorised { what: what() },
        OriginError::Changed { what: what() },
        OriginError::Refused { what: what(), detail: what() },
    ] {
        let mut pull = pull();
        let (attempt, _) = fetched(&pull.step(Millis(0), Input::Start { kept: 0 }));
        let outputs = pull.step(Millis(0), Input::Failed { attempt, error: error.clone() });
        assert_eq!(reason(&outputs), Some(&GiveUp::Refused(error)));
    }
    let mut pull = pull();
    pull.step(Millis(0), Input::Start { kept: SIZE });
    let outputs = pull.step(Millis(0), Input::Hashed { is_right: false });
    assert_eq!(outputs, [Output::GiveUp(GiveUp::WrongHash)]);
}

#[test]
fn silence_is_a_failure() {
    let mut pull = pull();
    let (attempt, _) = fetched(&pull.step(Millis(0), Input::Start { kept: 0 }));
    pull.step(Millis(100_000), Input::Opened { attempt, offset: 0 });
    pull.step(Millis(200_000), Input::Kept { attempt, len: 1 });
    // No byte more is no word.
    pull.step(Millis(400_000), Input::Kept { attempt, len: 1 });
    let outputs = pull.step(Millis(300_000), Input::TimerFired);
    assert_eq!(timer(&outputs), Millis(500_000));
    let outputs = pull.step(Millis(500_000), Input::TimerFired);
    assert_eq!(outputs[0], Output::Stop { attempt });
}

#[test]
fn what_is_stopped_goes_on_where_it_stood() {
    let mut pull = pull();
    let (attempt, _) = fetched(&pull.step(Millis(0), Input::Start { kept: 0 }));
    pull.step(Millis(0), Input::Opened { attempt, offset: 0 });
    pull.step(Millis(0), Input::Kept { attempt, len: 5 });
    assert_eq!(pull.step(Millis(0), Input::Stop), [Output::Stop { attempt }]);
    assert_eq!(pull.step(Millis(0), Input::TimerFired), []);
    assert_eq!(fetched(&pull.step(Millis(0), Input::Start { kept: 5 })).1, 5);
}

/// What a place does with one attempt.
#[derive(Debug, Clone)]
enum Act {
    /// Sends so many bytes from where it was asked to, and then fails.
    Sends { len: u64, resumes: bool, error: OriginError },
    /// Refuses.
    Fails(OriginError),
    /// Begins in the wrong place.
    Elsewhere,
    /// Says nothing.
    Hangs,
}

fn any_act() -> impl Strategy<Value = Act> {
    let error = prop_oneof![Just(broken()), (0..100_000_u64).prop_map(busy)];
    prop_oneof![
        6 => (0..SIZE, any::<bool>(), error.clone())
            .prop_map(|(len, resumes, error)| Act::Sends { len, resumes, error }),
        2 => error.prop_map(Act::Fails),
        1 => Just(Act::Elsewhere),
        1 => Just(Act::Hangs),
    ]
}

/// Performs outputs against a place that acts so; the bytes that are kept, and how it ended.
struct World {
    pull: Pull,
    now: Millis,
    kept: u64,
    attempts: u32,
    wait_until: Millis,
    end: Option<Output>,
}

impl World {
    fn play(acts: &[Act]) -> Self {
        let (now, wait_until) = (Millis(0), Millis(0));
        let mut world = Self { pull: pull(), now, kept: 0, attempts: 0, wait_until, end: None };
        let mut outputs = world.pull.step(now, Input::Start { kept: 0 });
        for act in acts.iter().cycle().take(20_000) {
            let (attempt, offset) = fetched(&outputs);
            assert!(world.now >= world.wait_until, "U3");
            assert_eq!(offset, world.kept, "U1");
            world.attempts += 1;
            outputs = world.attempt(attempt, offset, act);
            if let Some(end) = outputs.last().filter(|it| is_end(it)) {
                world.end = Some(end.clone());
                return world;
            }
            world.now = timer(&outputs);
            outputs = world.pull.step(world.now, Input::TimerFired);
        }
        world
    }

    fn attempt(&mut self, attempt: u32, offset: u64, act: &Act) -> Vec<Output> {
        match act {
            Act::Fails(error) => self.fails(attempt, error),
            Act::Hangs => {
                self.now = self.now.saturating_add(Policy::default().stall);
                self.pull.step(self.now, Input::TimerFired)
            }
            Act::Elsewhere if offset > 1 => {
                self.pull.step(self.now, Input::Opened { attempt, offset: offset - 1 })
            }
            Act::Elsewhere => self.fails(attempt, &broken()),
            Act::Sends { len, resumes, error } => {
                let from = if *resumes { offset } else { 0 };
                let outputs = self.pull.step(self.now, Input::Opened { attempt, offset: from });
                if outputs.contains(&Output::Restart) {
                    self.kept = 0;
                }
                self.kept = (from + len).min(SIZE);
                let outputs = self.pull.step(self.now, Input::Kept { attempt, len: self.kept });
                if outputs.contains(&Output::Finish) {
                    return self.pull.step(self.now, Input::Hashed { is_right: true });
                }
                assert_eq!(outputs, []);
                self.fails(attempt, error)
            }
        }
    }

    fn fails(&mut self, attempt: u32, error: &OriginError) -> Vec<Output> {
        if let OriginError::Busy { after_ms, .. } = error {
            self.wait_until = self.now.saturating_add(Millis(*after_ms));
        }
        self.pull.step(self.now, Input::Failed { attempt, error: error.clone() })
    }
}

fn is_end(output: &Output) -> bool {
    matches!(output, Output::Done | Output::GiveUp(_))
}

proptest! {
    /// However a place behaves, it is asked a bounded number of times, never for what is kept,
    /// never too early, and the file is held only when all of it is.
    #[test]
    fn every_pull_ends(acts in prop::collection::vec(any_act(), 1..20)) {
        let world = World::play(&acts);
        let end = world.end.expect("it ends");
        prop_assert_eq!(end == Output::Done, world.kept == SIZE);
        // Each eight attempts bring 64 KiB at least.
        let bound = 8 * (SIZE / Policy::default().progress_min + 2);
        prop_assert!(u64::from(world.attempts) <= bound, "{} attempts", world.attempts);
    }

    /// No order of inputs makes it fail, and nothing follows the end.
    #[test]
    fn nothing_follows_the_end(inputs in prop::collection::vec((0..400_000_u64, any_input()), 0..80)) {
        let (mut pull, mut now, mut ended) = (pull(), Millis(0), false);
        for (wait, input) in inputs {
            now = now.saturating_add(Millis(wait));
            for output in pull.step(now, input) {
                prop_assert!(!ended || output == Output::Refuse, "{output:?}");
                ended |= is_end(&output);
            }
            prop_assert_eq!(ended, pull.is_over());
            prop_assert!(pull.kept() <= SIZE);
        }
    }
}

fn any_input() -> impl Strategy<Value = Input> {
    let attempt = 0..4_u32;
    let len = prop_oneof![0..=SIZE + 1, Just(SIZE)];
    prop_oneof![
        len.clone().prop_map(|kept| Input::Start { kept }),
        (attempt.clone(), len.clone())
            .prop_map(|(attempt, offset)| Input::Opened { attempt, offset }),
        (attempt.clone(), len).prop_map(|(attempt, len)| Input::Kept { attempt, len }),
        attempt.clone().prop_map(|attempt| Input::Ended { attempt }),
        attempt.prop_map(|attempt| Input::Failed { attempt, error: broken() }),
        any::<bool>().prop_map(|is_right| Input::Hashed { is_right }),
        Just(Input::TimerFired),
        Just(Input::Stop),
    ]
}
