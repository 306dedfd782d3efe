//! Times one thing of a model: `speed MODEL prefill|decode TOKENS ROWS ROUNDS THREADS ISA`.
//!
//! Prints the report of `measure.rs` as a line of JSON. `cargo xtask conform cost` runs it, from two
//! builds in turn.

#![expect(clippy::print_stdout, reason = "a program that prints what it found")]

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use commons_engine::measure::{Plan, What};
use commons_engine::place::Device;
use commons_kernels::Isa;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let [model, what, tokens, rows, rounds, threads, isa] = args else {
        return Err("wanted: MODEL prefill|decode TOKENS ROWS ROUNDS THREADS ISA".into());
    };
    let what = match what.as_str() {
        "prefill" => What::Prefill,
        "decode" => What::Decode,
        _ => return Err(format!("{what:?} is neither prefill nor decode").into()),
    };
    let plan = Plan {
        device: Device::Cpu,
        tokens: tokens.parse()?,
        rows: rows.parse()?,
        rounds: rounds.parse()?,
        threads: threads.parse()?,
        isa: Isa::named(isa)?,
        ..Plan::new(Path::new(model), what)
    };
    println!("{}", serde_json::to_string(&plan.run()?)?);
    Ok(())
}
