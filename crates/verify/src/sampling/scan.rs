//! Passes over all logits of a position: is each a number, which is the largest, what is the sum.
//!
//! A vocabulary has 32 000 to 262 144 tokens, and a pass over it runs for every token that is
//! drawn. So the loops here have a fixed number of lanes and no branch, and a compiler can keep
//! the lanes in registers of any width. The order of every sum is fixed by the lanes, not by it.
//!
//! Not here: what a position's answer is (`sampling.rs`).

use super::{SampleError, VOCABULARY_MAX};

/// Numbers that are looked at together.
const LANES: usize = 8;

/// `1.5 * 2^52`: added to a number below `2^51`, it leaves the nearest integer in the low bits.
const TO_INTEGER: f64 = 6_755_399_441_055_744.0;

/// `ln 2` in 21 bits, so that a count times it is exact, and the rest of it.
const LN_2: [f64; 2] = [0.693_147_182_464_599_6, -1.904_654_299_957_768e-9];

/// Below this an exponential counts as this one's, which no sum from 1 up can tell from zero.
const SMALLEST: f64 = -700.0;

/// `1 / k!` from `k = 10` down to 0.
const SERIES: [f64; 11] = [
    1.0 / 3_628_800.0,
    1.0 / 362_880.0,
    1.0 / 40_320.0,
    1.0 / 5_040.0,
    1.0 / 720.0,
    1.0 / 120.0,
    1.0 / 24.0,
    1.0 / 6.0,
    1.0 / 2.0,
    1.0,
    1.0,
];

/// Refuses logits that nothing can be drawn from. Returns the largest.
pub(super) fn check(logits: &[f32]) -> Result<f64, SampleError> {
    if logits.is_empty() {
        return Err(SampleError::Empty);
    }
    if logits.len() > VOCABULARY_MAX {
        return Err(SampleError::TooMany { count: logits.len() });
    }
    // False for infinity, and for what is not a number.
    let is_sound = |logit: f32| logit < f32::INFINITY;
    if !logits.iter().fold(true, |all, &logit| all & is_sound(logit)) {
        let culprit = (0_u32..).zip(logits).find(|(_, logit)| !is_sound(**logit));
        let (id, logit) = culprit.unwrap_or((0, &f32::NAN));
        let error = if logit.is_nan() {
            SampleError::NotANumber { id }
        } else {
            SampleError::Infinite { id }
        };
        return Err(error);
    }
    let max = f64::from(largest(logits));
    if max.is_infinite() {
        return Err(SampleError::NothingPossible);
    }
    Ok(max)
}

/// The id of the largest logit, the lowest id of equals. The logits hold no NaN.
pub(super) fn argmax(logits: &[f32]) -> u32 {
    let max = largest(logits);
    (0_u32..).zip(logits).find(|(_, logit)| **logit >= max).map_or(0, |(id, _)| id)
}

/// The largest of numbers without a NaN; of none, minus infinity.
fn largest(logits: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (groups, rest) = logits.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for group in groups {
        for (lane, &logit) in lanes.iter_mut().zip(group) {
            *lane = larger(*lane, logit);
        }
    }
    lanes.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, larger)
}

/// The logarithm of the sum of the exponentials of all logits, of which `max` is the largest.
///
/// Lane `id mod 8` sums in ascending order of id; then the lanes are added in their order, and
/// what is left behind the last eight after them.
pub(super) fn log_sum_exp(logits: &[f32], max: f64) -> f64 {
    let (groups, rest) = logits.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for group in groups {
        for (lane, &logit) in lanes.iter_mut().zip(group) {
            *lane += exponential(f64::from(logit) - max);
        }
    }
    let rest = rest.iter().map(|&logit| exponential(f64::from(logit) - max));
    max + libm::log(lanes.into_iter().chain(rest).sum())
}

/// `e^x` for `x <= 0`, to twelve digits; minus infinity counts as [`SMALLEST`].
///
/// `e^x = 2^n e^r` with `n` the integer nearest to `x / ln 2`; `e^r` by its Taylor series, whose
/// first missing term is below `(ln 2 / 2)^11 / 11!`, which is `2.2e-13`. It is here and not
/// `libm`'s because this one has no branch.
#[inline]
fn exponential(x: f64) -> f64 {
    let x = if x > SMALLEST { x } else { SMALLEST };
    let shifted = x * std::f64::consts::LOG2_E + TO_INTEGER;
    let count = shifted - TO_INTEGER;
    let r = (x - count * LN_2[0]) - count * LN_2[1];
    let mut value = SERIES[0];
    for term in &SERIES[1..] {
        value = value * r + term;
    }
    // The count stands in the low bits of `shifted`; it moves up into the exponent, which has
    // room for it: `value` is near 1 and the count above -1011.
    f64::from_bits(value.to_bits().wrapping_add(shifted.to_bits() << 52))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_exponential_has_twelve_digits_wherever_it_is_asked_for() {
        for step in 0..=700_000 {
            let x = -f64::from(step) / 1e3;
            let (found, expected) = (exponential(x), libm::exp(x));
            assert!((found / expected - 1.0).abs() < 1e-12, "e^{x}: {found} is not {expected}");
        }
        assert!((exponential(0.0) - 1.0).abs() < 1e-15);
        assert!(exponential(f64::NEG_INFINITY) < 1e-300);
    }

    #[test]
    fn what_is_wrong_with_logits_is_said_of_the_first_that_is_wrong() {
        let check_that = |logits: &[f32], expected: SampleError| {
            assert_eq!(check(logits), Err(expected), "{logits:?}");
        };
        let inf = f32::INFINITY;
        check_that(&[], SampleError::Empty);
        check_that(&[0.0, f32::NAN, inf], SampleError::NotANumber { id: 1 });
        check_that(&[0.0, 1.0, inf, f32::NAN], SampleError::Infinite { id: 2 });
        check_that(&[-inf, -inf], SampleError::NothingPossible);
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_the_plain_formula(logits in vec(-90.0_f32..90.0, 1..300)) {
            let max = check(&logits).unwrap();
            let sum: f64 = logits.iter().map(|it| libm::exp(f64::from(*it) - max)).sum();
            let expected = max + libm::log(sum);
            prop_assert!((log_sum_exp(&logits, max) - expected).abs() < 1e-11);
        }

        #[test]
        fn the_largest_is_the_first_of_its_equals(
            logits in vec(prop_oneof![Just(f32::NEG_INFINITY), Just(0.0), Just(-0.0), -3.0_f32..3.0], 1..60)
        ) {
            let mut best = 0;
            for (id, logit) in logits.iter().enumerate() {
                if *logit > logits[best] {
                    best = id;
                }
            }
            prop_assert_eq!(argmax(&logits) as usize, best);
        }
    }
}
