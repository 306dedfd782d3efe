//! Durable state: ordered tables of bytes, changed in atomic batches.
//!
//! "Persist before you send" rests on this port: when [`Journal::commit`] completes, the whole
//! batch survives a crash; when it fails, none of it is there.

use crate::BoxFuture;

/// The tables. Adding one is a change of the disk format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Signed records of every type, by record id.
    Record,
    /// One entry for each order, by order id: what is known of it and how it stands.
    Exchange,
    /// Order ids by request id and attempt.
    Request,
    /// Records that a peer has not acknowledged yet, by peer and record id.
    Outbox,
    /// The last position of each pair of provider and requester.
    Pair,
    /// Routing decisions, by request id and attempt.
    Decision,
    /// Single values: the mesh, the sequence reservation, invites and remembered peers.
    State,
}

impl Table {
    /// All tables, in the order of their declaration.
    pub const ALL: [Self; 7] = [
        Self::Record,
        Self::Exchange,
        Self::Request,
        Self::Outbox,
        Self::Pair,
        Self::Decision,
        Self::State,
    ];

    /// The name on disk.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Exchange => "exchange",
            Self::Request => "request",
            Self::Outbox => "outbox",
            Self::Pair => "pair",
            Self::Decision => "decision",
            Self::State => "state",
        }
    }
}

/// One change to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub table: Table,
    /// Which key.
    pub key: Vec<u8>,
    /// The new value, or none to remove the key.
    pub value: Option<Vec<u8>>,
}

impl Change {
    /// Sets a key.
    pub fn put(table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self { table, key: key.into(), value: Some(value.into()) }
    }

    /// Removes a key; removing what is not there changes nothing.
    pub fn remove(table: Table, key: impl Into<Vec<u8>>) -> Self {
        Self { table, key: key.into(), value: None }
    }
}

/// Why the journal could not do what was asked. After any of these the disk holds what it held
/// after the last commit that succeeded.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum JournalError {
    #[error("the disk is full: free some space in the data folder's file system ({detail})")]
    Full { detail: String },

    #[error("the journal could not be read or written: {detail}")]
    Io { detail: String },

    #[error("the journal is damaged: {detail}")]
    Corrupt { detail: String },

    #[error("the journal is closed")]
    Closed,
}

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// Durable state.
pub trait Journal: Send + Sync {
    /// Makes all changes or none, durably, in order.
    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'static, Result<(), JournalError>>;

    /// The value of a key.
    fn get(
        &self,
        table: Table,
        key: Vec<u8>,
    ) -> BoxFuture<'static, Result<Option<Vec<u8>>, JournalError>>;

    /// Up to `limit` entries whose keys begin with `prefix`, after the key `after` if given, in
    /// key order.
    fn scan(
        &self,
        table: Table,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Entry>, JournalError>>;
}
