//! Matrices of weights, and their products with rows of numbers.
//!
//! A [`Matrix`] keeps the bits of a file, rearranged in groups of 16 rows so that the rows lie in
//! the lanes of vector registers. A product is defined here, once, for every instruction set:
//!
//! # The order of operations
//!
//! One `f32` accumulator for each row of weights and row of activations, from zero, over the
//! blocks (or numbers) of the row in ascending order. Every operation is rounded on its own to
//! nearest even: a product is rounded before it is added.
//!
//! * `F32`, `F16`, `BF16`: `acc = acc + w * x`, where `w` is widened exactly.
//! * Block formats: with `d` the scale of the block of weights, `a` the scale of the activations
//!   and `isum` the exact integer sum over the block, `acc = acc + (d * a) * f32(isum)`. Here
//!   `isum` is the sum of `(quant - zero) * activation`, for k-quants times the integer scale of
//!   the sub-block.
//! * Formats with a minimum (`Q4_1`, `Q5_1`, `Q2_K`, `Q4_K`, `Q5_K`) then do
//!   `acc = acc + (m * a) * f32(msum)`. For k-quants `m` is minus the `dmin` of the block, and
//!   `msum` the exact sum of the activations of each sub-block times its integer minimum. For
//!   the others `m` is the minimum of the block and `msum` the sum of its activations.
//!
//! No integer sum can overflow 32 bits: the largest is 16 * 16 * 127 * 63 * 128 in magnitude.
//!
//! # Invariants
//!
//! * A result depends on one row of weights and one row of activations: not on the batch, the
//!   range, the thread or the instruction set. Where it is NaN its sign and payload are
//!   unspecified.
//! * The packed form has no more bytes than the file has, rows rounded up to 16.
//! * No bytes of a file can make a product panic: scales that are infinite or NaN give results
//!   that are.
//!
//! Not here: threads (the caller splits the rows); the form of activations (`activations.rs`).

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod drive;
mod format;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
mod panel;
mod scalar;
mod storage;

use std::fmt;
use std::ops::Range;

pub use format::Format;
/// How many rows are interleaved: ranges of rows start at a multiple of this.
pub const ROWS_PER_GROUP: usize = pack::GROUP;

use crate::{Activations, Isa};
use pack::GROUP;
use panel::{PANEL, Panel};
use storage::Storage;

/// A matrix of weights, packed. It does not change.
pub struct Matrix {
    format: Format,
    rows: usize,
    columns: usize,
    /// The groups.
    storage: Storage,
}

/// A matrix in the making: groups of rows can be packed on several threads.
///
/// Rows that nobody packs are zero.
#[derive(Debug)]
pub struct Packer(Matrix);

/// Some consecutive groups of a [`Packer`], to be packed on a thread of their own.
#[derive(Debug)]
pub struct Groups<'a> {
    format: Format,
    rows: Range<usize>,
    row_size: usize,
    bytes: &'a mut [u8],
}

/// Why there can be no such matrix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum MatrixError {
    #[error("a row of {columns} numbers cannot be split into blocks of {block_len} ({format})")]
    PartialBlock { format: Format, columns: usize, block_len: usize },

    #[error("{rows} rows of {columns} numbers as {format} are more than this machine can address")]
    TooLarge { format: Format, rows: usize, columns: usize },

    #[error("{rows} rows of {columns} numbers as {format} take {expected} bytes, not {got}")]
    WrongSize { format: Format, rows: usize, columns: usize, expected: usize, got: usize },
}

impl Matrix {
    /// Packs the rows of a file.
    pub fn pack(
        format: Format,
        rows: usize,
        columns: usize,
        source: &[u8],
    ) -> Result<Self, MatrixError> {
        let mut packer = Packer::new(format, rows, columns)?;
        let expected = rows * packer.row_size();
        if source.len() != expected {
            let got = source.len();
            return Err(MatrixError::WrongSize { format, rows, columns, expected, got });
        }
        for groups in packer.groups_mut(usize::MAX) {
            groups.pack(source)?;
        }
        Ok(packer.finish())
    }

    /// How many rows it has: how many numbers come out of a product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many numbers a row has.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How its numbers are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// How many groups of [`ROWS_PER_GROUP`] rows it has, the last one filled up.
    pub fn group_count(&self) -> usize {
        self.rows.div_ceil(GROUP)
    }

    /// How many bytes the packed rows take.
    pub fn size_bytes(&self) -> usize {
        self.group_count() * self.group_size()
    }

