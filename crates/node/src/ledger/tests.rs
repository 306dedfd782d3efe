//! Sequence numbers and pair positions over a journal in memory.

use std::collections::BTreeMap;

use commons_port::BoxFuture;
use commons_port::journal::Entry as Row;
use commons_record::{Credits, SecretKey};
use futures::executor::block_on;

use super::*;

/// A journal in memory. It outlives the ledgers on it, as a disk does.
#[derive(Default)]
struct Memory(Mutex<Rows>);

type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

impl Journal for Memory {
    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'static, Result<(), JournalError>> {
        let mut rows = lock(&self.0);
        for Change { table, key, value } in changes {
            match value {
                Some(value) => rows.insert((table, key), value),
                None => rows.remove(&(table, key)),
            };
        }
        Box::pin(async { Ok(()) })
    }

    fn get(
        &self,
        table: Table,
        key: Vec<u8>,
    ) -> BoxFuture<'static, Result<Option<Vec<u8>>, JournalError>> {
        let value = lock(&self.0).get(&(table, key)).cloned();
        Box::pin(async { Ok(value) })
    }

    fn scan(
        &self,
        _: Table,
        _: Vec<u8>,
        _: Option<Vec<u8>>,
        _: usize,
    ) -> BoxFuture<'static, Result<Vec<Row>, JournalError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

fn all_of(mut range: SequenceRange) -> Vec<u64> {
    std::iter::from_fn(|| range.take()).collect()
}

#[test]
fn sequence_numbers_increase_and_a_crash_leaves_a_gap() {
    // Rule R8
    let disk = Arc::new(Memory::default());
    let (mut last, mut seen) = (0, 0);
    for run in 0..3 {
        // Each run begins with what is on the disk; what was reserved in memory is gone.
        let ledger = Ledger::new(disk.clone());
        for count in [1, 5, RESERVATION, 3] {
            let numbers = all_of(block_on(ledger.sequences(count)).expect("the journal works"));
            assert_eq!(numbers.len() as u64, count, "run {run}");
            for number in numbers {
                assert!(number > last, "{number} follows {last} in run {run}");
                (last, seen) = (number, seen + 1);
            }
        }
    }
    assert!(last > seen, "three runs left no gap: {last} numbers for {seen}");
}

#[test]
fn a_pair_position_is_read_under_its_turn() {
    // Rule E9
    let ledger = Ledger::new(Arc::new(Memory::default()));
    let peer = |seed| PeerId::from_key(SecretKey::from_seed(&[seed; 32]).public());
    let (us, them) = (peer(1), peer(2));
    for expected in 0..3 {
        let turn = block_on(ledger.pair_turn(&us, &them)).expect("the journal works");
        let (_turn, last) = turn;
        assert_eq!(last.sequence, expected);
        let next = last.next(Credits::from_micro(7)).expect("a small sum");
        let value = codec::encode(&next);
        let change = Change::put(Table::Pair, pair_key(&us, &them), value);
        block_on(ledger.journal.commit(vec![change])).expect("the journal works");
        assert_eq!(next.cumulative, Credits::from_micro(7 * (expected + 1)));
    }
}
