//! `commons blobs` and `commons seed`: the files that the node holds and gives.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use commons_node::api::blobs::{AddedView, BlobEvent, BlobView, FileToAdd};
use commons_record::Hash;

use crate::control::{Explain as _, client};
use crate::output::{Output, bytes, short, table};
use crate::settings::Settings;
use crate::transfer;

/// The files that this node holds, by their hashes
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the files that are held, whole or in part
    Ls,
    /// Read a file and check every piece; pieces that are wrong are forgotten
    Verify {
        /// The file's BLAKE3 hash
        blob: Hash,
    },
    /// Forget a file; one that is read where it lies stays there
    Rm {
        /// The file's BLAKE3 hash
        blob: Hash,
    },
    /// Remove what nobody pinned, the longest unused first, until all fits into the budget
    Gc,
}

/// Take in files of this machine and give them to members
///
/// A file is given if your rules allow it: a release with a licence has it, or your rules let files
/// without one go. `commons publish` makes a release.
#[derive(Debug, clap::Args)]
pub(crate) struct SeedArgs {
    /// The files
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Copy them into the data folder; else they are read where they lie
    #[arg(long)]
    copy: bool,
}

pub(crate) async fn run(
    args: Args,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<()> {
    let client = client(settings)?;
    match args.command {
        Command::Ls => {
            let all = client.blobs().await.explain("failed to list files", settings)?;
            out.value(&all, |all| text(all))?;
        }
        Command::Verify { blob } => {
            let found = client.verify_blob(blob).await.explain("failed to verify", settings)?;
            out.value(&found, |it| match it.wrong_pieces.len() {
                0 => format!("{blob}: every piece is right"),
                count => {
                    format!("{blob}: {count} pieces were wrong and are no longer held; pull it")
                }
            })?;
            if !found.wrong_pieces.is_empty() {
                bail!("{blob} is damaged");
            }
        }
        Command::Rm { blob } => {
            client.remove_blob(blob).await.explain("failed to remove the file", settings)?;
            out.value(&blob, |it| format!("{it} is gone"))?;
        }
        Command::Gc => {
            let gone = client.collect_blobs().await.explain("failed to collect", settings)?;
            out.value(&gone, |it| format!("{} files, {} are free now", it.blobs, bytes(it.bytes)))?;
        }
    }
    Ok(())
}

pub(crate) async fn seed(
    args: SeedArgs,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<()> {
    for path in args.paths {
        let added = add(path.clone(), args.copy, settings, out).await?;
        let all = client(settings)?.blobs().await.explain("failed to list files", settings)?;
        let kept_back =
            all.into_iter().find(|it| it.blob == added.blob).and_then(|it| it.kept_back);
        out.value(&added, |it| match kept_back {
            None => format!("{}  {}", it.blob, path.display()),
            Some(rule) => format!("{}  {}: held, not given: {rule}", it.blob, path.display()),
        })?;
    }
    Ok(())
}

/// Takes in one file.
pub(crate) async fn add(
    path: PathBuf,
    is_copied: bool,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<AddedView> {
    // The node runs in another folder.
    let path = std::path::absolute(&path).context("failed to find the file")?;
    let add = client(settings)?.add_blob(&FileToAdd { path, is_copied }).await;
    let events = add.explain("failed to take in the file", settings)?;
    match transfer::follow(events, settings, out).await? {
        BlobEvent::Added(added) => Ok(added),
        _ => bail!("the node said something else than what it took in"),
    }
}

fn text(all: &[BlobView]) -> String {
    if all.is_empty() {
        return "this node holds no file: try `commons pull` or `commons publish`".to_owned();
    }
    let row = |it: &BlobView| {
        let held = (it.pieces_held * 100).checked_div(it.pieces).unwrap_or(0);
        [
            short(it.blob),
            bytes(it.size),
            format!("{held} %"),
            if it.pins > 0 { "yes" } else { "no" }.to_owned(),
            it.kept_back.clone().map_or_else(|| "given".to_owned(), |rule| format!("kept: {rule}")),
            it.names.first().cloned().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    table(["HASH", "SIZE", "HELD", "PINNED", "MEMBERS", "NAME"], &rows)
}
