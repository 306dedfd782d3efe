//! What `commons bench` does: one measurement here, or a set of them, each in its own process.
//!
//! ```text
//! --only WHAT: this process measures ------------------------> one reading
//! otherwise:   this program with `--only`, once for each case -> readings, device
//! ```
//!
//! A process of its own keeps one measurement's memory and warm caches out of the next.
//!
//! * `cases`: what the set is; `reading`: what came of a measurement; `table`: for people.
//!
//! Not here: the stopwatch (`commons_engine::measure`).

mod cases;
mod reading;
mod table;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use commons_engine::devices::{self, Accelerator};
use commons_engine::measure;
use commons_engine::weights::Weights;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

use crate::command::bench::{Args, What};
use crate::engine;
use crate::model_path;
use crate::output::Output;
use cases::Case;
use reading::Reading;

/// How often the sign of life moves.
const TICK: Duration = Duration::from_millis(100);

/// What computes, and what does not.
#[derive(Debug, Serialize)]
struct Machine {
    /// The instruction set.
    isa: String,
    threads: usize,
    /// Accelerators, each with the reason why it is not used.
    accelerators: Vec<Accelerator>,
}

/// What a set of measurements came to.
#[derive(Debug, Serialize)]
struct Summary {
    schema: u32,
    model: PathBuf,
    device: Machine,
    /// What each process said, in the order of the set.
    reports: Vec<Value>,
    /// What was not measured.
    left_out: Vec<LeftOut>,
}

/// A case that was not measured.
#[derive(Debug, Serialize)]
struct LeftOut {
    case: String,
    reason: String,
    /// Whether it should have been.
    is_failure: bool,
}

/// Measures what was asked for.
pub(crate) async fn run(args: &Args, out: &mut Output<'_>) -> anyhow::Result<ExitCode> {
    let model = model_path::checked(&args.model)?;
    let plan = plan(args, &model)?;
    let machine =
        Machine { isa: plan.isa.to_string(), threads: plan.threads, accelerators: devices::find() };
    match args.only {
        Some(what) => one(plan, &Case::typed(what, args), &machine, out).await,
        None => all(args, &model, machine, out).await,
    }
}

/// What was typed, as the engine takes it.
fn plan(args: &Args, model: &Path) -> anyhow::Result<measure::Plan> {
    let what = args.only.unwrap_or(What::Load);
    let default = measure::Plan::new(model, what.into());
    Ok(measure::Plan {
        through: args.through.map_or(default.through, Into::into),
        threads: args.threads.map_or(default.threads, |it| usize::from(it.get())),
        isa: engine::isa(args.isa.as_deref())?,
        device: args.device.unwrap_or(default.device),
        kv_format: args.kv.map_or(default.kv_format, Into::into),
        tokens: args.tokens.map_or(default.tokens, |it| it as usize),
        rows: args.rows.map_or(default.rows, usize::from),
        context: args.context.map_or(default.context, |it| it as usize),
        rounds: args.rounds as usize,
        guesses: args.speculation != Some(engine::Switch::Off),
        ..default
    })
}

/// One measurement in this process.
async fn one(
    plan: measure::Plan,
    case: &Case,
    machine: &Machine,
    out: &mut Output<'_>,
) -> anyhow::Result<ExitCode> {
    let path = plan.path.clone();
    let measuring = tokio::task::spawn_blocking(move || plan.run());
    let report = measuring.await.context("the thread that measured failed")?;
    let report = report.with_context(|| format!("failed to measure {}", path.display()))?;
    if out.is_json() {
        out.json(&report)?;
    } else {
        let value = serde_json::to_value(&report).context("the measurement cannot be read")?;
        let reading = Reading::parse(value)?;
        out.line(table::head(&path, &reading, machine))?;
        out.line(table::body(&[(case.clone(), reading)]))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The whole set, a process for each case.
async fn all(
    args: &Args,
    model: &Path,
    machine: Machine,
    out: &mut Output<'_>,
) -> anyhow::Result<ExitCode> {
    let facts = facts(model)?;
    let (set, mut left_out) = cases::set(facts);
    let bar = progress(set.len());
    let mut measured = Vec::new();
    let mut reports = Vec::new();
    for case in set {
        bar.set_message(case.name());
        let said = child(args, model, &case).await;
        let read = said.and_then(|value| Ok((Reading::parse(value.clone())?, value)));
        match read {
            Ok((reading, value)) => {
                measured.push((case, reading));
                reports.push(value);
            }
            // A model that cannot be loaded cannot be measured in any other way.
            Err(error) if case.what == What::Load => {
                bar.finish_and_clear();
                return Err(error);
            }
            Err(error) => {
                let (case, reason) = (case.name(), format!("{error:#}"));
                left_out.push(LeftOut { case, reason, is_failure: true });
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let has_failed = left_out.iter().any(|it| it.is_failure);
    if out.is_json() {
        let (schema, model) = (reading::SCHEMA, model.to_owned());
        out.json(&Summary { schema, model, device: machine, reports, left_out })?;
    } else {
        let (_, loaded) = measured.first().context("nothing was measured")?;
        out.line(table::head(model, loaded, &machine))?;
        out.line(table::body(&measured))?;
        for LeftOut { case, reason, .. } in &left_out {
            out.line(format!("not measured: {case}: {reason}"))?;
        }
    }
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What the set depends on, read without loading a weight.
fn facts(model: &Path) -> anyhow::Result<cases::Facts> {
    let weights = Weights::open(model);
    let weights = weights.with_context(|| format!("failed to open {}", model.display()))?;
    let settings = weights.settings();
    Ok(cases::Facts { kind: settings.kind, context_len: settings.context_len })
}

/// Runs this program once more, for one case, and takes the line that it prints.
async fn child(args: &Args, model: &Path, case: &Case) -> anyhow::Result<Value> {
    let program = std::env::current_exe().context("failed to find this program")?;
    let mut command = tokio::process::Command::new(program);
    command.arg("bench").arg(model).arg("--json").args(case.args()).args(cases::common(args));
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.context("failed to start a process that measures")?;
    let last = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
    };
    if !output.status.success() {
        let Some(line) = last(&output.stderr) else {
            bail!("the process that measured ended with {} and said nothing", output.status);
        };
        let told: Option<Value> = serde_json::from_str(&line).ok();
        let told = told.and_then(|it| Some(it.get("error")?.as_str()?.to_owned()));
        return Err(anyhow!(told.unwrap_or(line)));
    }
    let line = last(&output.stdout).context("the process that measured printed no result")?;
    serde_json::from_str(&line).context("the process that measured printed no JSON")
}

/// How far the set is, on a terminal; nothing where nobody looks.
fn progress(count: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(count as u64);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {pos}/{len} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TICK);
    bar
}
