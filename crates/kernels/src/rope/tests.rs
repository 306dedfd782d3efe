//! Rotations against double precision.

use super::*;
use crate::testing::{bits, checksum, numbers};

/// What sines and cosines are multiplied with.
const MAGNITUDE: f64 = 1.2;

/// `base^(-i / pairs)` for each pair `i`.
fn frequencies(base: f64, pairs: usize) -> Vec<f64> {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let frequency = |pair| 1.0 / libm::pow(base, pair as f64 / pairs as f64);
    (0..pairs).map(frequency).collect()
}

/// Rotates in double precision.
fn reference(head: &[f32], frequencies: &[f64], position: u32, pairing: Pairing) -> Vec<f64> {
    let mut out: Vec<_> = head.iter().map(|&x| f64::from(x)).collect();
    let pairs = frequencies.len();
    for (pair, frequency) in frequencies.iter().enumerate() {
        let (first, second) = match pairing {
            Pairing::Interleaved => (2 * pair, 2 * pair + 1),
            Pairing::Split => (pair, pair + pairs),
        };
        let (sine, cosine) = (f64::from(position) * frequency).sin_cos();
        let (x, y) = (MAGNITUDE * out[first], MAGNITUDE * out[second]);
        (out[first], out[second]) = (x * cosine - y * sine, x * sine + y * cosine);
    }
    out
}

#[test]
fn heads_turn_as_defined_at_any_position_on_every_instruction_set() {
    for (pairs, size) in [(32, 64), (64, 128), (40, 80), (5, 10), (16, 64), (0, 8)] {
        let frequencies = frequencies(10_000.0, pairs);
        for position in [0, 1, 77, 4095, 10_000_000, u32::MAX] {
            let turns = Turns::new(&frequencies, MAGNITUDE, position);
            for pairing in [Pairing::Interleaved, Pairing::Split] {
                let head = numbers(position, size);
                let mut expected = head.clone();
                rotate(Isa::SCALAR, &mut expected, &turns, pairing);
                let exact = reference(&head, &frequencies, position, pairing);
                for (index, (&got, exact)) in expected.iter().zip(exact).enumerate() {
                    let error = (f64::from(got) - exact).abs();
                    assert!(error < 4e-7, "{pairing:?} {position} {index}: {got} for {exact}");
                }
                assert_eq!(expected[2 * pairs..], head[2 * pairs..], "the rest stays");
                for isa in Isa::available() {
                    let mut got = head.clone();
                    rotate(isa, &mut got, &turns, pairing);
                    assert_eq!(bits(&got), bits(&expected), "{isa} {pairing:?} {position}");
                }
            }
        }
    }
}

/// A change of this number is a change of what every node computes: approve it or undo it.
#[test]
fn results_are_those_that_were_approved() {
    let frequencies = frequencies(500_000.0, 64);
    let mut head = numbers(1, 128);
    for position in [1, 1000, 131_071] {
        let turns = Turns::new(&frequencies, 1.0, position);
        rotate(Isa::best(), &mut head, &turns, Pairing::Split);
        rotate(Isa::best(), &mut head, &turns, Pairing::Interleaved);
    }
    assert_eq!(checksum(&head), 0xf14d_1659_cfda_615e);
}
