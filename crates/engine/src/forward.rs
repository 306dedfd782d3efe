//! The forward pass of a transformer: one for every family, over rows of several sequences.
//!
//! ```text
//! ids -> embedding -> (attention -> + -> feed-forward -> +) * layers -> norm -> logits
//! ```
//!
//! What differs between families is in [`Settings`]: where norms stand, how far a layer sees, which
//! gate. Rows are tokens; a batch is ragged: chunks of prompts and single steps of answers side by
//! side, each with the pages that hold its keys and values. Every product is one job of the
//! [`Team`], with the norm before it and the addition behind it in the same job:
//!
//! ```text
//! norm, queries + keys + values | turn, store | attend | output, + | norm, gate * up | down, +
//! ```
//!
//! # Invariants
//!
//! * On the processor the result of a row depends on its own sequence alone: not on the batch, the
//!   chunk it came in, the threads or the instruction set. All arithmetic is that of
//!   `commons-kernels`. On a device it depends on more, within a tolerance: see `candle.rs`.
//! * Every tensor of the file is used, and everything used is in the file.
//!
//! Where a step is computed is the machine's to know (`machine.rs`): the flow below is the same on all.
//!
//! Not here: which rows make a batch (`commons-schedule`), sampling (`commons-verify`), files
//! (`weights.rs`).

mod adapted;
mod attention;
#[cfg(feature = "candle")]
mod candle;
mod experts;
mod feed;
mod linear;
mod load;
mod machine;
mod reader;
mod transformer;

use std::sync::Arc;

use commons_kernels::norm::LayerNorm;
use commons_kernels::{Isa, exp, norm};

#[cfg(feature = "candle")]
pub(crate) use candle::DevicePages;
pub use load::{LoadOptions, OnPacked};
pub use transformer::Transformer;

use crate::adapter::{Adapter, Group, Mix};
use crate::settings::{ModelKind, NormPlaces, Settings};
use crate::team::Team;
use crate::weights::{WeightError, Weights};
use adapted::Site;
use attention::{Attention, Batch};
use feed::FeedForward;
use linear::Linear;
use load::{Loader, Slice};
use machine::{Input, Machine, Work};

/// Rows of numbers, one for each token of a batch.
type Rows = Arc<Vec<f32>>;

/// Why a batch was not computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum ForwardError {
    #[error("position {position} is needed, the context has {context_len}")]
    ContextFull { position: usize, context_len: usize },

    #[error("position {position} is needed, the sequence has pages for {held}")]
    NoPage { position: usize, held: usize },

    #[error("token {id} is not in the vocabulary of {count}")]
    UnknownToken { id: u32, count: usize },

    #[error("nothing to compute: no token was given")]
    Empty,

    #[error("the pages are not where the weights are; take those that the model made")]
    Elsewhere,

    #[error("adapters are not computed on this device; load the model on the processor for them")]
    NoAdapters,

    #[error("the device failed to compute; load the model again, or on the processor")]
    Device { source: Box<dyn std::error::Error + Send + Sync> },
}

/// Some tokens of one sequence.
#[derive(Clone, Debug)]
pub struct Segment<'a> {
    /// The tokens.
    pub tokens: &'a [u32],
    /// The position of the first.
    pub start: usize,
    /// The pages that hold the sequence's keys and values, up to its last token here.
    pub pages: &'a [u32],
    /// The most positions that the sequence may reach: it chooses between two sets of frequencies
    /// where a model has two, and is the same for all segments of a sequence.
    pub positions_max: usize,
    /// The rows of how many of its last tokens are wanted.
    pub wanted: usize,
    /// The adapter that changes the model for it: one that was loaded for this model.
    pub adapter: Option<&'a Arc<Adapter>>,
}

