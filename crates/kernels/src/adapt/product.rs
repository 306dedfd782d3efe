//! The product of a segment: sixteen rows of weights in lanes, four sums for each row of numbers.
//!
//! A single row takes its weights from memory, widened in registers. For several rows a panel of
//! 256 columns is widened once and read by all of them; their sums wait between two panels.
//!
//! Not here: packing.

#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for its set")]

use std::ops::Range;

use super::{BLOCK, Factor, Numbers, Rows, Tile};
use crate::isa::Isa;
use crate::lanes::{Element, Kernel, LANES, Simd};

/// Sums of one row: by the column's index modulo this.
const SUMS: usize = 4;

/// Columns that are widened at once: 16 KiB, half of a small first-level cache. A multiple of
/// [`BLOCK`] and of [`SUMS`].
const PANEL: usize = 256;

/// Rows whose sums wait between two panels.
const ROWS: usize = 64;

/// Sixteen numbers of each column.
type Lines<'a> = &'a [[f32; LANES]];

/// What several rows need: on the stack, and of a fixed size.
struct Scratch {
    panel: [[f32; LANES]; PANEL],
    /// Of each row, between two panels.
    sums: [[[f32; LANES]; SUMS]; ROWS],
}

/// One product of one segment, checked.
pub(super) struct Job<'a> {
    pub(super) factor: &'a Factor,
    pub(super) input: Rows<'a>,
    pub(super) outputs: Range<usize>,
    pub(super) out: Tile<'a>,
    pub(super) finish: Finish<'a>,
}

/// What is done with a product.
#[derive(Clone, Copy)]
pub(super) enum Finish<'a> {
    /// It is written.
    Store,
    /// It is scaled and added; then the sum is multiplied.
    Add { scale: f32, row_factors: Option<&'a [f32]> },
}

pub(super) fn run(isa: Isa, job: Job<'_>) {
    crate::lanes::run(isa, job);
}

impl Kernel for Job<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        match &self.factor.numbers {
            Numbers::F32(lines) => self.multiply(simd, Whole(lines)),
            Numbers::F16(lines) => self.multiply(simd, Plain(lines)),
            Numbers::Bf16(lines) => self.multiply(simd, Plain(lines)),
            Numbers::Q8 { quants, scales } => self.multiply(simd, Blocks { quants, scales }),
        }
    }
}

