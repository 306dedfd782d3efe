//! `cargo xtask conform cost`: the kernels that repeat bit for bit beside kernels that need not.
//!
//! The same engine, built twice: as it is, and with products that are fused with sums and sums
//! that run in the order the processor likes. Each measurement is a process; the two builds take
//! turns, and the shortest time of each counts, since whatever else the machine does only adds to
//! it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Page, builds::Build};
use crate::{bench, shell};

const WHAT: &str = "The same kernels, built twice: as they are, and in free order (`--cfg \
     free_order`: products fused with sums wherever AVX2 adds one to the other, in matrices, \
     attention and functions; columns of floating-point weights summed side by side). The builds \
     take turns, a process for each measurement, and the shortest time counts. The cost is how \
     much longer the exact one takes. Integer sums are exact in any order, so weights in blocks \
     leave little to free. llama.cpp, which adds in free order too, is beside our engine in \
     [engine.md](engine.md).";

/// What was typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A model to measure too, through the whole forward pass; may be given several times
    #[arg(long, value_name = "FILE")]
    model: Vec<PathBuf>,

    /// Turns
    #[arg(long, value_name = "COUNT", default_value_t = 9)]
    rounds: usize,
}

/// Stored forms that are timed alone.
const FORMATS: [&str; 6] = ["F32", "F16", "Q8_0", "Q4_0", "Q4_K", "Q6_K"];

/// What is timed: words for the table, then what the example `speed` takes.
const CASES: [(&str, [&str; 3]); 3] = [
    ("Prefill of 128 tokens", ["prefill", "128", "1"]),
    ("Decode, 1 row", ["decode", "16", "1"]),
    ("Decode, 16 rows", ["decode", "8", "16"]),
];

pub(super) fn run(root: &Path, args: &Args) -> Result<()> {
    let plain = Build::plain(root)?;
    let other = Build::other(root)?;
    let other = other.context("this machine does not fuse products with sums: no AVX2 with FMA")?;
    let mut body = kernels(root, (&plain, &other), args.rounds)?;
    if !args.model.is_empty() {
        body += &models((&plain, &other), args)?;
    }
    let models = " --model FILE".repeat(args.model.len());
    let command = format!("cargo xtask conform cost{models} --rounds {}", args.rounds);
    let title = "What exactness costs";
    Page { name: "exact-cost", title, what: WHAT, command: &command, body: &body }.write(root)
}

/// Products of one thread with a layer's weights, from the benchmark of the kernels.
fn kernels(root: &Path, (plain, other): (&Build, &Build), rounds: usize) -> Result<String> {
    let mut args = vec!["bench", "--package", "commons-kernels", "--bench", "matrix", "--", "avx2"];
    args.extend(FORMATS);
    let (mut exact, mut free) = (Times::new(), Times::new());
    for _ in 0..rounds {
        for (build, times) in [(plain, &mut exact), (other, &mut free)] {
            take_times(&shell::output_or_reason(&mut build.cargo(root, &args))?, times);
        }
    }
    ensure!(!exact.is_empty() && exact.keys().eq(free.keys()), "the benchmark told no times");
    let mut body = "## Products\n\nOne thread, 5632 rows of weights of 2048 numbers.\n\n\
                    | Weights | Rows | Exact, ms | Free order, ms | Cost |\n|---|---:|---:|---:|---:|\n"
        .to_owned();
    for ((format, rows), exact) in &exact {
        let free = free[&(format.clone(), *rows)];
        let cost = (exact / free - 1.0) * 100.0;
        // Writing to a string cannot fail.
        let _ = writeln!(body, "| {format} | {rows} | {exact:.3} | {free:.3} | {cost:+.1} % |");
    }
    body.push('\n');
    Ok(body)
}

/// Milliseconds by stored form and rows.
type Times = BTreeMap<(String, u32), f64>;

/// Lines such as `Q4_K   avx2        1    0.812 ...`; others are headings.
fn take_times(table: &str, times: &mut Times) {
    for line in table.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let [format, _, rows, ms, ..] = words.as_slice() else { continue };
        if let (Ok(rows), Ok(ms)) = (rows.parse(), ms.parse::<f64>()) {
            let time = times.entry(((*format).to_owned(), rows)).or_insert(f64::INFINITY);
            *time = time.min(ms);
        }
    }
}

/// The whole forward pass.
fn models((plain, other): (&Build, &Build), args: &Args) -> Result<String> {
    let mut body =
        "## Models\n\n| Model | Measurement | Exact, tokens/s | Free order, tokens/s | Cost |\n\
                    |---|---|---:|---:|---:|\n"
            .to_owned();
    for model in &args.model {
        let name = model.file_stem().context("the model is no file")?.to_string_lossy();
        for (words, case) in CASES {
            let (mut exact, mut free) = (f64::INFINITY, f64::INFINITY);
            let mut tokens = 0.0;
            for _ in 0..args.rounds {
                (tokens, exact) = shortest(plain, model, case, exact)?;
                (_, free) = shortest(other, model, case, free)?;
            }
            let cost = (exact / free - 1.0) * 100.0;
            let (exact, free) = (tokens / exact, tokens / free);
            // Writing to a string cannot fail.
            let _ = writeln!(body, "| {name} | {words} | {exact:.1} | {free:.1} | {cost:+.1} % |");
        }
    }
    Ok(body)
}

/// The tokens of a measurement, and the shorter of its time and the time so far.
fn shortest(build: &Build, model: &Path, case: [&str; 3], so_far: f64) -> Result<(f64, f64)> {
    let mut command = Command::new(build.example("speed"));
    let threads = bench::threads().to_string();
    command.arg(model).args(case).args(["2", &threads, "avx2"]);
    read(&shell::output_or_reason(&mut command)?, so_far)
}

fn read(report: &str, so_far: f64) -> Result<(f64, f64)> {
    let value: Value =
        serde_json::from_str(report.trim()).with_context(|| format!("no report: {report}"))?;
    let seconds = value["seconds"].as_array().filter(|it| !it.is_empty());
    let seconds = seconds.and_then(|it| it.iter().map(Value::as_f64).collect::<Option<Vec<_>>>());
    let seconds = seconds.with_context(|| format!("no times in {report}"))?;
    let tokens = value["tokens_timed"].as_f64().context("no tokens were timed")?;
    Ok((tokens, seconds.into_iter().fold(so_far, f64::min)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_taken_from_the_lines_of_the_benchmark() {
        let mut times = Times::new();
        for ms in ["0.812", "0.900", "0.800"] {
            take_times(
                &format!("format isa m ms\nQ4_K   avx2        1    {ms}   28.4\n"),
                &mut times,
            );
        }
        assert_eq!(times, Times::from([(("Q4_K".to_owned(), 1), 0.8)]));
    }

    #[test]
    fn the_shortest_time_of_all_reports_counts() {
        let report = r#"{"seconds":[2.0,1.5],"tokens_timed":128}"#;
        assert_eq!(read(report, f64::INFINITY).unwrap(), (128.0, 1.5));
        assert_eq!(read(report, 1.25).unwrap(), (128.0, 1.25));
        assert!(read("{}", 1.0).is_err() && read("", 1.0).is_err());
    }
}
