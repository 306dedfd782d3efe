//! `cargo xtask bench-model`: a model of random weights in a real shape, to measure speed with.
//!
//! The engine's example `bench_model` writes it: this program leans on no other of ours.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{
    bench,
    shell::{self, cargo, say},
};

/// What was typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which shape, such as `1.1b`
    #[arg(value_name = "SHAPE")]
    shape: String,

    /// Which mix of stored forms, such as `Q4_K_M`
    #[arg(value_name = "QUANT")]
    quant: String,

    /// Where to write it [default: in the target folder, named by shape and mix]
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
}

/// Builds the writer, runs it, and prints where the file is.
pub(crate) fn run(root: &Path, args: &Args) -> Result<()> {
    let path = match &args.out {
        // Typed in this folder, but the writer runs in the root.
        Some(path) => std::path::absolute(path).context("there is no current folder")?,
        None => {
            let folder = bench::target(root)?.join("bench-models");
            std::fs::create_dir_all(&folder)
                .with_context(|| format!("failed to make {}", folder.display()))?;
            folder.join(format!("{}-{}.gguf", args.shape, args.quant))
        }
    };
    let example = ["run", "--release", "--package", "commons-engine", "--example", "bench_model"];
    let mut command = cargo(root, &example);
    command.args(["--", &args.shape, &args.quant]).arg(&path);
    shell::run(&mut command)?;
    say(&path.display().to_string());
    Ok(())
}
