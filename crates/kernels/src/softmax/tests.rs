//! Softmax against its definition.

use super::*;
use crate::testing::{bits, numbers};

#[test]
fn shares_are_those_of_the_definition_on_every_instruction_set() {
    for count in [1, 7, 16, 33, 1000] {
        let xs: Vec<_> = numbers(4, count).into_iter().map(|x| 20.0 * x).collect();
        let mut expected = xs.clone();
        softmax(Isa::SCALAR, &mut expected);
        let sum: f64 = xs.iter().map(|&x| f64::from(x).exp()).sum();
        for (&x, &share) in xs.iter().zip(&expected) {
            let error = (f64::from(share) - f64::from(x).exp() / sum).abs();
            assert!(error < 1e-6, "{count}: {share} of {x} is off by {error}");
        }
        for isa in Isa::available() {
            let mut got = xs.clone();
            softmax(isa, &mut got);
            assert_eq!(bits(&got), bits(&expected), "{isa} {count}");
        }
    }
}

#[test]
fn what_is_excluded_has_no_share_and_a_broken_number_breaks_all() {
    let mut xs = [f32::NEG_INFINITY, 1.0, 1.0];
    softmax(Isa::best(), &mut xs);
    assert_eq!(bits(&xs), bits(&[0.0, 0.5, 0.5]));
    let mut xs = [f32::NAN, 1.0, 1.0];
    softmax(Isa::best(), &mut xs);
    assert!(xs.iter().all(|x| x.is_nan()), "{xs:?}");
}