/// A model's weights on one machine, ready to compute.
#[derive(Debug)]
struct Network<M: Machine> {
    machine: M,
    settings: Arc<Settings>,
    /// On the processor everywhere: a batch reads few of its rows.
    embedding: Embedding,
    layers: Vec<Layer<M>>,
    /// On the processor too: it is for rows that somebody wants to have there.
    norm: Option<NormWeights>,
    output: Option<Arc<M::Stack>>,
}

/// How ids become rows.
#[derive(Debug)]
struct Embedding {
    tokens: Linear,
    /// Rows of positions, and the row of the first token type: encoders have them.
    positions: Option<Linear>,
    kind: Option<Vec<f32>>,
    norm: Option<NormWeights>,
}

/// The weights of a norm.
#[derive(Debug)]
pub(crate) struct NormWeights {
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    epsilon: f32,
}

/// One transformer layer.
#[derive(Debug)]
struct Layer<M: Machine> {
    attention: Attention<M>,
    attention_norms: Norms<M>,
    feed_forward: FeedForward<M>,
    feed_forward_norms: Norms<M>,
}

/// The norms around one half of a layer.
#[derive(Debug)]
struct Norms<M: Machine> {
    before: Option<Arc<M::Norm>>,
    after: Option<Arc<M::Norm>>,
    /// Whether the norm behind comes after the addition.
    is_after_sum: bool,
}

impl<M: Machine> Network<M> {
    /// Takes the weights that `settings` asks for out of the file.
    fn load(
        machine: M,
        weights: &Weights,
        settings: Settings,
        options: &LoadOptions<'_>,
    ) -> Result<Self, WeightError> {
        let loader = Loader::new(weights, options);
        let settings = Arc::new(settings);
        let embedding = Embedding::load(&loader, &settings)?;
        let norm = (settings.norm_places != NormPlaces::Post)
            .then(|| loader.norm("output_norm", &settings, settings.width))
            .transpose()?;
        let output = match settings.kind {
            ModelKind::Encoder => None,
            // A file without an output matrix uses the embedding for both.
            ModelKind::Decoder if weights.tensor("output.weight").is_none() => {
                Some(machine.tied(&loader, &embedding.tokens, "token_embd")?)
            }
            ModelKind::Decoder => {
                let parts = [Slice::all("output", settings.token_count)];
                Some(machine.stack(&loader, &parts, settings.width)?)
            }
        };
        let layer = |index| Layer::load(&machine, &loader, &settings, index);
        let layers = (0..settings.layer_count).map(layer).collect::<Result<_, _>>()?;
        weights.finish()?;
        Ok(Self { machine, settings, embedding, layers, norm, output })
    }

    /// Whether rows may have adapters here.
    fn adapts(&self) -> bool {
        self.machine.adapts()
    }

    /// How many bytes its weights take in memory: all of them, and on the machine.
    fn size_bytes(&self) -> usize {
        let stacks = self.layers.iter().flat_map(Layer::stacks).chain(self.output.as_deref());
        let of = |stack| self.machine.size_bytes(stack, &self.embedding.tokens);
        stacks.map(of).sum::<usize>() + self.embedding.size_bytes()
    }

