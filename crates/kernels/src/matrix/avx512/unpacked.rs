//! Products with unpacked weights.
#![allow(clippy::wildcard_imports, reason = "the names of intrinsics say where they are from")]
#![expect(clippy::needless_range_loop, reason = "an index is into several arrays at once")]

use super::registers::*;
use crate::intrinsics::*;
use crate::matrix::drive::{Accumulator, Tile};
use crate::matrix::format::Format;
use crate::matrix::pack::GROUP;
use crate::matrix::panel::Panel;

/// `QUADS` lines share a scale.
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni"))]
pub(super) fn super_block<const ROWS: usize, const QUADS: usize>(
    format: Format,
    panel: &Panel,
    input: Tile<'_>,
    out: &mut [Accumulator; ROWS],
) {
    let input = input.super_block::<ROWS>();
    let mut sums = [_mm512_setzero_si512(); ROWS];
    for sub in 0..64 / QUADS {
        let mut partial = [_mm512_setzero_si512(); ROWS];
        for quad in sub * QUADS..sub * QUADS + QUADS {
            let line = load(&panel.quants[quad]);
            for row in 0..ROWS {
                let numbers = broadcast(input[row].quants[quad]);
                partial[row] = _mm512_dpbusd_epi32(partial[row], line, numbers);
            }
        }
        let scales = _mm512_srai_epi32::<16>(load_pairs(&panel.scales[sub]));
        for row in 0..ROWS {
            let term = _mm512_mullo_epi32(partial[row], scales);
            sums[row] = _mm512_add_epi32(sums[row], term);
        }
    }
    let mut accumulators = load_all(out);
    let (scales, minimums) = (load_floats(&panel.scale[0]), load_floats(&panel.minimum[0]));
    for row in 0..ROWS {
        let mut offsets = _mm512_setzero_si512();
        if QUADS == 8 {
            for (pairs, &input) in panel.offsets.iter().zip(input[row].sums32) {
                offsets = add_pairs(offsets, load_pairs(pairs), input);
            }
        } else {
            for (pairs, &input) in panel.offsets.iter().zip(input[row].sums16) {
                offsets = add_pairs(offsets, load_pairs(pairs), input);
            }
        }
        let (scale, out) = (input[row].scale, &mut accumulators[row]);
        if format.has_minimum() {
            *out = add_scaled(*out, scales, scale, sums[row]);
            *out = add_scaled(*out, minimums, scale, offsets);
        } else {
            *out = add_scaled(*out, scales, scale, _mm512_add_epi32(sums[row], offsets));
        }
    }
    store_all(&accumulators, out);
}

/// Blocks of 32.
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni"))]
pub(super) fn small_blocks<const ROWS: usize>(
    format: Format,
    panel: &Panel,
    input: Tile<'_>,
    out: &mut [Accumulator; ROWS],
) {
    let input = input.small_blocks::<ROWS>();
    let mut accumulators = load_all(out);
    // Signed bytes become unsigned ones that are larger by 128.
    let is_signed = format == Format::Q8_0;
    let flip = if is_signed { _mm512_set1_epi8(-128) } else { _mm512_setzero_si512() };
    for (block, lines) in panel.quants.as_chunks::<8>().0.iter().enumerate() {
        if block >= input[0].scales.len() {
            break;
        }
        let mut sums = [_mm512_setzero_si512(); ROWS];
        for quad in 0..8 {
            let line = _mm512_xor_si512(load(&lines[quad]), flip);
            for row in 0..ROWS {
                let numbers = broadcast(input[row].quants[block][quad]);
                sums[row] = _mm512_dpbusd_epi32(sums[row], line, numbers);
            }
        }
        let pairs =
            if is_signed { broadcast_pair([-128; 2]) } else { load_pairs(&panel.offsets[block]) };
        let (scales, minimums) =
            (load_floats(&panel.scale[block]), load_floats(&panel.minimum[block]));
        for row in 0..ROWS {
            let offsets = add_pairs(_mm512_setzero_si512(), pairs, input[row].sums[block]);
            let (scale, out) = (input[row].scales[block], &mut accumulators[row]);
            if format.has_minimum() {
                *out = add_scaled(*out, scales, scale, sums[row]);
                *out = add_scaled(*out, minimums, scale, offsets);
            } else {
                *out = add_scaled(*out, scales, scale, _mm512_add_epi32(sums[row], offsets));
            }
        }
    }
    store_all(&accumulators, out);
}

#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni"))]
pub(super) fn floats<const ROWS: usize>(
    weights: &[[f32; GROUP]],
    input: Tile<'_>,
    out: &mut [Accumulator; ROWS],
) {
    let mut accumulators = load_all(out);
    let mut input = input.floats::<ROWS>();
    for input in &mut input {
        *input = &input[..weights.len()];
    }
    for (column, weights) in weights.iter().enumerate() {
        let weights = load_floats(weights);
        for row in 0..ROWS {
            let product = _mm512_mul_ps(weights, _mm512_set1_ps(input[row][column]));
            accumulators[row] = _mm512_add_ps(accumulators[row], product);
        }
    }
    store_all(&accumulators, out);
}
