//! The journal on disks that fill up, fail and lose what was not synced.

mod disk;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use commons_port::journal::{Change, Entry, Journal as _, JournalError, Table};
use futures::FutureExt as _;
use futures::executor::block_on;
use futures::future::join_all;
use proptest::prelude::*;
use redb::Database;

use super::{OpenJournalError, RedbJournal};
use disk::{Medium, Rng};

fn open(medium: &Arc<Medium>) -> Result<RedbJournal, OpenJournalError> {
    let medium = Arc::clone(medium);
    RedbJournal::open_with(PathBuf::from("journal.redb"), move || {
        Database::builder().set_cache_size(1 << 20).create_with_backend(medium.backend()?)
    })
}

fn put(key: u64, value: &[u8]) -> Change {
    Change::put(Table::Record, key.to_be_bytes(), value)
}

fn commit(journal: &RedbJournal, changes: Vec<Change>) -> Result<(), JournalError> {
    block_on(journal.commit(changes))
}

fn get(journal: &RedbJournal, key: u64) -> Option<Vec<u8>> {
    block_on(journal.get(Table::Record, key.to_be_bytes().to_vec())).expect("reads go on")
}

fn all(journal: &RedbJournal, table: Table) -> Vec<Entry> {
    block_on(journal.scan(table, Vec::new(), None, usize::MAX)).expect("reads go on")
}

#[test]
fn a_full_disk_refuses_a_commit_and_the_journal_goes_on() {
    let medium = Arc::new(Medium::default());
    let journal = open(&medium).expect("an empty disk");
    commit(&journal, vec![put(0, b"kept")]).expect("there is room");
    for refuse_growth in [true, false] {
        // Either the file may not grow, or it may and its new pages have no room: a sparse file.
        medium.set(|state| state.fill(refuse_growth));
        let mut refused = 0;
        for key in 1..=40_u64 {
            // Far more than the free pages that redb keeps inside its file.
            match commit(&journal, vec![put(key, &[7; 100_000]), put(1_000 + key, b"too")]) {
                Ok(()) => assert!(get(&journal, key).is_some(), "key {key} was acknowledged"),
                Err(JournalError::Full { .. }) => {
                    refused += 1;
                    assert_eq!(get(&journal, key), None, "key {key} was refused");
                    assert_eq!(get(&journal, 1_000 + key), None, "and with it its whole batch");
                }
                Err(other) => panic!("a full disk is not {other:?}"),
            }
            assert_eq!(get(&journal, 0).as_deref(), Some(b"kept".as_slice()));
        }
        assert!(refused > 0, "4 MB did not fit");
        medium.set(disk::State::free);
        commit(&journal, vec![put(40, b"again")]).expect("there is room again");
        assert_eq!(get(&journal, 40).as_deref(), Some(b"again".as_slice()));
        let remove = (1..=1_040).map(|key: u64| Change::remove(Table::Record, key.to_be_bytes()));
        commit(&journal, remove.collect()).expect("removing makes room");
    }
    drop(journal);
    let journal = open(&medium).expect("a healthy file");
    assert_eq!(all(&journal, Table::Record).len(), 1);
}

/// The sync of a commit fails, at each of the syncs that a commit makes, and the file opens
/// again at once or only later. What the caller was told is what is there, also after a crash;
/// nothing rests on pages that the failed sync forgot.
#[test]
fn a_failed_sync_leaves_what_the_caller_was_told() {
    for failing in 0..3 {
        for opens_refused in 0..3 {
            let medium = Arc::new(Medium::default());
            let journal = open(&medium).expect("an empty disk");
            commit(&journal, vec![put(1, b"old"), put(2, b"gone")]).expect("a healthy disk");
            medium.set(|state| {
                state.fail_sync_in = Some(failing);
                state.opens_refused = opens_refused;
            });
            let change = vec![
                put(1, b"new"),
                Change::remove(Table::Record, 2_u64.to_be_bytes()),
                Change::put(Table::Outbox, "elsewhere", "new"),
            ];
            let told = commit(&journal, change).is_ok();
            medium.set(|state| (state.fail_sync_in, state.opens_refused) = (None, 0));
            commit(&journal, vec![put(3, b"later")]).expect("a healthy disk again");
            let check = |journal: &RedbJournal| {
                let found = [1, 2, 3].map(|key| get(journal, key));
                let (first, second) = if told { ("new", None) } else { ("old", Some("gone")) };
                let want = [Some(first), second, Some("later")];
                let want = want.map(|it| it.map(|it| it.as_bytes().to_vec()));
                assert_eq!(found, want, "sync {failing}, {opens_refused} opens, told {told}");
                assert_eq!(all(journal, Table::Outbox).len(), usize::from(told));
            };
            check(&journal);
            medium.set(|state| state.power_off(&mut Rng::new(failing)));
            drop(journal);
            medium.set(|state| state.is_off = false);
            check(&open(&medium).expect("a file that was synced"));
        }
    }
}

