//! What `commons demo` does: three real nodes on this machine, from nothing to verified receipts.
//!
//! ```text
//! A: holds the model, shares it, invites       B: joins, asks, A answers
//!                                              C: starts after that, joins, asks, A answers
//! both copies of both receipts -> `commons receipts verify` on files, without any node
//! ```
//!
//! Every node is a process of its own with a fresh data folder, spoken to as any program would:
//! over HTTP and its control socket. Whatever happens, the processes end and the folders go.
//!
//! * `child`: a node as a process; `question`: asking, with times; `proof`: both copies of a
//!   receipt, verified; `report`: what is told at the end.

mod child;
mod proof;
mod question;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use commons_engine::noise::write_noise_model;

use crate::output::Output;
use crate::runtime::Stopwatch;
use child::{Child, Role};
use report::{NodeRow, Report};

/// Everybody who runs the demonstration without a model gets the same one.
const NOISE_SEED: u64 = 1;

/// What is shown.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// The model; none writes one of random weights.
    pub(crate) model: Option<PathBuf>,
    /// What it continues.
    pub(crate) prompt: String,
    /// The longest answer.
    pub(crate) max_tokens: u32,
    /// When it is given up.
    pub(crate) deadline: Duration,
}

/// Tells the story to people; programs get the report alone.
struct Story<'a, 'b> {
    out: &'a mut Output<'b>,
}

impl Story<'_, '_> {
    fn say(&mut self, line: impl std::fmt::Display) -> anyhow::Result<()> {
        if !self.out.is_json() {
            self.out.line(line)?;
        }
        Ok(())
    }

    fn piece(&mut self, text: &str) -> anyhow::Result<()> {
        if !self.out.is_json() {
            self.out.piece(text)?;
        }
        Ok(())
    }
}

/// The three nodes, as far as they were started.
#[derive(Debug, Default)]
struct Cast {
    children: Vec<Child>,
}

/// Shows the whole path, within the deadline.
pub(crate) async fn run(config: &Config, out: &mut Output<'_>) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("commons-demo-").tempdir();
    let folder = folder.context("failed to make a folder for the demonstration")?;
    let total = Stopwatch::start();
    let mut cast = Cast::default();
    let mut story = Story { out };
    let result = tokio::select! {
        result = play(config, folder.path(), &mut cast, &mut story) => result,
        () = tokio::time::sleep(config.deadline) => Err(anyhow::anyhow!(
            "the demonstration did not end within {} s", config.deadline.as_secs()
        )),
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    if result.is_err() {
        for child in &cast.children {
            eprintln!("{}", child.log_tail());
        }
    }
    cast.end().await;
    let mut report = result?;
    report.total_ms = millis(total.elapsed());
    // The folder goes before the last word: nothing is left when the program ends.
    folder.close().context("failed to remove the demonstration's folder")?;
    story.out.value(&report, report::text)?;
    Ok(())
}

async fn play(
    config: &Config,
    folder: &std::path::Path,
    cast: &mut Cast,
    story: &mut Story<'_, '_>,
) -> anyhow::Result<Report> {
    let model = match &config.model {
        Some(model) => model.clone(),
        None => noise_model(folder, story)?,
    };
    let mut report = Report { is_noise: config.model.is_none(), ..Report::default() };

    story.say("A starts, loads the model and shares it")?;
    // The small model gains nothing from a second thread, and loses much on a busy machine.
    let threads = report.is_noise.then_some("1");
    let a = cast.start(folder, Role::Holder { model, threads }).await?;
    let provider = cast.child(a)?;
    let model = provider.ready.models.first().context("A is ready and holds no model")?.clone();
    let ticket = provider.client.invite(2).await.context("A made no ticket")?.ticket;
    report.model.clone_from(&model);

    for role in [Role::Joiner, Role::Latecomer] {
        story.say(format!("\n{} starts without a model and joins A's mesh", role.name()))?;
        let index = cast.start(folder, role).await?;
        let (asker, provider) = (cast.child(index)?, cast.child(a)?);
        let join = asker.join(&ticket, &model).await?;
        story.say(format!("{} asks for {model}: {:?}", asker.name(), config.prompt))?;
        let answer = question::ask(asker, &model, config, story).await?;
        story.say(format!("[{} answered]", cast.name_of(&answer.peer)))?;
        if answer.peer != provider.ready.peer {
            bail!("{} answered, and only A holds the model", cast.name_of(&answer.peer));
        }
        let proof = proof::check(folder, provider, asker, &answer).await?;
        story.say(format!(
            "receipt {}: both copies verified, and they are the same",
            proof.receipt
        ))?;
        report.nodes.push(NodeRow::asker(asker, join, &answer, &proof));
    }
    report.nodes.insert(0, NodeRow::provider(cast.child(a)?));
    Ok(report)
}

fn noise_model(folder: &std::path::Path, story: &mut Story<'_, '_>) -> anyhow::Result<PathBuf> {
    story.say(
        "no `--model` was given: this writes a small model of random weights, so its text is NOISE;\n\
         the nodes, the mesh and the receipts are real",
    )?;
    let path = folder.join("noise.gguf");
    write_noise_model(&path, NOISE_SEED)?;
    Ok(path)
}

impl Cast {
    /// Starts a node and waits until it is ready; its place in the cast.
    async fn start(&mut self, folder: &std::path::Path, role: Role) -> anyhow::Result<usize> {
        let starting = Child::spawn(folder, &role)?;
        // In the cast before it is ready: if it fails, its log is shown.
        self.children.push(starting);
        let index = self.children.len() - 1;
        if let Some(child) = self.children.get_mut(index) {
            child.wait_until_ready().await?;
        }
        Ok(index)
    }

    fn child(&self, index: usize) -> anyhow::Result<&Child> {
        self.children.get(index).context("a node is missing from the demonstration")
    }

    /// Which of the three a peer is.
    fn name_of(&self, peer: &commons_record::PeerId) -> String {
        let child = self.children.iter().find(|child| child.ready.peer == *peer);
        child.map_or_else(|| peer.to_string(), |child| child.name().to_owned())
    }

    /// Ends all of them, the provider last.
    async fn end(&mut self) {
        while let Some(child) = self.children.pop() {
            child.end().await;
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
