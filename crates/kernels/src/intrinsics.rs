//! The 512-bit intrinsics that the kernels use, in plain Rust: they stand in for the processor's
//! where a test build asks for it, so that the AVX-512 kernels are tested on machines without it.
//!
//! ```text
//! cargo rustc --package commons-kernels --lib --profile test -- --cfg emulated_avx512
//! ```
//!
//! That builds the tests; the step `emulation` of `cargo xtask test` runs them too. There
//! `Isa::available()` has AVX-512 wherever there is AVX2, and the kernels are the same source as
//! ever, but compiled for no more than the baseline: no function enables a feature of AVX-512. A
//! function here has the name and the parameters of the one in `std::arch::x86_64`, and does what
//! the "Operation" part of its page in Intel's Intrinsics Guide says. Lane 0 is the first in
//! memory. What the kernels use of narrower registers is the processor's own. Nothing is inlined:
//! that only makes the build longer.
//!
//! # Invariants
//!
//! * What is not listed here cannot be used by a kernel: such a build does not compile.
//! * Every function is compared with the 256-bit instruction of the same kind on both halves, or
//!   with instructions that compute the same in more steps.
//!
//! Not here: rounding modes, masks and predicates that no kernel uses; speed.
//!
//! JUSTIFICATION: loads and stores take pointers, and what moves between these types
//! and the processor's are bits of equal size.
#![expect(unsafe_code, reason = "loads and stores take pointers")]
#![expect(non_camel_case_types, reason = "these are Intel's names")]
#![allow(clippy::used_underscore_items, reason = "these are Intel's names")]

use std::array::from_fn;
use std::mem::transmute;

pub(crate) use std::arch::x86_64::{
    __m128i, __m256, __m256d, __m256i, __mmask16, _CMP_LT_OQ, _mm_add_ps, _mm_add_ss,
    _mm_cvtss_f32, _mm_loadu_si128, _mm_movehl_ps, _mm_shuffle_ps, _mm256_add_ps, _mm256_castpd_ps,
    _mm256_castps256_ps128, _mm256_extractf128_ps, _mm256_loadu_si256,
};

/// Integers of any width.
#[derive(Clone, Copy, Debug)]
pub(crate) struct __m512i([u8; 64]);

/// Sixteen 32-bit floating-point numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct __m512([f32; 16]);

/// The bits of eight 64-bit floating-point numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct __m512d([u8; 64]);

impl __m512i {
    fn words(self) -> [i16; 32] {
        let bytes = self.0.as_chunks().0;
        from_fn(|lane| i16::from_le_bytes(bytes[lane]))
    }

    fn dwords(self) -> [i32; 16] {
        let bytes = self.0.as_chunks().0;
        from_fn(|lane| i32::from_le_bytes(bytes[lane]))
    }

    fn of_words(words: [i16; 32]) -> Self {
        Self(from_fn(|at| words[at / 2].to_le_bytes()[at % 2]))
    }

    fn of_dwords(dwords: [i32; 16]) -> Self {
        Self(from_fn(|at| dwords[at / 4].to_le_bytes()[at % 4]))
    }
}

// From and to memory.

/// # Safety
///
/// 64 bytes can be read there.
#[inline(never)]
pub(crate) unsafe fn _mm512_loadu_si512(from: *const __m512i) -> __m512i {
    // SAFETY: the caller says so, and any bits are a value.
    unsafe { from.read_unaligned() }
}

/// # Safety
///
/// 16 numbers can be read there.
#[inline(never)]
pub(crate) unsafe fn _mm512_loadu_ps(from: *const f32) -> __m512 {
    // SAFETY: the caller says so.
    __m512(unsafe { from.cast::<[f32; 16]>().read_unaligned() })
}

/// # Safety
///
/// 16 numbers can be written there.
#[inline(never)]
pub(crate) unsafe fn _mm512_storeu_ps(to: *mut f32, a: __m512) {
    // SAFETY: the caller says so.
    unsafe { to.cast::<[f32; 16]>().write_unaligned(a.0) }
}

