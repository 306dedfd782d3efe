//! A small GGUF writer: enough to make a model file of our own.
//!
//! It writes version 3, little-endian, tensors in the order they were added, each aligned to
//! [`DEFAULT_ALIGNMENT`](super::DEFAULT_ALIGNMENT). What it accepts, [`Gguf::parse`](super::Gguf::parse) reads.
//! Data is held in memory, or made while it is written ([`GgufWriter::stream`]).

mod stream;

use std::io::{self, Write};

pub use stream::TensorSpec;

use super::value::code;
use super::{Array, DEFAULT_ALIGNMENT, MAGIC, TensorType, Value};

/// Collects metadata and tensors, then writes them as one file.
#[derive(Clone, Debug, Default)]
pub struct GgufWriter {
    metadata: Vec<(String, Value)>,
    tensors: Vec<Tensor>,
}

#[derive(Clone, Debug)]
struct Tensor {
    spec: TensorSpec,
    data: Vec<u8>,
}

/// Why a tensor was not added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum WriteError {
    #[error("tensor {name:?} of shape {dims:?} and type {kind} cannot have {size} bytes")]
    Size { name: String, dims: Vec<usize>, kind: TensorType, size: usize },
}

impl GgufWriter {
    /// An empty file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one metadata pair.
    pub fn set(&mut self, key: impl Into<String>, value: Value) -> &mut Self {
        self.metadata.push((key.into(), value));
        self
    }

    /// Gives a key another value, or adds it.
    pub fn replace(&mut self, key: &str, value: Value) -> &mut Self {
        match self.metadata.iter_mut().find(|(it, _)| it == key) {
            Some((_, old)) => *old = value,
            None => self.metadata.push((key.to_owned(), value)),
        }
        self
    }

    /// Adds one tensor: `dims` outermost first, `data` as the file will hold it.
    pub fn tensor(
        &mut self,
        name: impl Into<String>,
        dims: &[usize],
        kind: TensorType,
        data: Vec<u8>,
    ) -> Result<&mut Self, WriteError> {
        let spec = TensorSpec { name: name.into(), dims: dims.to_vec(), kind };
        if spec.size() != Some(data.len() as u64) {
            let TensorSpec { name, dims, kind } = spec;
            return Err(WriteError::Size { name, dims, kind, size: data.len() });
        }
        self.tensors.push(Tensor { spec, data });
        Ok(self)
    }

    /// Adds one tensor of 32-bit floating-point numbers.
    pub fn tensor_f32(
        &mut self,
        name: impl Into<String>,
        dims: &[usize],
        values: &[f32],
    ) -> Result<&mut Self, WriteError> {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, dims, TensorType::F32, data)
    }

    /// The whole file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let held = self.tensors.iter().map(|it| (&it.spec, it.data.len() as u64));
        let mut bytes = self.head(held);
        for tensor in &self.tensors {
            pad(&mut bytes);
            bytes.extend_from_slice(&tensor.data);
        }
        pad(&mut bytes);
        bytes
    }

    /// Writes the whole file.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.to_bytes())
    }

    /// All that stands before the data, for these tensors and their sizes in bytes.
    fn head<'a>(&self, tensors: impl ExactSizeIterator<Item = (&'a TensorSpec, u64)>) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&3u32.to_le_bytes());
        bytes.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&(self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            push_text(&mut bytes, key);
            push_value(&mut bytes, value);
        }
        let mut offset = 0u64;
        for (spec, size) in tensors {
            push_header(&mut bytes, spec, offset);
            offset = (offset + size).next_multiple_of(DEFAULT_ALIGNMENT);
        }
        bytes
    }
}

