//! `commons why`: why a request went where it went, or was refused.

use std::fmt::Write as _;

use commons_node::api::WhyView;

use crate::control::{Explain as _, client};
use crate::output::{Output, short};
use crate::settings::Settings;

/// Tell why a request went where it went, or was refused
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The request, its order or its receipt: the id in `x-commons-request`, or what
    /// `commons receipts list` shows
    id: String,
}

pub(crate) async fn run(
    args: Args,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<()> {
    let why = client(settings)?.why(&args.id).await.explain("failed to tell why", settings)?;
    out.value(&why, text)?;
    Ok(())
}

fn text(why: &WhyView) -> String {
    let mut text = format!("request {}\n{}\n", why.request, why.summary);
    for decision in &why.decisions {
        let replay = if decision.is_reproduced {
            "a replay of its recorded inputs gives the same"
        } else {
            "A REPLAY OF ITS RECORDED INPUTS GIVES SOMETHING ELSE"
        };
        let (id, attempt, outcome) =
            (short(decision.decision), decision.attempt, &decision.outcome);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\nattempt {attempt}: {outcome}\n  decision {id}: {replay}");
        for candidate in &decision.candidates {
            let _ = writeln!(text, "  - {candidate}");
        }
    }
    if let Some(receipt) = why.receipt {
        let _ = writeln!(text, "\nreceipt {receipt}: `commons receipts show {receipt}`");
    }
    text
}
