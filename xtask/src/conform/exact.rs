//! `cargo xtask conform exact`: one sequence, computed in every way, and the hash over its logits.
//!
//! ```text
//! for each model, each build: one process of the example `exact` -> a line of JSON for each way
//! ```
//!
//! The first way of a model writes down the hash of its logits at every token; all others, in
//! whichever build, are compared with that. So a beginning can be compared too, and the first
//! token that differs has a number.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Page, builds::Build};
use crate::{bench, shell};

const WHAT: &str = "The BLAKE3 hash over the bits of all logits of one sequence, token by token. \
     The sequence is alone in its batch, or one of 7 or of 32; the others begin, end and begin \
     again at lengths of their own. `prefill` reads it in pieces of 1 to 256 tokens, `decode` \
     token by token. Every cell of a table is a computation of its own, and shows the beginning \
     of its hash. What is promised is in [EXACT.md](../EXACT.md).";

/// Tokens for which sums in free order are held against the exact ones.
const CONTROL_TOKENS: usize = 64;

/// What was typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Tokens of the tiny model, which has a tensor in every stored form
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    tokens: usize,

    /// Tokens of it with AVX-512 emulated, where the machine has none
    #[arg(long, value_name = "COUNT", default_value_t = 512)]
    emulated: usize,

    /// A larger model beside it; `cargo xtask bench-model 1.1b Q4_K_M` writes one
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,

    /// Tokens of the larger model
    #[arg(long, value_name = "COUNT", default_value_t = 256)]
    model_tokens: usize,

    /// Tokens of the larger model in plain code
    #[arg(long, value_name = "COUNT", default_value_t = 32)]
    model_scalar: usize,
}

/// One way that was computed.
#[derive(Debug, PartialEq, Eq)]
struct Way {
    isa: String,
    threads: u64,
    rows: u64,
    pass: String,
    tokens: u64,
    hash: String,
    differs_at: Option<u64>,
}

/// What is compared with each other, and how the table calls it.
struct Case<'a> {
    model: &'a Path,
    reference: PathBuf,
}

pub(super) fn run(root: &Path, args: &Args) -> Result<()> {
    let plain = Build::plain(root)?;
    let folder = bench::target(root)?.join("conform");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("failed to make {}", folder.display()))?;
    let tiny = folder.join("tiny-EVERY.gguf");
    let mut write = Command::new(plain.example("bench_model"));
    shell::run(write.args(["tiny", "EVERY"]).arg(&tiny))?;

    let mut body = String::new();
    let mut differing = Vec::new();
    let case = Case::new(&tiny, &folder)?;
    let mut ways = case.compute(&plain, args.tokens, &[])?;
    let other = Build::other(root)?;
    let avx512 = if ways.iter().any(|it| it.isa == "avx512") {
        "AVX-512 ran on the processor."
    } else if let Some(other) = &other {
        ways.extend(case.compute(other, args.emulated, &["isa=avx512"])?);
        "The machine has no AVX-512: the same source ran with its intrinsics in plain Rust, for \
         the first tokens of the sequence, which are compared with the first of the others."
    } else {
        "AVX-512 did not run: the machine has none, and cannot run its emulation either."
    };
    let control = other.as_ref().map(|other| case.control(other)).transpose()?;
    let words = format!("{avx512} {}", control.unwrap_or_default());
    let avx512 = words.trim_end();
    section(&mut body, "A tiny model with a tensor in every stored form", avx512, &ways);
    differing.extend(ways.into_iter().filter(|it| it.differs_at.is_some()));

    if let Some(model) = &args.model {
        let case = Case::new(model, &folder)?;
        let mut ways = case.compute(&plain, args.model_tokens, &["isa=fast"])?;
        ways.extend(case.compute(&plain, args.model_scalar, &["isa=scalar"])?);
        let name = model.file_stem().map_or_else(String::new, |it| it.to_string_lossy().into());
        let words = "Plain code computed the first tokens; they are compared with the first of \
                     the others.";
        section(&mut body, &name, words, &ways);
        differing.extend(ways.into_iter().filter(|it| it.differs_at.is_some()));
    }
    let command = command(args);
    let title = "One answer, bit for bit";
    Page { name: "exact", title, what: WHAT, command: &command, body: &body }.write(root)?;
    if let Some(way) = differing.first() {
        bail!("{} ways differ; the first: {}", differing.len(), way.told());
    }
    Ok(())
}

fn command(args: &Args) -> String {
    let mut command = "cargo xtask conform exact".to_owned();
    let Args { tokens, emulated, model, model_tokens, model_scalar } = args;
    // Writing to a string cannot fail.
    let _ = write!(command, " --tokens {tokens} --emulated {emulated}");
    if model.is_some() {
        let _ = write!(command, " --model FILE --model-tokens {model_tokens}");
        let _ = write!(command, " --model-scalar {model_scalar}");
    }
    command
}

