//! Products with packed weights, for a few rows of activations: weights are read once, from
//! memory, and unpacked in registers.
//!
//! See `panel.rs` for where the numbers lie.
#![allow(clippy::wildcard_imports, reason = "the names of intrinsics say where they are from")]
#![expect(clippy::needless_range_loop, reason = "an index is into several arrays at once")]

use super::registers::*;
use crate::activations::SuperBlock;
use crate::intrinsics::*;
use crate::matrix::drive::{Accumulator, Rows};
use crate::matrix::pack::GROUP;
use crate::matrix::panel::Line;

/// The integer sums of 16 rows of weights with each row of activations.
type Sums<const ROWS: usize> = [__m512i; ROWS];

#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni"))]
pub(super) fn q4k<const ROWS: usize>(group: &[u8], input: Rows<'_>, out: &mut [Accumulator; ROWS]) {
    const SIZE: usize = 144 * GROUP;
    let mut accumulators = load_all(out);
    for (index, block) in group.as_chunks::<SIZE>().0.iter().enumerate() {
        let input = input.super_block::<ROWS>(index);
        let (heads, lines) = block.split_at(64);
        let (heads, lines) = (heads.as_chunks::<32>().0, lines.as_chunks::<64>().0);
        let Some(lines) = lines.first_chunk::<35>() else { return };
        let (sums, offsets) = q4k_block(lines, &input);
        let minus = _mm512_set1_epi32(i32::MIN);
        let minimums = _mm512_castps_si512(load_halves(&heads[1]));
        let minimums = _mm512_castsi512_ps(_mm512_xor_si512(minimums, minus));
        let scales = load_halves(&heads[0]);
        for row in 0..ROWS {
            let (scale, out) = (input[row].scale, &mut accumulators[row]);
            *out = add_scaled(*out, scales, scale, sums[row]);
            *out = add_scaled(*out, minimums, scale, offsets[row]);
        }
    }
    store_all(&accumulators, out);
}

#[inline]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni"))]
fn q4k_block<const ROWS: usize>(
    lines: &[Line; 35],
    input: &[SuperBlock<'_>; ROWS],
) -> (Sums<ROWS>, Sums<ROWS>) {
    let four = _mm512_set1_epi8(15);
    let words = [load(&lines[0]), load(&lines[1]), load(&lines[2])];
    let (scales, minimums) = scales_and_minimums(words, input);
    let mut sums = [_mm512_setzero_si512(); ROWS];
    for pair in 0..4 {
        let mut partial = [[_mm512_setzero_si512(); ROWS]; 2];
        for quad in 0..8 {
            let line = load(&lines[3 + 8 * pair + quad]);
            let low = _mm512_and_si512(line, four);
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(line), four);
            for row in 0..ROWS {
                let quants = input[row].quants;
                let numbers = broadcast(quants[16 * pair + quad]);
                partial[0][row] = _mm512_dpbusd_epi32(partial[0][row], low, numbers);
                let numbers = broadcast(quants[16 * pair + 8 + quad]);
                partial[1][row] = _mm512_dpbusd_epi32(partial[1][row], high, numbers);
            }
        }
        for sub in 0..2 {
            let byte = only_byte(2 * (pair % 2) + sub);
            let scale = _mm512_shuffle_epi8(scales[pair / 2], byte);
            for row in 0..ROWS {
                let term = _mm512_mullo_epi32(partial[sub][row], scale);
                sums[row] = _mm512_add_epi32(sums[row], term);
            }
        }
    }
    (sums, minimums)
}