    /// Puts a batch through: stores the keys and values of its tokens, and returns the wanted rows
    /// behind the last layer, in the order of the batch.
    fn forward(
        &self,
        team: &mut Team,
        pages: &mut M::Pages,
        segments: &[Segment<'_>],
    ) -> Result<Vec<f32>, ForwardError> {
        let of_rows = |it: &Segment<'_>| std::iter::repeat_n(it.adapter.cloned(), it.tokens.len());
        let mix = Arc::new(Mix::new(segments.iter().flat_map(of_rows)));
        if !self.adapts() && !mix.is_empty() {
            return Err(ForwardError::NoAdapters);
        }
        let plan = self.machine.plan(Batch::new(&self.settings, segments))?;
        let rows = self.embedding.rows(team.isa(), &self.settings, segments);
        let mut rows = self.machine.upload(rows, self.settings.width)?;
        let mut work = Work { machine: &self.machine, team, pages, plan, mix };
        for (index, layer) in self.layers.iter().enumerate() {
            let norms = &layer.attention_norms;
            let mixed = layer.attention.forward(&mut work, norms, &rows, index)?;
            let output = layer.attention.output();
            let last = &Last { stack: output, layer: index, group: Group::Output };
            rows = close(&mut work, norms, last, mixed, rows)?;
            rows = layer.feed_forward.forward(&mut work, &layer.feed_forward_norms, rows, index)?;
        }
        self.choose(work.team, segments, rows)
    }

    /// The rows that somebody wants.
    fn choose(
        &self,
        team: &mut Team,
        segments: &[Segment<'_>],
        rows: M::Rows,
    ) -> Result<Vec<f32>, ForwardError> {
        let mut end = 0;
        let wanted = |segment: &Segment<'_>| {
            end += segment.tokens.len();
            end - segment.wanted.min(segment.tokens.len())..end
        };
        let chosen: Vec<_> = segments.iter().map(wanted).filter(|it| !it.is_empty()).collect();
        self.machine.download(team, rows, &chosen, self.settings.width)
    }

    fn norm(&self, isa: Isa, rows: &[f32]) -> Vec<f32> {
        match &self.norm {
            Some(norm) => norm.apply_rows(isa, rows, self.settings.width),
            None => rows.to_vec(),
        }
    }

    /// The logits behind each of some normed rows. An encoder has none.
    fn logits(&self, team: &mut Team, rows: &[f32]) -> Result<Vec<f32>, ForwardError> {
        let Some(output) = self.output.as_ref().filter(|_| !rows.is_empty()) else {
            return Ok(Vec::new());
        };
        let rows = self.machine.upload(rows.to_vec(), self.settings.width)?;
        let input = Input { rows: &rows, norm: None, site: None };
        let logits = self.machine.project(team, output, input, None)?;
        let mut logits = self.machine.download_all(logits)?;
        if let Some(cap) = self.settings.logit_softcap {
            exp::softcap(team.isa(), &mut logits, cap);
        }
        Ok(logits)
    }
}

impl Embedding {
    fn load(loader: &Loader<'_>, settings: &Settings) -> Result<Self, WeightError> {
        let width = settings.width;
        let tokens = loader.linear("token_embd", settings.token_count, width)?;
        let is_encoder = settings.norm_places == NormPlaces::Post;
        let positions = settings
            .has_learned_positions
            .then(|| loader.linear("position_embd", settings.context_len, width))
            .transpose()?;
        let kind = is_encoder.then(|| loader.first_row("token_types.weight", width)).transpose()?;
        let norm =
            is_encoder.then(|| loader.norm("token_embd_norm", settings, width)).transpose()?;
        Ok(Self { tokens, positions, kind, norm })
    }

    fn size_bytes(&self) -> usize {
        let positions = self.positions.as_ref().map_or(0, |it| it.matrix.size_bytes());
        self.tokens.matrix.size_bytes() + positions
    }

    fn rows(&self, isa: Isa, settings: &Settings, segments: &[Segment<'_>]) -> Vec<f32> {
        let width = settings.width;
        let count: usize = segments.iter().map(|segment| segment.tokens.len()).sum();
        let mut rows = vec![0.0; count * width];
        let places = segments.iter().flat_map(|it| it.tokens.iter().zip(it.start..));
        for (row, (&id, position)) in rows.chunks_exact_mut(width).zip(places) {
            self.tokens.matrix.dequantise_row(id as usize, row);
            if let Some(scale) = settings.embedding_scale {
                norm::scale(isa, row, scale);
            }
            if let Some(kind) = &self.kind {
                norm::add(isa, row, kind);
            }
            if let Some(positions) = &self.positions {
                let mut learned = vec![0.0; width];
                positions.matrix.dequantise_row(position, &mut learned);
                norm::add(isa, row, &learned);
            }
        }
        match &self.norm {
            Some(norm) => norm.apply_rows(isa, &rows, width),
            None => rows,
        }
    }
}

impl NormWeights {
    /// Norms a row.
    fn apply(&self, isa: Isa, row: &[f32], out: &mut [f32]) {
        match &self.bias {
            None => norm::rms_norm(isa, row, &self.weight, self.epsilon, out),
            Some(bias) => {
                let (weight, epsilon) = (&*self.weight, self.epsilon);
                norm::layer_norm(isa, row, LayerNorm { weight, bias, epsilon }, out);
            }
        }
    }

