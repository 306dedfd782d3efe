//! Sixteen lanes in four 128-bit registers.
//!
//! Half-precision numbers are widened with integer operations: the intrinsics for them are young.
//!
//! JUSTIFICATION: intrinsics. Each is a pure function of registers, or reads or writes
//! one whole array through a reference; what it needs is NEON, which a [`Neon`] proves.

use std::arch::aarch64::{
    float32x4_t, int16x4_t, int16x8_t, uint16x4_t, uint32x4_t, vaddq_f32, vaddq_u32, vandq_u32,
    vbslq_f32, vcgtq_f32, vcgtq_u32, vcltq_f32, vcvtq_f32_s32, vdivq_f32, vdupq_n_f32, vdupq_n_u32,
    vget_high_s16, vget_low_s8, vget_low_s16, vgetq_lane_f32, vld1_u16, vld1q_f32, vld1q_s8,
    vmovl_high_s8, vmovl_s8, vmovl_s16, vmovl_u16, vmulq_f32, vorrq_u32, vreinterpretq_f32_u32,
    vreinterpretq_u32_f32, vshlq_n_u32, vst1q_f32, vsubq_f32,
};

use super::{Kernel, LANES, Simd};

/// Proof of NEON: [`run`] and [`run_apart`] alone make one.
#[derive(Clone, Copy)]
pub(super) struct Neon(());

/// Lanes 0 to 3, 4 to 7, 8 to 11 and 12 to 15.
type Quad = [float32x4_t; 4];

/// Runs a kernel, compiled for NEON.
///
/// # Safety
///
/// The machine has NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Neon(()))
}

/// Runs a kernel as a function of its own.
///
/// # Safety
///
/// The machine has NEON.
#[inline(never)]
#[target_feature(enable = "neon")]
unsafe fn run_apart<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Neon(()))
}

/// `function(a, b)` for all four registers.
macro_rules! all {
    ($function:ident, $a:expr, $b:expr) => {{
        let (a, b): (Quad, Quad) = ($a, $b);
        // SAFETY: a function of registers, and `self` proves its instruction set.
        unsafe {
            [
                $function(a[0], b[0]),
                $function(a[1], b[1]),
                $function(a[2], b[2]),
                $function(a[3], b[3]),
            ]
        }
    }};
}

/// Four half-precision numbers, widened: the exponent moves by 112, and subnormal numbers find
/// their place because the product is exact.
///
/// # Safety
///
/// The machine has NEON.
#[inline(always)]
unsafe fn widen_half(halves: uint16x4_t) -> float32x4_t {
    // SAFETY: functions of registers, and the caller vouches for the instruction set.
    unsafe {
        let bits: uint32x4_t = vmovl_u16(halves);
        let sign = vshlq_n_u32::<16>(vandq_u32(bits, vdupq_n_u32(0x8000)));
        let magnitude = vandq_u32(bits, vdupq_n_u32(0x7fff));
        let shifted = vreinterpretq_f32_u32(vshlq_n_u32::<13>(magnitude));
        // 2^112 as bits: exponent 112 + 127.
        let power = vreinterpretq_f32_u32(vdupq_n_u32((112 + 127) << 23));
        let finite = vreinterpretq_u32_f32(vmulq_f32(shifted, power));
        // Infinity and NaN keep an exponent of ones.
        let special = vcgtq_u32(magnitude, vdupq_n_u32(0x7bff));
        let ones = vandq_u32(special, vdupq_n_u32(0x7f80_0000));
        vreinterpretq_f32_u32(vorrq_u32(sign, vorrq_u32(finite, ones)))
    }
}

/// Four upper halves of single-precision numbers, widened.
///
/// # Safety
///
/// The machine has NEON.
#[inline(always)]
unsafe fn widen_upper(halves: uint16x4_t) -> float32x4_t {
    // SAFETY: functions of registers, and the caller vouches for the instruction set.
    unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(halves))) }
}

/// Four short integers, widened.
///
/// # Safety
///
/// The machine has NEON.
#[inline(always)]
unsafe fn widen_short(shorts: int16x4_t) -> float32x4_t {
    // SAFETY: functions of registers, and the caller vouches for the instruction set.
    unsafe { vcvtq_f32_s32(vmovl_s16(shorts)) }
}

/// Four lanes of `select_less`.
///
/// # Safety
///
/// The machine has NEON.
#[inline(always)]
unsafe fn select(a: float32x4_t, b: float32x4_t, yes: float32x4_t, no: float32x4_t) -> float32x4_t {
    // SAFETY: functions of registers, and the caller vouches for the instruction set.
    unsafe { vbslq_f32(vcltq_f32(a, b), yes, no) }
}

/// Four lanes of `max`. The instruction of that name treats NaN otherwise.
///
/// # Safety
///
/// The machine has NEON.
#[inline(always)]
unsafe fn larger(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: functions of registers, and the caller vouches for the instruction set.
    unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
}

/// Four lanes of `copy_sign`.
///
/// # Safety
///
/// The machine has NEON.
#[inline(always)]
unsafe fn with_sign(magnitude: float32x4_t, sign: float32x4_t) -> float32x4_t {
    // SAFETY: functions of registers, and the caller vouches for the instruction set.
    unsafe { vbslq_f32(vdupq_n_u32(0x8000_0000), sign, magnitude) }
}

