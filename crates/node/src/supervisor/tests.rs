//! The supervisor against children that are played: good ones, and each kind of bad one.

mod children;

use std::collections::VecDeque;
use std::time::Duration;

use commons_port::engine::{Caller, EngineEvent, Priority};
use commons_port::process::CallId;
use commons_record::key::PublicKey;
use commons_record::order::{PromptInput, Sampling};

use super::*;
use children::{Child, Played, TokioClock, TokioTasks, added};

/// A supervisor whose processes are played, in this order; the last one is played on and on.
fn play(children: &[Child]) -> (Arc<Supervisor>, Arc<Played>) {
    let played = Arc::new(Played::new(VecDeque::from(children.to_vec())));
    let ports = SupervisorPorts {
        spawner: played.clone(),
        clock: Arc::new(TokioClock::default()),
        spawn: Arc::new(TokioTasks),
    };
    (Supervisor::start(ports, vec!["/models".into()]), played)
}

fn add(name: &str) -> AddModel {
    AddModel { path: name.into(), device: None, draft: None, draft_kv_size_max: None }
}

fn request(name: &str) -> EngineRequest {
    let key = PublicKey::from_bytes([1; 32]);
    EngineRequest {
        model: added(name).facts.model,
        adapter: None,
        caller: Caller { key, priority: Priority::Owner, shares_prefixes: false },
        input: PromptInput::Text("a".to_owned()),
        stop: Vec::new(),
        constraint: None,
        tools: None,
        sampling: Sampling::greedy(),
        seed: None,
        prompt_tokens_max: 100,
        completion_tokens_max: 1_000,
        top_logprobs: 0,
    }
}

/// The refusal with which a sequence ends.
async fn last_word(sequence: &mut dyn Sequence) -> EngineRefusal {
    loop {
        match sequence.next().await.expect("it has a last word") {
            EngineEvent::Failed(refusal) => return refusal,
            EngineEvent::Finished { .. } => panic!("it was not finished"),
            _ => {}
        }
    }
}

async fn is_up(supervisor: &Supervisor) -> u32 {
    let mut state = supervisor.state();
    loop {
        if let EngineState::Up { process, .. } = state {
            return process;
        }
        state = supervisor.changed(&state).await;
    }
}

