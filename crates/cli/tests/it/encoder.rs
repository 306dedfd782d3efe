//! A model that turns text into vectors is listed like any other, and continues no text.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::http::{get, post};
use crate::support::{Node, arg, folder, string};

/// A folder with a tiny encoder: the engine's own sample, and a vocabulary of letters.
fn encoder(folder: &Path) -> PathBuf {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden/families/bert");
    let folder = folder.join("tiny-bert");
    std::fs::create_dir_all(&folder).expect("is made");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(sample.join(name), folder.join(name)).expect("is copied");
    }
    let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let letters = ('a'..='z').flat_map(|it| [it.to_string(), format!("##{it}")]);
    let vocabulary: serde_json::Map<_, _> =
        specials.into_iter().chain(letters).zip(0..).map(|(it, id)| (it, json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true,
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": null,
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary,
        },
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).expect("is written");
    folder
}

#[test]
fn an_encoder_is_listed_and_refuses_to_chat_with_a_reason() {
    let folder = folder();
    let model = encoder(folder.path());
    let node = Node::up(&folder.path().join("a"), &["--model", arg(&model)]);
    assert_eq!(get(node.api(), "/v1/models")["data"][0]["id"], "tiny-bert");
    let question = json!({ "model": "tiny-bert", "max_tokens": 4,
        "messages": [{ "role": "user", "content": "hi" }] });
    let refused = post(node.api(), "/v1/chat/completions", &question);
    assert_eq!(refused.status, 400);
    let refused = refused.json();
    let reason = string(&refused, "/error/message");
    assert!(reason.contains("tiny-bert turns text into vectors and continues none"), "{reason}");
}