/// The scales of the first and the last four sub-blocks, a byte each, out of three words; and the
/// minimums there, times the sums of the activations.
#[inline]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni"))]
fn scales_and_minimums<const ROWS: usize>(
    [first, second, rest]: [__m512i; 3],
    input: &[SuperBlock<'_>; ROWS],
) -> ([__m512i; 2], Sums<ROWS>) {
    let (six, four) = (_mm512_set1_epi8(0x3f), _mm512_set1_epi8(15));
    let above_four = _mm512_set1_epi8(0x30);
    let high = |byte| _mm512_and_si512(_mm512_srli_epi16::<2>(byte), above_four);
    let low = _mm512_and_si512(rest, four);
    let scales = [_mm512_and_si512(first, six), _mm512_or_si512(low, high(first))];
    let low = _mm512_and_si512(_mm512_srli_epi16::<4>(rest), four);
    let offsets = [_mm512_and_si512(second, six), _mm512_or_si512(low, high(second))];
    let mut minimums = [_mm512_setzero_si512(); ROWS];
    for pair in 0..4 {
        let offset = _mm512_shuffle_epi8(offsets[pair / 2], pair_of_bytes(pair % 2));
        for row in 0..ROWS {
            minimums[row] = add_pairs(minimums[row], offset, input[row].sums32[pair]);
        }
    }
    (scales, minimums)
}

#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni"))]
pub(super) fn q5k<const ROWS: usize>(group: &[u8], input: Rows<'_>, out: &mut [Accumulator; ROWS]) {
    const SIZE: usize = 176 * GROUP;
    let mut accumulators = load_all(out);
    for (index, block) in group.as_chunks::<SIZE>().0.iter().enumerate() {
        let input = input.super_block::<ROWS>(index);
        let (heads, lines) = block.split_at(64);
        let (heads, lines) = (heads.as_chunks::<32>().0, lines.as_chunks::<64>().0);
        let Some(lines) = lines.first_chunk::<43>() else { return };
        let words = [load(&lines[0]), load(&lines[1]), load(&lines[2])];
        let (scales, offsets) = scales_and_minimums(words, &input);
        let mut sums = [_mm512_setzero_si512(); ROWS];
        q5k_pair::<ROWS, 0>(lines, &input, scales[0], &mut sums);
        q5k_pair::<ROWS, 1>(lines, &input, scales[0], &mut sums);
        q5k_pair::<ROWS, 2>(lines, &input, scales[1], &mut sums);
        q5k_pair::<ROWS, 3>(lines, &input, scales[1], &mut sums);
        let minus = _mm512_set1_epi32(i32::MIN);
        let minimums = _mm512_castps_si512(load_halves(&heads[1]));
        let minimums = _mm512_castsi512_ps(_mm512_xor_si512(minimums, minus));
        let scales = load_halves(&heads[0]);
        for row in 0..ROWS {
            let (scale, out) = (input[row].scale, &mut accumulators[row]);
            *out = add_scaled(*out, scales, scale, sums[row]);
            *out = add_scaled(*out, minimums, scale, offsets[row]);
        }
    }
    store_all(&accumulators, out);
}

/// Accumulates two sub-blocks of 16 rows: `PAIR` of four.
#[inline]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni"))]
fn q5k_pair<const ROWS: usize, const PAIR: usize>(
    lines: &[Line; 43],
    input: &[SuperBlock<'_>; ROWS],
    scales: __m512i,
    sums: &mut Sums<ROWS>,
) {
    let (four, fifth) = (_mm512_set1_epi8(15), _mm512_set1_epi8(16));
    let mut partial = [[_mm512_setzero_si512(); ROWS]; 2];
    for quad in 0..8 {
        let (line, bits) = (load(&lines[11 + 8 * PAIR + quad]), load(&lines[3 + quad]));
        // Bits 2 PAIR and 2 PAIR + 1 of each byte become its bit 4.
        let bits = match PAIR {
            0 => [_mm512_slli_epi16::<4>(bits), _mm512_slli_epi16::<3>(bits)],
            1 => [_mm512_slli_epi16::<2>(bits), _mm512_slli_epi16::<1>(bits)],
            2 => [bits, _mm512_srli_epi16::<1>(bits)],
            _ => [_mm512_srli_epi16::<2>(bits), _mm512_srli_epi16::<3>(bits)],
        };
        let line = [line, _mm512_srli_epi16::<4>(line)];
        for sub in 0..2 {
            let low = _mm512_and_si512(line[sub], four);
            let line = _mm512_or_si512(low, _mm512_and_si512(bits[sub], fifth));
            for row in 0..ROWS {
                let numbers = broadcast(input[row].quants[16 * PAIR + 8 * sub + quad]);
                partial[sub][row] = _mm512_dpbusd_epi32(partial[sub][row], line, numbers);
            }
        }
    }
    for sub in 0..2 {
        let scale = _mm512_shuffle_epi8(scales, only_byte(2 * (PAIR % 2) + sub));
        for row in 0..ROWS {
            let term = _mm512_mullo_epi32(partial[sub][row], scale);
            sums[row] = _mm512_add_epi32(sums[row], term);
        }
    }
}

#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni"))]
pub(super) fn q6k<const ROWS: usize>(group: &[u8], input: Rows<'_>, out: &mut [Accumulator; ROWS]) {
    const SIZE: usize = 210 * GROUP;
    let mut accumulators = load_all(out);
    for (index, block) in group.as_chunks::<SIZE>().0.iter().enumerate() {
        let input = input.super_block::<ROWS>(index);
        let (head, lines) = block.split_at(32);
        let (head, lines) = (head.as_chunks::<32>().0, lines.as_chunks::<64>().0);
        let Some(lines) = lines.first_chunk::<52>() else { return };
        let mut sums = [_mm512_setzero_si512(); ROWS];
        for pair in 0..8 {
            let scales = load(&lines[48 + pair / 2]);
            let scales = _mm512_shuffle_epi8(scales, pair_of_high_bytes(pair % 2));
            let scales = _mm512_srai_epi16::<8>(scales);
            for row in 0..ROWS {
                sums[row] = add_pairs(sums[row], scales, input[row].sums16[pair]);
            }
        }
        for sum in &mut sums {
            *sum = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32::<5>(*sum));
        }
        for upper in 0..2 {
            q6k_part::<ROWS, 0>(lines, &input, upper, &mut sums);
            q6k_part::<ROWS, 1>(lines, &input, upper, &mut sums);
            q6k_part::<ROWS, 2>(lines, &input, upper, &mut sums);
            q6k_part::<ROWS, 3>(lines, &input, upper, &mut sums);
        }
        let scales = load_halves(&head[0]);
        for row in 0..ROWS {
            let (scale, out) = (input[row].scale, &mut accumulators[row]);
            *out = add_scaled(*out, scales, scale, sums[row]);
        }
    }
    store_all(&accumulators, out);
}

/// Accumulates 32 columns of 16 rows: `PART` of four of the lower or upper 128 columns.
#[inline]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni"))]
fn q6k_part<const ROWS: usize, const PART: usize>(
    lines: &[Line; 52],
    input: &[SuperBlock<'_>; ROWS],
    upper: usize,
    sums: &mut Sums<ROWS>,
) {
    let (four, above_four) = (_mm512_set1_epi8(15), _mm512_set1_epi8(0x30));
    let scales = load(&lines[48 + 2 * upper + PART / 2]);
    for sub in 0..2 {
        let mut partial = [_mm512_setzero_si512(); ROWS];
        for quad in 4 * sub..4 * sub + 4 {
            let low = load(&lines[16 * upper + 8 * (PART % 2) + quad]);
            let low = if PART < 2 { low } else { _mm512_srli_epi16::<4>(low) };
            let high = load(&lines[32 + 8 * upper + quad]);
            let high = match PART {
                0 => _mm512_slli_epi16::<4>(high),
                1 => _mm512_slli_epi16::<2>(high),
                2 => high,
                _ => _mm512_srli_epi16::<2>(high),
            };
            let high = _mm512_and_si512(high, above_four);
            let line = _mm512_or_si512(_mm512_and_si512(low, four), high);
            for row in 0..ROWS {
                let numbers = broadcast(input[row].quants[32 * upper + 8 * PART + quad]);
                partial[row] = _mm512_dpbusd_epi32(partial[row], line, numbers);
            }
        }
        let scale = _mm512_shuffle_epi8(scales, only_highest_byte(2 * (PART % 2) + sub));
        let scale = _mm512_srai_epi32::<24>(scale);
        for row in 0..ROWS {
            let term = _mm512_mullo_epi32(partial[row], scale);
            sums[row] = _mm512_add_epi32(sums[row], term);
        }
    }
}

#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni"))]
pub(super) fn q8_0<const ROWS: usize>(
    group: &[u8],
    input: Rows<'_>,
    out: &mut [Accumulator; ROWS],
) {
    const SIZE: usize = 34 * GROUP;
    let (blocks, _) = group.as_chunks::<SIZE>();
    let input = input.small_blocks::<ROWS>(blocks.len());
    let mut accumulators = load_all(out);
    let flip = _mm512_set1_epi8(-128);
    for (index, block) in blocks.iter().enumerate() {
        let (head, lines) = block.split_at(32);
        let (head, lines) = (head.as_chunks::<32>().0, lines.as_chunks::<64>().0);
        let Some(lines) = lines.first_chunk::<8>() else { return };
        let mut sums = [_mm512_setzero_si512(); ROWS];
        for row in 0..ROWS {
            sums[row] = add_pairs(sums[row], broadcast_pair([-128; 2]), input[row].sums[index]);
        }
        for quad in 0..8 {
            let line = _mm512_xor_si512(load(&lines[quad]), flip);
            for row in 0..ROWS {
                let numbers = broadcast(input[row].quants[index][quad]);
                sums[row] = _mm512_dpbusd_epi32(sums[row], line, numbers);
            }
        }
        let scales = load_halves(&head[0]);
        for row in 0..ROWS {
            let (scale, out) = (input[row].scales[index], &mut accumulators[row]);
            *out = add_scaled(*out, scales, scale, sums[row]);
        }
    }
    store_all(&accumulators, out);
}

#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni"))]
pub(super) fn f32<const ROWS: usize>(group: &[u8], input: Rows<'_>, out: &mut [Accumulator; ROWS]) {
    let lines = group.as_chunks::<64>().0.iter();
    floats(lines.map(|line| _mm512_castsi512_ps(load(line))), input, out);
}

#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni"))]
pub(super) fn f16<const ROWS: usize>(group: &[u8], input: Rows<'_>, out: &mut [Accumulator; ROWS]) {
    let columns = group.as_chunks::<32>().0.iter();
    floats(columns.map(|column| load_halves(column)), input, out);
}

#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni"))]
pub(super) fn bf16<const ROWS: usize>(
    group: &[u8],
    input: Rows<'_>,
    out: &mut [Accumulator; ROWS],
) {
    let columns = group.as_chunks::<32>().0.iter();
    floats(columns.map(|column| load_upper_halves(column)), input, out);
}

/// Accumulates columns of 16 numbers.
#[inline]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni"))]
fn floats<const ROWS: usize>(
    columns: impl ExactSizeIterator<Item = __m512>,
    input: Rows<'_>,
    out: &mut [Accumulator; ROWS],
) {
    let mut accumulators = load_all(out);
    let numbers = input.floats::<ROWS>(columns.len());
    for (index, weights) in columns.enumerate() {
        for row in 0..ROWS {
            let product = _mm512_mul_ps(weights, _mm512_set1_ps(numbers[row][index]));
            accumulators[row] = _mm512_add_ps(accumulators[row], product);
        }
    }
    store_all(&accumulators, out);
}

/// Of each four bytes, byte `index` as a 32-bit number.
#[inline]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f"))]
fn only_byte(index: usize) -> __m512i {
    each_four([index.to_le_bytes()[0].cast_signed(), -1, -1, -1])
}

/// Of each four bytes, byte `index` as the highest byte of a 32-bit number.
#[inline]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f"))]
fn only_highest_byte(index: usize) -> __m512i {
    each_four([-1, -1, -1, index.to_le_bytes()[0].cast_signed()])
}

/// Of each four bytes, the lower or upper two as 16-bit numbers.
#[inline]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f"))]
fn pair_of_bytes(upper: usize) -> __m512i {
    let first = 2 * upper.to_le_bytes()[0].cast_signed();
    each_four([first, -1, first + 1, -1])
}

/// Of each four bytes, the lower or upper two as the upper halves of 16-bit numbers.
#[inline]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f"))]
fn pair_of_high_bytes(upper: usize) -> __m512i {
    let first = 2 * upper.to_le_bytes()[0].cast_signed();
    each_four([-1, first, -1, first + 1])
}

/// What to take for each four bytes of 16: one of those four, or -1 for zero.
#[inline]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f"))]
fn each_four(four: [i8; 4]) -> __m512i {
    let lanes = _mm_setr_epi32(0, 0x0404_0404, 0x0808_0808, 0x0c0c_0c0c);
    // An index of -1 has all bits set, and keeps them.
    let four = _mm512_set1_epi32(i32::from_le_bytes(four.map(i8::cast_unsigned)));
    _mm512_or_si512(_mm512_broadcast_i32x4(lanes), four)
}
