//! `commons invite`: a ticket with which others join this node's mesh.

use commons_record::ticket::Ticket;

use crate::control::{Explain as _, client};
use crate::output::Output;
use crate::settings::Settings;

/// Print a ticket with which others can join this node's mesh
///
/// Whoever holds the ticket can join, so give it only to whom you mean.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many owners may join with it
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    uses: u32,
}

pub(crate) async fn run(
    args: Args,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<()> {
    let client = client(settings)?;
    let invite = client.invite(args.uses).await.explain("failed to make a ticket", settings)?;
    if invite.ticket.parse().is_ok_and(|ticket: Ticket| ticket.addrs.iter().all(|it| is_here(it))) {
        eprintln!(
            "note: the node listens on this machine alone, and so the ticket works here alone; for \
             others, start it with `--listen`, such as `--listen /ip4/0.0.0.0/udp/4001/quic-v1`"
        );
    }
    // The ticket alone on standard output, so that it can be piped into `commons join -`.
    out.value(&invite, |invite| invite.ticket.clone())?;
    Ok(())
}

/// Whether an address leads nowhere but to this machine.
fn is_here(addr: &str) -> bool {
    addr.starts_with("/ip4/127.") || addr.starts_with("/ip6/::1/")
}
