//! `commons adapters`: what the node has, taking one in, forgetting one.

use std::path::PathBuf;

use anyhow::Context as _;
use commons_node::api::{AdapterToAdd, AdapterView};

use crate::control::{Explain as _, client};
use crate::output::{Output, short, table};
use crate::settings::Settings;

/// Add, list and remove adapters (`LoRA`, `rsLoRA`, `DoRA`) of the models that the node serves
///
/// Ask a model with an adapter as `MODEL+ADAPTER`, such as `commons chat --model llama+poet`. Any
/// number of them can be asked at once; a thousand that nobody asks for cost disk alone.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Take in an adapter: a PEFT folder, its safetensors file, or a GGUF file
    ///
    /// Its files are copied into the data folder, and it is there again after a restart.
    Add {
        /// The file or folder
        path: PathBuf,
        /// The model that it changes, by name or hash [default: the one loaded model that it fits]
        #[arg(long)]
        model: Option<String>,
        /// What to call it [default: the name of the file or folder]
        #[arg(long)]
        name: Option<String>,
        /// Round its numbers to `Q8_0`: half the memory of 16 bits, and slightly other answers
        #[arg(long)]
        round: bool,
    },
    /// List the adapters of this node
    Ls,
    /// Forget an adapter and remove its copy; what is being computed with it is finished
    Rm {
        /// `MODEL+ADAPTER`, or the adapter's name or hash alone where that is clear
        id: String,
    },
}

pub(crate) async fn run(
    args: Args,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<()> {
    let client = client(settings)?;
    match args.command {
        Command::Add { path, model, name, round } => {
            // The node runs in another folder.
            let path = std::path::absolute(&path).context("failed to find the adapter")?;
            let name = name.or_else(|| Some(path.file_stem()?.to_str()?.to_owned()));
            let add = AdapterToAdd { path, model, name, round };
            let added = client.add_adapter(&add).await;
            let added = added.explain("failed to add the adapter", settings)?;
            out.value(&added, |it| format!("{} is here ({})", it.id, about(it)))?;
        }
        Command::Ls => {
            let all = client.adapters().await.explain("failed to list adapters", settings)?;
            out.value(&all, |all| text(all))?;
        }
        Command::Rm { id } => {
            let removed = client.remove_adapter(&id).await;
            let removed = removed.explain("failed to remove the adapter", settings)?;
            out.value(&removed, |it| format!("{} is gone", it.id))?;
        }
    }
    Ok(())
}

fn about(it: &AdapterView) -> String {
    format!("{} of rank {}, {}, {}", it.method, it.rank, it.format, short(it.adapter))
}

fn text(all: &[AdapterView]) -> String {
    if all.is_empty() {
        return "this node has no adapter: take one in with `commons adapters add PATH`".to_owned();
    }
    let row = |it: &AdapterView| {
        [
            it.id.clone(),
            it.method.clone(),
            it.rank.to_string(),
            it.format.clone(),
            short(it.adapter),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    table(["ASK FOR", "METHOD", "RANK", "STORED AS", "HASH"], &rows)
}
