//! The steps of a forward pass on a device, through candle: CUDA, Metal, or the processor for tests.
//!
//! Matrices lie on the device in the file's own blocks; rows are f32 and stay there from the
//! embedding to the last layer. A layer copies nothing to or from the device, except that a mixture
//! of experts has its router's scores read.
//!
//! ```text
//! candle.rs: matrices, norms, sums | plan.rs: what a batch looks up | attention.rs, pages.rs
//! ```
//!
//! # Invariants
//!
//! * No family is known here: the flow is that of `forward.rs`, the spans and turns of a row those
//!   of [`Batch`].
//! * Results are those of our own kernels within a tolerance, not to the bit: sums run in the
//!   device's order, and may depend on the batch. The class says so (`candle/tol`).

mod attention;
mod pages;
mod plan;
mod stack;

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::ops;

use super::attention::{Batch, Heads};
use super::experts::Share;
use super::linear::Linear;
use super::load::{Loader, Slice};
use super::machine::{Input, Machine, Work};
use super::{ForwardError, NormWeights};
use crate::cache::{KvError, KvFormat};
use crate::place::available;
use crate::settings::{Activation, Settings};
use crate::team::Team;
use crate::weights::WeightError;
use attention::DeviceHeads;
pub(crate) use pages::DevicePages;
pub(super) use pages::page_bytes;
use plan::Plan;
use stack::DeviceStack;

/// A device that computes.
#[derive(Debug)]
pub(super) struct Candle {
    device: Device,
}

/// The weights of a norm, on the device.
#[derive(Debug)]
pub(super) struct DeviceNorm {
    weight: Tensor,
    bias: Option<Tensor>,
    epsilon: f32,
}

impl From<candle_core::Error> for ForwardError {
    fn from(error: candle_core::Error) -> Self {
        Self::Device { source: Box::new(error) }
    }
}

impl Candle {
    pub(super) fn new(device: Device) -> Self {
        Self { device }
    }

    /// Waits until the device has everything: each thread has a queue of its own there, and another
    /// one computes than loads.
    pub(super) fn settle(&self) -> Result<(), WeightError> {
        self.device.synchronize().map_err(|source| refused("a model".to_owned(), source))
    }

    /// Bytes that are free on the device.
    pub(super) fn memory_available(&self) -> Option<u64> {
        available(&self.device)
    }

    /// Room for `page_count` pages of keys and values.
    pub(super) fn pages(
        &self,
        settings: &Settings,
        format: KvFormat,
        page_count: usize,
    ) -> Result<DevicePages, KvError> {
        DevicePages::new(&self.device, settings, format, page_count)
    }

    fn vector(&self, values: &[f32]) -> Result<Tensor, WeightError> {
        Tensor::from_slice(values, values.len(), &self.device)
            .map_err(|source| refused("a norm".to_owned(), source))
    }

    /// For each share, its row.
    fn rows_of(&self, shares: &[Share]) -> candle_core::Result<Tensor> {
        let rows = shares.iter().map(|it| u32::try_from(it.row).unwrap_or(u32::MAX));
        Tensor::from_vec(rows.collect::<Vec<_>>(), shares.len(), &self.device)
    }
}

impl DeviceNorm {
    /// Norms rows: the last dimension is a row.
    fn apply(&self, rows: &Tensor) -> candle_core::Result<Tensor> {
        let rows = rows.contiguous()?;
        match &self.bias {
            None => ops::rms_norm(&rows, &self.weight, self.epsilon),
            Some(bias) => ops::layer_norm(&rows, &self.weight, bias, self.epsilon),
        }
    }
}

/// The device did not take something.
fn refused(what: String, source: candle_core::Error) -> WeightError {
    WeightError::Device { what, source: Box::new(source) }
}

/// `kind(x)`.
fn activate(kind: Activation, rows: &Tensor) -> candle_core::Result<Tensor> {
    match kind {
        Activation::Silu => rows.silu(),
        Activation::GeluTanh => rows.gelu(),
        Activation::GeluErf => rows.gelu_erf(),
    }
}

impl Machine for Candle {
    fn adapts(&self) -> bool {
        false
    }

    type Rows = Tensor;
    type Stack = DeviceStack;
    type Norm = DeviceNorm;
    type Heads = DeviceHeads;
    type Pages = DevicePages;
    type Plan = Plan;

