//! Decoding and replaying decisions that anybody may have written.

use commons_route::Decision;

const GOLDEN: &[u8] = include_bytes!("golden/decision-1.cbor");

/// Any bytes are refused, or are the one encoding of a decision whose replay has an answer.
fn check(bytes: &[u8]) {
    let Ok(decision) = Decision::decode(bytes) else { return };
    assert_eq!(decision.encode(), bytes, "two encodings of one decision");
    if decision.replay().is_ok() {
        // What replays is what this program would have decided, so it keeps the class.
        if let commons_route::Outcome::Serve { place, .. } = decision.outcome {
            assert!(place.is_within(decision.request.class), "Rule P1");
        }
    }
}

#[test]
fn any_bytes_decode_to_a_decision_or_are_refused() {
    bolero::check!().for_each(check);
}

#[test]
fn a_decision_with_changed_bytes_is_refused_or_does_not_replay() {
    bolero::check!().with_type::<(u16, u8, u16, u8)>().for_each(|(at, byte, at_too, byte_too)| {
        let mut bytes = GOLDEN.to_vec();
        let len = bytes.len();
        bytes[usize::from(*at) % len] = *byte;
        bytes[usize::from(*at_too) % len] = *byte_too;
        check(&bytes);
        if bytes != GOLDEN {
            let replays = Decision::decode(&bytes).is_ok_and(|it| it.replay().is_ok());
            assert!(!replays, "a changed record replays");
        }
    });
}
