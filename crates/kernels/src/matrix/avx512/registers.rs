//! From memory to registers and back, and what is done once for each block.
//!
//! JUSTIFICATION: vector loads and stores take pointers. Each one here is given an array of the
//! very size that it reads or writes.
#![expect(unsafe_code, reason = "vector loads and stores take pointers")]
#![allow(clippy::wildcard_imports, reason = "the names of intrinsics say where they are from")]

use crate::intrinsics::*;
use crate::matrix::pack::GROUP;
use crate::matrix::panel::{Line, Pairs};

/// A line: four bytes of each of 16 rows.
#[inline]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f"))]
pub(super) fn load(line: &Line) -> __m512i {
    // SAFETY: 64 bytes are read from an array of 64, and the load asks for no alignment.
    unsafe { _mm512_loadu_si512(line.as_ptr().cast()) }
}

/// The pairs of 16 rows.
#[inline]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f"))]
pub(super) fn load_pairs(pairs: &Pairs) -> __m512i {
    // SAFETY: 64 bytes are read from an array of 16 times 2 times 2, without alignment.
    unsafe { _mm512_loadu_si512(pairs.as_ptr().cast()) }
}

#[inline]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f"))]
pub(super) fn load_floats(numbers: &[f32; GROUP]) -> __m512 {
    // SAFETY: 16 numbers are read from an array of 16, without alignment.
    unsafe { _mm512_loadu_ps(numbers.as_ptr()) }
}

/// 16 packed 16-bit floating point numbers, widened.
#[inline]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f"))]
pub(super) fn load_halves(numbers: &[u8; 32]) -> __m512 {
    // SAFETY: 32 bytes are read from an array of 32, without alignment.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(numbers.as_ptr().cast()) })
}

/// 16 packed numbers that are the upper halves of 32-bit ones, widened.
#[inline]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f"))]
pub(super) fn load_upper_halves(numbers: &[u8; 32]) -> __m512 {
    // SAFETY: 32 bytes are read from an array of 32, without alignment.
    let bits = _mm512_cvtepu16_epi32(unsafe { _mm256_loadu_si256(numbers.as_ptr().cast()) });
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
}

/// The accumulators of a tile.
#[inline]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f"))]
pub(super) fn load_all<const ROWS: usize>(sums: &[[f32; GROUP]; ROWS]) -> [__m512; ROWS] {
    let mut all = [_mm512_setzero_ps(); ROWS];
    for (one, sums) in all.iter_mut().zip(sums) {
        *one = load_floats(sums);
    }
    all
}

/// The accumulators of a tile, back.
#[inline]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f"))]
pub(super) fn store_all<const ROWS: usize>(sums: &[__m512; ROWS], out: &mut [[f32; GROUP]; ROWS]) {
    for (out, &sums) in out.iter_mut().zip(sums) {
        // SAFETY: 16 numbers are written to an array of 16, without alignment.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sums) }
    }
}

/// Four bytes for every row.
#[inline]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f"))]
pub(super) fn broadcast(four: [i8; 4]) -> __m512i {
    _mm512_set1_epi32(i32::from_ne_bytes(four.map(i8::cast_unsigned)))
}

/// Two 16-bit numbers for every row.
#[inline]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f"))]
pub(super) fn broadcast_pair([low, high]: [i16; 2]) -> __m512i {
    _mm512_set1_epi32(i32::from(low) & 0xffff | i32::from(high) << 16)
}

/// Adds pairs of numbers times a pair of sums.
#[inline]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw"))]
pub(super) fn add_pairs(sum: __m512i, pairs: __m512i, input: [i16; 2]) -> __m512i {
    _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, broadcast_pair(input)))
}

/// One term of a block: `out + (factor * input) * f32(sum)`, each operation rounded.
#[inline]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f"))]
pub(super) fn add_scaled(out: __m512, factor: __m512, input: f32, sum: __m512i) -> __m512 {
    let factor = _mm512_mul_ps(factor, _mm512_set1_ps(input));
    _mm512_add_ps(out, _mm512_mul_ps(factor, _mm512_cvtepi32_ps(sum)))
}