async fn is_loaded(supervisor: &Supervisor, name: &str) {
    while supervisor.shared.check(&added(name).facts.model).is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_good_child_answers_and_its_models_are_listed() {
    let (supervisor, played) = play(&[Child::Good]);
    assert_eq!(supervisor.state(), EngineState::Idle);
    assert_eq!(played.count(), 0, "nothing was wanted yet");
    assert_eq!(supervisor.add(add("a")).await, Ok(added("a")));
    assert_eq!(supervisor.models(), [added("a").facts]);
    let mut sequence = supervisor.begin(request("a")).await.expect("starts");
    let first = sequence.next().await;
    assert!(matches!(first, Some(EngineEvent::Prefilled { .. })), "{first:?}");
    for _ in 0..200 {
        let token = sequence.next().await;
        assert!(matches!(token, Some(EngineEvent::Token(_))), "the window moves: {token:?}");
    }
    let load = supervisor.load(&added("a").facts.model).expect("is loaded");
    assert_eq!((load.running, load.queued), (1, 0));
    drop(sequence);
    assert_eq!(supervisor.load(&added("a").facts.model).map(|it| it.running), Some(0));
    let unknown = supervisor.begin(request("b")).await.err().expect("is refused");
    assert_eq!(unknown.code, EngineRefusalCode::UnknownModel);
}

#[tokio::test(start_paused = true)]
async fn a_killed_child_fails_what_was_under_way_and_comes_back_with_its_models() {
    let (supervisor, played) = play(&[Child::Good]);
    for name in ["a", "b"] {
        supervisor.add(add(name)).await.expect("loads");
    }
    let mut sequences = Vec::new();
    for _ in 0..50 {
        sequences.push(supervisor.begin(request("a")).await.expect("starts"));
    }
    let first = is_up(&supervisor).await;
    played.kill();
    for sequence in &mut sequences {
        let refusal = last_word(sequence.as_mut()).await;
        assert_eq!(refusal.code, EngineRefusalCode::Unavailable);
        assert!(refusal.message.contains("signal 9"), "{refusal}");
        assert_eq!(sequence.next().await, None);
    }
    assert_eq!(supervisor.models().len(), 2, "its models stay listed");
    let refused = supervisor.begin(request("a")).await.err().expect("it is away");
    assert_eq!(refused.code, EngineRefusalCode::Unavailable);
    let refused = supervisor.start(request("a")).err().expect("it is away");
    assert_eq!(refused.code, EngineRefusalCode::Unavailable);
    is_loaded(&supervisor, "b").await;
    assert!(is_up(&supervisor).await > first, "another process");
    assert!(supervisor.begin(request("a")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn each_bad_child_is_killed_and_the_next_one_serves() {
    let check = async |bad: Child, part: &str| {
        let (supervisor, played) = play(&[bad.clone(), Child::Good]);
        let mut reasons = Vec::new();
        let adding = supervisor.add(add("a"));
        let watching = async {
            let mut state = supervisor.state();
            loop {
                state = supervisor.changed(&state).await;
                if let EngineState::Away { reason } = &state {
                    reasons.push(reason.clone());
                    return;
                }
            }
        };
        let (result, ()) = tokio::join!(adding, watching);
        assert_eq!(result, Ok(added("a")), "{bad:?}");
        assert!(reasons[0].contains(part), "{bad:?}: no {part:?} in {reasons:?}");
        assert_eq!(played.count(), 2, "{bad:?}");
        assert_eq!(played.left(), 1, "{bad:?}: the bad one is gone");
    };
    check(Child::ExitsAtOnce, "exit status 1").await;
    check(Child::NotThere, "did not start").await;
    check(Child::Silent, "said nothing for").await;
    check(Child::SilentAfterHello, "was silent for").await;
    check(Child::Writes(b"panic: the engine\n".to_vec()), "no message").await;
    check(Child::Writes(vec![0xff; 64]), "is more than").await;
    check(Child::Hello(99), "version 99").await;
    check(Child::HelloTwice, "hello twice").await;
    check(Child::SpeaksOf(CallId(77)), "call 77").await;
}

#[tokio::test(start_paused = true)]
async fn a_child_that_sends_more_than_was_asked_for_is_killed() {
    let (supervisor, _played) = play(&[Child::Floods]);
    supervisor.add(add("a")).await.expect("loads");
    let mut sequence = supervisor.begin(request("a")).await.expect("starts");
    let refusal = last_word(sequence.as_mut()).await;
    assert!(refusal.message.contains("than was asked for"), "{refusal}");
}

#[tokio::test(start_paused = true)]
async fn a_child_that_keeps_ending_is_not_started_in_a_spin() {
    let (supervisor, played) = play(&[Child::Good, Child::ExitsAtOnce]);
    supervisor.add(add("a")).await.expect("loads");
    played.kill();
    tokio::time::sleep(Duration::from_mins(10)).await;
    // 0.1, 0.2, .. 25.6 s, then every 30 s.
    assert!((20..=30).contains(&played.count()), "{}", played.count());
    let refused = supervisor.begin(request("a")).await.err().expect("it is away");
    assert_eq!(refused.code, EngineRefusalCode::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_model_does_not_wait_for_a_child_that_never_comes() {
    let (supervisor, played) = play(&[Child::ExitsAtOnce]);
    let refusal = supervisor.add(add("a")).await.expect_err("is given up");
    assert!(refusal.message.contains("exit status 1 each time"), "{refusal}");
    assert_eq!(played.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_ends_the_child_three_times_is_given_up_and_others_load() {
    let (supervisor, played) = play(&[Child::DiesLoading("bad")]);
    supervisor.add(add("good")).await.expect("loads");
    let refusal = supervisor.add(add("bad")).await.expect_err("is given up");
    assert!(refusal.message.contains("each time"), "{refusal}");
    assert_eq!(played.count(), 3);
    is_loaded(&supervisor, "good").await;
    assert_eq!(supervisor.models().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_refused_is_told_with_its_reason() {
    let (supervisor, _played) = play(&[Child::Refuses("bad")]);
    let refusal = supervisor.add(add("bad")).await.expect_err("is refused");
    assert_eq!(refusal.message, "no such file");
    assert!(supervisor.models().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_model_that_comes_back_as_another_is_out_of_service() {
    let (supervisor, played) = play(&[Child::Good, Child::Renames]);
    supervisor.add(add("a")).await.expect("loads");
    is_up(&supervisor).await;
    played.kill();
    let gone = loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let refused = supervisor.begin(request("a")).await.err().expect("it is away");
        if refused.message.contains("out of service") {
            break refused;
        }
    };
    assert_eq!(gone.code, EngineRefusalCode::Unavailable);
    assert!(gone.message.contains("another than the one"), "{gone}");
    assert_eq!(supervisor.models(), [added("a").facts], "listed, so that it is not unknown");
}

#[tokio::test(start_paused = true)]
async fn the_end_is_told_to_the_child_and_nothing_follows() {
    let (supervisor, played) = play(&[Child::Good]);
    supervisor.add(add("a")).await.expect("loads");
    let mut sequence = supervisor.begin(request("a")).await.expect("starts");
    supervisor.shutdown().await;
    assert_eq!(last_word(sequence.as_mut()).await.code, EngineRefusalCode::Unavailable);
    assert_eq!(played.left(), 0);
    assert_eq!(
        supervisor.add(add("b")).await.map_err(|it| it.code),
        Err(EngineRefusalCode::Unavailable)
    );
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(played.count(), 1);
    let deaf = play(&[Child::Deaf]);
    deaf.0.add(add("a")).await.expect("loads");
    deaf.0.shutdown().await;
    assert_eq!(deaf.1.left(), 0, "one that does not hear is killed");
}
