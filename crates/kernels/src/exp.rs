//! The exponential function and what follows from it: the same bits on every machine.
//!
//! `e^x = 2^n e^r` with `n` the integer nearest to `x / ln 2` and `|r| <= ln 2 / 2`. `ln 2` is taken
//! in two parts, the first so short that `n` times it is exact (W. J. Cody, W. Waite, "Software
//! Manual for the Elementary Functions", 1980, chapter 6). `e^r` is a polynomial of degree six, and
//! `2^n` is added to the exponent's bits. The coefficients here were fitted for this file to the
//! least largest error, by weighted least squares in double precision.
//!
//! # Invariants
//!
//! * No function of the platform is called. Errors, measured over dense grids by the tests: `exp`
//!   2 units in the last place, `tanh` 4.
//! * NaN gives NaN, and nothing traps.
//!
//! Not here: activations that multiply (`gate.rs`), sums of exponentials (`softmax.rs`).

#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for its set")]

use crate::isa::Isa;
use crate::lanes::{Function, Map, Simd, run};

/// Above this the exponential is infinite: `ln(f32::MAX)`, rounded down.
const LARGEST: f32 = 88.722_83;

/// Below this the exponential is zero: `ln(f32::MIN_POSITIVE)`, rounded up.
const SMALLEST: f32 = -87.336_54;

/// `1.5 * 2^23`: added to a number below `2^22`, it leaves the nearest integer in the low bits.
const TO_INTEGER: f32 = 12_582_912.0;

/// `ln 2` in nine bits, and the rest of it.
const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];

/// `(e^r - 1 - r) / r^2`, the constant last.
const EXPONENTIAL: [f32; 5] =
    [0.001_381_454, 0.008_368_745, 0.041_668_39, 0.166_665_21, 0.499_999_94];

/// `(tanh(x) / x - 1) / x^2` as a polynomial of `x^2` up to [`TANH_SPLIT`], the constant last.
const TANH: [f32; 5] = [-0.005_704_987, 0.020_639_088, -0.053_739_715, 0.133_314_42, -0.333_332_8];

/// Below this `tanh` is a polynomial: the quotient of exponentials would lose digits.
const TANH_SPLIT: f32 = 0.625;

/// `e^(x^2) erfc(x) / t` as a polynomial of `t = 1 / (1 + 0.4 x)` for `x >= 0`, the constant last.
///
/// The shape is that of M. Abramowitz, I. Stegun, "Handbook of Mathematical Functions", 7.1.26.
const TAIL: [f32; 9] = [
    0.042_881_187,
    -0.148_260_53,
    0.100_442_61,
    0.069_097_124,
    0.092_809_84,
    0.187_830_09,
    0.203_309_57,
    0.226_244_35,
    0.225_645_84,
];

/// Replaces each number by its exponential.
///
/// Results below the smallest normal number (2^-126) are zero, those above the largest are infinite.
pub fn exp(isa: Isa, numbers: &mut [f32]) {
    run(isa, Map(Exponential, numbers));
}

/// Replaces each number by its hyperbolic tangent.
pub fn tanh(isa: Isa, numbers: &mut [f32]) {
    run(isa, Map(Tangent, numbers));
}

/// Replaces each number by `cap * tanh(x / cap)`: a limit that leaves small numbers as they are.
pub fn softcap(isa: Isa, numbers: &mut [f32], cap: f32) {
    run(isa, Map(Cap(cap), numbers));
}

#[derive(Clone, Copy)]
struct Exponential;

impl Function for Exponential {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, xs: S::Lanes) -> S::Lanes {
        exponential(simd, xs)
    }
}

#[derive(Clone, Copy)]
struct Tangent;

impl Function for Tangent {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, xs: S::Lanes) -> S::Lanes {
        tangent(simd, xs)
    }
}

/// The soft limit of this size.
#[derive(Clone, Copy)]
pub(crate) struct Cap(pub(crate) f32);

