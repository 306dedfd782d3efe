//! `cargo xtask sim`: the simulator's scenarios with seeds nobody has tried.
//!
//! The tests of `commons-sim` read `COMMONS_SIM_SEEDS`, numbers joined by commas. A failing seed
//! is replayed with the line printed here, and committed with the fix. With `--nodes`, the great
//! swarm has as many nodes (`COMMONS_SIM_NODES`) and nothing else is played.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    path::Path,
};

use anyhow::{Context, Result};

use crate::shell::{self, cargo, say};

/// What was typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many fresh seeds to try
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    seeds: u16,

    /// Play only the great swarm, with so many nodes
    #[arg(long, value_name = "COUNT")]
    nodes: Option<u32>,
}

/// Draws the seeds, prints them, and runs every scenario with each.
pub(crate) fn run(root: &Path, args: &Args) -> Result<()> {
    let seeds: Vec<String> = (0..args.seeds).map(|_| fresh_seed().to_string()).collect();
    let seeds = seeds.join(",");
    say(&format!("seeds: {seeds}"));
    let mut command = cargo(root, &["test", "--package", "commons-sim", "--no-fail-fast"]);
    if let Some(nodes) = args.nodes {
        command
            .args(["--test", "swarm", "every_honest_node"])
            .env("COMMONS_SIM_NODES", nodes.to_string());
    }
    let replay = "replay with `COMMONS_SIM_SEEDS=<seed> cargo test --package commons-sim`";
    shell::run(command.env("COMMONS_SIM_SEEDS", seeds)).context(replay)
}

/// The standard library's own source of chance: each hasher state is keyed anew. 32 bits are
/// plenty of seeds and short enough to type.
fn fresh_seed() -> u64 {
    RandomState::new().build_hasher().finish() >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_differ_and_are_short() {
        let (one, two, three) = (fresh_seed(), fresh_seed(), fresh_seed());
        assert!(one != two || two != three, "{one}");
        assert!(u32::try_from(one).is_ok());
    }
}
