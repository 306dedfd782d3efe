//! The tree against plain BLAKE3, at every boundary, and against every kind of change.

use std::path::Path;

use blake3::hazmat::left_subtree_len;
use proptest::prelude::*;

use super::*;

const PIECE: u64 = PIECE_LEN as u64;

/// Bytes that differ from piece to piece.
fn content(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(b"content").finalize_xof().fill(&mut bytes);
    bytes
}

/// The tree of a file, with the chaining values of all pieces, read in steps of some length.
fn build(bytes: &[u8], step: usize) -> (Tree, Vec<u8>) {
    let (mut builder, mut cvs) = (TreeBuilder::new(), Vec::new());
    for part in bytes.chunks(step) {
        builder.update(part, |cv| cvs.extend_from_slice(&cv));
    }
    let tree = builder.finish(|cv| cvs.extend_from_slice(&cv)).expect("not too long");
    (tree, cvs)
}

/// The page of a group, out of the chaining values of all pieces.
fn page_of(shape: Shape, cvs: &[u8], group: u64) -> Bytes {
    let from = usize::try_from(group * GROUP_PIECES).expect("fits") * CV_LEN;
    let len = usize::try_from(shape.page_len(group).expect("a group")).expect("fits");
    Bytes::copy_from_slice(&cvs[from..from + len])
}

/// Builds the tree, and checks the file against it from the name downwards.
fn check(bytes: &[u8], step: usize) {
    let (tree, cvs) = build(bytes, step);
    assert_eq!(tree.blob, Hash::of_content(bytes), "{} bytes", bytes.len());
    let shape = Shape::new(bytes.len() as u64).expect("fits");
    assert_eq!(tree.shape, shape);
    let top = Top::check(tree.blob, shape, tree.top).expect("its own top");
    for group in 0..shape.groups() {
        let page = top.page(group, page_of(shape, &cvs, group)).expect("its own page");
        let first = group * GROUP_PIECES;
        for piece in first..(first + GROUP_PIECES).min(shape.pieces()) {
            let from = usize::try_from(piece * PIECE).expect("fits");
            let len = shape.piece_len(piece).expect("a piece") as usize;
            assert_eq!(page.check_piece(piece, &bytes[from..from + len]), Ok(()), "{piece}");
        }
    }
}

/// Rule R1.
#[test]
fn the_root_is_what_b3sum_prints_at_every_boundary() {
    let mib = usize::try_from(PIECE).expect("fits");
    let bytes = content(5 * mib + 1);
    for pieces in 0..=5 {
        for len in [(pieces * mib).saturating_sub(1), pieces * mib, pieces * mib + 1] {
            check(&bytes[..len], 700_001);
        }
    }
    for len in [1, 2, 1023, 1024, 1025, 2048, 2049, 64 * 1024, mib - 1025, mib + 1025] {
        check(&bytes[..len], 4096);
    }
}

/// Rule R1, with a group boundary inside: one pass over a gibibyte, closed at many lengths.
#[test]
fn the_root_is_what_b3sum_prints_around_a_group() {
    let gib = GROUP_PIECES * PIECE;
    let piece = content(usize::try_from(PIECE).expect("fits"));
    let (mut builder, mut plain, mut cvs) = (TreeBuilder::new(), blake3::Hasher::new(), Vec::new());
    let mut add = |len: u64| {
        let bytes = &piece[..usize::try_from(len).expect("fits")];
        builder.update(bytes, |cv| cvs.extend_from_slice(&cv));
        plain.update(bytes);
        let (mut cvs, builder) = (cvs.clone(), builder.clone());
        let tree = builder.finish(|cv| cvs.extend_from_slice(&cv)).expect("not too long");
        assert_eq!(tree.blob.as_bytes(), plain.finalize().as_bytes(), "{}", tree.shape.size());
        (tree, cvs)
    };
    for _ in 0..GROUP_PIECES - 1 {
        add(PIECE);
    }
    for (len, groups) in [(PIECE - 1, 1), (1, 1), (1, 2), (PIECE - 1, 2), (PIECE, 2)] {
        let (tree, cvs) = add(len);
        assert_eq!(tree.shape.groups(), groups, "{}", tree.shape.size());
        let top = Top::check(tree.blob, tree.shape, tree.top).expect("its own top");
        for group in 0..groups {
            let page = top.page(group, page_of(tree.shape, &cvs, group)).expect("its own page");
            let last = (group + 1) * GROUP_PIECES - 1;
            if last * PIECE < tree.shape.size() && tree.shape.piece_len(last) == Some(PIECE_LEN) {
                let bytes = [&piece[..], &piece[..1]].concat();
                // Piece 1,023 was added in two parts.
                let bytes = [&bytes[..piece.len() - 1], &piece[..1]].concat();
                assert_eq!(page.check_piece(last, &bytes), Ok(()));
                assert!(page.check_piece(last - 1, &bytes).is_err());
            }
        }
    }
    assert!(cvs.len() as u64 >= gib / PIECE);
}

