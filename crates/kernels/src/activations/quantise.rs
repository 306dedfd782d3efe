//! Rounding a block to bytes.
//!
//! The scalar code is the only code. It is compiled once more for each instruction set, where it
//! becomes wide instructions: no operation in it may be reordered or fused, so the bits are equal.
//!
//! JUSTIFICATION: a function compiled for an instruction set may only be called where that is
//! present; an [`Isa`] is proof of it.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "calls functions that are compiled for an instruction set")
)]
#![expect(clippy::inline_always, reason = "compiled for the instruction set of the caller")]

use super::{ActivationKind, ActivationsPart};
use crate::Isa;
#[cfg(target_arch = "x86_64")]
use crate::isa::Kind;

/// Blocks below this (2^-100) are zero: the inverse of what is not below it is finite.
const SMALLEST: u32 = (127 - 100) << 23;
const INFINITE: u32 = 0xff << 23;

pub(super) fn quantise(isa: Isa, values: &[f32], part: ActivationsPart<'_>) {
    match isa.kind() {
        // SAFETY: the `Isa` says that this machine has AVX-512, which includes AVX2.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 | Kind::Avx512 => unsafe { quantise_avx2(values, part) },
        _ => quantise_rows(values, part),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn quantise_avx2(values: &[f32], part: ActivationsPart<'_>) {
    quantise_rows(values, part);
}

#[inline(always)]
fn quantise_rows(values: &[f32], part: ActivationsPart<'_>) {
    match part.kind {
        ActivationKind::Floats => {}
        ActivationKind::Blocks32 => {
            let blocks = values.as_chunks::<32>().0.iter();
            let quants = part.quants.as_chunks_mut::<8>().0;
            let wide = part.wide.as_chunks_mut::<8>().0;
            let sums = part.sums16.as_chunks_mut::<1>().0;
            let outputs = quants.iter_mut().zip(wide).zip(sums).zip(part.scales);
            for (block, (((quants, wide), sums), scale)) in blocks.zip(outputs) {
                let mut bytes = [0; 32];
                *scale = quantise_block(block, &mut bytes);
                for (quad, four) in bytes.as_chunks::<4>().0.iter().enumerate() {
                    quants[quad] = *four;
                    wide[quad] = [four[0], four[2], four[1], four[3]].map(i16::from);
                }
                sum_sixteens(&bytes, sums);
            }
        }
        ActivationKind::Blocks256 => {
            let blocks = values.as_chunks::<256>().0.iter();
            let quants = part.quants.as_chunks_mut::<64>().0;
            let sums16 = part.sums16.as_chunks_mut::<8>().0;
            let sums32 = part.sums32.as_chunks_mut::<4>().0;
            let outputs = quants.iter_mut().zip(sums16).zip(sums32).zip(part.scales);
            for (block, (((quants, sums16), sums32), scale)) in blocks.zip(outputs) {
                let mut bytes = [0; 256];
                *scale = quantise_block(block, &mut bytes);
                quants.copy_from_slice(bytes.as_chunks::<4>().0);
                sum_sixteens(&bytes, sums16);
                for (index, pair) in sums32.iter_mut().enumerate() {
                    *pair = [sums16[2 * index], sums16[2 * index + 1]].map(|[a, b]| a + b);
                }
            }
        }
    }
}

/// Rounds one block and returns its scale.
#[inline(always)]
fn quantise_block<const LEN: usize>(block: &[f32; LEN], quants: &mut [i8; LEN]) -> f32 {
    // Magnitudes order as their bits do, infinities and NaN above all numbers.
    let mut largest = [0; 16];
    for sixteen in block.as_chunks::<16>().0 {
        for (largest, value) in largest.iter_mut().zip(sixteen) {
            *largest = (value.to_bits() & (u32::MAX >> 1)).max(*largest);
        }
    }
    let largest = largest.into_iter().fold(0, u32::max);
    if !(SMALLEST..INFINITE).contains(&largest) {
        quants.fill(0);
        return if largest < SMALLEST { 0.0 } else { f32::NAN };
    }
    let largest = f32::from_bits(largest);
    let inverse = 127.0 / largest;
    for (quant, value) in quants.iter_mut().zip(block) {
        let scaled = value * inverse;
        #[expect(clippy::cast_possible_truncation, reason = "the magnitude is below 128")]
        let rounded = (scaled + 0.5_f32.copysign(scaled)) as i32 as i8;
        *quant = rounded;
    }
    largest / 127.0
}

#[inline(always)]
fn sum_sixteens(bytes: &[i8], sums: &mut [[i16; 2]]) {
    for (bytes, pair) in bytes.as_chunks::<32>().0.iter().zip(sums) {
        for (sixteen, sum) in bytes.as_chunks::<16>().0.iter().zip(pair) {
            *sum = sixteen.iter().map(|&byte| i16::from(byte)).sum();
        }
    }
}
