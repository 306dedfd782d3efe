//! `cargo xtask fuzz`: each fuzz target for a stated time, on the stable toolchain.
//!
//! A target is an ordinary test in `crates/*/tests/fuzz_*.rs` that calls `bolero::check!`.
//! `cargo test` runs each for a second; this runs each for as long as one likes, with fresh
//! random inputs after the ones kept in its `corpus` and `crashes` folders. A failure prints
//! `BOLERO_RANDOM_SEED=..`, which replays it.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::{
    shell::{self, cargo},
    tidy::Tree,
};

/// What was typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Time for each target
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
}

/// Runs every target; targets of one file share the processors.
pub(crate) fn run(root: &Path, args: &Args) -> Result<()> {
    let tree = Tree::load(root)?;
    let targets = tree.files().map(|file| file.path.as_str()).filter(|path| is_target(path));
    let targets: Vec<_> = targets.collect();
    ensure!(!targets.is_empty(), "no `crates/*/tests/fuzz_*.rs`: there is nothing to run");
    for target in targets {
        eprintln!("fuzz: {target}, {} s for each of its tests", args.seconds);
    }
    let millis = args.seconds.saturating_mul(1_000).to_string();
    let mut command = cargo(root, &["test", "--workspace", "--test", "fuzz_*", "--no-fail-fast"]);
    shell::run(command.env("BOLERO_RANDOM_TEST_TIME_MS", millis))
}

fn is_target(path: &str) -> bool {
    let name = path.strip_prefix("crates/").and_then(|it| it.split_once("/tests/fuzz_"));
    name.and_then(|(_, name)| name.strip_suffix(".rs")).is_some_and(|name| !name.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_known_by_their_name() {
        assert!(is_target("crates/record/tests/fuzz_envelope.rs"));
        assert!(!is_target("crates/record/tests/it.rs"));
        assert!(!is_target("crates/record/tests/fuzz_envelope/corpus/a.rs"));
        assert!(!is_target("crates/record/src/fuzz_envelope.rs"));
    }
}
