//! Attention on a device: heads prepared, stored and weighed, all sequences of a group at once.
//!
//! ```text
//! joined -> norm heads -> turn -> store | for each group: look up, score, soften, weigh -> order
//! ```

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{ops, rotary_emb};

use super::super::attention::Heads;
use super::DeviceNorm;
use super::pages::LayerPages;
use super::plan::{Group, Plan};
use crate::settings::RopeStyle;

/// What the heads of a layer need besides matrices.
#[derive(Debug)]
pub(in super::super) struct DeviceHeads {
    heads: Heads,
    /// Norms of each query head and each key head.
    norms: Option<[DeviceNorm; 2]>,
}

impl DeviceHeads {
    pub(super) fn new(heads: Heads, norms: Option<[DeviceNorm; 2]>) -> Self {
        Self { heads, norms }
    }

    /// Stores keys and values of `joined` and gives what its queries take.
    pub(super) fn attend(
        &self,
        device: &Device,
        plan: &mut Plan,
        pages: &LayerPages,
        joined: &Tensor,
    ) -> Result<Tensor> {
        let settings = &self.heads.settings;
        let (heads, kv_heads) = (settings.head_count, settings.kv_head_count);
        let (count, size, group) = (joined.dim(0)?, settings.head_size, settings.group_size());
        let joined = joined.reshape((count, heads + 2 * kv_heads, size))?;
        let turned = self.prepare(plan, &joined.narrow(1, 0, heads + kv_heads)?)?;
        let keys = turned.narrow(1, heads, kv_heads)?;
        let values = joined.narrow(1, heads + kv_heads, kv_heads)?;
        let targets = plan.targets(device, settings)?;
        for (store, rows) in [(&pages.keys, keys), (&pages.values, values)] {
            // [rows, heads, size] -> [heads, rows, size]
            let rows = rows.transpose(0, 1)?.to_dtype(store.dtype())?.contiguous()?;
            store.scatter_set(&targets, &rows, 1)?;
        }
        let queries = turned.narrow(1, 0, heads)?.contiguous()?;
        let queries = queries.reshape((count, kv_heads, group * size))?;
        let queries = queries.transpose(0, 1)?.contiguous()?;
        let queries = (queries * f64::from(settings.attention_scale))?;
        let view = plan.view(device, settings, self.heads.window)?;
        let mixed = view.groups.iter().map(|group| self.weigh(group, pages, &queries));
        let mixed = mixed.collect::<Result<Vec<_>>>()?;
        let mixed = if let [one] = &*mixed { one.clone() } else { Tensor::cat(&mixed, 1)? };
        let mixed = match &view.order {
            Some(order) => mixed.index_select(order, 1)?,
            None => mixed,
        };
        // [kv_heads, rows, group * size] -> [rows, heads * size]
        mixed.transpose(0, 1)?.contiguous()?.reshape((count, heads * size))
    }

    /// Norms heads of queries and keys, and turns them: `[rows, heads + kv_heads, size]`.
    fn prepare(&self, plan: &Plan, both: &Tensor) -> Result<Tensor> {
        let settings = &self.heads.settings;
        let both = match &self.norms {
            Some([queries, keys]) => {
                let (heads, kv_heads) = (settings.head_count, settings.kv_head_count);
                let queries = queries.apply(&both.narrow(1, 0, heads)?)?;
                let keys = keys.apply(&both.narrow(1, heads, kv_heads)?)?;
                Tensor::cat(&[queries, keys], 1)?
            }
            None => both.contiguous()?,
        };
        match self.heads.rope {
            Some(rope) => turn(&both, plan.turns(rope), settings.ropes[rope].style),
            None => Ok(both),
        }
    }

    /// What the queries of a group take: `[kv_heads, tiles * rows, group * size]`.
    fn weigh(&self, group: &Group, pages: &LayerPages, queries: &Tensor) -> Result<Tensor> {
        let settings = &self.heads.settings;
        let (kv_heads, size) = (settings.kv_head_count, settings.head_size);
        let (tiles, rows, len) = group.shape;
        let shared = settings.group_size();
        let queries = queries.index_select(&group.rows, 1)?;
        let queries = queries.reshape((kv_heads, tiles, rows * shared, size))?;
        let look_up = |store: &Tensor| {
            let found = store.index_select(&group.slots, 1)?.to_dtype(DType::F32)?;
            found.reshape((kv_heads, tiles, len, size))
        };
        let (keys, values) = (look_up(&pages.keys)?, look_up(&pages.values)?);
        let mut scores = queries.matmul(&keys.t()?)?;
        if let Some(cap) = settings.attention_softcap {
            let cap = f64::from(cap);
            scores = ((scores / cap)?.tanh()? * cap)?;
        }
        let scores = scores.reshape((kv_heads, tiles, rows, shared, len))?;
        let weights = ops::softmax_last_dim(&scores.broadcast_add(&group.mask)?)?;
        let weights = weights.reshape((kv_heads, tiles, rows * shared, len))?;
        weights.matmul(&values)?.reshape((kv_heads, tiles * rows, shared * size))
    }
}

/// Turns the first pairs of each head, `[rows, heads, size]`, by the cosines and sines of its row.
fn turn(both: &Tensor, [cosines, sines]: &[Tensor; 2], style: RopeStyle) -> Result<Tensor> {
    let (count, heads, size) = both.dims3()?;
    let pairs = cosines.dim(1)?;
    let turning = both.narrow(2, 0, 2 * pairs)?.contiguous()?;
    let turned = match style {
        RopeStyle::Split => {
            rotary_emb::rope_thd(&turning.unsqueeze(0)?, cosines, sines)?.squeeze(0)?
        }
        RopeStyle::Interleaved => {
            let turning = turning.reshape((count, heads, pairs, 2))?;
            let (x, y) = (turning.narrow(3, 0, 1)?, turning.narrow(3, 1, 1)?);
            let (cosines, sines) =
                (cosines.reshape((count, 1, pairs, 1))?, sines.reshape((count, 1, pairs, 1))?);
            let first = (x.broadcast_mul(&cosines)? - y.broadcast_mul(&sines)?)?;
            let second = (x.broadcast_mul(&sines)? + y.broadcast_mul(&cosines)?)?;
            Tensor::cat(&[first, second], 3)?.reshape((count, heads, 2 * pairs))?
        }
    };
    if 2 * pairs == size {
        return Ok(turned);
    }
    Tensor::cat(&[turned, both.narrow(2, 2 * pairs, size - 2 * pairs)?], 2)
}
