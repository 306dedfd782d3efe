//! Why a GGUF file was refused: what is wrong, where, and what to do.

use super::limits;

/// Why a GGUF file was refused. No part of a refused file is used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum GgufError {
    #[error("not a GGUF file: it begins with {found:02x?} instead of \"GGUF\"")]
    NotGguf { found: [u8; 4] },

    #[error("the file is big-endian GGUF; convert it to little-endian first")]
    BigEndian,

    #[error("GGUF version {found} is not supported (2 and 3 are); convert the file again")]
    Version { found: u32 },

    #[error(
        "the file ends inside {what}: {needed} bytes declared at byte {at}, {left} left; \
         it is truncated or damaged, fetch it again"
    )]
    Truncated { what: &'static str, at: u64, needed: u64, left: u64 },

    #[error("{count} {what} declared at byte {at}, at most {limit} accepted; the file is damaged")]
    TooMany { what: &'static str, at: u64, count: u64, limit: u64 },

    #[error("{what} of {size} bytes declared at byte {at}, at most {limit} accepted")]
    TooLong { what: &'static str, at: u64, size: u64, limit: u64 },

    #[error("{what} at byte {at} is not UTF-8; the file is damaged")]
    NotUtf8 { what: &'static str, at: u64 },

    #[error("{what} {name:?} appears twice; the file is damaged")]
    Duplicate { what: &'static str, name: String },

    #[error("value of {key:?} has unknown type {code}; the file is damaged or newer than GGUF 3")]
    ValueType { key: String, code: u32 },

    #[error("value of {key:?} nests arrays deeper than {}", limits::ARRAY_DEPTH_MAX)]
    TooDeep { key: String },

    #[error("value of {key:?} is a truth value of {found} (0 and 1 exist); the file is damaged")]
    Bool { key: String, found: u8 },

    #[error(
        "alignment {found} is not a power of two from {} to {}",
        limits::ALIGNMENT_MIN,
        limits::ALIGNMENT_MAX
    )]
    Alignment { found: u64 },

    #[error("tensor {name:?} has {rank} dimensions, 1 to {} exist", limits::TENSOR_RANK_MAX)]
    Rank { name: String, rank: u32 },

    #[error("tensor {name:?} has the impossible shape {dims:?}")]
    Shape { name: String, dims: Vec<u64> },

    #[error("tensor {name:?} has type {type_name}, which is not supported; supported: {supported}")]
    TensorType { name: String, type_name: String, supported: String },

    #[error(
        "tensor {name:?} has rows of {columns} values, not a multiple of the {block} in a block"
    )]
    Block { name: String, columns: u64, block: u64 },

    #[error("tensor {name:?} starts at {offset}, not a multiple of the alignment {alignment}")]
    Misaligned { name: String, offset: u64, alignment: u64 },

    #[error(
        "tensor {name:?} needs {size} bytes at byte {start} but the file has {file_size}; \
         it is truncated or damaged, fetch it again"
    )]
    OutsideFile { name: String, start: u64, size: u64, file_size: u64 },

    #[error("tensors {first:?} and {second:?} overlap; the file is damaged")]
    Overlap { first: String, second: String },

    #[error("the file has no value for {key:?}; it is not a complete model, fetch another")]
    MissingKey { key: String },

    #[error("value of {key:?} should be {wanted} and is {found}")]
    WrongType { key: String, wanted: &'static str, found: &'static str },
}
