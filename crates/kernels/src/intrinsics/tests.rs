//! The emulation against the processor: both halves of every operation, with AVX2.
//!
//! JUSTIFICATION: that is what AVX2 asks for, and each test sees to it that it is
//! there. Registers become bytes, which any of them are.

use std::arch::x86_64 as real;

use proptest::prelude::*;

use super::*;

type Bytes = [u8; 64];

fn floats(bytes: Bytes) -> __m512 {
    _mm512_castsi512_ps(__m512i(bytes))
}

fn bytes(a: __m512) -> Bytes {
    _mm512_castps_si512(a).0
}

fn halves(bytes: Bytes) -> [__m256i; 2] {
    // SAFETY: both are 64 bytes, and any bits are a value.
    unsafe { transmute(bytes) }
}

fn quarters(bytes: Bytes) -> [__m128i; 4] {
    // SAFETY: both are 64 bytes, and any bits are a value.
    unsafe { transmute(bytes) }
}

fn float_halves(bytes: Bytes) -> [__m256; 2] {
    // SAFETY: both are 64 bytes, and any bits are a value.
    unsafe { transmute(bytes) }
}

/// Two registers, one after the other.
fn whole<T: Copy>(halves: [T; 2]) -> Bytes {
    assert_eq!(size_of::<T>(), 32, "half a register");
    // SAFETY: both are 64 bytes, and the caller passes registers, of which any bits are a value.
    unsafe { std::mem::transmute_copy(&halves) }
}

/// All NaN become one: which of two operands a NaN is taken from is not specified.
fn same_nan(numbers: Bytes) -> Bytes {
    let one = |number: f32| if number.is_nan() { f32::NAN } else { number };
    bytes(__m512(floats(numbers).0.map(one)))
}

fn one(name: &str, a: Bytes, emulated: fn(__m512i) -> __m512i, avx2: impl Fn(__m256i) -> __m256i) {
    assert_eq!(emulated(__m512i(a)).0, whole(halves(a).map(avx2)), "{name}");
}

fn two(
    name: &str,
    (a, b): (Bytes, Bytes),
    emulated: fn(__m512i, __m512i) -> __m512i,
    avx2: impl Fn(__m256i, __m256i) -> __m256i,
) {
    let (halves_a, halves_b) = (halves(a), halves(b));
    let expected = whole([avx2(halves_a[0], halves_b[0]), avx2(halves_a[1], halves_b[1])]);
    assert_eq!(emulated(__m512i(a), __m512i(b)).0, expected, "{name}");
}

fn two_floats(
    name: &str,
    (a, b): (Bytes, Bytes),
    emulated: fn(__m512, __m512) -> __m512,
    avx2: impl Fn(__m256, __m256) -> __m256,
) {
    let (halves_a, halves_b) = (float_halves(a), float_halves(b));
    let expected = whole([avx2(halves_a[0], halves_b[0]), avx2(halves_a[1], halves_b[1])]);
    let got = bytes(emulated(floats(a), floats(b)));
    assert_eq!(same_nan(got), same_nan(expected), "{name}");
}

#[target_feature(enable = "avx2")]
fn compare_integers(a: Bytes, b: Bytes) {
    let ab = (a, b);
    two("and", ab, _mm512_and_si512, |a, b| real::_mm256_and_si256(a, b));
    two("andnot", ab, _mm512_andnot_si512, |a, b| real::_mm256_andnot_si256(a, b));
    two("or", ab, _mm512_or_si512, |a, b| real::_mm256_or_si256(a, b));
    two("xor", ab, _mm512_xor_si512, |a, b| real::_mm256_xor_si256(a, b));
    two("shuffle", ab, _mm512_shuffle_epi8, |a, b| real::_mm256_shuffle_epi8(a, b));
    two("add", ab, _mm512_add_epi32, |a, b| real::_mm256_add_epi32(a, b));
    two("sub", ab, _mm512_sub_epi32, |a, b| real::_mm256_sub_epi32(a, b));
    two("mullo", ab, _mm512_mullo_epi32, |a, b| real::_mm256_mullo_epi32(a, b));
    two("madd", ab, _mm512_madd_epi16, |a, b| real::_mm256_madd_epi16(a, b));
    compare_shifts::<0, 0>(a);
    compare_shifts::<2, 2>(a);
    compare_shifts::<4, 4>(a);
    compare_shifts::<8, 8>(a);
    compare_shifts::<15, 15>(a);
    compare_shifts::<16, 16>(a);
    compare_shifts::<23, 23>(a);
    compare_shifts::<31, 31>(a);
    compare_shifts::<32, 32>(a);
    compare_shifts::<255, 255>(a);
}

/// The count once as each of the types that they take.
#[target_feature(enable = "avx2")]
fn compare_shifts<const COUNT: u32, const AVX2: i32>(a: Bytes) {
    one("slli 16", a, _mm512_slli_epi16::<COUNT>, |a| real::_mm256_slli_epi16::<AVX2>(a));
    one("srli 16", a, _mm512_srli_epi16::<COUNT>, |a| real::_mm256_srli_epi16::<AVX2>(a));
    one("srai 16", a, _mm512_srai_epi16::<COUNT>, |a| real::_mm256_srai_epi16::<AVX2>(a));
    one("slli 32", a, _mm512_slli_epi32::<COUNT>, |a| real::_mm256_slli_epi32::<AVX2>(a));
    one("srai 32", a, _mm512_srai_epi32::<COUNT>, |a| real::_mm256_srai_epi32::<AVX2>(a));
}

