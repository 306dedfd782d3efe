//! Recipes: the format is pinned, strict, and read in stretches.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::chunk::Chunks;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn cut(bytes: &[u8]) -> (Hash, Vec<Chunk>) {
    let (mut chunks, mut found) = (Chunks::new(), Vec::new());
    chunks.update(bytes, |chunk| found.push(chunk));
    found.extend(chunks.finish());
    (Hash::of_content(bytes), found)
}

/// Rule S7: pinned. `COMMONS_BLESS=1` writes it anew, with a new version.
#[test]
fn a_recipe_is_written_as_it_was() {
    let (blob, chunks) = cut(&noise(6, 300_000));
    let bytes = encode(blob, &chunks).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/recipe.bin");
    #[expect(clippy::disallowed_methods, reason = "how a person tells a test to write its fixture")]
    if std::env::var("COMMONS_BLESS").is_ok_and(|it| it == "1") {
        fs::write(&file, &bytes).unwrap();
    }
    assert_eq!(bytes, fs::read(&file).unwrap());
    let (header, again) = decode(&bytes).unwrap();
    assert_eq!((header.blob(), header.size(), again), (blob, 300_000, chunks));
}

#[test]
fn an_empty_blob_has_an_empty_recipe() {
    let bytes = encode(Hash::of_content(b""), &[]).unwrap();
    assert_eq!(bytes.len(), HEADER_LEN);
    assert_eq!(decode(&bytes).unwrap().1, []);
}

/// Rule S7.
#[test]
fn what_is_cut_longer_or_of_another_blob_is_refused() {
    let (blob, chunks) = cut(&noise(6, 300_000));
    let bytes = encode(blob, &chunks).unwrap();
    for len in 0..bytes.len() {
        assert!(decode(&bytes[..len]).is_err(), "cut at {len}");
    }
    assert!(decode(&[bytes.as_slice(), &[0]].concat()).is_err());
    let header = Header::decode(&bytes).unwrap();
    let len = bytes.len() as u64;
    assert_eq!(header.expect(blob, 300_000, len), Ok(()));
    let other = Hash::of_content(b"other");
    let error = header.expect(other, 300_000, len);
    assert_eq!(error, Err(RecipeError::OtherBlob { got: blob, want: other }));
    let error = header.expect(blob, 300_001, len);
    assert_eq!(error, Err(RecipeError::OtherSize { got: 300_000, want: 300_001 }));
    assert!(matches!(header.expect(blob, 300_000, len - 1), Err(RecipeError::Length { .. })));
}

/// Rule S7: a header cannot claim more than its blob can have.
#[test]
fn a_header_that_claims_too_much_is_refused() {
    let header = |size, chunks| Header::new(Hash::of_content(b""), size, chunks);
    assert!(header(0, 0).is_ok() && header(1, 1).is_ok());
    assert!(header(0, 1).is_err() && header(1, 0).is_err() && header(1, 2).is_err());
    let (min, max) = (u64::from(CHUNK_LEN_MIN), u64::from(CHUNK_LEN_MAX));
    assert!(header(10 * max, 10).is_ok() && header(10 * max + 1, 10).is_err());
    assert!(header(10 * min, 10).is_ok() && header(10 * min, 11).is_err());
    assert!(header(BLOB_LEN_MAX, BLOB_LEN_MAX / max).is_ok());
    let error = header(BLOB_LEN_MAX + 1, BLOB_LEN_MAX / min);
    assert_eq!(error, Err(RecipeError::TooLarge { size: BLOB_LEN_MAX + 1, max: BLOB_LEN_MAX }));
    assert!(header(u64::MAX, u64::MAX).is_err());
}

/// Rule S7: chunks follow each other and have lengths that a chunk can have.
#[test]
fn an_entry_that_does_not_follow_is_refused() {
    let (min, max) = (u64::from(CHUNK_LEN_MIN), u64::from(CHUNK_LEN_MAX));
    let hash = Hash::of_content(b"");
    let size = 3 * max;
    let header = Header::new(hash, size, 4).unwrap();
    let check = |ends: &[u64]| {
        let mut reader = Reader::new(header);
        ends.iter().all(|&end| reader.read(&encode_entry(&hash, end)).is_ok())
            && reader.finish().is_ok()
    };
    assert!(check(&[max, 2 * max, 3 * max - min, size]));
    assert!(check(&[max, 2 * max, 3 * max - 1, size]), "only the last may be short");
    for wrong in [
        &[max, 2 * max, size][..],
        &[max, 2 * max, 3 * max - 1],
        &[min - 1, max, 2 * max, size],
        &[max + 1, 2 * max, 3 * max - 1, size],
        &[max, max, 2 * max, size],
        &[2 * max, max, 2 * max, size],
        &[max, 2 * max, 3 * max - 1, size - 1],
        &[max, 2 * max, 3 * max - 1, size + 1],
        &[max, 2 * max, 3 * max - 1, size, size + 1],
        &[u64::MAX, 0, 0, 0],
    ] {
        assert!(!check(wrong), "{wrong:?}");
    }
}

#[test]
fn a_stretch_is_read_by_itself() {
    let (blob, chunks) = cut(&noise(8, 2_000_000));
    let bytes = encode(blob, &chunks).unwrap();
    let header = Header::decode(&bytes).unwrap();
    let count = header.chunks();
    let range = header.entries(3..6);
    let part = &bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
    let mut reader = Reader::at(header, 3, chunks[2].end).unwrap();
    let mut found = Vec::new();
    let read = reader.read_all(&[part, &[1, 2, 3]].concat(), |chunk| found.push(chunk));
    assert_eq!((read, found.as_slice()), (Ok(3 * ENTRY_LEN), &chunks[3..6]));
    assert_eq!(reader.index(), 6);
    assert_eq!(reader.finish(), Err(RecipeError::Cut { index: 6, chunks: count }));
    assert_eq!(header.entries(count - 1..u64::MAX).end, bytes.len() as u64);
    assert!(Reader::at(header, count + 1, 0).is_err());
}

proptest! {
    #[test]
    fn what_was_cut_is_written_and_read_back(seed in any::<u64>(), len in 0_usize..600_000) {
        let (blob, chunks) = cut(&noise(seed, len));
        let (header, again) = decode(&encode(blob, &chunks).unwrap()).unwrap();
        prop_assert_eq!((header.blob(), header.size()), (blob, len as u64));
        prop_assert_eq!(again, chunks);
    }
}
