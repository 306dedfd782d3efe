//! Activations against double precision.

use super::*;
use crate::testing::{bits, checksum, numbers};

const ALL: [Activation; 6] = [
    Activation::Silu,
    Activation::GeluErf,
    Activation::GeluTanh,
    Activation::Relu,
    Activation::Sigmoid,
    Activation::Tanh,
];

fn reference(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + libm::exp(-x)),
        Activation::GeluErf => 0.5 * x * libm::erfc(-x / std::f64::consts::SQRT_2),
        Activation::GeluTanh => {
            let inner = libm::sqrt(2.0 / std::f64::consts::PI) * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + libm::tanh(inner))
        }
        Activation::Relu => x.max(0.0),
        Activation::Sigmoid => 1.0 / (1.0 + libm::exp(-x)),
        Activation::Tanh => libm::tanh(x),
    }
}

#[test]
fn activations_are_within_a_millionth_of_their_size_or_of_one() {
    #[expect(clippy::cast_possible_truncation, reason = "rounding to 32 bits is what is meant")]
    let xs: Vec<_> = (-400_000..=400_000).map(|i| (f64::from(i) * 4e-5) as f32).collect();
    for activation in ALL {
        let mut got = xs.clone();
        activate(Isa::best(), activation, &mut got);
        for (&x, &got) in xs.iter().zip(&got) {
            let expected = reference(activation, f64::from(x));
            let error = (f64::from(got) - expected).abs();
            assert!(error <= 1e-6 * expected.abs().max(1.0), "{activation:?} of {x} is {got}");
        }
    }
}

#[test]
fn a_gate_is_its_activation_times_what_it_gates_on_every_instruction_set() {
    for count in [0, 1, 15, 16, 17, 100, 2048] {
        let (gates, ups) = (numbers(1, count), numbers(2, count));
        for activation in ALL {
            let mut expected = gates.clone();
            activate(Isa::SCALAR, activation, &mut expected);
            for isa in Isa::available() {
                let mut alone = gates.clone();
                activate(isa, activation, &mut alone);
                assert_eq!(bits(&alone), bits(&expected), "{isa} {activation:?} {count}");
                let mut out = vec![0.0; count];
                gate(isa, activation, &gates, &ups, &mut out);
                let product: Vec<_> = expected.iter().zip(&ups).map(|(x, up)| x * up).collect();
                assert_eq!(bits(&out), bits(&product), "{isa} {activation:?} {count}");
            }
        }
    }
}

/// A change of these numbers is a change of what every node computes: approve it or undo it.
#[test]
fn results_are_those_that_were_approved() {
    let got = ALL.map(|activation| {
        let mut xs: Vec<_> = numbers(3, 5000).into_iter().map(|x| 9.0 * x).collect();
        activate(Isa::best(), activation, &mut xs);
        checksum(&xs)
    });
    assert_eq!(
        got,
        [
            0xa5f4_38b4_337f_545d,
            0xf8e7_7dbe_80d4_571e,
            0xd99e_27b6_1e5d_6217,
            0x1fea_6426_839f_bc45,
            0x9545_5e78_bc68_3178,
            0x7849_2095_4070_5dbf
        ]
    );
}
