//! Softmax: numbers to shares that add up to one.
//!
//! # Invariants
//!
//! * The exponentials are summed in sixteen lanes, by index modulo sixteen, then by the tree of
//!   `lanes.rs`. Numbers of minus infinity may stand anywhere without changing the others' bits.
//!
//! Not here: attention, which never holds a whole row (`attend.rs`).

#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for its set")]

use crate::exp::exponential;
use crate::isa::Isa;
use crate::lanes::{Kernel, LANES, Simd, run};

/// Replaces each number by `e^(x - max) / sum of e^(x - max)`.
///
/// NaN throughout where one is NaN or plus infinity, or where all are minus infinity.
pub fn softmax(isa: Isa, numbers: &mut [f32]) {
    run(isa, Softmax(numbers));
}

struct Softmax<'a>(&'a mut [f32]);

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (blocks, rest) = self.0.as_chunks_mut::<LANES>();
        let mut last = [f32::NEG_INFINITY; LANES];
        last[..rest.len()].copy_from_slice(rest);
        let largest = larger(largest(simd, blocks), largest(simd, &[last]));
        let sum = simd.add(exponentials(simd, blocks, largest), {
            exponentials(simd, std::slice::from_mut(&mut last), largest)
        });
        let sum = simd.splat(simd.sum(sum));
        for block in blocks {
            let share = simd.div(simd.load(block), sum);
            simd.store(share, block);
        }
        simd.store_part(simd.div(simd.load(&last), sum), rest);
    }
}

/// The largest number; NaN counts as none.
#[inline(always)]
pub(crate) fn largest<S: Simd>(simd: S, blocks: &[[f32; LANES]]) -> f32 {
    let mut lanes = simd.splat(f32::NEG_INFINITY);
    for block in blocks {
        lanes = simd.max(simd.load(block), lanes);
    }
    let mut numbers = [0.0; LANES];
    simd.store(lanes, &mut numbers);
    numbers.into_iter().fold(f32::NEG_INFINITY, larger)
}

/// The larger; the second where one is NaN. (`f32::max` leaves the sign of a zero open.)
#[inline(always)]
pub(crate) fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// Replaces each number by `e^(x - largest)`; the sums of the lanes.
#[inline(always)]
pub(crate) fn exponentials<S: Simd>(
    simd: S,
    blocks: &mut [[f32; LANES]],
    largest: f32,
) -> S::Lanes {
    let largest = simd.splat(largest);
    let mut sum = simd.splat(0.0);
    for block in blocks {
        let power = exponential(simd, simd.sub(simd.load(block), largest));
        simd.store(power, block);
        sum = simd.add(sum, power);
    }
    sum
}

#[cfg(test)]
mod tests;
