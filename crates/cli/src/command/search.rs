//! `commons search`: releases that hold all words.

use commons_node::api::catalogue::{ReleaseView, Search};

use crate::control::{Explain as _, client};
use crate::output::{Output, bytes, short, table};
use crate::settings::Settings;

/// Search what is published in the mesh
///
/// All words have to be in a release's name, version, tags or description.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Words; none lists everything
    words: Vec<String>,
    /// How many releases at most
    #[arg(long, default_value_t = 50)]
    limit: usize,
}

pub(crate) async fn run(
    args: Args,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<()> {
    let search = Search { words: args.words.join(" "), kind: None, limit: Some(args.limit) };
    let found = client(settings)?.search(&search).await.explain("failed to search", settings)?;
    out.value(&found, |found| text(found))?;
    Ok(())
}

fn text(found: &[ReleaseView]) -> String {
    if found.is_empty() {
        return "nothing that is published here holds these words".to_owned();
    }
    let row = |it: &ReleaseView| {
        [
            it.body.name.to_string(),
            it.body.version.to_string(),
            it.body.kind.to_string(),
            it.body.licence.clone(),
            bytes(it.size),
            short(it.owner),
            if it.is_named { "yes" } else { "no" }.to_owned(),
            it.release.to_string(),
        ]
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    table(["NAME", "VERSION", "KIND", "LICENCE", "SIZE", "OWNER", "NAMED", "RELEASE"], &rows)
}
