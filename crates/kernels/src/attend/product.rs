//! Sums of rows, each times a coefficient: scores and weighted values alike.
//!
//! `sums[n][column] += coefficients[n][0] * rows[0][column] + coefficients[n][1] * rows[1][column]`
//! and so on, ascending. For scores the rows are dimensions and the columns positions; for values it
//! is the other way round. A block of sums stays in registers while all rows go by.

#![expect(clippy::needless_range_loop, reason = "one index runs through several arrays")]

use std::ops::Range;

use crate::lanes::{Element, Kernel, LANES, Simd};

/// How many coefficients a row is used for while it is in registers, at most.
const GROUP_MAX: usize = 8;

/// What is added to what. Sizes are counted in numbers.
pub(super) struct Product<'a, E> {
    /// `[count][depth]`
    pub(super) coefficients: &'a [f32],
    pub(super) coefficient_stride: usize,
    /// `[depth][columns]`
    pub(super) rows: &'a [E],
    pub(super) row_stride: usize,
    /// `[count][columns]`
    pub(super) sums: &'a mut [f32],
    pub(super) sum_stride: usize,
    /// A [`group`] of this size.
    pub(super) count: usize,
    /// How many rows are summed.
    pub(super) depth: usize,
    /// Which columns: whole lanes.
    pub(super) columns: Range<usize>,
}

/// How many of the queries that are left to take at once: as many as fit, in like groups.
#[inline(always)]
pub(super) fn group<S: Simd>(left: usize) -> usize {
    let most = if S::SUMS < GROUP_MAX { S::SUMS } else { GROUP_MAX };
    left.div_ceil(left.div_ceil(most))
}

/// Adds the product to its sums.
#[inline(always)]
pub(super) fn add_product<S: Simd, E: Element>(simd: S, product: Product<'_, E>) {
    // Groups that this instruction set does not form are not compiled for it.
    match product.count {
        1 => simd.apart(Columns::<E, 1>(product)),
        2 => simd.apart(Columns::<E, 2>(product)),
        3 if S::SUMS >= 3 => simd.apart(Columns::<E, 3>(product)),
        4 if S::SUMS >= 4 => simd.apart(Columns::<E, 4>(product)),
        5 if S::SUMS >= 5 => simd.apart(Columns::<E, 5>(product)),
        6 if S::SUMS >= 6 => simd.apart(Columns::<E, 6>(product)),
        7 if S::SUMS >= 7 => simd.apart(Columns::<E, 7>(product)),
        8 if S::SUMS >= 8 => simd.apart(Columns::<E, 8>(product)),
        count => unreachable!("no group has {count} queries"),
    }
}

/// Adds the product of a single query, in less code.
#[inline(always)]
pub(super) fn add_single<S: Simd, E: Element>(simd: S, product: Product<'_, E>) {
    simd.apart(Columns::<E, 1>(product));
}

/// A product with its count as a constant.
struct Columns<'a, E, const N: usize>(Product<'a, E>);

impl<E: Element, const N: usize> Kernel for Columns<'_, E, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        add_columns::<S, E, N>(simd, self.0);
    }
}

/// All columns, in blocks as wide as registers allow.
#[inline(always)]
fn add_columns<S: Simd, E: Element, const N: usize>(simd: S, mut product: Product<'_, E>) {
    let Range { start: mut column, end } = product.columns;
    // Two blocks of columns take twice the registers: for sums, and for a row.
    if 2 * (N + 1) <= S::SUMS + 1 {
        while column + 2 * LANES <= end {
            add_block::<S, E, N, 2>(simd, &mut product, column);
            column += 2 * LANES;
        }
    }
    while column < end {
        add_block::<S, E, N, 1>(simd, &mut product, column);
        column += LANES;
    }
}

/// `N` times `W` times sixteen sums.
#[inline(always)]
fn add_block<S: Simd, E: Element, const N: usize, const W: usize>(
    simd: S,
    product: &mut Product<'_, E>,
    column: usize,
) {
    let Product { coefficient_stride, row_stride, sum_stride, depth, .. } = *product;
    let mut sums = [[simd.splat(0.0); W]; N];
    let mut coefficients: [&[f32]; N] = [&[]; N];
    for n in 0..N {
        coefficients[n] = &product.coefficients[n * coefficient_stride..][..depth];
        for w in 0..W {
            sums[n][w] = simd.load(sixteen(product.sums, n * sum_stride + column + w * LANES));
        }
    }
    let mut at = column;
    for index in 0..depth {
        let mut row = [simd.splat(0.0); W];
        let cells = &product.rows[at..at + W * LANES];
        for w in 0..W {
            row[w] = E::widen(simd, sixteen(cells, w * LANES));
        }
        at += row_stride;
        for n in 0..N {
            let coefficient = simd.splat(coefficients[n][index]);
            for w in 0..W {
                sums[n][w] = simd.add_product(sums[n][w], coefficient, row[w]);
            }
        }
    }
    for n in 0..N {
        for w in 0..W {
            let start = n * sum_stride + column + w * LANES;
            let Some(to) = product.sums[start..].first_chunk_mut() else { unreachable!("whole") };
            simd.store(sums[n][w], to);
        }
    }
}

/// The sixteen numbers that start here.
///
/// # Panics
///
/// Where there are fewer.
#[inline(always)]
fn sixteen<E>(numbers: &[E], start: usize) -> &[E; LANES] {
    match numbers[start..].first_chunk() {
        Some(sixteen) => sixteen,
        None => unreachable!("rows are whole lanes"),
    }
}
