//! The order in which a product visits its operands, for every instruction set.
//!
//! ```text
//! for rows of activations that fit a cache
//!   for groups of 16 rows of weights
//!     for panels of 256 columns: unpack, then
//!       for tiles of up to 4 rows of activations: multiply and accumulate
//! ```
//!
//! So what is unpacked is used by all rows at once. For few rows unpacking would cost more than
//! it spares: an instruction set may offer a kernel that takes packed weights.
//!
//! Not here: arithmetic.

use std::ops::Range;

use super::format::Format;
use super::pack::GROUP;
use super::panel::{PANEL, Panel};
use super::{Matrix, scalar};
use crate::activations::{Activations, SmallBlocks, SuperBlock};
use crate::isa::{Isa, Kind};

#[cfg(target_arch = "aarch64")]
use super::neon;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// The most rows of activations that a kernel takes at once.
pub(super) const TILE: usize = 4;

/// The most rows of activations between two visits of a group of weights.
const BATCH: usize = 128;

/// How many bytes of activations we want to find in the cache for the next group of weights.
const CACHED: usize = 320 << 10;

/// What [`Matrix::multiply`] is asked to do, checked.
pub(super) struct Job<'a> {
    pub(super) matrix: &'a Matrix,
    pub(super) input: &'a Activations,
    pub(super) rows: Range<usize>,
    pub(super) out: &'a mut [f32],
}

/// One accumulator for each of 16 rows of weights.
pub(super) type Accumulator = [f32; GROUP];

/// 16 rows and up to 256 columns of floating point weights: the rows of each column.
pub(super) type Floats = [[f32; GROUP]; PANEL];

/// The arithmetic of an instruction set. A value of it is proof that the machine has it.
///
/// Each method does for a tile of rows of activations what `scalar.rs` does.
pub(super) trait Kernels {
    /// Unpacks blocks.
    fn unpack(&self, format: Format, packed: &[u8], panel: &mut Panel);

    /// Widens columns of 16 numbers.
    fn widen(&self, format: Format, packed: &[u8], floats: &mut Floats);

    /// Accumulates a whole group of packed weights for a few rows, where that is the faster way.
    ///
    /// Whether it did: if not, nothing has changed.
    fn packed<const ROWS: usize>(
        &self,
        _format: Format,
        _group: &[u8],
        _input: Rows<'_>,
        _out: &mut [Accumulator; ROWS],
    ) -> bool {
        false
    }

    /// Accumulates one block of a k-quant.
    fn super_block<const ROWS: usize>(
        &self,
        format: Format,
        panel: &Panel,
        input: Tile<'_>,
        out: &mut [Accumulator; ROWS],
    );

    /// Accumulates up to eight blocks of 32.
    fn small_blocks<const ROWS: usize>(
        &self,
        format: Format,
        panel: &Panel,
        input: Tile<'_>,
        out: &mut [Accumulator; ROWS],
    );

    /// Accumulates columns of floating point numbers.
    fn floats<const ROWS: usize>(
        &self,
        weights: &[[f32; GROUP]],
        input: Tile<'_>,
        out: &mut [Accumulator; ROWS],
    );
}

/// Computes the product.
pub(super) fn multiply(isa: Isa, job: &mut Job<'_>) {
    match isa.kind() {
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => drive(&avx2::Avx2::new(isa), job),
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => drive(&avx512::Avx512::new(isa), job),
        #[cfg(target_arch = "aarch64")]
        Kind::Neon => drive(&neon::Neon::new(isa), job),
        _ => drive(&scalar::Scalar, job),
    }
}

/// What a thread needs beside its operands: on its stack, and of a fixed size.
struct Scratch {
    panel: Panel,
    floats: Floats,
    sums: [Accumulator; BATCH],
}

fn drive(kernels: &impl Kernels, job: &mut Job<'_>) {
    let (matrix, input) = (job.matrix, job.input);
    let number_size = if matrix.format.block_len() == 1 { 4 } else { 1 };
    let batch = CACHED / (number_size * matrix.columns).max(1);
    let batch = batch.clamp(BATCH / 4, BATCH) / TILE * TILE;
    let mut scratch =
        Scratch { panel: Panel::new(), floats: [[0.0; GROUP]; PANEL], sums: [[0.0; GROUP]; BATCH] };
    for first in (0..input.rows()).step_by(batch) {
        let rows = first..input.rows().min(first + batch);
        for group in job.rows.start / GROUP..job.rows.end.div_ceil(GROUP) {
            scratch.sums[..rows.len()].fill([0.0; GROUP]);
            let rows = Rows { input, start: rows.start, end: rows.end };
            if !accumulate_few(kernels, matrix, group, rows, &mut scratch.sums) {
                accumulate(kernels, matrix, group, rows, &mut scratch);
            }
            write(job, group, first, &scratch.sums[..rows.end - rows.start]);
        }
    }
}

/// Some rows of activations.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) input: &'a Activations,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// A few rows of activations from `row`, and of these the columns of one panel.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    input: &'a Activations,
    row: usize,
    start: usize,
    columns: usize,
}

// The arrays of these are to stay in registers, so nothing here may remain a call.
#[expect(clippy::inline_always, reason = "an array that crosses a call goes through memory")]
impl<'a> Tile<'a> {
    /// The numbers of each row.
    #[inline(always)]
    pub(super) fn floats<const ROWS: usize>(self) -> [&'a [f32]; ROWS] {
        let columns = self.start..self.start + self.columns;
        each(self.row, |row| &self.input.floats(row)[columns.clone()])
    }

