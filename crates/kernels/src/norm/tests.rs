//! Norms against double precision.

use super::*;
use crate::testing::{bits, checksum, numbers};

const COUNTS: [usize; 7] = [1, 15, 16, 17, 80, 2048, 4097];

fn check(name: &str, got: &[f32], expected: impl Iterator<Item = f64>) {
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(*got) - expected).abs();
        assert!(error < 3e-6 * expected.abs().max(1.0), "{name} {index}: {got} for {expected}");
    }
}

#[test]
#[expect(clippy::cast_precision_loss, reason = "counts are small")]
fn norms_are_those_of_their_definitions_on_every_instruction_set() {
    for count in COUNTS {
        let (row, weight, bias) = (numbers(1, count), numbers(2, count), numbers(3, count));
        let wide: Vec<_> = row.iter().map(|&x| f64::from(x)).collect();
        let squares = wide.iter().map(|x| x * x).sum::<f64>() / count as f64;
        let mean = wide.iter().sum::<f64>() / count as f64;
        let variance = wide.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count as f64;
        let norm = LayerNorm { weight: &weight, bias: &bias, epsilon: 1e-3 };
        let (mut rms, mut layer) = (vec![0.0; count], vec![0.0; count]);
        rms_norm(Isa::SCALAR, &row, &weight, 1e-3, &mut rms);
        layer_norm(Isa::SCALAR, &row, norm, &mut layer);
        let wide = || wide.iter().zip(weight.iter().zip(&bias));
        let root = (squares + 1e-3).sqrt();
        check("rms", &rms, wide().map(|(x, (w, _))| x / root * f64::from(*w)));
        let root = (variance + 1e-3).sqrt();
        let expected = wide().map(|(x, (w, b))| (x - mean) / root * f64::from(*w) + f64::from(*b));
        check("layer", &layer, expected);
        for isa in Isa::available() {
            let mut got = vec![0.0; count];
            rms_norm(isa, &row, &weight, 1e-3, &mut got);
            assert_eq!(bits(&got), bits(&rms), "{isa} {count}");
            layer_norm(isa, &row, norm, &mut got);
            assert_eq!(bits(&got), bits(&layer), "{isa} {count}");
        }
    }
}

#[test]
fn the_norm_of_heads_is_the_norm_of_each() {
    let (heads, weight) = (numbers(5, 6 * 80), numbers(6, 80));
    let mut expected = vec![0.0; heads.len()];
    for (head, out) in heads.chunks_exact(80).zip(expected.chunks_exact_mut(80)) {
        rms_norm(Isa::SCALAR, head, &weight, 1e-6, out);
    }
    for isa in Isa::available() {
        let mut got = heads.clone();
        rms_norm_heads(isa, &mut got, &weight, 1e-6);
        assert_eq!(bits(&got), bits(&expected), "{isa}");
    }
}

#[test]
fn sums_and_products_are_number_by_number() {
    for isa in Isa::available() {
        let (mut a, b) = (numbers(7, 37), numbers(8, 37));
        let expected: Vec<_> = a.iter().zip(&b).map(|(a, b)| (a + b) * 0.3).collect();
        add(isa, &mut a, &b);
        scale(isa, &mut a, 0.3);
        assert_eq!(bits(&a), bits(&expected), "{isa}");
    }
}

/// A change of these numbers is a change of what every node computes: approve it or undo it.
#[test]
fn results_are_those_that_were_approved() {
    let (row, weight, bias) = (numbers(1, 1003), numbers(2, 1003), numbers(3, 1003));
    let norm = LayerNorm { weight: &weight, bias: &bias, epsilon: 1e-5 };
    let (mut rms, mut layer) = (vec![0.0; 1003], vec![0.0; 1003]);
    rms_norm(Isa::best(), &row, &weight, 1e-5, &mut rms);
    layer_norm(Isa::best(), &row, norm, &mut layer);
    assert_eq!([checksum(&rms), checksum(&layer)], [0x522d_3c24_0569_015b, 0xbcb2_4160_2928_fa92]);
}
