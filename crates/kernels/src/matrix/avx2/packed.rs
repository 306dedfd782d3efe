//! Products with packed weights, for a few rows of activations: weights are read once, from
//! memory, and unpacked in registers.
//!
//! See `panel.rs` for where the numbers lie.
#![allow(clippy::wildcard_imports, reason = "the names of intrinsics say where they are from")]
#![expect(clippy::needless_range_loop, reason = "an index is into several arrays at once")]

use std::arch::x86_64::*;

use super::finish::{finish_sums, offsets};
#[cfg(free_order)]
use super::free::floats;
use super::registers::*;
use crate::activations::SuperBlock;
use crate::matrix::drive::{Accumulator, Rows};
use crate::matrix::format::Format;
use crate::matrix::pack::GROUP;
use crate::matrix::panel::Line;

/// The integer sums of two times 8 rows of weights with each row of activations.
type Sums<const ROWS: usize> = [[__m256i; 2]; ROWS];

#[target_feature(enable = "avx2,f16c")]
pub(super) fn q4k<const ROWS: usize>(group: &[u8], input: Rows<'_>, out: &mut [Accumulator; ROWS]) {
    const SIZE: usize = 144 * GROUP;
    let mut accumulators = load_all(out);
    for (index, block) in group.as_chunks::<SIZE>().0.iter().enumerate() {
        let input = input.super_block::<ROWS>(index);
        let (heads, lines) = block.split_at(64);
        let (heads, lines) = (heads.as_chunks::<32>().0, lines.as_chunks::<64>().0);
        let Some(lines) = lines.first_chunk::<35>() else { return };
        let (sums, minimums) = q4k_block(lines, &input);
        let minus = _mm256_set1_ps(-0.0);
        let minimum = load_halves(&heads[1]).map(|half| _mm256_xor_ps(half, minus));
        let factors = (load_halves(&heads[0]), minimum);
        for row in 0..ROWS {
            let sums = (sums[row], minimums[row]);
            finish_sums(Format::Q4K, factors, input[row].scale, sums, &mut accumulators[row]);
        }
    }
    store_all(&accumulators, out);
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn q4k_block<const ROWS: usize>(
    lines: &[Line; 35],
    input: &[SuperBlock<'_>; ROWS],
) -> (Sums<ROWS>, Sums<ROWS>) {
    let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
    let mut minimums = [[_mm256_setzero_si256(); 2]; ROWS];
    let (six, four) = (_mm256_set1_epi8(0x3f), _mm256_set1_epi8(15));
    let above_four = _mm256_set1_epi8(0x30);
    for half in 0..2 {
        let [first, second, rest] = [0, 1, 2].map(|word| load(&lines[word], half));
        let high = |byte| _mm256_and_si256(_mm256_srli_epi16::<2>(byte), above_four);
        let low = _mm256_and_si256(rest, four);
        let scales = [_mm256_and_si256(first, six), _mm256_or_si256(low, high(first))];
        let low = _mm256_and_si256(_mm256_srli_epi16::<4>(rest), four);
        let offsets = [_mm256_and_si256(second, six), _mm256_or_si256(low, high(second))];
        for pair in 0..4 {
            let offset = _mm256_shuffle_epi8(offsets[pair / 2], pair_of_bytes(pair % 2));
            for row in 0..ROWS {
                let products = _mm256_madd_epi16(offset, broadcast_pair(input[row].sums32[pair]));
                minimums[row][half] = _mm256_add_epi32(minimums[row][half], products);
            }
        }
        for pair in 0..4 {
            let mut partial = [[_mm256_setzero_si256(); 2]; ROWS];
            for quad in 0..8 {
                if half == 0 {
                    ask_ahead(&lines[3 + 8 * pair + quad]);
                }
                let line = load(&lines[3 + 8 * pair + quad], half);
                let low = _mm256_and_si256(line, four);
                let high = _mm256_and_si256(_mm256_srli_epi16::<4>(line), four);
                for row in 0..ROWS {
                    let quants = input[row].quants;
                    let numbers = broadcast(quants[16 * pair + quad]);
                    let products = _mm256_maddubs_epi16(low, numbers);
                    partial[row][0] = _mm256_add_epi16(partial[row][0], products);
                    let numbers = broadcast(quants[16 * pair + 8 + quad]);
                    let products = _mm256_maddubs_epi16(high, numbers);
                    partial[row][1] = _mm256_add_epi16(partial[row][1], products);
                }
            }
            for sub in 0..2 {
                let byte = twice_byte(2 * (pair % 2) + sub);
                let scale = _mm256_shuffle_epi8(scales[pair / 2], byte);
                for row in 0..ROWS {
                    let term = _mm256_madd_epi16(partial[row][sub], scale);
                    sums[row][half] = _mm256_add_epi32(sums[row][half], term);
                }
            }
        }
    }
    (sums, minimums)
}

/// The scales of the first and the last four sub-blocks, a byte each, out of three words; and the
/// minimums there, times the sums of the activations, added to `minimums`.
///
/// `Q4_K` does the same in place: with this function, two rows of it took a fifth longer.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn scales_and_minimums<const ROWS: usize>(
    [first, second, rest]: [__m256i; 3],
    input: &[SuperBlock<'_>; ROWS],
    half: usize,
    minimums: &mut Sums<ROWS>,
) -> [__m256i; 2] {
    let (six, four) = (_mm256_set1_epi8(0x3f), _mm256_set1_epi8(15));
    let above_four = _mm256_set1_epi8(0x30);
    let high = |byte| _mm256_and_si256(_mm256_srli_epi16::<2>(byte), above_four);
    let low = _mm256_and_si256(_mm256_srli_epi16::<4>(rest), four);
    let offsets = [_mm256_and_si256(second, six), _mm256_or_si256(low, high(second))];
    for pair in 0..4 {
        let offset = _mm256_shuffle_epi8(offsets[pair / 2], pair_of_bytes(pair % 2));
        for row in 0..ROWS {
            let products = _mm256_madd_epi16(offset, broadcast_pair(input[row].sums32[pair]));
            minimums[row][half] = _mm256_add_epi32(minimums[row][half], products);
        }
    }
    let low = _mm256_and_si256(rest, four);
    [_mm256_and_si256(first, six), _mm256_or_si256(low, high(first))]
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn q5k<const ROWS: usize>(group: &[u8], input: Rows<'_>, out: &mut [Accumulator; ROWS]) {
    const SIZE: usize = 176 * GROUP;
    let mut accumulators = load_all(out);
    for (index, block) in group.as_chunks::<SIZE>().0.iter().enumerate() {
        let input = input.super_block::<ROWS>(index);
        let (heads, lines) = block.split_at(64);
        let (heads, lines) = (heads.as_chunks::<32>().0, lines.as_chunks::<64>().0);
        let Some(lines) = lines.first_chunk::<43>() else { return };
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        let mut minimums = [[_mm256_setzero_si256(); 2]; ROWS];
        for half in 0..2 {
            let words = [0, 1, 2].map(|word| load(&lines[word], half));
            let scales = scales_and_minimums(words, &input, half, &mut minimums);
            let mut partial = [_mm256_setzero_si256(); ROWS];
            q5k_pair::<ROWS, 0>(lines, &input, (half, scales[0]), &mut partial);
            q5k_pair::<ROWS, 1>(lines, &input, (half, scales[0]), &mut partial);
            q5k_pair::<ROWS, 2>(lines, &input, (half, scales[1]), &mut partial);
            q5k_pair::<ROWS, 3>(lines, &input, (half, scales[1]), &mut partial);
            for row in 0..ROWS {
                sums[row][half] = partial[row];
            }
        }
        let minus = _mm256_set1_ps(-0.0);
        let minimum = load_halves(&heads[1]).map(|half| _mm256_xor_ps(half, minus));
        let factors = (load_halves(&heads[0]), minimum);
        for row in 0..ROWS {
            let sums = (sums[row], minimums[row]);
            finish_sums(Format::Q5K, factors, input[row].scale, sums, &mut accumulators[row]);
        }
    }
    store_all(&accumulators, out);
}

/// Accumulates two sub-blocks of 8 rows: `PAIR` of four. Four lines at most fit a 16-bit sum.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn q5k_pair<const ROWS: usize, const PAIR: usize>(
    lines: &[Line; 43],
    input: &[SuperBlock<'_>; ROWS],
    (half, scales): (usize, __m256i),
    sums: &mut [__m256i; ROWS],
) {
    let (four, fifth) = (_mm256_set1_epi8(15), _mm256_set1_epi8(16));
    let scales = [0, 1].map(|sub| _mm256_shuffle_epi8(scales, twice_byte(2 * (PAIR % 2) + sub)));
    for run in 0..2 {
        let mut partial = [[_mm256_setzero_si256(); 2]; ROWS];
        for quad in 4 * run..4 * run + 4 {
            if half == 0 {
                ask_ahead(&lines[11 + 8 * PAIR + quad]);
            }
            if half == 0 && PAIR == 0 {
                ask_ahead(&lines[3 + quad]);
            }
            let (line, bits) = (load(&lines[11 + 8 * PAIR + quad], half), &lines[3 + quad]);
            let bits = load(bits, half);
            // Bits 2 PAIR and 2 PAIR + 1 of each byte become its bit 4.
            let bits = match PAIR {
                0 => [_mm256_slli_epi16::<4>(bits), _mm256_slli_epi16::<3>(bits)],
                1 => [_mm256_slli_epi16::<2>(bits), _mm256_slli_epi16::<1>(bits)],
                2 => [bits, _mm256_srli_epi16::<1>(bits)],
                _ => [_mm256_srli_epi16::<2>(bits), _mm256_srli_epi16::<3>(bits)],
            };
            let line = [line, _mm256_srli_epi16::<4>(line)];
            for sub in 0..2 {
                let low = _mm256_and_si256(line[sub], four);
                let line = _mm256_or_si256(low, _mm256_and_si256(bits[sub], fifth));
                for row in 0..ROWS {
                    let numbers = broadcast(input[row].quants[16 * PAIR + 8 * sub + quad]);
                    let products = _mm256_maddubs_epi16(line, numbers);
                    partial[row][sub] = _mm256_add_epi16(partial[row][sub], products);
                }
            }
        }
        for row in 0..ROWS {
            for sub in 0..2 {
                let term = _mm256_madd_epi16(partial[row][sub], scales[sub]);
                sums[row] = _mm256_add_epi32(sums[row], term);
            }
        }
    }
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn q6k<const ROWS: usize>(group: &[u8], input: Rows<'_>, out: &mut [Accumulator; ROWS]) {
    const SIZE: usize = 210 * GROUP;
    let mut accumulators = load_all(out);
    for (index, block) in group.as_chunks::<SIZE>().0.iter().enumerate() {
        let input = input.super_block::<ROWS>(index);
        let (head, lines) = block.split_at(32);
        let (head, lines) = (head.as_chunks::<32>().0, lines.as_chunks::<64>().0);
        let Some(lines) = lines.first_chunk::<52>() else { return };
        let sums = q6k_block(lines, &input);
        let factors = load_halves(&head[0]);
        for row in 0..ROWS {
            let sums = (sums[row], [_mm256_setzero_si256(); 2]);
            let factors = (factors, factors);
            finish_sums(Format::Q6K, factors, input[row].scale, sums, &mut accumulators[row]);
        }
    }
    store_all(&accumulators, out);
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn q6k_block<const ROWS: usize>(lines: &[Line; 52], input: &[SuperBlock<'_>; ROWS]) -> Sums<ROWS> {
    let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
    for half in 0..2 {
        let mut offsets = [_mm256_setzero_si256(); ROWS];
        for pair in 0..8 {
            let scales = load(&lines[48 + pair / 2], half);
            let scales = _mm256_shuffle_epi8(scales, pair_of_high_bytes(pair % 2));
            let scales = _mm256_srai_epi16::<8>(scales);
            for row in 0..ROWS {
                let products = _mm256_madd_epi16(scales, broadcast_pair(input[row].sums16[pair]));
                offsets[row] = _mm256_add_epi32(offsets[row], products);
            }
        }
        let mut partial = offsets
            .map(|offset| _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32::<5>(offset)));
        for upper in 0..2 {
            q6k_part::<ROWS, 0>(lines, input, (upper, half), &mut partial);
            q6k_part::<ROWS, 1>(lines, input, (upper, half), &mut partial);
            q6k_part::<ROWS, 2>(lines, input, (upper, half), &mut partial);
            q6k_part::<ROWS, 3>(lines, input, (upper, half), &mut partial);
        }
        for row in 0..ROWS {
            sums[row][half] = partial[row];
        }
    }
    sums
}

/// Accumulates 32 columns of 8 rows: `PART` of four of the lower or upper 128 columns.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn q6k_part<const ROWS: usize, const PART: usize>(
    lines: &[Line; 52],
    input: &[SuperBlock<'_>; ROWS],
    (upper, half): (usize, usize),
    sums: &mut [__m256i; ROWS],
) {
    let (four, above_four) = (_mm256_set1_epi8(15), _mm256_set1_epi8(0x30));
    let scales = load(&lines[48 + 2 * upper + PART / 2], half);
    for sub in 0..2 {
        let scale = _mm256_shuffle_epi8(scales, twice_high_byte(2 * (PART % 2) + sub));
        let scale = _mm256_srai_epi16::<8>(scale);
        for run in 0..2 {
            let mut partial = [_mm256_setzero_si256(); ROWS];
            for quad in 4 * sub + 2 * run..4 * sub + 2 * run + 2 {
                if half == 0 && PART < 2 {
                    ask_ahead(&lines[16 * upper + 8 * PART + quad]);
                }
                if half == 0 && PART == 2 {
                    ask_ahead(&lines[32 + 8 * upper + quad]);
                }
                let low = load(&lines[16 * upper + 8 * (PART % 2) + quad], half);
                let low = if PART < 2 { low } else { _mm256_srli_epi16::<4>(low) };
                let high = load(&lines[32 + 8 * upper + quad], half);
                let high = match PART {
                    0 => _mm256_slli_epi16::<4>(high),
                    1 => _mm256_slli_epi16::<2>(high),
                    2 => high,
                    _ => _mm256_srli_epi16::<2>(high),
                };
                let high = _mm256_and_si256(high, above_four);
                let line = _mm256_or_si256(_mm256_and_si256(low, four), high);
                for row in 0..ROWS {
                    let numbers = broadcast(input[row].quants[32 * upper + 8 * PART + quad]);
                    let products = _mm256_maddubs_epi16(line, numbers);
                    partial[row] = _mm256_add_epi16(partial[row], products);
                }
            }
            for row in 0..ROWS {
                let term = _mm256_madd_epi16(partial[row], scale);
                sums[row] = _mm256_add_epi32(sums[row], term);
            }
        }
    }
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn q8_0<const ROWS: usize>(
    group: &[u8],
    input: Rows<'_>,
    out: &mut [Accumulator; ROWS],
) {
    const SIZE: usize = 34 * GROUP;
    let (blocks, _) = group.as_chunks::<SIZE>();
    let input = input.small_blocks::<ROWS>(blocks.len());
    let mut accumulators = load_all(out);
    for (index, block) in blocks.iter().enumerate() {
        let (head, lines) = block.split_at(32);
        let (head, lines) = (head.as_chunks::<32>().0, lines.as_chunks::<64>().0);
        let Some(lines) = lines.first_chunk::<8>() else { return };
        let wide = input.map(|input| &input.wide[index]);
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        for quad in 0..8 {
            ask_ahead(&lines[quad]);
            add_signed(&lines[quad], wide.map(|wide| &wide[quad]), &mut sums);
        }
        let factors = load_halves(&head[0]);
        for row in 0..ROWS {
            let sums = (sums[row], sums[row]);
            let (factors, scale) = ((factors, factors), input[row].scales[index]);
            finish_sums(Format::Q8_0, factors, scale, sums, &mut accumulators[row]);
        }
    }
    store_all(&accumulators, out);
}

/// Accumulates four columns of signed numbers, times numbers in the order 0, 2, 1, 3.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn add_signed<const ROWS: usize>(
    line: &Line,
    input: [&[i16; 4]; ROWS],
    sums: &mut Sums<ROWS>,
) {
    let line = [load(line, 0), load(line, 1)];
    let even = line.map(|line| _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(line)));
    let odd = line.map(|line| _mm256_srai_epi16::<8>(line));
    for row in 0..ROWS {
        let (pairs, _) = input[row].as_chunks::<2>();
        let numbers = [broadcast_pair(pairs[0]), broadcast_pair(pairs[1])];
        for half in 0..2 {
            let even = _mm256_madd_epi16(even[half], numbers[0]);
            let odd = _mm256_madd_epi16(odd[half], numbers[1]);
            let both = _mm256_add_epi32(even, odd);
            sums[row][half] = _mm256_add_epi32(sums[row][half], both);
        }
    }
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn q4_0<const ROWS: usize>(
    group: &[u8],
    input: Rows<'_>,
    out: &mut [Accumulator; ROWS],
) {
    const SIZE: usize = 18 * GROUP;
    let (blocks, _) = group.as_chunks::<SIZE>();
    let input = input.small_blocks::<ROWS>(blocks.len());
    let mut accumulators = load_all(out);
    let (four, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    for (index, block) in blocks.iter().enumerate() {
        let (head, lines) = block.split_at(32);
        let (head, lines) = (head.as_chunks::<32>().0, lines.as_chunks::<64>().0);
        let Some(lines) = lines.first_chunk::<4>() else { return };
        let quants = input.map(|input| &input.quants[index]);
        let mut partial = [[_mm256_setzero_si256(); 2]; ROWS];
        for quad in 0..4 {
            ask_ahead(&lines[quad]);
            let line = [load(&lines[quad], 0), load(&lines[quad], 1)];
            for row in 0..ROWS {
                let (low, high) = (broadcast(quants[row][quad]), broadcast(quants[row][4 + quad]));
                for half in 0..2 {
                    let nibbles = _mm256_and_si256(line[half], four);
                    let low = _mm256_maddubs_epi16(nibbles, low);
                    let nibbles = _mm256_and_si256(_mm256_srli_epi16::<4>(line[half]), four);
                    let high = _mm256_maddubs_epi16(nibbles, high);
                    let both = _mm256_add_epi16(low, high);
                    partial[row][half] = _mm256_add_epi16(partial[row][half], both);
                }
            }
        }
        let factors = load_halves(&head[0]);
        for row in 0..ROWS {
            let sums = partial[row].map(|partial| _mm256_madd_epi16(partial, ones));
            let offsets = offsets(&[[[-8; 2]; GROUP]], &[input[row].sums[index]]);
            let (factors, scale) = ((factors, factors), input[row].scales[index]);
            let sums = [0, 1].map(|half| _mm256_add_epi32(sums[half], offsets[half]));
            finish_sums(Format::Q4_0, factors, scale, (sums, sums), &mut accumulators[row]);
        }
    }
    store_all(&accumulators, out);
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn f32<const ROWS: usize>(group: &[u8], input: Rows<'_>, out: &mut [Accumulator; ROWS]) {
    let columns = group.as_chunks::<64>().0.iter().map(|line| load_line(line));
    floats(columns, input, out);
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn f16<const ROWS: usize>(group: &[u8], input: Rows<'_>, out: &mut [Accumulator; ROWS]) {
    let columns = group.as_chunks::<32>().0.iter().map(|column| load_halves(column));
    floats(columns, input, out);
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn bf16<const ROWS: usize>(
    group: &[u8],
    input: Rows<'_>,
    out: &mut [Accumulator; ROWS],
) {
    let columns = group.as_chunks::<32>().0.iter().map(|column| load_upper_halves(column));
    floats(columns, input, out);
}

/// Accumulates columns of 16 numbers.
#[cfg(not(free_order))]
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn floats<const ROWS: usize>(
    columns: impl ExactSizeIterator<Item = [__m256; 2]>,
    input: Rows<'_>,
    out: &mut [Accumulator; ROWS],
) {
    let mut accumulators = load_all(out);
    let numbers = input.floats::<ROWS>(columns.len());
    for (index, weights) in columns.enumerate() {
        for row in 0..ROWS {
            let number = _mm256_set1_ps(numbers[row][index]);
            for half in 0..2 {
                let sum = accumulators[row][half];
                accumulators[row][half] = add_product(sum, weights[half], number);
            }
        }
    }
    store_all(&accumulators, out);
}

/// Of each four bytes, byte `index` as both 16-bit numbers.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn twice_byte(index: usize) -> __m256i {
    let first = index.to_le_bytes()[0].cast_signed();
    each_four([first, -1, first, -1])
}

/// Of each four bytes, byte `index` as the upper half of both 16-bit numbers.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn twice_high_byte(index: usize) -> __m256i {
    let first = index.to_le_bytes()[0].cast_signed();
    each_four([-1, first, -1, first])
}

/// Of each four bytes, the lower or upper two as 16-bit numbers.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn pair_of_bytes(upper: usize) -> __m256i {
    let first = 2 * upper.to_le_bytes()[0].cast_signed();
    each_four([first, -1, first + 1, -1])
}

/// Of each four bytes, the lower or upper two as the upper halves of 16-bit numbers.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn pair_of_high_bytes(upper: usize) -> __m256i {
    let first = 2 * upper.to_le_bytes()[0].cast_signed();
    each_four([-1, first, -1, first + 1])
}

/// What to take for each four bytes of a register: one of those four, or -1 for zero.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn each_four(four: [i8; 4]) -> __m256i {
    let lanes = _mm_setr_epi32(0, 0x0404_0404, 0x0808_0808, 0x0c0c_0c0c);
    // A negative index stays negative: nothing below 0xf3 is added to.
    let four = _mm256_set1_epi32(i32::from_le_bytes(four.map(i8::cast_unsigned)));
    _mm256_or_si256(_mm256_broadcastsi128_si256(lanes), four)
}
