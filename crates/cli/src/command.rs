//! The commands, one file each: its `Args`, and a `run` that takes them and a writer.

pub(crate) mod adapters;
pub(crate) mod bench;
pub(crate) mod blobs;
pub(crate) mod chat;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod engine;
pub(crate) mod invite;
pub(crate) mod join;
pub(crate) mod lineage;
pub(crate) mod models;
pub(crate) mod peers;
pub(crate) mod pin;
pub(crate) mod publish;
pub(crate) mod pull;
pub(crate) mod receipts;
pub(crate) mod search;
pub(crate) mod show;
pub(crate) mod stop;
pub(crate) mod up;
pub(crate) mod why;

use std::process::ExitCode;

use anyhow::Context as _;

use crate::args::{Args, Command};
use crate::output::Output;
use crate::settings::{Environment, Settings};

/// Runs the command that was typed.
pub(crate) fn run(args: Args, out: &mut Output<'_>) -> anyhow::Result<ExitCode> {
    // A runtime has threads, and a jail closes around one: this comes before. It needs no
    // folder either.
    if let Command::Engine(args) = &args.command {
        return engine::run(args, out);
    }
    let settings = Settings::resolve(args.global.data_dir, &Environment::read())?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.enable_all().build().context("failed to start the async runtime")?;
    let result = runtime.block_on(dispatch(args.command, &settings, out));
    // A thread that waits for a line of standard input would never let go by itself.
    runtime.shutdown_background();
    result
}

async fn dispatch(
    command: Command,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(args) => up::run(args, settings, out).await?,
        Command::Stop(args) => stop::run(args, settings, out).await?,
        Command::Demo(args) => demo::run(args, out).await?,
        Command::Chat(args) => chat::run(args, settings, out).await?,
        Command::Models(args) => models::run(args, settings, out).await?,
        Command::Adapters(args) => adapters::run(args, settings, out).await?,
        Command::Publish(args) => publish::run(args, settings, out).await?,
        Command::Pull(args) => pull::run(args, settings, out).await?,
        Command::Seed(args) => blobs::seed(args, settings, out).await?,
        Command::Blobs(args) => blobs::run(args, settings, out).await?,
        Command::Search(args) => search::run(args, settings, out).await?,
        Command::Show(args) => show::run(args, settings, out).await?,
        Command::Lineage(args) => lineage::run(args, settings, out).await?,
        Command::Pin(args) => pin::run(args, settings, out).await?,
        Command::Unpin(args) => pin::unpin(args, settings, out).await?,
        Command::Bind(args) => pin::bind(args, settings, out).await?,
        Command::Peers(args) => peers::run(args, settings, out).await?,
        Command::Invite(args) => invite::run(args, settings, out).await?,
        Command::Join(args) => join::run(args, settings, out).await?,
        Command::Why(args) => why::run(args, settings, out).await?,
        Command::Receipts(args) => return receipts::run(args, settings, out).await,
        Command::Doctor(args) => return doctor::run(args, settings, out).await,
        Command::Bench(args) => return bench::run(args, out).await,
        Command::Engine(args) => return engine::run(&args, out),
    }
    Ok(ExitCode::SUCCESS)
}
