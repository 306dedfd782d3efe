//! Products and packing against independent definitions.

use proptest::prelude::*;

use super::*;

mod reference;

/// Numbers that follow from a seed.
fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

/// Rows as a file holds them: any bits, but scales of a size that models have.
fn file(format: Format, rows: usize, columns: usize, seed: u64) -> Vec<u8> {
    let mut next = random(seed);
    let blocks = rows * (columns / format.block_len());
    let mut bytes: Vec<u8> =
        (0..blocks * format.block_size()).map(|_| next().to_le_bytes()[0]).collect();
    for block in bytes.chunks_mut(format.block_size()) {
        for &at in format.layout().heads {
            let number = half::f16::from_f32(number(next()) / 32.0);
            let bits = if format == Format::Bf16 {
                half::bf16::from_f32(number.to_f32()).to_bits()
            } else {
                number.to_bits()
            };
            block[at..at + 2].copy_from_slice(&bits.to_le_bytes());
        }
        if format == Format::F32 {
            block.copy_from_slice(&number(next()).to_le_bytes());
        }
    }
    bytes
}

/// A number between -1 and 1.
fn number(bits: u64) -> f32 {
    f32::from(i16::from_le_bytes([bits.to_le_bytes()[0], bits.to_le_bytes()[1]])) / 32768.0
}

fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut next = random(seed);
    (0..len).map(|_| number(next()) * 8.0).collect()
}

fn activations(isa: Isa, format: Format, columns: usize, values: &[f32]) -> Activations {
    let mut input = Activations::new(format.activation_kind(), columns).expect("whole blocks");
    input.set(isa, values).expect("whole rows");
    input
}

fn product(isa: Isa, matrix: &Matrix, values: &[f32], rows: Range<usize>) -> Vec<f32> {
    let input = activations(isa, matrix.format(), matrix.columns(), values);
    let mut out = vec![f32::NAN; input.rows() * rows.len()];
    matrix.multiply(isa, &input, rows, &mut out);
    out
}

/// The bits, but one pattern for all NaN.
fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| if number.is_nan() { u32::MAX } else { number.to_bits() }).collect()
}

