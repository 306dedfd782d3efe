//! Errors against double precision, over dense grids.

use super::*;
use crate::testing::{bits, checksum};

/// Numbers from the first to the last, so many steps.
#[expect(clippy::cast_possible_truncation, reason = "rounding to 32 bits is what is meant")]
fn grid(first: f64, last: f64, count: u32) -> Vec<f32> {
    let step = (last - first) / f64::from(count);
    (0..=count).map(|i| (first + step * f64::from(i)) as f32).collect()
}

/// The largest distance to the reference, in units in the last place of the reference.
#[expect(clippy::cast_possible_truncation, reason = "rounding to 32 bits is what is meant")]
fn largest_error(xs: &[f32], got: &[f32], reference: impl Fn(f64) -> f64) -> f64 {
    let errors = xs.iter().zip(got).map(|(&x, &got)| {
        let expected = reference(f64::from(x));
        let near = expected.abs() as f32;
        let unit = f64::from(near.next_up()) - f64::from(near);
        (f64::from(got) - expected).abs() / unit
    });
    errors.fold(0.0, f64::max)
}

fn on_all(xs: &[f32], function: impl Fn(Isa, &mut [f32])) -> Vec<f32> {
    let mut expected = xs.to_vec();
    function(Isa::SCALAR, &mut expected);
    for isa in Isa::available() {
        let mut got = xs.to_vec();
        function(isa, &mut got);
        assert_eq!(bits(&got), bits(&expected), "{isa}");
    }
    expected
}

#[test]
fn exponentials_are_within_two_units_in_the_last_place() {
    let xs = grid(f64::from(SMALLEST), f64::from(LARGEST) - 1e-4, 2_000_003);
    let got = on_all(&xs, exp);
    let error = largest_error(&xs, &got, libm::exp);
    assert!(error < 2.0, "{error}");
}

#[test]
fn exponentials_of_the_extremes_are_what_they_must_be() {
    let xs =
        [f32::NEG_INFINITY, f32::MIN, -104.0, -87.4, -0.0, 0.0, 88.73, f32::MAX, f32::INFINITY];
    let got = on_all(&xs, exp);
    assert_eq!(got, [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, f32::INFINITY, f32::INFINITY, f32::INFINITY]);
    assert!(on_all(&[f32::NAN, -f32::NAN], exp).iter().all(|x| x.is_nan()));
    let edges = on_all(&[SMALLEST, LARGEST.next_down()], exp);
    assert!(edges[0] >= f32::MIN_POSITIVE && edges[1].is_finite(), "{edges:?}");
}

#[test]
fn tangents_are_within_four_units_in_the_last_place() {
    for (last, count) in [(12.0, 1_000_003), (0.7, 500_009), (1e-3, 1009)] {
        let xs = grid(-last, last, count);
        let got = on_all(&xs, tanh);
        let error = largest_error(&xs, &got, libm::tanh);
        assert!(error < 4.0, "{error} up to {last}");
    }
    let ends = on_all(&[f32::NEG_INFINITY, -0.0, 0.0, 100.0, f32::INFINITY, f32::NAN], tanh);
    assert_eq!(bits(&ends[..5]), bits(&[-1.0, -0.0, 0.0, 1.0, 1.0]));
    assert!(ends[5].is_nan());
}

#[test]
fn a_soft_cap_limits_and_leaves_small_numbers_alone() {
    let got = on_all(&[-1e9, -0.01, 0.01, 30.0, 1e9], |isa, xs| softcap(isa, xs, 30.0));
    assert_eq!((got[0], got[4]), (-30.0, 30.0));
    assert!((got[2] - 0.01).abs() < 1e-8 && (got[1] + 0.01).abs() < 1e-8, "{got:?}");
    assert!((f64::from(got[3]) - 30.0 * libm::tanh(1.0)).abs() < 1e-5, "{got:?}");
}

/// A change of these numbers is a change of what every node computes: approve it or undo it.
#[test]
fn results_are_those_that_were_approved() {
    let xs = grid(-90.0, 90.0, 10_007);
    let got = [on_all(&xs, exp), on_all(&xs, tanh), on_all(&xs, |isa, xs| softcap(isa, xs, 50.0))];
    assert_eq!(
        got.map(|values| checksum(&values)),
        [0x2c6f_46b2_6906_3e1b, 0x4988_e77c_5968_8c91, 0x3141_8b53_31bb_2819]
    );
}
