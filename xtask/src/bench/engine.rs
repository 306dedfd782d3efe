//! `cargo xtask bench engine`: our engine and the reference do the same work, in turn.
//!
//! ```text
//! for each round, each case, each contender: one process -> one line of JSON -> figures
//! ```
//!
//! Whatever else the machine does falls on all of them; the table shows medians of the rounds.
//! A contender is a command that understands the arguments of `commons bench`: the binary itself,
//! or `reference.py`, which drives llama.cpp through llama-cpp-python. The reference runs as it
//! comes and with its weights left as they stand in the file, because each is the faster one
//! somewhere; ours is compared with the better.
//!
//! Not here: what is timed, which is the contenders' matter.

mod busy;
mod cases;
pub(super) mod report;
mod table;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::shell::{self, cargo};
use busy::Busy;
use cases::{CASES, COMPARISONS, Case};
use report::Report;

pub(super) use table::median;

/// What the page says below its title.
pub(super) const WHAT: &str = "The same work in our engine and in llama.cpp (driven through llama-cpp-python, as it comes \
     and without repacking its weights), measured in turn, round by round, a process for each \
     measurement. Figures are medians; the factor is how many times as good ours is as the \
     better of the reference's two. The spread is the largest of a row: the distance of its \
     extremes, of the median. Time besides the model is what requests take and the forward pass \
     does not: deciding what to compute, drawing tokens, telling them. \
     `cargo xtask bench-model` writes a model of this shape; its text is a loop, so that there is \
     something to speculate on.";

/// What was typed after the name of the benchmark.
#[derive(Debug, clap::Parser)]
#[command(name = "cargo xtask bench engine", no_binary_name = true)]
struct Args {
    /// GGUF file to measure with; `cargo xtask bench-model` writes one
    #[arg(long, value_name = "FILE")]
    model: PathBuf,

    /// Python that has llama-cpp-python [default: none, the columns of the reference stay empty]
    #[arg(long, value_name = "PROGRAM")]
    python: Option<PathBuf>,

    /// Our binary [default: built here]
    #[arg(long, value_name = "PROGRAM")]
    commons: Option<PathBuf>,

    /// Threads of each engine [default: as many as the machine runs at once]
    #[arg(long, value_name = "COUNT")]
    threads: Option<usize>,

    /// Instruction set of our engine [default: the best of this machine]
    #[arg(long, value_name = "NAME")]
    isa: Option<String>,

    /// Rounds; the table shows medians
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    rounds: usize,

    /// Only cases whose name has this in it
    #[arg(long, value_name = "TEXT", default_value = "")]
    case: String,
}

/// One that is measured: a name for the table, a command, and arguments that all its runs have.
#[derive(Debug)]
struct Contender {
    name: &'static str,
    command: Vec<PathBuf>,
    rest: Vec<String>,
    /// Ours does what the reference does not.
    is_ours: bool,
}

/// Figures of all rounds: of each case, by contender.
type Measured = BTreeMap<(usize, usize), Vec<Report>>;

/// Measures everything and returns the table.
pub(super) fn measure(root: &Path, rest: &[String]) -> Result<String> {
    let args = Args::try_parse_from(rest)?;
    ensure!(args.rounds > 0, "without a round there is nothing to show");
    let contenders = contenders(root, &args)?;
    warm(&args.model)?;
    let threads = args.threads.unwrap_or_else(super::threads);
    let chosen: Vec<&Case> = CASES.iter().filter(|it| it.name.contains(&args.case)).collect();
    ensure!(!chosen.is_empty(), "no case has {:?} in its name", args.case);
    let mut measured = Measured::new();
    for round in 0..args.rounds {
        for (case_index, case) in chosen.iter().enumerate() {
            for index in turn(contenders.len(), round) {
                let contender = &contenders[index];
                if !contender.is_ours && case.is_ours_alone {
                    continue;
                }
                eprintln!(
                    "round {} of {}: {}, {}",
                    round + 1,
                    args.rounds,
                    case.name,
                    contender.name
                );
                let report = once(contender, case, &args.model, threads)?;
                measured.entry((case_index, index)).or_default().push(report);
            }
        }
    }
    let names: Vec<&str> = contenders.iter().map(|it| it.name).collect();
    let absent = args.python.is_none();
    let rows = table::rows(&chosen, &measured, names.len())?;
    Ok(format!(
        "Model: {}. Threads: {}. Rounds: {}.{}\n\n{}\n{}\n{}",
        args.model.file_name().unwrap_or_default().display(),
        threads,
        args.rounds,
        if absent { " No reference was given (`--python PROGRAM`)." } else { "" },
        engines(&contenders, &measured),
        table::table(&names, &rows),
        table::comparisons(&rows, &COMPARISONS)
    ))
}

