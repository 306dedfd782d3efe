//! A guess changes when something is said, and never what; and guesses cost bounded memory.

use std::path::{Path, PathBuf};

use commons_port::engine::{Priority, Token};
use commons_record::Micro;
use commons_record::key::SecretKey;
use commons_record::order::{LogitBias, PromptInput, Sampling};
use futures::executor::block_on;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::cache::page_bytes;
use crate::gguf::{Array, Value};
use crate::local::{AddError, AddOptions, LocalEngine};
use crate::noise::{noise_model, write_noise_model};
use crate::worker::{
    Caller, EngineEvent, EngineRequest, LoadedModel, Sequence, SpawnError, Worker,
};

const PROMPTS: [&str; 4] = ["bace difo", "guhajeki lomu na", "vawexi", "so so so tu tu tu so so"];

fn noise(seed: u64) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("noise.gguf");
    write_noise_model(&path, seed).unwrap();
    Model::load(&path).unwrap()
}

/// A file that nobody here wrote; `None`, loudly, where the folder is absent.
fn fixture(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures/models");
    let path = root.join(name);
    if !path.exists() {
        eprintln!("SKIPPED: {} is absent", path.display());
    }
    path.exists().then_some(path)
}

fn config() -> WorkerConfig {
    WorkerConfig { threads: 1, slots: 4, ..WorkerConfig::default() }
}

fn alone(model: Model) -> Worker {
    Worker::spawn(model, WorkerConfig { draft_len_max: 0, ..config() }).unwrap()
}

fn guessed_with(model: Model, draft: Model, kv_size_max: Option<u64>) -> Worker {
    Worker::spawn_with(model, Some(Draft { model: draft, kv_size_max }), config()).unwrap()
}

/// Greedy; seeded; seeded with everything that changes logits.
fn settings(model: &LoadedModel) -> Vec<(Sampling, Option<[u8; 32]>)> {
    let micro = |text: &str| text.parse::<Micro>().unwrap();
    let seed = |salt: u8| Some(*model.model.as_bytes()).map(|it| it.map(|byte| byte ^ salt));
    let bias = |(token, bias): (u32, &str)| LogitBias { token, bias: micro(bias) };
    let warm = Sampling { temperature: micro("0.8"), ..Sampling::greedy() };
    let penalised = Sampling {
        repetition_penalty: micro("1.3"),
        presence_penalty: micro("0.4"),
        frequency_penalty: micro("0.2"),
        logit_bias: [(300, "3.5"), (301, "-2")].map(bias).to_vec(),
        ..warm.clone()
    };
    vec![
        (Sampling::greedy(), None),
        (warm, seed(1)),
        (penalised.clone(), seed(2)),
        (Sampling { temperature: micro("0"), ..penalised }, None),
    ]
}

fn request(worker: &Worker, text: &str, count: u32) -> EngineRequest {
    EngineRequest {
        model: worker.facts().model,
        adapter: None,
        caller: Caller {
            key: SecretKey::from_seed(&[3; 32]).public(),
            priority: Priority::Normal,
            shares_prefixes: false,
        },
        input: PromptInput::Text(text.to_owned()),
        stop: Vec::new(),
        constraint: None,
        tools: None,
        sampling: Sampling::greedy(),
        seed: Some([7; 32]),
        prompt_tokens_max: u32::MAX,
        completion_tokens_max: count,
        top_logprobs: 3,
    }
}

fn listen(mut sequence: Box<dyn Sequence>) -> Vec<Token> {
    let mut said = Vec::new();
    while let Some(event) = block_on(sequence.next()) {
        match event {
            EngineEvent::Token(token) => said.push(token),
            EngineEvent::Failed(refusal) => panic!("{refusal:?}"),
            EngineEvent::Prefilled { .. } | EngineEvent::Finished { .. } => {}
        }
    }
    said
}

/// All prompts at once, with these settings: every token, its log-probability and alternatives.
fn answers(worker: &Worker, (sampling, seed): &(Sampling, Option<[u8; 32]>)) -> Vec<Vec<Token>> {
    let ask = |text: &&str| {
        let request = request(worker, text, 60);
        let seed = seed.or(request.seed);
        worker.start(EngineRequest { sampling: sampling.clone(), seed, ..request }).unwrap()
    };
    let sequences: Vec<_> = PROMPTS.iter().map(ask).collect();
    sequences.into_iter().map(listen).collect()
}

/// How many guesses were made, and how many were right.
struct Rate(u64, u64);

