//! The forward pass of the llama family: RMS norm, grouped-query attention with rotary
//! positions, SwiGLU, on candle.
//!
//! ```text
//! ids -> embedding -> (norm -> attention -> + -> norm -> feed-forward -> +) * layers -> norm -> logits
//! ```
//!
//! Rows are tokens. A prompt goes through in chunks of [`Llama::chunk_len`], a decode step is a
//! chunk of one; both run the same code.
//!
//! # Invariants
//!
//! * A sequence never holds more than [`Settings::context_len`] positions.
//! * Everything the file has is used, and everything used is in the file (`weights.rs`).
//!
//! Not here: mixtures of experts and other families; several sequences in one batch; sampling.

mod attention;
mod cache;
mod rope;
mod settings;

use candle_core::quantized::QTensor;
use candle_core::{Device, Tensor};
use candle_nn::ops::{rms_norm, silu};

pub use cache::KvCache;
pub use settings::{Settings, SettingsError};

use crate::gguf::Gguf;
use crate::mapped::MappedFile;
use crate::weights::{Matrix, WeightError, Weights};
use attention::{Attention, Span};
use rope::Rope;

/// Tokens of a prompt that go through at once. Measured: candle's prefill is fastest at 128 rows
/// (258 against 155 token/s at 512), and a cancelled request is noticed after as many.
const CHUNK_LEN_MAX: usize = 128;

/// Bytes of attention scores at once; a chunk gets shorter when the context gets long.
const SCORES_SIZE_MAX: usize = 256 << 20;

/// Why a step was not computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum ForwardError {
    #[error("{needed} positions needed, the context has {context_len}")]
    ContextFull { needed: usize, context_len: usize },

    #[error("token {id} is not in the vocabulary of {count}")]
    UnknownToken { id: u32, count: usize },

    #[error("nothing to compute: no token was given")]
    Empty,

    #[error("failed to compute")]
    Compute(#[from] candle_core::Error),
}

/// A llama-family model, ready to compute.
#[derive(Debug)]
pub struct Llama {
    settings: Settings,
    embedding: QTensor,
    layers: Vec<Layer>,
    norm: Tensor,
    output: Matrix,
    rope: Rope,
}

/// One transformer layer.
#[derive(Debug)]
struct Layer {
    attention_norm: Tensor,
    attention: Attention,
    feed_forward_norm: Tensor,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

impl Llama {
    /// Takes the weights that `settings` asks for out of the file.
    pub(crate) fn load(
        file: &MappedFile,
        gguf: &Gguf,
        settings: Settings,
    ) -> Result<Self, WeightError> {
        let mut weights = Weights::new(file, gguf);
        let width = settings.width;
        let table = [settings.token_count, width];
        let embedding = weights.table("token_embd.weight", table)?;
        // A file without an output matrix uses the embedding for both.
        let is_tied = !weights.has("output.weight");
        let output = if is_tied { "token_embd.weight" } else { "output.weight" };
        let output = weights.matrix(output, table)?;
        let norm = weights.vector("output_norm.weight", width)?;
        let factors = weights.optional_vector("rope_freqs.weight", settings.head_size / 2)?;
        let rope = Rope::new(&settings, factors).map_err(|source| WeightError::Build {
            name: "rope_freqs.weight".to_owned(),
            source,
        })?;
        let layers =
            (0..settings.layer_count).map(|index| Layer::load(&mut weights, &settings, index));
        let layers = layers.collect::<Result<_, _>>()?;
        weights.finish()?;
        Ok(Self { settings, embedding, layers, norm, output, rope })
    }

    /// What the file says about the model.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// An empty cache for one sequence.
    pub fn new_cache(&self) -> KvCache {
        KvCache::new(&self.settings)
    }

    /// How many tokens of a prompt to put through next, behind `position` others.
    pub fn chunk_len(&self, position: usize) -> usize {
        let row_size = self.settings.head_count * (position + CHUNK_LEN_MAX) * size_of::<f32>();
        (SCORES_SIZE_MAX / row_size).clamp(1, CHUNK_LEN_MAX)
    }

    /// Puts tokens through, behind those in the cache, and keeps what later ones need of them.
    /// Returns one row for each token: what [`Self::logits`] takes.
    pub fn forward(&self, ids: &[u32], cache: &mut KvCache) -> Result<Tensor, ForwardError> {
        if ids.is_empty() {
            return Err(ForwardError::Empty);
        }
        let count = self.settings.token_count;
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= count) {
            return Err(ForwardError::UnknownToken { id, count });
        }
        cache.reserve(ids.len())?;
        let span = Span::new(&self.rope, cache.len(), ids.len())?;
        let mut rows = self.embedding.embedding(&Tensor::new(ids, &Device::Cpu)?)?;
        for (index, layer) in self.layers.iter().enumerate() {
            rows = layer.forward(&rows, &self.settings, &span, cache, index)?;
        }
        cache.advance(ids.len());
        Ok(rows)
    }

    /// The logits behind each of `rows`, as [`Self::forward`] returned them.
    pub fn logits(&self, rows: &Tensor) -> Result<Tensor, ForwardError> {
        let normed = rms_norm(rows, &self.norm, self.settings.epsilon)?;
        Ok(self.output.forward(&normed)?)
    }

    /// Puts tokens through and returns the logits behind the last one.
    pub fn next_logits(&self, ids: &[u32], cache: &mut KvCache) -> Result<Vec<f32>, ForwardError> {
        let rows = self.forward(ids, cache)?;
        let last = rows.narrow(0, ids.len() - 1, 1)?.contiguous()?;
        Ok(self.logits(&last)?.flatten_all()?.to_vec1()?)
    }
}

impl Layer {
    fn load(
        weights: &mut Weights<'_>,
        settings: &Settings,
        index: usize,
    ) -> Result<Self, WeightError> {
        let (width, inner) = (settings.width, settings.feed_forward_len);
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        Ok(Self {
            attention_norm: weights.vector(&name("attn_norm"), width)?,
            attention: Attention::load(weights, settings, index)?,
            feed_forward_norm: weights.vector(&name("ffn_norm"), width)?,
            gate: weights.matrix(&name("ffn_gate"), [inner, width])?,
            up: weights.matrix(&name("ffn_up"), [inner, width])?,
            down: weights.matrix(&name("ffn_down"), [width, inner])?,
        })
    }

    fn forward(
        &self,
        rows: &Tensor,
        settings: &Settings,
        span: &Span,
        cache: &mut KvCache,
        index: usize,
    ) -> candle_core::Result<Tensor> {
        let normed = rms_norm(rows, &self.attention_norm, settings.epsilon)?;
        let rows = (rows + self.attention.forward(&normed, settings, span, cache, index)?)?;
        let normed = rms_norm(&rows, &self.feed_forward_norm, settings.epsilon)?;
        let gated = (silu(&self.gate.forward(&normed)?)? * self.up.forward(&normed)?)?;
        rows + self.down.forward(&gated)?
    }
}