#[test]
fn a_read_error_latches_nothing() {
    let medium = Arc::new(Medium::default());
    let journal = open(&medium).expect("an empty disk");
    let large = vec![3; 200_000];
    for key in 0..20 {
        commit(&journal, vec![put(key, &large)]).expect("a healthy disk"); // Beyond the cache.
    }
    medium.set(|state| state.fail_reads = true);
    let failed = (0..20).filter(|key| {
        let key: u64 = *key;
        block_on(journal.get(Table::Record, key.to_be_bytes().to_vec())).is_err()
    });
    assert!(failed.count() > 0, "4 MB are not in a cache of 1 MiB");
    medium.set(|state| state.fail_reads = false);
    commit(&journal, vec![put(99, b"later")]).expect("a healthy disk again");
    for key in 0..20 {
        assert_eq!(get(&journal, key).as_deref(), Some(large.as_slice()), "key {key}");
    }
}

/// The power fails at a random write or sync, and of what was not synced each piece is lost or
/// not. Every batch that was acknowledged is there, and none is half there.
#[test]
fn what_was_acknowledged_survives_a_power_failure() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let medium = Arc::new(Medium::default());
        let mut model = BTreeMap::new();
        for _ in 0..4 {
            let journal = open(&medium).unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
            let found: BTreeMap<_, _> = all(&journal, Table::Record).into_iter().collect();
            assert_eq!(found, model, "seed {seed}");
            let steps = rng.below(200);
            medium.set(|state| state.power_off_in = Some((steps, Rng::new(seed ^ steps))));
            let mut pending = model.clone();
            loop {
                let batch: Vec<_> = (0..=rng.below(5)).map(|_| any_put(&mut rng)).collect();
                for Change { key, value, .. } in &batch {
                    pending.insert(key.clone(), value.clone().expect("only puts here"));
                }
                if commit(&journal, batch).is_err() {
                    break;
                }
                model.clone_from(&pending);
            }
            drop(journal);
            medium.set(|state| state.is_off = false);
            // The batch in flight may be there, whole: its caller was never told.
            let journal = open(&medium).unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
            let found: BTreeMap<_, _> = all(&journal, Table::Record).into_iter().collect();
            assert!(found == model || found == pending, "seed {seed}: a batch is half there");
            model = found;
        }
    }
}

fn any_put(rng: &mut Rng) -> Change {
    let size = usize::try_from(rng.below(9_000)).expect("a small number");
    put(rng.below(40), &vec![u8::try_from(rng.below(256)).expect("a byte"); size])
}

#[test]
fn commits_that_wait_together_share_a_sync() {
    let medium = Arc::new(Medium::default());
    let journal = open(&medium).expect("an empty disk");
    let before = medium.set(|state| state.syncs);
    let commits = (0..200).map(|key| journal.commit(vec![put(key, b"value")]));
    assert!(block_on(join_all(commits)).iter().all(Result::is_ok));
    let syncs = medium.set(|state| state.syncs) - before;
    assert!(syncs < 100, "{syncs} syncs for 200 commits of two syncs each");
    assert_eq!(all(&journal, Table::Record).len(), 200);
}

