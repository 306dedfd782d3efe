//! Sixteen lanes in one 512-bit register.
//!
//! JUSTIFICATION: intrinsics. Each is a pure function of registers, or reads or writes
//! one whole array through a reference; what it needs is AVX-512 F, which an [`Avx512`] proves.

#![cfg_attr(
    emulated_avx512,
    allow(unused_unsafe, clippy::used_underscore_items, reason = "what is emulated is safe")
)]
#![expect(clippy::cast_ptr_alignment, reason = "these loads ask for no alignment")]

use crate::intrinsics::{
    __m128i, __m256i, __m512, _CMP_LT_OQ, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_loadu_si128,
    _mm_movehl_ps, _mm_shuffle_ps, _mm256_add_ps, _mm256_castpd_ps, _mm256_castps256_ps128,
    _mm256_extractf128_ps, _mm256_loadu_si256, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512,
    _mm512_andnot_si512, _mm512_castps_pd, _mm512_castps_si512, _mm512_castps512_ps256,
    _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps,
    _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_div_ps, _mm512_extractf64x4_pd, _mm512_loadu_ps,
    _mm512_mask_blend_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_or_si512, _mm512_set1_ps,
    _mm512_slli_epi32, _mm512_storeu_ps, _mm512_sub_ps,
};

use super::{Kernel, LANES, Simd};

/// Proof of AVX-512 F: [`run`] and [`run_apart`] alone make one.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

/// Runs a kernel, compiled for AVX-512.
///
/// # Safety
///
/// The machine has AVX2, F16C and AVX-512 F, BW and VL.
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl"))]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512(()))
}

/// Runs a kernel as a function of its own.
///
/// # Safety
///
/// The machine has AVX2, F16C and AVX-512 F, BW and VL.
#[inline(never)]
#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl"))]
unsafe fn run_apart<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512(()))
}

impl Simd for Avx512 {
    type Lanes = __m512;

    // Of thirty-two registers: two for each query of a usual group of eight, and two a row.
    const SUMS: usize = 18;

    #[inline(always)]
    fn apart<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves the instruction set.
        unsafe { run_apart(kernel) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        // SAFETY: a function of a number, and `self` proves its instruction set.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> __m512 {
        // SAFETY: the sixteen numbers are read; no alignment is asked for.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn load_half(self, from: &[u16; LANES]) -> __m512 {
        // SAFETY: the sixteen numbers are read; no alignment is asked for.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast::<__m256i>())) }
    }

    #[inline(always)]
    fn load_upper(self, from: &[u16; LANES]) -> __m512 {
        // SAFETY: the sixteen numbers are read; no alignment is asked for.
        unsafe {
            let halves = _mm256_loadu_si256(from.as_ptr().cast::<__m256i>());
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
        }
    }

    #[inline(always)]
    fn load_bytes(self, from: &[i8; LANES]) -> __m512 {
        // SAFETY: the sixteen numbers are read; no alignment is asked for.
        unsafe {
            let bytes = _mm_loadu_si128(from.as_ptr().cast::<__m128i>());
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))
        }
    }

    #[inline(always)]
    fn store(self, lanes: __m512, to: &mut [f32; LANES]) {
        // SAFETY: the sixteen numbers are written; no alignment is asked for.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), lanes) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: a function of registers, and `self` proves its instruction set.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: a function of registers, and `self` proves its instruction set.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: a function of registers, and `self` proves its instruction set.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: a function of registers, and `self` proves its instruction set.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn select_less(self, (a, b): (__m512, __m512), yes: __m512, no: __m512) -> __m512 {
        // SAFETY: functions of registers, and `self` proves their instruction set.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: a function of registers, and `self` proves its instruction set.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn copy_sign(self, magnitude: __m512, sign: __m512) -> __m512 {
        // SAFETY: functions of registers, and `self` proves their instruction set.
        unsafe {
            let mask = _mm512_castps_si512(_mm512_set1_ps(-0.0));
            let magnitude = _mm512_andnot_si512(mask, _mm512_castps_si512(magnitude));
            let sign = _mm512_and_si512(mask, _mm512_castps_si512(sign));
            _mm512_castsi512_ps(_mm512_or_si512(magnitude, sign))
        }
    }

    #[inline(always)]
    fn add_exponent(self, value: __m512, count: __m512) -> __m512 {
        // SAFETY: functions of registers, and `self` proves their instruction set.
        unsafe {
            let count = _mm512_slli_epi32::<23>(_mm512_castps_si512(count));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(value), count))
        }
    }

    #[inline(always)]
    fn sum(self, lanes: __m512) -> f32 {
        // SAFETY: functions of registers, and `self` proves their instruction set.
        unsafe {
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(lanes)));
            let eight = _mm256_add_ps(_mm512_castps512_ps256(lanes), high);
            let high = _mm256_extractf128_ps::<1>(eight);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), high);
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}
