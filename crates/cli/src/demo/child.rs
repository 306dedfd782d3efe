//! A node of the demonstration: a process, what it told when it was ready, and how it ends.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use commons_gateway::control::Client;
use commons_node::api::JoinState;
use commons_record::PeerId;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;

use crate::runtime::Stopwatch;

/// A look at a node's state costs a fraction of this.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A node that drains and says goodbye has ended by then.
const END_MAX: Duration = Duration::from_secs(8);

/// What is shown of a log: enough for an error and what led to it.
const TAIL_LINES: usize = 20;

/// Which part a node plays.
#[derive(Debug, Clone)]
pub(super) enum Role {
    /// Holds the model and shares it.
    Holder {
        /// The model's file.
        model: PathBuf,
        /// How many threads compute, if not the default.
        threads: Option<&'static str>,
    },
    /// Joins and asks.
    Joiner,
    /// Joins when the first answer is long over.
    Latecomer,
}

impl Role {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Holder { .. } => "A",
            Self::Joiner => "B",
            Self::Latecomer => "C",
        }
    }
}

/// What a node tells when it is ready.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Ready {
    api: String,
    pub(super) peer: PeerId,
    pub(super) models: Vec<String>,
}

/// A line of a node's standard output, as far as the demonstration cares.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Ready(Ready),
    #[serde(other)]
    Other,
}

/// How long the steps of joining took.
#[derive(Debug, Clone, Copy)]
pub(super) struct JoinTimes {
    pub(super) joined: Duration,
    pub(super) model_seen: Duration,
}

/// A node as a process.
#[derive(Debug)]
pub(super) struct Child {
    name: &'static str,
    log: PathBuf,
    process: tokio::process::Child,
    /// The node ends when this is closed, also if this program is killed.
    stdin: Option<ChildStdin>,
    stdout: Option<Lines<BufReader<ChildStdout>>>,
    /// Reads on, so that the node never waits for a reader.
    drain: JoinSet<()>,
    watch: Stopwatch,
    pub(super) client: Client,
    pub(super) ready: Ready,
    pub(super) start_time: Duration,
}

impl Child {
    /// Starts the process. It is not ready yet.
    pub(super) fn spawn(folder: &Path, role: &Role) -> anyhow::Result<Self> {
        let name = role.name();
        let dir = folder.join(name);
        let log = folder.join(format!("{name}.log"));
        let program = std::env::current_exe().context("failed to find this program")?;
        let stderr =
            File::create(&log).with_context(|| format!("failed to open the log of {name}"))?;
        let mut command = Command::new(program);
        command.args(["up", "--json", "--until-stdin-ends", "--api", "127.0.0.1:0"]);
        command.arg("--mesh-name").arg("demo").arg("--data-dir").arg(&dir);
        if let Role::Holder { model, threads } = role {
            command.arg("--share").arg("--model").arg(model);
            command.args(threads.iter().flat_map(|count| ["--threads", count]));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).kill_on_drop(true);
        // A Ctrl-C at the terminal is for the demonstration; it ends the nodes in order.
        command.process_group(0);
        let watch = Stopwatch::start();
        let process = command.spawn().with_context(|| format!("failed to start node {name}"));
        let mut process = process?;
        let stdout = process.stdout.take().context("a node has no standard output")?;
        let client = Client::new(dir.join("control.sock"));
        let nobody =
            Ready { api: String::new(), peer: PeerId::from_bytes([0; 32]), models: vec![] };
        Ok(Self {
            name,
            log,
            stdin: process.stdin.take(),
            process,
            stdout: Some(BufReader::new(stdout).lines()),
            drain: JoinSet::new(),
            watch,
            client,
            ready: nobody,
            start_time: Duration::ZERO,
        })
    }

    /// Waits for the line in which the node says that it is ready.
    pub(super) async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let name = self.name;
        let mut lines = self.stdout.take().context("a node was waited for twice")?;
        loop {
            let line = lines.next_line().await.context("failed to read what a node says")?;
            let Some(line) = line else {
                let status = self.process.wait().await.context("failed to wait for a node")?;
                bail!("node {name} ended before it was ready ({status}); its log is above");
            };
            let line: Line = serde_json::from_str(&line)
                .with_context(|| format!("node {name} said what is no event: {line}"))?;
            if let Line::Ready(ready) = line {
                self.ready = ready;
                break;
            }
        }
        self.start_time = self.watch.elapsed();
        self.drain.spawn(async move { while let Ok(Some(_told)) = lines.next_line().await {} });
        Ok(())
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Where the API answers.
    pub(super) fn api(&self) -> anyhow::Result<SocketAddr> {
        let addr = self.ready.api.strip_prefix("http://").unwrap_or_default();
        addr.parse().with_context(|| format!("{} is no address of an API", self.ready.api))
    }

    /// Joins a mesh, and waits until its model can be asked for.
    pub(super) async fn join(&self, ticket: &str, model: &str) -> anyhow::Result<JoinTimes> {
        let (name, watch) = (self.name, Stopwatch::start());
        let join = self.client.join(ticket.to_owned()).await;
        let mut state = join.with_context(|| format!("{name} could not join"))?.state;
        while state != JoinState::Joined {
            if let JoinState::Refused { reason } = state {
                bail!("{name} was not let in: {reason}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
            let status = self.client.status().await.context("a node does not answer")?;
            state = status.join.context("a node has forgotten that it was to join")?.state;
        }
        let joined = watch.elapsed();
        loop {
            let models = self.client.models().await.context("a node does not answer")?;
            if models.iter().any(|it| it.name == model) {
                return Ok(JoinTimes { joined, model_seen: watch.elapsed() });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The end of the node's log.
    pub(super) fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_else(|error| error.to_string());
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default();
        let tail = if tail.is_empty() { "(empty)".to_owned() } else { tail.join("\n  ") };
        format!("--- the end of node {}'s log:\n  {tail}", self.name)
    }

    /// Ends the node in order, or by force if it takes too long.
    pub(super) async fn end(mut self) {
        drop(self.stdin.take());
        if tokio::time::timeout(END_MAX, self.process.wait()).await.is_err() {
            eprintln!("node {} did not end by itself and is killed", self.name);
            if let Err(error) = self.process.kill().await {
                eprintln!("node {} could not be killed: {error}", self.name);
            }
        }
    }
}
