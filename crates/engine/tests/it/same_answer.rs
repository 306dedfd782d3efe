//! What makes an engine fast changes no token and no probability: a cache of prefixes, guessed
//! tokens, batches, chunks. All of it against a plain engine.

use commons_engine::cache::KvFormat;
use commons_engine::noise::noise_model;
use commons_engine::worker::Worker;
use commons_engine::{LocalEngine, Model, WorkerConfig};
use commons_port::engine::{Engine, EngineRequest, LoadedModel};
use commons_record::order::PromptInput;

use crate::support::{
    Said, ask, config, listen, listen_with_cached, noise_engine, noise_page, request, warm,
};

/// Nothing that makes it fast.
fn plain() -> WorkerConfig {
    WorkerConfig { slots: 1, caches_prefixes: false, draft_len_max: 0, ..config() }
}

fn alone(request: EngineRequest) -> Said {
    let (engine, _) = noise_engine(plain());
    ask(&engine, request)
}

/// Prompts of several lengths, drawn greedily and with seeds.
fn requests(facts: &LoadedModel, count: u8) -> Vec<EngineRequest> {
    let one = |index: u8| {
        let text = format!("bace{}", " difo gu".repeat(usize::from(index) * 7));
        let request = request(facts, &text, 30 + u32::from(index));
        let request = if index.is_multiple_of(2) { request } else { warm(request, [index; 32]) };
        EngineRequest { top_logprobs: 3, ..request }
    };
    (0..count).map(one).collect()
}

fn worker(config: WorkerConfig) -> Worker {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("noise.gguf");
    std::fs::write(&path, noise_model(7).expect("builds").to_bytes()).expect("writes");
    Worker::spawn(Model::load(&path).expect("loads"), config).expect("starts")
}

#[test]
fn a_prefix_found_in_the_cache_changes_no_token_and_no_probability() {
    let (engine, facts) = noise_engine(config());
    for request in requests(&facts, 6) {
        let wanted = alone(request.clone());
        for round in 0..3 {
            let mut sequence = engine.start(request.clone()).expect("is taken");
            let (said, cached) = listen_with_cached(sequence.as_mut());
            assert_eq!(said, wanted, "round {round}");
            let cached = cached.expect("the prompt was read") as usize;
            assert!(cached < said.prompt.len(), "the last token is computed");
            let pages = (said.prompt.len() - 1) / 32;
            assert!(round == 0 || cached >= pages * 32, "{cached} of {}", said.prompt.len());
        }
    }
}

#[test]
fn a_conversation_that_goes_on_finds_its_earlier_turns_and_says_what_it_says_without() {
    let (engine, facts) = noise_engine(config());
    let first = ask(&engine, request(&facts, &"bace difo ".repeat(12), 70));
    let mut ids = first.prompt.clone();
    ids.extend(first.ids());
    ids.extend([300, 301, 302, 303, 304]);
    let next = EngineRequest { input: PromptInput::Tokens(ids), ..request(&facts, "", 40) };
    let mut sequence = engine.start(next.clone()).expect("is taken");
    let (said, cached) = listen_with_cached(sequence.as_mut());
    assert!(cached.expect("was read") as usize > first.prompt.len(), "answers are kept too");
    assert_eq!(said, alone(next));
}

#[test]
fn two_prompts_that_part_in_the_middle_of_a_page_share_what_is_before() {
    let (engine, facts) = noise_engine(config());
    let prompt = |tail: u32| {
        let ids: Vec<u32> =
            (0..90).map(|index| if index < 53 { 300 + index } else { tail }).collect();
        EngineRequest { input: PromptInput::Tokens(ids), ..request(&facts, "", 12) }
    };
    ask(&engine, prompt(290));
    let mut sequence = engine.start(prompt(291)).expect("is taken");
    let (said, cached) = listen_with_cached(sequence.as_mut());
    assert_eq!(cached, Some(53), "a page, and 21 positions of the next");
    assert_eq!(said, alone(prompt(291)));
}

#[test]
fn guessed_tokens_change_no_token_and_no_probability() {
    let guessing = worker(WorkerConfig { caches_prefixes: false, draft_len_max: 8, ..config() });
    let requests = requests(guessing.facts(), 6);
    // What repeats itself is guessed: a prompt that does, and an answer in which one token follows.
    let again = request(guessing.facts(), &"bace difo gu ".repeat(20), 120);
    for request in requests.into_iter().chain([again.clone(), warm(again, [9; 32])]) {
        let said = listen(guessing.start(request.clone()).expect("is taken").as_mut());
        assert_eq!(said, alone(request));
    }
    let stats = guessing.stats();
    eprintln!("guessed {}, right {}", stats.guessed_total, stats.guessed_right_total);
    assert!(stats.guessed_total > 0 && stats.guessed_right_total > 0, "{stats:?}");
    assert!(stats.guessed_right_total < stats.guessed_total, "some were wrong: {stats:?}");
}

#[test]
fn an_answer_beside_others_is_the_answer_alone() {
    for threads in [1, 2] {
        let config = WorkerConfig { slots: 9, threads, ..config() };
        let (engine, facts) = noise_engine(config);
        let requests = requests(&facts, 9);
        let start = |request: &EngineRequest| engine.start(request.clone()).expect("is taken");
        let mut sequences: Vec<_> = requests.iter().map(start).collect();
        for (sequence, request) in sequences.iter_mut().zip(&requests) {
            assert_eq!(listen(sequence.as_mut()), alone(request.clone()));
        }
    }
}

/// With few pages somebody is parked, and what it knew is computed again.
#[test]
fn an_answer_that_was_parked_for_others_goes_on_as_if_it_was_not() {
    // A page more than one sequence of 512 positions has: six have to do with it.
    let size = Some(17 * noise_page(config().kv_format));
    let scarce = worker(WorkerConfig { slots: 6, kv_size_max: size, ..config() });
    let long = |index: u8| {
        let text = format!("{} bace", "difo ".repeat(usize::from(index) + 20));
        warm(request(scarce.facts(), &text, 150), [index; 32])
    };
    let requests: Vec<_> = (0..6).map(long).collect();
    let start = |request: &EngineRequest| scarce.start(request.clone()).expect("is taken");
    let mut sequences: Vec<_> = requests.iter().map(start).collect();
    // The events of one wait while another is read: all are read in turn.
    let mut said: Vec<Said> = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            sequences.iter_mut().map(|it| scope.spawn(|| listen(it.as_mut()))).collect();
        said.extend(threads.into_iter().map(|thread| thread.join().expect("reads")));
    });
    for (said, request) in said.iter().zip(requests) {
        assert_eq!(*said, alone(request));
    }
    let stats = scarce.stats();
    assert!(stats.parked_total > 0, "there was room for all: {stats:?}");
}

/// Sixteen bits of keys and values, or eight, are another model's numbers, but the same in every
/// batch.
#[test]
fn every_format_of_keys_and_values_gives_one_answer_in_every_batch() {
    for kv_format in [KvFormat::F32, KvFormat::F16, KvFormat::Q8] {
        let one = WorkerConfig { kv_format, ..plain() };
        let (single, facts): (LocalEngine, _) = noise_engine(one);
        let (engine, _) = noise_engine(WorkerConfig { kv_format, ..config() });
        for request in requests(&facts, 4) {
            let wanted = ask(&single, request.clone());
            assert_eq!(ask(&engine, request.clone()), wanted, "{kv_format:?}");
            assert_eq!(ask(&engine, request), wanted, "{kv_format:?}, from the cache");
        }
    }
}
