//! Adapters through the engine: merged models, mixed batches, caches, paging, refusals.

use std::path::PathBuf;

use commons_engine::adapter::Method;
use commons_engine::noise::adapter::NoiseAdapter;
use commons_engine::noise::write_noise_model;
use commons_engine::weights::Weights;
use commons_engine::{LocalEngine, WorkerConfig};
use commons_port::engine::{
    AddAdapter, Engine, EngineRefusal, EngineRefusalCode, EngineRequest, LoadedAdapter,
    LoadedModel, Sequence,
};
use commons_record::Hash;
use commons_record::order::PromptInput;
use futures::executor::block_on;
use proptest::prelude::*;

use crate::support::{Said, ask, config, fixture, listen, listen_with_cached, request, warm};

/// The noise model with adapters of several kinds and ranks, in files.
struct Lab {
    folder: tempfile::TempDir,
    engine: LocalEngine,
    model: LoadedModel,
    adapters: Vec<LoadedAdapter>,
}

const KINDS: [(usize, Method); 4] =
    [(4, Method::Lora), (64, Method::RsLora), (7, Method::Dora), (16, Method::Lora)];

/// Bytes for one adapter of rank 64, or a few of the others.
const ROOM: u64 = 700_000;

impl Lab {
    /// An engine with this many adapters.
    fn new(config: WorkerConfig, count: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("noise.gguf");
        write_noise_model(&path, 7).expect("writes");
        let engine = LocalEngine::new(config);
        let model = engine.add(&path).expect("loads");
        let mut lab = Self { folder, engine, model, adapters: Vec::new() };
        for index in 0..count {
            let path = lab.write(index);
            let added = lab.add(path).expect("fits");
            lab.adapters.push(added);
        }
        lab
    }

    fn write(&self, index: usize) -> PathBuf {
        let (rank, method) = KINDS[index % KINDS.len()];
        let seed = u64::try_from(index).expect("small");
        let path = self.folder.path().join(format!("adapter-{index}"));
        let base = Weights::open(&self.folder.path().join("noise.gguf")).expect("opens");
        NoiseAdapter { rank, method, seed }.write(&path, base.settings()).expect("writes");
        path
    }

    fn add(&self, path: PathBuf) -> Result<LoadedAdapter, EngineRefusal> {
        block_on(self.engine.add_adapter(plain(path)))
    }

    fn request(&self, text: &str, adapter: Option<usize>) -> EngineRequest {
        let adapter = adapter.map(|index| self.adapters[index].adapter);
        EngineRequest { adapter, ..request(&self.model, text, 24) }
    }

    fn start(&self, request: EngineRequest) -> Box<dyn Sequence> {
        self.engine.start(request).expect("is taken")
    }
}

fn plain(path: PathBuf) -> AddAdapter {
    AddAdapter { model: None, path, name: None, is_rounded: false }
}

/// Nothing that makes an engine fast, and one sequence at a time.
fn slow() -> WorkerConfig {
    WorkerConfig { slots: 1, caches_prefixes: false, draft_len_max: 0, ..config() }
}

#[test]
fn a_base_with_an_adapter_says_what_the_merged_model_says() {
    let (Some(base), Some(merged), Some(folder)) = (
        fixture("models/stories260K.gguf"),
        fixture("models/lora-r4/merged-F32.gguf"),
        fixture("models/lora-r4"),
    ) else {
        return;
    };
    let (engine, other) = (LocalEngine::new(config()), LocalEngine::new(config()));
    let (base, merged) = (engine.add(&base).expect("loads"), other.add(&merged).expect("loads"));
    for text in ["Once upon a time", "Lily had a red ball.", "The"] {
        let wanted = ask(&other, request(&merged, text, 60));
        let unadapted = ask(&engine, request(&base, text, 60));
        assert_ne!(unadapted.ids(), wanted.ids(), "the adapter changes what is said");
        for path in [folder.clone(), folder.join("adapter.gguf")] {
            let added = block_on(engine.add_adapter(plain(path))).expect("fits");
            let adapter = Some(added.adapter);
            let said = ask(&engine, EngineRequest { adapter, ..request(&base, text, 60) });
            assert_eq!(said.text, wanted.text);
            assert_eq!(said.ids(), wanted.ids());
            for (got, wanted) in said.tokens.iter().zip(&wanted.tokens) {
                let off = got.logprob_micro.abs_diff(wanted.logprob_micro);
                assert!(off < 1_000, "a log-probability is off by {off} millionths");
            }
        }
    }
}

