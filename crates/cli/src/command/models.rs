//! `commons models`: what can be asked for now.

use commons_node::api::ModelView;

use crate::control::{Explain as _, client};
use crate::output::{Output, short, table};
use crate::settings::Settings;

/// List the models that can be asked for, here and in the mesh
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(
    _args: Args,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<()> {
    let models = client(settings)?.models().await.explain("failed to list models", settings)?;
    out.value(&models, |models| text(models))?;
    Ok(())
}

fn text(models: &[ModelView]) -> String {
    if models.is_empty() {
        return "no model is in reach: start the node with `--model FILE`, or join a mesh with \
                `commons join TICKET`"
            .to_owned();
    }
    let row = |model: &ModelView| {
        let holders = match (model.is_local, model.peers.len()) {
            (true, 0) => model.engine.clone().unwrap_or_else(|| "here".to_owned()),
            (true, count) => format!("here and {count} others"),
            (false, 1) => "1 peer".to_owned(),
            (false, count) => format!("{count} peers"),
        };
        let context = model.context_len.to_string();
        [model.name.clone(), model.quantisation.clone(), context, holders, short(model.model)]
    };
    let rows: Vec<_> = models.iter().map(row).collect();
    table(["MODEL", "QUANTISATION", "CONTEXT", "HELD", "HASH"], &rows)
}
