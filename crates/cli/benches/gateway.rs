//! What the gateway and the mesh add to the engine: one model, one run, whole processes.
//!
//! Three paths to the same greedy answer are measured in turn, round by round, so that whatever
//! else the machine does falls on all of them:
//!
//! * the engine alone, in this process;
//! * node A, which holds the model, over HTTP;
//! * node B, which does not, over HTTP and the mesh.
//!
//! Prints a Markdown table of medians. `cargo xtask bench gateway` writes it to `docs/bench`.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Parser as _;
use commons_engine::{LocalEngine, WorkerConfig};
use commons_port::engine::{Caller, Engine as _, EngineEvent, EngineRequest, Priority};
use commons_record::key::SecretKey;
use commons_record::order::{PromptInput, Sampling};
use serde_json::Value;

/// The text that all paths continue.
const PROMPT: &str = "Once upon a time";

/// A node that takes longer to come up or to join is broken.
const START_MAX: Duration = Duration::from_mins(1);

#[derive(clap::Parser)]
struct Args {
    /// GGUF file to serve [default: a small model of random weights, written for this]
    #[arg(long)]
    model: Option<PathBuf>,

    /// Rounds; the table shows medians
    #[arg(long, default_value_t = 15)]
    rounds: usize,

    /// Tokens of each answer
    #[arg(long, default_value_t = 200)]
    tokens: u32,

    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// One answer, timed.
#[derive(Debug, Clone, Copy)]
struct Timed {
    first_token: Duration,
    tokens_per_s: f64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let scratch = tempfile::tempdir()?;
    let model = match &args.model {
        Some(path) => path.clone(),
        None => {
            let path = scratch.path().join("noise.gguf");
            commons_engine::noise::write_noise_model(&path, 1)?;
            path
        }
    };
    let engine = LocalEngine::new(WorkerConfig::default());
    let loaded = engine.add(&model)?;
    let holder = Node::start(&scratch.path().join("a"), Some(&model), None)?;
    let ticket = holder.invite()?;
    let joiner = Node::start(&scratch.path().join("b"), None, Some(&ticket))?;
    joiner.wait_for_model(&loaded.name)?;

    let mut runs: [Vec<Timed>; 3] = Default::default();
    // One unmeasured round warms caches and connections.
    for round in 0..=args.rounds {
        let timed = [
            alone(&engine, &args)?,
            holder.ask(&loaded.name, args.tokens)?,
            joiner.ask(&loaded.name, args.tokens)?,
        ];
        if round > 0 {
            for (run, timed) in runs.iter_mut().zip(timed) {
                run.push(timed);
            }
        }
    }
    let table = table(&runs);
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "Model {} ({}, {} parameters), {} tokens, median of {} rounds.\n\n{table}",
        loaded.name, loaded.quantisation, loaded.parameter_count, args.tokens, args.rounds
    )?;
    Ok(())
}

