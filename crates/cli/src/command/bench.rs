//! `commons bench`: how fast a model is on this machine.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use commons_engine::measure;
use commons_engine::place::Device;

use crate::bench;
use crate::engine::{Kv, Switch};
use crate::output::Output;

/// Measure how fast a model is computed on this machine
///
/// Without `--only`, a set of measurements, each in a process of its own. Needs no running node.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// A GGUF file, or a folder with config.json and .safetensors files
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,

    /// Measure this alone, in this process
    #[arg(long, value_name = "WHAT")]
    pub(crate) only: Option<What>,

    /// How many threads compute [default: as many as the machine runs at once]
    #[arg(long, value_name = "N", env = "COMMONS_THREADS")]
    pub(crate) threads: Option<NonZeroU16>,

    /// Where it is computed: auto, cpu, cuda, cuda:N, metal or metal:N [default: auto]
    #[arg(long, value_name = "DEVICE", env = "COMMONS_DEVICE")]
    pub(crate) device: Option<Device>,

    /// Instruction set that computes: scalar, neon, avx2, avx512 [default: the fastest here]
    #[arg(long, value_name = "NAME")]
    pub(crate) isa: Option<String>,

    /// How keys and values are stored [default: f16]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) kv: Option<Kv>,

    /// How often each measurement is repeated; the table shows the fastest
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,

    /// Tokens of the prompt, or of each answer [default: 128]
    #[arg(long, value_name = "N", requires = "only", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub(crate) tokens: Option<u32>,

    /// Answers in one batch [default: 1]
    #[arg(long, value_name = "N", requires = "only", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) rows: Option<u16>,

    /// Tokens of each prompt before a measured answer [default: 16]
    #[arg(long, value_name = "N", requires = "only", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub(crate) context: Option<u32>,

    /// Measure the forward pass alone, or requests with scheduler and sampler [default: model]
    #[arg(long, value_name = "LAYER", requires = "only")]
    pub(crate) through: Option<Through>,

    /// Whether tokens are guessed while `repeat` is measured [default: on]
    #[arg(long, value_name = "SWITCH", requires = "only")]
    pub(crate) speculation: Option<Switch>,
}

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// A prompt, until a token is picked
    Prefill,
    /// Steps of answers
    Decode,
    /// Steps of answers that are held to a JSON schema, and free, in turns
    DecodeJson,
    /// A prompt whose beginning is in the cache
    Prefix,
    /// An answer to a repetitive prompt
    Repeat,
    /// From before the file is opened to the first token
    Load,
}

/// What is measured of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Through {
    /// The forward pass alone
    Model,
    /// Requests, as callers send them
    Scheduler,
}

impl From<What> for measure::What {
    fn from(what: What) -> Self {
        match what {
            What::Prefill => Self::Prefill,
            What::Decode => Self::Decode,
            What::DecodeJson => Self::DecodeJson,
            What::Prefix => Self::Prefix,
            What::Repeat => Self::Repeat,
            What::Load => Self::Load,
        }
    }
}

impl From<Through> for measure::Through {
    fn from(through: Through) -> Self {
        match through {
            Through::Model => Self::Model,
            Through::Scheduler => Self::Scheduler,
        }
    }
}

pub(crate) async fn run(args: Args, out: &mut Output<'_>) -> anyhow::Result<ExitCode> {
    bench::run(&args, out).await
}
