//! `commons stop`: end the node that runs on a data folder.

use std::time::Duration;

use anyhow::bail;
use serde::Serialize;

use crate::control::{Explain as _, client};
use crate::lock;
use crate::output::Output;
use crate::settings::Settings;

/// Stop the node that runs on the data folder
///
/// Answers in work may end for a few seconds; then the node is gone and shares nothing any more.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long to wait until it is gone, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u64,
}

#[derive(Serialize)]
struct Stopped {
    stopped: bool,
}

pub(crate) async fn run(
    args: Args,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<()> {
    /// Short beside what a person notices.
    const PAUSE: Duration = Duration::from_millis(50);
    let client = client(settings)?;
    client.shutdown().await.explain("failed to stop the node", settings)?;
    let gone = async {
        // A node that ends closes its socket first and its journal last; the lock tells.
        while lock::is_held(&settings.data_dir)? {
            tokio::time::sleep(PAUSE).await;
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(Duration::from_secs(args.wait), gone).await {
        Ok(result) => result?,
        Err(_still_there) => bail!("the node still runs after {} s; see its log", args.wait),
    }
    out.value(&Stopped { stopped: true }, |_| "the node has stopped".to_owned())?;
    Ok(())
}