    /// Numbers in a row that is normed.
    fn width(&self) -> usize {
        self.weight.len()
    }

    fn apply_rows(&self, isa: Isa, rows: &[f32], width: usize) -> Vec<f32> {
        let mut normed = vec![0.0; rows.len()];
        let pairs = rows.chunks_exact(width).zip(normed.chunks_exact_mut(width));
        pairs.for_each(|(row, out)| self.apply(isa, row, out));
        normed
    }
}

impl<M: Machine> Layer<M> {
    fn load(
        machine: &M,
        loader: &Loader<'_>,
        settings: &Arc<Settings>,
        index: usize,
    ) -> Result<Self, WeightError> {
        let norm = |part: &str| {
            let norm = loader.norm(&format!("blk.{index}.{part}"), settings, settings.width)?;
            machine.keep_norm(norm).map(Some)
        };
        let norms = |before: &str, after: &str, behind_sum: &str| {
            Ok::<_, WeightError>(match settings.norm_places {
                NormPlaces::Pre => {
                    Norms { before: norm(before)?, after: None, is_after_sum: false }
                }
                NormPlaces::PreAndPost => {
                    Norms { before: norm(before)?, after: norm(after)?, is_after_sum: false }
                }
                NormPlaces::Post => {
                    Norms { before: None, after: norm(behind_sum)?, is_after_sum: true }
                }
            })
        };
        Ok(Self {
            attention: Attention::load(machine, loader, settings, index)?,
            attention_norms: norms("attn_norm", "post_attention_norm", "attn_output_norm")?,
            feed_forward: FeedForward::load(machine, loader, settings, index)?,
            feed_forward_norms: norms("ffn_norm", "post_ffw_norm", "layer_output_norm")?,
        })
    }

    /// All matrices.
    fn stacks(&self) -> Vec<&M::Stack> {
        [self.attention.stacks(), self.feed_forward.stacks()].concat()
    }
}

/// The last matrix of half a layer, and where it is.
struct Last<'a, M: Machine> {
    stack: &'a Arc<M::Stack>,
    layer: usize,
    group: Group,
}

/// The end of half a layer: `inner` through its last matrix, the norm behind it where there is one,
/// and the sum with what went in.
fn close<M: Machine>(
    work: &mut Work<'_, M>,
    norms: &Norms<M>,
    last: &Last<'_, M>,
    inner: M::Rows,
    rows: M::Rows,
) -> Result<M::Rows, ForwardError> {
    let (machine, team) = (work.machine, &mut *work.team);
    let site = Site { mix: &work.mix, layer: last.layer, group: last.group };
    let input = Input { rows: &inner, norm: None, site: Some(site) };
    let last = last.stack;
    let closed = match &norms.after {
        None => machine.project(team, last, input, Some(&rows))?,
        Some(norm) if norms.is_after_sum => {
            let sums = machine.project(team, last, input, Some(&rows))?;
            machine.norm(team, norm, &sums)?
        }
        Some(norm) => {
            let made = machine.project(team, last, input, None)?;
            let normed = machine.norm(team, norm, &made)?;
            machine.add(team, normed, &rows)?
        }
    };
    machine.reuse(team, inner);
    machine.reuse(team, rows);
    Ok(closed)
}
