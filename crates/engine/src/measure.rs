//! How fast a model is on this machine: one measurement a call, as numbers.
//!
//! | what | timed |
//! |---|---|
//! | [`What::Prefill`] | a prompt, until a token is picked |
//! | [`What::Decode`] | some rows in one batch, step after step |
//! | [`What::DecodeJson`] | the same as requests, held to a schema and free in turns |
//! | [`What::Prefix`] | a prompt that is known but for its end, until a token is picked |
//! | [`What::Repeat`] | an answer to a prompt that repeats itself, with or without guesses |
//! | [`What::Load`] | from before the file is opened until a token is picked |
//!
//! Prompts are numbers from a generator with a fixed seed, so two engines can be given the same.
//! [`Through::Model`] times the forward pass alone, with the likeliest token of each row taken;
//! [`Through::Scheduler`] times what callers get: requests, the scheduler and the sampler.
//!
//! Not here: what to measure (`commons bench`), what to compare with (`cargo xtask bench engine`).

mod model;
mod served;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use commons_kernels::Isa;
use serde::Serialize;

use crate::cache::KvFormat;
use crate::local::AddError;
use crate::model::{LoadError, Model};
use crate::place::Device;

/// The version of [`Report`].
const SCHEMA: u32 = 1;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A prompt.
    Prefill,
    /// Steps of answers.
    Decode,
    /// Steps of answers that are held to a schema, and of the same answers free, in turns.
    DecodeJson,
    /// A prompt whose beginning is in the cache.
    Prefix,
    /// A repetitive answer.
    Repeat,
    /// Loading.
    Load,
}

