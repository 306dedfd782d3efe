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

/// A small byte-level `tokenizer.json` with another part in the place of one of its own.
fn folder_json(change: impl Fn(&mut serde_json::Value)) -> Vec<u8> {
    let mut vocabulary = serde_json::Map::new();
    for byte in 0..=255u8 {
        vocabulary.insert(vocabulary::char_of_byte(byte).into(), byte.into());
    }
    vocabulary.insert("ab".into(), 256.into());
    let mut json = serde_json::json!({
        "added_tokens": [{"id": 257, "content": "<s>", "special": true}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
        "post_processor": null,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [["a", "b"]]},
    });
    change(&mut json);
    serde_json::to_vec(&json).expect("JSON")
}

fn from_json(json: &[u8], config: &str) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_files(&TokenizerFiles {
        tokenizer: json,
        tokenizer_config: Some(config.as_bytes()),
        generation_config: Some(br#"{"eos_token_id": [256, 257]}"#),
        ..TokenizerFiles::default()
    })
}

#[test]
fn what_a_folder_has_and_we_do_not_is_refused_by_name() {
    use serde_json::json;
    let check = |path: &str, value: serde_json::Value, wanted: &str| {
        let json = folder_json(|it| *it.pointer_mut(path).expect("a place") = value.clone());
        let error = from_json(&json, "{}").expect_err(wanted);
        let texts =
            [Some(error.to_string()), std::error::Error::source(&error).map(ToString::to_string)];
        assert!(texts.iter().flatten().any(|it| it.contains(wanted)), "{texts:?} lacks {wanted:?}");
    };
    check("/normalizer", json!({"type": "Precompiled"}), "\"Precompiled\"");
    check(
        "/normalizer",
        json!({"type": "Replace", "pattern": {"Regex": "a+"}, "content": ""}),
        "regular",
    );
    check("/pre_tokenizer", json!({"type": "UnicodeScripts"}), "\"UnicodeScripts\"");
    let split = json!({"type": "Split", "pattern": {"Regex": "\\w+"}, "behavior": "Isolated"});
    check("/pre_tokenizer", split, "\\\\w+");
    check("/post_processor", json!({"type": "Magic"}), "\"Magic\"");
    check("/model/type", json!("Unigram"), "\"Unigram\"");
    check("/model/merges", json!([["a", "c"]]), "merge 0 (\"a c\")");
    check("/model/merges", json!(["a b c"]), "not of two tokens");
    check("/model/vocab", json!({"a": 4_000_000_000u32}), "too large");
    check("/model/vocab", json!({"a": 0, "b": 0}), "both");
    check("/model/vocab", json!({"a": 0}), "no token for the byte");
    check("/added_tokens/0/content", json!("x".repeat(300)), "at most 256");
    check("/added_tokens/0/id", json!(5_000_000), "more than");
}

#[test]
fn the_configuration_says_what_opens_and_closes_a_text() {
    let json = folder_json(|_| {});
    let check = |config: &str, prompt: &[u32], whole: &[u32]| {
        let tokenizer = from_json(&json, config).expect("sound");
        assert_eq!(tokenizer.encode_prompt("ab").expect("encodes"), prompt, "{config}");
        assert_eq!(tokenizer.encode_whole("ab").expect("encodes"), whole, "{config}");
        assert!(tokenizer.is_end(257) && tokenizer.is_end(256), "{config}");
    };
    check("{}", &[256], &[256]);
    check(r#"{"bos_token": "<s>"}"#, &[256], &[256]);
    check(r#"{"bos_token": {"content": "<s>"}, "add_bos_token": true}"#, &[257, 256], &[257, 256]);
    check(r#"{"eos_token": "<s>", "add_eos_token": true}"#, &[256], &[256, 257]);
    let added = r#"{"added_tokens_decoder": {"258": {"content": "<x>", "special": false}}}"#;
    let tokenizer = from_json(&json, added).expect("sound");
    assert_eq!(tokenizer.encode("<x>ab").expect("encodes"), [258, 256]);
    assert_ne!(tokenizer.hash(), from_json(&json, "{}").expect("sound").hash());
}

#[test]
fn a_folder_and_its_gguf_file_give_the_same_tokens() {
    let folder = fixture("models/stories260K-hf");
    let (Some(folder), Some(file)) = (folder, fixture("models/stories260K.gguf")) else { return };
    let (ours, theirs) = (Tokenizer::from_folder(&folder).expect("sound"), load(&file));
    for text in ["Once upon a time", " two  spaces", "é🦙\n\n", "", "don't 123"] {
        let ids = ours.encode_prompt(text).expect("encodes");
        assert_eq!(ids, theirs.encode_prompt(text).expect("encodes"), "{text:?}");
        assert_eq!(ours.decode(&ids), text);
    }
}

/// Whatever is held back, what was given out was whole characters.
#[test]
fn a_stream_of_byte_tokens_never_cuts_a_character() {
    let tokenizer = spm(&[]);
    let text = "aé中🦙👩\u{200d}👧\u{301}";
    let mut stream = TextStream::new();
    let mut streamed = String::new();
    for id in tokenizer.encode(text).expect("encodes") {
        let part = stream.push(tokenizer.piece(id).expect("known"));
        assert!(!part.contains('\u{fffd}'), "{part:?}");
        streamed += &part;
    }
    assert_eq!(streamed + &stream.finish(), text);
}

#[test]
fn phi_3_takes_the_white_space_behind_its_tokens() {
    let mut writer = GgufWriter::new();
    let tokens = ["<unk>", "<|user|>", "a", "▁", "▁a"].map(String::from).to_vec();
    writer
        .set("general.name", Value::String("Phi-3 Mini".into()))
        .set("tokenizer.ggml.model", Value::String("llama".into()))
        .set("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)))
        .set("tokenizer.ggml.scores", Value::Array(Array::F32(vec![0.0; 5])))
        .set("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![2, 3, 1, 1, 1])));
    let gguf = Gguf::parse(&writer.to_bytes()).expect("sound");
    let tokenizer = Tokenizer::from_gguf(&gguf).expect("a vocabulary");
    let guard = tokenizer.guard([]).expect("free");
    assert_eq!(tokenizer.encode_rendered("<|user|>\n a", guard).expect("encodes"), [1, 4]);
}

#[test]
fn bert_in_a_gguf_file_is_word_piece() {
    let mut writer = GgufWriter::new();
    let tokens = ["[UNK]", "[CLS]", "[SEP]", "▁he", "llo", "▁,", "▁中"].map(String::from).to_vec();
    writer
        .set("tokenizer.ggml.model", Value::String("bert".into()))
        .set("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)))
        .set("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![2, 3, 3, 1, 1, 1, 1])));
    let gguf = Gguf::parse(&writer.to_bytes()).expect("sound");
    let tokenizer = Tokenizer::from_gguf(&gguf).expect("a vocabulary");
    let ids = tokenizer.encode_whole("HÉllo,中 x").expect("encodes");
    assert_eq!(ids, [1, 3, 4, 5, 6, 0, 2]);
    assert_eq!(tokenizer.decode(&ids), "hello , 中");
}
