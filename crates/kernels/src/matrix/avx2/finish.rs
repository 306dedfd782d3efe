//! What is done once for each block: offsets, and the floating point part.
#![allow(clippy::wildcard_imports, reason = "the names of intrinsics say where they are from")]
#![expect(clippy::needless_range_loop, reason = "an index is into several arrays at once")]

use std::arch::x86_64::*;

use super::registers::*;
use crate::matrix::format::Format;
use crate::matrix::pack::GROUP;
use crate::matrix::panel::Pairs;

/// The sums of sub-blocks times their offsets.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn offsets(offsets: &[Pairs], input: &[[i16; 2]]) -> [__m256i; 2] {
    let mut sums = [_mm256_setzero_si256(); 2];
    for (pairs, &input) in offsets.iter().zip(input) {
        let input = broadcast_pair(input);
        for half in 0..2 {
            let products = _mm256_madd_epi16(load_pairs(pairs, half), input);
            sums[half] = _mm256_add_epi32(sums[half], products);
        }
    }
    sums
}

/// Adds offsets to the sums where they belong, and does the floating point part.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn finish(
    format: Format,
    (scales, minimums): (&[f32; GROUP], &[f32; GROUP]),
    input: f32,
    (mut sums, offsets): ([__m256i; 2], [__m256i; 2]),
    out: &mut [__m256; 2],
) {
    if !format.has_minimum() && format.zero() != 0 {
        sums = [0, 1].map(|half| _mm256_add_epi32(sums[half], offsets[half]));
    }
    let factors = (load_floats(scales), load_floats(minimums));
    finish_sums(format, factors, input, (sums, offsets), out);
}

/// The floating point part of a block: see `matrix.rs`.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn finish_sums(
    format: Format,
    (scales, minimums): ([__m256; 2], [__m256; 2]),
    input: f32,
    (sums, offsets): ([__m256i; 2], [__m256i; 2]),
    out: &mut [__m256; 2],
) {
    let input = _mm256_set1_ps(input);
    for half in 0..2 {
        let factor = _mm256_mul_ps(scales[half], input);
        let sum = _mm256_cvtepi32_ps(sums[half]);
        out[half] = add_product(out[half], factor, sum);
        if format.has_minimum() {
            let factor = _mm256_mul_ps(minimums[half], input);
            let offset = _mm256_cvtepi32_ps(offsets[half]);
            out[half] = add_product(out[half], factor, offset);
        }
    }
}