fn formats() -> impl Strategy<Value = Format> {
    prop::sample::select(&Format::ALL[..])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_instruction_set_equals_the_scalar_one(
        format in formats(), rows in 1_usize..50, blocks in 1_usize..11, batch in 1_usize..10, seed: u64,
    ) {
        let columns = blocks * format.block_len();
        let matrix = Matrix::pack(format, rows, columns, &file(format, rows, columns, seed)).unwrap();
        let values = numbers(batch * columns, seed ^ 1);
        let expected = product(Isa::SCALAR, &matrix, &values, 0..rows);
        for isa in Isa::available() {
            let got = product(isa, &matrix, &values, 0..rows);
            prop_assert_eq!(bits(&got), bits(&expected), "{} {}", isa, format);
        }
    }

    #[test]
    fn a_row_comes_out_as_it_does_alone_and_a_range_as_in_the_whole(
        format in formats(), rows in 1_usize..70, blocks in 1_usize..4, batch in 1_usize..10,
        (first, count) in (0_usize..5, 1_usize..70), seed: u64,
    ) {
        let columns = blocks * format.block_len();
        let matrix = Matrix::pack(format, rows, columns, &file(format, rows, columns, seed)).unwrap();
        let values = numbers(batch * columns, seed ^ 1);
        let start = (first * ROWS_PER_GROUP).min(rows / ROWS_PER_GROUP * ROWS_PER_GROUP);
        let range = start..rows.min(start + count);
        for isa in Isa::available() {
            let whole = product(isa, &matrix, &values, 0..rows);
            let part = product(isa, &matrix, &values, range.clone());
            for (index, row) in values.chunks(columns).enumerate() {
                let alone = product(isa, &matrix, row, 0..rows);
                prop_assert_eq!(bits(&alone), bits(&whole[index * rows..][..rows]));
                let part = &part[index * range.len()..][..range.len()];
                prop_assert_eq!(bits(&alone[range.clone()]), bits(part));
            }
        }
    }

    #[test]
    fn a_row_dequantises_as_the_file_format_says(
        format in formats(), rows in 1_usize..40, blocks in 1_usize..11, seed: u64,
    ) {
        let columns = blocks * format.block_len();
        let bytes = file(format, rows, columns, seed);
        let matrix = Matrix::pack(format, rows, columns, &bytes).unwrap();
        let mut got = vec![f32::NAN; columns];
        for (row, bytes) in bytes.chunks(bytes.len() / rows).enumerate() {
            matrix.dequantise_row(row, &mut got);
            prop_assert_eq!(bits(&got), bits(&reference::row(format, bytes)), "{} row {}", format, row);
        }
    }

    #[test]
    fn a_product_is_near_the_exact_one_of_what_the_operands_stand_for(
        format in formats(), rows in 1_usize..20, blocks in 1_usize..11, seed: u64,
    ) {
        let columns = blocks * format.block_len();
        let bytes = file(format, rows, columns, seed);
        let matrix = Matrix::pack(format, rows, columns, &bytes).unwrap();
        let values = numbers(columns, seed ^ 1);
        let input = activations(Isa::best(), format, columns, &values).dequantise_row(0);
        let got = product(Isa::best(), &matrix, &values, 0..rows);
        for (got, bytes) in got.iter().zip(bytes.chunks(bytes.len() / rows)) {
            let weights = reference::row(format, bytes);
            let pairs = || weights.iter().zip(&input).map(|(&w, &x)| f64::from(w) * f64::from(x));
            let (exact, size) = (pairs().sum::<f64>(), pairs().map(f64::abs).sum::<f64>());
            // Each of the additions, and each rounding of a product, is off by at most 2^-24. The
            // minimums of a block cancel against its scales: their parts are larger than the sum.
            #[expect(clippy::cast_precision_loss, reason = "a handful of blocks")]
            let operations = (4 * blocks + 8) as f64;
            let parts = if format.has_minimum() { 16.0 } else { 1.0 };
            let bound = size * parts * operations * 2_f64.powi(-24);
            prop_assert!((f64::from(*got) - exact).abs() <= bound, "{} {} {}", got, exact, bound);
        }
    }

    #[test]
    fn any_bytes_and_any_numbers_have_a_product(
        format in formats(), rows in 1_usize..20, blocks in 1_usize..4, seed: u64,
        special in prop::sample::select(&[f32::NAN, f32::INFINITY, f32::MAX, 1e-40, 0.0][..]),
    ) {
        let columns = blocks * format.block_len();
        let mut next = random(seed);
        let bytes: Vec<u8> =
            (0..rows * blocks * format.block_size()).map(|_| next().to_le_bytes()[0]).collect();
        let matrix = Matrix::pack(format, rows, columns, &bytes).unwrap();
        let mut values = numbers(2 * columns, seed);
        values[0] = special;
        let expected = product(Isa::SCALAR, &matrix, &values, 0..rows);
        for isa in Isa::available() {
            prop_assert_eq!(bits(&product(isa, &matrix, &values, 0..rows)), bits(&expected));
        }
        if !special.is_finite() && format.block_len() > 1 {
            prop_assert!(expected[..rows].iter().all(|number| number.is_nan()));
        }
    }

    #[test]
    fn packing_in_parts_is_packing_at_once(
        format in formats(), rows in 1_usize..100, each in 1_usize..5, seed: u64,
    ) {
        let columns = 2 * format.block_len();
        let bytes = file(format, rows, columns, seed);
        let whole = Matrix::pack(format, rows, columns, &bytes).unwrap();
        let mut packer = Packer::new(format, rows, columns).unwrap();
        let row_size = packer.row_size();
        for groups in packer.groups_mut(each) {
            let range = groups.rows();
            prop_assert_eq!(groups.source_size(), range.len() * row_size);
            groups.pack(&bytes[range.start * row_size..range.end * row_size]).unwrap();
        }
        let parts = packer.finish();
        for group in 0..whole.group_count() {
            prop_assert_eq!(whole.group(group), parts.group(group));
        }
        let full_rows = rows.next_multiple_of(ROWS_PER_GROUP);
        prop_assert_eq!(whole.size_bytes(), bytes.len() / rows * full_rows);
        prop_assert_eq!(whole.group(0).as_ptr().align_offset(storage::CACHE_LINE), 0);
    }
}

