//! Which work a batch is for a device: rows, pages and positions of mixed batches.

use std::path::Path;

use super::*;
use crate::forward::Segment;
use crate::weights::Weights;

/// Some settings: what a plan asks of them is how many heads share a key, and who sees whom.
fn settings() -> Settings {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families/llama");
    Weights::open(&folder).expect("opens").settings().clone()
}

/// Plans sequences of `(start, tokens)` and checks, for each row, that it is in one place and sees
/// there what its span says, in pages of its own sequence.
fn check(sequences: &[(usize, usize)], window: Option<usize>) -> usize {
    let settings = settings();
    let tokens = vec![1; sequences.iter().map(|it| it.1).max().unwrap_or(0)];
    let pages_each = 8;
    let count = sequences.len();
    let pages = |index: usize| (0..pages_each).map(move |page| to_u32(page * count + index));
    let pages: Vec<Vec<u32>> = (0..sequences.len()).map(|index| pages(index).collect()).collect();
    let segments: Vec<_> = sequences
        .iter()
        .zip(&pages)
        .map(|(&(start, count), pages)| Segment {
            tokens: &tokens[..count],
            start,
            pages,
            positions_max: 0,
            wanted: 0,
            adapter: None,
        })
        .collect();
    let batch = Batch::new(&settings, &segments);
    let view = View::new(&Device::Cpu, &batch, &settings, window).expect("plans");
    let count = batch.places.len();
    let order = match &view.order {
        Some(order) => order.to_vec1::<u32>().expect("reads"),
        None => (0..to_u32(count)).collect(),
    };
    assert_eq!(order.len(), count);
    for (row, &place) in order.iter().enumerate() {
        let mut place = place as usize;
        let group = view.groups.iter().find(|group| {
            let size = group.shape.0 * group.shape.1;
            let is_here = place < size;
            place -= if is_here { 0 } else { size };
            is_here
        });
        let group = group.expect("is in a group");
        let (_, rows, len) = group.shape;
        assert_eq!(group.rows.to_vec1::<u32>().expect("reads")[place], to_u32(row));
        let mask: Vec<f32> = group.mask.flatten_all().and_then(|it| it.to_vec1()).expect("reads");
        let slots: Vec<u32> = group.slots.to_vec1().expect("reads");
        let slots = &slots[place / rows * len..][..len];
        let seen = mask[place * len..][..len].iter().zip(slots).filter(|(mask, _)| **mask == 0.0);
        let seen: Vec<u32> = seen.map(|(_, slot)| *slot).collect();
        let (segment, _) = batch.places[row];
        let span = batch.span(row, window, settings.kind);
        let wanted: Vec<u32> =
            span.map(|position| slot(&batch, segment, position as usize)).collect();
        assert_eq!(seen, wanted, "row {row} of {sequences:?}");
        let own = |slot: &u32| pages[segment].contains(&(slot / to_u32(PAGE_LEN)));
        assert!(slots.iter().all(own), "row {row} of {sequences:?} reads another's page");
    }
    view.groups.len()
}

#[test]
fn each_row_sees_its_own_span_wherever_it_is_grouped() {
    for window in [None, Some(1), Some(40)] {
        check(&[(0, 1)], window);
        check(&[(0, 70)], window);
        check(&[(63, 1), (0, 33), (5, 3), (200, 1), (30, 4), (0, 1)], window);
        check(&[(7, 2), (7, 3), (100, 2), (101, 3)], window);
    }
}

#[test]
fn steps_of_like_length_are_one_group() {
    assert_eq!(check(&[(100, 1), (90, 1), (120, 1), (70, 1)], None), 1);
    // Filling up one position to 200 would be work for nothing.
    assert_eq!(check(&[(200, 1), (0, 1)], None), 2);
    assert_eq!(check(&[(200, 1), (150, 50)], None), 2);
}

#[test]
fn no_group_takes_more_than_there_is_room_for() {
    let check = |count: usize, rows: usize, len: usize, cost: Cost| {
        let tile = |at: usize| Tile { rows: at * rows..(at + 1) * rows, positions: 0..len };
        let piles = piles((0..count).map(tile).collect(), cost);
        assert_eq!(piles.iter().map(Vec::len).sum::<usize>(), count);
        let numbers = |pile: &Vec<Tile>| pile.len() * cost.numbers(rows, len);
        assert!(piles.iter().all(|pile| numbers(pile) <= NUMBERS_MAX), "{}", piles.len());
        piles.len()
    };
    let cost = Cost { heads: 32, kv_width: 1024 };
    // Chunks, where scores weigh; and steps, where what is looked up does.
    assert!(check(20, 64, 4096, cost) > 1);
    assert!(check(16, 1, 8_192, cost) > 1);
    assert_eq!(check(16, 1, 1_024, cost), 1);
}
