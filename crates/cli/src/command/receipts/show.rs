//! `commons receipts show`: one receipt of this node, read and checked here.

use std::process::ExitCode;

use commons_node::api::Opening;

use super::verify::{Report, text};
use crate::control::{Explain as _, client};
use crate::output::Output;
use crate::settings::Settings;

/// Show one receipt that this node holds, and check it
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The receipt, its order or its request
    id: String,
}

pub(super) async fn run(
    args: Args,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<ExitCode> {
    // With the opening: the node's own records must agree with the tokens that it kept.
    let bytes = client(settings)?.evidence(&args.id, Opening::Include).await;
    let report = Report::of(&bytes.explain("failed to show the receipt", settings)?);
    out.value(&report, text)?;
    Ok(report.exit_code())
}
