//! A bounded reader of GGUF files (versions 2 and 3), in safe Rust over a byte slice.
//!
//! A model file comes from a stranger. So every count and length is compared with a named limit
//! ([`limits`]) and with the bytes that are really left *before* anything is allocated for it.
//!
//! ```text
//! bytes -> header -> metadata (key, value)* -> tensor table (name, dims, type, offset)* -> data
//! ```
//!
//! # Invariants
//!
//! * What [`Gguf::parse`] returns is checked: each tensor's bytes lie inside the slice, are aligned,
//!   overlap no other tensor, and are exactly as many as its shape and type need.
//! * No input makes it panic, recurse deeper than [`limits::ARRAY_DEPTH_MAX`], or allocate more
//!   than a small multiple of the file's own size.
//!
//! Not here: reading the file and its tensors (`weights.rs`), what the keys mean (`settings.rs`,
//! `tokenizer.rs`), split files (one model is one file).

mod cursor;
mod dtype;
mod error;
pub mod limits;
mod table;
mod value;
mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use dtype::TensorType;
pub use error::GgufError;
pub use table::TensorInfo;
pub use value::{Array, Value};
pub use write::{GgufWriter, TensorSpec, WriteError};

use cursor::Cursor;

/// The first four bytes of every GGUF file.
pub const MAGIC: [u8; 4] = *b"GGUF";

/// Where the data section and each tensor start, when the file does not say otherwise.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// A checked GGUF file: its metadata, and where each tensor lies. It does not hold the data.
#[derive(Clone, Debug, PartialEq)]
pub struct Gguf {
    version: u32,
    alignment: u64,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Gguf {
    /// Reads and checks the header, the metadata and the tensor table of `bytes`, a whole file.
    pub fn parse(bytes: &[u8]) -> Result<Self, GgufError> {
        Self::parse_header(bytes, bytes.len() as u64)
    }

    /// The same for a file of `file_len` bytes that begins with `head`. A head that ends before the
    /// tensor table does is [`GgufError::Truncated`]: more of the file may help.
    pub fn parse_header(head: &[u8], file_len: u64) -> Result<Self, GgufError> {
        let mut cursor = Cursor::new(head);
        let version = read_version(&mut cursor)?;
        let tensor_count = cursor.count("tensors", limits::TENSORS_MAX, limits::TENSOR_SIZE_MIN)?;
        let pair_count =
            cursor.count("metadata pairs", limits::METADATA_MAX, limits::PAIR_SIZE_MIN)?;

        let metadata = read_metadata(&mut cursor, pair_count)?;
        let alignment = alignment_of(&metadata)?;
        let headers = table::read(&mut cursor, tensor_count)?;
        let data_start = cursor.position().next_multiple_of(alignment);
        let tensors = table::place(headers, data_start, alignment, file_len)?;
        Ok(Self { version, alignment, metadata, tensors })
    }

    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The alignment of the data section and of each tensor in it, in bytes.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// All metadata, ordered by key.
    pub fn metadata(&self) -> &BTreeMap<String, Value> {
        &self.metadata
    }

    /// All tensors, ordered by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// One value, if the file has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// A non-negative whole number, of whatever width; `None` if the file does not have it.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.typed(key, "a non-negative whole number", Value::as_u64)
    }

    /// A floating-point number; `None` if the file does not have it.
    pub fn float(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// A truth value; `None` if the file does not have it.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// A text; `None` if the file does not have it.
    pub fn text(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "a text", Value::as_str)
    }

    /// A list of texts; `None` if the file does not have it.
    pub fn texts(&self, key: &str) -> Result<Option<&[String]>, GgufError> {
        self.typed(key, "a list of texts", Value::as_strings)
    }

    /// Turns "the file does not have it" into a refusal that names the key.
    pub fn require<T>(key: &str, value: Option<T>) -> Result<T, GgufError> {
        value.ok_or_else(|| GgufError::MissingKey { key: key.to_owned() })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| GgufError::WrongType {
            key: key.to_owned(),
            wanted,
            found: value.type_name(),
        })
    }
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, GgufError> {
    let magic: [u8; 4] = cursor.array("the magic number")?;
    if magic != MAGIC {
        return Err(GgufError::NotGguf { found: magic });
    }
    match cursor.u32("the version")? {
        version @ (2 | 3) => Ok(version),
        // A big-endian file of version 2 or 3 shows the version with its bytes reversed.
        version if matches!(version.swap_bytes(), 1..=3) => Err(GgufError::BigEndian),
        found => Err(GgufError::Version { found }),
    }
}

fn read_metadata(
    cursor: &mut Cursor<'_>,
    count: usize,
) -> Result<BTreeMap<String, Value>, GgufError> {
    let mut metadata = BTreeMap::new();
    let mut elements_left = limits::ARRAY_ELEMENTS_MAX;
    for _ in 0..count {
        let key = cursor.string("a metadata key", limits::KEY_SIZE_MAX)?;
        let value = value::read(cursor, &key, &mut elements_left)?;
        if metadata.contains_key(&key) {
            return Err(GgufError::Duplicate { what: "metadata key", name: key });
        }
        metadata.insert(key, value);
    }
    Ok(metadata)
}

fn alignment_of(metadata: &BTreeMap<String, Value>) -> Result<u64, GgufError> {
    let key = "general.alignment";
    let Some(value) = metadata.get(key) else { return Ok(DEFAULT_ALIGNMENT) };
    let found = value.as_u64().ok_or_else(|| GgufError::WrongType {
        key: key.to_owned(),
        wanted: "a non-negative whole number",
        found: value.type_name(),
    })?;
    let is_sound =
        found.is_power_of_two() && (limits::ALIGNMENT_MIN..=limits::ALIGNMENT_MAX).contains(&found);
    if is_sound { Ok(found) } else { Err(GgufError::Alignment { found }) }
}