#[test]
fn each_row_of_a_mixed_batch_says_what_it_says_alone() {
    let alone = Lab::new(slow(), 4);
    let owners = [Some(0), None, Some(1), Some(2), Some(0), Some(3), None, Some(2), Some(1)];
    for threads in [1, 2] {
        let lab = Lab::new(WorkerConfig { slots: 9, threads, ..config() }, 4);
        let requests = (0_u8..).zip(owners).map(|(index, owner)| {
            let text = format!("bace{}", " difo gu".repeat(usize::from(index) * 5));
            let request = EngineRequest { top_logprobs: 2, ..lab.request(&text, owner) };
            if index % 2 == 0 { request } else { warm(request, [index; 32]) }
        });
        let requests: Vec<_> = requests.collect();
        let mut sequences: Vec<_> = requests.iter().map(|it| lab.start(it.clone())).collect();
        for (sequence, request) in sequences.iter_mut().zip(&requests) {
            let said = listen(sequence.as_mut());
            assert!(said.failure.is_none(), "{said:?}");
            assert_eq!(said, ask(&alone.engine, request.clone()));
        }
    }
}

#[test]
fn adapters_of_every_kind_change_what_is_said_and_the_same_adapter_says_the_same() {
    let lab = Lab::new(config(), 4);
    let mut all: Vec<Said> = Vec::new();
    for adapter in [None, Some(0), Some(1), Some(2), Some(3)] {
        let said = ask(&lab.engine, lab.request("bace difo", adapter));
        assert!(all.iter().all(|it| it.ids() != said.ids()), "{adapter:?} changes nothing");
        assert_eq!(ask(&lab.engine, lab.request("bace difo", adapter)), said);
        all.push(said);
    }
    let methods: Vec<_> = lab.adapters.iter().map(|it| it.method.as_str()).collect();
    assert_eq!(methods, ["lora", "rslora", "dora", "lora"]);
    assert!(lab.adapters.iter().all(|it| it.format == "F16" && it.model == lab.model.model));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Prompts that share all they can, under adapters in any order: nobody finds what another
    /// adapter computed.
    #[test]
    fn the_prefix_cache_never_crosses_adapters(
        turns in prop::collection::vec((0_usize..4, 40_usize..90), 3..8)
    ) {
        thread_local! {
            static SLOW: Lab = Lab::new(slow(), 3);
        }
        let lab = Lab::new(config(), 3);
        let mut seen = [0_usize; 4];
        for (owner, len) in turns {
            let tokens: Vec<u32> = (0..len).map(|at| 300 + u32::try_from(at % 40).unwrap()).collect();
            let request = EngineRequest {
                input: PromptInput::Tokens(tokens),
                completion_tokens_max: 4,
                ..lab.request("", owner.checked_sub(1))
            };
            let (said, cached) = listen_with_cached(lab.start(request.clone()).as_mut());
            let cached = cached.expect("the prompt was read") as usize;
            prop_assert!(cached <= seen[owner], "found {} of {}", cached, seen[owner]);
            seen[owner] = seen[owner].max(len + 4);
            SLOW.with(|alone| assert_eq!(said, ask(&alone.engine, request)));
        }
    }
}

#[test]
fn an_unknown_adapter_is_refused_and_never_the_base() {
    let lab = Lab::new(config(), 1);
    let check = |adapter: Hash| {
        let request = EngineRequest { adapter: Some(adapter), ..lab.request("bace", None) };
        let refusal = lab.engine.start(request).map(drop).expect_err("is refused");
        assert_eq!(refusal.code, EngineRefusalCode::UnknownAdapter, "{refusal}");
    };
    check(Hash::of_content(b"another"));
    let removed = lab.adapters[0].adapter;
    let mut running = lab.start(lab.request("bace", Some(0)));
    lab.engine.remove_adapter(lab.model.model, removed).expect("is there");
    check(removed);
    let again = lab.engine.remove_adapter(lab.model.model, removed).expect_err("is gone");
    assert_eq!(again.code, EngineRefusalCode::UnknownAdapter);
    assert_eq!(listen(running.as_mut()).tokens.len(), 24, "what had begun is finished");
    assert!(lab.engine.adapters().is_empty());
}