#[target_feature(enable = "avx2,f16c")]
fn compare_floats(a: Bytes, b: Bytes) {
    let ab = (a, b);
    two_floats("add", ab, _mm512_add_ps, |a, b| real::_mm256_add_ps(a, b));
    two_floats("sub", ab, _mm512_sub_ps, |a, b| real::_mm256_sub_ps(a, b));
    two_floats("mul", ab, _mm512_mul_ps, |a, b| real::_mm256_mul_ps(a, b));
    two_floats("div", ab, _mm512_div_ps, |a, b| real::_mm256_div_ps(a, b));
    let largest = |a, b| real::_mm256_max_ps(a, b);
    two_floats("max", ab, _mm512_max_ps, largest);
    let (halves_a, halves_b) = (float_halves(a), float_halves(b));
    let expected = whole([0, 1].map(|half| largest(halves_a[half], halves_b[half])));
    assert_eq!(bytes(_mm512_max_ps(floats(a), floats(b))), expected, "max, also of NaN");

    let less = [0, 1].map(|half| real::_mm256_cmp_ps::<_CMP_LT_OQ>(halves_a[half], halves_b[half]));
    let [low, high] = less.map(|less| real::_mm256_movemask_ps(less));
    let mask = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(floats(a), floats(b));
    assert_eq!(i32::from(mask), high << 8 | low, "cmp");
    let expected =
        [0, 1].map(|half| real::_mm256_blendv_ps(halves_a[half], halves_b[half], less[half]));
    let blended = _mm512_mask_blend_ps(mask, floats(a), floats(b));
    assert_eq!(bytes(blended), whole(expected), "blend");
}

#[target_feature(enable = "avx2,f16c")]
fn compare_conversions(a: Bytes) {
    let got = bytes(_mm512_cvtepi32_ps(__m512i(a)));
    assert_eq!(got, whole(halves(a).map(|a| real::_mm256_cvtepi32_ps(a))), "cvtepi32_ps");
    for (half, [low, high]) in halves(a).into_iter().zip(quarters(a).as_chunks::<2>().0) {
        let pair = [*low, *high];
        let expected = whole(pair.map(|quarter| real::_mm256_cvtepu16_epi32(quarter)));
        assert_eq!(_mm512_cvtepu16_epi32(half).0, expected, "cvtepu16");
        let expected = whole(pair.map(|quarter| real::_mm256_cvtph_ps(quarter)));
        assert_eq!(bytes(_mm512_cvtph_ps(half)), expected, "cvtph");
    }
    for quarter in quarters(a) {
        let pair = [quarter, real::_mm_srli_si128::<8>(quarter)];
        let expected = whole(pair.map(|eight| real::_mm256_cvtepi8_epi32(eight)));
        assert_eq!(_mm512_cvtepi8_epi32(quarter).0, expected, "cvtepi8");
        let expected = whole([real::_mm256_broadcastsi128_si256(quarter); 2]);
        assert_eq!(_mm512_broadcast_i32x4(quarter).0, expected, "broadcast");
        // SAFETY: both are 16 bytes, and any bits are a value.
        let [a, b, c, d] = unsafe { transmute::<__m128i, [i32; 4]>(quarter) };
        let set = _mm512_broadcast_i32x4(_mm_setr_epi32(a, b, c, d));
        let real = real::_mm_setr_epi32(a, b, c, d);
        assert_eq!(set.0, whole([[real; 2]; 2]), "setr");
    }
}

/// What is only moved: bytes come from memory and go to it as they are.
#[target_feature(enable = "avx2")]
fn compare_moves(a: Bytes) {
    // An address that is a multiple of nothing.
    let mut memory = [0; 65];
    memory[1..].copy_from_slice(&a);
    // SAFETY: 64 bytes are read from an array of 65, at the second.
    let (integers, numbers) = unsafe {
        let at = memory.as_ptr().add(1);
        (_mm512_loadu_si512(at.cast()), _mm512_loadu_ps(at.cast()))
    };
    assert_eq!((integers.0, bytes(numbers)), (a, a), "loadu");
    let mut out = [0; 65];
    // SAFETY: 64 bytes are written to an array of 65, at the second.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr().add(1).cast(), floats(a)) }
    assert_eq!(out[1..], a, "storeu");

    let lower = whole([_mm512_castps512_ps256(floats(a)); 2]);
    assert_eq!((&lower[..32], &lower[32..]), (&a[..32], &a[..32]), "castps512_ps256");
    let double = _mm512_castps_pd(floats(a));
    let both = [_mm512_extractf64x4_pd::<0>(double), _mm512_extractf64x4_pd::<1>(double)];
    assert_eq!(whole(both), a, "extractf64x4");

    let (byte, dword) = (a[0].cast_signed(), __m512i(a).dwords()[0]);
    let number = floats(a).0[0];
    assert_eq!(_mm512_set1_epi8(byte).0, whole([real::_mm256_set1_epi8(byte); 2]), "set1");
    assert_eq!(_mm512_set1_epi32(dword).0, whole([real::_mm256_set1_epi32(dword); 2]), "set1");
    assert_eq!(bytes(_mm512_set1_ps(number)), whole([real::_mm256_set1_ps(number); 2]), "set1");
    assert_eq!(_mm512_setzero_si512().0, whole([real::_mm256_setzero_si256(); 2]), "setzero");
    assert_eq!(bytes(_mm512_setzero_ps()), whole([real::_mm256_setzero_ps(); 2]), "setzero");
}