impl Job<'_> {
    #[inline(always)]
    fn multiply<S: Simd>(&mut self, simd: S, weights: impl Weights) {
        let columns = self.factor.columns;
        let groups = self.outputs.start / LANES..self.outputs.end.div_ceil(LANES);
        let of_group = |group: usize| weights.part(group * columns..(group + 1) * columns);
        match *self.input.rows {
            [] => {}
            [row] => {
                for group in groups {
                    let zero = [simd.splat(0.0); SUMS];
                    let numbers = self.input.row(row, columns);
                    let sums = of_group(group).accumulate(simd, numbers, zero);
                    self.finish(simd, group, row, sums);
                }
            }
            _ => {
                // Once for all groups: to clear it takes as long as some of them.
                let mut scratch =
                    Scratch { panel: [[0.0; LANES]; PANEL], sums: [[[0.0; LANES]; SUMS]; ROWS] };
                for group in groups {
                    self.multiply_many(simd, (group, of_group(group)), &mut scratch);
                }
            }
        }
    }

    /// Multiplies a group of weights with all rows of the segment.
    #[inline(always)]
    fn multiply_many<S: Simd>(
        &mut self,
        simd: S,
        (group, weights): (usize, impl Weights),
        scratch: &mut Scratch,
    ) {
        let columns = self.factor.columns;
        let input = self.input;
        for rows in input.rows.chunks(ROWS) {
            let mut start = 0;
            loop {
                let part = start..columns.min(start + PANEL);
                let widened = Whole(weights.part(part.clone()).widen(simd, &mut scratch.panel));
                for (&row, waiting) in rows.iter().zip(&mut scratch.sums) {
                    let numbers = &input.row(row, columns)[part.clone()];
                    let before =
                        if start == 0 { [simd.splat(0.0); SUMS] } else { load(simd, waiting) };
                    let sums = widened.accumulate(simd, numbers, before);
                    if part.end == columns {
                        self.finish(simd, group, row, sums);
                    } else {
                        store(simd, sums, waiting);
                    }
                }
                if part.end == columns {
                    break;
                }
                start = part.end;
            }
        }
    }

    /// Adds the four sums up, and puts the result where it belongs.
    #[inline(always)]
    fn finish<S: Simd>(&mut self, simd: S, group: usize, row: usize, sums: [S::Lanes; SUMS]) {
        let product = simd.add(simd.add(sums[0], sums[2]), simd.add(sums[1], sums[3]));
        let start = group * LANES - self.outputs.start;
        let count = LANES.min(self.outputs.len() - start);
        let at = (row - self.out.first_row) * self.out.stride + start;
        let to = &mut self.out.values[at..at + count];
        let of_row = group * LANES..group * LANES + count;
        if let Some(whole) = to.first_chunk_mut::<LANES>() {
            let result = match self.finish {
                Finish::Store => product,
                Finish::Add { scale, row_factors } => {
                    let sum = simd.add(simd.load(whole), simd.mul(simd.splat(scale), product));
                    match row_factors.and_then(|it| it[of_row].first_chunk::<LANES>()) {
                        Some(factors) => simd.mul(sum, simd.load(factors)),
                        None => sum,
                    }
                }
            };
            return simd.store(result, whole);
        }
        let result = match self.finish {
            Finish::Store => product,
            Finish::Add { scale, row_factors } => {
                let sum = simd.add(simd.load_part(to), simd.mul(simd.splat(scale), product));
                match row_factors {
                    Some(factors) => simd.mul(sum, simd.load_part(&factors[of_row])),
                    None => sum,
                }
            }
        };
        simd.store_part(result, to);
    }
}

impl<'a> Rows<'a> {
    /// The numbers of one row that are read.
    #[inline(always)]
    fn row(&self, row: usize, columns: usize) -> &'a [f32] {
        &self.values[(row - self.first_row) * self.stride + self.first..][..columns]
    }
}

#[inline(always)]
fn load<S: Simd>(simd: S, from: &[[f32; LANES]; SUMS]) -> [S::Lanes; SUMS] {
    [simd.load(&from[0]), simd.load(&from[1]), simd.load(&from[2]), simd.load(&from[3])]
}

#[inline(always)]
fn store<S: Simd>(simd: S, sums: [S::Lanes; SUMS], to: &mut [[f32; LANES]; SUMS]) {
    for (sum, to) in sums.into_iter().zip(to) {
        simd.store(sum, to);
    }
}

/// Sixteen rows of weights, or all groups of them: sixteen numbers for each column.
trait Weights: Copy {
    /// Some columns, from a multiple of [`BLOCK`] on.
    fn part(self, columns: Range<usize>) -> Self;

    /// Adds the products of all columns to the four sums.
    fn accumulate<S: Simd>(self, simd: S, row: &[f32], sums: [S::Lanes; SUMS]) -> [S::Lanes; SUMS];

    /// All columns, widened; there are at most [`PANEL`].
    fn widen<'a, S: Simd>(self, simd: S, panel: &'a mut [[f32; LANES]; PANEL]) -> Lines<'a>
    where
        Self: 'a;
}

/// Adds the products of columns, four at a time, to the four sums.
#[inline(always)]
fn accumulate<S: Simd, E: Copy>(
    simd: S,
    (lines, row): (&[[E; LANES]], &[f32]),
    mut sums: [S::Lanes; SUMS],
    widen: impl Fn(&[E; LANES]) -> S::Lanes,
) -> [S::Lanes; SUMS] {
    let ((fours, rest), (numbers, last)) = (lines.as_chunks::<SUMS>(), row.as_chunks::<SUMS>());
    let add = |sum: S::Lanes, line: &[E; LANES], number: f32| {
        simd.add(sum, simd.mul(widen(line), simd.splat(number)))
    };
    for (four, numbers) in fours.iter().zip(numbers) {
        sums[0] = add(sums[0], &four[0], numbers[0]);
        sums[1] = add(sums[1], &four[1], numbers[1]);
        sums[2] = add(sums[2], &four[2], numbers[2]);
        sums[3] = add(sums[3], &four[3], numbers[3]);
    }
    if let (Some(line), Some(&number)) = (rest.first(), last.first()) {
        sums[0] = add(sums[0], line, number);
    }
    if let (Some(line), Some(&number)) = (rest.get(1), last.get(1)) {
        sums[1] = add(sums[1], line, number);
    }
    if let (Some(line), Some(&number)) = (rest.get(2), last.get(2)) {
        sums[2] = add(sums[2], line, number);
    }
    sums
}