/// What is measured of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Through {
    /// The forward pass alone.
    Model,
    /// Requests.
    Scheduler,
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The model's file or folder.
    pub path: PathBuf,
    /// What is timed.
    pub what: What,
    /// What is measured of it.
    pub through: Through,
    /// Threads that compute.
    pub threads: usize,
    /// What they compute with.
    pub isa: Isa,
    /// Where.
    pub device: Device,
    /// How keys and values are stored.
    pub kv_format: KvFormat,
    /// Tokens: of the prompt, or of each answer.
    pub tokens: usize,
    /// Rows of the batch.
    pub rows: usize,
    /// Tokens of each prompt before the timed steps.
    pub context: usize,
    /// How often.
    pub rounds: usize,
    /// Whether tokens are guessed.
    pub guesses: bool,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The version of this list.
    pub schema: u32,
    /// What computed.
    pub engine: String,
    /// What was timed.
    pub only: What,
    /// What was measured of it.
    pub through: Through,
    /// Threads that computed.
    pub threads: usize,
    /// Rows of the batch.
    pub rows: usize,
    /// Seconds of each round.
    pub seconds: Vec<f64>,
    /// Seconds of each round in which the model itself was computed: the rest was spent on deciding
    /// what to compute, on drawing tokens and on telling them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub computed_s: Vec<f64>,
    /// Seconds of each round of the same answers without a schema.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub free_s: Vec<f64>,
    /// Tokens of one round, all rows together.
    pub tokens_timed: usize,
    /// Bytes that the process held before the model was touched.
    pub before_bytes: u64,
    /// The most bytes that it held.
    pub peak_bytes: u64,
    /// Bytes of the model's file.
    pub file_bytes: u64,
    /// Bytes of its weights in memory.
    pub weight_bytes: u64,
    /// Bytes set aside for keys and values.
    pub kv_bytes: u64,
    /// Seconds until the model was ready.
    pub load_s: f64,
    /// Bytes that the process held then.
    pub loaded_bytes: u64,
    /// Seconds of the same prompt without a cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cold_s: Option<f64>,
    /// Guessed tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drafted: Option<u64>,
    /// Guesses that were right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<u64>,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum MeasureError {
    #[error("failed to load the model")]
    Load(#[from] LoadError),

    #[error("failed to serve the model")]
    Serve(#[from] AddError),

    #[error("there is no room for keys and values")]
    Kv(#[from] commons_kernels::kv::KvError),

    #[error("failed to start threads")]
    Threads(#[source] std::io::Error),

    #[error("{tokens} tokens were asked for and the model's context has {context_len}")]
    TooLong { tokens: usize, context_len: usize },

    #[error("the engine gave up: {message}")]
    Refused { message: String },

    #[error(
        "{} is measured through the model alone: requests are timed as decode, prefix and repeat",
        match what { What::Prefill => "prefill", _ => "load" }
    )]
    NotServed { what: What },

    #[error("an encoder continues no text: only `load` and `prefill` can be measured")]
    Encoder,
}

impl Plan {
    /// A measurement with the usual numbers.
    pub fn new(path: &Path, what: What) -> Self {
        Self {
            path: path.to_owned(),
            what,
            through: Through::Model,
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            isa: Isa::best(),
            device: Device::Auto,
            kv_format: KvFormat::F16,
            tokens: 128,
            rows: 1,
            context: 16,
            rounds: 1,
            guesses: true,
        }
    }

    /// Measures.
    pub fn run(&self) -> Result<Report, MeasureError> {
        if self.through == Through::Scheduler && matches!(self.what, What::Prefill | What::Load) {
            return Err(MeasureError::NotServed { what: self.what });
        }
        let before = resident().map_or(0, |(now, _)| now);
        let needs_requests = matches!(self.what, What::Repeat | What::Prefix | What::DecodeJson);
        let mut report = if self.through == Through::Scheduler || needs_requests {
            served::run(self)?
        } else {
            model::run(self)?
        };
        report.before_bytes = before;
        report.peak_bytes = resident().map_or(0, |(_, peak)| peak);
        Ok(report)
    }

    fn report(&self, model: &Model) -> Report {
        let computes = match model.placement().device {
            Device::Cpu => self.isa.to_string(),
            _ => model.facts().class.device.clone(),
        };
        Report {
            schema: SCHEMA,
            engine: format!("commons {} ({computes})", env!("CARGO_PKG_VERSION")),
            only: self.what,
            through: self.through,
            threads: self.threads,
            rows: self.rows,
            seconds: Vec::new(),
            computed_s: Vec::new(),
            free_s: Vec::new(),
            tokens_timed: 0,
            before_bytes: 0,
            peak_bytes: 0,
            file_bytes: 0,
            weight_bytes: 0,
            kv_bytes: 0,
            load_s: 0.0,
            loaded_bytes: 0,
            cold_s: None,
            drafted: None,
            accepted: None,
        }
    }
}

/// The ids of a row's prompt: the same for every engine that is compared.
pub(crate) fn ids(row: usize, count: usize, vocabulary: usize) -> Vec<u32> {
    let mut state = row as u64 + 1;
    let vocabulary = vocabulary.max(1) as u64;
    let mut next = || {
        state = (state * 1_103_515_245 + 12_345) % (1 << 31);
        u32::try_from((state >> 8) % vocabulary).unwrap_or(0)
    };
    (0..count).map(|_| next()).collect()
}

/// The index of the largest number, the first of equals.
fn largest(numbers: &[f32]) -> u32 {
    let mut best = 0;
    for (index, number) in numbers.iter().enumerate() {
        if *number > numbers[best] {
            best = index;
        }
    }
    u32::try_from(best).unwrap_or(0)
}

/// Bytes that this process holds now, and the most that it ever held, where the system tells.
pub fn resident() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
    };
    Some((bytes("VmRSS:")?, bytes("VmHWM:")?))
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

#[expect(clippy::disallowed_methods, reason = "this is the stopwatch")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_the_same_for_every_engine() {
        assert_eq!(ids(0, 4, 32_000), [22_654, 2_224, 29_156, 3_995]);
        assert_eq!(ids(1, 4, 32_000), [8_653, 17_227, 29_345, 10_010]);
        assert_eq!(largest(&[1.0, 3.0, 3.0, f32::NAN]), 1);
    }
}
