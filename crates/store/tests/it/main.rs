//! The crate as a node uses it: a real folder, real files, a real kill.

mod data_dir;
mod golden;
mod kill;

use std::path::Path;

use commons_port::journal::{Change, Entry, Journal as _, Table};
use commons_store::{DataDir, RedbJournal};
use futures::executor::block_on;

fn open(path: &Path) -> RedbJournal {
    let dir = DataDir::open(path).expect("a folder of ours");
    RedbJournal::open(&dir).expect("a healthy journal")
}

fn commit(journal: &RedbJournal, changes: Vec<Change>) {
    block_on(journal.commit(changes)).expect("a healthy disk");
}

fn all(journal: &RedbJournal, table: Table) -> Vec<Entry> {
    block_on(journal.scan(table, Vec::new(), None, usize::MAX)).expect("a healthy disk")
}
