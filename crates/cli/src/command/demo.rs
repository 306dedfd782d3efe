//! `commons demo`: the whole path across three nodes on this machine, in one command.

use std::path::PathBuf;
use std::time::Duration;

use crate::demo;
use crate::output::Output;

/// Show the whole path: three nodes, two questions, receipts that anybody can verify
///
/// Starts three nodes as processes of their own, with fresh data folders and free ports of this
/// machine. One holds the model; one joins it and asks; one joins late and asks too.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model file to show [default: a small model of random weights, whose text is noise]
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,

    /// The text that the model continues
    #[arg(long, value_name = "TEXT", default_value = "Once upon a time")]
    prompt: String,

    /// The longest answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    max_tokens: u32,

    /// Give up after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    deadline: u64,
}

pub(crate) async fn run(args: Args, out: &mut Output<'_>) -> anyhow::Result<()> {
    let config = demo::Config {
        model: args.model,
        prompt: args.prompt,
        max_tokens: args.max_tokens,
        deadline: Duration::from_secs(args.deadline),
    };
    demo::run(&config, out).await
}
