//! Fuzz target: real records with bytes changed. Random bytes alone rarely get past the first
//! field; these start deep inside.

use bolero::TypeGenerator;
use commons_record::evidence::Evidence;
use commons_record::{Envelope, codec};

/// The fixtures: a record of every type, and evidence.
const FIXTURES: [&str; 16] = [
    include_str!("golden/genesis.hex"),
    include_str!("golden/node-certificate.hex"),
    include_str!("golden/policy.hex"),
    include_str!("golden/join-request.hex"),
    include_str!("golden/presence.hex"),
    include_str!("golden/model-manifest.hex"),
    include_str!("golden/order-client.hex"),
    include_str!("golden/order-resume.hex"),
    include_str!("golden/voucher.hex"),
    include_str!("golden/receipt.hex"),
    include_str!("golden/receipt-unacknowledged.hex"),
    include_str!("golden/release.hex"),
    include_str!("golden/name-binding.hex"),
    include_str!("golden/revocation.hex"),
    include_str!("golden/denylist.hex"),
    include_str!("golden/evidence.hex"),
];

#[derive(Debug, TypeGenerator)]
enum Change {
    Set(u16, u8),
    Insert(u16, u8),
    Remove(u16),
    Cut(u16),
    Repeat(u16, u8),
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let at = |at: u16| usize::from(at) % bytes.len().max(1);
    match *change {
        _ if bytes.is_empty() => {}
        Change::Set(to, byte) => {
            let at = at(to);
            bytes[at] = byte;
        }
        Change::Insert(to, byte) => bytes.insert(at(to), byte),
        Change::Remove(to) => drop(bytes.remove(at(to))),
        Change::Cut(to) => bytes.truncate(at(to)),
        Change::Repeat(from, count) => {
            let start = at(from);
            let end = bytes.len().min(start + usize::from(count));
            bytes.extend_from_within(start..end);
        }
    }
}

fn bytes_of(fixture: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        fixture.lines().skip(1).flat_map(str::bytes).filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).expect("digits");
        u8::from_str_radix(text, 16).expect("digits")
    };
    digits.chunks(2).map(byte).collect()
}

#[test]
fn changed_records() {
    let fixtures = FIXTURES.map(bytes_of);
    bolero::check!().with_type::<(u8, Vec<Change>)>().for_each(|(which, changes)| {
        let whole = &fixtures[usize::from(*which) % fixtures.len()];
        let mut bytes = whole.clone();
        for change in changes.iter().take(8) {
            apply(&mut bytes, change);
        }
        if let Ok(envelope) = Envelope::decode(&bytes) {
            assert_eq!(envelope.encode(), bytes);
            assert!(!envelope.is_signed() || bytes == *whole, "a changed record is signed");
        }
        if let Ok(evidence) = Evidence::decode(&bytes) {
            assert_eq!(codec::encode(&evidence), bytes);
            assert!(evidence.verify().is_err() || bytes == *whole, "changed evidence holds");
        }
    });
}
