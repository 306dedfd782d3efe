//! `commons pull`: takes files from members, or from a hub outside.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use commons_node::api::blobs::{BlobEvent, PulledView};

use crate::control::{Explain as _, client};
use crate::output::{Output, bytes};
use crate::settings::Settings;
use crate::transfer;

/// Pull files: a release by its name, a file by its hash, or what a hub outside has
///
/// Every piece is checked against the file's hash. What came is kept when the command ends early, and
/// the same command goes on there. What is held is given to members by your rules.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `ORG/NAME[@VERSION]`, a release's id, a file's BLAKE3 hash, `hf:ORG/REPO[@REV][:FILE]`,
    /// `ollama:NAME[:TAG]`, or `https://...#sha256=HEX`
    what: String,
    /// Write the files into this folder too
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

pub(crate) async fn run(
    args: Args,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<()> {
    let client = client(settings)?;
    let events = client.pull(args.what).await.explain("failed to pull", settings)?;
    let BlobEvent::Pulled(pulled) = transfer::follow(events, settings, out).await? else {
        bail!("the node said something else than what was pulled");
    };
    if let Some(folder) = &args.to {
        for file in &pulled.files {
            let path = place(folder, &file.path)?;
            let written = client.save_blob(file.blob, &path).await;
            written.explain("failed to write a file", settings)?;
        }
    }
    out.value(&pulled, text)?;
    Ok(())
}

/// Where a file of a release goes. Its path was checked when the release was; a hash is a name.
fn place(folder: &Path, path: &str) -> anyhow::Result<PathBuf> {
    let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\\');
    if !path.split('/').all(is_plain) {
        bail!("{path:?} leads out of the folder");
    }
    let place = folder.join(path);
    if let Some(parent) = place.parent() {
        let told = || format!("failed to make the folder {}", parent.display());
        std::fs::create_dir_all(parent).with_context(told)?;
    }
    Ok(place)
}

fn text(it: &PulledView) -> String {
    let fetched: u64 = it.files.iter().map(|file| file.fetched).sum();
    let size: u64 = it.files.iter().map(|file| file.size).sum();
    let name = it.name.as_deref().unwrap_or("the files");
    let mut lines = format!(
        "{name}: {} files, {}, of which {} came now",
        it.files.len(),
        bytes(size),
        bytes(fetched)
    );
    for file in &it.files {
        // Writing to a string does not fail.
        let _ = write!(lines, "\n  {}  {}", file.blob, file.path);
    }
    for note in &it.notes {
        let _ = write!(lines, "\n  note: {note}");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(place(folder.path(), "a/b").unwrap(), folder.path().join("a/b"));
        for path in ["../x", "/x", "a//b", "a/..", "", "a\\b", "."] {
            assert!(place(folder.path(), path).is_err(), "{path}");
        }
    }
}
