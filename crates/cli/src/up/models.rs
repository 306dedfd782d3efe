//! Loading models, with a sign of life.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use commons_engine::LocalEngine;
use commons_port::engine::LoadedModel;
use commons_port::time::Clock as _;
use commons_record::Millis;
use indicatif::{ProgressBar, ProgressStyle};

use super::tell::{Event, Teller};
use crate::runtime::RealClock;

/// How often the sign of life moves.
const TICK: Duration = Duration::from_millis(100);

/// Loads all models in the order in which they were named. The first that fails ends it: its
/// owner asked for it, and a node without it would surprise.
pub(super) async fn load_all(
    paths: &[PathBuf],
    engine: &Arc<LocalEngine>,
    teller: &mut Teller<'_, '_>,
) -> anyhow::Result<()> {
    for path in paths {
        let (model, load_ms) = load(path, engine).await?;
        let placement = engine.placement(&model.model);
        teller.tell(&Event::Model {
            device: placement.map_or_else(|| "cpu".to_owned(), |it| it.to_string()),
            name: model.name,
            model: model.model,
            quantisation: model.quantisation,
            size: model.file_size,
            load_ms,
        })?;
    }
    Ok(())
}

async fn load(path: &Path, engine: &Arc<LocalEngine>) -> anyhow::Result<(LoadedModel, Millis)> {
    let clock = RealClock::new();
    let bar = sign_of_life(path);
    let (engine, owned) = (Arc::clone(engine), path.to_owned());
    let loading = tokio::task::spawn_blocking(move || engine.add(&owned));
    let loaded = loading.await.context("the thread that loaded the model failed")?;
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
