//! Long work on files, as people see it: a bar in a terminal. Programs read the last word alone.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::bail;
use commons_gateway::control::BlobEvents;
use commons_node::api::blobs::{BlobEvent, ProgressView};
use indicatif::{ProgressBar, ProgressStyle};

use crate::control::Explain as _;
use crate::output::Output;
use crate::settings::Settings;

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(100);

/// Shows events until the last, which is returned. Ctrl-C drops it, and that ends the work.
pub(crate) async fn follow(
    mut events: BlobEvents,
    settings: &Settings,
    out: &Output<'_>,
) -> anyhow::Result<BlobEvent> {
    let bar = bar(out.is_json());
    while let Some(event) = events.next().await.explain("the work broke off", settings)? {
        match &event {
            BlobEvent::Added(_) | BlobEvent::Pulled(_) => {
                bar.finish_and_clear();
                return Ok(event);
            }
            BlobEvent::Failed(refusal) => {
                bar.finish_and_clear();
                bail!("{refusal}");
            }
            BlobEvent::Progress(at) => show(&bar, at),
            BlobEvent::Stalled { file, reason } => {
                bar.println(format!("{file}: {reason}; waiting"));
            }
            BlobEvent::Banned { peer, reason } => {
                bar.println(format!("{peer} is not asked any more: {reason}"));
            }
        }
    }
    bail!("the node ended before the work did; what came is kept, and the same command goes on")
}

fn bar(is_json: bool) -> ProgressBar {
    if is_json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    let template = "{msg} [{bar:30}] {bytes} of {total_bytes}, {prefix}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TICK);
    bar
}

fn show(bar: &ProgressBar, at: &ProgressView) {
    bar.set_length(at.size);
    bar.set_message(at.file.clone());
    let rate = crate::output::bytes(at.bytes_per_s);
    let peers = if at.peers == 1 { "peer" } else { "peers" };
    bar.set_prefix(format!("{rate}/s from {} {peers}", at.peers));
    bar.set_position(at.bytes);
}