/// Numbers that are wide already.
#[derive(Clone, Copy)]
struct Whole<'a>(Lines<'a>);

impl Weights for Whole<'_> {
    #[inline(always)]
    fn part(self, columns: Range<usize>) -> Self {
        Self(&self.0[columns])
    }

    #[inline(always)]
    fn accumulate<S: Simd>(self, simd: S, row: &[f32], sums: [S::Lanes; SUMS]) -> [S::Lanes; SUMS] {
        accumulate(simd, (self.0, row), sums, |line| simd.load(line))
    }

    #[inline(always)]
    fn widen<'a, S: Simd>(self, _: S, _: &'a mut [[f32; LANES]; PANEL]) -> Lines<'a>
    where
        Self: 'a,
    {
        self.0
    }
}

/// Numbers that widen each by itself.
#[derive(Clone, Copy)]
struct Plain<'a, E>(&'a [[E; LANES]]);

impl<E: Element> Weights for Plain<'_, E> {
    #[inline(always)]
    fn part(self, columns: Range<usize>) -> Self {
        Self(&self.0[columns])
    }

    #[inline(always)]
    fn accumulate<S: Simd>(self, simd: S, row: &[f32], sums: [S::Lanes; SUMS]) -> [S::Lanes; SUMS] {
        accumulate(simd, (self.0, row), sums, |line| E::widen(simd, line))
    }

    #[inline(always)]
    fn widen<'a, S: Simd>(self, simd: S, panel: &'a mut [[f32; LANES]; PANEL]) -> Lines<'a>
    where
        Self: 'a,
    {
        for (line, out) in self.0.iter().zip(&mut *panel) {
            simd.store(E::widen(simd, line), out);
        }
        &panel[..self.0.len()]
    }
}

/// Numbers in blocks of 32 columns with a scale: see [`Numbers::Q8`].
#[derive(Clone, Copy)]
struct Blocks<'a> {
    quants: &'a [[i8; LANES]],
    scales: &'a [[u16; LANES]],
}

impl Weights for Blocks<'_> {
    #[inline(always)]
    fn part(self, columns: Range<usize>) -> Self {
        let scales = &self.scales[columns.start / BLOCK..columns.end / BLOCK];
        Self { quants: &self.quants[columns], scales }
    }

    #[inline(always)]
    fn accumulate<S: Simd>(
        self,
        simd: S,
        row: &[f32],
        mut sums: [S::Lanes; SUMS],
    ) -> [S::Lanes; SUMS] {
        let blocks = self.quants.chunks_exact(BLOCK).zip(row.chunks_exact(BLOCK));
        for ((quants, numbers), scale) in blocks.zip(self.scales) {
            let scale = simd.load_half(scale);
            sums = accumulate(simd, (quants, numbers), sums, |line| {
                simd.mul(scale, simd.load_bytes(line))
            });
        }
        sums
    }

    #[inline(always)]
    fn widen<'a, S: Simd>(self, simd: S, panel: &'a mut [[f32; LANES]; PANEL]) -> Lines<'a>
    where
        Self: 'a,
    {
        let blocks = self.quants.chunks_exact(BLOCK).zip(panel.chunks_exact_mut(BLOCK));
        for ((quants, out), scale) in blocks.zip(self.scales) {
            let scale = simd.load_half(scale);
            for (line, out) in quants.iter().zip(out) {
                simd.store(simd.mul(scale, simd.load_bytes(line)), out);
            }
        }
        &panel[..self.quants.len()]
    }
}
