//! Reference tokenisations, and what a user must not be able to do.

use std::path::{Path, PathBuf};

use super::*;
use crate::gguf::{Array, GgufWriter, Value};
use crate::noise;

fn fixture(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures");
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is absent", path.display());
    None
}

fn load(path: &Path) -> Tokenizer {
    let gguf = Gguf::parse(&std::fs::read(path).expect("readable")).expect("a GGUF file");
    Tokenizer::from_gguf(&gguf).expect("a supported vocabulary")
}

/// Compares the ids of the texts in an `.inp` file with a reference, one line of ids a text.
fn check_reference(tokenizer: &Tokenizer, inputs: &Path, outputs: &Path) {
    let inputs = std::fs::read_to_string(inputs).expect("readable");
    let outputs = std::fs::read_to_string(outputs).expect("readable");
    let texts: Vec<&str> = inputs.split("\n__ggml_vocab_test__\n").collect();
    let lines: Vec<&str> = outputs.lines().collect();
    assert!(texts.len() >= lines.len() && lines.len() > 40, "{} {}", texts.len(), lines.len());
    for (text, line) in texts.iter().zip(lines) {
        let wanted: Vec<u32> =
            line.split_whitespace().map(|id| id.parse().expect("an id")).collect();
        assert_eq!(tokenizer.encode(text).expect("encodes"), wanted, "{text:?}");
        let decoded = tokenizer.decode(&wanted);
        // SentencePiece puts a space before a text; everything else comes back as it was.
        let decoded = decoded.strip_prefix(' ').filter(|it| it == text).unwrap_or(&decoded);
        assert_eq!(decoded, *text);
    }
}

#[test]
fn reference_tokenisations_are_reproduced() {
    for name in ["llama-spm", "llama-bpe", "gpt-2", "qwen2"] {
        let file = |end: &str| fixture(&format!("tokenizers/ggml-vocab-{name}.gguf{end}"));
        let [Some(vocabulary), Some(inputs), Some(outputs)] = ["", ".inp", ".out"].map(file) else {
            return;
        };
        check_reference(&load(&vocabulary), &inputs, &outputs);
    }
}

/// Made with llama.cpp by `tests/golden/make_tokens.py`, from the GPT-2 vocabulary.
#[test]
fn other_pre_tokenizers_split_as_llama_cpp_does() {
    let file = |end: &str| fixture(&format!("tokenizers/ggml-vocab-gpt-2.gguf{end}"));
    let [Some(vocabulary), Some(inputs)] = ["", ".inp"].map(file) else { return };
    let bytes = std::fs::read(vocabulary).expect("readable");
    let gguf = Gguf::parse(&bytes).expect("a GGUF file");
    for name in ["smollm", "default"] {
        let mut writer = GgufWriter::new();
        for (key, value) in gguf.metadata() {
            writer.set(key.clone(), value.clone());
        }
        writer.replace("tokenizer.ggml.pre", Value::String(name.into()));
        let gguf = Gguf::parse(&writer.to_bytes()).expect("sound");
        let tokenizer = Tokenizer::from_gguf(&gguf).expect("a vocabulary");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        check_reference(&tokenizer, &inputs, &folder.join(format!("tokens-gpt-2-{name}.out")));
    }
}

/// A SentencePiece vocabulary of these tokens and the bytes.
fn spm(tokens: &[(&str, i32)]) -> Tokenizer {
    let mut texts: Vec<String> = (0..=255).map(|byte| format!("<0x{byte:02X}>")).collect();
    let mut kinds = vec![6; 256];
    for (text, kind) in tokens {
        texts.push((*text).into());
        kinds.push(*kind);
    }
    let count = texts.len();
    let mut writer = GgufWriter::new();
    writer
        .set("tokenizer.ggml.model", Value::String("llama".into()))
        .set("tokenizer.ggml.tokens", Value::Array(Array::String(texts)))
        .set("tokenizer.ggml.scores", Value::Array(Array::F32(vec![0.0; count])))
        .set("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds)))
        .set("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    Tokenizer::from_gguf(&Gguf::parse(&writer.to_bytes()).expect("sound")).expect("a vocabulary")
}

/// A vocabulary may hold pieces whose union is spelt like a control token. llama.cpp's merging then
/// arrives at the control token from plain text; ours must not.
#[test]
fn merging_never_arrives_at_a_control_or_byte_token() {
    let tokenizer =
        spm(&[("<", 1), ("s", 1), (">", 1), ("<s", 1), ("<s>", 3), ("0x4", 1), ("<0x41", 1)]);
    let ids = tokenizer.encode("<s><0x41>").expect("encodes");
    assert!(!ids.contains(&260), "{ids:?} has the control token");
    assert!(!ids.contains(&0x41), "{ids:?} has the byte token of A");
    assert_eq!(tokenizer.decode(&ids), "<s><0x41>");
}

#[test]
fn user_defined_tokens_are_whole_and_control_tokens_are_not() {
    let tokenizer = spm(&[("<think>", 4), ("<|end|>", 3)]);
    assert_eq!(tokenizer.encode("<think>").expect("encodes"), [256]);
    assert_eq!(tokenizer.encode("<|end|>").expect("encodes").len(), 7);
    assert!(tokenizer.is_end(257), "known by its name");
    let guard = tokenizer.guard([]).expect("free");
    assert_eq!(tokenizer.encode_rendered("<|end|>", guard).expect("encodes"), [257]);
}

#[test]
fn every_byte_survives_the_round_trip() {
    let tokenizer = spm(&[("▁", 1)]);
    for text in ["", " ", "a  b\n\t", "é🦙\u{0}\u{10ffff}", "▁"] {
        let ids = tokenizer.encode(text).expect("encodes");
        assert_eq!(tokenizer.decode(&ids), text.replace('▁', " "), "{text:?}");
    }
}

#[test]
fn a_text_that_is_too_long_is_refused() {
    let error = spm(&[]).encode(&" ".repeat(TEXT_SIZE_MAX + 1)).expect_err("is refused");
    assert!(matches!(error, TokenizerError::TooLong { .. }), "{error}");
}

/// Merging by scanning all pairs again after each merge takes hours for this.
#[test]
fn encoding_a_long_text_is_not_quadratic() {
    let model = noise::noise_model(1).expect("builds").to_bytes();
    let tokenizer = Tokenizer::from_gguf(&Gguf::parse(&model).expect("sound")).expect("vocabulary");
    let text = "bacedifo".repeat(1 << 16);
    assert_eq!(tokenizer.decode(&tokenizer.encode(&text).expect("encodes")).trim_start(), text);
    if let Some(path) = fixture("tokenizers/ggml-vocab-llama-bpe.gguf") {
        let tokenizer = load(&path);
        for text in
            ["a".repeat(1 << 18), format!("{}x", " ".repeat(1 << 18)), "\n ".repeat(1 << 17)]
        {
            assert_eq!(tokenizer.decode(&tokenizer.encode(&text).expect("encodes")), text);
        }
    }
}

#[test]
fn the_hash_covers_the_vocabulary_and_nothing_else() {
    let hash = |writer: &GgufWriter| {
        let bytes = writer.to_bytes();
        Tokenizer::from_gguf(&Gguf::parse(&bytes).expect("sound")).expect("vocabulary").hash()
    };
    let mut model = noise::noise_model(1).expect("builds");
    let before = hash(&model);
    assert_eq!(before, hash(&noise::noise_model(2).expect("builds")), "other weights");
    model.set("tokenizer.ggml.add_bos_token", Value::Bool(false));
    assert_ne!(before, hash(&model));
}