#[test]
fn more_adapters_than_fit_take_turns_and_all_are_served() {
    let reference = Lab::new(slow(), 12);
    let lab = Lab::new(WorkerConfig { adapter_size_max: Some(ROOM), ..config() }, 12);
    let requests: Vec<_> = (0..48).map(|at| lab.request("bace difo", Some(at * 5 % 12))).collect();
    let mut sequences: Vec<_> = requests.iter().map(|it| lab.start(it.clone())).collect();
    for (sequence, request) in sequences.iter_mut().zip(requests) {
        let said = listen(sequence.as_mut());
        assert!(said.failure.is_none(), "{said:?}");
        assert_eq!(said, ask(&reference.engine, request));
    }
    let stats = lab.engine.adapter_stats(&lab.model.model).expect("is loaded");
    assert!(stats.evicted_total > 0 && stats.used_bytes <= ROOM, "{stats:?}");
    assert!(stats.loads_total <= 48, "never more reads than requests: {stats:?}");
}

#[test]
fn one_that_can_never_fit_is_refused_with_numbers() {
    let lab = Lab::new(WorkerConfig { adapter_size_max: Some(1_000), ..config() }, 1);
    let refusal = lab.engine.start(lab.request("bace", Some(0))).map(drop).expect_err("is refused");
    assert_eq!(refusal.code, EngineRefusalCode::Unsupported, "no shorter prompt would help");
    assert!(refusal.message.contains("and adapters have 1000"), "{refusal}");
}

#[test]
fn a_file_that_changed_or_went_away_ends_those_who_wait_for_it_and_nobody_else() {
    let lab = Lab::new(config(), 3);
    let weights = |index: usize| {
        lab.folder.path().join(format!("adapter-{index}")).join("adapter_model.safetensors")
    };
    std::fs::copy(weights(0), weights(0).with_extension("kept")).expect("copies");
    let mut bytes = std::fs::read(weights(0)).expect("reads");
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    std::fs::write(weights(0), bytes).expect("writes");
    std::fs::remove_file(weights(1)).expect("removes");
    let starts = [0, 2, 1, 0].map(|index| lab.start(lab.request("bace", Some(index))));
    let said = starts.map(|mut sequence| listen(sequence.as_mut()));
    let check = |said: &Said, wanted: &str| {
        let failure = said.failure.as_ref().expect("fails");
        assert_eq!(failure.code, EngineRefusalCode::InvalidAdapter);
        assert!(failure.message.contains(wanted), "{failure}");
    };
    check(&said[0], "was changed since it was registered");
    assert_eq!(said[1].tokens.len(), 24);
    check(&said[2], "no adapter_model.safetensors");
    check(&said[3], "was changed since it was registered");
    // What comes back is served again.
    std::fs::rename(weights(0).with_extension("kept"), weights(0)).expect("moves");
    assert_eq!(ask(&lab.engine, lab.request("bace", Some(0))).tokens.len(), 24);
}

#[test]
fn who_goes_away_while_an_adapter_is_read_holds_nothing() {
    let config = WorkerConfig { queue_len_max: 1_000, ..config() };
    let lab = Lab::new(WorkerConfig { adapter_size_max: Some(ROOM), ..config }, 4);
    for round in 0..40 {
        let sequences: Vec<_> =
            (0..4).map(|index| lab.start(lab.request("bace", Some((index + round) % 4)))).collect();
        drop(sequences);
    }
    let said = ask(&lab.engine, lab.request("bace", Some(1)));
    assert_eq!(said.tokens.len(), 24);
    let load = lab.engine.load(&lab.model.model).expect("is loaded");
    assert_eq!((load.running, load.queued), (0, 0));
}

