//! Measuring a model: real processes, a model of noise.

use serde_json::Value;

use crate::support::{arg, failure, folder, json, noise_model, run, text};

/// Fields that other programs read.
const FIELDS: [&str; 11] = [
    "schema",
    "engine",
    "only",
    "threads",
    "rows",
    "seconds",
    "tokens_timed",
    "before_bytes",
    "peak_bytes",
    "file_bytes",
    "kv_bytes",
];

fn one(args: &[&str]) -> Value {
    let folder = folder();
    let model = noise_model(folder.path());
    let report = json(folder.path(), &[&["bench", arg(&model), "--threads", "1"], args].concat());
    for field in FIELDS {
        assert!(!report[field].is_null(), "no {field}: {report}");
    }
    report
}

#[test]
fn one_measurement_is_one_line_for_programs() {
    let report = one(&["--only", "prefill", "--tokens", "32", "--rounds", "2"]);
    assert_eq!(report["only"], "prefill");
    assert_eq!(report["tokens_timed"], 32);
    assert_eq!(report["seconds"].as_array().map(Vec::len), Some(2));
    let report = one(&["--only", "decode", "--tokens", "4", "--rows", "2", "--isa", "scalar"]);
    assert_eq!(report["tokens_timed"], 8);
    assert!(report["engine"].as_str().is_some_and(|it| it.ends_with("(scalar)")), "{report}");
    let args = ["--only", "decode", "--tokens", "4", "--rows", "2", "--through", "scheduler"];
    assert_eq!(one(&args)["through"], "scheduler");
    assert!(one(&["--only", "prefix", "--tokens", "40"])["cold_s"].is_number());
    assert!(one(&["--only", "load", "--tokens", "8"])["load_s"].is_number());
    let report = one(&["--only", "repeat", "--tokens", "16", "--speculation", "off"]);
    assert_eq!(report["drafted"], 0, "{report}");
}

#[test]
fn the_whole_set_is_a_table_for_people_and_a_list_for_programs() {
    let folder = folder();
    let model = noise_model(folder.path());
    let output = run(folder.path(), &["bench", arg(&model)]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    for part in ["processor", "GPU", "TOKENS/S", "decode 16 rows", "prefix hit 512", "guessed"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let summary = json(folder.path(), &["bench", arg(&model)]);
    assert_eq!(summary["reports"].as_array().map(Vec::len), Some(12), "{summary}");
    assert_eq!(summary["left_out"], serde_json::json!([]));
    assert!(summary["device"]["isa"].is_string(), "{summary}");
}

#[test]
fn what_cannot_be_measured_is_named_with_the_reason() {
    let folder = folder();
    let model = noise_model(folder.path());
    let missing = folder.path().join("missing.gguf");
    let broken = folder.path().join("broken.gguf");
    std::fs::write(&broken, "this is a text and not a model").unwrap();
    let check = |args: &[&str], parts: &[&str]| {
        let error = failure(folder.path(), &[&["bench"], args].concat());
        for part in parts {
            assert!(error.contains(part), "{args:?}: no {part:?} in {error}");
        }
    };
    check(&[arg(&missing)], &[arg(&missing), "check the path"]);
    check(&[arg(&broken)], &[arg(&broken), "GGUF"]);
    check(&[arg(&model), "--isa", "avx9"], &["avx9", "--isa"]);
    check(&[arg(&model), "--only", "prefill", "--tokens", "4096"], &["4096", "2048"]);
}
