//! Readings for people.

use std::path::Path;

use super::Machine;
use super::cases::Case;
use super::reading::Reading;
use crate::command::bench::What;
use crate::output::{bytes, table};

/// The model and what computes it.
pub(super) fn head(model: &Path, reading: &Reading, machine: &Machine) -> String {
    let (file, weights) = (bytes(reading.file_bytes), bytes(reading.weight_bytes));
    let threads = match machine.threads {
        1 => "1 thread".to_owned(),
        count => format!("{count} threads"),
    };
    let mut lines = vec![
        format!("model      {}, {file}, {weights} of weights in memory", model.display()),
        format!("processor  {}, {threads}", machine.isa),
    ];
    if machine.accelerators.is_empty() {
        lines.push("GPU        none seen".to_owned());
    }
    lines.extend(machine.accelerators.iter().map(|it| format!("GPU        {it}")));
    lines.push(String::new());
    lines.join("\n")
}

/// A row for each measurement.
pub(super) fn body(measured: &[(Case, Reading)]) -> String {
    let rows: Vec<_> = measured.iter().map(|(case, reading)| row(case, reading)).collect();
    table(["MEASURED", "TOKENS", "SECONDS", "TOKENS/S", "KV", "PEAK MEMORY", "NOTE"], &rows)
}

fn row(case: &Case, reading: &Reading) -> [String; 7] {
    let fastest = reading.fastest().unwrap_or_default();
    // Loading is mostly no work on tokens: a rate would mislead.
    let rate = if case.what == What::Load { "-".to_owned() } else { rate(reading, fastest) };
    [
        case.name(),
        reading.tokens_timed.to_string(),
        seconds(fastest),
        rate,
        bytes(reading.kv_bytes),
        bytes(reading.peak_bytes),
        note(case, reading),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "a count of tokens, for people")]
fn rate(reading: &Reading, fastest: f64) -> String {
    if fastest <= 0.0 {
        return "-".to_owned();
    }
    let rate = reading.tokens_timed as f64 / fastest;
    if rate < 100.0 { format!("{rate:.2}") } else { format!("{rate:.0}") }
}

/// Four digits or so, from microseconds to hours.
fn seconds(seconds: f64) -> String {
    match seconds {
        it if it < 0.01 => format!("{it:.6}"),
        it if it < 10.0 => format!("{it:.4}"),
        it => format!("{it:.2}"),
    }
}

fn note(case: &Case, reading: &Reading) -> String {
    match (case.what, reading.cold_s, reading.drafted, reading.accepted) {
        (What::Load, ..) => {
            format!("ready after {} s, then a first token", seconds(reading.load_s))
        }
        (What::Prefix, Some(cold), ..) => format!("{} s without the cache", seconds(cold)),
        (What::Repeat, _, Some(drafted), Some(accepted)) => {
            format!("{accepted} of {drafted} guessed tokens were right")
        }
        (What::DecodeJson, ..) => match (reading.fastest(), reading.fastest_free()) {
            (Some(held), Some(free)) if held > 0.0 => {
                format!("{:.1} % of the speed without a schema", 100.0 * free / held)
            }
            _ => String::new(),
        },
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use commons_engine::devices::{Accelerator, DeviceKind, Unused, UnusedCode};
    use commons_engine::settings::ModelKind;
    use serde_json::{Value, json};

    use super::super::cases::{Facts, set};
    use super::*;

    fn reading(more: &Value) -> Reading {
        let mut value = json!({
            "schema": 1, "seconds": [2.0, 0.5], "tokens_timed": 128, "peak_bytes": 3 << 29,
            "file_bytes": 1 << 30, "weight_bytes": 1 << 30, "kv_bytes": 1 << 20, "load_s": 1.25,
        });
        for (name, field) in more.as_object().into_iter().flatten() {
            value[name] = field.clone();
        }
        Reading::parse(value).expect("a reading")
    }

    #[test]
    fn each_measurement_is_a_row_with_what_it_says() {
        let (cases, _) = set(Facts { kind: ModelKind::Decoder, context_len: 4096 });
        let check = |name: &str, more: &Value, want: &[&str]| {
            let case = cases.iter().find(|it| it.name() == name).expect("it is in the set");
            let row = row(case, &reading(more));
            assert_eq!(row.map(|cell| cell.trim().to_owned()).as_slice(), want);
        };
        let note = "ready after 1.2500 s, then a first token";
        let plain = json!({});
        check("load", &plain, &["load", "128", "0.5000", "-", "1.0 MiB", "1.5 GiB", note]);
        let want = ["prefill 128", "128", "0.5000", "256", "1.0 MiB", "1.5 GiB", ""];
        check("prefill 128", &plain, &want);
        let (name, slow) = ("decode 16 rows", json!({"seconds": [12.0]}));
        check(name, &slow, &[name, "128", "12.00", "10.67", "1.0 MiB", "1.5 GiB", ""]);
        let (name, cold) = ("prefix hit 512", json!({"cold_s": 3.0}));
        let note = "3.0000 s without the cache";
        check(name, &cold, &[name, "128", "0.5000", "256", "1.0 MiB", "1.5 GiB", note]);
        let (name, guessed) = ("repeat, speculation on", json!({"drafted": 9, "accepted": 7}));
        let note = "7 of 9 guessed tokens were right";
        check(name, &guessed, &[name, "128", "0.5000", "256", "1.0 MiB", "1.5 GiB", note]);
    }

    #[test]
    fn the_head_says_what_computes_and_why_a_gpu_does_not() {
        let unused = Unused { code: UnusedCode::DriverMissing, reason: "no driver".to_owned() };
        let device = Accelerator {
            kind: DeviceKind::Nvidia,
            name: "NVIDIA GPU".to_owned(),
            count: 1,
            unused: Some(unused),
        };
        let mut machine =
            Machine { isa: "avx2".to_owned(), threads: 2, accelerators: vec![device] };
        let text = head(Path::new("m.gguf"), &reading(&json!({})), &machine);
        assert!(text.contains("m.gguf, 1.0 GiB"), "{text}");
        assert!(text.contains("avx2, 2 threads"), "{text}");
        assert!(text.contains("NVIDIA GPU: not used (driver_missing): no driver"), "{text}");
        machine.accelerators.clear();
        let text = head(Path::new("m.gguf"), &reading(&json!({})), &machine);
        assert!(text.contains("none seen"), "{text}");
    }
}
