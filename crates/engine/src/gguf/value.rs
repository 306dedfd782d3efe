//! Metadata values: scalars, texts and arrays of them, with their exact widths.

use super::cursor::Cursor;
use super::{GgufError, limits};

/// One metadata value, with the width the file gave it.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are those of the format")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array whose elements all have one type.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are those of the format")]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    /// Arrays of arrays: the inner ones may differ in type, as in the format.
    Nested(Vec<Array>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// Codes of the value types, as the format numbers them.
pub(super) mod code {
    pub(crate) const U8: u32 = 0;
    pub(crate) const I8: u32 = 1;
    pub(crate) const U16: u32 = 2;
    pub(crate) const I16: u32 = 3;
    pub(crate) const U32: u32 = 4;
    pub(crate) const I32: u32 = 5;
    pub(crate) const F32: u32 = 6;
    pub(crate) const BOOL: u32 = 7;
    pub(crate) const STRING: u32 = 8;
    pub(crate) const ARRAY: u32 = 9;
    pub(crate) const U64: u32 = 10;
    pub(crate) const I64: u32 = 11;
    pub(crate) const F64: u32 = 12;
}

impl Value {
    /// What to call the type in an error.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::U8(_) | Self::U16(_) | Self::U32(_) | Self::U64(_) => "an unsigned number",
            Self::I8(_) | Self::I16(_) | Self::I32(_) | Self::I64(_) => "a signed number",
            Self::F32(_) | Self::F64(_) => "a floating-point number",
            Self::Bool(_) => "a truth value",
            Self::String(_) => "a text",
            Self::Array(_) => "an array",
        }
    }

    /// The value as a non-negative whole number, of whatever width it was written.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::U64(value) => Some(value),
            Self::I8(value) => value.try_into().ok(),
            Self::I16(value) => value.try_into().ok(),
            Self::I32(value) => value.try_into().ok(),
            Self::I64(value) => value.try_into().ok(),
            _ => None,
        }
    }

    /// The value as a floating-point number. Whole numbers are not converted silently.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::F32(value) => Some(value.into()),
            Self::F64(value) => Some(value),
            _ => None,
        }
    }

    /// The value as the file holds it: its type, then its content.
    pub fn to_gguf_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        super::write::push_value(&mut bytes, self);
        bytes
    }

    /// The truth value.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = *self { Some(value) } else { None }
    }

    /// The text.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(value) = self { Some(value) } else { None }
    }

    /// The array of texts.
    pub fn as_strings(&self) -> Option<&[String]> {
        if let Self::Array(Array::String(values)) = self { Some(values) } else { None }
    }

    /// The array of 32-bit floating-point numbers.
    pub fn as_f32s(&self) -> Option<&[f32]> {
        if let Self::Array(Array::F32(values)) = self { Some(values) } else { None }
    }

    /// The array of 32-bit signed numbers.
    pub fn as_i32s(&self) -> Option<&[i32]> {
        if let Self::Array(Array::I32(values)) = self { Some(values) } else { None }
    }
}

/// Reads one value. `elements_left` is what the whole file may still spend on array elements.
pub(super) fn read(
    cursor: &mut Cursor<'_>,
    key: &str,
    elements_left: &mut u64,
) -> Result<Value, GgufError> {
    let what = "a metadata value";
    let kind = cursor.u32("the type of a metadata value")?;
    Ok(match kind {
        code::U8 => Value::U8(u8::from_le_bytes(cursor.array(what)?)),
        code::I8 => Value::I8(i8::from_le_bytes(cursor.array(what)?)),
        code::U16 => Value::U16(u16::from_le_bytes(cursor.array(what)?)),
        code::I16 => Value::I16(i16::from_le_bytes(cursor.array(what)?)),
        code::U32 => Value::U32(u32::from_le_bytes(cursor.array(what)?)),
        code::I32 => Value::I32(i32::from_le_bytes(cursor.array(what)?)),
        code::F32 => Value::F32(f32::from_le_bytes(cursor.array(what)?)),
        code::BOOL => {
            let [byte] = cursor.array(what)?;
            Value::Bool(truth(key, byte)?)
        }
        code::STRING => Value::String(cursor.string("a text value", limits::STRING_SIZE_MAX)?),
        code::ARRAY => Value::Array(read_array(cursor, key, elements_left, 1)?),
        code::U64 => Value::U64(u64::from_le_bytes(cursor.array(what)?)),
        code::I64 => Value::I64(i64::from_le_bytes(cursor.array(what)?)),
        code::F64 => Value::F64(f64::from_le_bytes(cursor.array(what)?)),
        code => return Err(GgufError::ValueType { key: key.to_owned(), code }),
    })
}

