//! Texts as vectors: of decoders, and of encoders, which do nothing else.

use std::path::Path;

use commons_engine::cache::{Cache, KvFormat, PAGE_LEN};
use commons_engine::forward::Segment;
use commons_engine::noise::write_noise_model;
use commons_engine::team::Team;
use commons_engine::{LocalEngine, Model, WorkerConfig};
use commons_kernels::Isa;
use commons_port::engine::{
    EmbedRequest, Engine, EngineRefusalCode, LoadedModel, ModelKind, Pooling, ScoreRequest,
};
use commons_record::order::PromptInput;
use futures::executor::block_on;

use crate::support::{caller, config, noise_engine, request};

fn embed(
    engine: &LocalEngine,
    facts: &LoadedModel,
    ids: &[u32],
    pooling: Option<Pooling>,
) -> Vec<f32> {
    let input = PromptInput::Tokens(ids.to_vec());
    let request = EmbedRequest { model: facts.model, caller: caller(1), input, pooling };
    let vector = block_on(engine.embed(request)).expect("is embedded");
    assert_eq!(vector.token_count as usize, ids.len());
    let length: f32 = vector.values.iter().map(|value| value * value).sum::<f32>().sqrt();
    assert!((length - 1.0).abs() < 1e-5, "the length is {length}");
    vector.values
}

/// Rows behind the last norm, one for each token.
fn rows(model: &Model, ids: &[u32]) -> Vec<Vec<f64>> {
    let transformer = model.transformer();
    let mut team = Team::new(1, Isa::best()).expect("a thread");
    let pages: Vec<u32> = (0..).take(ids.len().div_ceil(PAGE_LEN)).collect();
    let mut cache = Cache::new(transformer.settings(), KvFormat::F16, pages.len()).expect("room");
    let (tokens, pages, positions_max) = (ids, &pages[..], ids.len());
    let segment =
        Segment { tokens, start: 0, pages, positions_max, wanted: ids.len(), adapter: None };
    let rows = transformer.forward(&mut team, &mut cache, &[segment]).expect("computes");
    let rows = transformer.norm(Isa::best(), &rows);
    let rows = rows.chunks_exact(transformer.settings().width);
    rows.map(|row| row.iter().map(|&value| f64::from(value)).collect()).collect()
}

fn pooled(rows: &[Vec<f64>], pooling: Pooling) -> Vec<f64> {
    let sum = match pooling {
        Pooling::Cls => rows[0].clone(),
        Pooling::Last => rows[rows.len() - 1].clone(),
        Pooling::Mean => {
            (0..rows[0].len()).map(|index| rows.iter().map(|row| row[index]).sum()).collect()
        }
    };
    normalised(&sum)
}

fn normalised(values: &[f64]) -> Vec<f64> {
    let length = values.iter().map(|value| value * value).sum::<f64>().sqrt();
    values.iter().map(|value| value / length).collect()
}

fn assert_near(found: &[f32], wanted: &[f64], tolerance: f64) {
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        assert!((f64::from(*found) - wanted).abs() < tolerance, "{found} is not {wanted}");
    }
}

#[test]
fn the_vector_of_a_text_is_its_pooled_rows_of_length_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("noise.gguf");
    write_noise_model(&path, 7).expect("writes");
    let model = Model::load(&path).expect("loads");
    let (engine, facts) = noise_engine(config());
    for len in [1, 31, 32, 33, 700] {
        let ids: Vec<u32> = (0..len).map(|index| 300 + index % 70).collect();
        let rows = rows(&model, &ids);
        for pooling in [Pooling::Mean, Pooling::Cls, Pooling::Last] {
            let found = embed(&engine, &facts, &ids, Some(pooling));
            assert_near(&found, &pooled(&rows, pooling), 1e-6);
        }
        let own = embed(&engine, &facts, &ids, None);
        assert_near(&own, &pooled(&rows, Pooling::Mean), 1e-6);
    }
}

#[test]
fn a_text_beside_others_has_the_vector_that_it_has_alone() {
    let (engine, facts) = noise_engine(WorkerConfig { threads: 2, ..config() });
    let text = |seed: u32| (0..100 + seed * 9).map(|index| 300 + (index * seed) % 70).collect();
    let texts: Vec<Vec<u32>> = (1..9).map(text).collect();
    let alone: Vec<_> = texts.iter().map(|ids| embed(&engine, &facts, ids, None)).collect();
    let together: Vec<_> = std::thread::scope(|scope| {
        let (engine, facts) = (&engine, &facts);
        let one = |ids: &'_ Vec<u32>| {
            let ids = ids.clone();
            scope.spawn(move || embed(engine, facts, &ids, None))
        };
        let threads: Vec<_> = texts.iter().map(one).collect();
        threads.into_iter().map(|thread| thread.join().expect("embeds")).collect()
    });
    assert_eq!(together, alone);
}

