//! Rounding rows to bytes, against its definition.

use proptest::prelude::*;

use super::*;

const KINDS: [ActivationKind; 2] = [ActivationKind::Blocks32, ActivationKind::Blocks256];

fn filled(isa: Isa, kind: ActivationKind, columns: usize, values: &[f32]) -> Activations {
    let mut rows = Activations::new(kind, columns).expect("whole blocks");
    rows.set(isa, values).expect("whole rows");
    rows
}

/// The definition, number by number.
fn expected(block: &[f32]) -> (f32, Vec<i8>) {
    let largest = block.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    if block.iter().any(|value| !value.is_finite()) {
        return (f32::NAN, vec![0; block.len()]);
    }
    if largest < 2_f32.powi(-100) {
        return (0.0, vec![0; block.len()]);
    }
    let inverse = 127.0 / largest;
    #[expect(clippy::cast_possible_truncation, reason = "the magnitude is below 128")]
    let round = |value: &f32| {
        let scaled = value * inverse;
        (scaled + 0.5_f32.copysign(scaled)).trunc() as i8
    };
    (largest / 127.0, block.iter().map(round).collect())
}

fn any_number() -> impl Strategy<Value = f32> {
    prop_oneof![
        20 => -10.0_f32..10.0,
        2 => Just(0.0_f32),
        1 => prop::sample::select(&[f32::MAX, f32::MIN_POSITIVE, 1e-42, -1e-30, 8e-31][..]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_block_is_rounded_as_defined_by_every_instruction_set(
        kind in prop::sample::select(&KINDS[..]),
        mut values in prop::collection::vec(any_number(), 512),
        spoilt in prop::option::of((0_usize..512, prop::sample::select(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY][..]))),
    ) {
        if let Some((index, value)) = spoilt {
            values[index] = value;
        }
        for isa in Isa::available() {
            let rows = filled(isa, kind, 256, &values);
            prop_assert_eq!(rows.rows(), 2);
            let len = kind.block_len();
            for (index, block) in values.chunks(len).enumerate() {
                let (scale, quants) = expected(block);
                let got = &rows.quants.as_flattened()[index * len..][..len];
                prop_assert_eq!(got, &quants[..]);
                prop_assert!(rows.scales[index].to_bits() == scale.to_bits() || (rows.scales[index].is_nan() && scale.is_nan()));
            }
            let sums: Vec<i16> = rows.quants.as_flattened().chunks(16)
                .map(|sixteen| sixteen.iter().map(|&quant| i16::from(quant)).sum()).collect();
            prop_assert_eq!(rows.sums16.as_flattened(), &sums[..]);
            if kind == ActivationKind::Blocks256 {
                let sums: Vec<i16> = sums.chunks(2).map(|pair| pair[0] + pair[1]).collect();
                prop_assert_eq!(rows.sums32.as_flattened(), &sums[..]);
            } else {
                for (quad, wide) in rows.quants.iter().zip(&rows.wide) {
                    prop_assert_eq!([quad[0], quad[2], quad[1], quad[3]].map(i16::from), *wide);
                }
            }
        }
    }

    #[test]
    fn rows_set_in_parts_are_those_set_at_once(
        kind in prop::sample::select(&[ActivationKind::Floats, KINDS[0], KINDS[1]][..]),
        count in 0_usize..8, each in 0_usize..10,
    ) {
        let values: Vec<f32> = (0_u8..97).cycle().take(count * 256).map(f32::from).collect();
        let whole = filled(Isa::best(), kind, 256, &values);
        let mut parts = Activations::new(kind, 256).unwrap();
        parts.resize(count);
        for part in parts.parts_mut(each) {
            let rows = part.rows();
            part.set(Isa::best(), &values[rows.start * 256..rows.end * 256]);
        }
        for row in 0..count {
            prop_assert_eq!(whole.dequantise_row(row), parts.dequantise_row(row));
        }
        prop_assert_eq!(format!("{whole:?}"), format!("{parts:?}"));
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused_with_their_numbers() {
    let error = Activations::new(ActivationKind::Blocks256, 300).expect_err("refused");
    assert_eq!(error.to_string(), "rows of 300 numbers cannot be split into blocks of 256");
    let mut rows = Activations::new(ActivationKind::Blocks32, 32).unwrap();
    let error = rows.set(Isa::best(), &[0.0; 33]).expect_err("refused");
    assert_eq!(error.to_string(), "33 numbers are no whole count of rows of 32");
    rows.set(Isa::best(), &[0.0; 64]).unwrap();
    rows.set(Isa::best(), &[]).unwrap();
    assert_eq!(rows.rows(), 0);
}
