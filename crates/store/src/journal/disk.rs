//! The database file: transactions on it, and opening it again after an error.
//!
//! Every transaction adds one to a counter in the table `journal`. When a commit fails, what
//! reached the disk is unknown: a failed sync may leave a whole transaction in the operating
//! system's cache. So the file is opened again and the counter tells. If the transaction is
//! there, it is synced and its callers are told that it is. If the file cannot be opened either,
//! the callers are told of the error and the old values are kept; whenever the file opens again
//! and the transaction turns out to be there, it is undone before anything else happens.

use std::io;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use commons_port::journal::{Change, Entry, JournalError, Table};
use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition};

/// The format of the file: the tables of `port::journal` with bytes as keys and values, and the
/// table `journal`.
pub(super) const FORMAT: u64 = 1;

const JOURNAL: TableDefinition<&str, u64> = TableDefinition::new("journal");
const FORMAT_KEY: &str = "format";
const COUNTER_KEY: &str = "commits";

/// Opens the database, each time anew.
type Open = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

const fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

/// A question for many entries.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) table: Table,
    pub(super) prefix: Vec<u8>,
    pub(super) after: Option<Vec<u8>>,
    pub(super) limit: usize,
}

/// The file, open or to be opened again.
pub(super) struct Disk {
    open: Open,
    /// Whoever uses the database holds the lock for reading; reopening takes it for writing.
    current: RwLock<Current>,
}

struct Current {
    database: Option<Database>,
    /// Counts openings, so that two who saw the same error reopen once.
    generation: u64,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

impl Disk {
    pub(super) fn new(open: Open) -> Self {
        Self { open, current: RwLock::new(Current { database: None, generation: 0 }) }
    }

    /// Opens for the first time and returns the file's format; a new file is given ours.
    pub(super) fn prepare(&self) -> Result<u64, JournalError> {
        self.reopen(0)?;
        self.with(|database| {
            let transaction = database.begin_write()?;
            let format = {
                let mut journal = transaction.open_table(JOURNAL)?;
                let found = journal.get(FORMAT_KEY)?.map(|it| it.value());
                if found.is_none() {
                    journal.insert(FORMAT_KEY, FORMAT)?;
                    journal.insert(COUNTER_KEY, 0)?;
                }
                found
            };
            if format.is_some() {
                // Nothing is written to a file that may be newer than we are.
                transaction.abort()?;
            } else {
                for table in Table::ALL {
                    transaction.open_table(definition(table))?;
                }
                transaction.commit()?;
            }
            Ok(format.unwrap_or(FORMAT))
        })
        .map_err(|(error, _)| journal_error(error))
    }

    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, JournalError> {
        self.read(|database| {
            let table = database.begin_read()?.open_table(definition(table))?;
            Ok(table.get(key)?.map(|value| value.value().to_vec()))
        })
    }

    pub(super) fn scan(&self, range: &Range) -> Result<Vec<Entry>, JournalError> {
        let start = match &range.after {
            Some(after) if *after >= range.prefix => Bound::Excluded(after.as_slice()),
            Some(_) | None => Bound::Included(range.prefix.as_slice()),
        };
        self.read(|database| {
            let table = database.begin_read()?.open_table(definition(range.table))?;
            let mut found = Vec::new();
            for entry in table.range::<&[u8]>((start, Bound::Unbounded))?.take(range.limit) {
                let (key, value) = entry?;
                if !key.value().starts_with(&range.prefix) {
                    break;
                }
                found.push((key.value().to_vec(), value.value().to_vec()));
            }
            Ok(found)
        })
    }

    fn counter(&self) -> Result<u64, JournalError> {
        self.read(|database| {
            let journal = database.begin_read()?.open_table(JOURNAL)?;
            Ok(journal.get(COUNTER_KEY)?.map_or(0, |it| it.value()))
        })
    }

