//! The disk: one data folder, its secret keys, and the journal in it.
//!
//! * [`data_dir`]: the folder, owned by one process at a time, and the format of what is in it;
//! * [`key_file`]: secret seeds, one small file each;
//! * [`adapters`]: copies of adapters that the owner took in;
//! * [`journal`]: `port`'s journal over redb;
//! * [`blobs`]: files by their hash, whole or in part.
//!
//! Everything here is blocking code on threads of its own; what it hands out are futures that
//! run on any executor.
//!
//! Not here: what the tables mean (see the crates that write them), and any decision.

pub mod adapters;
pub mod blobs;
pub mod data_dir;
pub mod journal;
pub mod key_file;
mod queue;

pub use blobs::{BlobOptions, BlobStore, OpenBlobsError};
pub use data_dir::{DataDir, OpenError};
pub use journal::{OpenJournalError, RedbJournal};
pub use key_file::{KeyError, SecretSeed};
