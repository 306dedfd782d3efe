//! What holding an answer to a form costs: the same batch with a JSON schema and without.
//!
//! `commons bench --only decode-json` times both in turn, in one process. Here each number of rows
//! is a process, and the rounds of all are put into one table.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use super::engine::{build, median, report::Report, warm};
use crate::shell;

/// Rows of a batch, each held to the schema by a matcher of its own.
const ROWS: [usize; 3] = [1, 4, 16];

pub(super) const WHAT: &str = "The same batch twice in one process: once each row is held to a JSON \
     schema, once it is free. The mask of the next token is computed beside the forward pass. The \
     extra time is that of a round with the schema over the round without that came right after or \
     before it; the table has the median of the rounds. Wanted: 5 % at most.";

#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Args {
    /// GGUF file of the model; `cargo xtask bench-model` writes one
    #[arg(long, value_name = "FILE")]
    model: PathBuf,

    /// `commons`, built in the release profile [default: built here]
    #[arg(long, value_name = "PROGRAM")]
    commons: Option<PathBuf>,

    /// Rounds
    #[arg(long, value_name = "COUNT", default_value_t = 7)]
    rounds: usize,
}

/// Measures everything and returns the table.
pub(super) fn measure(root: &Path, rest: &[String]) -> Result<String> {
    let args = Args::try_parse_from(rest)?;
    ensure!(args.rounds > 0, "without a round there is nothing to show");
    let commons = args.commons.clone().map_or_else(|| build(root), Ok)?;
    warm(&args.model)?;
    let mut text = format!(
        "Model: {}. Rounds: {}.\n\n\
         | Rows | Free, tokens/s | With a schema, tokens/s | Extra time | least and most |\n\
         |---:|---:|---:|---:|---:|\n",
        args.model.file_name().unwrap_or_default().display(),
        args.rounds,
    );
    for rows in ROWS {
        eprintln!("{rows} rows");
        let mut command = Command::new(&commons);
        command.arg("bench").arg(&args.model).args([
            "--only",
            "decode-json",
            "--through",
            "scheduler",
            "--json",
        ]);
        command.args(["--rows", &rows.to_string(), "--rounds", &args.rounds.to_string()]);
        let report = Report::parse(&shell::output_or_reason(&mut command)?)?;
        text += &row(rows, &report)?;
    }
    Ok(text)
}

fn row(rows: usize, report: &Report) -> Result<String> {
    let (held, free) = (report.list("seconds")?, report.list("free_s")?);
    ensure!(held.len() == free.len(), "each round has a time with the schema and one without");
    let extra: Vec<f64> = held.iter().zip(&free).map(|(held, free)| held / free - 1.0).collect();
    let tokens = report.number("tokens_timed")?;
    let middle = |values: &[f64]| median(values).context("a report has a round");
    let least = extra.iter().copied().fold(f64::INFINITY, f64::min);
    let most = extra.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "| {rows} | {:.1} | {:.1} | {:+.1} % | {:+.1} % to {:+.1} % |",
        tokens / middle(&free)?,
        tokens / middle(&held)?,
        100.0 * middle(&extra)?,
        100.0 * least,
        100.0 * most,
    );
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_time_is_that_of_neighbouring_rounds() {
        let json =
            r#"{"schema":1,"seconds":[1.05,2.2,1.0],"free_s":[1.0,2.0,1.0],"tokens_timed":10}"#;
        let line = row(4, &Report::parse(json).unwrap()).unwrap();
        assert_eq!(line, "| 4 | 10.0 | 9.5 | +5.0 % | +0.0 % to +10.0 % |\n");
        let other = json.replace("[1.0,2.0,1.0]", "[1.0]");
        assert!(row(4, &Report::parse(&other).unwrap()).is_err());
    }
}