    /// Multiplies the weights of some rows with all rows of `input`.
    ///
    /// `out` gets one row of `rows.len()` numbers for each row of `input`. `rows` starts at a
    /// multiple of [`ROWS_PER_GROUP`].
    ///
    /// # Panics
    ///
    /// If the shapes do not fit, or `input` is not of the kind that the format asks for.
    pub fn multiply(&self, isa: Isa, input: &Activations, rows: Range<usize>, out: &mut [f32]) {
        let kind = self.format.activation_kind();
        assert!(input.kind() == kind, "{} wants {kind:?}, not {:?}", self.format, input.kind());
        assert!(input.columns() == self.columns, "{} for {}", input.columns(), self.columns);
        assert!(rows.start.is_multiple_of(GROUP), "rows start at {}", rows.start);
        assert!(rows.start <= rows.end && rows.end <= self.rows, "{rows:?} of {}", self.rows);
        let len = rows.len() * input.rows();
        assert!(out.len() == len, "{} outputs for {} rows", out.len(), input.rows());
        drive::multiply(isa, &mut drive::Job { matrix: self, input, rows, out });
    }

    /// The numbers of one row, as the file format defines them.
    ///
    /// # Panics
    ///
    /// If there is no such row, or `out` is not as long as a row.
    pub fn dequantise_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        assert!(out.len() == self.columns, "{} numbers for {}", out.len(), self.columns);
        let (group, row) = (self.group(row / GROUP), row % GROUP);
        if self.format.block_len() == 1 {
            for (number, column) in out.iter_mut().zip(group.chunks_exact(self.group_step(1))) {
                *number = panel::widen(self.format, column, row);
            }
            return;
        }
        let mut panel = Panel::new();
        let blocks = group.chunks(self.group_step(PANEL));
        for (numbers, packed) in out.chunks_mut(PANEL).zip(blocks) {
            panel.unpack(self.format, packed);
            panel.dequantise(self.format, row, numbers);
        }
    }

    /// The packed bytes of 16 rows.
    fn group(&self, index: usize) -> &[u8] {
        let size = self.group_size();
        &self.storage.bytes()[index * size..][..size]
    }

    fn group_size(&self) -> usize {
        self.group_step(self.columns)
    }

    /// How many bytes of a group hold this many columns.
    fn group_step(&self, columns: usize) -> usize {
        columns / self.format.block_len() * self.format.block_size() * GROUP
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Matrix({} rows of {} as {})", self.rows, self.columns, self.format)
    }
}

impl Packer {
    /// Room for a matrix, all zero.
    pub fn new(format: Format, rows: usize, columns: usize) -> Result<Self, MatrixError> {
        let block_len = format.block_len();
        if !columns.is_multiple_of(block_len) {
            return Err(MatrixError::PartialBlock { format, columns, block_len });
        }
        let size = (columns / block_len)
            .checked_mul(format.block_size())
            .and_then(|size| size.checked_mul(rows.checked_next_multiple_of(GROUP)?))
            .and_then(Storage::zeroed);
        let storage = size.ok_or(MatrixError::TooLarge { format, rows, columns })?;
        Ok(Self(Matrix { format, rows, columns, storage }))
    }

    /// How many bytes of a file hold one row.
    pub fn row_size(&self) -> usize {
        self.0.columns / self.0.format.block_len() * self.0.format.block_size()
    }

    /// The matrix in parts of this many groups of [`ROWS_PER_GROUP`] rows.
    pub fn groups_mut(&mut self, groups_each: usize) -> impl Iterator<Item = Groups<'_>> {
        let (format, rows, row_size) = (self.0.format, self.0.rows, self.row_size());
        let size = self.0.size_bytes();
        let groups_each = groups_each.clamp(1, self.0.group_count().max(1));
        let bytes = &mut self.0.storage.bytes_mut()[..size];
        let parts = bytes.chunks_mut((groups_each * GROUP * row_size).max(1));
        parts.enumerate().map(move |(index, bytes)| {
            let first = index * groups_each * GROUP;
            let rows = first..rows.min(first + groups_each * GROUP);
            Groups { format, rows, row_size, bytes }
        })
    }

    /// The matrix.
    pub fn finish(self) -> Matrix {
        self.0
    }
}

impl Groups<'_> {
    /// Which rows these are.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// How many bytes of a file hold these rows.
    pub fn source_size(&self) -> usize {
        self.rows.len() * self.row_size
    }

    /// Packs these rows, one after the other as in a file.
    pub fn pack(self, source: &[u8]) -> Result<(), MatrixError> {
        let (expected, got) = (self.source_size(), source.len());
        if got != expected {
            let (rows, columns) = (self.rows.len(), self.row_size / self.format.block_size());
            let (format, columns) = (self.format, columns * self.format.block_len());
            return Err(MatrixError::WrongSize { format, rows, columns, expected, got });
        }
        let groups = self.bytes.chunks_exact_mut(GROUP * self.row_size);
        for (rows, group) in source.chunks(GROUP * self.row_size).zip(groups) {
            pack::pack_group(self.format, self.row_size, rows, group);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
