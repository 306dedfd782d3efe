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
//! * The result of a row depends on its own sequence alone: not on the batch, the chunk it came in,
//!   the threads or the instruction set. All arithmetic is that of `commons-kernels`.
//! * Every tensor of the file is used, and everything used is in the file.
//!
//! Not here: which rows make a batch (`commons-schedule`), sampling (`commons-verify`), files
//! (`weights.rs`).

mod attention;
mod experts;
mod feed;
mod linear;
mod load;
mod reader;

use std::sync::Arc;

use commons_kernels::norm::LayerNorm;
use commons_kernels::{Isa, exp, norm};

pub use load::{LoadOptions, OnPacked};

use crate::cache::{Cache, PAGE_LEN};
use crate::settings::{ModelKind, NormPlaces, Settings};
use crate::team::Team;
use crate::weights::{WeightError, Weights};
use attention::{Attention, Batch};
use feed::FeedForward;
use linear::{Linear, Stack};
use load::Loader;
use reader::Reader;

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
}

/// A model's weights, ready to compute.
#[derive(Debug)]
pub struct Transformer {
    settings: Arc<Settings>,
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: Option<Arc<NormWeights>>,
    output: Option<Arc<Stack>>,
}

/// How ids become rows.
#[derive(Debug)]
struct Embedding {
    tokens: Linear,
    /// Rows of positions, and the row of the first token type: encoders have them.
    positions: Option<Linear>,
    kind: Option<Vec<f32>>,
    norm: Option<Arc<NormWeights>>,
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
struct Layer {
    attention: Attention,
    attention_norms: Norms,
    feed_forward: FeedForward,
    feed_forward_norms: Norms,
}

/// The norms around one half of a layer.
#[derive(Debug)]
struct Norms {
    before: Option<Arc<NormWeights>>,
    after: Option<Arc<NormWeights>>,
    /// Whether the norm behind comes after the addition.
    is_after_sum: bool,
}

impl Transformer {
    /// Takes the weights that `settings` asks for out of the file and packs them.
    pub fn load(
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
                Some(Arc::new(Stack::new(vec![embedding.tokens.clone()])))
            }
            ModelKind::Decoder => {
                Some(loader.stack(&[("output", settings.token_count)], settings.width)?)
            }
        };
        let layers = (0..settings.layer_count).map(|index| Layer::load(&loader, &settings, index));
        let layers = layers.collect::<Result<_, _>>()?;
        weights.finish()?;
        Ok(Self { settings, embedding, layers, norm, output })
    }

    /// What the file says about the model.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How many bytes its weights take in memory.
    pub fn size_bytes(&self) -> usize {
        let layers = self.layers.iter().map(Layer::size_bytes).sum::<usize>();
        let is_tied = |output: &&Arc<Stack>| {
            Arc::ptr_eq(&output.parts()[0].matrix, &self.embedding.tokens.matrix)
        };
        let output = self.output.as_ref().filter(|output| !is_tied(output));
        layers + output.map_or(0, |output| output.size_bytes()) + self.embedding.size_bytes()
    }

    /// Puts a batch through: stores the keys and values of its tokens, and returns the wanted rows
    /// behind the last layer, in the order of the batch: what [`Self::norm`] takes.
    pub fn forward(
        &self,
        team: &mut Team,
        cache: &mut Cache,
        segments: &[Segment<'_>],
    ) -> Result<Vec<f32>, ForwardError> {
        self.check(cache, segments)?;
        let batch = Arc::new(Batch::new(&self.settings, segments));
        let mut rows = Arc::new(self.embedding.rows(team.isa(), &self.settings, segments));
        for (index, layer) in self.layers.iter().enumerate() {
            let norms = &layer.attention_norms;
            let mixed = layer.attention.forward(team, cache, norms, (&batch, &rows), index);
            rows = close(team, norms, layer.attention.output(), Arc::new(mixed), rows);
            rows = layer.feed_forward.forward(team, &layer.feed_forward_norms, rows);
        }
        Ok(self.choose(team, segments, rows))
    }

    fn check(&self, cache: &Cache, segments: &[Segment<'_>]) -> Result<(), ForwardError> {
        let count = self.settings.token_count;
        let context_len = self.settings.context_len;
        for segment in segments {
            let Some(last) = segment.tokens.len().checked_sub(1) else {
                return Err(ForwardError::Empty);
            };
            if let Some(&id) = segment.tokens.iter().find(|&&id| id as usize >= count) {
                return Err(ForwardError::UnknownToken { id, count });
            }
            let position = segment.start + last;
            if position >= context_len {
                return Err(ForwardError::ContextFull { position, context_len });
            }
            let known = segment.pages.iter().take_while(|&&page| cache.has(page)).count();
            let held = known * PAGE_LEN;
            if position >= held {
                return Err(ForwardError::NoPage { position, held });
            }
        }
        if segments.is_empty() { Err(ForwardError::Empty) } else { Ok(()) }
    }

    /// The rows that somebody wants.
    fn choose(&self, team: &mut Team, segments: &[Segment<'_>], rows: Rows) -> Vec<f32> {
        let width = self.settings.width;
        let (mut end, mut chosen) = (0, Vec::new());
        for segment in segments {
            end += segment.tokens.len();
            let from = end - segment.wanted.min(segment.tokens.len());
            chosen.extend_from_slice(&rows[from * width..end * width]);
        }
        team.reuse(rows);
        chosen
    }

    /// Rows behind the last layer, normed: hidden states, and what [`Self::logits`] takes.
    pub fn norm(&self, isa: Isa, rows: &[f32]) -> Vec<f32> {
        match &self.norm {
            Some(norm) => norm.apply_rows(isa, rows, self.settings.width),
            None => rows.to_vec(),
        }
    }

    /// The logits behind each of some normed rows. An encoder has none.
    pub fn logits(&self, team: &mut Team, rows: &[f32]) -> Vec<f32> {
        let Some(output) = self.output.as_ref().filter(|_| !rows.is_empty()) else {
            return Vec::new();
        };
        let reader = Reader::new(&Arc::new(rows.to_vec()), None, output);
        let mut logits = linear::project(team, output, reader, None);
        if let Some(cap) = self.settings.logit_softcap {
            exp::softcap(team.isa(), &mut logits, cap);
        }
        logits
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

    fn apply_rows(&self, isa: Isa, rows: &[f32], width: usize) -> Vec<f32> {
        let mut normed = vec![0.0; rows.len()];
        let pairs = rows.chunks_exact(width).zip(normed.chunks_exact_mut(width));
        pairs.for_each(|(row, out)| self.apply(isa, row, out));
        normed
    }
}

impl Layer {
    fn load(
        loader: &Loader<'_>,
        settings: &Arc<Settings>,
        index: usize,
    ) -> Result<Self, WeightError> {
        let norm = |part: &str| {
            loader.norm(&format!("blk.{index}.{part}"), settings, settings.width).map(Some)
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
            attention: Attention::load(loader, settings, index)?,
            attention_norms: norms("attn_norm", "post_attention_norm", "attn_output_norm")?,
            feed_forward: FeedForward::load(loader, settings, index)?,
            feed_forward_norms: norms("ffn_norm", "post_ffw_norm", "layer_output_norm")?,
        })
    }

    fn size_bytes(&self) -> usize {
        self.attention.size_bytes() + self.feed_forward.size_bytes()
    }
}

/// The end of half a layer: `inner` through its last matrix, the norm behind it where there is one,
/// and the sum with what went in.
fn close(team: &mut Team, norms: &Norms, last: &Arc<Stack>, inner: Rows, rows: Rows) -> Rows {
    let reader = Reader::new(&inner, None, last);
    let width = last.widths().iter().sum::<usize>();
    let isa = team.isa();
    let closed = match &norms.after {
        None => linear::project(team, last, reader, Some(Arc::clone(&rows))),
        Some(norm) if norms.is_after_sum => {
            let sums = linear::project(team, last, reader, Some(Arc::clone(&rows)));
            norm.apply_rows(isa, &sums, width)
        }
        Some(norm) => {
            let made = linear::project(team, last, reader, None);
            let mut sums = norm.apply_rows(isa, &made, width);
            norm::add(isa, &mut sums, &rows);
            sums
        }
    };
    team.reuse(inner);
    team.reuse(rows);
    Arc::new(closed)
}
