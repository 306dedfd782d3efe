//! Matrices on a device.
//!
//! Parts of a stack that are stored alike become one matrix, so one product makes their outputs:
//! the rows of a matrix lie one behind the other in the file, and so do those of the next.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{DType, Device, Module, Result, Tensor};

use super::super::load::{Loader, Slice};
use super::refused;
use crate::gguf::TensorType;
use crate::weights::WeightError;

/// Matrices that read the same rows.
#[derive(Debug)]
pub(in super::super) struct DeviceStack {
    matrices: Vec<DeviceMatrix>,
    /// Outputs of each part.
    widths: Vec<usize>,
}

#[derive(Debug)]
struct DeviceMatrix {
    weight: Weight,
    bias: Option<Tensor>,
    size_bytes: usize,
}

#[derive(Debug)]
enum Weight {
    /// The file's own blocks.
    Blocks(QMatMul),
    /// `[outputs, inputs]` numbers; rows are rounded to their type first.
    Numbers(Tensor),
}

/// Parts of one kind, before they are on the device.
struct Pile {
    kind: TensorType,
    outputs: usize,
    bytes: Vec<u8>,
    bias: Vec<f32>,
    has_bias: bool,
}

impl DeviceStack {
    /// Takes parts that read rows of `inputs` numbers out of the file.
    pub(super) fn load(
        device: &Device,
        loader: &Loader<'_>,
        parts: &[Slice<'_>],
        inputs: usize,
    ) -> std::result::Result<Self, WeightError> {
        let mut piles: Vec<Pile> = Vec::new();
        for part in parts {
            let (kind, bytes) = loader.bytes(part, inputs)?;
            let bias = loader.bias(part)?;
            let (outputs, has_bias) = (part.rows.len(), bias.is_some());
            let bias = bias.unwrap_or_else(|| vec![0.0; outputs]);
            match piles.last_mut() {
                Some(pile) if pile.kind == kind => {
                    pile.outputs += outputs;
                    pile.bytes.extend_from_slice(&bytes);
                    pile.bias.extend_from_slice(&bias);
                    pile.has_bias |= has_bias;
                }
                _ => piles.push(Pile { kind, outputs, bytes, bias, has_bias }),
            }
        }
        let name = parts.first().map_or("", |part| part.name);
        let refused = |source| refused(format!("tensor {name:?}"), source);
        let matrices = piles.into_iter().map(|pile| pile.put(device, inputs));
        let matrices = matrices.collect::<Result<_>>().map_err(refused)?;
        Ok(Self { matrices, widths: parts.iter().map(|part| part.rows.len()).collect() })
    }

    /// What each matrix makes of rows.
    pub(super) fn multiply(&self, rows: &Tensor) -> Result<Vec<Tensor>> {
        self.matrices.iter().map(|matrix| matrix.multiply(rows)).collect()
    }

    /// Splits what the matrices made into what the parts make.
    pub(super) fn split(&self, made: &[Tensor]) -> Result<Vec<Tensor>> {
        if made.len() == self.widths.len() {
            return Ok(made.to_vec());
        }
        let joined = if let [one] = made { one.clone() } else { Tensor::cat(made, 1)? };
        let mut start = 0;
        let mut parts = Vec::with_capacity(self.widths.len());
        for &width in &self.widths {
            parts.push(joined.narrow(1, start, width)?.contiguous()?);
            start += width;
        }
        Ok(parts)
    }

    /// Bytes of all matrices.
    pub(super) fn size_bytes(&self) -> usize {
        self.matrices.iter().map(|matrix| matrix.size_bytes).sum()
    }
}

impl Pile {
    fn put(self, device: &Device, inputs: usize) -> Result<DeviceMatrix> {
        let (shape, mut size_bytes) = ((self.outputs, inputs), self.bytes.len());
        let weight = match Form::of(self.kind) {
            Form::Blocks(kind) => {
                let storage = QStorage::from_data(Cow::Owned(self.bytes), device, kind)?;
                let blocks = QTensor::new(storage, shape)?;
                Weight::Blocks(QMatMul::from_arc(Arc::new(blocks))?)
            }
            Form::Numbers(kind) => {
                let numbers =
                    Tensor::from_raw_buffer(&self.bytes, kind, &[shape.0, shape.1], device)?;
                // The processor has no fast product of 16-bit numbers, and devices have one.
                let kind = if device.is_cpu() { DType::F32 } else { kind };
                size_bytes = numbers.elem_count() * kind.size_in_bytes();
                Weight::Numbers(numbers.to_dtype(kind)?)
            }
        };
        let bias = self.has_bias.then(|| Tensor::from_vec(self.bias, self.outputs, device));
        Ok(DeviceMatrix { weight, bias: bias.transpose()?, size_bytes })
    }
}

impl DeviceMatrix {
    fn multiply(&self, rows: &Tensor) -> Result<Tensor> {
        let made = match &self.weight {
            Weight::Blocks(blocks) => blocks.forward(rows)?,
            Weight::Numbers(numbers) => {
                let rows = rows.to_dtype(numbers.dtype())?;
                rows.matmul(&numbers.t()?)?.to_dtype(DType::F32)?
            }
        };
        match &self.bias {
            Some(bias) => made.broadcast_add(bias),
            None => Ok(made),
        }
    }
}

/// How a type lies on a device, under candle's name: as in the file.
enum Form {
    Blocks(GgmlDType),
    Numbers(DType),
}

impl Form {
    fn of(kind: TensorType) -> Self {
        match kind {
            TensorType::F32 => Self::Numbers(DType::F32),
            TensorType::F16 => Self::Numbers(DType::F16),
            TensorType::BF16 => Self::Numbers(DType::BF16),
            TensorType::Q4_0 => Self::Blocks(GgmlDType::Q4_0),
            TensorType::Q4_1 => Self::Blocks(GgmlDType::Q4_1),
            TensorType::Q5_0 => Self::Blocks(GgmlDType::Q5_0),
            TensorType::Q5_1 => Self::Blocks(GgmlDType::Q5_1),
            TensorType::Q8_0 => Self::Blocks(GgmlDType::Q8_0),
            TensorType::Q4K => Self::Blocks(GgmlDType::Q4K),
            TensorType::Q5K => Self::Blocks(GgmlDType::Q5K),
            TensorType::Q6K => Self::Blocks(GgmlDType::Q6K),
        }
    }
}
