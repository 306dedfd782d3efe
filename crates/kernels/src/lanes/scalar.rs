//! Sixteen lanes in plain Rust: what the other instruction sets must compute.

use half::f16;

use super::{Kernel, LANES, Simd};

/// Plain Rust, which every machine has.
#[derive(Clone, Copy)]
pub(super) struct Scalar;

/// Runs a kernel in plain Rust.
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Scalar)
}

#[inline(always)]
fn each(mut function: impl FnMut(usize) -> f32) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    for (index, lane) in lanes.iter_mut().enumerate() {
        *lane = function(index);
    }
    lanes
}

impl Simd for Scalar {
    type Lanes = [f32; LANES];

    const SUMS: usize = 2;

    #[inline(never)]
    fn apart<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Lanes {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::Lanes {
        *from
    }

    #[inline(always)]
    fn load_half(self, from: &[u16; LANES]) -> Self::Lanes {
        each(|i| f16::from_bits(from[i]).to_f32_const())
    }

    #[inline(always)]
    fn load_upper(self, from: &[u16; LANES]) -> Self::Lanes {
        each(|i| f32::from_bits(u32::from(from[i]) << 16))
    }

    #[inline(always)]
    fn load_bytes(self, from: &[i8; LANES]) -> Self::Lanes {
        each(|i| f32::from(from[i]))
    }

    #[inline(always)]
    fn store(self, lanes: Self::Lanes, to: &mut [f32; LANES]) {
        *to = lanes;
    }

    #[inline(always)]
    fn add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        each(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        each(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        each(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        each(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn select_less(
        self,
        (a, b): (Self::Lanes, Self::Lanes),
        yes: Self::Lanes,
        no: Self::Lanes,
    ) -> Self::Lanes {
        each(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }

    #[inline(always)]
    fn max(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn copy_sign(self, magnitude: Self::Lanes, sign: Self::Lanes) -> Self::Lanes {
        each(|i| magnitude[i].copysign(sign[i]))
    }

    #[inline(always)]
    fn add_exponent(self, value: Self::Lanes, count: Self::Lanes) -> Self::Lanes {
        each(|i| f32::from_bits(value[i].to_bits().wrapping_add(count[i].to_bits() << 23)))
    }

    #[inline(always)]
    fn sum(self, mut lanes: Self::Lanes) -> f32 {
        for half in [8, 4, 2, 1] {
            for index in 0..half {
                lanes[index] += lanes[index + half];
            }
        }
        lanes[0]
    }
}
