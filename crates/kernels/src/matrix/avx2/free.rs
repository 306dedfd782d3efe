//! What exactness costs is measured against this: sums in an order of the processor's liking.
//!
//! A build with `--cfg free_order` and `-C target-feature=+avx2,+f16c,+fma` fuses products with
//! sums wherever AVX2 adds one to the other, and here it also adds two columns side by side, so
//! that no sum waits for the one before it. Its results are of no class. Integer sums are exact in
//! any order, so block formats leave little else to free. `cargo xtask conform cost` compares the
//! two builds; nothing else makes this one.
#![allow(clippy::wildcard_imports, reason = "the names of intrinsics say where they are from")]
#![expect(clippy::needless_range_loop, reason = "an index is into several arrays at once")]

use std::arch::x86_64::*;

use super::registers::*;
use crate::matrix::drive::{Accumulator, Rows};

/// Accumulates columns of 16 numbers, the odd ones on their own.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn floats<const ROWS: usize>(
    columns: impl ExactSizeIterator<Item = [__m256; 2]>,
    input: Rows<'_>,
    out: &mut [Accumulator; ROWS],
) {
    let mut even = load_all(out);
    let mut odd = [[_mm256_setzero_ps(); 2]; ROWS];
    let numbers = input.floats::<ROWS>(columns.len());
    let mut columns = columns.enumerate();
    while let Some((index, weights)) = columns.next() {
        add(&mut even, weights, &numbers, index);
        if let Some((index, weights)) = columns.next() {
            add(&mut odd, weights, &numbers, index);
        }
    }
    for row in 0..ROWS {
        for half in 0..2 {
            even[row][half] = _mm256_add_ps(even[row][half], odd[row][half]);
        }
    }
    store_all(&even, out);
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn add<const ROWS: usize>(
    sums: &mut [[__m256; 2]; ROWS],
    weights: [__m256; 2],
    numbers: &[&[f32]; ROWS],
    index: usize,
) {
    for row in 0..ROWS {
        let number = _mm256_set1_ps(numbers[row][index]);
        for half in 0..2 {
            sums[row][half] = add_product(sums[row][half], weights[half], number);
        }
    }
}
