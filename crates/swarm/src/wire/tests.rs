//! Every message is pinned, and what is out of bounds is refused.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::*;

fn blob(number: u8) -> Hash {
    Hash::from_bytes([number; 32])
}

const ASK: AskId = AskId(7);

fn to_seeder() -> Vec<(&'static str, ToSeeder)> {
    let ask = |part| ToSeeder::Ask { ask: ASK, blob: blob(1), part };
    vec![
        ("who-has", ToSeeder::WhoHas { ask: ASK, blobs: vec![blob(1), blob(2)] }),
        ("follow", ToSeeder::Follow { blob: blob(1) }),
        ("unfollow", ToSeeder::Unfollow { blob: blob(1) }),
        ("ask-top", ask(Part::Top)),
        ("ask-page", ask(Part::Page { group: 3 })),
        ("ask-bytes", ask(Part::Bytes { offset: 5 << 20, len: PIECE_LEN })),
        ("cancel", ToSeeder::Cancel { ask: ASK }),
    ]
}

fn to_fetcher() -> Vec<(&'static str, ToFetcher)> {
    let every = vec![Holding::Nothing, Holding::Part, Holding::Fetching, Holding::Whole];
    let refusal =
        Refusal::new(RefuseCode::Busy, "32 asks of yours wait here; ask again in a second")
            .retry_after(Millis::from_secs(1));
    let refused = ToFetcher::Refused { ask: ASK, refusal };
    let holdings = ToFetcher::Holdings { blob: blob(1), size: 3 << 30, holding: Holding::Fetching };
    let bits = ByteBuf::from(vec![0x03, 0x00, 0x80]);
    vec![
        ("has", ToFetcher::Has { ask: ASK, holdings: every }),
        ("holdings", holdings),
        ("held", ToFetcher::Held { blob: blob(1), stretch: 2, bits }),
        ("have", ToFetcher::Have { blob: blob(1), pieces: vec![1, 5, 70_000] }),
        ("data", ToFetcher::Data { ask: ASK, len: PIECE_LEN }),
        ("refused", refused),
    ]
}