#[test]
fn damage_is_called_damage() {
    let medium = Arc::new(Medium::default());
    drop(open(&medium).expect("an empty disk"));
    let check = |what: &str, damage: &dyn Fn(&mut Vec<u8>)| {
        let copy = Arc::new(Medium::default());
        copy.set(|state| {
            state.bytes = medium.set(|it| it.bytes.clone());
            damage(&mut state.bytes);
        });
        match open(&copy) {
            Err(OpenJournalError::Open { source: JournalError::Corrupt { .. }, .. }) => {}
            other => panic!("{what}: {other:?}"),
        }
    };
    check("another file", &|bytes| bytes[..9].copy_from_slice(b"\x89PNG\r\n\x1a\n\0"));
    check("a file cut in its header", &|bytes| bytes.truncate(100));
    check("a file cut in half", &|bytes| bytes.truncate(bytes.len() / 2));
}

#[test]
fn a_journal_of_a_newer_format_is_refused_and_left_alone() {
    let medium = Arc::new(Medium::default());
    drop(open(&medium).expect("an empty disk"));
    let backend = medium.backend().expect("a healthy disk");
    let database = Database::builder().create_with_backend(backend).expect("a healthy file");
    let transaction = database.begin_write().expect("a writer");
    let table = redb::TableDefinition::<&str, u64>::new("journal");
    transaction.open_table(table).expect("the table").insert("format", 2).expect("an entry");
    transaction.commit().expect("a commit");
    drop(database);
    match open(&medium) {
        Err(error @ OpenJournalError::NewerFormat { found: 2, .. }) => {
            let text = error.to_string();
            assert!(text.contains("format 2") && text.contains("install a newer"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_dropped_journal_finishes_what_is_queued_and_refuses_the_rest() {
    let medium = Arc::new(Medium::default());
    let journal = open(&medium).expect("an empty disk");
    let mut queued = journal.commit(vec![put(1, b"queued")]);
    let early = queued.as_mut().now_or_never(); // Queues it; the answer may even be there.
    let late = journal.commit(vec![put(2, b"late")]);
    drop(journal);
    assert!(early.unwrap_or_else(|| block_on(queued)).is_ok());
    assert!(matches!(block_on(late), Err(JournalError::Closed)));
    let journal = open(&medium).expect("a healthy file");
    assert_eq!((get(&journal, 1).is_some(), get(&journal, 2)), (true, None));
}

/// A few short keys over two letters: prefixes of each other, and often the same.
fn any_key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(255)], 0..4)
}

fn any_change() -> impl Strategy<Value = Change> {
    let table = prop_oneof![Just(Table::Record), Just(Table::Outbox)];
    let value = proptest::option::weighted(0.7, proptest::collection::vec(any::<u8>(), 0..4));
    (table, any_key(), value).prop_map(|(table, key, value)| Change { table, key, value })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is committed, the journal holds what a map would.
    #[test]
    fn the_journal_is_a_map(
        batches in proptest::collection::vec(proptest::collection::vec(any_change(), 0..6), 1..8),
        questions in proptest::collection::vec(
            (any_key(), proptest::option::of(any_key()), 0_usize..6),
            8,
        ),
    ) {
        let medium = Arc::new(Medium::default());
        let mut journal = open(&medium).expect("an empty disk");
        let mut model = BTreeMap::new();
        for (count, batch) in batches.into_iter().enumerate() {
            for Change { table, key, value } in batch.clone() {
                match value {
                    Some(value) => model.insert((table, key), value),
                    None => model.remove(&(table, key)),
                };
            }
            commit(&journal, batch).expect("a healthy disk");
            if count % 3 == 2 {
                drop(journal);
                journal = open(&medium).expect("a healthy file");
            }
        }
        for (prefix, after, limit) in questions {
            for table in [Table::Record, Table::Outbox, Table::Pair] {
                let answer = block_on(journal.get(table, prefix.clone())).expect("a healthy disk");
                prop_assert_eq!(answer.as_ref(), model.get(&(table, prefix.clone())));
                let found = journal.scan(table, prefix.clone(), after.clone(), limit);
                let found = block_on(found).expect("a healthy disk");
                let is_asked = |key: &[u8]| {
                    key.starts_with(&prefix) && after.as_deref().is_none_or(|after| key > after)
                };
                let want = model.iter().filter(|((of, key), _)| *of == table && is_asked(key));
                let want = want.map(|((_, key), value)| (key.clone(), value.clone()));
                prop_assert_eq!(found, want.take(limit).collect::<Vec<_>>());
            }
        }
    }
}