/// Tokens, and the mean of the rows behind them.
type Case = (Vec<u32>, Vec<f64>);

/// The encoder of the golden files, with a vocabulary of one word for each of its rows.
fn encoder() -> (LocalEngine, LoadedModel, Vec<Case>) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families/bert");
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(golden.join(name), folder.path().join(name)).expect("copies");
    }
    let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"];
    let token = |id: usize| specials.get(id).map_or(format!("w{id}"), |&text| text.to_owned());
    let vocabulary: serde_json::Map<_, _> =
        (0..64).map(|id| (token(id), serde_json::json!(id))).collect();
    let added = specials.iter().enumerate().map(|(id, text)| {
        serde_json::json!({
            "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        })
    });
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                { "SpecialToken": { "id": "[CLS]", "type_id": 0 } },
                { "Sequence": { "id": "A", "type_id": 0 } },
                { "SpecialToken": { "id": "[SEP]", "type_id": 0 } }
            ],
            "pair": [
                { "SpecialToken": { "id": "[CLS]", "type_id": 0 } },
                { "Sequence": { "id": "A", "type_id": 0 } },
                { "SpecialToken": { "id": "[SEP]", "type_id": 0 } },
                { "Sequence": { "id": "B", "type_id": 1 } },
                { "SpecialToken": { "id": "[SEP]", "type_id": 1 } }
            ],
            "special_tokens": {
                "[CLS]": { "id": "[CLS]", "ids": [2], "tokens": ["[CLS]"] },
                "[SEP]": { "id": "[SEP]", "ids": [3], "tokens": ["[SEP]"] }
            }
        },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": false },
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary
        }
    });
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).expect("writes");
    let engine = LocalEngine::new(WorkerConfig { kv_format: KvFormat::F32, ..config() });
    let facts = engine.add(folder.path()).expect("loads");
    let record = std::fs::read(golden.join("golden.json")).expect("reads");
    let record: serde_json::Value = serde_json::from_slice(&record).expect("JSON");
    let case = |case: &serde_json::Value| {
        let tokens = serde_json::from_value(case["tokens"].clone()).expect("ids");
        (tokens, serde_json::from_value(case["mean"].clone()).expect("numbers"))
    };
    let cases = record["cases"].as_array().expect("cases").iter().map(case).collect();
    (engine, facts, cases)
}

#[test]
fn an_encoder_makes_the_vector_that_transformers_makes() {
    let (engine, facts, cases) = encoder();
    assert_eq!(facts.kind, ModelKind::Encoder);
    assert!(!cases.is_empty());
    for (tokens, mean) in cases {
        assert_near(&embed(&engine, &facts, &tokens, None), &normalised(&mean), 2e-4);
    }
}

#[test]
fn an_encoder_reads_text_between_its_own_control_tokens() {
    let (engine, facts, _) = encoder();
    let input = PromptInput::Text("w5 w6 w7".into());
    let request = EmbedRequest { model: facts.model, caller: caller(1), input, pooling: None };
    let text = block_on(engine.embed(request)).expect("is embedded");
    assert_eq!(text.values, embed(&engine, &facts, &[2, 5, 6, 7, 3], None));
}

#[test]
fn an_encoder_continues_and_judges_no_text_and_says_who_it_is() {
    let (engine, facts, _) = encoder();
    let started = engine.start(request(&facts, "w5", 4)).map(drop).expect_err("is refused");
    let (input, model) = (PromptInput::Tokens(vec![5, 6]), facts.model);
    let (adapter, replay, caller) = (None, None, caller(1));
    let score = ScoreRequest { model, adapter, caller, input, from: 0, top_logprobs: 0, replay };
    let judged = block_on(engine.score(score)).expect_err("is refused");
    for refusal in [started, judged] {
        assert_eq!(refusal.code, EngineRefusalCode::Unsupported, "{refusal}");
        assert!(refusal.message.contains(&facts.name), "{refusal}");
        assert!(refusal.message.contains("turns text into vectors"), "{refusal}");
    }
}

#[test]
fn a_text_beyond_the_context_is_refused_with_numbers() {
    let (engine, facts, _) = encoder();
    let count = facts.context_len as usize + 1;
    let input = PromptInput::Tokens(vec![5; count]);
    let request = EmbedRequest { model: facts.model, caller: caller(1), input, pooling: None };
    let refusal = block_on(engine.embed(request)).expect_err("is refused");
    assert_eq!(refusal.code, EngineRefusalCode::TooLong);
    assert!(refusal.message.contains(&count.to_string()), "{refusal}");
}
