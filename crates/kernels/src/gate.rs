//! Activations, alone and as gates.
//!
//! # Invariants
//!
//! * Each number's result depends on that number alone.
//!
//! Not here: the functions they are made of (`exp.rs`).

#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for its set")]

use crate::exp::{exponential, negative, normal, sigmoid, tangent};
use crate::isa::Isa;
use crate::lanes::{Function, Kernel, LANES, Map, Simd, run};

/// What a feed-forward layer bends its numbers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Activation {
    /// `x / (1 + e^-x)`, also called swish. NaN at minus infinity.
    Silu,
    /// `x` times the normal distribution's share below `x`, through `erf` (D. Hendrycks, K. Gimpel,
    /// "Gaussian Error Linear Units", 2016).
    GeluErf,
    /// The same paper's approximation through `tanh`.
    GeluTanh,
    /// `max(x, 0)`
    Relu,
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// `tanh(x)`
    Tanh,
}

/// Replaces each number by its activation.
pub fn activate(isa: Isa, activation: Activation, numbers: &mut [f32]) {
    match activation {
        Activation::Silu => run(isa, Map(Silu, numbers)),
        Activation::GeluErf => run(isa, Map(GeluErf, numbers)),
        Activation::GeluTanh => run(isa, Map(GeluTanh, numbers)),
        Activation::Relu => run(isa, Map(Relu, numbers)),
        Activation::Sigmoid => run(isa, Map(Sigmoid, numbers)),
        Activation::Tanh => run(isa, Map(Tanh, numbers)),
    }
}

/// Writes `activation(gate) * up`, number by number.
///
/// # Panics
///
/// Where the lengths differ.
pub fn gate(isa: Isa, activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert_eq!(gate.len(), up.len(), "a gate and what it gates have one length");
    assert_eq!(gate.len(), out.len(), "a gate and its result have one length");
    match activation {
        Activation::Silu => run(isa, Gated { function: Silu, gate, up, out }),
        Activation::GeluErf => run(isa, Gated { function: GeluErf, gate, up, out }),
        Activation::GeluTanh => run(isa, Gated { function: GeluTanh, gate, up, out }),
        Activation::Relu => run(isa, Gated { function: Relu, gate, up, out }),
        Activation::Sigmoid => run(isa, Gated { function: Sigmoid, gate, up, out }),
        Activation::Tanh => run(isa, Gated { function: Tanh, gate, up, out }),
    }
}

struct Gated<'a, F> {
    function: F,
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl<F: Function> Kernel for Gated<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (gates, last_gate) = self.gate.as_chunks::<LANES>();
        let (ups, last_up) = self.up.as_chunks::<LANES>();
        let (outs, last_out) = self.out.as_chunks_mut::<LANES>();
        for ((gate, up), out) in gates.iter().zip(ups).zip(outs) {
            let bent = self.function.apply(simd, simd.load(gate));
            simd.store(simd.mul(bent, simd.load(up)), out);
        }
        if !last_gate.is_empty() {
            let bent = self.function.apply(simd, simd.load_part(last_gate));
            simd.store_part(simd.mul(bent, simd.load_part(last_up)), last_out);
        }
    }
}

/// Names a function of lanes as a type, so that a kernel is compiled for it.
macro_rules! function {
    ($name:ident, |$simd:ident, $xs:ident| $value:expr) => {
        #[derive(Clone, Copy)]
        struct $name;

        impl Function for $name {
            #[inline(always)]
            fn apply<S: Simd>(self, $simd: S, $xs: S::Lanes) -> S::Lanes {
                $value
            }
        }
    };
}

function!(Silu, |simd, xs| silu(simd, xs, xs));
function!(GeluErf, |simd, xs| simd.mul(xs, normal(simd, xs)));
function!(GeluTanh, |simd, xs| silu(simd, xs, bent(simd, xs)));
function!(Relu, |simd, xs| simd.max(xs, simd.splat(0.0)));
function!(Sigmoid, |simd, xs| sigmoid(simd, xs));
function!(Tanh, |simd, xs| tangent(simd, xs));

/// `x / (1 + e^-y)`
#[inline(always)]
fn silu<S: Simd>(simd: S, xs: S::Lanes, ys: S::Lanes) -> S::Lanes {
    let power = exponential(simd, negative(simd, ys));
    simd.div(xs, simd.add(simd.splat(1.0), power))
}

/// `2 sqrt(2 / pi) (x + 0.044715 x^3)`: since `(1 + tanh u) / 2 = 1 / (1 + e^-2u)`.
#[inline(always)]
fn bent<S: Simd>(simd: S, xs: S::Lanes) -> S::Lanes {
    let square = simd.mul(xs, xs);
    let factor = simd.add(simd.mul(square, simd.splat(0.044_715)), simd.splat(1.0));
    simd.mul(simd.mul(xs, factor), simd.splat(1.595_769))
}

#[cfg(test)]
mod tests;
