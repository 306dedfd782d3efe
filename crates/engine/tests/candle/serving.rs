//! Requests to an engine on candle: what is said is what our own kernels say.
//!
//! Sums run in another order there, so a token can be another where two are as likely. Each test
//! first checks that the answer it compares with has no such token.

use commons_engine::cache::KvFormat;
use commons_engine::forward::LoadOptions;
use commons_engine::model::engine_class;
use commons_engine::noise::write_noise_model;
use commons_engine::place::Device;
use commons_engine::worker::Worker;
use commons_engine::{AddOptions, LocalEngine, Model, WorkerConfig};
use commons_port::engine::{
    EmbedRequest, Engine, EngineRequest, LoadedModel, Pooling, ScoreRequest, Scores,
};
use commons_record::order::PromptInput;
use futures::executor::block_on;

use crate::support::{
    Said, ask, caller, config, listen, listen_with_cached, noise_engine, request, warm,
};
use crate::{TOLERANCE, apart};

/// What the two likeliest tokens are apart at least, in micro-nats: far more than sums differ by.
const MARGIN_MIN: i32 = 1_000;

/// What a log-probability may differ by, in micro-nats: logits here are below 10, and sums in another
/// order move them by less than 1e-5 of that.
const LOGPROB_APART_MAX: u32 = 100;

/// Our own kernels. Keys and values in f16 would round apart (see `steps.rs`).
fn on_ours() -> WorkerConfig {
    WorkerConfig { kv_format: KvFormat::F32, ..config() }
}

fn on_candle() -> WorkerConfig {
    WorkerConfig { device: Device::Candle, ..on_ours() }
}

/// Two alternatives are reported with each token.
fn asked(request: EngineRequest) -> EngineRequest {
    EngineRequest { top_logprobs: 2, ..request }
}

/// What our own kernels say to it: a greedy answer of which no token could be another.
fn ours(request: &EngineRequest) -> Said {
    let (engine, _) = noise_engine(on_ours());
    let said = ask(&engine, request.clone());
    for token in &said.tokens {
        let margin = token.top[0].logprob_micro - token.top[1].logprob_micro;
        assert!(margin >= MARGIN_MIN, "take another prompt: {margin} between {:?}", token.top);
    }
    assert!(said.tokens.len() > 8, "an answer of some length: {:?}", said.text);
    said
}

/// The same tokens and text, and nearly the same probabilities.
fn assert_alike(found: &Said, wanted: &Said) {
    assert_eq!(found.text, wanted.text);
    assert_eq!(found.ids(), wanted.ids());
    assert_eq!((&found.prompt, found.reason), (&wanted.prompt, wanted.reason));
    for (found, wanted) in found.tokens.iter().zip(&wanted.tokens) {
        let apart = found.logprob_micro.abs_diff(wanted.logprob_micro);
        assert!(apart <= LOGPROB_APART_MAX, "{found:?} for {wanted:?}");
    }
}

fn prompts(facts: &LoadedModel) -> Vec<EngineRequest> {
    let texts = ["bace difo gu", "hajeki", "lomu nape ri so tu va", "wexi yozu bace bace"];
    texts.iter().map(|text| asked(request(facts, text, 24))).collect()
}

fn model(device: Device) -> Model {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("noise.gguf");
    write_noise_model(&path, 7).expect("writes");
    Model::load_with(&path, &LoadOptions { device, ..LoadOptions::default() }).expect("loads")
}

fn worker(config: WorkerConfig) -> Worker {
    Worker::spawn(model(config.device), config).expect("starts")
}

#[test]
fn what_candle_computes_says_so() {
    let (engine, facts) = noise_engine(on_candle());
    assert_eq!(facts.class.kernels, "candle/tol");
    assert_ne!(facts.class, engine_class());
    assert_eq!(engine.models(), std::slice::from_ref(&facts));
    let placement = engine.placement(&facts.model).expect("is loaded");
    assert_eq!((placement.device, &placement.class), (Device::Candle, &facts.class));
}

#[test]
fn an_answer_alone_and_beside_others_is_that_of_our_own_kernels() {
    let (engine, facts) = noise_engine(WorkerConfig { slots: 4, ..on_candle() });
    let requests = prompts(&facts);
    let wanted: Vec<Said> = requests.iter().map(ours).collect();
    for (request, wanted) in requests.iter().zip(&wanted) {
        assert_alike(&ask(&engine, request.clone()), wanted);
    }
    let start = |request: &EngineRequest| engine.start(request.clone()).expect("is taken");
    let mut sequences: Vec<_> = requests.iter().map(start).collect();
    for (sequence, wanted) in sequences.iter_mut().zip(&wanted) {
        assert_alike(&listen(sequence.as_mut()), wanted);
    }
}

