//! `commons join`: become a member of somebody's mesh.

use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use commons_gateway::control::Client;
use commons_node::api::{JoinState, JoinView};
use commons_record::ticket::Ticket;
use zeroize::Zeroizing;

use crate::control::{Explain as _, client};
use crate::output::Output;
use crate::settings::Settings;

/// Join the mesh that a ticket invites to
///
/// The running node goes on trying when this command stops waiting.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The line that `commons invite` printed, or `-` to read it from standard input, where other
    /// users of this machine cannot see it
    ticket: String,

    /// How long to wait for the result, in seconds; 0 does not wait
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u64,
}

impl std::fmt::Debug for Args {
    /// The ticket is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Args").field("wait", &self.wait).finish_non_exhaustive()
    }
}

pub(crate) async fn run(
    args: Args,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<()> {
    let ticket = read_ticket(args.ticket)?;
    let client = client(settings)?;
    let mut view = client.join((*ticket).clone()).await.explain("failed to join", settings)?;
    if args.wait > 0 && is_trying(&view) {
        let waiting = wait(&client, Duration::from_secs(args.wait), view);
        view = waiting.await.context("failed to see how the join goes")?;
    }
    if let JoinState::Refused { reason } = &view.state {
        bail!("the mesh {:?} did not let this node in: {reason}", view.mesh_name);
    }
    out.value(&view, text)?;
    Ok(())
}

/// Takes the ticket where it is, and refuses what is none before a node is asked.
pub(crate) fn read_ticket(given: String) -> anyhow::Result<Zeroizing<String>> {
    /// Longer than any ticket: what is more is something else.
    const SIZE_MAX: u64 = 64 * 1024;
    let mut ticket = Zeroizing::new(given);
    if *ticket == "-" {
        ticket.clear();
        let mut input = std::io::stdin().lock().take(SIZE_MAX);
        input.read_to_string(&mut ticket).context("failed to read the ticket")?;
    }
    ticket.trim().parse::<Ticket>().context("this is no ticket that can be used")?;
    Ok(ticket)
}

fn is_trying(view: &JoinView) -> bool {
    matches!(view.state, JoinState::Trying { .. })
}

/// Looks until the join has a result or the time is over; then the last state stands.
async fn wait(client: &Client, limit: Duration, first: JoinView) -> anyhow::Result<JoinView> {
    /// A person sees no difference, and a node does not notice the questions.
    const PAUSE: Duration = Duration::from_millis(50);
    let mut view = first;
    let looking = async {
        while is_trying(&view) {
            tokio::time::sleep(PAUSE).await;
            let status = client.status().await?;
            view = status.join.context("the node has forgotten that it was to join")?;
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(limit, looking).await {
        Ok(result) => result?,
        Err(_still_trying) => {}
    }
    Ok(view)
}

fn text(view: &JoinView) -> String {
    let name = &view.mesh_name;
    match &view.state {
        JoinState::Joined => format!("joined the mesh {name:?}"),
        JoinState::Trying { trouble: None } => {
            format!("still trying to join the mesh {name:?}; the node goes on")
        }
        JoinState::Trying { trouble: Some(trouble) } => {
            format!("still trying to join the mesh {name:?} ({trouble}); the node goes on")
        }
        JoinState::Refused { reason } => format!("refused by the mesh {name:?}: {reason}"),
    }
}
