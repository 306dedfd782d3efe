//! Many at once, of whom half leave: all others end, and nothing stays behind.
//!
//! In a process of its own, because it measures what the process holds.

use commons_engine::measure::resident;
use commons_engine::noise::write_noise_model;
use commons_engine::worker::Worker;
use commons_engine::{Model, WorkerConfig};
use commons_port::engine::{Caller, EngineEvent, EngineRequest, Priority, Sequence};
use commons_record::Micro;
use commons_record::key::PublicKey;
use commons_record::order::{PromptInput, Sampling};
use commons_record::settlement::EndReason;
use futures::executor::block_on;
use futures::future::join_all;

const STREAMS: u8 = 200;

/// What a process may grow by after a first round: pieces of the heap that are free but not given
/// back. A leaked sequence has some kilobytes, a leaked answer of all streams some megabytes.
const GROWTH_MAX: u64 = 16 << 20;

fn worker() -> Worker {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("noise.gguf");
    write_noise_model(&path, 7).expect("writes");
    let queue_len_max = usize::from(STREAMS);
    let config = WorkerConfig { queue_len_max, threads: 1, ..WorkerConfig::default() };
    Worker::spawn(Model::load(&path).expect("loads"), config).expect("starts")
}

fn request(worker: &Worker, index: u8, seed: u8) -> EngineRequest {
    let text = format!("bace{}", " difo gu".repeat(usize::from(index % 23)));
    let temperature = Micro::from_millionths(800_000).expect("small");
    let key = PublicKey::from_bytes([index % 5; 32]);
    EngineRequest {
        model: worker.facts().model,
        adapter: None,
        caller: Caller {
            key,
            priority: Priority::Normal,
            shares_prefixes: index.is_multiple_of(3),
        },
        input: PromptInput::Text(text),
        stop: Vec::new(),
        constraint: None,
        tools: None,
        sampling: Sampling { temperature, ..Sampling::greedy() },
        seed: Some([index ^ seed; 32]),
        prompt_tokens_max: u32::MAX,
        completion_tokens_max: 24,
        top_logprobs: 0,
    }
}

/// Reads all of it, or leaves after some events. Whether it ended by itself.
async fn read(mut sequence: Box<dyn Sequence>, leaves_after: Option<u8>) -> bool {
    let mut count = 0;
    while leaves_after != Some(count) {
        match sequence.next().await {
            Some(EngineEvent::Finished { reason, .. }) => {
                assert!(matches!(reason, EndReason::Length | EndReason::Stop), "{reason:?}");
                assert!(sequence.next().await.is_none(), "something behind the end");
                return true;
            }
            Some(EngineEvent::Failed(refusal)) => panic!("{refusal}"),
            Some(EngineEvent::Prefilled { .. } | EngineEvent::Token(_)) => count += 1,
            None => panic!("it ended without an end"),
        }
    }
    false
}

/// One round: every second stream leaves, at once or in the middle.
fn round(worker: &Worker, seed: u8) {
    let one = |index: u8| {
        // A multiplication shuffles who leaves when; some before their first event.
        let leaves = index.wrapping_mul(97).wrapping_add(seed) % 20;
        let leaves_after = index.is_multiple_of(2).then_some(leaves);
        let sequence =
            worker.start(request(worker, index, seed)).expect("there is room in the queue");
        async move { (leaves_after.is_some(), read(sequence, leaves_after).await) }
    };
    let streams: Vec<_> = (0..STREAMS).map(one).collect();
    for (leaves, has_ended) in block_on(join_all(streams)) {
        assert!(leaves || has_ended, "who stays reads to the end");
    }
}

/// Waits until the thread has heard who left: those that come later are behind them.
fn settle(worker: &Worker) {
    let sequence = worker.start(request(worker, 0, 0)).expect("is taken");
    assert!(block_on(read(sequence, None)));
}

#[test]
fn of_two_hundred_streams_half_leave_and_nothing_stays_behind() {
    let worker = worker();
    round(&worker, 1);
    settle(&worker);
    let before = resident();
    for seed in 2..5 {
        round(&worker, seed);
        settle(&worker);
        let stats = worker.stats();
        assert_eq!((stats.running, stats.waiting), (0, 0), "{stats:?}");
        assert_eq!(stats.pages_in_use, 0, "{stats:?}");
        assert_eq!(stats.pages_free + stats.pages_cached, stats.pages, "{stats:?}");
    }
    let (Some((before, _)), Some((after, _))) = (before, resident()) else {
        eprintln!("SKIPPED: this system does not say how much memory a process holds");
        return;
    };
    eprintln!("{before} bytes before, {after} after");
    assert!(after < before + GROWTH_MAX, "{before} bytes before, {after} after");
}
