//! Norms and sums of rows.
//!
//! A sum over a row runs in sixteen lanes, by index modulo sixteen, then by the tree of `lanes.rs`.
//!
//! # Invariants
//!
//! * A row's result depends on that row alone.

#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for its set")]

use crate::isa::Isa;
use crate::lanes::{Kernel, LANES, Simd, run};

/// Writes `x / sqrt(mean(x^2) + epsilon) * weight` (B. Zhang, R. Sennrich, "Root Mean Square Layer
/// Normalization", 2019).
///
/// # Panics
///
/// Where the lengths differ.
pub fn rms_norm(isa: Isa, row: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    assert_eq!(row.len(), out.len(), "a row and its norm have one length");
    out.copy_from_slice(row);
    rms_norm_heads(isa, out, weight, epsilon);
}

/// The same in place, for each of the heads that make up a row: a head is as long as `weight`.
///
/// # Panics
///
/// Where the row is not a number of heads.
pub fn rms_norm_heads(isa: Isa, heads: &mut [f32], weight: &[f32], epsilon: f32) {
    if heads.is_empty() {
        return;
    }
    assert!(!weight.is_empty(), "a head has numbers");
    assert_eq!(heads.len() % weight.len(), 0, "a row is a number of heads");
    run(isa, RootMeanSquare { heads, weight, epsilon });
}

/// Writes `(x - mean) / sqrt(variance + epsilon) * weight + bias` (J. L. Ba, J. R. Kiros,
/// G. E. Hinton, "Layer Normalization", 2016).
///
/// # Panics
///
/// Where the lengths differ.
pub fn layer_norm(isa: Isa, row: &[f32], norm: LayerNorm<'_>, out: &mut [f32]) {
    assert_eq!(row.len(), out.len(), "a row and its norm have one length");
    assert_eq!(row.len(), norm.weight.len(), "a row and its weights have one length");
    assert_eq!(row.len(), norm.bias.len(), "a row and its biases have one length");
    out.copy_from_slice(row);
    run(isa, Layer { norm, row: out });
}

/// What a layer norm knows.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    /// One factor for each number.
    pub weight: &'a [f32],
    /// One summand for each number.
    pub bias: &'a [f32],
    /// What keeps the root from zero.
    pub epsilon: f32,
}

/// Adds `what` to `to`, number by number.
///
/// # Panics
///
/// Where the lengths differ.
pub fn add(isa: Isa, to: &mut [f32], what: &[f32]) {
    assert_eq!(to.len(), what.len(), "summands have one length");
    run(isa, Add { to, what });
}

/// Multiplies each number by `factor`.
pub fn scale(isa: Isa, numbers: &mut [f32], factor: f32) {
    run(isa, Scale { numbers, factor });
}

struct RootMeanSquare<'a> {
    heads: &'a mut [f32],
    weight: &'a [f32],
    epsilon: f32,
}

impl Kernel for RootMeanSquare<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (weights, last_weight) = self.weight.as_chunks::<LANES>();
        for head in self.heads.chunks_exact_mut(self.weight.len()) {
            let mean = mean(sum(simd, head, Square), head.len());
            let scale = simd.splat(1.0 / (mean + self.epsilon).sqrt());
            let (blocks, rest) = head.as_chunks_mut::<LANES>();
            for (block, weight) in blocks.iter_mut().zip(weights) {
                let scaled = simd.mul(simd.load(block), scale);
                simd.store(simd.mul(scaled, simd.load(weight)), block);
            }
            let scaled = simd.mul(simd.load_part(rest), scale);
            simd.store_part(simd.mul(scaled, simd.load_part(last_weight)), rest);
        }
    }
}

struct Layer<'a> {
    norm: LayerNorm<'a>,
    row: &'a mut [f32],
}

impl Kernel for Layer<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let count = self.row.len();
        let middle = mean(sum(simd, self.row, Identity), count);
        for number in self.row.iter_mut() {
            *number -= middle;
        }
        let variance = mean(sum(simd, self.row, Square), count);
        let scale = 1.0 / (variance + self.norm.epsilon).sqrt();
        let parameters = self.norm.weight.iter().zip(self.norm.bias);
        for (number, (weight, bias)) in self.row.iter_mut().zip(parameters) {
            *number = *number * scale * weight + bias;
        }
    }
}

struct Add<'a> {
    to: &'a mut [f32],
    what: &'a [f32],
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (to, what) in self.to.iter_mut().zip(self.what) {
            *to += what;
        }
    }
}

struct Scale<'a> {
    numbers: &'a mut [f32],
    factor: f32,
}

impl Kernel for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for number in self.numbers {
            *number *= self.factor;
        }
    }
}

/// What is summed of a number.
trait Term: Copy {
    fn of<S: Simd>(self, simd: S, xs: S::Lanes) -> S::Lanes;
}

#[derive(Clone, Copy)]
struct Identity;

impl Term for Identity {
    #[inline(always)]
    fn of<S: Simd>(self, _: S, xs: S::Lanes) -> S::Lanes {
        xs
    }
}

#[derive(Clone, Copy)]
struct Square;

impl Term for Square {
    #[inline(always)]
    fn of<S: Simd>(self, simd: S, xs: S::Lanes) -> S::Lanes {
        simd.mul(xs, xs)
    }
}

/// The sum of the terms of a row.
#[inline(always)]
fn sum<S: Simd>(simd: S, row: &[f32], term: impl Term) -> f32 {
    let (blocks, rest) = row.as_chunks::<LANES>();
    let mut sum = simd.splat(0.0);
    for block in blocks {
        sum = simd.add(sum, term.of(simd, simd.load(block)));
    }
    // Lanes past the end add a zero, which changes nothing.
    simd.sum(simd.add(sum, term.of(simd, simd.load_part(rest))))
}

/// The sum divided by the count.
#[inline(always)]
#[expect(clippy::cast_precision_loss, reason = "rows are far shorter than 2^24")]
fn mean(sum: f32, count: usize) -> f32 {
    sum / count as f32
}

#[cfg(test)]
mod tests;