/// Compares all answers with and without guesses.
#[track_caller]
fn check(model: impl Fn() -> Model, draft: impl Fn() -> Model, kv_size_max: Option<u64>) -> Rate {
    let (plain, fast) = (alone(model()), guessed_with(model(), draft(), kv_size_max));
    for setting in settings(plain.facts()) {
        assert_eq!(answers(&fast, &setting), answers(&plain, &setting), "{setting:?}");
    }
    assert_eq!(plain.stats().guessed_total, 0);
    let (load, stats) = (fast.draft_load().unwrap(), fast.stats());
    assert_eq!(load.pages_in_use, 0, "what has ended holds nothing");
    Rate(stats.guessed_total, stats.guessed_right_total)
}

#[test]
fn a_model_that_guesses_for_itself_is_nearly_always_right() {
    let Rate(guessed, right) = check(|| noise(7), || noise(7), None);
    // What is wrong comes from what was said before, and stops soon.
    assert!(guessed > 300 && right * 100 >= guessed * 90, "{right} of {guessed}");
}

#[test]
fn guesses_of_another_model_change_nothing_and_stop() {
    let Rate(guessed, right) = check(|| noise(7), || noise(8), None);
    // 16 answers of 60 tokens: a few guesses at the beginning of each, then pauses.
    assert!(guessed > 0 && guessed - right < 16 * 30, "{right} of {guessed}");
}

#[test]
fn a_coarser_copy_of_the_model_changes_nothing_and_is_often_right() {
    let files = ["stories260K.gguf", "stories260K-Q8_0.gguf"].map(fixture);
    let [Some(model), Some(draft)] = files else { return };
    let load = |path: &Path| Model::load(path).unwrap();
    let Rate(guessed, right) = check(|| load(&model), || load(&draft), None);
    assert!(guessed > 100 && right * 2 > guessed, "{right} of {guessed}");
}

#[test]
fn where_pages_run_out_there_are_fewer_guesses_and_the_same_answers() {
    let draft = noise(7);
    let page = page_bytes(draft.transformer().settings(), config().kv_format).unwrap();
    let Rate(guessed, right) = check(|| noise(7), || noise(7), Some(page * 2 + 1));
    assert!(guessed > 0 && right > 0);
    let worker = guessed_with(noise(7), noise(7), Some(page * 2 + 1));
    assert_eq!(worker.draft_load().map(|it| it.pages), Some(2));
}

#[test]
fn a_dropped_sequence_frees_the_pages_of_the_draft_too() {
    let worker = guessed_with(noise(7), noise(7), None);
    let mut sequence = worker.start(request(&worker, PROMPTS[1], 2_000)).unwrap();
    let mut heard = 0;
    while worker.draft_load().unwrap().pages_in_use == 0 {
        let event = block_on(sequence.next()).expect("it goes on");
        heard += usize::from(matches!(event, EngineEvent::Token(_)));
        assert!(heard < 1_000, "nothing was guessed in {heard} tokens");
    }
    drop(sequence);
    // Callers are heard between two steps, so before this one's first.
    listen(worker.start(request(&worker, "ba", 1)).unwrap());
    assert_eq!(worker.draft_load().unwrap().pages_in_use, 0);
}

/// The noise model with another vocabulary.
fn with(change: impl Fn(&mut Vec<String>, &mut Vec<i32>, &mut Vec<f32>)) -> Model {
    let mut file = noise_model(7).unwrap();
    let gguf = crate::gguf::Gguf::parse(&file.to_bytes()).unwrap();
    let value = |name: &str| gguf.get(&format!("tokenizer.ggml.{name}")).unwrap().clone();
    let mut texts = value("tokens").as_strings().unwrap().to_vec();
    let mut kinds = value("token_type").as_i32s().unwrap().to_vec();
    let mut scores = value("scores").as_f32s().unwrap().to_vec();
    change(&mut texts, &mut kinds, &mut scores);
    file.replace("tokenizer.ggml.tokens", Value::Array(Array::String(texts)))
        .replace("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds)))
        .replace("tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.gguf");
    std::fs::write(&path, file.to_bytes()).unwrap();
    Model::load(&path).unwrap()
}

/// An encoder of the project's own, with the smallest vocabulary that can be read.
fn encoder() -> Model {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families/bert");
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(source.join(file), folder.path().join(file)).unwrap();
    }
    let tokenizer = r###"{
        "added_tokens": [],
        "normalizer": {"type": "BertNormalizer", "clean_text": true,
            "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "a": 1}}
    }"###;
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer).unwrap();
    Model::load(folder.path()).unwrap()
}

/// Without the last two tokens.
fn shorter(texts: &mut Vec<String>, kinds: &mut Vec<i32>, scores: &mut Vec<f32>) {
    let len = texts.len() - 2;
    texts.truncate(len);
    kinds.truncate(len);
    scores.truncate(len);
}

