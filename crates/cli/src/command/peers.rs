//! `commons peers`: the members of the mesh that this node knows.

use commons_node::api::PeerView;

use crate::control::{Explain as _, client};
use crate::output::{Output, span, table};
use crate::settings::Settings;

/// List the members of the mesh that this node knows
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(
    _args: Args,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<()> {
    let peers = client(settings)?.peers().await.explain("failed to list peers", settings)?;
    out.value(&peers, |peers| text(peers))?;
    Ok(())
}

fn text(peers: &[PeerView]) -> String {
    if peers.is_empty() {
        return "no other member is known: invite one with `commons invite`, or join a mesh with \
                `commons join TICKET`"
            .to_owned();
    }
    let row = |peer: &PeerView| {
        let models = if peer.models.is_empty() { "-".to_owned() } else { peer.models.join(", ") };
        let first_token = peer.first_token_ms.map_or_else(|| "-".to_owned(), span);
        let speed = peer.micro_tokens_per_s.map_or_else(
            || "-".to_owned(),
            |micro| format!("{}.{} token/s", micro / 1_000_000, micro % 1_000_000 / 100_000),
        );
        let link = if peer.is_connected { "connected" } else { "away" };
        let lease = span(peer.lease_left_ms);
        [peer.peer.to_string(), link.to_owned(), models, first_token, speed, lease]
    };
    let rows: Vec<_> = peers.iter().map(row).collect();
    table(["PEER", "LINK", "MODELS", "FIRST TOKEN", "SPEED", "LEASE"], &rows)
}