// The same in every lane.

#[inline(never)]
pub(crate) fn _mm512_setzero_si512() -> __m512i {
    __m512i([0; 64])
}

#[inline(never)]
pub(crate) fn _mm512_setzero_ps() -> __m512 {
    __m512([0.0; 16])
}

#[inline(never)]
pub(crate) fn _mm512_set1_epi8(a: i8) -> __m512i {
    __m512i([a.cast_unsigned(); 64])
}

#[inline(never)]
pub(crate) fn _mm512_set1_epi32(a: i32) -> __m512i {
    __m512i::of_dwords([a; 16])
}

#[inline(never)]
pub(crate) fn _mm512_set1_ps(a: f32) -> __m512 {
    __m512([a; 16])
}

/// Narrow, and here only because the processor's is no safe call in a function that is not
/// compiled for it.
#[inline(never)]
pub(crate) fn _mm_setr_epi32(a: i32, b: i32, c: i32, d: i32) -> __m128i {
    // SAFETY: both are 16 bytes, and any bits are a value.
    unsafe { transmute([a, b, c, d]) }
}

#[inline(never)]
pub(crate) fn _mm512_broadcast_i32x4(a: __m128i) -> __m512i {
    // SAFETY: both are 16 bytes, and any bits are a value.
    let bytes: [u8; 16] = unsafe { transmute(a) };
    __m512i(from_fn(|at| bytes[at % 16]))
}

// The same bits as another type, or a part of them.

#[inline(never)]
pub(crate) fn _mm512_castps_si512(a: __m512) -> __m512i {
    __m512i::of_dwords(a.0.map(|number| number.to_bits().cast_signed()))
}

#[inline(never)]
pub(crate) fn _mm512_castsi512_ps(a: __m512i) -> __m512 {
    __m512(a.dwords().map(|bits| f32::from_bits(bits.cast_unsigned())))
}

#[inline(never)]
pub(crate) fn _mm512_castps_pd(a: __m512) -> __m512d {
    __m512d(_mm512_castps_si512(a).0)
}

/// The lower half.
#[inline(never)]
pub(crate) fn _mm512_castps512_ps256(a: __m512) -> __m256 {
    let lower: [f32; 8] = from_fn(|lane| a.0[lane]);
    // SAFETY: both are 32 bytes, and any bits are a value.
    unsafe { transmute(lower) }
}

/// One half.
#[inline(never)]
pub(crate) fn _mm512_extractf64x4_pd<const HALF: i32>(a: __m512d) -> __m256d {
    let half = if HALF & 1 == 0 { 0 } else { 32 };
    let bytes: [u8; 32] = from_fn(|at| a.0[half + at]);
    // SAFETY: both are 32 bytes, and any bits are a value.
    unsafe { transmute(bytes) }
}

// Bits.

#[inline(never)]
pub(crate) fn _mm512_and_si512(a: __m512i, b: __m512i) -> __m512i {
    __m512i(from_fn(|at| a.0[at] & b.0[at]))
}

/// `!a & b`
#[inline(never)]
pub(crate) fn _mm512_andnot_si512(a: __m512i, b: __m512i) -> __m512i {
    __m512i(from_fn(|at| !a.0[at] & b.0[at]))
}

#[inline(never)]
pub(crate) fn _mm512_or_si512(a: __m512i, b: __m512i) -> __m512i {
    __m512i(from_fn(|at| a.0[at] | b.0[at]))
}

#[inline(never)]
pub(crate) fn _mm512_xor_si512(a: __m512i, b: __m512i) -> __m512i {
    __m512i(from_fn(|at| a.0[at] ^ b.0[at]))
}