#[test]
fn tokens_that_are_not_used_are_as_good_as_absent() {
    let padded = with(|texts, kinds, _| {
        let len = texts.len();
        texts[len - 2..].clone_from_slice(&["[PAD1]".into(), "[PAD2]".into()]);
        kinds[len - 2..].fill(5);
    });
    let (short, full) = (with(shorter), noise(7));
    let first = u32::try_from(short.tokenizer().token_count()).unwrap();
    for (ours, theirs, expected) in
        [(&padded, &short, None), (&short, &padded, None), (&padded, &full, Some(first))]
    {
        assert_eq!(ours.tokenizer().difference(theirs.tokenizer()), expected);
    }
}

#[test]
fn a_model_with_another_vocabulary_is_refused_by_name() {
    // Who guesses, and what the refusal says; `None` where it is taken.
    let cases: [(Model, Option<&str>); 5] = [
        (with(|_, _, scores| scores.reverse()), None),
        (with(|texts, _, _| texts[300] = "other".into()), Some("token 300 is \"")),
        (with(|_, kinds, _| kinds[300] = 3), Some("the control token \"")),
        (with(shorter), Some("and nothing in")),
        (encoder(), Some("turns text into vectors")),
    ];
    for (draft, expected) in cases {
        let draft = Draft { model: draft, kv_size_max: None };
        let refused = Worker::spawn_with(noise(7), Some(draft), config());
        let said = match &refused {
            Err(SpawnError::Draft(error)) => Some(error.to_string()),
            Err(error) => panic!("{error:?}"),
            Ok(_) => None,
        };
        match (said, expected) {
            (Some(said), Some(part)) => assert!(said.contains(part), "{said}"),
            (said, part) => assert_eq!(said.is_some(), part.is_some(), "{said:?}"),
        }
    }
}

#[test]
fn what_cannot_guess_at_all_is_refused_by_name() {
    let draft = |kv_size_max| Some(Draft { model: noise(7), kv_size_max });
    let none = WorkerConfig { draft_len_max: 0, ..config() };
    let said = |result: Result<Worker, SpawnError>| match result {
        Err(SpawnError::Draft(error)) => error,
        other => panic!("{other:?}"),
    };
    let error = said(Worker::spawn_with(noise(7), draft(None), none));
    assert!(matches!(error, DraftError::NoGuesses { .. }), "{error:?}");
    let error = said(Worker::spawn_with(noise(7), draft(Some(100)), config()));
    assert!(matches!(error, DraftError::Memory { limit: 100, .. }), "{error:?}");
    let error = said(Worker::spawn_with(encoder(), draft(None), config()));
    assert!(matches!(error, DraftError::Encoder { .. }), "{error:?}");
}

#[test]
fn an_engine_loads_a_model_with_one_that_guesses() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_noise_model(&path("model.gguf"), 7).unwrap();
    write_noise_model(&path("draft.gguf"), 8).unwrap();
    let engine = LocalEngine::new(config());
    let absent = AddOptions { draft: Some(path("absent.gguf")), ..AddOptions::default() };
    let refused = engine.add_with(&path("model.gguf"), &absent);
    assert!(matches!(refused, Err(AddError::LoadDraft(_))), "{refused:?}");
    let options = AddOptions { draft: Some(path("draft.gguf")), ..AddOptions::default() };
    let facts = engine.add_with(&path("model.gguf"), &options).unwrap();
    let models = commons_port::engine::Engine::models(&engine);
    assert_eq!(models.len(), 1, "the smaller one cannot be asked");
    assert_eq!(models[0].model, facts.model);
}

/// A guesser without a thread, with so many pages.
fn guesser(pages: u64) -> Guesser {
    let (model, draft) = (noise(7), noise(7));
    let page = page_bytes(draft.transformer().settings(), config().kv_format).unwrap();
    let room = Room::measure(model.transformer(), &config()).unwrap();
    let draft = Draft { model: draft, kv_size_max: Some(page * pages) };
    Guesser::new(draft, &model, &room, &config()).unwrap()
}

fn ask_for(guesser: &mut Guesser, team: &mut Team, id: u64, tokens: &[u32]) -> Vec<u32> {
    let id = SequenceId(id);
    let sampler = Sampler::new(&Sampling::greedy(), None).unwrap();
    assert!(guesser.hear(id, tokens));
    let ask = Ask { id, len: 3, positions_max: 2_000, sampler, place: 1 };
    let proposals = guesser.guess(team, vec![ask]);
    proposals.into_iter().flat_map(|it| it.1).collect()
}

