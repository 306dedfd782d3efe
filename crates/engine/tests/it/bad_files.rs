//! Files that are not what they should be: refused, with a text that helps.

use std::path::Path;

use commons_engine::gguf::{Array, GgufWriter, TensorType, Value};
use commons_engine::noise::noise_model;
use commons_engine::{LoadError, Model};

/// The error of loading these bytes, with all its causes in one line.
fn refusal(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("bad.gguf");
    std::fs::write(&path, bytes).expect("writes");
    let error = Model::load(&path).map(drop).expect_err("is refused");
    chain(&error)
}

fn chain(error: &LoadError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The refusal of the noise model after one change.
fn check(change: impl FnOnce(&mut GgufWriter), wanted: &str) {
    let mut model = noise_model(1).expect("builds");
    change(&mut model);
    let text = refusal(&model.to_bytes());
    assert!(text.contains(wanted), "{text:?} does not say {wanted:?}");
}

fn set(key: &'static str, value: Value) -> impl FnOnce(&mut GgufWriter) {
    move |model| {
        model.replace(key, value);
    }
}

#[test]
fn a_missing_file_or_an_empty_folder_is_refused_by_name() {
    let missing = chain(&Model::load(Path::new("/nowhere/model.gguf")).expect_err("is refused"));
    assert!(missing.contains("/nowhere/model.gguf"), "{missing}");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = chain(&Model::load(folder.path()).expect_err("is refused"));
    assert!(text.contains(&*folder.path().to_string_lossy()), "{text}");
}

#[test]
fn a_file_that_is_empty_or_something_else_is_refused() {
    assert!(refusal(b"").contains("empty"));
    assert!(refusal(b"GG").contains("ends inside the magic number"));
    assert!(refusal(b"<!DOCTYPE html><html>").contains("not a GGUF file"));
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = noise_model(1).expect("builds").to_bytes();
    for part in 0..64 {
        let text = refusal(&bytes[..bytes.len() * part / 64]);
        let is_named = ["truncated", "empty", "ends inside"].iter().any(|it| text.contains(it));
        assert!(is_named, "at {part}/64: {text}");
    }
}

#[test]
fn settings_that_cannot_be_computed_are_refused_by_name() {
    let text = |text: &str| Value::String(text.into());
    check(set("general.architecture", text("mamba")), "architecture \"mamba\" is not supported");
    check(set("llama.expert_count", Value::U32(8)), "a mixture of 8 experts");
    check(set("llama.rope.scaling.type", text("spiral")), "\"spiral\"");
    check(set("llama.block_count", Value::U32(0)), "accepted are 1 to");
    check(set("llama.block_count", Value::U32(u32::MAX)), "accepted are 1 to");
    check(set("llama.context_length", text("long")), "should be a non-negative whole number");
    check(set("llama.attention.head_count_kv", Value::U32(3)), "do not fit together");
    check(set("llama.attention.layer_norm_rms_epsilon", Value::F32(f32::NAN)), "positive finite");
    check(set("llama.feed_forward_length", Value::U32(128)), "the model's settings need");
    check(set("llama.embedding_length", Value::U32(128)), "the model's settings need");
    check(set("llama.block_count", Value::U32(5)), "no tensor \"blk.4.");
    check(set("llama.block_count", Value::U32(3)), "belongs to nothing");
    check(set("split.count", Value::U16(2)), "a model in 2 files");
}

#[test]
fn vocabularies_that_lie_are_refused_by_name() {
    let texts = |count: usize| Value::Array(Array::String(vec!["x".into(); count]));
    check(set("tokenizer.ggml.model", Value::String("rwkv".into())), "\"rwkv\" is not supported");
    check(set("tokenizer.ggml.tokens", texts(3)), "has");
    check(set("tokenizer.ggml.tokens", texts(0)), "the vocabulary has 0 tokens");
    check(set("tokenizer.ggml.scores", Value::Array(Array::F32(vec![0.0]))), "1 entries");
    check(set("tokenizer.ggml.scores", Value::U8(1)), "should be an array");
    check(
        set("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![9; 474]))),
        "unknown type 9",
    );
    check(set("tokenizer.ggml.eos_token_id", Value::U32(474)), "the vocabulary has 474 tokens");
}

#[test]
fn a_tensor_of_another_type_or_one_too_many_is_refused() {
    check(
        |model| {
            model.tensor("extra.weight", &[32], TensorType::Q8_0, vec![0; 34]).expect("fits");
        },
        "tensor \"extra.weight\" belongs to nothing",
    );
}

#[test]
fn a_weight_that_is_not_a_finite_number_is_refused_by_its_tensor() {
    for bad in [f32::NAN, f32::INFINITY] {
        check(
            |model| {
                *model = noise_with_norm(bad);
            },
            "tensor \"output_norm.weight\" holds a number that is not finite",
        );
    }
}

/// The noise model with the last norm's weights replaced: its last tensor.
fn noise_with_norm(weight: f32) -> GgufWriter {
    let bytes = noise_model(1).expect("builds").to_bytes();
    let gguf = commons_engine::gguf::Gguf::parse(&bytes).expect("reads");
    let mut writer = GgufWriter::new();
    for (key, value) in gguf.metadata() {
        writer.set(key.clone(), value.clone());
    }
    for (name, info) in gguf.tensors() {
        let data = match name.as_str() {
            "output_norm.weight" => weight.to_le_bytes().repeat(info.dims()[0]),
            _ => bytes[info.bytes()].to_vec(),
        };
        writer.tensor(name.clone(), info.dims(), info.kind(), data).expect("fits");
    }
    writer
}