/// In each 16 bytes: the one of these that the low four bits of `b` say, or zero where the highest
/// bit is set.
#[inline(never)]
pub(crate) fn _mm512_shuffle_epi8(a: __m512i, b: __m512i) -> __m512i {
    __m512i(from_fn(|at| {
        let index = b.0[at];
        if index & 0x80 == 0 { a.0[at / 16 * 16 + usize::from(index & 15)] } else { 0 }
    }))
}

// Shifts: of as many bits as there are or more, they leave zeros or, arithmetic ones, signs.

#[inline(never)]
pub(crate) fn _mm512_slli_epi16<const COUNT: u32>(a: __m512i) -> __m512i {
    let shift = |word: i16| word.cast_unsigned().checked_shl(COUNT).unwrap_or(0).cast_signed();
    __m512i::of_words(a.words().map(shift))
}

#[inline(never)]
pub(crate) fn _mm512_srli_epi16<const COUNT: u32>(a: __m512i) -> __m512i {
    let shift = |word: i16| word.cast_unsigned().checked_shr(COUNT).unwrap_or(0).cast_signed();
    __m512i::of_words(a.words().map(shift))
}

#[inline(never)]
pub(crate) fn _mm512_srai_epi16<const COUNT: u32>(a: __m512i) -> __m512i {
    __m512i::of_words(a.words().map(|word| word >> COUNT.min(15)))
}

#[inline(never)]
pub(crate) fn _mm512_slli_epi32<const COUNT: u32>(a: __m512i) -> __m512i {
    let shift = |dword: i32| dword.cast_unsigned().checked_shl(COUNT).unwrap_or(0).cast_signed();
    __m512i::of_dwords(a.dwords().map(shift))
}

#[inline(never)]
pub(crate) fn _mm512_srai_epi32<const COUNT: u32>(a: __m512i) -> __m512i {
    __m512i::of_dwords(a.dwords().map(|dword| dword >> COUNT.min(31)))
}

// Integer arithmetic: what is too large wraps.

#[inline(never)]
pub(crate) fn _mm512_add_epi32(a: __m512i, b: __m512i) -> __m512i {
    let (a, b) = (a.dwords(), b.dwords());
    __m512i::of_dwords(from_fn(|lane| a[lane].wrapping_add(b[lane])))
}

#[inline(never)]
pub(crate) fn _mm512_sub_epi32(a: __m512i, b: __m512i) -> __m512i {
    let (a, b) = (a.dwords(), b.dwords());
    __m512i::of_dwords(from_fn(|lane| a[lane].wrapping_sub(b[lane])))
}

/// The lower half of each product.
#[inline(never)]
pub(crate) fn _mm512_mullo_epi32(a: __m512i, b: __m512i) -> __m512i {
    let (a, b) = (a.dwords(), b.dwords());
    __m512i::of_dwords(from_fn(|lane| a[lane].wrapping_mul(b[lane])))
}

/// The sum of two neighbouring products of 16-bit numbers.
#[inline(never)]
pub(crate) fn _mm512_madd_epi16(a: __m512i, b: __m512i) -> __m512i {
    let (a, b) = (a.words(), b.words());
    let product = |at: usize| i32::from(a[at]) * i32::from(b[at]);
    __m512i::of_dwords(from_fn(|lane| product(2 * lane).wrapping_add(product(2 * lane + 1))))
}

/// Adds four neighbouring products of an unsigned byte of `a` and a signed one of `b`. No product
/// saturates, nor does their sum.
#[inline(never)]
pub(crate) fn _mm512_dpbusd_epi32(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
    let product = |at: usize| i32::from(a.0[at]) * i32::from(b.0[at].cast_signed());
    let four = |lane: usize| (4 * lane..4 * lane + 4).map(product).sum::<i32>();
    let sums = sum.dwords();
    __m512i::of_dwords(from_fn(|lane| sums[lane].wrapping_add(four(lane))))
}

// Conversions.