#[test]
fn a_seed_that_comes_while_the_adapter_is_read_is_not_lost() {
    let lab = Lab::new(WorkerConfig { adapter_size_max: Some(ROOM), ..config() }, 4);
    for round in 0..20 {
        let request = EngineRequest { seed: None, ..lab.request("bace", Some(round % 4)) };
        let mut sequence = lab.start(request);
        sequence.reveal([7; 32]);
        assert_eq!(listen(sequence.as_mut()).tokens.len(), 24);
    }
}

#[test]
fn an_adapter_may_be_rounded_and_its_facts_say_so() {
    let lab = Lab::new(config(), 2);
    let exact = ask(&lab.engine, lab.request("bace", Some(1)));
    let path = lab.folder.path().join("adapter-1");
    let add = AddAdapter { is_rounded: true, ..plain(path) };
    let rounded = block_on(lab.engine.add_adapter(add)).expect("fits");
    assert_eq!(rounded.adapter, lab.adapters[1].adapter, "it is the same adapter");
    assert_eq!(rounded.format, "F16+Q8_0", "rows of 176 numbers are no whole blocks");
    // Nothing that was computed with the other numbers is found.
    let mut sequence = lab.start(lab.request("bace", Some(1)));
    let (said, cached) = listen_with_cached(sequence.as_mut());
    assert_eq!(cached, Some(0));
    assert_eq!(said.prompt, exact.prompt);
    assert_ne!(said.tokens, exact.tokens, "other numbers, other probabilities");
    let first = said.tokens[0].logprob_micro.abs_diff(exact.tokens[0].logprob_micro);
    assert!(first < 200_000, "close, though: {first}");
}

#[test]
fn names_are_plain_and_each_is_one_adapter() {
    let lab = Lab::new(config(), 2);
    let add = |name: &str, index: usize| {
        let path = lab.folder.path().join(format!("adapter-{index}"));
        let add = AddAdapter { name: Some(name.to_owned()), ..plain(path) };
        block_on(lab.engine.add_adapter(add))
    };
    for name in ["", "a+b", "a b", "a/b", "a\nb", &"x".repeat(200)] {
        let refusal = add(name, 0).expect_err("is refused");
        assert_eq!(refusal.code, EngineRefusalCode::InvalidAdapter, "{name:?}");
        assert!(refusal.message.contains("cannot be called"), "{refusal}");
    }
    assert_eq!(add("poet", 0).expect("is free").name, "poet");
    assert_eq!(add("poet", 0).expect("is itself").name, "poet");
    let taken = add("poet", 1).expect_err("is refused");
    assert!(taken.message.contains("is the name of another adapter"), "{taken}");
    assert_eq!(add("adapter-0", 1).expect("is free again").name, "adapter-0");
    assert_eq!(lab.engine.adapters().len(), 2, "a new name is no new adapter");
}

#[test]
fn an_adapter_goes_to_the_one_model_that_it_fits() {
    let lab = Lab::new(config(), 0);
    let path = lab.write(0);
    let empty = LocalEngine::new(config());
    let refusal = block_on(empty.add_adapter(plain(path.clone()))).expect_err("is refused");
    assert!(refusal.message.contains("no model is loaded"), "{refusal}");
    let twin = lab.folder.path().join("twin.gguf");
    write_noise_model(&twin, 8).expect("writes");
    let twin = lab.engine.add(&twin).expect("loads");
    let refusal = lab.add(path.clone()).expect_err("fits both");
    assert!(refusal.message.contains("fits several models: "), "{refusal}");
    let named = AddAdapter { model: Some(twin.model), ..plain(path) };
    assert_eq!(block_on(lab.engine.add_adapter(named)).expect("is named").model, twin.model);
    let request = EngineRequest {
        adapter: Some(lab.engine.adapters()[0].adapter),
        ..lab.request("bace", None)
    };
    let refusal = lab.engine.start(request).map(drop).expect_err("it is the twin's");
    assert_eq!(refusal.code, EngineRefusalCode::UnknownAdapter);
}