/// The official vectors of BLAKE3, which nobody here made.
#[test]
fn the_official_vectors_are_met() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures");
    let path = root.join("vectors/blake3/test_vectors.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("SKIPPED: {} is absent", path.display());
        return;
    };
    let vectors: serde_json::Value = serde_json::from_str(&text).expect("their JSON");
    let cases = vectors["cases"].as_array().expect("their cases");
    assert!(cases.len() > 30);
    for case in cases {
        let len = usize::try_from(case["input_len"].as_u64().expect("a length")).expect("fits");
        let bytes: Vec<u8> = (0..=250).cycle().take(len).collect();
        let want = &case["hash"].as_str().expect("a hash")[..64];
        for step in [1024, 100_000] {
            assert_eq!(build(&bytes, step).0.blob.to_string(), want, "{len}");
        }
    }
}

/// The tree as the paper has it: the left side is the largest power of two below the length.
fn naive(cvs: &[Cv], end: End) -> Cv {
    if let [one] = cvs {
        return *one;
    }
    let left = left_subtree_len(cvs.len() as u64 * PIECE) / PIECE;
    let (left, right) = cvs.split_at(usize::try_from(left).expect("fits"));
    let (left, right) = (naive(left, End::Inner), naive(right, End::Inner));
    match end {
        End::Root => *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes(),
        End::Inner => merge_subtrees_non_root(&left, &right, Mode::Hash),
    }
}

