//! Products in plain Rust: what every other instruction set must equal bit for bit.
//!
//! Not here: the order of panels and tiles (`drive.rs`).

use super::drive::{Accumulator, Floats, Kernels, Tile};
use super::format::Format;
use super::pack::GROUP;
use super::panel::{self, Pairs, Panel};
use crate::activations::{SmallBlocks, SuperBlock};

/// Plain Rust, which every machine has.
#[derive(Debug)]
pub(super) struct Scalar;

impl Kernels for Scalar {
    fn unpack(&self, format: Format, packed: &[u8], panel: &mut Panel) {
        panel.unpack(format, packed);
    }

    fn widen(&self, format: Format, packed: &[u8], floats: &mut Floats) {
        panel::widen_columns(format, packed, floats);
    }

    fn super_block<const ROWS: usize>(
        &self,
        format: Format,
        panel: &Panel,
        input: Tile<'_>,
        out: &mut [Accumulator; ROWS],
    ) {
        let quads = format.sub_block_len() / 4;
        for (input, out) in input.super_block::<ROWS>().iter().zip(out) {
            let mut sums = [0; GROUP];
            let (lines, scales) = (panel.quants.chunks_exact(quads), panel.scales.iter());
            for ((lines, input), scales) in lines.zip(input.quants.chunks(quads)).zip(scales) {
                let mut partial = [0; GROUP];
                for (line, four) in lines.iter().zip(input) {
                    for (row, sum) in partial.iter_mut().enumerate() {
                        *sum += dot(&line[4 * row..4 * row + 4], *four, i32::from);
                    }
                }
                for ((sum, sub), scale) in sums.iter_mut().zip(partial).zip(scales) {
                    *sum += sub * i32::from(scale[0]);
                }
            }
            finish_super_block(format, panel, input, sums, out);
        }
    }

    fn small_blocks<const ROWS: usize>(
        &self,
        format: Format,
        panel: &Panel,
        input: Tile<'_>,
        out: &mut [Accumulator; ROWS],
    ) {
        let widen = |byte: u8| match format {
            Format::Q8_0 => i32::from(byte.cast_signed()),
            _ => i32::from(byte),
        };
        for (input, out) in input.small_blocks::<ROWS>().iter().zip(out) {
            for (block, quads) in input.quants.iter().enumerate() {
                let mut sums = [0; GROUP];
                for (line, four) in panel.quants[8 * block..].iter().zip(quads) {
                    for (row, sum) in sums.iter_mut().enumerate() {
                        *sum += dot(&line[4 * row..4 * row + 4], *four, widen);
                    }
                }
                finish_small_block(format, panel, (input, block), sums, out);
            }
        }
    }

    fn floats<const ROWS: usize>(
        &self,
        weights: &[[f32; GROUP]],
        input: Tile<'_>,
        out: &mut [Accumulator; ROWS],
    ) {
        floats(weights, input.floats::<ROWS>(), out);
    }
}

/// Accumulates columns of floating point numbers.
#[inline]
pub(super) fn floats<const ROWS: usize>(
    weights: &[[f32; GROUP]],
    input: [&[f32]; ROWS],
    out: &mut [Accumulator; ROWS],
) {
    for (input, out) in input.iter().zip(out) {
        for (column, number) in weights.iter().zip(*input) {
            for (sum, weight) in out.iter_mut().zip(column) {
                *sum += weight * number;
            }
        }
    }
}

fn dot(weights: &[u8], input: [i8; 4], widen: impl Fn(u8) -> i32) -> i32 {
    weights.iter().zip(input).map(|(&weight, number)| widen(weight) * i32::from(number)).sum()
}

/// What is left of a block of a k-quant when its numbers are multiplied.
#[inline]
pub(super) fn finish_super_block(
    format: Format,
    panel: &Panel,
    input: &SuperBlock<'_>,
    sums: [i32; GROUP],
    out: &mut Accumulator,
) {
    let mut offsets = [0; GROUP];
    if format.sub_block_len() == 32 {
        add_offsets(&mut offsets, &panel.offsets, input.sums32);
    } else {
        add_offsets(&mut offsets, &panel.offsets, input.sums16);
    }
    finish(format, (&panel.scale[0], &panel.minimum[0]), input.scale, (sums, offsets), out);
}

/// What is left of a block of 32 when its numbers are multiplied.
#[inline]
pub(super) fn finish_small_block(
    format: Format,
    panel: &Panel,
    (input, block): (&SmallBlocks<'_>, usize),
    sums: [i32; GROUP],
    out: &mut Accumulator,
) {
    let mut offsets = [0; GROUP];
    add_offsets(&mut offsets, &panel.offsets[block..=block], &[input.sums[block]]);
    let factors = (&panel.scale[block], &panel.minimum[block]);
    finish(format, factors, input.scales[block], (sums, offsets), out);
}

/// Adds the sums of sub-blocks times their offsets.
#[inline]
fn add_offsets(sums: &mut [i32; GROUP], offsets: &[Pairs], input: &[[i16; 2]]) {
    for (pairs, input) in offsets.iter().zip(input) {
        for (sum, pair) in sums.iter_mut().zip(pairs) {
            for (&offset, &number) in pair.iter().zip(input) {
                *sum += i32::from(offset) * i32::from(number);
            }
        }
    }
}

/// The floating point part of a block: see `matrix.rs`.
#[inline]
fn finish(
    format: Format,
    (scales, minimums): (&[f32; GROUP], &[f32; GROUP]),
    input: f32,
    (mut sums, offsets): ([i32; GROUP], [i32; GROUP]),
    out: &mut Accumulator,
) {
    if !format.has_minimum() && format.zero() != 0 {
        for (sum, offset) in sums.iter_mut().zip(offsets) {
            *sum += offset;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "rounded as the contract says")]
    for row in 0..GROUP {
        out[row] += (scales[row] * input) * sums[row] as f32;
        if format.has_minimum() {
            out[row] += (minimums[row] * input) * offsets[row] as f32;
        }
    }
}