fn check_golden(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    #[expect(clippy::disallowed_methods, reason = "how a person tells a test to write its fixture")]
    if std::env::var("COMMONS_BLESS").is_ok_and(|it| it == "1") {
        fs::write(&path, text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(&path).unwrap(), "{file}");
}

fn check_pinned<M: Message + PartialEq + std::fmt::Debug>(
    file: &str,
    messages: &[(&'static str, M)],
) {
    let mut text = String::new();
    for (name, message) in messages {
        let frame = message.to_frame();
        write!(text, "{name} ").unwrap();
        for byte in &frame {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
        let (head, bytes) = frame.split_first_chunk().unwrap();
        assert_eq!(message_len(*head).unwrap(), bytes.len());
        assert_eq!(&M::from_bytes(bytes).unwrap(), message);
        assert!(M::from_bytes(&[bytes, &[0]].concat()).is_err(), "{name}: a trailing byte");
        for cut in 0..bytes.len() {
            assert!(M::from_bytes(&bytes[..cut]).is_err(), "{name} cut at {cut}");
        }
    }
    check_golden(file, &text);
}

/// Rule S9: a file that changes here breaks every peer.
#[test]
fn every_message_is_encoded_as_it_was() {
    check_pinned("to-seeder.txt", &to_seeder());
    check_pinned("to-fetcher.txt", &to_fetcher());
}

/// Rule S9: codes are stable, programs on the other side branch on them.
#[test]
fn every_code_is_called_as_it_was() {
    let codes = [
        RefuseCode::NotHeld,
        RefuseCode::NotYet,
        RefuseCode::OutOfRange,
        RefuseCode::Busy,
        RefuseCode::NotAMember,
        RefuseCode::Policy,
        RefuseCode::Broken,
        RefuseCode::ShuttingDown,
    ];
    let names = codes.iter().map(|code| {
        let bytes = codec::encode(code);
        String::from_utf8(bytes[1..].to_vec()).unwrap() + "\n"
    });
    check_golden("refuse-codes.txt", &names.collect::<String>());
}

fn check_refused<M: Message>(message: &M) {
    assert!(M::from_bytes(&message.to_bytes()).is_err());
}

/// Rule S10.
#[test]
fn what_is_out_of_bounds_is_refused() {
    let ask = |part| ToSeeder::Ask { ask: ASK, blob: blob(1), part };
    check_refused(&ToSeeder::WhoHas { ask: ASK, blobs: vec![] });
    check_refused(&ToSeeder::WhoHas { ask: ASK, blobs: vec![blob(1); WHO_HAS_MAX + 1] });
    check_refused(&ask(Part::Page { group: 65_536 }));
    check_refused(&ask(Part::Bytes { offset: 0, len: PIECE_LEN + 1 }));
    check_refused(&ask(Part::Bytes { offset: 1, len: PIECE_LEN }));
    check_refused(&ask(Part::Bytes { offset: 1, len: 0 }));
    check_refused(&ask(Part::Bytes { offset: u64::MAX, len: 1 }));
    let holdings = |size, holding| ToFetcher::Holdings { blob: blob(1), size, holding };
    check_refused(&holdings(BLOB_LEN_MAX + 1, Holding::Whole));
    check_refused(&holdings(1, Holding::Nothing));
    let held = |stretch, bits: Vec<u8>| {
        let bits = ByteBuf::from(bits);
        ToFetcher::Held { blob: blob(1), stretch, bits }
    };
    check_refused(&held(0, vec![]));
    check_refused(&held(0, vec![1, 0]));
    check_refused(&held(0, vec![1; 32 * 1024 + 1]));
    check_refused(&held(256, vec![1]));
    let have = |pieces| ToFetcher::Have { blob: blob(1), pieces };
    check_refused(&have(vec![]));
    check_refused(&have(vec![1, 1]));
    check_refused(&have(vec![2, 1]));
    check_refused(&have(vec![1 << 26]));
    check_refused(&have((0..=HAVE_MAX as u64).collect()));
    check_refused(&ToFetcher::Has { ask: ASK, holdings: vec![] });
    check_refused(&ToFetcher::Data { ask: ASK, len: RAW_LEN_MAX + 1 });
    let refusal = |message: String| ToFetcher::Refused {
        ask: ASK,
        refusal: Refusal { code: RefuseCode::Busy, message, retry_after_ms: None },
    };
    check_refused(&refusal("x".repeat(SENTENCE_LEN_MAX + 1)));
    check_refused(&refusal("a\u{1b}[2J".to_owned()));
    assert!(message_len([0; 4]).is_err() && message_len([0xff; 4]).is_err());
}

/// Rule S10: the longest of each kind fits a frame.
#[test]
fn what_is_at_the_bounds_is_sent_and_read() {
    let longest_seeder = ToSeeder::WhoHas { ask: AskId(u32::MAX), blobs: vec![blob(9); 256] };
    assert!(ToSeeder::from_bytes(&longest_seeder.to_bytes()).is_ok());
    let pieces = ((1 << 26) - HAVE_MAX as u64..1 << 26).collect();
    let bits = ByteBuf::from(vec![0xff; 32 * 1024]);
    for message in [
        ToFetcher::Have { blob: blob(1), pieces },
        ToFetcher::Held { blob: blob(1), stretch: 255, bits },
        ToFetcher::Has { ask: AskId(u32::MAX), holdings: vec![Holding::Fetching; 256] },
        ToFetcher::Data { ask: ASK, len: RAW_LEN_MAX },
    ] {
        assert!(message.to_bytes().len() <= MESSAGE_LEN_MAX);
        assert_eq!(ToFetcher::from_bytes(&message.to_bytes()).unwrap(), message);
    }
}

/// Rule S10: nested data cannot exhaust the stack.
#[test]
fn bottomless_messages_are_refused() {
    for byte in [0x81, 0xa1, 0xd8] {
        let deep = vec![byte; MESSAGE_LEN_MAX];
        assert!(ToSeeder::from_bytes(&deep).is_err());
        assert!(ToFetcher::from_bytes(&deep).is_err());
    }
}

#[test]
fn stretches_without_pieces_are_left_out() {
    let mut bits = vec![0; 3 * 32 * 1024];
    (bits[5], bits[2 * 32 * 1024]) = (1, 0x80);
    let found: Vec<_> = stretches(&bits).collect();
    assert_eq!(found, [(0, &[0, 0, 0, 0, 0, 1][..]), (2, &[0x80])]);
    assert_eq!(stretches(&[]).count(), 0);
}

#[test]
fn a_refusal_is_cut_to_a_printable_sentence() {
    let refusal = Refusal::new(RefuseCode::Policy, format!("a\nb{}", "x".repeat(1000)));
    assert_eq!(refusal.message.len(), SENTENCE_LEN_MAX);
    assert!(refusal.message.starts_with("abx"));
    let refused = ToFetcher::Refused { ask: ASK, refusal };
    assert_eq!(ToFetcher::from_bytes(&refused.to_bytes()).unwrap(), refused);
}
