//! The disk alone: batches are whole, in order, and survive what they should.

use proptest::prelude::*;

use super::*;
use crate::entropy::Rng;
use crate::executor::Schedule;
use crate::life::NodeId;

struct Lab {
    executor: Executor,
    disk: Arc<Disk>,
}

impl Lab {
    fn new(seed: u64) -> Self {
        let executor = Executor::new(seed, Schedule::Shuffled);
        let log = Arc::new(Log::new(executor.clone()));
        let disk = Disk::new(executor.clone(), log, Rng::new(seed, "disk", 0));
        Self { executor, disk }
    }

    fn open(&self, run: u32) -> (SimJournal, Arc<Life>) {
        let life = Arc::new(Life::new(NodeId(0), run));
        (SimJournal::new(Arc::clone(&self.disk), Arc::clone(&life)), life)
    }

    fn keys(&self) -> Vec<Vec<u8>> {
        self.disk.table(Table::Record).into_iter().map(|(key, _)| key).collect()
    }
}

/// Batch `number` of two keys.
fn batch(number: u8) -> Vec<Change> {
    [0, 1].map(|part| Change::put(Table::Record, [number, part], [part])).to_vec()
}

#[test]
fn a_commit_that_completed_is_read_back_by_the_next_run() {
    let lab = Lab::new(1);
    let (journal, life) = lab.open(0);
    assert!(matches!(lab.executor.block_on(journal.commit(batch(1))), Ok(Ok(()))));
    life.end();
    lab.disk.crash();
    let (journal, _life) = lab.open(1);
    let read = lab.executor.block_on(journal.get(Table::Record, vec![1, 0]));
    assert!(matches!(read, Ok(Ok(Some(value))) if value == [0]));
    let late = lab.executor.block_on(journal.get(Table::State, vec![1, 0]));
    assert!(matches!(late, Ok(Ok(None))), "tables are apart");
}

#[test]
fn scans_go_by_prefix_in_pages_and_stay_in_their_table() {
    let lab = Lab::new(1);
    let (journal, _life) = lab.open(0);
    let mut changes: Vec<Change> = (1..5).flat_map(batch).collect();
    changes.push(Change::put(Table::Exchange, [2, 9], [0]));
    let scanned = lab.executor.block_on(async {
        journal.commit(changes).await?;
        let first = journal.scan(Table::Record, vec![2], None, 1).await?;
        let rest = journal.scan(Table::Record, vec![2], Some(vec![2, 0]), 9).await?;
        let all = journal.scan(Table::Record, Vec::new(), None, 99).await?;
        Ok::<_, JournalError>((first, rest, all.len()))
    });
    let keys = |entries: &[Entry]| entries.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    let Ok(Ok((first, rest, all))) = scanned else { panic!("{scanned:?}") };
    assert_eq!((keys(&first), keys(&rest), all), (vec![vec![2, 0]], vec![vec![2, 1]], 8));
}

#[test]
fn a_full_disk_takes_nothing_of_a_batch_and_works_again_with_room() {
    let lab = Lab::new(1);
    let (journal, _life) = lab.open(0);
    lab.disk.set_full_when(|changes| changes.iter().any(|it| it.key.first() == Some(&2)));
    let results = lab.executor.block_on(async {
        let first = journal.commit(batch(1)).await;
        let second = journal.commit(batch(2)).await;
        let third = journal.commit(batch(3)).await;
        lab.disk.set_full(false);
        [first.is_ok(), second.is_ok(), third.is_ok(), journal.commit(batch(4)).await.is_ok()]
    });
    assert_eq!(results, Ok([true, false, false, true]));
    assert_eq!(lab.keys(), [[1, 0], [1, 1], [4, 0], [4, 1]]);
}

#[test]
fn a_run_that_is_over_commits_nothing() {
    let lab = Lab::new(1);
    let (journal, life) = lab.open(0);
    life.end();
    let result = lab.executor.block_on(journal.commit(batch(1)));
    assert!(matches!(result, Ok(Err(JournalError::Closed))), "{result:?}");
    assert!(lab.keys().is_empty());
}

#[test]
fn a_failing_read_is_told() {
    let lab = Lab::new(1);
    let (journal, _life) = lab.open(0);
    lab.disk.set_read_failure(Some(JournalError::Io { detail: "simulated".to_owned() }));
    let read = lab.executor.block_on(journal.get(Table::Record, vec![1]));
    assert!(matches!(read, Ok(Err(JournalError::Io { .. }))), "{read:?}");
}

proptest! {
    /// Whenever the crash comes, whole batches are durable, in order, and all that were told of.
    #[test]
    fn a_crash_keeps_a_first_part_of_whole_batches(seed: u64, crash_us in 0_u64..30_000) {
        let lab = Lab::new(seed);
        let (journal, life) = lab.open(0);
        let told = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = (0..5_u8).map(|number| {
            let (commit, told) = (journal.commit(batch(number)), Arc::clone(&told));
            let run = async move {
                if commit.await.is_ok() {
                    lock(&told).push(number);
                }
            };
            lab.executor.spawn(Some(NodeId(0)), "commit", Box::pin(run))
        }).collect();
        let slept = lab.executor.block_on(lab.executor.sleep(Micros(crash_us)));
        prop_assert_eq!(slept, Ok(()));
        life.end();
        lab.disk.crash();
        lab.executor.stop_node(NodeId(0));
        prop_assert_eq!(lab.executor.run_until_quiet(), Ok(()));

        let keys = lab.keys();
        for number in 0..5_u8 {
            let parts = keys.iter().filter(|key| key.first() == Some(&number)).count();
            prop_assert!(parts == 0 || parts == 2, "batch {} is durable in part", number);
            let was_told = lock(&told).contains(&number);
            prop_assert!(!was_told || parts == 2, "batch {} was confirmed and is gone", number);
        }
        prop_assert_eq!(lab.disk.commits() * 2, keys.len() as u64);
        drop(tasks);
    }
}
