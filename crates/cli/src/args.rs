//! The command line, as it was typed.

use std::path::PathBuf;

use crate::command::{
    adapters, bench, blobs, chat, demo, doctor, engine, invite, join, lineage, models, peers, pin,
    publish, pull, receipts, search, show, stop, up, why,
};

/// A peer-to-peer compute commons for open models
///
/// Start a node with `commons up --model FILE`, ask it with `commons chat`, and see the whole
/// path across three nodes with `commons demo`.
#[derive(Debug, clap::Parser)]
#[command(name = "commons", version, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, clap::Args)]
pub(crate) struct GlobalArgs {
    /// Folder that holds the node's keys and records [default: commons in the user's data folder]
    #[arg(long, global = true, value_name = "DIR", env = "COMMONS_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// What there is to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Up(up::Args),
    Stop(stop::Args),
    Demo(demo::Args),
    Chat(chat::Args),
    Models(models::Args),
    Adapters(adapters::Args),
    Publish(publish::Args),
    Pull(pull::Args),
    Seed(blobs::SeedArgs),
    Blobs(blobs::Args),
    Search(search::Args),
    Show(show::Args),
    Lineage(lineage::Args),
    Pin(pin::Args),
    Unpin(pin::UnpinArgs),
    Bind(pin::BindArgs),
    Peers(peers::Args),
    Invite(invite::Args),
    Join(join::Args),
    Receipts(receipts::Args),
    Why(why::Args),
    Doctor(doctor::Args),
    Bench(bench::Args),
    #[command(hide = true)]
    Engine(engine::Args),
}