impl<'a> Case<'a> {
    /// A case of its own: what an earlier run wrote down is gone.
    fn new(model: &'a Path, folder: &Path) -> Result<Self> {
        let stem = model.file_stem().context("the model is no file")?;
        let reference = folder.join(stem).with_extension("hashes");
        match std::fs::remove_file(&reference) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("failed to remove the hashes of an earlier run")
            }
            _ => Ok(Self { model, reference }),
        }
    }

    /// The build in free order must not pass: a check that it passes would see nothing.
    fn control(&self, other: &Build) -> Result<String> {
        let ways = self.compute(other, CONTROL_TOKENS, &["isa=avx2", "threads=1", "rows=1"])?;
        let differing = ways.iter().filter_map(|it| it.differs_at.map(|at| (&it.pass, at)));
        let told: Vec<_> = differing.map(|(pass, at)| format!("{pass} at token {at}")).collect();
        ensure!(!told.is_empty(), "sums in free order have the same hash: the check is blind");
        Ok(format!(
            "As a control, sums in free order were held against it too; they differ: {}.",
            told.join(", ")
        ))
    }

    fn compute(&self, build: &Build, tokens: usize, ways: &[&str]) -> Result<Vec<Way>> {
        let mut command = Command::new(build.example("exact"));
        command.arg(self.model).arg(tokens.to_string()).arg(&self.reference).args(ways);
        let mut lines = Vec::new();
        shell::run_reading(&mut command, |line| {
            if line.starts_with('{') {
                lines.push(line.to_owned());
            }
        })?;
        ensure!(!lines.is_empty(), "the example computed nothing");
        lines.iter().map(|line| Way::parse(line)).collect()
    }
}

impl Way {
    fn parse(line: &str) -> Result<Self> {
        let value: Value =
            serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let number = |name: &str| value[name].as_u64();
        let way = || {
            Some(Self {
                isa: text("isa")?,
                threads: number("threads")?,
                rows: number("rows")?,
                pass: text("pass")?,
                tokens: number("tokens")?,
                hash: text("hash").filter(|it| it.len() == 64)?,
                differs_at: number("differs_at"),
            })
        };
        way().with_context(|| format!("a part is missing in {line}"))
    }

    fn told(&self) -> String {
        let Self { isa, threads, rows, pass, differs_at, .. } = self;
        let at = differs_at.map_or_else(String::new, |it| format!(" from token {it} on"));
        format!("{pass} with {isa}, {threads} threads and {rows} rows differs{at}")
    }

    fn cell(&self) -> String {
        match self.differs_at {
            None => format!("`{}`", &self.hash[..12]),
            Some(at) => format!("**differs at {at}**"),
        }
    }
}

/// A heading, and a table with a column for each size of a batch.
fn section(body: &mut String, title: &str, words: &str, ways: &[Way]) {
    let mut rows: Vec<u64> = ways.iter().map(|it| it.rows).collect();
    rows.sort_unstable();
    rows.dedup();
    let verdict = match ways.iter().filter(|it| it.differs_at.is_some()).count() {
        0 => format!("All {} are the same.", ways.len()),
        count => format!("**{count} of {} differ.**", ways.len()),
    };
    // Writing to a string cannot fail.
    let _ = write!(
        body,
        "## {title}\n\n{words} {verdict}\n\n| Computed with | Tokens | Pass | Threads |"
    );
    for count in &rows {
        let _ = write!(body, " {count} in the batch |");
    }
    let _ = write!(body, "\n|---|---:|---|---:|{}\n", "---|".repeat(rows.len()));
    let key = |way: &Way| (way.isa.clone(), way.tokens, way.pass.clone(), way.threads);
    let mut keys: Vec<_> = Vec::new();
    for way in ways {
        if !keys.contains(&key(way)) {
            keys.push(key(way));
        }
    }
    for wanted in keys {
        let (isa, tokens, pass, threads) = &wanted;
        let _ = write!(body, "| {isa} | {tokens} | {pass} | {threads} |");
        for count in &rows {
            let found = ways.iter().find(|it| key(it) == wanted && it.rows == *count);
            let _ = write!(body, " {} |", found.map_or_else(String::new, Way::cell));
        }
        body.push('\n');
    }
    body.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(isa: &str, rows: u64, differs_at: Option<u64>) -> Way {
        let hash = "0123456789abcdef".repeat(4);
        let (isa, pass) = (isa.to_owned(), "decode".to_owned());
        Way { isa, threads: 2, rows, pass, tokens: 9, hash, differs_at }
    }

    #[test]
    fn a_line_of_the_example_is_read_and_another_is_refused() {
        let line = format!(
            r#"{{"isa":"avx2","threads":2,"rows":7,"pass":"decode","tokens":9,"hash":"{}","differs_at":null,"seconds":0.1}}"#,
            "0123456789abcdef".repeat(4)
        );
        assert_eq!(Way::parse(&line).unwrap(), way("avx2", 7, None));
        let odd = line.replace("null", "3");
        assert_eq!(Way::parse(&odd).unwrap().differs_at, Some(3));
        for broken in ["", "{}", &line.replace("decode\"", "\""), &line.replace("0123", "")] {
            let is_refused = Way::parse(broken).is_err();
            assert!(is_refused || broken.contains(r#""pass":"""#), "{broken}");
        }
    }

    #[test]
    fn a_table_shows_what_is_the_same_and_where_something_differs() {
        let mut body = String::new();
        let ways = [way("avx2", 1, None), way("avx2", 7, Some(4)), way("scalar", 1, None)];
        section(&mut body, "It", "Words.", &ways);
        assert!(body.contains("Words. **1 of 3 differ.**"), "{body}");
        assert!(body.contains("| avx2 | 9 | decode | 2 | `0123456789ab` | **differs at 4** |"));
        assert!(body.contains("| scalar | 9 | decode | 2 | `0123456789ab` |  |"), "{body}");
        assert!(ways[1].told().contains("from token 4 on"));
    }
}
