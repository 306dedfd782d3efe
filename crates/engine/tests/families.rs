//! Every family, read from its files and computed, against what transformers computed.
//!
//! The models are the project's own (`golden/make_families.py`, `golden/make_gguf.py`). Two forward
//! passes read them: the plain one of `families/plain.rs`, which tests what settings and weights
//! say; and the engine's own, in every way in which a batch can be put together
//! (`families/computed.rs`), with every stored form of weights (`families/quantised.rs`), and with
//! adapters, against what PEFT computed (`families/adapted.rs`).

#[path = "families/adapted.rs"]
mod adapted;
#[path = "families/blocks.rs"]
mod blocks;
#[path = "families/computed.rs"]
mod computed;
#[path = "families/plain.rs"]
mod plain;
#[path = "families/quantised.rs"]
mod quantised;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use commons_engine::weights::Weights;
use plain::Plain;

/// Numbers of f32, summed in another order: what two sound implementations differ by.
const TOLERANCE: f64 = 2e-4;

/// What transformers computed.
#[derive(serde::Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    tokens: Vec<u32>,
    /// Logits behind a position.
    #[serde(default)]
    logits: BTreeMap<usize, Vec<f64>>,
    /// The mean of the last rows.
    mean: Option<Vec<f64>>,
}

/// What the fixtures record: the logits of every position, one text behind the other.
#[derive(serde::Deserialize)]
struct Recorded {
    cases: BTreeMap<String, RecordedCase>,
}

#[derive(serde::Deserialize)]
struct RecordedCase {
    input_ids: Vec<Vec<u32>>,
    logits: Vec<f64>,
}

/// The checkpoints that nobody here wrote, as golden cases; none, loudly, where they are absent.
fn fixtures() -> Vec<(PathBuf, Golden)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures/models/tiny");
    let mut found = Vec::new();
    for name in ["tiny_llama", "tiny_qwen3"] {
        let folder = root.join(name);
        let Ok(bytes) = std::fs::read(folder.join("golden.json")) else {
            eprintln!("SKIPPED: {} is absent", folder.display());
            continue;
        };
        let recorded: Recorded = serde_json::from_slice(&bytes).expect("is a golden file");
        let mut cases = Vec::new();
        for case in recorded.cases.into_values() {
            let rows: usize = case.input_ids.iter().map(Vec::len).sum();
            let mut logits = case.logits.chunks(case.logits.len() / rows).map(<[f64]>::to_vec);
            for tokens in case.input_ids {
                let logits = (0..tokens.len()).zip(&mut logits).collect();
                cases.push(Case { tokens, logits, mean: None });
            }
        }
        found.push((folder, Golden { cases }));
    }
    found
}

fn families() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families")
}

/// Computes every case of one family from the model at `path`, and compares.
fn check(name: &str, path: &Path) {
    let golden: Golden = read(&families().join(name).join("golden.json"));
    for case in &golden.cases {
        check_case(name, path, case);
    }
    assert!(!golden.cases.is_empty(), "{name} has no cases");
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    let json = std::fs::read(path).expect("reads");
    serde_json::from_slice(&json).expect("is a golden file")
}

fn check_case(name: &str, path: &Path, case: &Case) {
    let weights = Weights::open(path).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    let plain = Plain::load(&weights).unwrap_or_else(|error| panic!("{name}: {error}"));
    weights.finish().unwrap_or_else(|error| panic!("{name}: {error}"));
    let rows = plain.forward(&case.tokens);
    for (&at, wanted) in &case.logits {
        let found = plain.logits(&rows[at]);
        compare(&format!("{name}, {} tokens, position {at}", case.tokens.len()), &found, wanted);
    }
    if let Some(wanted) = &case.mean {
        compare(name, &plain::mean(&rows), wanted);
    }
    assert!(!case.logits.is_empty() || case.mean.is_some(), "{name} records nothing");
}

fn compare(what: &str, found: &[f64], wanted: &[f64]) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    let largest = wanted.iter().fold(1.0, |most: f64, value| most.max(value.abs()));
    for (index, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        let apart = (found - wanted).abs();
        assert!(apart < TOLERANCE * largest, "{what}, number {index}: {found} is not {wanted}");
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("is a folder");
    let names = entries.map(|entry| entry.expect("reads").file_name().into_string());
    let mut names: Vec<_> = names.map(|name| name.expect("is UTF-8")).collect();
    names.sort();
    names
}

#[test]
fn every_family_computes_what_transformers_computes() {
    let names = names_in(&families());
    assert!(names.len() >= 17, "{names:?}");
    for name in names {
        check(&name, &families().join(&name));
    }
    for (folder, golden) in fixtures() {
        for case in &golden.cases {
            check_case(&folder.display().to_string(), &folder, case);
        }
    }
}

#[test]
fn a_gguf_file_computes_the_same_as_the_folder_that_it_was_made_from() {
    let folder = families().with_file_name("families-gguf");
    let names = names_in(&folder);
    assert!(names.len() >= 11, "{names:?}");
    for name in names {
        let family = name.strip_suffix(".gguf").expect("is a GGUF file");
        check(family, &folder.join(&name));
    }
}

#[test]
fn each_format_computes_what_transformers_computes_from_the_same_blocks() {
    let folder = families().with_file_name("quantised");
    let names = names_in(&folder);
    let formats: Vec<_> = names.iter().filter_map(|name| name.strip_suffix(".gguf")).collect();
    assert_eq!(formats, ["Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0"]);
    for format in formats {
        let case: Case = read(&folder.join(format!("{format}.json")));
        check_case(format, &folder.join(format!("{format}.gguf")), &case);
    }
}
