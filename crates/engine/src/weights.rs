//! Weights out of a model file, each taken once and checked against the shape that is expected.
//!
//! Quantised matrices are multiplied as they lie in the file. F32, F16 and BF16 matrices are widened
//! to f32 once, at load, up to [`WIDENED_SIZE_MAX`].
//!
//! Not here: which tensors a family has (`llama.rs`).

use std::collections::BTreeSet;
use std::sync::Arc;

use candle_core::quantized::QTensor;
use candle_core::{Device, Tensor};

use crate::gguf::{Gguf, TensorInfo, TensorType};
use crate::mapped::MappedFile;

/// How many bytes of f32 copies of floating-point matrices one model may have.
///
/// Measured on 2 busy cores with [2048 x 5632] (`tests/it/speed.rs`), milliseconds a product:
///
/// | rows | F32 wide | F32 compact | F16 wide | F16 compact | BF16 wide | BF16 compact |
/// |---|---|---|---|---|---|---|
/// | 1 | 6.0 | 3.1 | 4.0 | 47 | 4.1 | 14 |
/// | 4 | 26 | 12 | 19 | 182 | 26 | 48 |
/// | 128 | 163 | 309 | 116 | 5 569 | 150 | 1 437 |
///
/// So 16-bit floats are worth their copy at any size that fits. 8 GiB holds the copy of a model of
/// two thousand million parameters; larger ones are served quantised by anybody without a GPU, and
/// here from the compact form, slowly, rather than not at all.
pub const WIDENED_SIZE_MAX: u64 = 8 << 30;

/// Up to this many rows F32 is multiplied faster as it lies in the file: see the table.
const FEW_ROWS: usize = 4;

/// Why a tensor could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum WeightError {
    #[error("the file has no tensor {name:?}; it is not a complete model, fetch another")]
    Missing { name: String },

    #[error("tensor {name:?} has the shape {found:?}, the model's settings need {wanted:?}")]
    Shape { name: String, found: Vec<usize>, wanted: Vec<usize> },

    #[error("tensor {name:?} belongs to nothing that this family computes; refused, not ignored")]
    Unknown { name: String },

    #[error("failed to build tensor {name:?}")]
    Build { name: String, source: candle_core::Error },
}

/// A matrix that rows are multiplied with.
#[derive(Clone, Debug)]
pub(crate) enum Matrix {
    /// Numbers of 32 bits, `[outputs, inputs]`; and the same in the file, if it has them so.
    Wide(Tensor, Option<Arc<QTensor>>),
    /// Numbers as they lie in the file.
    Blocks(Arc<QTensor>),
}

impl Matrix {
    /// `[rows, inputs] -> [rows, outputs]`
    pub(crate) fn forward(&self, rows: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Wide(matrix, None) => rows.matmul(&matrix.t()?),
            Self::Wide(matrix, Some(_)) if rows.dim(0)? > FEW_ROWS => rows.matmul(&matrix.t()?),
            Self::Wide(_, Some(matrix)) | Self::Blocks(matrix) => {
                rows.apply_op1_no_bwd(matrix.as_ref())
            }
        }
    }
}

/// Hands out the tensors of one file and remembers which were taken.
#[derive(Debug)]
pub(crate) struct Weights<'a> {
    file: &'a MappedFile,
    gguf: &'a Gguf,
    taken: BTreeSet<String>,
    widens: bool,
}

impl<'a> Weights<'a> {
    pub(crate) fn new(file: &'a MappedFile, gguf: &'a Gguf) -> Self {
        let floats = gguf.tensors().values().filter(|info| is_float(info.kind()));
        let size = floats.map(|info| info.element_count().saturating_mul(4)).sum::<u64>();
        Self { file, gguf, taken: BTreeSet::new(), widens: size <= WIDENED_SIZE_MAX }
    }

    /// Whether the file has this tensor.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.gguf.tensors().contains_key(name)
    }

    /// A matrix to multiply with, `[outputs, inputs]`.
    pub(crate) fn matrix(&mut self, name: &str, dims: [usize; 2]) -> Result<Matrix, WeightError> {
        let info = self.take(name, &dims)?;
        let blocks = self.blocks(name, info)?;
        if is_float(info.kind()) && self.widens {
            let wide = widen(name, &blocks)?;
            let is_f32 = info.kind() == TensorType::F32;
            return Ok(Matrix::Wide(wide, is_f32.then(|| Arc::new(blocks))));
        }
        Ok(Matrix::Blocks(Arc::new(blocks)))
    }

    /// A table to look rows up in. It is never widened: only the rows that are asked for are.
    pub(crate) fn table(&mut self, name: &str, dims: [usize; 2]) -> Result<QTensor, WeightError> {
        let info = self.take(name, &dims)?;
        self.blocks(name, info)
    }

    /// A vector of f32.
    pub(crate) fn vector(&mut self, name: &str, len: usize) -> Result<Tensor, WeightError> {
        let info = self.take(name, &[len])?;
        widen(name, &self.blocks(name, info)?)
    }

    /// A vector of f32, if the file has it.
    pub(crate) fn optional_vector(
        &mut self,
        name: &str,
        len: usize,
    ) -> Result<Option<Tensor>, WeightError> {
        self.has(name).then(|| self.vector(name, len)).transpose()
    }

    /// Refuses a file with a tensor that nobody took: ignoring one would compute another model.
    pub(crate) fn finish(self) -> Result<(), WeightError> {
        match self.gguf.tensors().keys().find(|name| !self.taken.contains(*name)) {
            Some(name) => Err(WeightError::Unknown { name: name.clone() }),
            None => Ok(()),
        }
    }

    fn take(&mut self, name: &str, dims: &[usize]) -> Result<&'a TensorInfo, WeightError> {
        let Some(info) = self.gguf.tensors().get(name) else {
            return Err(WeightError::Missing { name: name.to_owned() });
        };
        if info.dims() != dims {
            let (found, wanted) = (info.dims().to_vec(), dims.to_vec());
            return Err(WeightError::Shape { name: name.to_owned(), found, wanted });
        }
        self.taken.insert(name.to_owned());
        Ok(info)
    }

    fn blocks(&self, name: &str, info: &TensorInfo) -> Result<QTensor, WeightError> {
        self.file.tensor(info).map_err(|source| build_error(name, source))
    }
}

fn widen(name: &str, blocks: &QTensor) -> Result<Tensor, WeightError> {
    blocks.dequantize(&Device::Cpu).map_err(|source| build_error(name, source))
}

fn build_error(name: &str, source: candle_core::Error) -> WeightError {
    WeightError::Build { name: name.to_owned(), source }
}

fn is_float(kind: TensorType) -> bool {
    matches!(kind, TensorType::F32 | TensorType::F16 | TensorType::BF16)
}
