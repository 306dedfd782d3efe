//! Tensors out of a file, packed for the kernels: one copy in memory, the file's pages let go.
//!
//! Rows are read in pieces and packed on several threads, so memory beside the packed weights is
//! the pieces alone.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use commons_kernels::matrix::{Matrix, Packer, ROWS_PER_GROUP};

use super::NormWeights;
use super::linear::Linear;
use crate::place::Device;
use crate::settings::{Norm, Settings};
use crate::weights::{WeightError, Weights, check_finite};

/// Bytes of a file that a thread reads at once.
const PIECE_SIZE: usize = 1 << 20;

/// Called with the bytes that were packed since the last call.
pub type OnPacked<'a> = dyn Fn(u64) + Sync + 'a;

/// How weights are loaded.
pub struct LoadOptions<'a> {
    /// On how many threads.
    pub threads: usize,
    /// Hears of progress.
    pub on_packed: &'a OnPacked<'a>,
    /// Where the model is computed.
    pub device: Device,
}

impl std::fmt::Debug for LoadOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut f = f.debug_struct("LoadOptions");
        f.field("threads", &self.threads).field("device", &self.device).finish_non_exhaustive()
    }
}

impl Default for LoadOptions<'_> {
    /// As many threads as the machine has, nobody who listens, and the device that fits best.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { threads, on_packed: &|_| {}, device: Device::Auto }
    }
}

/// Some rows of a tensor: the outputs of a part of a stack.
#[derive(Clone, Debug)]
pub(super) struct Slice<'a> {
    /// The tensor's name, without `.weight`.
    pub(super) name: &'a str,
    pub(super) rows: Range<usize>,
    /// Rows that the tensor has.
    pub(super) rows_all: usize,
}

impl<'a> Slice<'a> {
    /// A whole tensor.
    pub(super) fn all(name: &'a str, rows: usize) -> Self {
        Self { name, rows: 0..rows, rows_all: rows }
    }
}

/// Takes tensors by name.
pub(super) struct Loader<'a> {
    weights: &'a Weights,
    options: &'a LoadOptions<'a>,
}

impl<'a> Loader<'a> {
    pub(super) fn new(weights: &'a Weights, options: &'a LoadOptions<'a>) -> Self {
        Self { weights, options }
    }

    /// A part of a stack that reads rows of `inputs` numbers, packed.
    pub(super) fn part(&self, part: &Slice<'_>, inputs: usize) -> Result<Linear, WeightError> {
        let name = format!("{}.weight", part.name);
        let matrix = Arc::new(self.matrix(&name, part.rows.clone(), part.rows_all, inputs)?);
        Ok(Linear { matrix, bias: self.bias(part)?.map(Arc::new) })
    }

    /// What is added to the outputs of a part, if the file has it.
    pub(super) fn bias(&self, part: &Slice<'_>) -> Result<Option<Vec<f32>>, WeightError> {
        if part.rows.len() < part.rows_all {
            return Ok(None);
        }
        self.weights.optional_vector(&format!("{}.bias", part.name), part.rows_all)
    }

    /// A matrix and its bias, if there is one.
    pub(super) fn linear(
        &self,
        name: &str,
        outputs: usize,
        inputs: usize,
    ) -> Result<Linear, WeightError> {
        self.part(&Slice::all(name, outputs), inputs)
    }

    /// A vector of f32.
    pub(super) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, WeightError> {
        self.weights.vector(name, len)
    }

    /// The weights of a norm: `name.weight`, and `name.bias` where the norm has one.
    pub(super) fn norm(
        &self,
        name: &str,
        settings: &Settings,
        len: usize,
    ) -> Result<NormWeights, WeightError> {
        let weight = self.weights.vector(&format!("{name}.weight"), len)?;
        let bias = match settings.norm {
            Norm::Rms => None,
            Norm::Layer => Some(self.weights.vector(&format!("{name}.bias"), len)?),
        };
        Ok(NormWeights { weight, bias, epsilon: settings.epsilon })
    }

    /// The first row of a table, as f32.
    pub(super) fn first_row(&self, name: &str, width: usize) -> Result<Vec<f32>, WeightError> {
        let rows = self.weights.tensor(name).map_or(1, |facts| facts.rows);
        let table = self.matrix(name, 0..1, rows, width)?;
        let mut row = vec![0.0; width];
        table.dequantise_row(0, &mut row);
        Ok(row)
    }

    /// Rows `rows` of a tensor that has `rows_all` in all, packed.
    pub(super) fn matrix(
        &self,
        name: &str,
        rows: Range<usize>,
        rows_all: usize,
        inputs: usize,
    ) -> Result<Matrix, WeightError> {
        let facts = self.weights.matrix(name, rows_all, inputs)?;
        let format = facts.kind.format();
        let refused = |source| WeightError::Pack { name: name.to_owned(), source };
        let mut packer = Packer::new(format, rows.len(), inputs).map_err(refused)?;
        let row_size = packer.row_size();
        let group_size = row_size * ROWS_PER_GROUP;
        let groups = (PIECE_SIZE / group_size.max(1)).max(1);
        let work = Mutex::new(packer.groups_mut(groups));
        let failure = Mutex::new(None);
        let fill = || {
            let mut bytes = Vec::new();
            loop {
                let next = work.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(piece) = next else { return };
                let at = rows.start + piece.rows().start..rows.start + piece.rows().end;
                bytes.resize(at.len() * row_size, 0);
                let outcome = self.weights.read_rows(name, at.clone(), &mut bytes).and_then(|()| {
                    check_finite(facts.kind, inputs, &bytes).map_err(|row| WeightError::NotFinite {
                        name: name.to_owned(),
                        row: at.start + row,
                    })
                });
                let outcome = outcome.and_then(|()| piece.pack(&bytes).map_err(refused));
                if let Err(error) = outcome {
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    return;
                }
                (self.options.on_packed)(bytes.len() as u64);
            }
        };
        let helpers = self.options.threads.max(1) - 1;
        std::thread::scope(|scope| {
            for _ in 0..helpers.min(rows.len() * row_size / PIECE_SIZE) {
                scope.spawn(fill);
            }
            fill();
        });
        drop(work);
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(packer.finish()),
        }
    }
}

#[cfg(feature = "candle")]
impl Loader<'_> {
    /// The bytes of a part, as the file has them, checked.
    pub(super) fn bytes(
        &self,
        part: &Slice<'_>,
        inputs: usize,
    ) -> Result<(crate::gguf::TensorType, Vec<u8>), WeightError> {
        let name = format!("{}.weight", part.name);
        let facts = self.weights.matrix(&name, part.rows_all, inputs)?;
        let mut bytes = vec![0; facts.row_size() * part.rows.len()];
        self.weights.read_rows(&name, part.rows.clone(), &mut bytes)?;
        check_finite(facts.kind, inputs, &bytes).map_err(|row| WeightError::NotFinite {
            name: name.clone(),
            row: part.rows.start + row,
        })?;
        (self.options.on_packed)(bytes.len() as u64);
        Ok((facts.kind, bytes))
    }
}