#[test]
fn extreme_numbers_do_not_overflow() {
    for format in Format::ALL.into_iter().filter(|format| format.block_len() > 1) {
        // All bits set, all clear, and the most negative byte: the ends of every range.
        for (byte, sign) in [(0xff, 1.0), (0xff, -1.0), (0, 1.0), (0x80, 1.0), (0x7f, -1.0)] {
            let columns = 256;
            let mut bytes = vec![byte; 16 * columns / format.block_len() * format.block_size()];
            for block in bytes.chunks_mut(format.block_size()) {
                for &at in format.layout().heads {
                    block[at..at + 2].copy_from_slice(&half::f16::from_f32(1.0).to_le_bytes());
                }
            }
            let matrix = Matrix::pack(format, 16, columns, &bytes).unwrap();
            let weights = reference::row(format, &bytes[..bytes.len() / 16]);
            let exact: f64 = weights.iter().map(|&weight| f64::from(weight) * 127.0 * sign).sum();
            for isa in Isa::available() {
                #[expect(clippy::cast_possible_truncation, reason = "127 or -127")]
                let values = vec![127.0 * sign as f32; columns];
                for got in product(isa, &matrix, &values, 0..16) {
                    let off = (f64::from(got) - exact).abs();
                    assert!(off <= exact.abs() * 1e-6, "{format} {isa} {byte}: {got} for {exact}");
                }
            }
        }
    }
}

#[test]
fn bad_sizes_are_refused_with_their_numbers() {
    let check = |format, rows, columns, len, expected: &str| {
        let error = Matrix::pack(format, rows, columns, &vec![0; len]).expect_err("refused");
        assert_eq!(error.to_string(), expected);
    };
    let text = "a row of 100 numbers cannot be split into blocks of 32 (Q4_0)";
    check(Format::Q4_0, 2, 100, 0, text);
    check(Format::Q4K, 3, 256, 431, "3 rows of 256 numbers as Q4_K take 432 bytes, not 431");
    check(Format::F16, 3, 2, 13, "3 rows of 2 numbers as F16 take 12 bytes, not 13");
    let huge = Packer::new(Format::F32, usize::MAX / 4, 64).expect_err("refused");
    assert!(matches!(huge, MatrixError::TooLarge { .. }), "{huge}");
    let huge = Packer::new(Format::F32, usize::MAX, 1).expect_err("refused");
    assert!(matches!(huge, MatrixError::TooLarge { .. }), "{huge}");
    let mut packer = Packer::new(Format::F32, 17, 1).unwrap();
    let last = packer.groups_mut(1).last().expect("two groups");
    let error = last.pack(&[0; 8]).expect_err("refused");
    assert_eq!(error.to_string(), "1 rows of 1 numbers as F32 take 4 bytes, not 8");
}

#[test]
fn a_matrix_without_rows_or_columns_has_a_product() {
    for format in Format::ALL {
        let empty = Matrix::pack(format, 0, format.block_len(), &[]).unwrap();
        assert!(product(Isa::best(), &empty, &numbers(format.block_len(), 1), 0..0).is_empty());
        assert_eq!(empty.size_bytes(), 0);
        let narrow = Matrix::pack(format, 3, 0, &[]).unwrap();
        assert!(product(Isa::best(), &narrow, &[], 0..3).is_empty());
    }
}

/// The bits of the products: a change of any of them is a change of every answer of every model,
/// and has to be approved as one.
#[test]
fn the_bits_of_products_are_those_approved() {
    let approved: Vec<_> = include_str!("tests/products.golden").lines().collect();
    let got: Vec<_> = Format::ALL.into_iter().map(digest).collect();
    assert_eq!(got, approved);
}

fn digest(format: Format) -> String {
    let (rows, columns, batch) = (37, 3 * 256, 5);
    let matrix = Matrix::pack(format, rows, columns, &file(format, rows, columns, 7)).unwrap();
    let out = product(Isa::best(), &matrix, &numbers(batch * columns, 8), 0..rows);
    // FNV-1a.
    let hash = out
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    format!("{format} {hash:016x}")
}
