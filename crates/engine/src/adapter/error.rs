//! Why an adapter cannot be used: what is wrong, where, and what to do.

use std::io;
use std::path::PathBuf;

use commons_kernels::adapt::AdaptError;

use crate::gguf::GgufError;
use crate::weights::WeightError;

/// Why an adapter cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum AdapterError {
    #[error("failed to open {}", path.display())]
    Open { path: PathBuf, source: io::Error },

    #[error("{} has no name in UTF-8", path.display())]
    Name { path: PathBuf },

    #[error(
        "{} is a pickle file, which runs code when it is read, and was not opened; \
         convert it to safetensors or GGUF", path.display()
    )]
    Pickle { path: PathBuf },

    #[error("{} has no {wanted}; an adapter's folder needs it, fetch all of it", path.display())]
    Incomplete { path: PathBuf, wanted: &'static str },

    #[error("{} is not a configuration that can be used: {what}", path.display())]
    Config { path: PathBuf, what: String },

    #[error("{} says `{key}` is {found}; {wanted}", path.display())]
    Unsupported { path: PathBuf, key: &'static str, found: String, wanted: &'static str },

    #[error(
        "the pattern {pattern:?} of `{key}` in {} is not a plain name or agrees with another that \
         says otherwise; write one plain name for each module", path.display()
    )]
    Pattern { path: PathBuf, key: &'static str, pattern: String },

    #[error("{} is not a GGUF file that can be used", path.display())]
    Gguf { path: PathBuf, source: Box<GgufError> },

    #[error("the file of the adapter cannot be used")]
    File(#[source] Box<WeightError>),

    #[error(
        "{} is not an adapter: `general.type` is {found:?}, not \"adapter\"; load it as a model",
        path.display()
    )]
    NotAdapter { path: PathBuf, found: String },

    #[error(
        "{} was made for {found:?} and the base is {wanted:?}; use an adapter of this base",
        path.display()
    )]
    Architecture { path: PathBuf, found: String, wanted: String },

    #[error("{} has no tensor of an adapter; fetch it again", path.display())]
    Empty { path: PathBuf },

    #[error(
        "tensor {name:?} in {} belongs to no site that can be adapted (q, k, v, o, gate, up, down \
         of a dense layer); train without it", path.display()
    )]
    Site { path: PathBuf, name: String },

    #[error(
        "tensor {name:?} in {} is of layer {layer}, and the base has {count}; use an adapter of \
         this base", path.display()
    )]
    Layer { path: PathBuf, name: String, layer: usize, count: usize },

    #[error("tensors {first:?} and {second:?} in {} are the same; one is too many", path.display())]
    Twice { path: PathBuf, first: String, second: String },

    #[error("tensor {name:?} in {} has no {wanted} beside it; fetch the file again", path.display())]
    Half { path: PathBuf, name: String, wanted: &'static str },

    #[error(
        "tensor {name:?} in {} has the rank {rank}; accepted are 1 to {max}", path.display()
    )]
    Rank { path: PathBuf, name: String, rank: usize, max: usize },

    #[error(
        "tensor {name:?} in {} has the rank {found}, the configuration says {wanted}; \
         fetch both again", path.display()
    )]
    RankSaid { path: PathBuf, name: String, found: usize, wanted: u64 },

    #[error(
        "tensor {name:?} in {} has the shape {found:?}, the base needs {wanted:?}; \
         use an adapter of this base", path.display()
    )]
    Shape { path: PathBuf, name: String, found: Vec<u64>, wanted: Vec<usize> },

    #[error(
        "tensor {name:?} in {} is of type {found}; adapters are F32, F16, BF16 or Q8_0, \
         magnitudes none of Q8_0: convert it", path.display()
    )]
    Dtype { path: PathBuf, name: String, found: String },

    #[error(
        "tensor {name:?} in {} holds a number that is not finite in row {row}; the file is \
         damaged, fetch it again", path.display()
    )]
    NotFinite { path: PathBuf, name: String, row: usize },

    #[error(
        "tensors {name:?} in {} have the scale {scale}, which is not finite; correct alpha",
        path.display()
    )]
    Scale { path: PathBuf, name: String, scale: f64 },

    #[error("failed to read tensor {name:?} from {}", path.display())]
    Read { path: PathBuf, name: String, source: io::Error },

    #[error("tensor {name:?} cannot be packed")]
    Pack { name: String, source: AdaptError },

    #[error(
        "the magnitude {name:?} of output {output} divides by no norm; the adapter is damaged or \
         of another base"
    )]
    Magnitude { name: String, output: usize },

    #[error("the base has no {name:?} to take the norm of")]
    Base { name: String, source: Box<WeightError> },
}
