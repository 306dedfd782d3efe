//! `commons show`: one release, with its files.

use std::fmt::Write as _;

use commons_node::api::catalogue::{NamedBy, ReleaseView};

use crate::control::{Explain as _, client};
use crate::output::{Output, bytes, table};
use crate::settings::Settings;

/// Show a release: who signed it, its licence, its files by hash
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `ORG/NAME`, `ORG/NAME@VERSION`, `ORG/NAME@COMMIT`, or a release's id
    what: String,
}

pub(crate) async fn run(
    args: Args,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<()> {
    let shown = client(settings)?.show(args.what).await;
    let shown = shown.explain("failed to show the release", settings)?;
    out.value(&shown, text)?;
    Ok(())
}

fn text(it: &ReleaseView) -> String {
    let body = &it.body;
    let by = match &it.by {
        Some(NamedBy::Pin) => "your pin".to_owned(),
        Some(NamedBy::Authority(owner)) => format!("the word of the authority {owner}"),
        Some(NamedBy::Predecessor(of)) => format!("being a predecessor of release {of}"),
        Some(NamedBy::Commit) => "its hash, which you gave".to_owned(),
        None if it.is_named => "its id; some name means it here".to_owned(),
        None => "its id; no name means it here".to_owned(),
    };
    let mut lines = format!("{}@{}, a {}\n", body.name, body.version, body.kind);
    let mut line = |what: &str, value: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(lines, "  {what:<9} {value}");
    };
    line("release", &it.release.to_string());
    line("commit", &it.commit);
    line("found by", &by);
    line("owner", &it.owner.to_string());
    line("node", &it.node.to_string());
    line("author", &format!("{:?}, by its own word", body.author));
    line("licence", &body.licence);
    line("size", &format!("{} in {} files", bytes(it.size), body.files.len()));
    if !body.tags.is_empty() {
        line("tags", &body.tags.join(", "));
    }
    if !body.description.is_empty() {
        line("about", &body.description);
    }
    if let Some(previous) = body.previous {
        line("replaces", &previous.to_string());
    }
    if let Some(reason) = &it.revoked {
        line("REVOKED", reason);
    }
    let rows: Vec<_> = body
        .files
        .iter()
        .map(|file| [file.path.to_string(), bytes(file.size), file.blob.to_string()])
        .collect();
    lines.push_str(&table(["FILE", "SIZE", "BLAKE3"], &rows));
    lines
}