/// The first prompt leaves a page and 21 positions of the next, which are copied on the device.
#[test]
fn a_prompt_that_is_found_in_the_cache_is_answered_as_one_that_is_not() {
    let (engine, facts) = noise_engine(on_candle());
    let prompt = |tail: u32| {
        let id = |index: u32| if index < 53 { 300 + index } else { tail };
        let input = PromptInput::Tokens((0..90).map(id).collect());
        asked(EngineRequest { input, ..request(&facts, "", 12) })
    };
    ask(&engine, prompt(290));
    let mut sequence = engine.start(prompt(291)).expect("is taken");
    let (said, cached) = listen_with_cached(sequence.as_mut());
    assert_eq!(cached, Some(53));
    assert_alike(&said, &ours(&prompt(291)));
}

#[test]
fn guesses_are_checked_in_one_step_and_change_nothing() {
    let guessing = worker(WorkerConfig { caches_prefixes: false, draft_len_max: 8, ..on_candle() });
    let again = asked(request(guessing.facts(), &"bace difo gu ".repeat(20), 60));
    let said = listen(guessing.start(again.clone()).expect("is taken").as_mut());
    assert_alike(&said, &ours(&again));
    let stats = guessing.stats();
    assert!(stats.guessed_total > 0 && stats.guessed_right_total > 0, "{stats:?}");
}

/// The model guesses for itself, so guesses are right as often as two passes agree.
#[test]
fn a_smaller_model_guesses_on_candle_too() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("noise.gguf");
    write_noise_model(&path, 7).expect("writes");
    let engine = LocalEngine::new(on_candle());
    let options = AddOptions { draft: Some(path.clone()), ..AddOptions::default() };
    let facts = engine.add_with(&path, &options).expect("loads");
    let request = asked(request(&facts, "bace difo gu", 24));
    assert_alike(&ask(&engine, request.clone()), &ours(&request));
}

#[test]
fn a_seed_draws_what_it_draws_from_our_own_kernels() {
    let (engine, facts) = noise_engine(on_candle());
    let (own, _) = noise_engine(on_ours());
    let request = warm(request(&facts, "bace difo", 16), [5; 32]);
    assert_eq!(ask(&engine, request.clone()).ids(), ask(&own, request).ids());
}

#[test]
fn texts_are_judged_and_embedded_as_by_our_own_kernels() {
    let judge = |config: WorkerConfig| -> (Scores, Vec<f32>) {
        let (engine, facts) = noise_engine(config);
        let input = PromptInput::Tokens((0..150).map(|index| 270 + index * 7 % 200).collect());
        let score = ScoreRequest {
            model: facts.model,
            adapter: None,
            caller: caller(2),
            input: input.clone(),
            from: 1,
            top_logprobs: 0,
            replay: None,
        };
        let scores = block_on(engine.score(score)).expect("is judged");
        let pooling = Some(Pooling::Mean);
        let embed = EmbedRequest { model: facts.model, caller: caller(2), input, pooling };
        (scores, block_on(engine.embed(embed)).expect("is embedded").values)
    };
    let ((scores, vector), (wanted, wanted_vector)) = (judge(on_candle()), judge(on_ours()));
    assert_eq!((&scores.tokens, scores.scores.len()), (&wanted.tokens, 149));
    for (found, wanted) in scores.scores.iter().zip(&wanted.scores) {
        let [found, wanted] = [found, wanted].map(|it| it.token.as_ref().expect("has one before"));
        let apart = found.logprob_micro.abs_diff(wanted.logprob_micro);
        assert!(apart <= LOGPROB_APART_MAX, "{found:?} for {wanted:?}");
    }
    assert!(apart(&vector, &wanted_vector) <= TOLERANCE);
}

#[test]
fn pages_on_a_device_are_bounded_by_the_memory_that_they_may_take() {
    let model = model(Device::Candle);
    let page = model.transformer().page_bytes(KvFormat::F16).expect("has a size");
    let double = model.transformer().page_bytes(KvFormat::F32).expect("has a size");
    assert_eq!(double, 2 * page);
    let config = WorkerConfig { kv_format: KvFormat::F16, ..on_candle() };
    let config = WorkerConfig { kv_size_max: Some(17 * page + 1), ..config };
    assert_eq!(Worker::spawn(model, config).expect("starts").stats().pages, 17);
}
