//! The tensor table: what each tensor is, and where its bytes lie in the file.

use std::collections::BTreeMap;
use std::ops::Range;

use super::cursor::Cursor;
use super::{GgufError, TensorType, limits};

/// One checked tensor: its bytes lie inside the file and fit its shape exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    dims: Vec<usize>,
    kind: TensorType,
    bytes: Range<usize>,
}

impl TensorInfo {
    /// The shape, outermost dimension first: rows before columns.
    ///
    /// The file lists dimensions innermost first; this is the reverse.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// How the numbers are stored.
    pub fn kind(&self) -> TensorType {
        self.kind
    }

    /// Where the bytes lie, counted from the start of the file.
    pub fn bytes(&self) -> Range<usize> {
        self.bytes.clone()
    }

    /// How many numbers the tensor holds.
    pub fn element_count(&self) -> u64 {
        // The product was checked when the table was read.
        self.dims.iter().map(|&dim| dim as u64).product()
    }
}

/// A tensor's header as the file gives it: shape and type are sound, its place is not yet known.
#[derive(Debug)]
pub(super) struct Header {
    name: String,
    dims: Vec<u64>,
    kind: TensorType,
    size: u64,
    offset: u64,
}

/// Reads `count` headers. `count` was compared with the bytes that are left.
pub(super) fn read(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<Header>, GgufError> {
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        headers.push(read_header(cursor)?);
    }
    Ok(headers)
}

fn read_header(cursor: &mut Cursor<'_>) -> Result<Header, GgufError> {
    let name = cursor.string("a tensor name", limits::TENSOR_NAME_SIZE_MAX)?;
    let rank = cursor.u32("the rank of a tensor")?;
    if !(1..=limits::TENSOR_RANK_MAX).contains(&rank) {
        return Err(GgufError::Rank { name, rank });
    }
    let mut dims = Vec::with_capacity(rank as usize);
    for _ in 0..rank {
        dims.push(cursor.u64("the shape of a tensor")?);
    }
    let code = cursor.u32("the type of a tensor")?;
    let offset = cursor.u64("the offset of a tensor")?;
    let Some(kind) = TensorType::from_code(code) else {
        let supported = TensorType::ALL.map(TensorType::name).join(", ");
        return Err(GgufError::TensorType {
            name,
            type_name: TensorType::describe(code),
            supported,
        });
    };
    let columns = dims[0];
    if !columns.is_multiple_of(kind.block_len()) {
        return Err(GgufError::Block { name, columns, block: kind.block_len() });
    }
    let Some(size) = size_of(&dims, kind) else { return Err(GgufError::Shape { name, dims }) };
    Ok(Header { name, dims, kind, size, offset })
}

/// The bytes a tensor needs; `None` if a dimension is zero or a product overflows.
fn size_of(dims: &[u64], kind: TensorType) -> Option<u64> {
    let elements = dims.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim))?;
    if elements == 0 {
        return None;
    }
    (elements / kind.block_len()).checked_mul(kind.block_size())
}

/// Places every tensor in the data section, and checks that each fits there alone.
pub(super) fn place(
    headers: Vec<Header>,
    data_start: u64,
    alignment: u64,
    file_size: u64,
) -> Result<BTreeMap<String, TensorInfo>, GgufError> {
    let mut tensors = BTreeMap::new();
    for header in headers {
        let bytes = locate(&header, data_start, alignment, file_size)?;
        let Header { name, dims, kind, .. } = header;
        // Each dimension divides a size that lies inside the file, so it fits `usize`.
        let converted = dims.iter().rev().map(|&dim| usize::try_from(dim)).collect();
        let Ok(converted) = converted else { return Err(GgufError::Shape { name, dims }) };
        if tensors.contains_key(&name) {
            return Err(GgufError::Duplicate { what: "tensor", name });
        }
        tensors.insert(name, TensorInfo { dims: converted, kind, bytes });
    }
    refuse_overlaps(&tensors)?;
    Ok(tensors)
}

fn locate(
    header: &Header,
    data_start: u64,
    alignment: u64,
    file_size: u64,
) -> Result<Range<usize>, GgufError> {
    let &Header { offset, size, .. } = header;
    let name = || header.name.clone();
    if !offset.is_multiple_of(alignment) {
        return Err(GgufError::Misaligned { name: name(), offset, alignment });
    }
    let start = data_start.saturating_add(offset);
    let outside = || GgufError::OutsideFile { name: name(), start, size, file_size };
    let end = start.checked_add(size).filter(|&end| end <= file_size).ok_or_else(outside)?;
    match (usize::try_from(start), usize::try_from(end)) {
        (Ok(start), Ok(end)) => Ok(start..end),
        _ => Err(outside()),
    }
}

fn refuse_overlaps(tensors: &BTreeMap<String, TensorInfo>) -> Result<(), GgufError> {
    let mut placed: Vec<_> = tensors.iter().map(|(name, info)| (info.bytes(), name)).collect();
    placed.sort_unstable_by_key(|(bytes, _)| bytes.start);
    match placed.windows(2).find(|pair| pair[0].0.end > pair[1].0.start) {
        Some(pair) => {
            Err(GgufError::Overlap { first: pair[0].1.clone(), second: pair[1].1.clone() })
        }
        None => Ok(()),
    }
}