/// Four lanes of `add_exponent`.
///
/// # Safety
///
/// The machine has NEON.
#[inline(always)]
unsafe fn with_exponent(value: float32x4_t, count: float32x4_t) -> float32x4_t {
    // SAFETY: functions of registers, and the caller vouches for the instruction set.
    unsafe {
        let count = vshlq_n_u32::<23>(vreinterpretq_u32_f32(count));
        vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(value), count))
    }
}

impl Simd for Neon {
    type Lanes = Quad;

    // Twenty-four of the thirty-two registers; four hold a row's lanes, the rest factors.
    const SUMS: usize = 6;

    #[inline(always)]
    fn apart<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves the instruction set.
        unsafe { run_apart(kernel) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Quad {
        // SAFETY: a function of a number, and `self` proves its instruction set.
        let register = unsafe { vdupq_n_f32(value) };
        [register; 4]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Quad {
        let from = from.as_ptr();
        // SAFETY: four times four of the sixteen numbers are read.
        unsafe {
            [
                vld1q_f32(from),
                vld1q_f32(from.add(4)),
                vld1q_f32(from.add(8)),
                vld1q_f32(from.add(12)),
            ]
        }
    }

    #[inline(always)]
    fn load_half(self, from: &[u16; LANES]) -> Quad {
        let from = from.as_ptr();
        // SAFETY: four times four of the sixteen numbers are read; `self` proves NEON.
        unsafe {
            [
                widen_half(vld1_u16(from)),
                widen_half(vld1_u16(from.add(4))),
                widen_half(vld1_u16(from.add(8))),
                widen_half(vld1_u16(from.add(12))),
            ]
        }
    }

    #[inline(always)]
    fn load_upper(self, from: &[u16; LANES]) -> Quad {
        let from = from.as_ptr();
        // SAFETY: four times four of the sixteen numbers are read; `self` proves NEON.
        unsafe {
            [
                widen_upper(vld1_u16(from)),
                widen_upper(vld1_u16(from.add(4))),
                widen_upper(vld1_u16(from.add(8))),
                widen_upper(vld1_u16(from.add(12))),
            ]
        }
    }

    #[inline(always)]
    fn load_bytes(self, from: &[i8; LANES]) -> Quad {
        // SAFETY: the sixteen numbers are read; `self` proves NEON.
        unsafe {
            let bytes = vld1q_s8(from.as_ptr());
            let low: int16x8_t = vmovl_s8(vget_low_s8(bytes));
            let high: int16x8_t = vmovl_high_s8(bytes);
            [
                widen_short(vget_low_s16(low)),
                widen_short(vget_high_s16(low)),
                widen_short(vget_low_s16(high)),
                widen_short(vget_high_s16(high)),
            ]
        }
    }

    #[inline(always)]
    fn store(self, lanes: Quad, to: &mut [f32; LANES]) {
        let to = to.as_mut_ptr();
        // SAFETY: four times four of the sixteen numbers are written.
        unsafe {
            vst1q_f32(to, lanes[0]);
            vst1q_f32(to.add(4), lanes[1]);
            vst1q_f32(to.add(8), lanes[2]);
            vst1q_f32(to.add(12), lanes[3]);
        }
    }

    #[inline(always)]
    fn add(self, a: Quad, b: Quad) -> Quad {
        all!(vaddq_f32, a, b)
    }

    #[inline(always)]
    fn sub(self, a: Quad, b: Quad) -> Quad {
        all!(vsubq_f32, a, b)
    }

    #[inline(always)]
    fn mul(self, a: Quad, b: Quad) -> Quad {
        all!(vmulq_f32, a, b)
    }

    #[inline(always)]
    fn div(self, a: Quad, b: Quad) -> Quad {
        all!(vdivq_f32, a, b)
    }

    #[inline(always)]
    fn select_less(self, (a, b): (Quad, Quad), yes: Quad, no: Quad) -> Quad {
        // SAFETY: functions of registers, and `self` proves their instruction set.
        unsafe {
            [
                select(a[0], b[0], yes[0], no[0]),
                select(a[1], b[1], yes[1], no[1]),
                select(a[2], b[2], yes[2], no[2]),
                select(a[3], b[3], yes[3], no[3]),
            ]
        }
    }

    #[inline(always)]
    fn max(self, a: Quad, b: Quad) -> Quad {
        all!(larger, a, b)
    }

    #[inline(always)]
    fn copy_sign(self, magnitude: Quad, sign: Quad) -> Quad {
        all!(with_sign, magnitude, sign)
    }

    #[inline(always)]
    fn add_exponent(self, value: Quad, count: Quad) -> Quad {
        all!(with_exponent, value, count)
    }

    #[inline(always)]
    fn sum(self, lanes: Quad) -> f32 {
        // SAFETY: functions of registers, and `self` proves their instruction set.
        unsafe {
            let low = vaddq_f32(lanes[0], lanes[2]);
            let high = vaddq_f32(lanes[1], lanes[3]);
            let four = vaddq_f32(low, high);
            let even = vgetq_lane_f32::<0>(four) + vgetq_lane_f32::<2>(four);
            let odd = vgetq_lane_f32::<1>(four) + vgetq_lane_f32::<3>(four);
            even + odd
        }
    }
}