fn table(runs: &[Vec<Timed>; 3]) -> String {
    let names = ["engine alone", "gateway, own model", "gateway and mesh, peer's model"];
    let mut table =
        "| Path | First token (ms) | Added (ms) | Tokens/s | Of the engine's |\n|---|---|---|---|---|\n"
            .to_owned();
    let base = median(&runs[0]);
    for (name, run) in names.iter().zip(runs) {
        let timed = median(run);
        let (first, base_first) = (millis(timed.first_token), millis(base.first_token));
        let _ = writeln!(
            table,
            "| {name} | {first:.2} | {:.2} | {:.0} | {:.1} % |",
            first - base_first,
            timed.tokens_per_s,
            100.0 * timed.tokens_per_s / base.tokens_per_s,
        );
    }
    table
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn median(run: &[Timed]) -> Timed {
    let mut firsts: Vec<_> = run.iter().map(|it| it.first_token).collect();
    let mut speeds: Vec<_> = run.iter().map(|it| it.tokens_per_s).collect();
    firsts.sort_unstable();
    speeds.sort_unstable_by(f64::total_cmp);
    Timed { first_token: firsts[run.len() / 2], tokens_per_s: speeds[run.len() / 2] }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark is a shell: it reads the clock")]
fn now() -> Instant {
    Instant::now()
}

/// The engine without anything around it.
fn alone(engine: &LocalEngine, args: &Args) -> anyhow::Result<Timed> {
    let model = engine.models().first().context("no model is loaded")?.model;
    let asked = now();
    let mut sequence = engine.start(EngineRequest {
        model,
        adapter: None,
        caller: Caller {
            key: SecretKey::from_seed(&[0; 32]).public(),
            priority: Priority::Owner,
            shares_prefixes: false,
        },
        input: PromptInput::Text(PROMPT.to_owned()),
        stop: Vec::new(),
        constraint: None,
        tools: None,
        sampling: Sampling::greedy(),
        seed: Some([0; 32]),
        prompt_tokens_max: 512,
        completion_tokens_max: args.tokens,
        top_logprobs: 0,
    })?;
    let mut clock = Stopwatch::new(asked);
    futures::executor::block_on(async {
        while let Some(event) = sequence.next().await {
            match event {
                EngineEvent::Token(_) => clock.token(),
                EngineEvent::Failed(refusal) => bail!("the engine failed: {refusal}"),
                EngineEvent::Prefilled { .. } | EngineEvent::Finished { .. } => {}
            }
        }
        clock.timed()
    })
}

/// The moments of an answer.
struct Stopwatch {
    asked: Instant,
    first: Option<Instant>,
    last: Instant,
    count: u32,
}

impl Stopwatch {
    fn new(asked: Instant) -> Self {
        Self { asked, first: None, last: asked, count: 0 }
    }

    fn token(&mut self) {
        self.last = now();
        self.first.get_or_insert(self.last);
        self.count += 1;
    }

    fn timed(&self) -> anyhow::Result<Timed> {
        let first = self.first.context("no token came")?;
        let took = (self.last - first).as_secs_f64();
        if self.count < 2 {
            bail!("{} token came; a speed needs two", self.count);
        }
        let tokens_per_s = f64::from(self.count - 1) / took;
        Ok(Timed { first_token: first - self.asked, tokens_per_s })
    }
}

/// A node as a process; dropping it ends it.
struct Node {
    process: Child,
    api: String,
    data_dir: PathBuf,
}

impl Drop for Node {
    fn drop(&mut self) {
        // The run is over or has failed: either way the child must not outlive it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Node {
    fn start(data_dir: &Path, model: Option<&Path>, ticket: Option<&str>) -> anyhow::Result<Self> {
        let mut command = commons(data_dir);
        command.args(["--json", "up", "--api", "127.0.0.1:0"]);
        if let Some(model) = model {
            command.arg("--share").arg("--model").arg(model);
        }
        if let Some(ticket) = ticket {
            command.args(["--join", ticket]);
        }
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = process.stdout.take().context("the node has no output")?;
        for line in BufReader::new(stdout).lines() {
            let event: Value = serde_json::from_str(&line?)?;
            if event["event"] == "ready" {
                let api = event["api"].as_str().context("no address")?;
                let api = api.trim_start_matches("http://").to_owned();
                return Ok(Self { process, api, data_dir: data_dir.to_owned() });
            }
        }
        bail!("the node ended before it was ready")
    }

    fn invite(&self) -> anyhow::Result<String> {
        let output = commons(&self.data_dir).args(["--json", "invite"]).output()?;
        let invite: Value = serde_json::from_slice(&output.stdout)?;
        Ok(invite["ticket"].as_str().context("no ticket")?.to_owned())
    }

    fn wait_for_model(&self, name: &str) -> anyhow::Result<()> {
        let started = now();
        while now() - started < START_MAX {
            let output = commons(&self.data_dir).args(["--json", "models"]).output()?;
            if String::from_utf8_lossy(&output.stdout).contains(&format!("\"{name}\"")) {
                return Ok(());
            }
        }
        bail!("the joiner does not see the model")
    }

    /// One streamed completion, timed by its events.
    fn ask(&self, model: &str, tokens: u32) -> anyhow::Result<Timed> {
        let body = serde_json::json!({
            "model": model, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0,
            "seed": 1, "stream": true,
        })
        .to_string();
        let mut stream = TcpStream::connect(&self.api)?;
        stream.set_nodelay(true)?;
        let asked = now();
        write!(
            stream,
            "POST /v1/completions HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.api,
            body.len()
        )?;
        let mut clock = Stopwatch::new(asked);
        for line in BufReader::new(stream).lines() {
            let line = line?;
            let Some(event) = line.strip_prefix("data: ") else { continue };
            if event == "[DONE]" {
                return clock.timed();
            }
            let event: Value = serde_json::from_str(event)?;
            if !event["error"].is_null() {
                bail!("the node answered with an error: {event}");
            }
            let text = event["choices"][0]["text"].as_str().unwrap_or_default();
            if !text.is_empty() {
                clock.token();
            }
        }
        bail!("the answer broke off")
    }
}

fn commons(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_commons"));
    command.arg("--data-dir").arg(data_dir);
    command
}
