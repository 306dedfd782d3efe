//! A bounded reader of safetensors headers.
//!
//! ```text
//! length (8 bytes) -> JSON { name: { dtype, shape, data_offsets } } -> data
//! ```
//!
//! A file comes from a stranger. The header's length is compared with a limit and with the file
//! before it is read; names must differ; every tensor's bytes lie inside the file, overlap no
//! other's, and are as many as its shape and type need.
//!
//! Why not the `safetensors` crate: it accepts headers of 100 MB and wants the file as one slice,
//! so it needs a map; and of two entries with one name it keeps the last.
//!
//! Not here: what the names mean (`names.rs`).

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::WeightError;
use super::file::SourceFile;
use crate::gguf::TensorType;

/// Bytes of a header. Each tensor takes some 150, and no file has more than [`TENSORS_MAX`].
const HEADER_SIZE_MAX: u64 = 16 << 20;

/// Tensors of one file or of one list: as many as in a GGUF file.
pub(crate) const TENSORS_MAX: usize = 65_536;

/// Dimensions of a tensor.
const RANK_MAX: usize = 8;

/// Bytes of a name.
pub(crate) const NAME_SIZE_MAX: usize = 512;

/// The name of the entry that is no tensor.
const METADATA: &str = "__metadata__";

/// One tensor of a file. Its place is checked; its type may be one that is not supported.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) dtype: String,
    pub(crate) shape: Vec<u64>,
    /// Where its bytes start, counted from the start of the file.
    pub(crate) start: u64,
}

impl Entry {
    /// The type of the numbers, if it is a supported one.
    pub(crate) fn kind(&self) -> Option<TensorType> {
        kind_of(&self.dtype)
    }
}

/// Reads and checks the header of a file.
pub(crate) fn read(file: &SourceFile) -> Result<BTreeMap<String, Entry>, WeightError> {
    let damaged = |what: String| WeightError::Safetensors { path: file.path().to_owned(), what };
    let failed = |source| super::error::open(file.path(), source);
    if file.len() < 8 {
        return Err(damaged(format!("it has {} bytes, its first 8 are a length", file.len())));
    }
    let mut prefix = [0; 8];
    file.read_at(0, &mut prefix).map_err(failed)?;
    let size = u64::from_le_bytes(prefix);
    if size > HEADER_SIZE_MAX || size > file.len() - 8 {
        return Err(damaged(format!(
            "a header of {size} bytes is declared, the file has {} more and {HEADER_SIZE_MAX} \
             are accepted",
            file.len() - 8
        )));
    }
    let mut json = vec![0; usize::try_from(size).unwrap_or(0)];
    file.read_at(8, &mut json).map_err(failed)?;
    parse(&json, 8 + size, file.len()).map_err(damaged)
}

/// Checks a header whose data start at `data_start` of a file of `file_len` bytes.
pub(crate) fn parse(
    json: &[u8],
    data_start: u64,
    file_len: u64,
) -> Result<BTreeMap<String, Entry>, String> {
    let raw: Unique<Raw> = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let mut entries = BTreeMap::new();
    let mut placed = Vec::with_capacity(raw.0.len());
    for (name, entry) in raw.0 {
        let Raw::Tensor { dtype, shape, data_offsets: [begin, end] } = entry else { continue };
        let place = format!("tensor {name:?} at {begin} to {end}");
        let (start, stop) = (data_start.checked_add(begin), data_start.checked_add(end));
        let (Some(start), Some(stop)) = (start, stop) else {
            return Err(format!("{place} is beyond every file"));
        };
        if start > stop || stop > file_len {
            return Err(format!("{place} lies outside the file"));
        }
        if shape.len() > RANK_MAX {
            return Err(format!("{place} has {} dimensions, at most {RANK_MAX}", shape.len()));
        }
        let count = shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
        let Some(count) = count else {
            return Err(format!("{place} has the impossible shape {shape:?}"));
        };
        if let Some(kind) = kind_of(&dtype)
            && count.checked_mul(kind.block_size()) != Some(stop - start)
        {
            return Err(format!("{place} is not {shape:?} numbers of {dtype}"));
        }
        if start < stop {
            placed.push((start, stop, name.clone()));
        }
        entries.insert(name, Entry { dtype, shape, start });
    }
    placed.sort_unstable();
    match placed.windows(2).find(|pair| pair[0].1 > pair[1].0) {
        Some(pair) => Err(format!("tensors {:?} and {:?} overlap", pair[0].2, pair[1].2)),
        None => Ok(entries),
    }
}

fn kind_of(dtype: &str) -> Option<TensorType> {
    Some(match dtype {
        "F32" => TensorType::F32,
        "F16" => TensorType::F16,
        "BF16" => TensorType::BF16,
        _ => return None,
    })
}

/// One entry of a header.
enum Raw {
    Metadata,
    Tensor { dtype: String, shape: Vec<u64>, data_offsets: [u64; 2] },
}

/// An object whose names differ, with at most [`TENSORS_MAX`] of them.
pub(crate) struct Unique<T>(pub(crate) BTreeMap<String, T>);

/// A value that is read knowing its name.
pub(crate) trait Named: Sized {
    fn read<'de, A: MapAccess<'de>>(name: &str, map: &mut A) -> Result<Self, A::Error>;
}

impl Named for String {
    fn read<'de, A: MapAccess<'de>>(_: &str, map: &mut A) -> Result<Self, A::Error> {
        map.next_value()
    }
}

impl Named for serde_json::Value {
    fn read<'de, A: MapAccess<'de>>(_: &str, map: &mut A) -> Result<Self, A::Error> {
        map.next_value()
    }
}

impl Named for Raw {
    fn read<'de, A: MapAccess<'de>>(name: &str, map: &mut A) -> Result<Self, A::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Tensor {
            dtype: String,
            shape: Vec<u64>,
            data_offsets: [u64; 2],
        }
        if name == METADATA {
            map.next_value::<serde::de::IgnoredAny>()?;
            return Ok(Self::Metadata);
        }
        let Tensor { dtype, shape, data_offsets } = map.next_value()?;
        Ok(Self::Tensor { dtype, shape, data_offsets })
    }
}

impl<'de, T: Named> Deserialize<'de> for Unique<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueVisitor(PhantomData))
    }
}

struct UniqueVisitor<T>(PhantomData<T>);

impl<'de, T: Named> Visitor<'de> for UniqueVisitor<T> {
    type Value = Unique<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name.len() > NAME_SIZE_MAX {
                return Err(A::Error::custom("a name is too long"));
            }
            if entries.len() >= TENSORS_MAX {
                return Err(A::Error::custom(format!("more than {TENSORS_MAX} entries")));
            }
            let value = T::read(&name, &mut map)?;
            if entries.contains_key(&name) {
                return Err(A::Error::custom(format!("{name:?} appears twice")));
            }
            entries.insert(name, value);
        }
        Ok(Unique(entries))
    }
}
