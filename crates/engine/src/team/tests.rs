//! Teams compute what one thread would, whoever is late, and pass panics on.

use std::sync::Barrier;
use std::sync::atomic::AtomicUsize;

use proptest::prelude::*;

use super::*;

fn team(threads: usize) -> Team {
    Team::new(threads, Isa::SCALAR).expect("threads start")
}

/// A matrix whose elements say where they stand.
fn places(tile: &Tile, values: &mut [f32]) {
    let mut value = values.iter_mut();
    for row in tile.rows.clone() {
        for column in tile.columns.clone() {
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let place = (row * 1_000 + column) as f32;
            *value.next().expect("as many values as elements") = place;
        }
    }
}

#[test]
fn a_late_helper_is_not_waited_for_and_what_it_computed_is_thrown_away() {
    let mut team = team(2);
    // The helper is held inside its first tile until the job is over.
    let (gate, caller) = (Arc::new(Barrier::new(2)), std::thread::current().id());
    let held = Arc::new(AtomicBool::new(false));
    let output = {
        let (gate, held) = (Arc::clone(&gate), Arc::clone(&held));
        team.run(Tiles::new(8, 1, &[10], 10), move |tile, values, _| {
            let is_helper = std::thread::current().id() != caller;
            if is_helper && !held.swap(true, Ordering::SeqCst) {
                gate.wait();
                values.fill(-1.0);
                return;
            }
            while !held.load(Ordering::SeqCst) {
                std::hint::spin_loop();
            }
            places(tile, values);
        })
    };
    gate.wait();
    let mut wanted = vec![0.0; 80];
    places(&Tile { rows: 0..8, columns: 0..10 }, &mut wanted);
    assert_eq!(output, wanted);
    // The helper is back for the next job.
    let next = team.run(Tiles::new(2, 1, &[3], 3), |tile, values, _| places(tile, values));
    assert_eq!(next, [0.0, 1.0, 2.0, 1000.0, 1001.0, 1002.0]);
}

#[test]
fn a_panic_in_a_job_reaches_the_caller_wherever_it_happened() {
    for panics_in_helper in [false, true] {
        let mut team = team(2);
        let caller = std::thread::current().id();
        let seen = Arc::new(AtomicUsize::new(0));
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            team.run(Tiles::new(64, 1, &[1], 1), move |_, _, _| {
                let is_helper = std::thread::current().id() != caller;
                assert!(is_helper != panics_in_helper, "a kernel divides by zero, say");
                // The other thread gets its turn before this one takes all tiles.
                while seen.fetch_add(1, Ordering::SeqCst) > 1_000_000 {}
            })
        }));
        // A helper that never got a tile did not panic; the caller always gets one.
        assert!(outcome.is_err() || panics_in_helper);
    }
}

#[test]
fn a_helper_that_sleeps_wakes_for_the_next_job_and_for_the_end() {
    let mut team = team(3);
    for round in 0..200u32 {
        let output = team.run(Tiles::new(3, 1, &[2], 1), move |_, values, _| {
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            values.fill(round as f32);
        });
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let wanted = vec![round as f32; 6];
        assert_eq!(output, wanted);
    }
    assert_eq!(team.threads(), 3);
}

proptest! {
    #[test]
    fn every_element_is_computed_once_whatever_the_cut(
        threads in 1_usize..5,
        rows in 0_usize..40,
        row_len in 0_usize..9,
        parts in proptest::collection::vec(0_usize..50, 0..4),
        column_len in 0_usize..20,
    ) {
        let mut team = team(threads);
        let columns: usize = parts.iter().sum();
        let tiles = Tiles::new(rows, row_len, &parts, column_len);
        let wanted_count = tiles.value_count();
        let output = team.run(tiles, |tile, values, _| places(tile, values));
        prop_assert_eq!(output.len(), wanted_count);
        if rows > 0 && columns > 0 {
            let mut wanted = vec![0.0; rows * columns];
            places(&Tile { rows: 0..rows, columns: 0..columns }, &mut wanted);
            prop_assert_eq!(output, wanted);
        }
    }
}

/// Who computes tiles of a long job: how many threads.
fn who_computes(team: &mut Team, threads: usize) -> usize {
    let ids = Arc::new(Mutex::new(std::collections::BTreeSet::new()));
    // Each thread that takes part waits in its first tile until all have come.
    let (gate, seen) = (Arc::new(Barrier::new(threads)), Arc::clone(&ids));
    team.run(Tiles::new(64, 1, &[1], 1), move |tile, values, _| {
        let id = format!("{:?}", std::thread::current().id());
        if seen.lock().expect("nobody panics").insert(id) {
            gate.wait();
        }
        places(tile, values);
    });
    ids.lock().expect("nobody panics").len()
}

#[test]
fn so_many_take_part_as_were_told_and_the_others_come_back() {
    let mut team = team(4);
    for members in [4, 2, 1, 3, 4, 1, 2, 4] {
        team.take_part(members);
        assert_eq!(team.threads(), members);
        assert_eq!(who_computes(&mut team, members), members);
    }
    team.take_part(0);
    assert_eq!(team.threads(), 1, "the caller always computes");
    team.take_part(9);
    assert_eq!(team.threads(), 4, "there are no more");
    // A team is dissolved while some rest.
    team.take_part(2);
    assert_eq!(who_computes(&mut team, 2), 2);
    drop(team);
}
