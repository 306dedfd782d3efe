//! `cargo xtask conform`: what is claimed of results, run in full and written to `docs`.
//!
//! * [`exact`]: every way to compute a sequence gives the same bits;
//! * [`cost`]: what that takes beside kernels that add in any order;
//! * [`hub`]: clients of other hubs pull from this one, into `docs/conformance.md`;
//! * [`builds`]: the two builds that the first two run.
//!
//! Not here: the computing (the engine's examples `exact` and `speed`), and the short forms of
//! these checks, which are tests of the engine.

mod builds;
mod cost;
mod exact;
mod hub;

use std::path::Path;

use anyhow::{Context, Result};

use crate::{bench, shell::say};

/// What was typed.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Args {
    /// Compute one sequence in every way, and compare all logits
    Exact(exact::Args),
    /// Time the exact kernels beside kernels that add in any order
    Cost(cost::Args),
    /// Drive real clients against the hub, with all else cut off
    Hub(hub::Args),
}

/// Runs one check and writes its page. An error tells what does not conform.
pub(crate) fn run(root: &Path, args: &Args) -> Result<()> {
    match args {
        Args::Exact(args) => exact::run(root, args),
        Args::Cost(args) => cost::run(root, args),
        Args::Hub(args) => hub::run(root, args),
    }
}

/// A page of `docs/bench`.
struct Page<'a> {
    name: &'a str,
    title: &'a str,
    what: &'a str,
    /// The command that made it, without paths of this machine.
    command: &'a str,
    body: &'a str,
}

impl Page<'_> {
    fn write(&self, root: &Path) -> Result<()> {
        let path = root.join("docs/bench").join(format!("{}.md", self.name));
        std::fs::write(&path, self.text(&bench::machine()))
            .with_context(|| format!("failed to write {}", path.display()))?;
        say(self.body);
        say(&format!("written to docs/bench/{}.md", self.name));
        Ok(())
    }

    fn text(&self, machine: &str) -> String {
        let Self { title, what, command, body, .. } = self;
        let body = body.trim_end();
        format!("# {title}\n\n{what}\n\n```sh\n{command}\n```\n\nMachine: {machine}.\n\n{body}\n")
    }
}
