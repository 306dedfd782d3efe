//! Writing a file whose data is made while it is written, so that it need not fit in memory.
//!
//! The tensors are announced first, because the table stands before the data. Then each is made
//! in pieces of whole rows, in the order of the table.

use std::io::{self, Write};

use super::{GgufWriter, WriteError, pad};
use crate::gguf::TensorType;

/// About how many bytes of a tensor are made at once: small enough for a cache. A longer row is
/// made whole.
const PIECE_SIZE: usize = 256 << 10;

/// A tensor as the table of the file names it, without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name that the architecture gives it.
    pub name: String,
    /// Its shape, outermost first.
    pub dims: Vec<usize>,
    /// How its numbers are stored.
    pub kind: TensorType,
}

impl TensorSpec {
    /// The bytes of the data; `None` if the shape is empty, too large, or no whole number of
    /// blocks to the row.
    pub fn size(&self) -> Option<u64> {
        let columns = *self.dims.last()? as u64;
        let elements = self.dims.iter().try_fold(1u64, |it, &dim| it.checked_mul(dim as u64))?;
        let is_whole = elements > 0 && columns.is_multiple_of(self.kind.block_len());
        let blocks = is_whole.then(|| elements / self.kind.block_len())?;
        blocks.checked_mul(self.kind.block_size())
    }

    /// How many rows it has; of a shape that has no size, nothing is said.
    pub fn row_count(&self) -> usize {
        self.dims.split_last().map_or(0, |(_, outer)| outer.iter().product())
    }
}

impl GgufWriter {
    /// Writes the metadata set so far and `tensors`, whose data `fill` makes piece by piece: each
    /// piece is whole rows of the tensor it is told, from the row of this index on, and begins
    /// where the one before ended.
    ///
    /// # Errors
    ///
    /// If `out` refuses, or a shape does not fit its type ([`WriteError`] inside the error).
    pub fn stream(
        &self,
        tensors: &[TensorSpec],
        out: &mut impl Write,
        mut fill: impl FnMut(&TensorSpec, usize, &mut [u8]),
    ) -> io::Result<()> {
        let mut sized = Vec::with_capacity(tensors.len());
        for spec in tensors {
            sized.push((spec, spec.size().ok_or_else(|| shapeless(spec))?));
        }
        let mut head = self.head(sized.iter().copied());
        pad(&mut head);
        out.write_all(&head)?;

        let mut piece = Vec::new();
        for (spec, size) in sized {
            let row_size = usize::try_from(size).unwrap_or(usize::MAX) / spec.row_count();
            let rows_at_once = (PIECE_SIZE / row_size).max(1);
            let mut first = 0;
            while first < spec.row_count() {
                let rows = rows_at_once.min(spec.row_count() - first);
                piece.resize(rows * row_size, 0);
                fill(spec, first, &mut piece);
                first += rows;
                if first == spec.row_count() {
                    // Pieces are shorter than the tensor, but both end on the same alignment.
                    let mut end = vec![0; alignment_gap(size)];
                    piece.append(&mut end);
                }
                out.write_all(&piece)?;
            }
        }
        Ok(())
    }
}

/// How many zeros follow a tensor of this size.
fn alignment_gap(size: u64) -> usize {
    let gap = size.next_multiple_of(super::DEFAULT_ALIGNMENT) - size;
    usize::try_from(gap).unwrap_or(0)
}

fn shapeless(spec: &TensorSpec) -> io::Error {
    let TensorSpec { name, dims, kind } = spec.clone();
    let error = WriteError::Size { name, dims, kind, size: 0 };
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{Gguf, Value};

    fn spec(name: &str, dims: &[usize], kind: TensorType) -> TensorSpec {
        TensorSpec { name: name.into(), dims: dims.to_vec(), kind }
    }

    #[test]
    fn a_streamed_file_is_the_same_as_one_made_in_memory() {
        let specs = [
            spec("odd", &[3, 32], TensorType::Q8_0),
            spec("long", &[1000, 256], TensorType::Q6K),
            spec("flat", &[5], TensorType::F32),
        ];
        let byte = |at: usize| u8::try_from(at % 251).unwrap();
        let mut writer = GgufWriter::new();
        writer.set("general.architecture", Value::String("test".into()));
        let mut streamed = Vec::new();
        let (mut at, mut current) = (0, String::new());
        let fill = |spec: &TensorSpec, row: usize, piece: &mut [u8]| {
            if current != spec.name {
                (at, current) = (0, spec.name.clone());
            }
            let size = usize::try_from(spec.size().unwrap()).unwrap();
            assert_eq!(row * size / spec.row_count(), at, "{}", spec.name);
            for it in piece {
                *it = byte(at);
                at += 1;
            }
        };
        writer.stream(&specs, &mut streamed, fill).unwrap();
        for it in &specs {
            let size = usize::try_from(it.size().unwrap()).unwrap();
            let data = (0..size).map(byte).collect();
            writer.tensor(&it.name, &it.dims, it.kind, data).unwrap();
        }
        assert!(streamed == writer.to_bytes());
        assert_eq!(Gguf::parse(&streamed).unwrap().tensors().len(), 3);
    }

    #[test]
    fn a_shape_that_does_not_fit_its_type_is_refused() {
        for (dims, kind) in [
            (&[4usize, 100][..], TensorType::Q4K),
            (&[0, 256], TensorType::Q4K),
            (&[], TensorType::F32),
            (&[usize::MAX, usize::MAX], TensorType::F32),
        ] {
            let specs = [spec("bad", dims, kind)];
            let refused = GgufWriter::new().stream(&specs, &mut Vec::new(), |_, _, _| ());
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput, "{dims:?}");
        }
    }
}
