//! Why a model's weights cannot be used: what is wrong, where, and what to do.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use commons_kernels::matrix::MatrixError;

use crate::gguf::{GgufError, TensorType};
use crate::settings::SettingsError;

/// Why a model's weights cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum WeightError {
    #[error("failed to open {}", path.display())]
    Open { path: PathBuf, source: io::Error },

    #[error("{} has no name in UTF-8", path.display())]
    Name { path: PathBuf },

    #[error("{} is not a model file that can be used", path.display())]
    Gguf { path: PathBuf, source: Box<GgufError> },

    #[error(
        "the header of {} is longer than {limit} bytes, which no model needs", path.display()
    )]
    HeaderSize { path: PathBuf, limit: u64 },

    #[error("{} is part of a model in {count} files; join them into one first", path.display())]
    Split { path: PathBuf, count: u64 },

    #[error("the settings of {} cannot be used", path.display())]
    Settings { path: PathBuf, source: Box<SettingsError> },

    #[error("{} is damaged: {what}; fetch it again", path.display())]
    Safetensors { path: PathBuf, what: String },

    #[error("{} is not a list of weights that can be used: {what}", path.display())]
    Index { path: PathBuf, what: String },

    #[error(
        "tensor {name:?} in {} has the type {found}, which is not supported; \
         supported: F32, F16, BF16", path.display()
    )]
    Dtype { path: PathBuf, name: String, found: String },

    #[error("{} has neither model.safetensors nor model.safetensors.index.json", path.display())]
    NoWeights { path: PathBuf },

    #[error("the file has no tensor {name:?}; it is not a complete model, fetch another")]
    Missing { name: String },

    #[error("the header was let go; open the model again to name its content")]
    NoHeader,

    #[error("tensor {name:?} has the shape {found:?}, the model's settings need {wanted:?}")]
    Shape { name: String, found: [usize; 2], wanted: [usize; 2] },

    #[error("tensor {name:?} belongs to nothing that this family computes; refused, not ignored")]
    Unknown { name: String },

    #[error("tensors {first:?} and {second:?} are the same part of the model; one is too many")]
    Twice { first: String, second: String },

    #[error("tensor {name:?} is a vector of {kind}; vectors are F32, F16 or BF16")]
    VectorKind { name: String, kind: TensorType },

    #[error(
        "tensor {name:?} holds a number that is not finite in row {row}; \
         the file is damaged, fetch it again"
    )]
    NotFinite { name: String, row: usize },

    #[error(
        "{what} cannot be put on the device; see that its memory is free, or use the processor"
    )]
    Device { what: String, source: Box<dyn std::error::Error + Send + Sync> },

    #[error("tensor {name:?} cannot be packed")]
    Pack { name: String, source: MatrixError },

    #[error("rows {rows:?} of tensor {name:?} do not fit the tensor or the {size} bytes given")]
    Rows { name: String, rows: Range<usize>, size: usize },

    #[error("failed to read tensor {name:?} from {}", path.display())]
    Read { name: String, path: PathBuf, source: io::Error },

    #[error("failed to read {} to hash it", path.display())]
    Hash { path: PathBuf, source: io::Error },
}

pub(super) fn open(path: &Path, source: io::Error) -> WeightError {
    WeightError::Open { path: path.to_owned(), source }
}
