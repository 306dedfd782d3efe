//! Numbers: read exactly or refused.

use commons_record::codec;
use commons_record::{Credits, Epoch, Micro, Millis};
use proptest::prelude::*;

// Rule R3
#[test]
fn decimal_texts_are_read_exactly() {
    for (text, millionths) in [
        ("0", 0),
        ("-0", 0),
        ("0.0", 0),
        ("1", 1_000_000),
        ("1.", 1_000_000),
        (".5", 500_000),
        ("-1.5", -1_500_000),
        ("0.000001", 1),
        ("1e-6", 1),
        ("1E-6", 1),
        ("10e-7", 1),
        ("0.0000010000", 1),
        ("1e+2", 100_000_000),
        ("123456.654321", 123_456_654_321),
        ("0.1e1", 1_000_000),
        ("0e400", 0),
        ("00001.50", 1_500_000),
        ("1000000", 1_000_000_000_000),
        ("-1e6", -1_000_000_000_000),
        (&"0".repeat(40), 0),
    ] {
        let parsed = text.parse::<Micro>().map(Micro::as_millionths);
        assert_eq!(parsed, Ok(millionths), "{text}");
    }
}

// Rule R3
#[test]
fn what_is_no_exact_number_of_millionths_is_refused() {
    for text in [
        "",
        " ",
        "-",
        ".",
        "-.",
        "e",
        "e5",
        "1e",
        "1e-",
        "--1",
        "+1",
        "- 1",
        " 1",
        "1 ",
        "1_000",
        "0x10",
        "1,5",
        "1.2.3",
        "1e5e5",
        "1e1.5",
        "NaN",
        "nan",
        "inf",
        "-inf",
        "Infinity",
        "1e400",
        "1e-400",
        "1e2147483647",
        "1e-2147483648",
        "1e2147483648",
        "1e99999999999999999999",
        "0e2147483647",
        "0.0000001",
        "1e-7",
        "1.0000001",
        "1000000.000001",
        "1000001",
        "-1000001",
        "9223372036854775807",
        "9223372036854775808",
        "92233720368547758080000000000",
        "١",
        "１",
        "𝟏",
        "1٠",
        "½",
        "∞",
        "1\0",
        &"9".repeat(41),
        &"0".repeat(41),
        &"1".repeat(1_000_000),
    ] {
        let error = text.parse::<Micro>().expect_err(text);
        assert!(error.to_string().chars().count() < 300, "an error quotes no more than a line");
    }
}

#[test]
fn a_number_beyond_its_bound_is_refused_however_it_arrives() {
    let max = Micro::MAX.as_millionths();
    assert_eq!(Micro::from_millionths(max), Some(Micro::MAX));
    let negative = Micro::from_millionths(-max).expect("as far the other way");
    assert_eq!(negative.to_string(), "-1000000");
    for millionths in [max + 1, -max - 1, i64::MAX, i64::MIN] {
        assert_eq!(Micro::from_millionths(millionths), None);
        let bytes = codec::encode(&millionths);
        codec::decode::<Micro>("number", &bytes, 16).expect_err("beyond the bound");
    }
    let bytes = codec::encode(&Micro::MAX);
    assert_eq!(bytes, codec::encode(&max), "a number in a record is its count of millionths");
    assert_eq!(codec::decode::<Micro>("number", &bytes, 16).ok(), Some(Micro::MAX));
}

#[test]
fn credits_add_up_or_say_that_they_do_not() {
    let of = Credits::from_micro;
    for (left, right, sum, product) in [
        (0, 0, Some(0), Some(0)),
        (2, 3, Some(5), Some(6)),
        (u64::MAX, 0, Some(u64::MAX), Some(0)),
        (u64::MAX, 1, None, Some(u64::MAX)),
        (u64::MAX / 2 + 1, 2, Some(u64::MAX / 2 + 3), None),
    ] {
        assert_eq!(of(left).checked_add(of(right)), sum.map(of), "{left} + {right}");
        assert_eq!(of(left).checked_mul(right), product.map(of), "{left} * {right}");
    }
    assert_eq!(of(1_231).to_string(), "0.001231");
    assert_eq!(of(u64::MAX).to_string(), "18446744073709.551615");
}

#[test]
fn time_stops_at_its_ends() {
    assert_eq!(Millis(u64::MAX).saturating_add(Millis(1)), Millis(u64::MAX));
    assert_eq!(Millis(3).since(Millis(5)), Millis(0));
    assert_eq!(Millis::from_secs(u64::MAX), Millis(u64::MAX));
    assert_eq!((Millis(5).to_string(), Epoch(7).to_string()), ("5 ms".into(), "7".into()));
}

proptest! {
    /// Every number has one text, and the text leads back to the number (Rule R3).
    #[test]
    fn numbers_round_trip_through_their_text(
        millionths in -1_000_000_000_000..=1_000_000_000_000_i64,
    ) {
        let number = Micro::from_millionths(millionths).expect("in range");
        let text = number.to_string();
        prop_assert_eq!(text.parse::<Micro>(), Ok(number));
        let float = text.parse::<f64>().expect("a float");
        prop_assert_eq!(float.to_bits(), number.to_f64().to_bits());
        prop_assert!(!text.contains('.') || !text.ends_with(['0', '.']), "{text}");
    }

    /// A decimal text is read as the integer that it says, by way of no float.
    #[test]
    fn any_way_to_write_a_number_is_read_alike(
        whole in 0..1_000_000_u32, places in 0..1_000_000_u32, shift in -6..=6_i32, negative: bool,
    ) {
        let sign = if negative { "-" } else { "" };
        let plain: Micro = format!("{sign}{whole}.{places:06}").parse().expect("in range");
        let digits = i64::from(whole) * 1_000_000 + i64::from(places);
        prop_assert_eq!(plain.as_millionths(), if negative { -digits } else { digits });
        // The same with the point moved and an exponent that moves it back.
        let moved = format!("{sign}{digits}e{}", shift - 6);
        let want = match shift {
            0.. => digits.checked_mul(10_i64.pow(shift.unsigned_abs())),
            _ => {
                let power = 10_i64.pow(shift.unsigned_abs());
                (digits % power == 0).then_some(digits / power)
            }
        };
        let want = want.and_then(|it| Micro::from_millionths(if negative { -it } else { it }));
        prop_assert_eq!(moved.parse::<Micro>().ok(), want, "{}", moved);
    }
}
