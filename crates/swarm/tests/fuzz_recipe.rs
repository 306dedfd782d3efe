//! Fuzz target: no bytes crash the reader of recipes, and what is one has one encoding.

use commons_swarm::recipe::{self, HEADER_LEN, Header, Reader};

fn check(bytes: &[u8]) {
    if let Ok((header, chunks)) = recipe::decode(bytes) {
        assert_eq!(recipe::encode(header.blob(), &chunks).expect("it was one"), bytes);
    }
    let Ok(header) = Header::decode(bytes) else { return };
    assert_eq!(header.encode(), bytes[..HEADER_LEN]);
    // In stretches, as it is read from a disk; the answer is the same or an error.
    let mut reader = Reader::new(header);
    for part in bytes[HEADER_LEN..].chunks(100) {
        if reader.read_all(part, |chunk| assert!(chunk.end <= header.size())).is_err() {
            return;
        }
    }
}

#[test]
fn recipe() {
    bolero::check!().for_each(|bytes: &[u8]| check(bytes));
}

/// Entries behind a good header, so that the reader of entries is reached.
#[test]
fn recipe_entries() {
    bolero::check!().with_type::<(u32, Vec<(u32, u8)>)>().for_each(|(size, steps)| {
        let blob = commons_record::Hash::of_content(b"blob");
        let count = steps.len() as u64;
        let Ok(header) = Header::new(blob, u64::from(*size), count) else { return };
        let mut bytes = header.encode().to_vec();
        let mut end = 0;
        for (step, shift) in steps {
            end += u64::from(step >> (shift % 32));
            bytes.extend(recipe::encode_entry(&blob, end));
        }
        check(&bytes);
    });
}
