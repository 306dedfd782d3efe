//! How much a GGUF file may declare, and why that much.
//!
//! The numbers are far above every published model and far below what would hurt a small machine.

/// Tensors in one file. The largest published mixture-of-experts file has about 2 000.
pub const TENSORS_MAX: u64 = 65_536;

/// Metadata pairs in one file. Published files have 20 to 60.
pub const METADATA_MAX: u64 = 4_096;

/// Bytes of a metadata key: the format's own limit (2^16 - 1).
pub const KEY_SIZE_MAX: u64 = 65_535;

/// Bytes of a text value. The largest seen is a chat template of some 20 KiB.
pub const STRING_SIZE_MAX: u64 = 1 << 20;

/// Bytes of a tensor name: the format's own limit.
pub const TENSOR_NAME_SIZE_MAX: u64 = 64;

/// Dimensions of a tensor: what ggml itself can hold.
pub const TENSOR_RANK_MAX: u32 = 4;

/// How deep arrays may nest. Published files do not nest at all.
pub const ARRAY_DEPTH_MAX: usize = 4;

/// Array elements in the whole file. A vocabulary of 256 Ki pieces with types, scores and
/// 512 Ki merges has 1.3 million; at 24 bytes for an empty text this is at most 96 MiB.
pub const ARRAY_ELEMENTS_MAX: u64 = 4 << 20;

/// The smallest alignment: the format says 8.
pub const ALIGNMENT_MIN: u64 = 8;

/// The largest alignment: a page on every platform is at most 64 KiB, and more is only padding.
pub const ALIGNMENT_MAX: u64 = 65_536;

/// The fewest bytes of one metadata pair: key length, value type, one byte of value.
pub const PAIR_SIZE_MIN: u64 = 8 + 4 + 1;

/// The fewest bytes of one tensor's header: name length, rank, type, offset.
pub const TENSOR_SIZE_MIN: u64 = 8 + 4 + 4 + 8;
