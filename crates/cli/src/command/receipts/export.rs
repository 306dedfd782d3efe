//! `commons receipts export`: one receipt as a file for a stranger.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use commons_node::api::Opening;
use serde::Serialize;

use crate::control::{Explain as _, client};
use crate::output::{Output, short};
use crate::settings::{Settings, quote};

/// Write one receipt and its evidence to a file that anybody can verify
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The receipt, its order or its request
    id: String,

    /// The file to write; it must not exist yet [default: receipt-ID.evidence]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Include what opens the salted hashes: whoever has the file then learns the tokens of the
    /// prompt and the answer
    #[arg(long)]
    with_text: bool,
}

#[derive(Serialize)]
struct Exported {
    file: PathBuf,
    size: usize,
    with_text: bool,
}

pub(super) async fn run(
    args: Args,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<()> {
    let opening = if args.with_text { Opening::Include } else { Opening::Omit };
    let bytes = client(settings)?.evidence(&args.id, opening).await;
    let bytes = bytes.explain("failed to export the receipt", settings)?;
    let name = || PathBuf::from(format!("receipt-{}.evidence", file_stem(&args.id)));
    let file = args.output.unwrap_or_else(name);
    let write = || -> std::io::Result<()> {
        // Evidence is not written over: the file may be the only copy of another.
        let mut target = OpenOptions::new().write(true).create_new(true).open(&file)?;
        target.write_all(&bytes)?;
        target.sync_all()
    };
    write().with_context(|| format!("failed to write {}", file.display()))?;
    let exported = Exported { file, size: bytes.len(), with_text: args.with_text };
    out.value(&exported, |exported| {
        let file = quote(&exported.file);
        format!("wrote {file}; anybody can check it with `commons receipts verify {file}`")
    })?;
    Ok(())
}

/// The id as part of a file name, whatever was typed.
fn file_stem(id: &str) -> String {
    let is_plain = |it: &char| it.is_ascii_alphanumeric() || *it == '-';
    short(id.chars().filter(is_plain).collect::<String>())
}