    fn stack(
        &self,
        loader: &Loader<'_>,
        parts: &[Slice<'_>],
        inputs: usize,
    ) -> Result<Arc<DeviceStack>, WeightError> {
        DeviceStack::load(&self.device, loader, parts, inputs).map(Arc::new)
    }

    fn tied(
        &self,
        loader: &Loader<'_>,
        table: &Linear,
        name: &str,
    ) -> Result<Arc<DeviceStack>, WeightError> {
        self.stack(loader, &[Slice::all(name, table.outputs())], table.matrix.columns())
    }

    fn size_bytes(&self, stack: &DeviceStack, _: &Linear) -> usize {
        stack.size_bytes()
    }

    fn keep_norm(&self, norm: NormWeights) -> Result<Arc<DeviceNorm>, WeightError> {
        let weight = self.vector(&norm.weight)?;
        let bias = norm.bias.map(|bias| self.vector(&bias)).transpose()?;
        Ok(Arc::new(DeviceNorm { weight, bias, epsilon: norm.epsilon }))
    }

    fn keep_heads(&self, heads: Heads) -> Result<Arc<DeviceHeads>, WeightError> {
        let epsilon = heads.settings.epsilon;
        let norm = |weight: &Vec<f32>| {
            Ok::<_, WeightError>(DeviceNorm { weight: self.vector(weight)?, bias: None, epsilon })
        };
        let norms = match &heads.head_norms {
            Some([queries, keys]) => Some([norm(queries)?, norm(keys)?]),
            None => None,
        };
        Ok(Arc::new(DeviceHeads::new(heads, norms)))
    }

    fn plan(&self, batch: Batch) -> Result<Plan, ForwardError> {
        Ok(Plan::new(&self.device, batch)?)
    }

    fn upload(&self, rows: Vec<f32>, width: usize) -> Result<Tensor, ForwardError> {
        let count = rows.len() / width;
        Ok(Tensor::from_vec(rows, (count, width), &self.device)?)
    }

    fn download(
        &self,
        _: &mut Team,
        rows: Tensor,
        chosen: &[Range<usize>],
        _: usize,
    ) -> Result<Vec<f32>, ForwardError> {
        let indexes = chosen.iter().flat_map(Clone::clone);
        let indexes: Vec<u32> = indexes.map(|row| u32::try_from(row).unwrap_or(u32::MAX)).collect();
        if indexes.is_empty() {
            return Ok(Vec::new());
        }
        let count = indexes.len();
        let indexes = Tensor::from_vec(indexes, count, &self.device)?;
        self.download_all(rows.index_select(&indexes, 0)?)
    }

    fn download_all(&self, rows: Tensor) -> Result<Vec<f32>, ForwardError> {
        Ok(rows.flatten_all()?.to_vec1()?)
    }

    fn project(
        &self,
        _: &mut Team,
        stack: &Arc<DeviceStack>,
        input: Input<'_, Self>,
        onto: Option<&Tensor>,
    ) -> Result<Tensor, ForwardError> {
        let made = stack.multiply(&normed(&input)?)?;
        let made = if let [one] = &*made { one.clone() } else { Tensor::cat(&made, 1)? };
        Ok(match onto {
            Some(onto) => (made + onto)?,
            None => made,
        })
    }

    fn inner(
        &self,
        _: &mut Team,
        stack: &Arc<DeviceStack>,
        input: Input<'_, Self>,
        kind: Activation,
    ) -> Result<Tensor, ForwardError> {
        let made = stack.multiply(&normed(&input)?)?;
        let halves = stack.split(&made)?;
        let gates = activate(kind, &halves[0])?;
        Ok(match halves.get(1) {
            Some(ups) => (gates * ups)?,
            None => gates,
        })
    }

    fn attend(
        work: &mut Work<'_, Self>,
        heads: &Arc<DeviceHeads>,
        joined: Tensor,
        layer: usize,
    ) -> Result<Tensor, ForwardError> {
        let (plan, pages) = (&mut work.plan, work.pages.layer(layer));
        Ok(heads.attend(&work.machine.device, plan, pages, &joined)?)
    }

    fn norm(&self, _: &mut Team, norm: &DeviceNorm, rows: &Tensor) -> Result<Tensor, ForwardError> {
        Ok(norm.apply(rows)?)
    }

    fn add(&self, _: &mut Team, to: Tensor, what: &Tensor) -> Result<Tensor, ForwardError> {
        Ok((to + what)?)
    }

    fn pick(&self, rows: &Tensor, shares: &[Share], _: usize) -> Result<Tensor, ForwardError> {
        Ok(rows.index_select(&self.rows_of(shares)?, 0)?)
    }

    fn add_shares(
        &self,
        sums: Tensor,
        made: &Tensor,
        shares: &[Share],
        _: usize,
    ) -> Result<Tensor, ForwardError> {
        let weights: Vec<f32> = shares.iter().map(|it| it.weight).collect();
        let weights = Tensor::from_vec(weights, (shares.len(), 1), &self.device)?;
        let made = made.broadcast_mul(&weights)?;
        Ok(sums.index_add(&self.rows_of(shares)?, &made, 0)?)
    }

    fn reuse(&self, _: &mut Team, _: Tensor) {}
}

fn normed(input: &Input<'_, Candle>) -> candle_core::Result<Tensor> {
    match input.norm {
        Some(norm) => norm.apply(input.rows),
        None => input.rows.contiguous(),
    }
}

/// How keys and values are stored: 8 bits are kept in 16, which no device computes slower.
fn kv_type(format: KvFormat) -> DType {
    match format {
        KvFormat::F32 => DType::F32,
        KvFormat::F16 | KvFormat::Q8 => DType::F16,
    }
}
