//! What crosses the wire and lies on disk, pinned. A file that changes here breaks every peer.
//!
//! `COMMONS_BLESS=1 cargo test` writes the files anew; the commit that does so says why.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use commons_exchange::entry::{Entry, Side};
use commons_exchange::message::WireCode;
use commons_exchange::sealed::{Channel, HpkeSecret};
use commons_record::{Hash, codec};

use crate::messages;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

#[expect(clippy::disallowed_methods, reason = "how a person tells a test to write its fixtures")]
fn is_blessed() -> bool {
    std::env::var("COMMONS_BLESS").is_ok_and(|it| it == "1")
}

/// The bytes, 32 to a line.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        let end = if index % 32 == 31 || index + 1 == bytes.len() { "\n" } else { "" };
        write!(text, "{byte:02x}{end}").expect("a string takes everything");
    }
    text
}

fn check(file: &str, text: &str) {
    let path = Path::new(FOLDER).join(file);
    if is_blessed() {
        fs::write(&path, text).expect("a writable folder");
    }
    let want = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    assert!(want == text, "{file} is\n{text}and the fixture says\n{want}");
}

/// Rule R4: and no other bytes read as the same value.
#[test]
fn every_message_and_every_entry_is_encoded_as_it_was() {
    for sample in messages::all() {
        check(&format!("{}.hex", sample.name), &dump(&sample.bytes));
        let again = (sample.reread)(&sample.bytes);
        assert_eq!(again.as_ref(), Some(&sample.bytes), "{}", sample.name);
        let longer = [sample.bytes.as_slice(), &[0]].concat();
        assert_eq!((sample.reread)(&longer), None, "{}: a trailing byte", sample.name);
        for cut in 0..sample.bytes.len() {
            assert_eq!((sample.reread)(&sample.bytes[..cut]), None, "{} cut", sample.name);
        }
    }
}

/// Codes are stable: programs on the other side branch on them.
#[test]
fn every_code_is_called_as_it_was() {
    let codes = [
        WireCode::InvalidOrder,
        WireCode::NotAMember,
        WireCode::WrongParty,
        WireCode::UnknownPolicy,
        WireCode::ReplayedOrder,
        WireCode::UnknownModel,
        WireCode::UnknownAdapter,
        WireCode::InvalidPrompt,
        WireCode::InvalidConstraint,
        WireCode::TooLong,
        WireCode::NotSharing,
        WireCode::PrivacyClass,
        WireCode::Unsupported,
        WireCode::Overloaded,
        WireCode::StorageFailed,
        WireCode::EngineFailed,
        WireCode::ProtocolViolation,
        WireCode::Silent,
        WireCode::Deadline,
        WireCode::Disconnected,
        WireCode::ShuttingDown,
    ];
    let bytes: Vec<_> = codes.iter().flat_map(codec::encode).collect();
    check("wire-codes.hex", &dump(&bytes));
}

/// The opening and the first frames of a stream with known keys (Rule E2).
#[test]
fn a_sealed_stream_is_laid_out_as_it_was() {
    let secret = HpkeSecret::from_seed(&[0x77; 32]);
    let mesh = Hash::from_bytes([0x21; 32]);
    let (mut requester, opening) =
        Channel::connect([0x42; 32], &mesh, &secret.public()).expect("a good key");
    let opened = opening.as_slice().try_into().expect("an opening");
    let mut provider = Channel::accept(&secret, &mesh, opened).expect("it opens");
    let frames = [
        requester.sealer.seal(b"one").expect("it fits"),
        requester.sealer.seal(&[0x31; 300]).expect("it fits"),
        provider.sealer.seal(b"two").expect("it fits"),
    ];
    check("sealed-key.hex", &dump(secret.public().as_bytes()));
    check("sealed-opening.hex", &dump(&opening));
    check("sealed-frames.hex", &frames.iter().map(|frame| dump(frame)).collect::<String>());
}

/// Keys are part of the disk format: attempts at a request lie together, sides apart.
#[test]
fn entries_lie_where_they_lay() {
    let (asked, served) = (messages::requester_entry(), messages::provider_entry());
    let keys = [
        asked.change().key,
        served.change().key,
        asked.index_change().key,
        commons_exchange::entry::outbox_key(&asked.counterparty, &asked.order),
        commons_exchange::provider::pair_key(&asked.counterparty, &served.counterparty),
    ];
    check("keys.hex", &keys.iter().map(|key| dump(key)).collect::<String>());
    assert_ne!(Entry::key(Side::Requester, &asked.order), Entry::key(Side::Provider, &asked.order));
}

/// The longest answer that an order allows still fits an entry.
#[test]
fn the_entry_of_the_longest_answer_can_be_read_back() {
    let mut entry = messages::requester_entry();
    let longest = usize::try_from(commons_record::order::COMPLETION_TOKENS_MAX).expect("small");
    let opening = entry.opening.as_mut().expect("it has one");
    opening.tokens = vec![u32::MAX; longest];
    let bytes = entry.change().value.expect("a value");
    assert_eq!(Entry::decode(&bytes).expect("it fits"), entry);
}

/// Nested data cannot exhaust the stack: an unknown field of a message is nested a million deep.
#[test]
fn bottomless_messages_are_refused() {
    use commons_exchange::message::{Message, ToProvider, ToRequester};
    for opening in [&[0xa1, 0x66][..], &[0xa1, 0x68], &[]] {
        for byte in [0x81, 0xa1, 0xd8] {
            let name: &[u8] = match opening {
                [_, 0x66] => b"reveal",
                [_, 0x68] => b"finished",
                _ => b"",
            };
            let deep = [opening, name, &[0xa1, 0x61, b'x'], &vec![byte; 1_000_000]].concat();
            assert!(ToProvider::from_bytes(&deep).is_err());
            assert!(ToRequester::from_bytes(&deep).is_err());
            assert!(Entry::decode(&deep).is_err());
        }
    }
}

#[test]
fn no_fixture_is_left_without_a_value() {
    let files = fs::read_dir(FOLDER).expect("the fixtures are in the repository").count();
    assert_eq!(files, messages::all().len() + 5);
}