fn truth(key: &str, byte: u8) -> Result<bool, GgufError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(GgufError::Bool { key: key.to_owned(), found }),
    }
}

/// Recursion is bounded by `depth`, allocation by `elements_left` and by the bytes that are left.
fn read_array(
    cursor: &mut Cursor<'_>,
    key: &str,
    elements_left: &mut u64,
    depth: usize,
) -> Result<Array, GgufError> {
    if depth > limits::ARRAY_DEPTH_MAX {
        return Err(GgufError::TooDeep { key: key.to_owned() });
    }
    let kind = cursor.u32("the element type of an array")?;
    let size_min = match kind {
        code::U8 | code::I8 | code::BOOL => 1,
        code::U16 | code::I16 => 2,
        code::U32 | code::I32 | code::F32 => 4,
        code::U64 | code::I64 | code::F64 | code::STRING => 8,
        code::ARRAY => 4 + 8,
        code => return Err(GgufError::ValueType { key: key.to_owned(), code }),
    };
    let count = cursor.count("array elements", *elements_left, size_min)?;
    *elements_left -= count as u64;

    Ok(match kind {
        code::U8 => Array::U8(scalars(cursor, count, u8::from_le_bytes)?),
        code::I8 => Array::I8(scalars(cursor, count, i8::from_le_bytes)?),
        code::U16 => Array::U16(scalars(cursor, count, u16::from_le_bytes)?),
        code::I16 => Array::I16(scalars(cursor, count, i16::from_le_bytes)?),
        code::U32 => Array::U32(scalars(cursor, count, u32::from_le_bytes)?),
        code::I32 => Array::I32(scalars(cursor, count, i32::from_le_bytes)?),
        code::F32 => Array::F32(scalars(cursor, count, f32::from_le_bytes)?),
        code::U64 => Array::U64(scalars(cursor, count, u64::from_le_bytes)?),
        code::I64 => Array::I64(scalars(cursor, count, i64::from_le_bytes)?),
        code::F64 => Array::F64(scalars(cursor, count, f64::from_le_bytes)?),
        code::BOOL => {
            let bytes = cursor.take("array elements", count as u64)?;
            Array::Bool(bytes.iter().map(|&byte| truth(key, byte)).collect::<Result<_, _>>()?)
        }
        code::STRING => {
            let mut strings = Vec::with_capacity(count);
            for _ in 0..count {
                strings.push(cursor.string("a text in an array", limits::STRING_SIZE_MAX)?);
            }
            Array::String(strings)
        }
        _ => {
            let mut arrays = Vec::with_capacity(count);
            for _ in 0..count {
                arrays.push(read_array(cursor, key, elements_left, depth + 1)?);
            }
            Array::Nested(arrays)
        }
    })
}

/// `count` was checked against the bytes that are left, so the product cannot overflow.
fn scalars<T, const N: usize>(
    cursor: &mut Cursor<'_>,
    count: usize,
    convert: fn([u8; N]) -> T,
) -> Result<Vec<T>, GgufError> {
    let bytes = cursor.take("array elements", (count * N) as u64)?;
    let (elements, _) = bytes.as_chunks::<N>();
    Ok(elements.iter().map(|&element| convert(element)).collect())
}