#[test]
fn pages_are_taken_only_from_those_who_are_asked_for_no_more() {
    let (mut guesser, mut team) = (guesser(2), Team::new(1, config().isa).unwrap());
    let in_use = guesser.in_use();
    let (one, two, three): (&[u32], &[u32], &[u32]) = (&[1, 300, 301], &[1, 302], &[1, 303, 304]);
    assert_eq!(ask_for(&mut guesser, &mut team, 1, one).len(), 3);
    assert_eq!(ask_for(&mut guesser, &mut team, 2, two).len(), 3);
    assert_eq!(in_use.load(Ordering::Relaxed), 2);
    assert_eq!(ask_for(&mut guesser, &mut team, 3, three), [0; 0], "there is no page");
    let mut rounds = 0;
    while ask_for(&mut guesser, &mut team, 3, three).is_empty() {
        rounds += 1;
        assert!(rounds < 2 * IDLE_ROUNDS);
        assert_eq!(ask_for(&mut guesser, &mut team, 2, two).len(), 3, "it is asked for");
    }
    assert!(rounds >= IDLE_ROUNDS / 2 - 1, "{rounds}");
    assert_eq!(in_use.load(Ordering::Relaxed), 2);
    for id in 1..=3 {
        guesser.forget(SequenceId(id));
    }
    assert_eq!((in_use.load(Ordering::Relaxed), guesser.free.len()), (0, 2));
}

#[test]
fn what_cannot_be_guessed_for_is_asked_for_once() {
    let (mut guesser, mut team) = (guesser(80), Team::new(1, config().isa).unwrap());
    let id = SequenceId(1);
    // An id that only the larger model has, and a text that only the larger one can read.
    for tokens in [vec![1, 300, 100_000], vec![300; 2_049]] {
        assert!(!guesser.hear(id, &tokens));
        assert!(!guesser.hear(id, &tokens));
        guesser.forget(id);
    }
    // A bias on a token that only the larger model has.
    let bias = LogitBias { token: 100_000, bias: "1".parse().unwrap() };
    let biased = Sampling { logit_bias: vec![bias], ..Sampling::greedy() };
    let sampler = Sampler::new(&biased, None).unwrap();
    assert!(guesser.hear(id, &[1, 300]));
    let ask = Ask { id, len: 3, positions_max: 2_000, sampler, place: 1 };
    assert!(guesser.guess(&mut team, vec![ask]).is_empty());
    assert!(!guesser.hear(id, &[1, 300, 301]));
    assert_eq!(guesser.in_use().load(Ordering::Relaxed), 0);
}

#[test]
fn a_long_prompt_is_read_over_several_steps_and_guesses_are_those_of_the_model() {
    let (mut long, mut team) = (guesser(80), Team::new(1, config().isa).unwrap());
    let tokens: Vec<u32> = (0..700_u32).map(|at| 260 + at * 7 % 200).collect();
    assert_eq!(ask_for(&mut long, &mut team, 1, &tokens), [0; 0]);
    assert_eq!(ask_for(&mut long, &mut team, 1, &tokens), [0; 0]);
    let guesses = ask_for(&mut long, &mut team, 1, &tokens);
    assert_eq!(guesses.len(), 3);
    // What was guessed wrong, and what was said meanwhile, leaves no trace.
    let mut later = tokens.clone();
    later.extend([guesses[0], 299, 298, 297]);
    let after = ask_for(&mut long, &mut team, 1, &later);
    let mut fresh = guesser(80);
    let anew: Vec<Vec<u32>> = (0..3).map(|_| ask_for(&mut fresh, &mut team, 1, &later)).collect();
    assert_eq!((anew[1].len(), &anew[2]), (0, &after));
}

proptest! {
    /// Whatever is said and guessed, what is computed is a prefix of what was said, and the last
    /// token is unread.
    #[test]
    fn a_mind_follows_what_is_said(
        rounds in vec((vec(0..2_u32, 1..5), vec(0..2_u32, 0..4), 0..9_usize), 1..12),
    ) {
        let (mut mind, mut said) = (Mind::default(), Vec::new());
        // What the pages hold: the tokens that were fed, by position.
        let mut pages: Vec<u32> = Vec::new();
        for (drawn, guesses, read) in rounds {
            said.extend(drawn);
            mind.hear(&said);
            prop_assert!(mind.computed() < said.len() && mind.len() == said.len());
            prop_assert_eq!(&pages[..mind.computed()], &said[..mind.computed()]);
            prop_assert_eq!(mind.unread(), &said[mind.computed()..]);
            let mut feed = |mind: &mut Mind, count: usize| {
                pages.truncate(mind.computed());
                pages.extend_from_slice(&mind.unread()[..count]);
                mind.read(count);
            };
            let count = read.min(mind.unread().len());
            feed(&mut mind, count);
            if mind.unread().is_empty() {
                for guess in guesses {
                    mind.push(guess);
                    feed(&mut mind, 1);
                }
            }
        }
    }
}