    /// The block of 256 of each row.
    #[inline(always)]
    pub(super) fn super_block<const ROWS: usize>(self) -> [SuperBlock<'a>; ROWS] {
        each(self.row, |row| self.input.super_block(row, self.start / 256))
    }

    /// The blocks of 32 of each row.
    #[inline(always)]
    pub(super) fn small_blocks<const ROWS: usize>(self) -> [SmallBlocks<'a>; ROWS] {
        each(self.row, |row| self.input.small_blocks(row, self.start / 32, self.columns / 32))
    }
}

#[expect(clippy::inline_always, reason = "an array that crosses a call goes through memory")]
#[cfg(target_arch = "x86_64")]
impl<'a> Rows<'a> {
    /// The first columns of each row.
    #[inline(always)]
    pub(super) fn floats<const ROWS: usize>(self, columns: usize) -> [&'a [f32]; ROWS] {
        each(self.start, |row| &self.input.floats(row)[..columns])
    }

    /// One block of 256 of each row.
    #[inline(always)]
    pub(super) fn super_block<const ROWS: usize>(self, index: usize) -> [SuperBlock<'a>; ROWS] {
        each(self.start, |row| self.input.super_block(row, index))
    }

    /// The first blocks of 32 of each row.
    #[inline(always)]
    pub(super) fn small_blocks<const ROWS: usize>(self, count: usize) -> [SmallBlocks<'a>; ROWS] {
        each(self.start, |row| self.input.small_blocks(row, 0, count))
    }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "an array that crosses a call goes through memory")]
fn each<T: Copy, const ROWS: usize>(first: usize, of: impl Fn(usize) -> T) -> [T; ROWS] {
    let mut all = [of(first); ROWS];
    for (index, one) in all.iter_mut().enumerate().skip(1) {
        *one = of(first + index);
    }
    all
}

/// Accumulates the whole of a group for at most [`TILE`] rows, if the kernels have a way.
fn accumulate_few(
    kernels: &impl Kernels,
    matrix: &Matrix,
    group: usize,
    rows: Rows<'_>,
    out: &mut [Accumulator; BATCH],
) -> bool {
    let (format, packed) = (matrix.format, matrix.group(group));
    match rows.end - rows.start {
        1 => {
            out.first_chunk_mut().is_some_and(|out| kernels.packed::<1>(format, packed, rows, out))
        }
        2 => {
            out.first_chunk_mut().is_some_and(|out| kernels.packed::<2>(format, packed, rows, out))
        }
        3 => {
            out.first_chunk_mut().is_some_and(|out| kernels.packed::<3>(format, packed, rows, out))
        }
        4 => {
            out.first_chunk_mut().is_some_and(|out| kernels.packed::<4>(format, packed, rows, out))
        }
        _ => false,
    }
}

/// Accumulates the whole of a group.
fn accumulate(
    kernels: &impl Kernels,
    matrix: &Matrix,
    group: usize,
    rows: Rows<'_>,
    scratch: &mut Scratch,
) {
    let (format, packed) = (matrix.format, matrix.group(group));
    let step = matrix.group_step(PANEL);
    for (index, packed) in packed.chunks(step).enumerate() {
        let columns = packed.len() / matrix.group_step(format.block_len()) * format.block_len();
        let tile = Tile { input: rows.input, row: 0, start: index * PANEL, columns };
        let Scratch { panel, floats, sums } = scratch;
        let tiles = (rows.start..rows.end).step_by(TILE).zip(sums.chunks_mut(TILE));
        if format.block_len() == 1 {
            kernels.widen(format, packed, floats);
        } else {
            kernels.unpack(format, packed, panel);
        }
        let weights = Weights { format, panel, floats: &floats[..columns.min(PANEL)] };
        for (row, out) in tiles {
            let tile = Tile { row, ..tile };
            match out.len().min(rows.end - row) {
                1 => weights.multiply::<1>(kernels, tile, out),
                2 => weights.multiply::<2>(kernels, tile, out),
                3 => weights.multiply::<3>(kernels, tile, out),
                _ => weights.multiply::<4>(kernels, tile, out),
            }
        }
    }
}

/// What is unpacked of the weights: floating point numbers or blocks.
struct Weights<'a> {
    format: Format,
    panel: &'a Panel,
    floats: &'a [[f32; GROUP]],
}

impl Weights<'_> {
    fn multiply<const ROWS: usize>(
        &self,
        kernels: &impl Kernels,
        tile: Tile<'_>,
        out: &mut [Accumulator],
    ) {
        let Some(out) = out.first_chunk_mut::<ROWS>() else { return };
        match self.format.block_len() {
            1 => kernels.floats(self.floats, tile, out),
            32 => kernels.small_blocks(self.format, self.panel, tile, out),
            _ => kernels.super_block(self.format, self.panel, tile, out),
        }
    }
}

/// Writes the sums of a group, but for those of rows that are not asked for.
fn write(job: &mut Job<'_>, group: usize, first: usize, sums: &[Accumulator]) {
    let start = group * GROUP - job.rows.start;
    let count = GROUP.min(job.rows.len() - start);
    for (row, sums) in sums.iter().enumerate() {
        let at = (first + row) * job.rows.len() + start;
        job.out[at..at + count].copy_from_slice(&sums[..count]);
    }
}
