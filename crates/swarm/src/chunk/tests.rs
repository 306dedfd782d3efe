//! Cuts: where they are, that they are the content's alone, and that they come back.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;

/// Bytes that anyone can make: the extended output of BLAKE3 over the seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn lengths(bytes: &[u8]) -> Vec<u32> {
    let mut chunker = Chunker::new();
    let (mut rest, mut found) = (bytes, Vec::new());
    while let Some(taken) = chunker.cut(rest) {
        found.push(u32::try_from(taken).unwrap());
        rest = &rest[taken..];
    }
    found.extend(chunker.finish());
    found
}

fn chunks(bytes: &[u8], steps: &[usize]) -> Vec<Chunk> {
    let (mut chunks, mut found, mut rest) = (Chunks::new(), Vec::new(), bytes);
    for &step in steps {
        let (now, later) = rest.split_at(step.min(rest.len()));
        chunks.update(now, |chunk| found.push(chunk));
        rest = later;
    }
    chunks.update(rest, |chunk| found.push(chunk));
    found.extend(chunks.finish());
    found
}

/// Slow and plain: what the rule says, byte by byte.
fn by_the_rule(bytes: &[u8]) -> Vec<u32> {
    let mut found = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let rest = &bytes[start..];
        let longest = rest.len().min(CHUNK_LEN_MAX as usize);
        let cut = (CHUNK_LEN_MIN as usize..=longest).find(|&len| {
            let window = &rest[len - WINDOW_LEN as usize..len];
            let hash = window.iter().fold(0_u64, |hash, &byte| {
                hash.wrapping_mul(2).wrapping_add(GEAR[usize::from(byte)])
            });
            let bits = if len <= NORMAL_LEN as usize { 18 } else { 14 };
            hash.leading_zeros() >= bits
        });
        let len = cut.unwrap_or(longest);
        found.push(u32::try_from(len).unwrap());
        start += len;
    }
    found
}

/// Rule S6: pinned. A change here makes equal files share nothing between versions.
#[test]
fn cuts_are_where_they_were() {
    let noise = noise(5, 3 << 20);
    let mut text = format!("gear {:016x} {:016x} {:016x}\n", GEAR[0], GEAR[1], GEAR[255]);
    for chunk in chunks(&noise, &[]) {
        writeln!(text, "{} {} {}", chunk.end, chunk.len, chunk.hash).unwrap();
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cuts.txt");
    #[expect(clippy::disallowed_methods, reason = "how a person tells a test to write its fixture")]
    if std::env::var("COMMONS_BLESS").is_ok_and(|it| it == "1") {
        fs::write(&file, &text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(&file).unwrap());
}

/// Rule S6.
#[test]
fn cuts_are_what_the_rule_says_byte_by_byte() {
    for seed in 0..3 {
        let bytes = noise(seed, 700_000);
        assert_eq!(lengths(&bytes), by_the_rule(&bytes), "seed {seed}");
    }
    let flat = [vec![0; 600_000], noise(9, 100_000), vec![255; 300_001]].concat();
    assert_eq!(lengths(&flat), by_the_rule(&flat));
}

#[test]
fn chunks_are_64_kib_on_average_and_within_bounds() {
    let found = lengths(&noise(7, 64 << 20));
    let (last, all) = found.split_last().unwrap();
    assert!(all.iter().all(|len| (CHUNK_LEN_MIN..=CHUNK_LEN_MAX).contains(len)));
    assert!(*last > 0 && *last <= CHUNK_LEN_MAX);
    let mean = (64 << 20) / found.len();
    let want = CHUNK_LEN_MEAN as usize;
    assert!((want * 95 / 100..want * 105 / 100).contains(&mean), "{mean} bytes");
}

#[test]
fn what_repeats_is_cut_at_the_longest_length_and_an_empty_file_not_at_all() {
    let max = CHUNK_LEN_MAX as usize;
    for byte in [0, 1, 0x55, 0xff] {
        assert_eq!(lengths(&vec![byte; 2 * max + 5]), [CHUNK_LEN_MAX, CHUNK_LEN_MAX, 5]);
        assert_eq!(lengths(&vec![byte; max]), [CHUNK_LEN_MAX], "no empty chunk at the end");
    }
    assert_eq!(lengths(&[]), [] as [u32; 0]);
    assert_eq!(lengths(&[1]), [1]);
}

#[test]
fn an_insertion_changes_the_chunks_around_it_and_no_other() {
    let before = noise(11, 8 << 20);
    for at in [0, 1, 3_000_000, 8 << 20] {
        let after = [&before[..at], b"inserted", &before[at..]].concat();
        let (old, new) = (chunks(&before, &[]), chunks(&after, &[]));
        let known: std::collections::BTreeSet<_> = old.iter().map(|it| it.hash).collect();
        let other: u32 = new.iter().filter(|it| !known.contains(&it.hash)).map(|it| it.len).sum();
        assert!(other < 3 * CHUNK_LEN_MAX, "inserted at {at}: {other} bytes differ");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Rule S6: how the bytes are fed does not matter.
    #[test]
    fn cuts_are_the_same_however_the_bytes_arrive(
        seed in any::<u64>(),
        len in 0_usize..1_000_000,
        steps in proptest::collection::vec(0_usize..150_000, 0..20),
    ) {
        let bytes = noise(seed, len);
        let whole = chunks(&bytes, &[]);
        prop_assert_eq!(&chunks(&bytes, &steps), &whole);
        prop_assert_eq!(&chunks(&bytes, &vec![1; 40_000.min(len)]), &whole);
        let ends: Vec<_> = whole.iter().map(|it| it.len).collect();
        prop_assert_eq!(ends, lengths(&bytes));
        let mut start = 0;
        for chunk in whole {
            prop_assert_eq!(chunk.start(), start);
            let content = &bytes[usize::try_from(start).unwrap()..usize::try_from(chunk.end).unwrap()];
            prop_assert_eq!(chunk.hash, Hash::of_content(content));
            start = chunk.end;
        }
        prop_assert_eq!(start, len as u64);
    }
}
