//! Products with unpacked weights.
//!
//! Unsigned bytes of weights times signed bytes of activations are added in pairs to 16 bits, then
//! to more 16-bit sums as long as these cannot overflow (`RUN` lines), then times the scale of the
//! sub-block to 32 bits.
#![allow(clippy::wildcard_imports, reason = "the names of intrinsics say where they are from")]

use std::arch::x86_64::*;

use super::finish::{finish, offsets};
use super::packed::add_signed;
use super::registers::*;
use crate::activations::SmallBlocks;
use crate::matrix::drive::{Accumulator, Tile};
use crate::matrix::format::Format;
use crate::matrix::pack::GROUP;
use crate::matrix::panel::Panel;

/// `RUN` lines fit a 16-bit sum; `QUADS` lines share a scale.
#[target_feature(enable = "avx2,f16c")]
pub(super) fn super_block<const ROWS: usize, const RUN: usize, const QUADS: usize>(
    format: Format,
    panel: &Panel,
    input: Tile<'_>,
    out: &mut [Accumulator; ROWS],
) {
    let input = input.super_block::<ROWS>();
    let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
    for sub in 0..64 / QUADS {
        let scales = [load_pairs(&panel.scales[sub], 0), load_pairs(&panel.scales[sub], 1)];
        for run in 0..QUADS / RUN {
            let mut partial = [[_mm256_setzero_si256(); 2]; ROWS];
            for quad in 0..RUN {
                let quad = sub * QUADS + run * RUN + quad;
                let line = [load(&panel.quants[quad], 0), load(&panel.quants[quad], 1)];
                for row in 0..ROWS {
                    let numbers = broadcast(input[row].quants[quad]);
                    for half in 0..2 {
                        let products = _mm256_maddubs_epi16(line[half], numbers);
                        partial[row][half] = _mm256_add_epi16(partial[row][half], products);
                    }
                }
            }
            for row in 0..ROWS {
                for half in 0..2 {
                    let term = _mm256_madd_epi16(partial[row][half], scales[half]);
                    sums[row][half] = _mm256_add_epi32(sums[row][half], term);
                }
            }
        }
    }
    for row in 0..ROWS {
        let offsets = match QUADS {
            8 => offsets(&panel.offsets[..4], input[row].sums32),
            _ => offsets(&panel.offsets, input[row].sums16),
        };
        let factors = (&panel.scale[0], &panel.minimum[0]);
        let mut accumulator = load_floats(&out[row]);
        finish(format, factors, input[row].scale, (sums[row], offsets), &mut accumulator);
        store_floats(accumulator, &mut out[row]);
    }
}

/// Blocks of 32 unsigned numbers.
#[target_feature(enable = "avx2,f16c")]
pub(super) fn small_blocks<const ROWS: usize, const RUN: usize>(
    format: Format,
    panel: &Panel,
    input: Tile<'_>,
    out: &mut [Accumulator; ROWS],
) {
    let ones = _mm256_set1_epi16(1);
    let mut accumulators = load_all(out);
    let input = input.small_blocks::<ROWS>();
    for (block, lines) in panel.quants.as_chunks::<8>().0.iter().enumerate() {
        let Some(quants) = blocks(&input, block, |input| input.quants) else { break };
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        for run in 0..8 / RUN {
            let mut partial = [[_mm256_setzero_si256(); 2]; ROWS];
            for quad in run * RUN..run * RUN + RUN {
                let line = [load(&lines[quad], 0), load(&lines[quad], 1)];
                for row in 0..ROWS {
                    let numbers = broadcast(quants[row][quad]);
                    for half in 0..2 {
                        let products = _mm256_maddubs_epi16(line[half], numbers);
                        partial[row][half] = _mm256_add_epi16(partial[row][half], products);
                    }
                }
            }
            for row in 0..ROWS {
                for half in 0..2 {
                    let wide = _mm256_madd_epi16(partial[row][half], ones);
                    sums[row][half] = _mm256_add_epi32(sums[row][half], wide);
                }
            }
        }
        for row in 0..ROWS {
            let offsets = offsets(&panel.offsets[block..=block], &[input[row].sums[block]]);
            let factors = (&panel.scale[block], &panel.minimum[block]);
            let sums = (sums[row], offsets);
            finish(format, factors, input[row].scales[block], sums, &mut accumulators[row]);
        }
    }
    store_all(&accumulators, out);
}

/// Blocks of 32 signed numbers, in 16 bits: the numbers 0 and 2 of four, then 1 and 3.
#[target_feature(enable = "avx2,f16c")]
pub(super) fn signed_blocks<const ROWS: usize>(
    panel: &Panel,
    input: Tile<'_>,
    out: &mut [Accumulator; ROWS],
) {
    let mut accumulators = load_all(out);
    let input = input.small_blocks::<ROWS>();
    for (block, lines) in panel.quants.as_chunks::<8>().0.iter().enumerate() {
        let Some(quants) = blocks(&input, block, |input| input.wide) else { break };
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        for quad in 0..8 {
            add_signed(&lines[quad], quants.map(|quants| &quants[quad]), &mut sums);
        }
        for row in 0..ROWS {
            let factors = (&panel.scale[block], &panel.minimum[block]);
            let sums = (sums[row], sums[row]);
            finish(Format::Q8_0, factors, input[row].scales[block], sums, &mut accumulators[row]);
        }
    }
    store_all(&accumulators, out);
}

#[target_feature(enable = "avx2,f16c")]
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
            let number = _mm256_set1_ps(input[row][column]);
            for half in 0..2 {
                let sum = accumulators[row][half];
                accumulators[row][half] = add_product(sum, weights[half], number);
            }
        }
    }
    store_all(&accumulators, out);
}

/// One block of each row, if there is that block.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn blocks<'a, T, const ROWS: usize>(
    input: &[SmallBlocks<'a>; ROWS],
    block: usize,
    of: impl Fn(&SmallBlocks<'a>) -> &'a [T],
) -> Option<[&'a T; ROWS]> {
    let first = of(&input[0]).get(block)?;
    let mut all = [first; ROWS];
    for (one, input) in all.iter_mut().zip(input) {
        *one = of(input).get(block)?;
    }
    Some(all)
}
