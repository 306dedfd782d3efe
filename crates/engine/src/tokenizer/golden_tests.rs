//! Ids and texts against the `tokenizers` library, for a tokenizer in the shape of each family.
//!
//! The files are made by `tests/golden/make_tokenizers.py`: small vocabularies of our own training,
//! and what the library makes of texts that are hard to cut.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Golden {
    tokenizer: serde_json::Value,
    cases: Vec<Case>,
}

/// Text, ids, decoded text, ids with control tokens as plain text (if different), and with what
/// opens and closes a text (for some).
#[derive(Deserialize)]
struct Case(String, Vec<u32>, String, Option<Vec<u32>>, Option<Vec<u32>>);

/// What is different from the library, and why.
fn differs(name: &str, text: &str) -> bool {
    // Inside a control token's text that is not one, the library looks for no other token.
    name == "gpt2" && text.contains("[MASK]")
}

fn load(path: &Path) -> (Tokenizer, Vec<Case>) {
    let golden: Golden =
        serde_json::from_slice(&std::fs::read(path).expect("readable")).expect("a golden file");
    let json = serde_json::to_vec(&golden.tokenizer).expect("JSON");
    let files = TokenizerFiles { tokenizer: &json, ..TokenizerFiles::default() };
    (Tokenizer::from_files(&files).expect("a supported tokenizer"), golden.cases)
}

/// Compares every case of a file and returns how many there were.
fn check(path: &Path) -> usize {
    let (tokenizer, cases) = load(path);
    let name = path.file_stem().and_then(|it| it.to_str()).expect("a name");
    let mut wrong = Vec::new();
    for Case(text, ids, decoded, plain, whole) in &cases {
        let guard = tokenizer.guard([text.as_str()]).expect("a free mark");
        let found = tokenizer.encode_rendered(text, guard).expect("encodes");
        // The library does not add what opens a text here.
        let found = found.strip_prefix(&tokenizer.prefix[..]).unwrap_or(&found);
        let wanted = ids.strip_prefix(&tokenizer.prefix[..]).unwrap_or(ids);
        if found != wanted {
            wrong.push(format!("{text:?}: {found:?} is not {wanted:?}"));
        }
        let plain = plain.as_ref().unwrap_or(ids);
        let found = tokenizer.encode(text).expect("encodes");
        if found != *plain && !differs(name, text) {
            wrong.push(format!("{text:?} as plain text: {found:?} is not {plain:?}"));
        }
        if let Some(whole) = whole {
            let found = tokenizer.encode_whole(text).expect("encodes");
            if found != *whole {
                wrong.push(format!("{text:?} as a whole: {found:?} is not {whole:?}"));
            }
        }
        let found = tokenizer.decode(ids);
        if found != *decoded {
            wrong.push(format!("{ids:?} of {text:?}: {found:?} is not {decoded:?}"));
        }
    }
    let some = wrong.iter().take(8).cloned().collect::<Vec<_>>().join("\n");
    assert!(
        wrong.is_empty(),
        "{name}: {} differences in {} texts\n{some}",
        wrong.len(),
        cases.len()
    );
    cases.len()
}

fn golden(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokenizers");
    folder.join(format!("{name}.json"))
}

macro_rules! families {
    ($($test:ident: $($name:literal),+;)+) => {$(
        #[test]
        fn $test() {
            $(assert!(check(&golden($name)) >= 50);)+
        }
    )+};
}

families! {
    llama_3_is_encoded_and_decoded_as_the_library_does: "llama3";
    qwen_is_encoded_and_decoded_as_the_library_does: "qwen2", "qwen35";
    tekken_is_encoded_and_decoded_as_the_library_does: "tekken";
    gpt_is_encoded_and_decoded_as_the_library_does: "gpt2", "gpt4o", "phi4";
    smollm_is_encoded_and_decoded_as_the_library_does: "smollm";
    sentence_piece_is_encoded_and_decoded_as_the_library_does: "llama2", "phi3", "gemma";
    bert_is_encoded_and_decoded_as_the_library_does: "bert";
}

/// Made by the same script with `--cases 4000 --vocabulary 1500`, or as many as one likes.
#[test]
#[expect(clippy::disallowed_methods, reason = "where a longer comparison lies, if there is one")]
fn a_longer_comparison_finds_no_difference() {
    let Ok(folder) = std::env::var("COMMONS_TOKENIZER_CASES") else {
        eprintln!("SKIPPED: COMMONS_TOKENIZER_CASES names no folder");
        return;
    };
    let mut failures = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match std::panic::catch_unwind(|| check(&path)) {
            Ok(count) => eprintln!("{}: {count} texts", path.display()),
            Err(_) => failures.push(path),
        }
    }
    assert!(failures.is_empty(), "{failures:?}");
}