impl Function for Cap {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, xs: S::Lanes) -> S::Lanes {
        let cap = simd.splat(self.0);
        simd.mul(cap, tangent(simd, simd.div(xs, cap)))
    }
}

/// The polynomial with these coefficients, the constant last, by Horner's rule.
#[inline(always)]
fn polynomial<S: Simd>(simd: S, coefficients: &[f32], xs: S::Lanes) -> S::Lanes {
    let mut sum = simd.splat(coefficients[0]);
    for &coefficient in &coefficients[1..] {
        sum = simd.add_product(simd.splat(coefficient), sum, xs);
    }
    sum
}

/// `e^x`
#[inline(always)]
pub(crate) fn exponential<S: Simd>(simd: S, xs: S::Lanes) -> S::Lanes {
    let shift = simd.splat(TO_INTEGER);
    let shifted = simd.add(simd.mul(xs, simd.splat(std::f32::consts::LOG2_E)), shift);
    let count = simd.sub(shifted, shift);
    let rest = simd.sub(xs, simd.mul(count, simd.splat(LN_2[0])));
    let rest = simd.sub(rest, simd.mul(count, simd.splat(LN_2[1])));
    let square = simd.mul(rest, rest);
    let curve = simd.mul(square, polynomial(simd, &EXPONENTIAL, rest));
    let value = simd.add(simd.add(curve, rest), simd.splat(1.0));
    let value = simd.add_exponent(value, shifted);
    // What lies outside the range was garbage until here, and so was NaN.
    let value = simd.select_less((xs, simd.splat(SMALLEST)), simd.splat(0.0), value);
    let beyond = simd.mul(xs, simd.splat(f32::MAX));
    simd.select_less((xs, simd.splat(LARGEST)), value, beyond)
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(simd: S, xs: S::Lanes) -> S::Lanes {
    let one = simd.splat(1.0);
    simd.div(one, simd.add(one, exponential(simd, negative(simd, xs))))
}

/// `-x`
#[inline(always)]
pub(crate) fn negative<S: Simd>(simd: S, xs: S::Lanes) -> S::Lanes {
    simd.mul(xs, simd.splat(-1.0))
}

/// `|x|`
#[inline(always)]
fn magnitude<S: Simd>(simd: S, xs: S::Lanes) -> S::Lanes {
    simd.copy_sign(xs, simd.splat(0.0))
}

/// `tanh(x)`
#[inline(always)]
pub(crate) fn tangent<S: Simd>(simd: S, xs: S::Lanes) -> S::Lanes {
    let size = magnitude(simd, xs);
    let (one, two) = (simd.splat(1.0), simd.splat(2.0));
    let square = simd.mul(size, size);
    let curve = simd.mul(square, polynomial(simd, &TANH, square));
    let near = simd.add(simd.mul(curve, size), size);
    // 1 - 2 / (e^2|x| + 1)
    let power = exponential(simd, simd.add(size, size));
    let far = simd.sub(one, simd.div(two, simd.add(power, one)));
    simd.copy_sign(simd.select_less((size, simd.splat(TANH_SPLIT)), near, far), xs)
}

/// The share of a normal distribution below `x`: `(1 + erf(x / sqrt 2)) / 2`.
#[inline(always)]
pub(crate) fn normal<S: Simd>(simd: S, xs: S::Lanes) -> S::Lanes {
    let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
    let scaled = simd.mul(magnitude(simd, xs), simd.splat(std::f32::consts::FRAC_1_SQRT_2));
    let t = simd.div(one, simd.add(one, simd.mul(simd.splat(0.4), scaled)));
    let half_square = simd.mul(simd.mul(xs, simd.splat(-0.5)), xs);
    let bell = simd.mul(exponential(simd, half_square), simd.splat(0.5));
    let tail = simd.mul(simd.mul(t, polynomial(simd, &TAIL, t)), bell);
    simd.select_less((xs, zero), tail, simd.sub(one, tail))
}

#[cfg(test)]
mod tests;