fn pad(bytes: &mut Vec<u8>) {
    let alignment = usize::try_from(DEFAULT_ALIGNMENT).unwrap_or(32);
    bytes.resize(bytes.len().next_multiple_of(alignment), 0);
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

fn push_header(bytes: &mut Vec<u8>, tensor: &TensorSpec, offset: u64) {
    push_text(bytes, &tensor.name);
    bytes.extend_from_slice(&u32::try_from(tensor.dims.len()).unwrap_or(u32::MAX).to_le_bytes());
    for &dim in tensor.dims.iter().rev() {
        bytes.extend_from_slice(&(dim as u64).to_le_bytes());
    }
    bytes.extend_from_slice(&tensor.kind.code().to_le_bytes());
    bytes.extend_from_slice(&offset.to_le_bytes());
}

pub(super) fn push_value(bytes: &mut Vec<u8>, value: &Value) {
    let (kind, content) = match value {
        Value::U8(it) => (code::U8, it.to_le_bytes().to_vec()),
        Value::I8(it) => (code::I8, it.to_le_bytes().to_vec()),
        Value::U16(it) => (code::U16, it.to_le_bytes().to_vec()),
        Value::I16(it) => (code::I16, it.to_le_bytes().to_vec()),
        Value::U32(it) => (code::U32, it.to_le_bytes().to_vec()),
        Value::I32(it) => (code::I32, it.to_le_bytes().to_vec()),
        Value::F32(it) => (code::F32, it.to_le_bytes().to_vec()),
        Value::Bool(it) => (code::BOOL, vec![u8::from(*it)]),
        Value::U64(it) => (code::U64, it.to_le_bytes().to_vec()),
        Value::I64(it) => (code::I64, it.to_le_bytes().to_vec()),
        Value::F64(it) => (code::F64, it.to_le_bytes().to_vec()),
        Value::String(text) => {
            bytes.extend_from_slice(&code::STRING.to_le_bytes());
            return push_text(bytes, text);
        }
        Value::Array(array) => {
            bytes.extend_from_slice(&code::ARRAY.to_le_bytes());
            return push_array(bytes, array);
        }
    };
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&content);
}

fn push_array(bytes: &mut Vec<u8>, array: &Array) {
    match array {
        Array::U8(it) => push_scalars(bytes, code::U8, it, u8::to_le_bytes),
        Array::I8(it) => push_scalars(bytes, code::I8, it, i8::to_le_bytes),
        Array::U16(it) => push_scalars(bytes, code::U16, it, u16::to_le_bytes),
        Array::I16(it) => push_scalars(bytes, code::I16, it, i16::to_le_bytes),
        Array::U32(it) => push_scalars(bytes, code::U32, it, u32::to_le_bytes),
        Array::I32(it) => push_scalars(bytes, code::I32, it, i32::to_le_bytes),
        Array::F32(it) => push_scalars(bytes, code::F32, it, f32::to_le_bytes),
        Array::Bool(it) => push_scalars(bytes, code::BOOL, it, |it| [u8::from(it)]),
        Array::U64(it) => push_scalars(bytes, code::U64, it, u64::to_le_bytes),
        Array::I64(it) => push_scalars(bytes, code::I64, it, i64::to_le_bytes),
        Array::F64(it) => push_scalars(bytes, code::F64, it, f64::to_le_bytes),
        Array::String(texts) => {
            push_prefix(bytes, code::STRING, texts.len());
            for text in texts {
                push_text(bytes, text);
            }
        }
        Array::Nested(arrays) => {
            push_prefix(bytes, code::ARRAY, arrays.len());
            for array in arrays {
                push_array(bytes, array);
            }
        }
    }
}

fn push_prefix(bytes: &mut Vec<u8>, kind: u32, count: usize) {
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&(count as u64).to_le_bytes());
}

fn push_scalars<T: Copy, const N: usize>(
    bytes: &mut Vec<u8>,
    kind: u32,
    values: &[T],
    convert: fn(T) -> [u8; N],
) {
    push_prefix(bytes, kind, values.len());
    for &value in values {
        bytes.extend_from_slice(&convert(value));
    }
}
