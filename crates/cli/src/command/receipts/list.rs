//! `commons receipts list`: the newest receipts that this node holds.

use commons_node::api::{ReceiptView, Role};

use crate::control::{Explain as _, client};
use crate::output::{Output, moment, short, table};
use crate::settings::Settings;

/// List the newest receipts that this node holds
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How many to list
    #[arg(long, value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

pub(super) async fn run(
    args: Args,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<()> {
    let receipts = client(settings)?.receipts(usize::from(args.limit)).await;
    let receipts = receipts.explain("failed to list receipts", settings)?;
    out.value(&receipts, |receipts| text(receipts))?;
    Ok(())
}

fn text(receipts: &[ReceiptView]) -> String {
    if receipts.is_empty() {
        return "no receipt yet: every answer makes one".to_owned();
    }
    let row = |receipt: &ReceiptView| {
        let (role, other) = match receipt.role {
            Role::Requester => ("asked", short(receipt.counterparty)),
            Role::Provider => ("served", short(receipt.counterparty)),
            Role::Both => ("local", "-".to_owned()),
        };
        let tokens =
            format!("{} + {}", receipt.usage.prompt_tokens, receipt.usage.completion_tokens);
        let standing = if receipt.acknowledged { "acknowledged" } else { "unacknowledged" };
        [
            receipt.receipt.to_string(),
            moment(receipt.stored_unix_ms),
            role.to_owned(),
            other,
            tokens,
            receipt.amount.to_string(),
            standing.to_owned(),
        ]
    };
    let rows: Vec<_> = receipts.iter().map(row).collect();
    table(["RECEIPT", "STORED (UTC)", "ROLE", "WITH", "TOKENS", "CREDITS", "STANDING"], &rows)
}
