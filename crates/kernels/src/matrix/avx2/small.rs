//! Products with packed blocks of 32 numbers of four or five bits, for a few rows of activations.
//!
//! Numbers 0 to 15 of a block are in the low nibbles of four lines, 16 to 31 in the high ones. Where
//! there is a fifth bit, a line before these has those of numbers `4 t..4 t + 4` in bit `t`.
//!
//! Not here: `Q4_0`, which is faster with both halves of a line at once (`packed.rs`).
#![allow(clippy::wildcard_imports, reason = "the names of intrinsics say where they are from")]

use std::arch::x86_64::*;

use super::finish::finish_sums;
use super::registers::*;
use crate::matrix::drive::{Accumulator, Rows};
use crate::matrix::format::Format;
use crate::matrix::pack::GROUP;
use crate::matrix::panel::Line;

#[target_feature(enable = "avx2,f16c")]
pub(super) fn q4_1<const ROWS: usize>(
    group: &[u8],
    input: Rows<'_>,
    out: &mut [Accumulator; ROWS],
) {
    blocks::<ROWS, 4>(Format::Q4_1, group, input, out);
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn q5_0<const ROWS: usize>(
    group: &[u8],
    input: Rows<'_>,
    out: &mut [Accumulator; ROWS],
) {
    blocks::<ROWS, 5>(Format::Q5_0, group, input, out);
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn q5_1<const ROWS: usize>(
    group: &[u8],
    input: Rows<'_>,
    out: &mut [Accumulator; ROWS],
) {
    blocks::<ROWS, 5>(Format::Q5_1, group, input, out);
}

/// `LINES` is how many there are in a block: four, or five with fifth bits.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn blocks<const ROWS: usize, const LINES: usize>(
    format: Format,
    group: &[u8],
    input: Rows<'_>,
    out: &mut [Accumulator; ROWS],
) {
    let size = format.block_size() * GROUP;
    let input = input.small_blocks::<ROWS>(group.len() / size);
    let mut accumulators = load_all(out);
    let offset = if format.has_minimum() { 1 } else { -format.zero() };
    let offset = broadcast_pair([offset; 2]);
    for (index, block) in group.chunks_exact(size).enumerate() {
        let (heads, lines) = block.split_at(32 * format.layout().heads.len());
        let (heads, lines) = (heads.as_chunks::<32>().0, lines.as_chunks::<64>().0);
        let Some(lines) = lines.first_chunk::<LINES>() else { return };
        let quants = input.map(|input| &input.quants[index]);
        let sums = [block_sums(lines, quants, 0), block_sums(lines, quants, 1)];
        let scales = load_halves(&heads[0]);
        let minimums = if format.has_minimum() { load_halves(&heads[1]) } else { scales };
        for row in 0..ROWS {
            let offset = _mm256_madd_epi16(offset, broadcast_pair(input[row].sums[index]));
            let mut sums = [sums[0][row], sums[1][row]];
            if !format.has_minimum() {
                sums = [_mm256_add_epi32(sums[0], offset), _mm256_add_epi32(sums[1], offset)];
            }
            let (factors, sums) = ((scales, minimums), (sums, [offset; 2]));
            let scale = input[row].scales[index];
            finish_sums(format, factors, scale, sums, &mut accumulators[row]);
        }
    }
    store_all(&accumulators, out);
}

/// The sums of 8 rows over a block.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn block_sums<const ROWS: usize, const LINES: usize>(
    lines: &[Line; LINES],
    quants: [&[[i8; 4]; 8]; ROWS],
    half: usize,
) -> [__m256i; ROWS] {
    let (mut partial, ones) = ([[_mm256_setzero_si256(); 2]; ROWS], _mm256_set1_epi16(1));
    quad::<ROWS, LINES, 0>(lines, quants, half, &mut partial);
    quad::<ROWS, LINES, 1>(lines, quants, half, &mut partial);
    quad::<ROWS, LINES, 2>(lines, quants, half, &mut partial);
    quad::<ROWS, LINES, 3>(lines, quants, half, &mut partial);
    let mut sums = [_mm256_setzero_si256(); ROWS];
    for (sum, [low, high]) in sums.iter_mut().zip(partial) {
        *sum = if LINES == 4 {
            // Eight times two products of at most 15 * 127 fit 16 bits.
            _mm256_madd_epi16(_mm256_add_epi16(low, high), ones)
        } else {
            _mm256_add_epi32(_mm256_madd_epi16(low, ones), _mm256_madd_epi16(high, ones))
        };
    }
    sums
}

/// Accumulates numbers `4 QUAD..4 QUAD + 4`, and those that are 16 behind.
///
/// Four times two products of at most 31 * 127 fit 16 bits.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn quad<const ROWS: usize, const LINES: usize, const QUAD: usize>(
    lines: &[Line; LINES],
    quants: [&[[i8; 4]; 8]; ROWS],
    half: usize,
    partial: &mut [[__m256i; 2]; ROWS],
) {
    let (four, fifth) = (_mm256_set1_epi8(15), _mm256_set1_epi8(16));
    let line = &lines[LINES - 4 + QUAD];
    if half == 0 {
        ask_ahead(line);
    }
    let line = load(line, half);
    let high = _mm256_srli_epi16::<4>(line);
    let mut line = [_mm256_and_si256(line, four), _mm256_and_si256(high, four)];
    if LINES == 5 {
        let bits = load(&lines[0], half);
        // Bits QUAD and QUAD + 4 of each byte become its bit 4.
        let bits = match QUAD {
            0 => [_mm256_slli_epi16::<4>(bits), bits],
            1 => [_mm256_slli_epi16::<3>(bits), _mm256_srli_epi16::<1>(bits)],
            2 => [_mm256_slli_epi16::<2>(bits), _mm256_srli_epi16::<2>(bits)],
            _ => [_mm256_slli_epi16::<1>(bits), _mm256_srli_epi16::<3>(bits)],
        };
        for part in 0..2 {
            line[part] = _mm256_or_si256(line[part], _mm256_and_si256(bits[part], fifth));
        }
    }
    for row in 0..ROWS {
        for part in 0..2 {
            let numbers = broadcast(quants[row][4 * part + QUAD]);
            let products = _mm256_maddubs_epi16(line[part], numbers);
            partial[row][part] = _mm256_add_epi16(partial[row][part], products);
        }
    }
}
