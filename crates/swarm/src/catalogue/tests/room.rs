//! Who loses what when there is no room (Rule C6).

use super::*;

/// A release whose record has about `size` bytes.
fn of_size(name: &str, size: usize) -> Release {
    let lines = size.saturating_sub(900) / 1_000;
    let tags = |at: usize| format!("{at:02}{}", "x".repeat(60));
    let file = |at: usize| ReleaseFile {
        path: format!("{at:04}{}", "y".repeat(190)).parse().expect("a path"),
        blob: hash(1),
        size: 1,
        sha256: None,
        recipe: None,
    };
    let files = (0..=lines * 4).map(file).collect();
    Release { files, tags: vec![tags(0)], ..release(name, "1") }
}

fn invariants(catalogue: &Catalogue) {
    let total: usize = catalogue.releases.values().map(|it| it.size).sum();
    assert_eq!(total, catalogue.bytes);
    let shelved: usize = catalogue.shelves.values().map(|it| it.bytes).sum();
    assert_eq!(shelved, total);
    let count: usize = catalogue.shelves.values().map(|it| it.releases.len()).sum();
    assert_eq!(count, catalogue.releases.len());
    let named: usize = catalogue.by_name.values().map(BTreeSet::len).sum();
    assert_eq!(named, count);
    for id in catalogue.releases.keys() {
        assert!(catalogue.contains(id));
    }
}

#[test]
fn an_author_with_too_much_loses_its_own_oldest() {
    let limits = Limits { bytes_per_author: 3_000, ..Limits::default() };
    let mut catalogue = Catalogue::new([owner_id(AUTHORITY)], limits);
    let first = publish(&mut catalogue, MALLORY, 10, release("m/a", "1"));
    let second = publish(&mut catalogue, MALLORY, 11, release("m/b", "1"));
    let size = catalogue.release(&first).expect("it is here").size;
    assert!((700..1_400).contains(&size), "the numbers of this test: {size}");
    let mut sequence = 12;
    loop {
        let record = node(MALLORY).sign(sequence, release("m/c", "1"));
        match catalogue.admit_release(&record) {
            Admission::Kept { gone } if gone.is_empty() => sequence += 1,
            Admission::Kept { gone } => {
                assert_eq!(gone, [first]);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(catalogue.release(&second).is_some());
    let older = catalogue.admit_release(&node(MALLORY).sign(1, release("m/old", "1")));
    let refused = Admission::Refused(NotKept::NoRoom { owner: owner_id(MALLORY) });
    assert_eq!(older, refused, "it would be the next to go");
    invariants(&catalogue);
}

// Rule C6
#[test]
fn a_flood_of_many_authors_leaves_a_small_one_alone() {
    let limits = Limits { bytes: 40_000, bytes_per_author: 20_000, ..Limits::default() };
    let mut catalogue = Catalogue::new([owner_id(AUTHORITY)], limits);
    let small = publish(&mut catalogue, ALICE, 1, release("a/small", "1"));
    let bound = publish(&mut catalogue, MALLORY, 1, of_size("m/bound", 4_000));
    bind(&mut catalogue, 1, binding("m/bound", None, Some(bound), 1));
    for round in 2..40 {
        for flooder in [MALLORY, 10, 11, 12] {
            let body = of_size(&format!("m/x{round}"), 5_000);
            catalogue.admit_release(&node(flooder).sign(round, body));
            assert!(catalogue.bytes <= 40_000, "{}", catalogue.bytes);
        }
    }
    assert!(catalogue.release(&small).is_some(), "it has the least");
    assert!(catalogue.release(&bound).is_some(), "an authority named it");
    invariants(&catalogue);
}

#[test]
fn what_is_waited_for_finds_room() {
    let limits = Limits { bytes: 12_000, bytes_per_author: 6_000, ..Limits::default() };
    let mut catalogue = Catalogue::new([owner_id(AUTHORITY)], limits);
    let wanted = node(ALICE).sign(1, of_size("a/wanted", 3_000));
    bind(&mut catalogue, 1, binding("a/wanted", None, Some(wanted.id()), 1));
    for sequence in 2..12 {
        catalogue.admit_release(&node(ALICE).sign(sequence, release("a/x", "1")));
    }
    let admission = catalogue.admit_release(&wanted);
    assert!(matches!(admission, Admission::Kept { .. }), "{admission:?}");
    assert_eq!(resolved(&catalogue, "a/wanted"), wanted.id());
    invariants(&catalogue);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever comes in whatever order: bounds hold, books agree, and whoever stays below an
    /// equal share loses nothing.
    #[test]
    fn an_author_below_its_share_loses_nothing(
        steps in prop::collection::vec((0..5_u8, 0..1_000_u64, 0..4_usize), 1..60),
    ) {
        let limits = Limits { bytes: 30_000, bytes_per_author: 15_000, ..Limits::default() };
        let mut catalogue = Catalogue::new([owner_id(AUTHORITY)], limits);
        let own = publish(&mut catalogue, ALICE, 1, release("a/own", "1"));
        for (author, sequence, weight) in steps {
            let body = of_size("m/x", 1_000 + weight * 2_000);
            catalogue.admit_release(&node(10 + author).sign(sequence, body));
            prop_assert!(catalogue.bytes <= 30_000);
            let heaviest = catalogue.shelves.values().map(|it| it.bytes).max();
            prop_assert!(heaviest.unwrap_or_default() <= 15_000);
            // Six authors share 30,000 bytes; one with a fifth of that has nothing to fear.
            prop_assert!(catalogue.release(&own).is_some());
        }
        invariants(&catalogue);
    }
}
