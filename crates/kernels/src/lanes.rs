//! Sixteen numbers at a time: what every kernel here is written in.
//!
//! A kernel is one [`Kernel::run`], generic over an instruction set [`Simd`]. [`run`] compiles it
//! once for each set and calls the one that the [`Isa`] names. Whatever the set, sixteen lanes are
//! sixteen lanes: AVX2 holds them in two registers, NEON in four.
//!
//! # Invariants
//!
//! * Every operation is the IEEE one, rounded to nearest, ties to even: `a * b + c` is two of them.
//! * Lanes are summed by one tree, see [`Simd::sum`].
//! * So all sets give the same bits. Only the payload and sign of a NaN may differ.
//! * A [`Simd`] value exists only where its instruction set does: [`run`] alone makes one, so its
//!   methods are safe.
//!
//! Everything generic over [`Simd`] is `#[inline(always)]`: code that is not inlined into the entry
//! point of an instruction set is not compiled for it.
//!
//! JUSTIFICATION: an entry point with `#[target_feature]` can only be called so, and
//! the intrinsics only be reached so. It is two to eight times the speed of the plain code.

#![expect(unsafe_code, reason = "see JUSTIFICATION above")]
#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for its set")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use crate::isa::{Isa, Kind};

/// How many numbers stand side by side.
pub(crate) const LANES: usize = 16;

/// An instruction set, as operations on sixteen lanes.
pub(crate) trait Simd: Copy {
    /// Sixteen 32-bit floating-point numbers.
    type Lanes: Copy;

    /// How many sums of sixteen lanes a loop should carry: as many as leave registers for one row of
    /// lanes that is added to them, a factor and a product.
    const SUMS: usize;

    /// Runs a kernel as a function of its own: what the caller holds takes no registers there.
    fn apart<K: Kernel>(self, kernel: K) -> K::Output;

    /// The same number in every lane.
    fn splat(self, value: f32) -> Self::Lanes;

    /// Sixteen numbers from memory.
    fn load(self, from: &[f32; LANES]) -> Self::Lanes;

    /// Sixteen half-precision numbers, widened exactly.
    fn load_half(self, from: &[u16; LANES]) -> Self::Lanes;

    /// The upper halves of sixteen single-precision numbers (`bfloat16`), widened exactly.
    fn load_upper(self, from: &[u16; LANES]) -> Self::Lanes;

    /// Sixteen small integers, widened exactly.
    fn load_bytes(self, from: &[i8; LANES]) -> Self::Lanes;

    /// Sixteen numbers to memory.
    fn store(self, lanes: Self::Lanes, to: &mut [f32; LANES]);

    /// `a + b`
    fn add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;

    /// `a - b`
    fn sub(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;

    /// `a * b`
    fn mul(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;

    /// `sum + a * b`, the product rounded before it is added.
    #[inline(always)]
    fn add_product(self, sum: Self::Lanes, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        self.add(sum, self.mul(a, b))
    }

    /// `a / b`
    fn div(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;

    /// In each lane `yes` where the first of the pair is less than the second; `no` elsewhere, so
    /// also where one is NaN.
    fn select_less(
        self,
        pair: (Self::Lanes, Self::Lanes),
        yes: Self::Lanes,
        no: Self::Lanes,
    ) -> Self::Lanes;

    /// In each lane `a` where `a > b`; `b` elsewhere, so also where one is NaN.
    fn max(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;

    /// The magnitude of `magnitude` with the sign of `sign`.
    fn copy_sign(self, magnitude: Self::Lanes, sign: Self::Lanes) -> Self::Lanes;

    /// The bits of `value` plus the bits of `count` shifted left by 23, wrapping.
    ///
    /// Where the low bits of `count` hold an integer `n`, that is `value * 2^n`, as long as neither
    /// is subnormal, infinite or NaN.
    fn add_exponent(self, value: Self::Lanes, count: Self::Lanes) -> Self::Lanes;

    /// The sum of all lanes: `i` and `i + 8`, of those `i` and `i + 4`, then `i + 2`, then `i + 1`.
    fn sum(self, lanes: Self::Lanes) -> f32;

    /// Up to sixteen numbers from memory, then zeros.
    #[inline(always)]
    fn load_part(self, from: &[f32]) -> Self::Lanes {
        let mut whole = [0.0; LANES];
        whole[..from.len()].copy_from_slice(from);
        self.load(&whole)
    }

    /// The first lanes, as many as there is room for.
    #[inline(always)]
    fn store_part(self, lanes: Self::Lanes, to: &mut [f32]) {
        let mut whole = [0.0; LANES];
        self.store(lanes, &mut whole);
        to.copy_from_slice(&whole[..to.len()]);
    }
}

/// A number as it lies in memory, sixteen of which widen to lanes.
pub(crate) trait Element: Copy + std::fmt::Debug + Send + Sync + 'static {
    /// What untouched memory holds.
    const ZERO: Self;

    /// Sixteen of them, widened exactly.
    fn widen<S: Simd>(simd: S, from: &[Self; LANES]) -> S::Lanes;
}

impl Element for f32 {
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn widen<S: Simd>(simd: S, from: &[Self; LANES]) -> S::Lanes {
        simd.load(from)
    }
}

/// The bits of a half-precision number.
impl Element for u16 {
    const ZERO: Self = 0;

    #[inline(always)]
    fn widen<S: Simd>(simd: S, from: &[Self; LANES]) -> S::Lanes {
        simd.load_half(from)
    }
}

/// The upper half of a single-precision number: a `bfloat16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Upper(pub(crate) u16);

impl Element for Upper {
    const ZERO: Self = Self(0);

    #[inline(always)]
    fn widen<S: Simd>(simd: S, from: &[Self; LANES]) -> S::Lanes {
        simd.load_upper(&from.map(|Self(bits)| bits))
    }
}

impl Element for i8 {
    const ZERO: Self = 0;

    #[inline(always)]
    fn widen<S: Simd>(simd: S, from: &[Self; LANES]) -> S::Lanes {
        simd.load_bytes(from)
    }
}

/// A computation written once for all instruction sets.
pub(crate) trait Kernel {
    /// What it gives back.
    type Output;

    /// Does it. Implementations are `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs a kernel, compiled for this instruction set.
pub(crate) fn run<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    match isa.kind() {
        // SAFETY: an `Isa` of this kind exists only where detection found its features.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => unsafe { avx2::run(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => unsafe { avx512::run(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Kind::Neon => unsafe { neon::run(kernel) },
        _ => scalar::run(kernel),
    }
}

/// A function of one number, in sixteen lanes.
pub(crate) trait Function: Copy {
    /// Its values.
    fn apply<S: Simd>(self, simd: S, xs: S::Lanes) -> S::Lanes;
}

/// Replaces each number by the function's value.
pub(crate) struct Map<'a, F>(pub(crate) F, pub(crate) &'a mut [f32]);

impl<F: Function> Kernel for Map<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self(function, numbers) = self;
        let (blocks, rest) = numbers.as_chunks_mut::<LANES>();
        for block in blocks {
            let values = function.apply(simd, simd.load(block));
            simd.store(values, block);
        }
        if !rest.is_empty() {
            let values = function.apply(simd, simd.load_part(rest));
            simd.store_part(values, rest);
        }
    }
}

#[cfg(test)]
mod tests;
