//! Loading models, with a sign of life.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use commons_port::process::AddedModel;
use commons_port::time::Clock as _;
use commons_record::Millis;
use indicatif::{ProgressBar, ProgressStyle};

use super::compute::Computing;
use super::tell::{Event, Teller};
use crate::model_path::Named;
use crate::runtime::RealClock;

/// How often the sign of life moves.
const TICK: Duration = Duration::from_millis(100);

/// Loads all models in the order in which they were named. The first that fails ends it: its
/// owner asked for it, and a node without it would surprise.
pub(super) async fn load_all(
    models: &[Named],
    engine: &Computing,
    teller: &mut Teller<'_, '_>,
) -> anyhow::Result<()> {
    for named in models {
        let (AddedModel { facts: model, placement, .. }, load_ms) = load(named, engine).await?;
        teller.tell(&Event::Model {
            device: placement,
            name: model.name,
            model: model.model,
            quantisation: model.quantisation,
            size: model.file_size,
            load_ms,
        })?;
    }
    Ok(())
}

async fn load(named: &Named, engine: &Computing) -> anyhow::Result<(AddedModel, Millis)> {
    let clock = RealClock::new();
    let path = &named.path;
    let bar = sign_of_life(path);
    let loaded = engine.add(named).await;
    bar.finish_and_clear();
    let name = || format!("failed to serve the model {}", path.display());
    Ok((loaded.with_context(name)?, clock.now()))
}

/// A moving sign on a terminal; nothing where nobody looks.
fn sign_of_life(path: &Path) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message(format!("loading {}", path.display()));
    bar.enable_steady_tick(TICK);
    bar
}
