//! Writes a model of random weights for measurements: `bench_model SHAPE MIX PATH`.
//!
//! `cargo xtask bench-model` runs it. Progress goes to stderr.

use std::path::Path;
use std::process::ExitCode;

use commons_engine::noise::{
    Mix,
    bench::{SHAPES, Shape, write_bench_model},
};

/// The seed of all files: whoever writes one gets the same bytes.
const SEED: u64 = 1;

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

fn run(args: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let [shape, mix, path] = args else {
        return Err("three arguments are wanted: SHAPE MIX PATH".into());
    };
    let shape = Shape::named(shape).ok_or_else(|| {
        let known = SHAPES.map(|it| it.name).join(", ");
        format!("there is no shape {shape:?}; there is: {known}")
    })?;
    let mix: Mix = mix.parse()?;
    let mut told = 0;
    write_bench_model(Path::new(path), (shape, mix), SEED, |done, total| {
        let percent = done * 100 / total;
        if percent >= told + 10 || (percent == 100 && told < 100) {
            eprintln!("{percent:3} % of {} MiB", total >> 20);
            told = percent;
        }
    })?;
    Ok(())
}
