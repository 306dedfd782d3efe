//! Automation in Rust: `cargo xtask <command>` does everything that is not the program itself.
//!
//! Each command is one module. Progress goes to stderr, results to stdout. Dependencies stay
//! few, because every other check waits for this program to build.
//!
//! Not here: what the checks of the compiler and of clippy can say; see `Cargo.toml` and
//! `clippy.toml` at the root.

mod bench;
mod bench_model;
mod conform;
mod fuzz;
mod shell;
mod sim;
mod stats;
mod test;
mod tidy;

use std::{path::Path, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;

/// Automation for the Commons workspace
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Args {
    /// Run every check and every test, then the demo
    Test,
    /// Check the rules of the house
    Tidy,
    /// Run each fuzz target for a while
    Fuzz(fuzz::Args),
    /// Run the simulator's scenarios with fresh seeds
    Sim(sim::Args),
    /// Measure, and write the result under `docs/bench`
    Bench(bench::Args),
    /// Write a model of random weights to measure with
    BenchModel(bench_model::Args),
    /// Run in full what is claimed of results, and write it under `docs/bench`
    #[command(subcommand)]
    Conform(conform::Args),
    /// Count lines and dependencies, as a Markdown table
    Stats,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask lies in the workspace root")?;
    match args {
        Args::Test => test::run(root),
        Args::Tidy => tidy::run(root),
        Args::Fuzz(args) => fuzz::run(root, args),
        Args::Sim(args) => sim::run(root, args),
        Args::Bench(args) => bench::run(root, args),
        Args::BenchModel(args) => bench_model::run(root, args),
        Args::Conform(args) => conform::run(root, args),
        Args::Stats => stats::run(root),
    }
}
