//! Products with packed blocks of 32 numbers of four or five bits, for a few rows of activations.
//!
//! Numbers 0 to 15 of a block are in the low nibbles of four lines, 16 to 31 in the high ones. Where
//! there is a fifth bit, a line before these has those of numbers `4 t..4 t + 4` in bit `t`.
#![allow(clippy::wildcard_imports, reason = "the names of intrinsics say where they are from")]

use super::registers::*;
use crate::intrinsics::*;
use crate::matrix::drive::{Accumulator, Rows};
use crate::matrix::format::Format;
use crate::matrix::pack::GROUP;
use crate::matrix::panel::Line;

#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni"))]
pub(super) fn q4_0<const ROWS: usize>(
    group: &[u8],
    input: Rows<'_>,
    out: &mut [Accumulator; ROWS],
) {
    blocks::<ROWS, 4>(Format::Q4_0, group, input, out);
}

#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni"))]
pub(super) fn q4_1<const ROWS: usize>(
    group: &[u8],
    input: Rows<'_>,
    out: &mut [Accumulator; ROWS],
) {
    blocks::<ROWS, 4>(Format::Q4_1, group, input, out);
}

#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni"))]
pub(super) fn q5_0<const ROWS: usize>(
    group: &[u8],
    input: Rows<'_>,
    out: &mut [Accumulator; ROWS],
) {
    blocks::<ROWS, 5>(Format::Q5_0, group, input, out);
}

#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni"))]
pub(super) fn q5_1<const ROWS: usize>(
    group: &[u8],
    input: Rows<'_>,
    out: &mut [Accumulator; ROWS],
) {
    blocks::<ROWS, 5>(Format::Q5_1, group, input, out);
}

/// `LINES` is how many there are in a block: four, or five with fifth bits.
#[inline]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni"))]
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
        let mut sums = [_mm512_setzero_si512(); ROWS];
        quad::<ROWS, LINES, 0>(lines, quants, &mut sums);
        quad::<ROWS, LINES, 1>(lines, quants, &mut sums);
        quad::<ROWS, LINES, 2>(lines, quants, &mut sums);
        quad::<ROWS, LINES, 3>(lines, quants, &mut sums);
        let scales = load_halves(&heads[0]);
        let minimums = if format.has_minimum() { load_halves(&heads[1]) } else { scales };
        for row in 0..ROWS {
            let offset = _mm512_madd_epi16(offset, broadcast_pair(input[row].sums[index]));
            let (scale, out) = (input[row].scales[index], &mut accumulators[row]);
            if format.has_minimum() {
                *out = add_scaled(*out, scales, scale, sums[row]);
                *out = add_scaled(*out, minimums, scale, offset);
            } else {
                *out = add_scaled(*out, scales, scale, _mm512_add_epi32(sums[row], offset));
            }
        }
    }
    store_all(&accumulators, out);
}

/// Accumulates numbers `4 QUAD..4 QUAD + 4`, and those that are 16 behind.
#[inline]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni"))]
fn quad<const ROWS: usize, const LINES: usize, const QUAD: usize>(
    lines: &[Line; LINES],
    quants: [&[[i8; 4]; 8]; ROWS],
    sums: &mut [__m512i; ROWS],
) {
    let (four, fifth) = (_mm512_set1_epi8(15), _mm512_set1_epi8(16));
    let line = load(&lines[LINES - 4 + QUAD]);
    let high = _mm512_srli_epi16::<4>(line);
    let mut line = [_mm512_and_si512(line, four), _mm512_and_si512(high, four)];
    if LINES == 5 {
        let bits = load(&lines[0]);
        // Bits QUAD and QUAD + 4 of each byte become its bit 4.
        let bits = match QUAD {
            0 => [_mm512_slli_epi16::<4>(bits), bits],
            1 => [_mm512_slli_epi16::<3>(bits), _mm512_srli_epi16::<1>(bits)],
            2 => [_mm512_slli_epi16::<2>(bits), _mm512_srli_epi16::<2>(bits)],
            _ => [_mm512_slli_epi16::<1>(bits), _mm512_srli_epi16::<3>(bits)],
        };
        for part in 0..2 {
            line[part] = _mm512_or_si512(line[part], _mm512_and_si512(bits[part], fifth));
        }
    }
    for row in 0..ROWS {
        for part in 0..2 {
            let numbers = broadcast(quants[row][4 * part + QUAD]);
            sums[row] = _mm512_dpbusd_epi32(sums[row], line[part], numbers);
        }
    }
}