/// Chaining values out of nothing: what they are of is not needed to merge them.
fn cvs(count: u64) -> Vec<Cv> {
    let mut bytes = vec![0; usize::try_from(count).expect("fits") * CV_LEN];
    blake3::Hasher::new().update(&count.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.as_chunks().0.to_vec()
}

/// Rule S4: however many gibibytes, pages and top lead to the root of the one tree.
#[test]
fn pages_and_tops_are_subtrees_of_the_one_tree() {
    let (group, tib) = (GROUP_PIECES, GROUP_PIECES * GROUP_PIECES);
    let mut counts: Vec<u64> = (2..=9).collect();
    for groups in [1, 2, 3, 4, 5, 7, 8, 9, 31, 33] {
        counts.extend([groups * group - 1, groups * group, groups * group + 1]);
    }
    counts.extend([tib - 1, tib + 1]);
    for count in counts {
        let cvs = cvs(count);
        let blob = Hash::from_bytes(naive(&cvs, End::Root));
        let shape = Shape::new(count * PIECE).expect("fits");
        let pages: Vec<&[Cv]> = cvs.chunks(usize::try_from(group).expect("fits")).collect();
        let top = match pages.as_slice() {
            [_] => Vec::new(),
            pages => pages.iter().map(|page| naive(page, End::Inner)).collect(),
        };
        let top = Top::check(blob, shape, top.concat().into()).expect("leads to the name");
        for (index, page) in (0..).zip(pages) {
            assert!(top.page(index, page.concat().into()).is_ok(), "{count}: page {index}");
        }
    }
}

#[test]
fn a_file_that_is_resumed_gets_the_same_tree() {
    let mib = usize::try_from(PIECE).expect("fits");
    let bytes = content(4 * mib);
    let (tree, all) = build(&bytes, mib);
    for kept in 0..4 {
        let cvs = all.as_chunks().0[..kept].iter().copied();
        let mut builder = TreeBuilder::resume(cvs);
        assert_eq!(builder.size(), (kept * mib) as u64);
        let mut rest = Vec::new();
        builder.update(&bytes[kept * mib..], |cv| rest.extend_from_slice(&cv));
        assert_eq!(builder.finish(|cv| rest.extend_from_slice(&cv)), Some(tree.clone()));
        assert_eq!(rest, all[kept * CV_LEN..]);
    }
    let cvs = all.as_chunks().0.iter().copied();
    assert_eq!(TreeBuilder::resume(cvs).finish(drop), None, "nothing followed");
}

#[test]
fn shapes_have_the_lengths_that_they_say() {
    let gib = GROUP_PIECES * PIECE;
    let shape = |size| Shape::new(size).expect("not too long");
    for (size, pieces, groups, top, last_page, last_piece) in [
        (0, 1, 1, 0, 0, 0),
        (1, 1, 1, 0, 0, 1),
        (PIECE, 1, 1, 0, 0, PIECE),
        (PIECE + 1, 2, 1, 0, 64, 1),
        (gib, 1024, 1, 0, 32 * 1024, PIECE),
        (gib + 1, 1025, 2, 64, 32, 1),
        (BLOB_LEN_MAX, 1 << 26, 1 << 16, 2 << 20, 32 * 1024, PIECE),
    ] {
        let shape = shape(size);
        assert_eq!((shape.size(), shape.pieces(), shape.groups()), (size, pieces, groups));
        assert_eq!(shape.top_len(), top, "{size}");
        assert_eq!(shape.page_len(groups - 1), Some(last_page), "{size}");
        assert_eq!(shape.piece_len(pieces - 1).map(u64::from), Some(last_piece), "{size}");
        assert_eq!((shape.page_len(groups), shape.piece_len(pieces)), (None, None));
    }
    assert_eq!(Shape::new(BLOB_LEN_MAX + 1), None);
}

/// Rule S5: the length is proved by the last piece, and a tree of another shape is refused before it.
#[test]
fn a_size_that_is_not_the_blobs_own_is_found() {
    let mib = usize::try_from(PIECE).expect("fits");
    let bytes = content(3 * mib + 5);
    let (tree, cvs) = build(&bytes, mib);
    for size in [0, 1, PIECE, 2 * PIECE, 3 * PIECE, 4 * PIECE + 1, 2000 * PIECE] {
        let shape = Shape::new(size).expect("fits");
        let Ok(top) = Top::check(tree.blob, shape, Bytes::new()) else { continue };
        let len = usize::try_from(shape.page_len(0).expect("a page")).expect("fits");
        let page: Vec<u8> = cvs.iter().copied().chain([0; 64]).take(len).collect();
        let Ok(page) = top.page(0, page.into()) else { continue };
        for piece in 0..shape.pieces() {
            let len = shape.piece_len(piece).expect("a piece") as usize;
            assert!(page.check_piece(piece, &bytes[..len]).is_err(), "{size}: {piece}");
        }
    }
    // The same number of pieces: all but the last are right, and the last is not.
    let shape = Shape::new(3 * PIECE + 6).expect("fits");
    let top = Top::check(tree.blob, shape, Bytes::new()).expect("one group");
    let page = top.page(0, cvs.into()).expect("the same page");
    assert!(page.check_piece(0, &bytes[..mib]).is_ok());
    assert!(page.check_piece(3, &bytes[3 * mib..]).is_err());
    assert!(page.check_piece(3, &[&bytes[3 * mib..], &[0]].concat()).is_err());
}

/// A tree of two groups: the second has two pieces of which the last is short.
fn two_groups() -> (Hash, Shape, Vec<Cv>, Vec<u8>, Vec<u8>) {
    let bytes = content(usize::try_from(PIECE).expect("fits") + 77);
    let mut all = cvs(GROUP_PIECES);
    all.push(piece_cv(GROUP_PIECES, &bytes[..bytes.len() - 77]));
    all.push(piece_cv(GROUP_PIECES + 1, &bytes[bytes.len() - 77..]));
    let shape = Shape::new((GROUP_PIECES + 1) * PIECE + 77).expect("fits");
    let (first, second) = all.split_at(usize::try_from(GROUP_PIECES).expect("fits"));
    let top = [naive(first, End::Inner), naive(second, End::Inner)].concat();
    (Hash::from_bytes(naive(&all, End::Root)), shape, all, top, bytes)
}

fn flip(bytes: &[u8], bit: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    let bit = bit % (bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes.into()
}

proptest! {
    /// However a file is cut into reads, its tree is the same and checks it.
    #[test]
    fn any_file_in_any_steps_checks_against_its_name(
        len in 0..4 * PIECE_LEN as usize,
        step in 1..3 * PIECE_LEN as usize,
    ) {
        check(&content(len), step.max(997));
    }

    /// Rule S5: a flipped bit anywhere is found where it is.
    #[test]
    fn a_flipped_bit_anywhere_is_found(bit in any::<usize>()) {
        let (blob, shape, all, top, bytes) = two_groups();
        let good = Top::check(blob, shape, top.clone().into()).expect("its own top");
        prop_assert!(Top::check(blob, shape, flip(&top, bit)).is_err());
        let (first, second) = all.split_at(usize::try_from(GROUP_PIECES).expect("fits"));
        prop_assert!(good.page(0, first.concat().into()).is_ok());
        prop_assert!(good.page(0, flip(&first.concat(), bit)).is_err());
        prop_assert!(good.page(1, flip(&second.concat(), bit)).is_err());
        prop_assert!(good.page(1, first.concat().into()).is_err(), "another group's page");
        let page = good.page(1, second.concat().into()).expect("its own page");
        let (full, short) = bytes.split_at(bytes.len() - 77);
        prop_assert_eq!(page.check_piece(GROUP_PIECES, full), Ok(()));
        prop_assert_eq!(page.check_piece(GROUP_PIECES + 1, short), Ok(()));
        prop_assert!(page.check_piece(GROUP_PIECES, &flip(full, bit)).is_err());
        prop_assert!(page.check_piece(GROUP_PIECES + 1, &flip(short, bit)).is_err());
        prop_assert!(page.check_piece(GROUP_PIECES + 1, full).is_err());
        prop_assert!(page.check_piece(0, full).is_err(), "a piece of another group");
        let mut other = *blob.as_bytes();
        other[bit / 8 % 32] ^= 1 << (bit % 8);
        prop_assert!(Top::check(Hash::from_bytes(other), shape, top.into()).is_err());
    }
}
