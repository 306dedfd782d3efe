//! Plans and surveys, against a byte by byte reading of the same recipe.

#![expect(clippy::single_range_in_vec_init, reason = "one gap")]

use commons_record::Hash;
use proptest::prelude::*;

use super::*;

const PIECE: u64 = PIECE_LEN as u64;

/// Chunks of these lengths; those that are marked are held, 1,000 bytes into some blob each.
fn chunks(lens: &[(u32, bool)]) -> Vec<(Chunk, Option<Place>)> {
    let mut end = 0;
    let chunk = |&(len, is_held): &(u32, bool)| {
        end += u64::from(len);
        let chunk = Chunk { hash: Hash::of_content(&end.to_le_bytes()), end, len };
        let place = Place { blob: Hash::of_content(b"held"), offset: end + 1_000, len };
        (chunk, is_held.then_some(place))
    };
    lens.iter().map(chunk).collect()
}

fn size(lens: &[(u32, bool)]) -> u64 {
    lens.iter().map(|(len, _)| u64::from(*len)).sum()
}

fn survey(chunks: &[(Chunk, Option<Place>)]) -> (Vec<(u64, Local)>, Saving) {
    let (mut survey, mut found) = (Survey::new(), Vec::new());
    for (chunk, place) in chunks {
        survey.push(chunk, place.is_some(), |piece, local| found.push((piece, local)));
    }
    let saving = survey.finish(|piece, local| found.push((piece, local)));
    (found, saving)
}

#[test]
fn a_piece_is_copied_around_what_is_missing() {
    let chunks = chunks(&[(100_000, true), (50_000, false), (1_000_000, true)]);
    let first = plan(0, 1_150_000, &chunks);
    assert_eq!(first.gaps, [100_000..150_000]);
    let at: Vec<_> = first.copies.iter().map(|it| it.at.clone()).collect();
    assert_eq!(at, [0..100_000, 150_000..PIECE_LEN]);
    let second = plan(1, 1_150_000, &chunks);
    assert_eq!((second.copies.len(), second.gaps.len()), (1, 0));
    let (found, saving) = survey(&chunks);
    assert_eq!(found, [(0, Local::Part), (1, Local::Whole)]);
    assert_eq!(saving, Saving { local: 1_100_000, fetched: 50_000 });
}

#[test]
fn a_place_of_another_length_and_a_chunk_out_of_order_are_not_copied() {
    let mut found = chunks(&[(100_000, true), (100_000, true)]);
    if let Some(place) = &mut found[0].1 {
        place.len -= 1;
    }
    assert_eq!(plan(0, 200_000, &found).gaps, [0..100_000]);
    let found = chunks(&[(100_000, true), (100_000, true)]);
    let twice = [found[1], found[0], found[1]];
    assert_eq!(plan(0, 200_000, &twice).gaps, [0..100_000]);
    assert_eq!(plan(0, 0, &[]), PiecePlan::default());
    assert_eq!(plan(u64::MAX, 5, &found), PiecePlan::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn copies_and_gaps_cover_each_piece_once(
        lens in proptest::collection::vec((16_384_u32..=262_144, any::<bool>()), 1..60),
    ) {
        let (chunks, size) = (chunks(&lens), size(&lens));
        let mut saving = Saving::default();
        let mut found = Vec::new();
        for piece in 0..size.div_ceil(PIECE) {
            let plan = plan(piece, size, &chunks);
            let len = (size - piece * PIECE).min(PIECE);
            let copies = plan.copies.iter().map(|it| it.at.clone());
            let mut parts: Vec<_> = copies.chain(plan.gaps.iter().cloned()).collect();
            parts.sort_by_key(|it| it.start);
            let mut end = 0;
            for part in parts {
                prop_assert_eq!(part.start, end);
                prop_assert!(part.start < part.end);
                end = part.end;
            }
            prop_assert_eq!(u64::from(end), len);
            prop_assert!(plan.gaps.len() <= crate::fetch::GAPS_MAX);
            for copy in &plan.copies {
                // The place says where the byte is: chunks here lie 1,000 bytes on plus their length.
                let byte = piece * PIECE + u64::from(copy.at.start);
                let (chunk, place) = chunks.iter().find(|(it, _)| it.end > byte).unwrap();
                prop_assert_eq!(copy.from.offset, place.unwrap().offset + byte - chunk.start());
                prop_assert_eq!(copy.from.len, copy.at.end - copy.at.start);
            }
            let gaps: u64 = plan.gaps.iter().map(|it| u64::from(it.end - it.start)).sum();
            saving.fetched += gaps;
            saving.local += len - gaps;
            match plan.gaps.is_empty() {
                true => found.push((piece, Local::Whole)),
                false if gaps < len => found.push((piece, Local::Part)),
                false => {}
            }
        }
        prop_assert_eq!(survey(&chunks), (found, saving));
    }
}