/// Ours, then the reference in its two ways.
fn contenders(root: &Path, args: &Args) -> Result<Vec<Contender>> {
    let commons = match &args.commons {
        Some(path) => path.clone(),
        None => build(root)?,
    };
    let isa = args.isa.iter().flat_map(|it| ["--isa".to_owned(), it.clone()]);
    let mut contenders = vec![Contender {
        name: "Commons",
        command: vec![commons, "bench".into()],
        rest: isa.collect(),
        is_ours: true,
    }];
    if let Some(python) = &args.python {
        let script = root.join("xtask/src/bench/reference.py");
        shell::output(Command::new(python).args(["-c", "import llama_cpp, numpy"])).with_context(
            || {
                format!(
                    "there is no reference: {} cannot import llama_cpp; install llama-cpp-python \
                     for it, name another with --python, or leave --python out",
                    python.display()
                )
            },
        )?;
        for (name, repack) in [("llama.cpp", "on"), ("llama.cpp, not repacked", "off")] {
            contenders.push(Contender {
                name,
                command: vec![python.clone(), script.clone()],
                rest: ["--repack", repack].map(str::to_owned).to_vec(),
                is_ours: false,
            });
        }
    }
    Ok(contenders)
}

/// Builds `commons` in the release profile.
pub(super) fn build(root: &Path) -> Result<PathBuf> {
    shell::run(&mut cargo(root, &["build", "--release", "--package", "commons-cli"]))?;
    Ok(super::target(root)?.join("release/commons"))
}

/// Reads the file once, so that it lies in the page cache for everybody.
pub(super) fn warm(model: &Path) -> Result<()> {
    let told = || format!("failed to read {}", model.display());
    let mut file = File::open(model).with_context(told)?;
    io::copy(&mut file, &mut io::sink()).map(|_| ()).with_context(told)
}

/// The order of a round: each contender is first as often as the others.
fn turn(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |index| (index + round) % count)
}

/// One measurement: a process from start to end.
fn once(contender: &Contender, case: &Case, model: &Path, threads: usize) -> Result<Report> {
    let (program, first) = contender.command.split_first().context("a command has a program")?;
    let mut command = Command::new(program);
    command.args(first).arg(model).args(["--json", "--threads", &threads.to_string()]);
    command.args(case.args).args(&contender.rest);
    let busy = case.is_crowded.then(Busy::start).transpose()?;
    let printed = shell::output_or_reason(&mut command);
    drop(busy);
    let told = || format!("{} could not measure: {}", contender.name, case.name);
    Report::parse(&printed.with_context(told)?).with_context(told)
}

/// What each contender says it is.
fn engines(contenders: &[Contender], measured: &Measured) -> String {
    let mut text = String::new();
    for (index, contender) in contenders.iter().enumerate() {
        let reports = measured.iter().filter(|((_, it), _)| *it == index);
        if let Some(report) = reports.flat_map(|(_, it)| it).next() {
            let _ = writeln!(text, "* {}: {}", contender.name, report.engine());
        }
    }
    text
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