/// Products as 16-bit numbers, which hold them: what older processors do in place of one step.
#[target_feature(enable = "avx2")]
fn compare_dot_products(sums: Bytes, a: Bytes, b: Bytes) {
    let quarter = |sums, a, b| {
        let (a, b) = (real::_mm256_cvtepu8_epi16(a), real::_mm256_cvtepi8_epi16(b));
        let pairs = real::_mm256_madd_epi16(a, b);
        let (low, high) =
            (real::_mm256_castsi256_si128(pairs), real::_mm256_extracti128_si256::<1>(pairs));
        real::_mm_add_epi32(sums, real::_mm_hadd_epi32(low, high))
    };
    let (all_sums, all_a, all_b) = (quarters(sums), quarters(a), quarters(b));
    let [first, second, third, fourth] =
        [0, 1, 2, 3].map(|at| quarter(all_sums[at], all_a[at], all_b[at]));
    let expected = whole([[first, second], [third, fourth]]);
    assert_eq!(_mm512_dpbusd_epi32(__m512i(sums), __m512i(a), __m512i(b)).0, expected, "dpbusd");
}

fn any_register() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u32>(), 16)
        .prop_map(|dwords| from_fn(|at| dwords[at / 4].to_le_bytes()[at % 4]))
}

/// Numbers among which are equal ones, zeros of both signs, the largest, subnormal ones and NaN.
fn any_numbers() -> impl Strategy<Value = Bytes> {
    let special = [0.0, -0.0, 1.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, 1e-40];
    let number = prop_oneof![
        any::<u32>(),
        (-4.0_f32..4.0).prop_map(f32::to_bits),
        proptest::sample::select(special.map(f32::to_bits).to_vec()),
    ];
    proptest::collection::vec(number, 16)
        .prop_map(|bits| from_fn(|at| bits[at / 4].to_le_bytes()[at % 4]))
}

fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn integers_are_those_of_the_processor(
        sums in any_register(), a in any_register(), b in any_register(),
    ) {
        prop_assert!(has_avx2(), "the emulation is compared with AVX2");
        // SAFETY: it is there.
        unsafe {
            compare_integers(a, b);
            compare_dot_products(sums, a, b);
        }
    }

    #[test]
    fn numbers_are_those_of_the_processor(
        a in any_numbers(), b in any_numbers(), integers in any_register(),
    ) {
        prop_assert!(has_avx2(), "the emulation is compared with AVX2");
        // SAFETY: it is there.
        unsafe {
            compare_floats(a, b);
            compare_floats(a, a);
            compare_conversions(integers);
            compare_moves(integers);
        }
    }
}

#[test]
fn every_half_precision_number_is_that_of_the_processor() {
    assert!(has_avx2(), "the emulation is compared with AVX2");
    for start in (0..=u16::MAX).step_by(32) {
        let offset = |at: usize| u16::try_from(at / 2).expect("small");
        let halves: Bytes = from_fn(|at| (start + offset(at)).to_le_bytes()[at % 2]);
        // SAFETY: AVX2 and F16C are there.
        unsafe { compare_conversions(halves) }
    }
}

#[test]
fn dot_products_wrap_and_do_not_saturate() {
    let check = |sum: i32, (a, b): (u8, i8), expected: i32| {
        let (a, b) = (_mm512_set1_epi8(a.cast_signed()), _mm512_set1_epi8(b));
        let got = _mm512_dpbusd_epi32(_mm512_set1_epi32(sum), a, b);
        assert_eq!(got.dwords(), [expected; 16], "{sum}");
    };
    // Two products of these are more than 16 bits hold.
    check(0, (255, 127), 4 * 255 * 127);
    check(1, (255, -128), 1 - 4 * 255 * 128);
    check(i32::MAX, (1, 1), i32::MIN + 3);
    check(i32::MIN, (1, -1), i32::MAX - 3);
    // Which operand is the unsigned one, and in which lane which bytes are added.
    let a = __m512i(from_fn(|at| if at < 4 { 200 } else { u8::from(at == 63) }));
    let b = __m512i(from_fn(|at| if at < 4 { [1, 2, 3, 251][at] } else { 7 }));
    let sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), a, b).dwords();
    assert_eq!((sums[0], sums[1], sums[15]), (200, 0, 7));
}
