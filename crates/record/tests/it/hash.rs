//! Names by content and names by fields.

use std::path::Path;

use commons_record::Hash;
use commons_record::hash::{ContentHasher, FieldHasher};
use proptest::prelude::*;

const VECTORS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../../shared/fixtures/vectors/blake3/test_vectors.json"
);

// Rule R1: against the official vectors, where the folder with them is there.
#[test]
fn a_content_hash_is_plain_blake3() {
    if !Path::new(VECTORS).exists() {
        eprintln!("SKIPPED: no official BLAKE3 vectors at {VECTORS}");
        return;
    }
    let text = std::fs::read_to_string(VECTORS).expect("a readable file");
    let vectors: serde_json::Value = serde_json::from_str(&text).expect("a JSON file");
    let cases = vectors["cases"].as_array().expect("a list of cases");
    assert!(cases.len() > 30);
    for case in cases {
        let size = case["input_len"].as_u64().expect("a length");
        let input: Vec<u8> =
            (0..=250).cycle().take(usize::try_from(size).expect("small")).collect();
        let want = &case["hash"].as_str().expect("a hash")[..64];
        assert_eq!(Hash::of_content(&input).to_string(), want, "{size} bytes");
        let mut hasher = ContentHasher::default();
        for piece in input.chunks(1_000) {
            hasher.update(piece);
        }
        assert_eq!(hasher.finish().to_string(), want, "{size} bytes in pieces");
    }
}

// Rule R1: the two values that everybody can check with `b3sum`.
#[test]
fn known_contents_have_their_known_names() {
    let check =
        |content: &[u8], want: &str| assert_eq!(Hash::of_content(content).to_string(), want);
    check(b"", "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
    check(b"\0", "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213");
}

// Rule R2: eight big-endian bytes of length before the domain and before each field.
#[test]
fn a_field_hash_is_blake3_over_length_prefixed_fields() {
    let bytes = b"\0\0\0\0\0\0\0\x03abc\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\x01\x02";
    assert_eq!(Hash::of_fields("abc", &[b"", &[1, 2]]), Hash::of_content(bytes));
}

// Rule R2: all ways to cut five bytes into fields, empty ones included, give different hashes.
#[test]
fn no_two_ways_to_cut_bytes_into_fields_share_a_hash() {
    let mut seen = std::collections::BTreeMap::new();
    let mut queue = vec![vec![0_usize]];
    while let Some(cuts) = queue.pop() {
        let bytes = b"aaaaa";
        let fields: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let previous = seen.insert(Hash::of_fields("d", &fields), cuts.clone());
        assert_eq!(previous, None, "and {cuts:?}");
        if cuts.len() < 6 {
            let last = *cuts.last().expect("never empty");
            queue.extend((last..=5).map(|cut| [cuts.as_slice(), &[cut]].concat()));
        }
    }
    assert!(seen.len() > 200, "{} ways", seen.len());
}

proptest! {
    /// Two lists of fields share a hash only if they are the same list (Rule R2).
    #[test]
    fn fields_are_told_apart(left in any_fields(), right in any_fields()) {
        let hash = |(domain, fields): &(String, Vec<Vec<u8>>)| {
            let fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
            Hash::of_fields(domain, &fields)
        };
        prop_assert_eq!(hash(&left) == hash(&right), left == right);
        let mut hasher = FieldHasher::new(&left.0);
        for field in &left.1 {
            hasher.field(field);
        }
        prop_assert_eq!(hasher.finish(), hash(&left));
    }
}

/// Domains and fields out of few and short texts, so that near-collisions come up.
fn any_fields() -> impl Strategy<Value = (String, Vec<Vec<u8>>)> {
    let field = prop::collection::vec(prop_oneof![Just(0_u8), Just(1)], 0..3);
    ("[ab]{0,2}", prop::collection::vec(field, 0..4))
}
