//! `commons receipts`: what this node holds, and what anybody can check.
//!
//! * `list`, `show` and `export` ask the running node;
//! * [`verify`] needs a file and nothing else: no node, no network, no key.

mod export;
mod list;
mod show;
mod verify;

use std::process::ExitCode;

use crate::output::Output;
use crate::settings::Settings;

/// List, show, verify and export receipts
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(list::Args),
    Show(show::Args),
    Verify(verify::Args),
    Export(export::Args),
}

pub(crate) async fn run(
    args: Args,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List(args) => list::run(args, settings, out).await?,
        Command::Show(args) => return show::run(args, settings, out).await,
        Command::Verify(args) => return verify::run(&args, out),
        Command::Export(args) => export::run(args, settings, out).await?,
    }
    Ok(ExitCode::SUCCESS)
}