    /// Reads, and once more if the database had latched itself shut.
    fn read<T>(
        &self,
        question: impl Fn(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, JournalError> {
        let (error, generation) = match self.with(&question) {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        if !is_latched(&error) {
            return Err(journal_error(error));
        }
        self.reopen(generation)?;
        self.with(&question).map_err(|(error, _)| journal_error(error))
    }

    /// Uses the open database; an error comes with the generation that it happened in.
    fn with<T>(
        &self,
        use_it: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, (redb::Error, u64)> {
        // A panic inside redb leaves nothing half-done in our own state.
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let failed = |error| (error, current.generation);
        let database = current.database.as_ref();
        let database = database.ok_or_else(|| failed(redb::Error::DatabaseClosed))?;
        use_it(database).map_err(failed)
    }

    /// Opens the file again, unless somebody did since `generation`.
    fn reopen(&self, generation: u64) -> Result<(), JournalError> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.database.is_some() && current.generation != generation {
            return Ok(());
        }
        // Closed before it is opened: redb locks its file.
        current.database = None;
        let database = (self.open)().map_err(|error| journal_error(error.into()))?;
        current.database = Some(database);
        current.generation += 1;
        Ok(())
    }
}

/// The one that writes.
#[derive(Debug)]
pub(super) struct Writer {
    disk: Arc<Disk>,
    doubt: Option<Doubt>,
}

/// A transaction that failed and may yet turn out to be on the disk.
#[derive(Debug)]
struct Doubt {
    /// The counter's value if it is.
    counter: u64,
    /// What takes it back, last change first.
    undo: Vec<Change>,
}

impl Writer {
    pub(super) fn new(disk: Arc<Disk>) -> Self {
        Self { disk, doubt: None }
    }

    /// Commits all batches in one transaction: they succeed or fail together.
    pub(super) fn commit(&mut self, batches: &[Vec<Change>]) -> Result<(), JournalError> {
        self.resolve()?;
        let (error, generation) = match self.write(batches) {
            Ok(()) => return Ok(()),
            Err((error, generation)) => (journal_error(error), generation),
        };
        tracing::warn!(%error, "a commit failed; the journal is opened again");
        if self.disk.reopen(generation).is_err() {
            return Err(error); // The first error says more than the second.
        }
        match self.is_there() {
            // An empty transaction is durable only with everything before it.
            Ok(true) => self.write(&[]).map_err(|_| error)?,
            Ok(false) => {
                self.doubt = None;
                return Err(error);
            }
            Err(_) => return Err(error),
        }
        self.doubt = None;
        Ok(())
    }

    /// One transaction. If it fails and nothing is in doubt yet, it is.
    fn write(&mut self, batches: &[Vec<Change>]) -> Result<(), (redb::Error, u64)> {
        let mut doubt = Doubt { counter: 0, undo: Vec::new() };
        let mut result = self.disk.with(|database| write(database, batches, &mut doubt));
        if let Err((error, generation)) = &result
            && is_latched(error)
            && self.disk.reopen(*generation).is_ok()
        {
            // A reader met an error before us. Nothing of ours was written.
            doubt = Doubt { counter: 0, undo: Vec::new() };
            result = self.disk.with(|database| write(database, batches, &mut doubt));
        }
        if result.is_err() {
            self.doubt.get_or_insert(doubt);
        }
        result
    }

    /// Whether the transaction in doubt is in the file.
    fn is_there(&self) -> Result<bool, JournalError> {
        let Some(doubt) = &self.doubt else { return Ok(false) };
        Ok(doubt.counter > 0 && self.disk.counter()? >= doubt.counter)
    }

    /// Makes sure that the file is open and holds nothing that its callers were told it does
    /// not.
    fn resolve(&mut self) -> Result<(), JournalError> {
        // Whatever failed last may have latched redb shut; this opens it again if so.
        if self.is_there()?
            && let Some(doubt) = &self.doubt
        {
            tracing::warn!("a commit that had failed is on the disk; it is undone");
            let undo = [doubt.undo.iter().rev().cloned().collect()];
            // If this fails too the first doubt remains, and undoing twice is undoing once.
            self.write(&undo).map_err(|(error, _)| journal_error(error))?;
        }
        self.doubt = None;
        Ok(())
    }
}

/// One transaction over all batches. `doubt` learns what it would take to tell it and to undo it.
fn write(
    database: &Database,
    batches: &[Vec<Change>],
    doubt: &mut Doubt,
) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    // With one phase, a failed sync could leave the new root in the operating system's cache over
    // pages that it dropped, and going on from there would build on sand. With two, the pages are
    // synced before anything points to them. Durability is immediate unless we say otherwise.
    transaction.set_two_phase_commit(true);
    for change in batches.iter().flatten() {
        let mut table = transaction.open_table(definition(change.table))?;
        let key = change.key.as_slice();
        let old = match &change.value {
            Some(value) => table.insert(key, value.as_slice())?,
            None => table.remove(key)?,
        };
        let value = old.map(|old| old.value().to_vec());
        doubt.undo.push(Change { table: change.table, key: change.key.clone(), value });
    }
    {
        let mut journal = transaction.open_table(JOURNAL)?;
        let counter = journal.get(COUNTER_KEY)?.map_or(0, |it| it.value()) + 1;
        journal.insert(COUNTER_KEY, counter)?;
        doubt.counter = counter;
    }
    Ok(transaction.commit()?)
}

/// Whether redb refuses to go on because of an error that somebody met before.
fn is_latched(error: &redb::Error) -> bool {
    matches!(error, redb::Error::PreviousIo | redb::Error::DatabaseClosed)
}

/// What a caller can do about an error of the database.
fn journal_error(error: redb::Error) -> JournalError {
    let detail = error.to_string();
    match error {
        redb::Error::Io(error) => match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => JournalError::Full { detail },
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                JournalError::Corrupt { detail }
            }
            _ => JournalError::Io { detail },
        },
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::RepairAborted
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableDoesNotExist(_) => JournalError::Corrupt { detail },
        _ => JournalError::Io { detail },
    }
}
