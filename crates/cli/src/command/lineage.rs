//! `commons lineage`: what a release was made from.

use std::fmt::Write as _;

use commons_node::api::catalogue::{LineageStep, LineageView};

use crate::control::{Explain as _, client};
use crate::output::{Output, short};
use crate::settings::Settings;

/// Show what a release was made from, and who says so
///
/// Each line is the word of the one who signed the release above it. What is not published in the
/// mesh is shown by its hash.
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
    let lineage = client(settings)?.lineage(args.what).await;
    let lineage = lineage.explain("failed to follow the lineage", settings)?;
    out.value(&lineage, text)?;
    Ok(())
}

fn text(lineage: &LineageView) -> String {
    let root = &lineage.root;
    let (name, version, licence) = (&root.body.name, &root.body.version, &root.body.licence);
    let mut lines = format!("{name}@{version}  {licence}  signed by {}\n", short(root.owner));
    for step in &lineage.steps {
        // Writing to a string does not fail.
        let _ = writeln!(lines, "{}{}", "  ".repeat(step.depth), told(step));
    }
    if lineage.steps.is_empty() {
        lines.push_str("  its author names nothing that it was made from\n");
    }
    if lineage.is_cut {
        lines.push_str("  ... and more; the walk ends here\n");
    }
    lines
}

fn told(step: &LineageStep) -> String {
    let relation = step.derivation.relation.as_str().replace('-', " ");
    let by = short(step.by);
    if let Some(parent) = &step.parent {
        let (name, version, owner) = (&parent.name, &parent.version, short(parent.owner));
        let again = if step.is_again { " (see above)" } else { "" };
        let licence = &parent.licence;
        return format!(
            "{relation} {name}@{version}  {licence}  signed by {owner}  (says {by}){again}"
        );
    }
    let derivation = &step.derivation;
    let hash = match (derivation.release, derivation.blob) {
        (Some(release), _) => format!("release {release}"),
        (None, Some(blob)) => format!("file {blob}"),
        (None, None) => "nothing".to_owned(),
    };
    let label = derivation.label.as_ref().map(|it| format!(", called {it:?}")).unwrap_or_default();
    format!("{relation} {hash}{label}: not known here  (says {by})")
}
