//! How models are computed: the flags, and what they mean to the engine.
//!
//! Not here: which models there are (`model_path.rs`), and for whom they are computed.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use anyhow::Context as _;
use clap::ValueEnum;
use commons_engine::WorkerConfig;
use commons_engine::cache::KvFormat;
use commons_engine::place::Device;
use commons_kernels::Isa;

/// Guessed tokens that are checked in one step where guessing is off.
const NO_DRAFT: usize = 0;

/// The flags of the engine, as they were typed.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Engine")]
pub(crate) struct EngineArgs {
    /// How many threads compute [default: one less than the processors, and all of them while
    /// everything that is computed is asked by this node's owner]
    #[arg(long, value_name = "N", env = "COMMONS_THREADS")]
    pub(crate) threads: Option<NonZeroU16>,

    /// Where models are computed: auto, cpu, cuda, cuda:N, metal or metal:N [default: auto, a GPU
    /// that this program was built for and that has room, else the processor]
    #[arg(long, value_name = "DEVICE", env = "COMMONS_DEVICE")]
    pub(crate) device: Option<Device>,

    /// Instruction set that computes: scalar, neon, avx2, avx512 [default: the fastest here]
    #[arg(long, value_name = "NAME")]
    pub(crate) isa: Option<String>,

    /// Answers of a model that are computed at once; more wait [default: 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) slots: Option<u16>,

    /// Tokens of a prompt and its answer at most, where the model and the memory have as many
    /// [default: 32768]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(64..=16_777_216))]
    pub(crate) context: Option<u32>,

    /// How keys and values are stored; q8 takes half of the memory of f16 [default: f16]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) kv: Option<Kv>,

    /// Memory for keys and values of each model, such as 2GiB [default: half of what is free]
    #[arg(long, value_name = "SIZE")]
    pub(crate) kv_memory: Option<Size>,

    /// Whether beginnings of prompts are kept for the next prompt of the same caller [default: on]
    #[arg(long, value_name = "SWITCH")]
    pub(crate) prefix_cache: Option<Switch>,

    /// Whether next tokens are guessed from what was said, and checked together [default: on]
    #[arg(long, value_name = "SWITCH")]
    pub(crate) speculation: Option<Switch>,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kv {
    /// 16 bits a number
    F16,
    /// 8 bits a number, and a scale for each position of a head
    Q8,
}

impl From<Kv> for KvFormat {
    fn from(kv: Kv) -> Self {
        match kv {
            Kv::F16 => Self::F16,
            Kv::Q8 => Self::Q8,
        }
    }
}

/// A count of bytes: `1048576`, `512MiB`, `2GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(u64);

/// Why a text is no size.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no size; write bytes, or a number with KiB, MiB or GiB, such as 2GiB")]
pub(crate) struct SizeError {
    text: String,
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
        let unit = UNITS.iter().find_map(|&(name, size)| Some((text.strip_suffix(name)?, size)));
        let (number, unit) = unit.unwrap_or((text, 1));
        let count = number.trim().parse::<u64>().ok().and_then(|it| it.checked_mul(unit));
        count.filter(|it| *it > 0).map(Self).ok_or_else(|| SizeError { text: text.to_owned() })
    }
}

