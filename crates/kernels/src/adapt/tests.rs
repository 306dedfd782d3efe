//! Adapters against plain definitions.

use proptest::prelude::*;

use super::*;
use crate::testing::{bits, checksum, numbers};

const FORMATS: [Format; 4] = [Format::F32, Format::F16, Format::Bf16, Format::Q8_0];

/// Numbers as a file holds them.
fn stored(format: Format, values: &[f32]) -> Vec<u8> {
    match format {
        Format::F16 => values.iter().flat_map(|&it| f16::from_f32(it).to_le_bytes()).collect(),
        Format::Bf16 => {
            values.iter().flat_map(|&it| half::bf16::from_f32(it).to_le_bytes()).collect()
        }
        Format::Q8_0 => values
            .chunks_exact(BLOCK)
            .flat_map(|block| {
                let scale =
                    f16::from_f32(block.iter().fold(0.0_f32, |a, b| a.max(b.abs())) / 127.0);
                #[expect(clippy::cast_possible_truncation, reason = "at most 127")]
                let small = |it: &f32| ((it / scale.to_f32()).round() as i8).to_le_bytes();
                let small: Vec<u8> = block.iter().flat_map(small).collect();
                scale.to_le_bytes().into_iter().chain(small).collect::<Vec<_>>()
            })
            .collect(),
        _ => values.iter().flat_map(|it| it.to_le_bytes()).collect(),
    }
}

fn factor(format: Format, rows: usize, columns: usize, seed: u32) -> Factor {
    let bytes = stored(format, &numbers(seed, rows * columns));
    Factor::pack(Source { format, rows, bytes: &bytes }, columns).expect("packs")
}

/// One adapter of one site.
#[derive(Debug)]
struct Site {
    down: Factor,
    up: Factor,
    scale: f32,
    row_factors: Option<Vec<f32>>,
}

fn site(format: Format, rank: usize, (inputs, outputs): (usize, usize), seed: u32) -> Site {
    // Ranks that are no whole blocks keep B in another format, as converters do.
    let is_whole = format != Format::Q8_0 || rank.is_multiple_of(BLOCK);
    let up = if is_whole { format } else { Format::F16 };
    Site {
        down: factor(format, rank, inputs, seed),
        up: factor(up, outputs, rank, seed + 1),
        scale: 0.75,
        row_factors: seed.is_multiple_of(2).then(|| numbers(seed + 2, outputs)),
    }
}

/// Adapts `y`: for each segment its site and its rows; outputs in tiles of `tile` columns and rows.
fn adapt(
    isa: Isa,
    segments: &[(&Site, Vec<usize>)],
    (x, y): (&[f32], &[f32]),
    (tile_rows, tile): (usize, usize),
) -> Vec<f32> {
    let Some((first, _)) = segments.first() else { return y.to_vec() };
    let (inputs, outputs) = (first.down.columns(), first.up.rows());
    let (count, mut out) = (y.len() / outputs, y.to_vec());
    let stride = segments.iter().map(|(site, _)| site.down.rows()).max().unwrap_or(0);
    let mut hidden = vec![f32::NAN; count * stride];
    for (site, rows) in segments {
        let input = Rows { values: x, stride: inputs, first: 0, first_row: 0, rows };
        let tile = Tile { values: &mut hidden, stride, first_row: 0 };
        shrink(isa, &site.down, input, 0..site.down.rows(), tile);
    }
    for start in (0..count).step_by(tile_rows) {
        for column in (0..outputs).step_by(tile) {
            let (rows, columns) =
                (start..count.min(start + tile_rows), column..outputs.min(column + tile));
            let of_row = |row: usize| row * outputs + columns.start..row * outputs + columns.end;
            let mut values: Vec<f32> =
                rows.clone().flat_map(|row| out[of_row(row)].to_vec()).collect();
            for (site, all) in segments {
                let inside: Vec<_> = all.iter().copied().filter(|row| rows.contains(row)).collect();
                let from = Rows { values: &hidden, stride, first: 0, first_row: 0, rows: &inside };
                let tile =
                    Tile { values: &mut values, stride: columns.len(), first_row: rows.start };
                let Site { up, scale, row_factors, .. } = site;
                let up = Up { factor: up, scale: *scale, row_factors: row_factors.as_deref() };
                expand(isa, up, from, columns.clone(), tile);
            }
            for (row, values) in rows.zip(values.chunks_exact(columns.len())) {
                out[of_row(row)].copy_from_slice(values);
            }
        }
    }
    out
}

/// The same in f64, and how far a result may be off it.
fn reference(site: &Site, x: &[f32], y: f32, output: usize) -> (f64, f64) {
    let dot = |a: &[f32], b: &[f64]| -> (f64, f64) {
        let products = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * b);
        (products.clone().sum(), products.map(f64::abs).sum())
    };
    let x: Vec<f64> = x.iter().map(|&it| f64::from(it)).collect();
    let hidden: Vec<_> =
        (0..site.down.rows()).map(|row| dot(&site.down.dequantise_row(row), &x)).collect();
    let up = site.up.dequantise_row(output);
    let (product, _) = dot(&up, &hidden.iter().map(|it| it.0).collect::<Vec<_>>());
    let limit: f64 = up.iter().zip(&hidden).map(|(&up, it)| f64::from(up.abs()) * it.1).sum();
    let scale = f64::from(site.scale);
    let factor = site.row_factors.as_ref().map_or(1.0, |it| f64::from(it[output]));
    ((f64::from(y) + scale * product) * factor, (f64::from(y.abs()) + scale * limit) * factor.abs())
}