#[inline(never)]
pub(crate) fn _mm512_cvtepi8_epi32(a: __m128i) -> __m512i {
    // SAFETY: both are 16 bytes, and any bits are a value.
    let bytes: [i8; 16] = unsafe { transmute(a) };
    __m512i::of_dwords(bytes.map(i32::from))
}

#[inline(never)]
pub(crate) fn _mm512_cvtepu16_epi32(a: __m256i) -> __m512i {
    // SAFETY: both are 32 bytes, and any bits are a value.
    let words: [u16; 16] = unsafe { transmute(a) };
    __m512i::of_dwords(words.map(i32::from))
}

/// Rounded to nearest, ties to even.
#[inline(never)]
pub(crate) fn _mm512_cvtepi32_ps(a: __m512i) -> __m512 {
    #[expect(clippy::cast_precision_loss, reason = "rounding is what is meant")]
    let convert = |dword| dword as f32;
    __m512(a.dwords().map(convert))
}

/// Exact, also of subnormal numbers; a NaN keeps its payload and becomes quiet.
#[inline(never)]
pub(crate) fn _mm512_cvtph_ps(a: __m256i) -> __m512 {
    // SAFETY: both are 32 bytes, and any bits are a value.
    let halves: [u16; 16] = unsafe { transmute(a) };
    __m512(halves.map(|half| {
        let (sign, exponent) = (u32::from(half >> 15) << 31, u32::from(half >> 10 & 31));
        let fraction = u32::from(half & 0x3ff) << 13;
        match exponent {
            // Units of 2^-24. A product with a power of two is exact.
            0 => f32::from(half & 0x3ff).copysign(f32::from_bits(sign | 1)) / 16_777_216.0,
            31 if fraction == 0 => f32::from_bits(sign | 0xff << 23),
            31 => f32::from_bits(sign | 0x1ff << 22 | fraction),
            _ => f32::from_bits(sign | (exponent + 127 - 15) << 23 | fraction),
        }
    }))
}

// Floating-point arithmetic: IEEE, rounded to nearest, ties to even.

#[inline(never)]
pub(crate) fn _mm512_add_ps(a: __m512, b: __m512) -> __m512 {
    __m512(from_fn(|lane| a.0[lane] + b.0[lane]))
}

#[inline(never)]
pub(crate) fn _mm512_sub_ps(a: __m512, b: __m512) -> __m512 {
    __m512(from_fn(|lane| a.0[lane] - b.0[lane]))
}

#[inline(never)]
pub(crate) fn _mm512_mul_ps(a: __m512, b: __m512) -> __m512 {
    __m512(from_fn(|lane| a.0[lane] * b.0[lane]))
}

#[inline(never)]
pub(crate) fn _mm512_div_ps(a: __m512, b: __m512) -> __m512 {
    __m512(from_fn(|lane| a.0[lane] / b.0[lane]))
}

/// `b` where one is NaN or both are zero.
#[inline(never)]
pub(crate) fn _mm512_max_ps(a: __m512, b: __m512) -> __m512 {
    __m512(from_fn(|lane| if a.0[lane] > b.0[lane] { a.0[lane] } else { b.0[lane] }))
}

/// Bit `i` is set where lane `i` of `a` is less: not where one is NaN.
#[inline(never)]
pub(crate) fn _mm512_cmp_ps_mask<const PREDICATE: i32>(a: __m512, b: __m512) -> __mmask16 {
    const { assert!(PREDICATE == _CMP_LT_OQ, "the one predicate that kernels use") };
    (0..16).fold(0, |mask, lane| mask | u16::from(a.0[lane] < b.0[lane]) << lane)
}

/// `b` where the mask has a bit; `a` elsewhere.
#[inline(never)]
pub(crate) fn _mm512_mask_blend_ps(mask: __mmask16, a: __m512, b: __m512) -> __m512 {
    __m512(from_fn(|lane| if mask >> lane & 1 == 1 { b.0[lane] } else { a.0[lane] }))
}

#[cfg(test)]
mod tests;