/// The instruction set of this name, or the fastest.
pub(crate) fn isa(name: Option<&str>) -> anyhow::Result<Isa> {
    let Some(name) = name else { return Ok(Isa::best()) };
    Isa::named(name).context("choose another with `--isa NAME`, or leave it out for the fastest")
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Size {
    /// In bytes.
    pub(crate) fn bytes(self) -> u64 {
        self.0
    }
}

impl EngineArgs {
    /// The same flags, as they are typed: for another process of this program.
    pub(crate) fn to_args(&self) -> Vec<String> {
        fn name(value: &impl ValueEnum) -> Option<String> {
            value.to_possible_value().map(|it| it.get_name().to_owned())
        }
        let Self { threads, device, isa, slots, context, kv, kv_memory, prefix_cache, speculation } =
            self;
        let typed = [
            ("--threads", threads.map(|it| it.to_string())),
            ("--device", device.map(|it| it.to_string())),
            ("--isa", isa.clone()),
            ("--slots", slots.map(|it| it.to_string())),
            ("--context", context.map(|it| it.to_string())),
            ("--kv", kv.as_ref().and_then(name)),
            ("--kv-memory", kv_memory.map(|it| it.to_string())),
            ("--prefix-cache", prefix_cache.as_ref().and_then(name)),
            ("--speculation", speculation.as_ref().and_then(name)),
        ];
        let typed = typed.into_iter().filter_map(|(flag, value)| Some([flag.to_owned(), value?]));
        typed.flatten().collect()
    }

    /// What was typed, as the engine takes it.
    pub(crate) fn config(&self) -> anyhow::Result<WorkerConfig> {
        let default = WorkerConfig::default();
        Ok(WorkerConfig {
            slots: self.slots.map_or(default.slots, usize::from),
            threads: self.threads.map_or(default.threads, |it| usize::from(it.get())),
            threads_for_owner: if self.threads.is_some() { 0 } else { default.threads_for_owner },
            isa: isa(self.isa.as_deref())?,
            device: self.device.unwrap_or(default.device),
            context_len_max: self.context.map_or(default.context_len_max, |it| it as usize),
            kv_format: self.kv.map_or(default.kv_format, KvFormat::from),
            kv_size_max: self.kv_memory.map_or(default.kv_size_max, |it| Some(it.0)),
            caches_prefixes: self.prefix_cache != Some(Switch::Off),
            draft_len_max: match self.speculation {
                Some(Switch::Off) => NO_DRAFT,
                Some(Switch::On) | None => default.draft_len_max,
            },
            ..default
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Typed {
        #[command(flatten)]
        engine: EngineArgs,
    }

    fn typed(args: &[&str]) -> Result<WorkerConfig, String> {
        let typed = Typed::try_parse_from([&["commons"], args].concat());
        let engine = typed.map_err(|error| error.to_string())?.engine;
        engine.config().map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn what_was_typed_is_what_the_engine_is_told() {
        let check = |args: &[&str], want: WorkerConfig| assert_eq!(typed(args), Ok(want));
        let default = WorkerConfig::default();
        check(&["--threads", "3"], WorkerConfig { threads: 3, threads_for_owner: 0, ..default });
        let all = "--threads 2 --device cuda:1 --isa scalar --slots 4 --context 4096 --kv q8 --kv-memory 2GiB \
                   --prefix-cache off --speculation off";
        let want = WorkerConfig {
            slots: 4,
            threads: 2,
            threads_for_owner: 0,
            isa: Isa::SCALAR,
            device: Device::Cuda(1),
            context_len_max: 4096,
            kv_format: KvFormat::Q8,
            kv_size_max: Some(2 << 30),
            caches_prefixes: false,
            draft_len_max: 0,
            ..default
        };
        check(&all.split_whitespace().collect::<Vec<_>>(), want);
        let split: Vec<_> = all.split_whitespace().collect();
        let parsed = Typed::try_parse_from([&["commons"], &split[..]].concat()).expect("parses");
        let again = parsed.engine.to_args();
        let again: Vec<_> = again.iter().map(String::as_str).collect();
        assert_eq!(typed(&again), Ok(want), "another process is told the same: {again:?}");
        let on = ["--threads", "2", "--prefix-cache", "on", "--speculation", "on"];
        check(&on, WorkerConfig { threads: 2, threads_for_owner: 0, ..default });
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let check = |args: &[&str], part: &str| {
            let error = typed(args).expect_err("is refused");
            assert!(error.contains(part), "{args:?}: no {part:?} in {error}");
        };
        check(&["--threads", "0"], "--threads");
        check(&["--slots", "257"], "--slots");
        check(&["--context", "1"], "--context");
        check(&["--kv", "q4"], "--kv");
        check(&["--kv-memory", "much"], "2GiB");
        check(&["--speculation", "maybe"], "--speculation");
        check(&["--isa", "avx9"], "avx9");
        check(&["--device", "gpu"], "cuda:N");
    }

    #[test]
    fn a_size_is_bytes_or_a_number_with_a_unit() {
        let check = |text: &str, want: Option<u64>| {
            assert_eq!(text.parse::<Size>().ok().map(|it| it.0), want, "{text:?}");
        };
        check("1048576", Some(1 << 20));
        check("3KiB", Some(3 << 10));
        check("2 GiB", Some(2 << 30));
        for text in ["", "0", "GiB", "-1", "1.5GiB", "2GB", "99999999999GiB"] {
            check(text, None);
        }
    }
}
