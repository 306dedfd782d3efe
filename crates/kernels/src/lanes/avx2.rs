//! Sixteen lanes in two 256-bit registers.
//!
//! JUSTIFICATION: intrinsics. Each is a pure function of registers, or reads or writes
//! one whole array through a reference; what it needs is AVX2 and F16C, which an [`Avx2`] proves.

#![expect(clippy::cast_ptr_alignment, reason = "these loads ask for no alignment")]

use std::arch::x86_64::{
    __m128i, __m256, _CMP_LT_OQ, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_loadl_epi64,
    _mm_loadu_si128, _mm_movehl_ps, _mm_shuffle_ps, _mm256_add_epi32, _mm256_add_ps, _mm256_and_ps,
    _mm256_andnot_ps, _mm256_blendv_ps, _mm256_castps_si256, _mm256_castps256_ps128,
    _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps,
    _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_div_ps, _mm256_extractf128_ps, _mm256_loadu_ps,
    _mm256_max_ps, _mm256_mul_ps, _mm256_or_ps, _mm256_set1_ps, _mm256_slli_epi32,
    _mm256_storeu_ps, _mm256_sub_ps,
};

use super::{Kernel, LANES, Simd};

/// Proof of AVX2 and F16C: [`run`] and [`run_apart`] alone make one.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

/// Lanes 0 to 7, and 8 to 15.
type Pair = [__m256; 2];

/// Runs a kernel, compiled for AVX2.
///
/// # Safety
///
/// The machine has AVX2 and F16C.
#[target_feature(enable = "avx2,f16c")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

/// Runs a kernel as a function of its own.
///
/// # Safety
///
/// The machine has AVX2 and F16C.
#[inline(never)]
#[target_feature(enable = "avx2,f16c")]
unsafe fn run_apart<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

/// `function(a, b)` for both registers.
macro_rules! both {
    ($function:ident, $a:expr, $b:expr) => {{
        let (a, b): (Pair, Pair) = ($a, $b);
        // SAFETY: a function of registers, and `self` proves its instruction set.
        unsafe { [$function(a[0], b[0]), $function(a[1], b[1])] }
    }};
}

/// Eight lanes of `add_exponent`.
///
/// # Safety
///
/// The machine has AVX2.
#[inline(always)]
unsafe fn with_exponent(value: __m256, count: __m256) -> __m256 {
    // SAFETY: functions of registers, and the caller vouches for the instruction set.
    unsafe {
        let count = _mm256_slli_epi32::<23>(_mm256_castps_si256(count));
        _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(value), count))
    }
}

impl Simd for Avx2 {
    type Lanes = Pair;

    // Twelve of the sixteen registers; two hold a row's lanes, one a factor, one a product.
    const SUMS: usize = 6;

    #[inline(always)]
    fn apart<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves the instruction set.
        unsafe { run_apart(kernel) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Pair {
        // SAFETY: a function of a number, and `self` proves its instruction set.
        let register = unsafe { _mm256_set1_ps(value) };
        [register, register]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Pair {
        let from = from.as_ptr();
        // SAFETY: eight and eight of the sixteen numbers are read; no alignment is asked for.
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }

    #[inline(always)]
    fn load_half(self, from: &[u16; LANES]) -> Pair {
        let from = from.as_ptr();
        // SAFETY: eight and eight of the sixteen numbers are read; no alignment is asked for.
        unsafe {
            let low = _mm_loadu_si128(from.cast::<__m128i>());
            let high = _mm_loadu_si128(from.add(8).cast::<__m128i>());
            [_mm256_cvtph_ps(low), _mm256_cvtph_ps(high)]
        }
    }

    #[inline(always)]
    fn load_upper(self, from: &[u16; LANES]) -> Pair {
        let from = from.as_ptr();
        // SAFETY: eight and eight of the sixteen numbers are read; no alignment is asked for.
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast::<__m128i>()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(8).cast::<__m128i>()));
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            ]
        }
    }

    #[inline(always)]
    fn load_bytes(self, from: &[i8; LANES]) -> Pair {
        let from = from.as_ptr();
        // SAFETY: eight and eight of the sixteen numbers are read; no alignment is asked for.
        unsafe {
            let low = _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast::<__m128i>()));
            let high = _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.add(8).cast::<__m128i>()));
            [_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)]
        }
    }

    #[inline(always)]
    fn store(self, lanes: Pair, to: &mut [f32; LANES]) {
        let to = to.as_mut_ptr();
        // SAFETY: eight and eight of the sixteen numbers are written; no alignment is asked for.
        unsafe {
            _mm256_storeu_ps(to, lanes[0]);
            _mm256_storeu_ps(to.add(8), lanes[1]);
        }
    }

    #[inline(always)]
    fn add(self, a: Pair, b: Pair) -> Pair {
        both!(_mm256_add_ps, a, b)
    }

    #[inline(always)]
    fn sub(self, a: Pair, b: Pair) -> Pair {
        both!(_mm256_sub_ps, a, b)
    }

    #[inline(always)]
    fn mul(self, a: Pair, b: Pair) -> Pair {
        both!(_mm256_mul_ps, a, b)
    }

    /// Rounded once: see `matrix/avx2/free.rs`.
    #[cfg(free_order)]
    #[inline(always)]
    fn add_product(self, sum: Pair, a: Pair, b: Pair) -> Pair {
        use std::arch::x86_64::_mm256_fmadd_ps as fused;
        // SAFETY: functions of registers, and a build in free order is for machines that fuse.
        unsafe { [fused(a[0], b[0], sum[0]), fused(a[1], b[1], sum[1])] }
    }

    #[inline(always)]
    fn div(self, a: Pair, b: Pair) -> Pair {
        both!(_mm256_div_ps, a, b)
    }

    #[inline(always)]
    fn select_less(self, (a, b): (Pair, Pair), yes: Pair, no: Pair) -> Pair {
        // SAFETY: functions of registers, and `self` proves their instruction set.
        unsafe {
            let low = _mm256_cmp_ps::<_CMP_LT_OQ>(a[0], b[0]);
            let high = _mm256_cmp_ps::<_CMP_LT_OQ>(a[1], b[1]);
            [_mm256_blendv_ps(no[0], yes[0], low), _mm256_blendv_ps(no[1], yes[1], high)]
        }
    }

    #[inline(always)]
    fn max(self, a: Pair, b: Pair) -> Pair {
        both!(_mm256_max_ps, a, b)
    }

    #[inline(always)]
    fn copy_sign(self, magnitude: Pair, sign: Pair) -> Pair {
        let mask = self.splat(-0.0);
        both!(
            _mm256_or_ps,
            both!(_mm256_andnot_ps, mask, magnitude),
            both!(_mm256_and_ps, mask, sign)
        )
    }

    #[inline(always)]
    fn add_exponent(self, value: Pair, count: Pair) -> Pair {
        both!(with_exponent, value, count)
    }

    #[inline(always)]
    fn sum(self, lanes: Pair) -> f32 {
        // SAFETY: functions of registers, and `self` proves their instruction set.
        unsafe {
            let eight = _mm256_add_ps(lanes[0], lanes[1]);
            let high = _mm256_extractf128_ps::<1>(eight);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), high);
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}
