//! The other operand of a matrix product: rows of numbers in the form that a format needs.
//!
//! [`ActivationKind::Floats`] keeps them. The other two forms round a block of 32 or 256 numbers
//! to signed bytes with one scale:
//!
//! ```text
//! largest = the largest magnitude of the block
//! scale   = largest / 127              inverse = 127 / largest
//! y       = x * inverse                quant   = truncate(y + copysign(0.5, y))
//! ```
//!
//! Each operation is one in `f32`, rounded to nearest even. So a quant is in `-127..=127`, and a
//! half is rounded away from zero.
//!
//! # Invariants
//!
//! * A block whose largest magnitude is below 2^-100 is all zero with scale 0.
//! * A block with an infinity or a NaN has quants 0 and scale NaN: every product with it is NaN.
//! * A row depends on that row alone, and no bit depends on the instruction set.
//!
//! Not here: products (`matrix.rs`); threads (see [`Activations::parts_mut`]).

mod quantise;

use crate::Isa;

/// The forms that rows of numbers can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ActivationKind {
    /// 32-bit floating point numbers.
    Floats,
    /// Bytes with a scale for every 32.
    Blocks32,
    /// Bytes with a scale for every 256.
    Blocks256,
}

/// Why there can be no such rows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum ActivationsError {
    #[error("rows of {columns} numbers cannot be split into blocks of {block_len}")]
    PartialBlock { columns: usize, block_len: usize },

    #[error("{len} numbers are no whole count of rows of {columns}")]
    PartialRow { len: usize, columns: usize },
}

/// Rows of numbers, ready to be multiplied with a matrix.
///
/// It is meant to be kept and filled again: [`Activations::set`] allocates only to grow.
#[derive(Debug, Clone)]
pub struct Activations {
    kind: ActivationKind,
    columns: usize,
    rows: usize,
    floats: Vec<f32>,
    /// Four consecutive numbers each.
    quants: Vec<[i8; 4]>,
    /// The same numbers in 16 bits, in the order 0, 2, 1, 3: [`ActivationKind::Blocks32`] only.
    wide: Vec<[i16; 4]>,
    scales: Vec<f32>,
    /// Sums of 16 consecutive numbers, in pairs.
    sums16: Vec<[i16; 2]>,
    /// Sums of 32 consecutive numbers, in pairs: [`ActivationKind::Blocks256`] only.
    sums32: Vec<[i16; 2]>,
}

/// Some consecutive rows of [`Activations`], to be filled on a thread of their own.
#[derive(Debug)]
pub struct ActivationsPart<'a> {
    kind: ActivationKind,
    columns: usize,
    rows: std::ops::Range<usize>,
    floats: &'a mut [f32],
    quants: &'a mut [[i8; 4]],
    wide: &'a mut [[i16; 4]],
    scales: &'a mut [f32],
    sums16: &'a mut [[i16; 2]],
    sums32: &'a mut [[i16; 2]],
}

/// One block of 256 numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SuperBlock<'a> {
    pub(crate) quants: &'a [[i8; 4]; 64],
    pub(crate) scale: f32,
    pub(crate) sums16: &'a [[i16; 2]; 8],
    pub(crate) sums32: &'a [[i16; 2]; 4],
}

/// Some consecutive blocks of 32 numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SmallBlocks<'a> {
    pub(crate) quants: &'a [[[i8; 4]; 8]],
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "AVX2 alone takes them"))]
    pub(crate) wide: &'a [[[i16; 4]; 8]],
    pub(crate) scales: &'a [f32],
    /// Sums of 16 numbers, two for each block.
    pub(crate) sums: &'a [[i16; 2]],
}

impl ActivationKind {
    /// How many numbers share a scale.
    pub fn block_len(self) -> usize {
        match self {
            Self::Floats => 1,
            Self::Blocks32 => 32,
            Self::Blocks256 => 256,
        }
    }
}

impl Activations {
    /// No rows yet, of this many numbers each.
    pub fn new(kind: ActivationKind, columns: usize) -> Result<Self, ActivationsError> {
        let block_len = kind.block_len();
        if !columns.is_multiple_of(block_len) {
            return Err(ActivationsError::PartialBlock { columns, block_len });
        }
        Ok(Self {
            kind,
            columns,
            rows: 0,
            floats: Vec::new(),
            quants: Vec::new(),
            wide: Vec::new(),
            scales: Vec::new(),
            sums16: Vec::new(),
            sums32: Vec::new(),
        })
    }

    /// Takes in rows, one after the other, in place of those that were there.
    pub fn set(&mut self, isa: Isa, values: &[f32]) -> Result<(), ActivationsError> {
        let columns = self.columns;
        let partial = ActivationsError::PartialRow { len: values.len(), columns };
        if columns == 0 || !values.len().is_multiple_of(columns) {
            return if values.is_empty() {
                self.resize(0);
                Ok(())
            } else {
                Err(partial)
            };
        }
        let rows = values.len() / columns;
        self.resize(rows);
        for part in self.parts_mut(rows.max(1)) {
            part.set(isa, values);
        }
        Ok(())
    }