#[test]
fn an_adapted_row_is_what_the_definition_says() {
    let shape = (96, 45);
    for (format, rank) in FORMATS.into_iter().flat_map(|it| [1, 4, 16, 37, 256].map(|r| (it, r))) {
        for seed in [1, 2] {
            let site = site(format, rank, shape, seed);
            let (x, y) = (numbers(8, 3 * shape.0), numbers(9, 3 * shape.1));
            let out = adapt(Isa::best(), &[(&site, vec![0, 2])], (&x, &y), (8, 16));
            for row in [0, 2] {
                for output in 0..shape.1 {
                    let at = row * shape.1 + output;
                    let x = &x[row * shape.0..][..shape.0];
                    let (exact, limit) = reference(&site, x, y[at], output);
                    let off = (f64::from(out[at]) - exact).abs();
                    assert!(
                        off <= limit * 1e-6,
                        "{format} {rank} {output}: {} for {exact}",
                        out[at]
                    );
                }
            }
            assert_eq!(out[shape.1..2 * shape.1], y[shape.1..2 * shape.1], "a row without adapter");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Any ranks, formats and assignments of rows: each row gets the bits that it gets alone, in
    /// plain Rust, in one tile.
    #[test]
    fn a_row_gets_the_same_bits_in_any_company_on_any_instruction_set(
        sites in proptest::collection::vec((0_usize..4, 1_usize..40, 0_u32..4), 1..5),
        owners in proptest::collection::vec(0_usize..6, 1..70),
        (inputs, outputs) in (1_usize..12, 1_usize..70),
        tile in (1_usize..40, 1_usize..4), seed in 0_u32..1000,
    ) {
        let shape = (32 * inputs, outputs);
        let sites: Vec<_> = sites
            .into_iter()
            .map(|(format, rank, salt)| site(FORMATS[format], rank, shape, 10 * seed + salt))
            .collect();
        let (x, y) =
            (numbers(seed, owners.len() * shape.0), numbers(seed + 1, owners.len() * shape.1));
        let segments: Vec<(&Site, Vec<usize>)> = sites
            .iter()
            .enumerate()
            .map(|(index, site)| {
                (site, (0..owners.len()).filter(|&row| owners[row] == index).collect())
            })
            .collect();
        let mut expected = y.clone();
        for (row, &owner) in owners.iter().enumerate() {
            let Some(site) = sites.get(owner) else { continue };
            let (x, y) = (&x[row * shape.0..][..shape.0], &y[row * shape.1..][..shape.1]);
            let alone = adapt(Isa::SCALAR, &[(site, vec![0])], (x, y), (1, 1 << 20));
            expected[row * shape.1..][..shape.1].copy_from_slice(&alone);
        }
        for isa in Isa::available() {
            let got = adapt(isa, &segments, (&x, &y), (tile.0, 16 * tile.1));
            prop_assert_eq!(bits(&got), bits(&expected), "{}", isa);
        }
    }

    /// Factors that share an input may be stacked, whatever their formats.
    #[test]
    fn a_stacked_factor_gives_the_same_bits_as_each_alone(
        parts in proptest::collection::vec((0_usize..4, 1_usize..20), 1..4), rows in 1_usize..4,
    ) {
        let columns = 96;
        let bytes: Vec<_> = parts
            .iter()
            .zip(0..)
            .map(|(&(format, rank), seed)| stored(FORMATS[format], &numbers(seed, rank * columns)))
            .collect();
        let sources: Vec<_> = parts
            .iter()
            .zip(&bytes)
            .map(|(&(format, rows), bytes)| Source { format: FORMATS[format], rows, bytes })
            .collect();
        let stacked = Factor::stack(&sources, columns).unwrap();
        let (x, chosen) = (numbers(7, rows * columns), (0..rows).collect::<Vec<_>>());
        let product = |factor: &Factor| {
            let mut out = vec![0.0; rows * factor.rows()];
            let input = Rows { values: &x, stride: columns, first: 0, first_row: 0, rows: &chosen };
            let tile = Tile { values: &mut out, stride: factor.rows(), first_row: 0 };
            shrink(Isa::best(), factor, input, 0..factor.rows(), tile);
            out
        };
        let all = product(&stacked);
        let mut first = 0;
        for source in sources {
            let alone = product(&Factor::pack(source, columns).unwrap());
            for row in 0..rows {
                let stacked = &all[row * stacked.rows() + first..][..source.rows];
                prop_assert_eq!(bits(stacked), bits(&alone[row * source.rows..][..source.rows]));
            }
            first += source.rows;
        }
    }
}

#[test]
fn infinities_and_not_a_number_stay_in_their_row() {
    for format in FORMATS {
        let site = site(format, 5, (64, 20), 1);
        let mut x = numbers(1, 3 * 64);
        (x[0], x[64]) = (f32::NAN, f32::INFINITY);
        let y = numbers(2, 60);
        let expected = adapt(Isa::SCALAR, &[(&site, vec![0, 1, 2])], (&x, &y), (3, 16));
        for isa in Isa::available() {
            let got = adapt(isa, &[(&site, vec![0, 1, 2])], (&x, &y), (3, 16));
            assert_eq!(bits(&got), bits(&expected), "{format} {isa}");
            assert!(got[..20].iter().all(|it| it.is_nan()));
            assert!(got[40..].iter().all(|it| it.is_finite()));
        }
    }
}

#[test]
fn a_factor_keeps_its_numbers_and_no_more_bits_than_the_file() {
    for format in FORMATS {
        let bytes = stored(format, &numbers(3, 32 * 64));
        let packed = Factor::pack(Source { format, rows: 32, bytes: &bytes }, 64).expect("packs");
        assert_eq!((packed.rows(), packed.columns(), packed.format()), (32, 64, format));
        assert_eq!(packed.size_bytes(), bytes.len());
        let row: Vec<f32> =
            widen_row(format, &bytes[17 * bytes.len() / 32..][..bytes.len() / 32]).collect();
        assert_eq!(bits(&packed.dequantise_row(17)), bits(&row));
    }
}

#[test]
fn what_cannot_be_packed_is_refused_with_its_numbers() {
    let check = |format, rows, columns, len: usize, expected: &str| {
        let bytes = vec![0; len];
        let error = Factor::pack(Source { format, rows, bytes: &bytes }, columns);
        assert_eq!(error.expect_err("refused").to_string(), expected);
    };
    let text = "adapters are F32, F16, BF16 or Q8_0, not Q4_K: convert this one";
    check(Format::Q4K, 1, 256, 144, text);
    check(Format::Q8_0, 1, 33, 0, "a row of 33 numbers cannot be split into blocks of 32 (Q8_0)");
    check(Format::F16, 3, 2, 13, "3 rows of 2 numbers as F16 take 12 bytes, not 13");
    let text = format!("1 rows of {} numbers are more than this machine can address", usize::MAX);
    check(Format::F32, 1, usize::MAX, 0, &text);
}

#[test]
fn row_factors_of_a_dora_are_the_magnitude_over_the_norm_of_the_adapted_row() {
    let (rank, inputs, outputs) = (3, 50, 20);
    let site = site(Format::F32, rank, (inputs, outputs), 1);
    let base = numbers(5, inputs * outputs);
    let down: Vec<_> = (0..rank).map(|row| site.down.dequantise_row(row)).collect();
    let mut factors = RowFactors::new(&site.up, down.clone(), site.scale);
    for output in 0..outputs {
        let row = &base[output * inputs..][..inputs];
        let up = site.up.dequantise_row(output);
        let square: f64 = (0..inputs)
            .map(|column| {
                let product: f64 =
                    (0..rank).map(|k| f64::from(up[k]) * f64::from(down[k][column])).sum();
                (f64::from(row[column]) + f64::from(site.scale) * product).powi(2)
            })
            .sum();
        let factor = f64::from(factors.factor(output, row, 2.5).expect("is finite"));
        assert!((factor - 2.5 / square.sqrt()).abs() < 1e-6, "{factor}");
        // A row of the magnitude that the adapted one has already stays as it is.
        #[expect(clippy::cast_possible_truncation, reason = "near enough")]
        let same = factors.factor(output, row, square.sqrt() as f32).expect("is finite");
        assert!((same - 1.0).abs() < 1e-6, "{same}");
    }
    assert_eq!(factors.factor(0, &[f32::NAN; 50], 1.0), None);
    assert_eq!(factors.factor(0, &base[..50], f32::INFINITY), None);
    let zero = Factor::pack(Source { format: Format::F32, rows: 1, bytes: &[0; 4] }, 1).unwrap();
    assert_eq!(RowFactors::new(&zero, vec![vec![1.0]], 1.0).factor(0, &[0.0], 1.0), None);
}

/// The bits of adapted rows: a change of any of them is a change of every answer of every adapter,
/// and has to be approved as one.
#[test]
fn the_bits_of_adapted_rows_are_those_approved() {
    let approved: Vec<_> = include_str!("tests/adapted.golden").lines().collect();
    let got: Vec<_> = FORMATS
        .into_iter()
        .flat_map(|format| [(format, 4), (format, 32)])
        .map(|(format, rank)| {
            let site = site(format, rank, (256, 50), 4);
            let (x, y) = (numbers(5, 5 * 256), numbers(6, 5 * 50));
            let rows: Vec<_> = (0..5).collect();
            let out = adapt(Isa::best(), &[(&site, rows)], (&x, &y), (8, 16));
            format!("{format} {rank} {:016x}", checksum(&out))
        })
        .collect();
    assert_eq!(got, approved);
}
