//! Grouped-query attention: several query heads share one key and value head.

use candle_core::{Device, Result, Tensor};
use candle_nn::ops::softmax_last_dim;
use candle_nn::rotary_emb::rope_i;

use super::rope::Rope;
use super::{KvCache, Settings};
use crate::weights::{Matrix, WeightError, Weights};

/// What all layers share about the tokens that go through now.
#[derive(Debug)]
pub(super) struct Span {
    cosines: Tensor,
    sines: Tensor,
    /// Zero where a row may look, minus infinity where not; one row may look everywhere.
    mask: Option<Tensor>,
}

impl Span {
    /// `count` tokens behind `start` others.
    pub(super) fn new(rope: &Rope, start: usize, count: usize) -> Result<Self> {
        let (cosines, sines) = rope.tables(start, count)?;
        let mask = (count > 1).then(|| causal_mask(start, count)).transpose()?;
        Ok(Self { cosines, sines, mask })
    }
}

fn causal_mask(start: usize, count: usize) -> Result<Tensor> {
    let len = start + count;
    let mut mask = vec![0f32; count * len];
    for (row, columns) in mask.chunks_exact_mut(len).enumerate() {
        columns[start + row + 1..].fill(f32::NEG_INFINITY);
    }
    Tensor::from_vec(mask, (count, len), &Device::Cpu)
}

/// A matrix and, in some files, what is added to its outputs.
#[derive(Debug)]
struct Projection {
    matrix: Matrix,
    bias: Option<Tensor>,
}

impl Projection {
    fn load(
        weights: &mut Weights<'_>,
        name: &str,
        dims: [usize; 2],
    ) -> std::result::Result<Self, WeightError> {
        let matrix = weights.matrix(&format!("{name}.weight"), dims)?;
        let bias = weights.optional_vector(&format!("{name}.bias"), dims[0])?;
        Ok(Self { matrix, bias })
    }

    fn forward(&self, rows: &Tensor) -> Result<Tensor> {
        let outputs = self.matrix.forward(rows)?;
        match &self.bias {
            Some(bias) => outputs.broadcast_add(bias),
            None => Ok(outputs),
        }
    }
}

/// The attention part of one layer.
#[derive(Debug)]
pub(super) struct Attention {
    queries: Projection,
    keys: Projection,
    values: Projection,
    output: Projection,
}

impl Attention {
    pub(super) fn load(
        weights: &mut Weights<'_>,
        settings: &Settings,
        layer: usize,
    ) -> std::result::Result<Self, WeightError> {
        let width = settings.width;
        let outer = settings.head_count * settings.head_size;
        let kv_outer = settings.kv_head_count * settings.head_size;
        let mut load = |part, dims| Projection::load(weights, &format!("blk.{layer}.{part}"), dims);
        Ok(Self {
            queries: load("attn_q", [outer, width])?,
            keys: load("attn_k", [kv_outer, width])?,
            values: load("attn_v", [kv_outer, width])?,
            output: load("attn_output", [width, outer])?,
        })
    }

    /// `[rows, width] -> [rows, width]`, storing this layer's keys and values on the way.
    pub(super) fn forward(
        &self,
        rows: &Tensor,
        settings: &Settings,
        span: &Span,
        cache: &mut KvCache,
        layer: usize,
    ) -> Result<Tensor> {
        let (heads, kv_heads) = (settings.head_count, settings.kv_head_count);
        let queries = split_heads(&self.queries.forward(rows)?, heads)?;
        let keys = split_heads(&self.keys.forward(rows)?, kv_heads)?;
        let values = split_heads(&self.values.forward(rows)?, kv_heads)?;
        let queries = turn(&queries, span)?;
        let (keys, values) = cache.store(layer, &turn(&keys, span)?, &values)?;

        let mixed = attend(&queries, &keys, &values, settings.group_size(), span)?;
        let (_, count, _) = mixed.dims3()?;
        let joined = mixed.transpose(0, 1)?.reshape((count, heads * settings.head_size))?;
        self.output.forward(&joined)
    }
}

/// `[rows, heads * size] -> [heads, rows, size]`
fn split_heads(rows: &Tensor, heads: usize) -> Result<Tensor> {
    let (count, width) = rows.dims2()?;
    rows.reshape((count, heads, width / heads))?.transpose(0, 1)?.contiguous()
}

fn turn(heads: &Tensor, span: &Span) -> Result<Tensor> {
    rope_i(&heads.unsqueeze(0)?, &span.cosines, &span.sines)?.squeeze(0)
}

/// `[heads, rows, size]` queries over `[kv heads, positions, size]` keys and values.
fn attend(
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    group_size: usize,
    span: &Span,
) -> Result<Tensor> {
    let (heads, count, size) = queries.dims3()?;
    let (kv_heads, len, _) = keys.dims3()?;
    #[expect(clippy::cast_precision_loss, reason = "a head has at most 2^20 numbers")]
    let scale = 1.0 / (size as f64).sqrt();
    // The heads of a group lie one after the other, so a group is one tall matrix.
    let grouped = (queries.reshape((kv_heads, group_size * count, size))? * scale)?;
    let mut scores = grouped.matmul(&keys.transpose(1, 2)?)?.reshape((heads, count, len))?;
    if let Some(mask) = &span.mask {
        scores = scores.broadcast_add(mask)?;
    }
    let shares = softmax_last_dim(&scores)?.reshape((kv_heads, group_size * count, len))?;
    shares.matmul(values)?.reshape((heads, count, size))
}
