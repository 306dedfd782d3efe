//! How much a model may keep in mind: pages of keys and values, from the memory that is free.
//!
//! Not here: the pages themselves (`cache.rs`) and who gets them (`commons-schedule`).

use commons_kernels::kv::KvError;
use commons_schedule::{AdapterConfig, Caching, Config, ConfigError};

use crate::cache::PAGE_LEN;
use crate::forward::Transformer;
use crate::gguf::TensorType;
use crate::memory::available_memory;
use crate::settings::{ModelKind, Settings};
use crate::worker::WorkerConfig;

/// Tokens of prompts that a step computes. More make a step longer for those who wait for the next
/// word; fewer read the weights for less.
const CHUNK_LEN_MAX: usize = 512;

/// A page that agrees this far is copied rather than computed.
const COPY_LEN_MIN: u32 = 8;

/// Guessed tokens in a batch: beyond, a batch costs by the token and not by the weights.
const DRAFT_TOKENS_MAX: u32 = 16;

/// Adapters in memory; their bytes are the real limit.
const ADAPTERS_MAX: u32 = 1024;

/// Adapters that wait for the disk while another is read.
const LOADS_MAX: u32 = 2;

/// Adapters that may take another's place before anybody uses them: a disk is busy with less.
const ADAPTERS_AHEAD_MAX: u32 = 4;

/// Rows that start before adapters in memory make way for one that waits.
const ADAPTER_PATIENCE: u32 = 8;

/// Steps after which work of a lower priority gets its turn: seconds, on any machine.
const AGE_STEPS_MAX: u32 = 64;

/// Room for adapters where nobody tells how much memory is free.
const ADAPTER_ROOM_UNKNOWN: u64 = 256 << 20;

/// Why there is no room for a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum RoomError {
    #[error(
        "{needed} bytes are needed for {context_len} positions of one sequence and {limit} may be \
         used; allow a shorter context, 8-bit keys and values, or more memory"
    )]
    Memory { needed: u64, context_len: usize, limit: u64 },

    #[error(
        "the weights take {needed} bytes and {available} are free; close something, or take a smaller quantisation"
    )]
    Weights { needed: u64, available: u64 },

    #[error("keys and values cannot be stored")]
    Kv(#[from] KvError),

    #[error("the limits do not go together")]
    Limits(#[from] ConfigError),
}

/// The room of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    config: Config,
    context_len: usize,
}

impl Room {
    /// Refuses weights that do not fit into what is free, before one is read.
    pub fn check_weights(needed: u64) -> Result<(), RoomError> {
        match available_memory() {
            Some(available) if needed > available => Err(RoomError::Weights { needed, available }),
            _ => Ok(()),
        }
    }

    /// Measures what is free and divides it into pages.
    pub fn measure(transformer: &Transformer, config: &WorkerConfig) -> Result<Self, RoomError> {
        // Half is left to batches, to other models and to the machine's owner.
        let free = transformer.memory_available().map_or(u64::MAX, |available| available / 2);
        let limit = config.kv_size_max.unwrap_or(free);
        let page = transformer.page_bytes(config.kv_format)?;
        Self::divide(transformer.settings(), config, (page, limit))
    }

    /// Divides `limit` bytes into pages of so many bytes.
    fn divide(
        settings: &Settings,
        config: &WorkerConfig,
        (page, limit): (u64, u64),
    ) -> Result<Self, RoomError> {
        let page = page.max(1);
        let wanted_len = settings.context_len.min(config.context_len_max).max(1);
        let slots = config.slots.max(1);
        let pages_of = |len: usize| len.div_ceil(PAGE_LEN) as u64;
        // Every sequence at its longest, and some for prefixes of those that are over.
        let wanted = pages_of(wanted_len).saturating_mul(slots as u64).saturating_mul(5) / 4;
        let page_count = wanted.max(pages_of(wanted_len)).min(limit / page);
        // A context that does not fit is shortened to a half; less would be another model.
        let held = usize::try_from(page_count).unwrap_or(usize::MAX).saturating_mul(PAGE_LEN);
        let context_len = wanted_len.min(held);
        if context_len < wanted_len.min(MIN_CONTEXT_LEN) {
            let context_len = wanted_len.min(MIN_CONTEXT_LEN);
            let needed = pages_of(context_len) * page;
            return Err(RoomError::Memory { needed, context_len, limit });
        }
        let is_encoder = settings.kind == ModelKind::Encoder;
        let count = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        // An encoder's tokens see each other, so its texts are computed whole, one by one.
        let (rows_max, chunk_len) =
            if is_encoder { (1, context_len) } else { (slots, CHUNK_LEN_MAX) };
        let keeps = config.caches_prefixes && !is_encoder;
        let config = Config {
            page_len: count(PAGE_LEN),
            page_count: u32::try_from(page_count).unwrap_or(u32::MAX).min(PAGES_MAX),
            rows_max: count(rows_max),
            batch_tokens_max: count(chunk_len.max(rows_max)),
            chunk_len_max: count(chunk_len),
            queue_len_max: count(config.queue_len_max.max(1)),
            queue_len_per_caller_max: count(config.queue_len_max.max(1)),
            caching: if keeps { Caching::On { copy_len_min: COPY_LEN_MIN } } else { Caching::Off },
            draft_len_max: if is_encoder { 0 } else { count(config.draft_len_max) },
            draft_tokens_max: DRAFT_TOKENS_MAX,
            age_steps_max: AGE_STEPS_MAX,
        };
        Ok(Self { config, context_len })
    }

    /// The limits of adapters in memory.
    pub fn adapters(config: &WorkerConfig) -> AdapterConfig {
        // An eighth: keys and values may have taken half.
        let free = available_memory().map_or(ADAPTER_ROOM_UNKNOWN, |available| available / 8);
        let queue_len_max = config.queue_len_max.max(1);
        AdapterConfig {
            room_bytes: config.adapter_size_max.unwrap_or(free),
            resident_max: ADAPTERS_MAX,
            loads_max: LOADS_MAX,
            ahead_max: ADAPTERS_AHEAD_MAX,
            waiting_max: u32::try_from(queue_len_max).unwrap_or(u32::MAX),
            patience: ADAPTER_PATIENCE,
        }
    }

    /// The limits of the scheduler.
    pub fn schedule(&self) -> Config {
        self.config
    }

    /// Pages of keys and values.
    pub fn page_count(&self) -> usize {
        self.config.page_count as usize
    }

    /// Positions of a sequence at most.
    pub fn context_len(&self) -> usize {
        self.context_len
    }
}

/// Bytes that a device must have free for a model whose tensors take `size`: weights, the keys and
/// values of one conversation twice (half of what is free is left), and what a batch takes.
pub(crate) fn needed_on_device(settings: &Settings, size: u64) -> u64 {
    let positions = settings.context_len.min(MIN_CONTEXT_LEN) as u64;
    let kv = settings.kv_size_per_position(TensorType::F16).saturating_mul(2 * positions);
    size.saturating_add(kv).saturating_add(BATCH_SIZE)
}

/// What a batch takes on a device beside weights and pages: its rows, its scores
/// (`forward/candle/plan.rs` bounds them), and what the driver keeps.
pub(crate) const BATCH_SIZE: u64 = 1 << 30;

/// A context that is shorter serves no conversation: refused rather than cut.
const MIN_CONTEXT_LEN: usize = 512;

/// Pages that the scheduler can number.
const PAGES_MAX: u32 = 1 << 24;
