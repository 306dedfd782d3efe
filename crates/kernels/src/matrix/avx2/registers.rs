//! From memory to registers and back.
//!
//! JUSTIFICATION: vector loads and stores take pointers. Each one here is given an array of the
//! very size that it reads or writes.
#![expect(unsafe_code, reason = "vector loads and stores take pointers")]
#![allow(clippy::wildcard_imports, reason = "the names of intrinsics say where they are from")]

use std::arch::x86_64::*;

use crate::matrix::pack::GROUP;
use crate::matrix::panel::{Line, Pairs};

/// Half a line: the bytes of 8 rows.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn load(line: &Line, half: usize) -> __m256i {
    let half = &line.as_chunks::<32>().0[half];
    // SAFETY: 32 bytes are read from an array of 32, and the load asks for no alignment.
    unsafe { _mm256_loadu_si256(half.as_ptr().cast()) }
}

/// How far ahead of use weights are asked for: what a core reads from memory in the time that an
/// answer takes.
const AHEAD: usize = 6 << 10;

/// Asks for the line that comes [`AHEAD`] bytes behind this one: the processor's own prediction
/// ends with every page.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn ask_ahead(line: &Line) {
    // A prefetch reads nothing and takes any address.
    _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(AHEAD).cast());
}

/// The pairs of 8 rows.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn load_pairs(pairs: &Pairs, half: usize) -> __m256i {
    let half = &pairs.as_chunks::<8>().0[half];
    // SAFETY: 32 bytes are read from an array of 8 times 2 times 2, without alignment.
    unsafe { _mm256_loadu_si256(half.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn load_floats(numbers: &[f32; GROUP]) -> [__m256; 2] {
    let (halves, _) = numbers.as_chunks::<8>();
    // SAFETY: 8 numbers are read from arrays of 8, without alignment.
    unsafe { [_mm256_loadu_ps(halves[0].as_ptr()), _mm256_loadu_ps(halves[1].as_ptr())] }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn store_floats(numbers: [__m256; 2], out: &mut [f32; GROUP]) {
    for (half, numbers) in out.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
        // SAFETY: 8 numbers are written to an array of 8, without alignment.
        unsafe { _mm256_storeu_ps(half.as_mut_ptr(), numbers) }
    }
}

/// Four bytes for every row.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn broadcast(four: [i8; 4]) -> __m256i {
    _mm256_set1_epi32(i32::from_ne_bytes(four.map(i8::cast_unsigned)))
}

/// Two 16-bit numbers for every row.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn broadcast_pair([low, high]: [i16; 2]) -> __m256i {
    _mm256_set1_epi32(i32::from(low) & 0xffff | i32::from(high) << 16)
}

/// 16 packed 16-bit floating point numbers, widened.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn load_halves(numbers: &[u8; 32]) -> [__m256; 2] {
    let (halves, _) = numbers.as_chunks::<16>();
    // SAFETY: 16 bytes are read from arrays of 16, without alignment.
    let load = |half: &[u8; 16]| unsafe { _mm_loadu_si128(half.as_ptr().cast()) };
    [_mm256_cvtph_ps(load(&halves[0])), _mm256_cvtph_ps(load(&halves[1]))]
}

/// 16 packed numbers that are the upper halves of 32-bit ones, widened.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn load_upper_halves(numbers: &[u8; 32]) -> [__m256; 2] {
    let (halves, _) = numbers.as_chunks::<16>();
    // SAFETY: 16 bytes are read from arrays of 16, without alignment.
    let load = |half: &[u8; 16]| unsafe { _mm_loadu_si128(half.as_ptr().cast()) };
    [0, 1].map(|half| {
        let bits = _mm256_cvtepu16_epi32(load(&halves[half]));
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
    })
}

/// 16 packed 32-bit floating point numbers.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn load_line(line: &Line) -> [__m256; 2] {
    [0, 1].map(|half| _mm256_castsi256_ps(load(line, half)))
}

/// `sum + a * b`, the product rounded before it is added.
#[cfg(not(free_order))]
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn add_product(sum: __m256, a: __m256, b: __m256) -> __m256 {
    _mm256_add_ps(sum, _mm256_mul_ps(a, b))
}

/// `sum + a * b`, rounded once: other bits, in one instruction. See `free.rs`.
#[cfg(free_order)]
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn add_product(sum: __m256, a: __m256, b: __m256) -> __m256 {
    // SAFETY: a function of registers, and a build in free order is for machines that fuse.
    unsafe { _mm256_fmadd_ps(a, b, sum) }
}

/// The accumulators of a tile.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn load_all<const ROWS: usize>(sums: &[[f32; GROUP]; ROWS]) -> [[__m256; 2]; ROWS] {
    let mut all = [[_mm256_setzero_ps(); 2]; ROWS];
    for (one, sums) in all.iter_mut().zip(sums) {
        *one = load_floats(sums);
    }
    all
}

/// The accumulators of a tile, back.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn store_all<const ROWS: usize>(
    sums: &[[__m256; 2]; ROWS],
    out: &mut [[f32; GROUP]; ROWS],
) {
    for (out, sums) in out.iter_mut().zip(sums) {
        store_floats(*sums, out);
    }
}
