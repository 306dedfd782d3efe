//! What happens when computing panics, and when callers come while a batch is planned.

use commons_port::engine::{Pooling, Priority, Replay};
use commons_record::key::PublicKey;
use commons_record::order::{PromptInput, Sampling};
use futures::FutureExt;
use futures::executor::block_on;

use super::driver::PANIC_TOKEN;
use super::*;
use crate::noise::write_noise_model;

fn worker(config: WorkerConfig) -> Worker {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("noise.gguf");
    write_noise_model(&path, 1).expect("writes");
    let model = Model::load(&path).expect("loads");
    Worker::spawn(model, WorkerConfig { threads: 1, ..config }).expect("starts")
}

fn caller() -> Caller {
    let key = PublicKey::from_bytes([1; 32]);
    Caller { key, priority: Priority::Normal, shares_prefixes: false }
}

fn request(worker: &Worker, ids: &[u32], seed: Option<Seed32>) -> EngineRequest {
    EngineRequest {
        model: worker.facts().model,
        adapter: None,
        caller: caller(),
        input: PromptInput::Tokens(ids.to_vec()),
        stop: Vec::new(),
        constraint: None,
        tools: None,
        sampling: Sampling::greedy(),
        seed,
        prompt_tokens_max: 100,
        completion_tokens_max: 4,
        top_logprobs: 0,
    }
}

fn score(worker: &Worker, ids: &[u32]) -> ScoreRequest {
    ScoreRequest {
        model: worker.facts().model,
        adapter: None,
        caller: caller(),
        input: PromptInput::Tokens(ids.to_vec()),
        from: 1,
        top_logprobs: 0,
        replay: Some(Replay {
            sampling: Sampling::greedy(),
            seed: None,
            constraint: None,
            tools: None,
        }),
    }
}

fn embed(worker: &Worker, ids: &[u32]) -> EmbedRequest {
    let input = PromptInput::Tokens(ids.to_vec());
    EmbedRequest {
        model: worker.facts().model,
        caller: caller(),
        input,
        pooling: Some(Pooling::Mean),
    }
}

/// All events to the end, of which the last is returned.
fn last(sequence: &mut dyn Sequence) -> Option<EngineEvent> {
    std::iter::from_fn(|| block_on(sequence.next())).last()
}

fn crashed() -> EngineRefusal {
    failed(CRASHED.to_owned())
}

/// Everything that is under way and that comes later fails, whatever it was that panicked.
fn check_panic(poison: impl FnOnce(&Worker, &[u32])) {
    let worker = worker(WorkerConfig::default());
    let held: Vec<_> = (0..3)
        .map(|index| {
            let request = request(&worker, &[300, 301 + index], None);
            let mut sequence = worker.start(request).expect("is taken");
            let first = block_on(sequence.next());
            assert!(matches!(first, Some(EngineEvent::Prefilled { .. })), "{first:?}");
            sequence
        })
        .collect();
    poison(&worker, &[PANIC_TOKEN, 300, 302]);
    for mut sequence in held {
        assert_eq!(last(sequence.as_mut()), Some(EngineEvent::Failed(crashed())));
        assert_eq!(sequence.next().now_or_never(), Some(None), "nothing behind the end");
    }
    assert_eq!(worker.load(), EngineLoad::default(), "who was there is not there any more");
    let refusal = worker.start(request(&worker, &[300], None)).map(drop).expect_err("is refused");
    assert_eq!(refusal, crashed());
    assert_eq!(worker.score(&score(&worker, &[300, 301])).map(drop), Err(crashed()));
    assert_eq!(worker.embed(&embed(&worker, &[300])).map(drop), Err(crashed()));
}

#[test]
fn a_panic_fails_every_sequence_and_the_model_from_then_on() {
    check_panic(|worker, ids| {
        let mut sequence = worker.start(request(worker, ids, Some([0; 32]))).expect("is taken");
        assert_eq!(last(sequence.as_mut()), Some(EngineEvent::Failed(crashed())));
    });
    check_panic(|worker, ids| {
        let scores = worker.score(&score(worker, ids)).expect("is taken");
        assert_eq!(block_on(scores), Err(crashed()));
    });
    check_panic(|worker, ids| {
        let vector = worker.embed(&embed(worker, ids)).expect("is taken");
        assert_eq!(block_on(vector), Err(crashed()));
    });
}

#[test]
fn a_caller_that_does_not_read_hears_of_a_panic_too() {
    let worker = worker(WorkerConfig { draft_len_max: 0, ..WorkerConfig::default() });
    let long = |ids: &[u32]| EngineRequest {
        completion_tokens_max: 200,
        ..request(&worker, ids, Some([0; 32]))
    };
    let mut idle = worker.start(long(&[300])).expect("is taken");
    // Beside it another is read to its end, many steps after the first had no more room.
    let mut other = worker.start(long(&[301])).expect("is taken");
    assert!(matches!(last(other.as_mut()), Some(EngineEvent::Finished { .. })));
    let mut poison =
        worker.start(request(&worker, &[PANIC_TOKEN], Some([0; 32]))).expect("is taken");
    assert_eq!(last(poison.as_mut()), Some(EngineEvent::Failed(crashed())));
    let said: Vec<_> = std::iter::from_fn(|| block_on(idle.next())).collect();
    assert!(said.len() > EVENTS_MAX, "{} events", said.len());
    assert_eq!(said.last(), Some(&EngineEvent::Failed(crashed())));
}

/// A sequence is admitted on its caller's thread, at any moment of the model's: also between
/// hearing and planning.
#[test]
fn callers_that_come_at_any_moment_are_served() {
    let worker = worker(WorkerConfig { queue_len_max: 1 << 10, ..WorkerConfig::default() });
    std::thread::scope(|scope| {
        for index in 0..4 {
            let worker = &worker;
            scope.spawn(move || {
                for round in 0..100 {
                    let request = request(worker, &[300 + index, 310 + round % 50], Some([0; 32]));
                    let mut sequence = worker.start(request).expect("is taken");
                    let end = last(sequence.as_mut());
                    assert!(matches!(end, Some(EngineEvent::Finished { .. })), "{end:?}");
                }
            });
        }
    });
    let stats = worker.stats();
    assert_eq!((stats.running, stats.waiting, stats.pages_in_use), (0, 0, 0), "{stats:?}");
}

#[test]
fn a_score_or_a_vector_that_nobody_waits_for_is_not_computed_to_its_end() {
    let worker = worker(WorkerConfig::default());
    let held = worker.start(request(&worker, &[300, 301], None)).expect("is taken");
    drop(worker.score(&score(&worker, &[300, 301])).expect("is taken"));
    drop(worker.embed(&embed(&worker, &[300])).expect("is taken"));
    drop(held);
    // Whoever comes now is heard behind those who left.
    let mut sequence = worker.start(request(&worker, &[300], Some([0; 32]))).expect("is taken");
    assert!(matches!(last(sequence.as_mut()), Some(EngineEvent::Finished { .. })));
    let stats = worker.stats();
    assert_eq!((stats.running, stats.waiting, stats.pages_in_use), (0, 0, 0), "{stats:?}");
}
