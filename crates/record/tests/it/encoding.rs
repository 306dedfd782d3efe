//! One record, one byte string: whatever else a peer writes is refused.

use commons_record::Envelope;
use commons_record::codec::{self, DecodeError};
use proptest::prelude::*;
use serde_bytes::ByteBuf;

use crate::cbor;
use crate::sample::{self, Sample};

fn body(sample: &Sample) -> Vec<u8> {
    Envelope::decode(&sample.bytes).expect(sample.name).body.into_vec()
}

#[test]
fn every_type_verifies_and_keeps_its_bytes_and_id() {
    for sample in sample::all() {
        let (id, bytes) = (sample.verify)(&sample.bytes).expect(sample.name);
        assert_eq!((id, &bytes), (sample.id, &sample.bytes), "{}", sample.name);
        let body = body(&sample);
        assert_eq!((sample.body)(&body).expect(sample.name), body, "{}", sample.name);
    }
}

// Rules R3 and R4: every field of every record, written in every other way that CBOR knows.
#[test]
fn no_other_encoding_of_a_record_is_accepted() {
    let mut tried = 0;
    for sample in sample::all() {
        let body = body(&sample);
        for (how, other) in cbor::parse(&body).mutations() {
            let bytes = other.encode();
            assert_ne!(bytes, body, "{}, {how}: the test changes nothing", sample.name);
            let decoded = (sample.body)(&bytes);
            assert!(decoded.is_err(), "{}, {how}: accepted", sample.name);
            tried += 1;
        }
        for (how, other) in cbor::parse(&sample.bytes).mutations() {
            let decoded = Envelope::decode(&other.encode());
            assert!(decoded.is_err(), "{} envelope, {how}: accepted", sample.name);
            tried += 1;
        }
    }
    assert!(tried > 5_000, "{tried} encodings");
}

// Rule R4
#[test]
fn trailing_and_missing_bytes_are_refused() {
    for sample in sample::all() {
        let body = body(&sample);
        for tail in [&b"\0"[..], b"\xf6", b"\xff", b"\xa0"] {
            assert!((sample.body)(&[&body, tail].concat()).is_err(), "{}", sample.name);
            let longer = [sample.bytes.as_slice(), tail].concat();
            assert!((sample.verify)(&longer).is_err(), "{}", sample.name);
        }
        for size in 0..body.len() {
            assert!((sample.body)(&body[..size]).is_err(), "{} to {size}", sample.name);
        }
        for size in 0..sample.bytes.len() {
            assert!((sample.verify)(&sample.bytes[..size]).is_err(), "{} to {size}", sample.name);
        }
    }
}

// Rule R5: the signature covers every bit, and what it does not cover cannot change.
#[test]
fn every_flipped_bit_of_every_record_is_refused() {
    for sample in sample::all() {
        for bit in 0..sample.bytes.len() * 8 {
            let mut bytes = sample.bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!((sample.verify)(&bytes).is_err(), "{}: bit {bit} is free", sample.name);
        }
    }
}

#[test]
fn a_value_beyond_its_bound_is_not_even_read() {
    let sample = &sample::all()[0];
    let error = codec::decode::<Envelope>("record", &sample.bytes, sample.bytes.len() - 1);
    assert!(matches!(error, Err(DecodeError::TooLarge { what: "record", .. })), "{error:?}");
    codec::decode::<Envelope>("record", &sample.bytes, sample.bytes.len()).expect("just fits");
}

/// A peer wrote a megabyte into a field name: the message that quotes it stays short.
#[test]
fn an_error_quotes_no_more_than_a_line() {
    let name = "x".repeat(50_000);
    let map = cbor::Value::Map(vec![(cbor::Value::Text(name.into()), cbor::Value::Simple(0xf6))]);
    let error = Envelope::decode(&map.encode()).expect_err("no record");
    assert!(error.to_string().len() < 300, "{error}");
}

#[test]
fn deep_nesting_is_refused_and_overflows_no_stack() {
    for byte in [0x81, 0xa1, 0xd8] {
        let error = Envelope::decode(&vec![byte; 60_000]);
        assert!(matches!(error, Err(DecodeError::Malformed { .. })), "{byte:#x}: {error:?}");
    }
}

proptest! {
    /// Whatever happens to the bytes, what decodes encodes to the same bytes again (Rule R4).
    #[test]
    fn what_decodes_has_no_second_encoding(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..4),
    ) {
        let samples = sample::all();
        let sample = which.get(&samples);
        let change = |mut bytes: Vec<u8>| {
            for (at, byte, how) in &changes {
                let at = at.index(bytes.len());
                match how {
                    0 => bytes[at] = *byte,
                    1 => bytes.insert(at, *byte),
                    _ => drop(bytes.remove(at)),
                }
            }
            bytes
        };
        let changed = change(body(sample));
        if let Ok(again) = (sample.body)(&changed) {
            prop_assert_eq!(again, changed.clone());
        }
        let mut envelope = Envelope::decode(&sample.bytes).expect("a sample");
        let is_same = envelope.body.as_slice() == changed.as_slice();
        envelope.body = ByteBuf::from(changed);
        prop_assert_eq!((sample.verify)(&envelope.encode()).is_ok(), is_same);
        let changed = change(sample.bytes.clone());
        if let Ok(envelope) = Envelope::decode(&changed) {
            prop_assert_eq!(envelope.encode(), changed);
        }
    }
}
