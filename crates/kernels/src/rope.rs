//! Rotary positions: pairs of a head's numbers, turned by an angle that grows with the position.
//!
//! (J. Su et al., "`RoFormer`: Enhanced Transformer with Rotary Position Embedding", 2021.)
//! [`Turns`] are computed for one position, once for a row of a batch; [`rotate`] applies them to
//! each head of that row in each layer.
//!
//! # Invariants
//!
//! * Angles, sines and cosines are computed in double precision by a portable library and rounded
//!   once. So they depend on the position alone, at any position.
//! * A position costs two numbers a pair; no table grows with the length of a context.
//!
//! Not here: how fast each pair turns, and which scaling a model asks for (the engine reads that).

#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for its set")]

use crate::isa::Isa;
use crate::lanes::{Kernel, Simd, run};

/// Which numbers of a head make a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pairing {
    /// `2 i` and `2 i + 1`: what the paper says.
    Interleaved,
    /// `i` and `i + pairs`: what GPT-NeoX does.
    Split,
}

/// The sines and cosines of one position.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Turns {
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl Turns {
    /// The turns of one position: `frequencies` are radians per position, one for each pair, and
    /// sines and cosines are multiplied with `magnitude`.
    #[expect(clippy::cast_possible_truncation, reason = "rounding to 32 bits is what is meant")]
    pub fn new(frequencies: &[f64], magnitude: f64, position: u32) -> Self {
        let turn = |frequency: &f64| {
            let (sine, cosine) = libm::sincos(f64::from(position) * frequency);
            ((cosine * magnitude) as f32, (sine * magnitude) as f32)
        };
        let (cosines, sines) = frequencies.iter().map(turn).unzip();
        Self { cosines, sines }
    }

    /// The cosines, one for each pair.
    pub fn cosines(&self) -> &[f32] {
        &self.cosines
    }

    /// The sines, one for each pair.
    pub fn sines(&self) -> &[f32] {
        &self.sines
    }
}

/// Turns the first numbers of a head; those past the pairs stay as they are.
///
/// # Panics
///
/// Where the head is shorter than its pairs.
pub fn rotate(isa: Isa, head: &mut [f32], turns: &Turns, pairing: Pairing) {
    let size = 2 * turns.cosines.len();
    assert!(size <= head.len(), "{} numbers cannot hold {size} that turn", head.len());
    let head = &mut head[..size];
    match pairing {
        Pairing::Interleaved => run(isa, Interleaved { head, turns }),
        Pairing::Split => run(isa, Split { head, turns }),
    }
}

struct Interleaved<'a> {
    head: &'a mut [f32],
    turns: &'a Turns,
}

impl Kernel for Interleaved<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (pairs, _) = self.head.as_chunks_mut::<2>();
        let turns = self.turns.cosines.iter().zip(&self.turns.sines);
        for (pair, (cosine, sine)) in pairs.iter_mut().zip(turns) {
            let [x, y] = *pair;
            *pair = [x * cosine - y * sine, x * sine + y * cosine];
        }
    }
}

struct Split<'a> {
    head: &'a mut [f32],
    turns: &'a Turns,
}

impl Kernel for Split<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (firsts, seconds) = self.head.split_at_mut(self.turns.cosines.len());
        let turns = self.turns.cosines.iter().zip(&self.turns.sines);
        for ((first, second), (cosine, sine)) in firsts.iter_mut().zip(seconds).zip(turns) {
            let (x, y) = (*first, *second);
            *first = x * cosine - y * sine;
            *second = x * sine + y * cosine;
        }
    }
}

#[cfg(test)]
mod tests;