    /// Makes room for this many rows; what they hold is unspecified until a part sets them.
    pub fn resize(&mut self, rows: usize) {
        let (len, kind) = (rows * self.columns, self.kind);
        let len_if = |wanted: bool, each: usize| if wanted { len / each } else { 0 };
        let (floats, small) = (kind == ActivationKind::Floats, kind == ActivationKind::Blocks32);
        self.rows = rows;
        self.floats.resize(len_if(floats, 1), 0.0);
        self.quants.resize(len_if(!floats, 4), [0; 4]);
        self.wide.resize(len_if(small, 4), [0; 4]);
        self.scales.resize(len_if(!floats, kind.block_len()), 0.0);
        self.sums16.resize(len_if(!floats, 32), [0; 2]);
        self.sums32.resize(len_if(!floats && !small, 64), [0; 2]);
    }

    /// The rows in parts of `rows_each`, to be set on several threads.
    pub fn parts_mut(&mut self, rows_each: usize) -> impl Iterator<Item = ActivationsPart<'_>> {
        let (kind, columns, rows) = (self.kind, self.columns, self.rows);
        let each = columns * rows_each.clamp(1, rows.max(1));
        let mut floats = self.floats.chunks_mut(each.max(1));
        let mut quants = self.quants.chunks_mut((each / 4).max(1));
        let mut wide = self.wide.chunks_mut((each / 4).max(1));
        let mut scales = self.scales.chunks_mut((each / kind.block_len()).max(1));
        let mut sums16 = self.sums16.chunks_mut((each / 32).max(1));
        let mut sums32 = self.sums32.chunks_mut((each / 64).max(1));
        let rows_each = rows_each.max(1);
        (0..rows).step_by(rows_each).map(move |first| ActivationsPart {
            kind,
            columns,
            rows: first..rows.min(first.saturating_add(rows_each)),
            floats: floats.next().unwrap_or_default(),
            quants: quants.next().unwrap_or_default(),
            wide: wide.next().unwrap_or_default(),
            scales: scales.next().unwrap_or_default(),
            sums16: sums16.next().unwrap_or_default(),
            sums32: sums32.next().unwrap_or_default(),
        })
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many numbers a row has.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The form they have.
    pub fn kind(&self) -> ActivationKind {
        self.kind
    }

    /// What a row stands for after rounding: what a product is a product of.
    ///
    /// # Panics
    ///
    /// If there is no such row.
    pub fn dequantise_row(&self, row: usize) -> Vec<f32> {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        let range = row * self.columns..(row + 1) * self.columns;
        if self.kind == ActivationKind::Floats {
            return self.floats[range].to_vec();
        }
        let scale = |index: usize| self.scales[index / self.kind.block_len()];
        range.map(|index| f32::from(self.quants[index / 4][index % 4]) * scale(index)).collect()
    }

    #[inline]
    pub(crate) fn floats(&self, row: usize) -> &[f32] {
        &self.floats[row * self.columns..(row + 1) * self.columns]
    }

    #[inline]
    pub(crate) fn super_block(&self, row: usize, index: usize) -> SuperBlock<'_> {
        let index = row * (self.columns / 256) + index;
        SuperBlock {
            quants: &self.quants.as_chunks().0[index],
            scale: self.scales[index],
            sums16: &self.sums16.as_chunks().0[index],
            sums32: &self.sums32.as_chunks().0[index],
        }
    }

    #[inline]
    pub(crate) fn small_blocks(&self, row: usize, first: usize, count: usize) -> SmallBlocks<'_> {
        let first = row * (self.columns / 32) + first;
        let range = first..first + count;
        SmallBlocks {
            quants: &self.quants.as_chunks().0[range.clone()],
            wide: &self.wide.as_chunks().0[range.clone()],
            scales: &self.scales[range.clone()],
            sums: &self.sums16[range],
        }
    }
}

impl ActivationsPart<'_> {
    /// Which rows these are.
    pub fn rows(&self) -> std::ops::Range<usize> {
        self.rows.clone()
    }

    /// Takes in the rows of this part, one after the other.
    ///
    /// # Panics
    ///
    /// If these are not as many numbers as the part has.
    pub fn set(self, isa: Isa, values: &[f32]) {
        let len = self.rows.len() * self.columns;
        assert!(values.len() == len, "{} numbers for a part of {len}", values.len());
        match self.kind {
            ActivationKind::Floats => self.floats.copy_from_slice(values),
            ActivationKind::Blocks32 | ActivationKind::Blocks256 => {
                quantise::quantise(isa, values, self);
            }
        }
    }
}

#[cfg(test)]
mod tests;
