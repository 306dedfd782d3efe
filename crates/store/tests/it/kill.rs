//! A process that is killed with -9 while it commits.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use commons_port::journal::{Change, Journal as _, Table};
use futures::executor::block_on;
use futures::future::join_all;

/// Names the folder that the child works in; without it the child's test does nothing.
const FOLDER: &str = "COMMONS_STORE_TEST_FOLDER";

/// Batches that are committed at once, so that the group commit is what is killed.
const WIDTH: u64 = 4;

/// Entries of one batch: all of them are there or none.
const BATCH_LEN: u64 = 7;

/// Not a test of its own: [`what_was_acknowledged_survives_a_kill`] runs this binary again with
/// only this test, and kills it.
#[test]
fn child_that_commits_until_it_is_killed() {
    #[expect(clippy::disallowed_methods, reason = "how a test tells its child what it is")]
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let journal = super::open(Path::new(&folder));
    let first = next_batch(&super::all(&journal, Table::Record));
    for batch in (first..).step_by(usize::try_from(WIDTH).expect("a small number")) {
        let batches = batch..batch + WIDTH;
        let commits = batches.clone().map(|batch| journal.commit(changes(batch)));
        assert!(block_on(join_all(commits)).iter().all(Result::is_ok));
        // The line is the acknowledgement: what was printed must be there.
        println!("acknowledged {}", batches.end);
    }
}

fn changes(batch: u64) -> Vec<Change> {
    let keys = (0..BATCH_LEN).map(|entry| [batch.to_be_bytes(), entry.to_be_bytes()].concat());
    keys.map(|key| Change::put(Table::Record, key, vec![7; 500])).collect()
}

fn next_batch(entries: &[(Vec<u8>, Vec<u8>)]) -> u64 {
    entries.len() as u64 / BATCH_LEN
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut acknowledged = 0;
    for round in 1..=5_usize {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["kill::child_that_commits_until_it_is_killed", "--exact", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test runs again");
        let output = child.stdout.take().expect("a pipe");
        // Killed after a number of acknowledgements, in the middle of whatever comes next.
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        let mut lines = lines.filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok());
        for _ in 0..round * 3 {
            acknowledged = lines.next().expect("the child commits until it is killed");
        }
        child.kill().expect("a running child"); // SIGKILL.
        child.wait().expect("it is dead");
        acknowledged = lines.last().unwrap_or(acknowledged);

        let journal = super::open(folder.path());
        let entries = super::all(&journal, Table::Record);
        let batches = next_batch(&entries);
        assert!(batches >= acknowledged, "{batches} batches of {acknowledged} acknowledged ones");
        let want = (0..batches).flat_map(changes).map(|change| change.key);
        assert!(want.eq(entries.into_iter().map(|(key, _)| key)), "a batch is half there");
    }
}
