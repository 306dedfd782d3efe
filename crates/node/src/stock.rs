//! The files of a node: what it holds, pulls and gives.
//!
//! ```text
//! pull, read --> Active (one for each blob) --> blobs::pull --> peers
//!                                    pieces --> Seeding: followers are told
//! every while: judge all blobs by the owner's rules --> what is given, what is said to members
//! ```
//!
//! * [`active`]: the pulls under way, one for each blob however many wait for it;
//! * [`sources`]: peers that may hold a blob;
//! * [`give`]: what is given, and to whom it is said;
//! * [`take`]: a release, a blob or files from outside, whole;
//! * [`read`]: bytes of a file, as they come;
//! * [`handle`]: all of it behind the contract.
//!
//! # Invariants
//!
//! * Nothing is pulled or given that the owner's rules do not allow (Rule C7); what was not judged
//!   yet is not given.
//! * A pull that nobody waits for any more ends; what is held stays.
//!
//! Not here: what a name means (`catalogue`), the streams (`blobs`), the disk.

mod active;
mod give;
mod handle;
mod read;
mod sources;
mod take;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use commons_port::blobs::{BlobError, Blobs};
use commons_port::hub::Origin;
use commons_record::Hash;
use commons_swarm::fetch::{BUDGET_BYTES, Budget};

use crate::api::{Refusal, RefusalCode};
use crate::blobs::Seeding;

pub(crate) use give::run;
pub(crate) use handle::Handle;
pub(crate) use read::reader;

/// What the files of a node are built on.
#[derive(Clone)]
pub struct FilePorts {
    /// The store.
    pub blobs: Arc<dyn Blobs>,
    /// Places outside.
    pub origin: Arc<dyn Origin>,
}

impl std::fmt::Debug for FilePorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FilePorts")
    }
}

/// What the tasks around a node's files share.
pub(crate) struct Stock {
    pub(crate) ports: FilePorts,
    budget: Arc<Mutex<Budget>>,
    pulls: Mutex<BTreeMap<Hash, Weak<active::Active>>>,
    /// What was judged: whether a blob is given, or why not.
    judged: Mutex<BTreeMap<Hash, Result<(), String>>>,
    seeding: Mutex<Option<Arc<Seeding>>>,
    /// Wakes whoever judges: something is held now that was not.
    news: tokio::sync::Notify,
}

impl Stock {
    pub(crate) fn new(ports: FilePorts) -> Self {
        Self {
            ports,
            budget: Arc::new(Mutex::new(Budget::new(BUDGET_BYTES))),
            pulls: Mutex::default(),
            judged: Mutex::default(),
            seeding: Mutex::default(),
            news: tokio::sync::Notify::new(),
        }
    }
}

impl Stock {
    /// What is given may have changed: a release came, or a rule.
    pub(crate) fn judge_again(&self) {
        self.news.notify_one();
    }
}

/// What the owner is told of a failure of the store.
fn refusal(error: &BlobError) -> Refusal {
    let code = match error {
        BlobError::NotHeld { .. } | BlobError::NotYet { .. } => RefusalCode::NotFound,
        BlobError::Full { .. } | BlobError::Disk { .. } => RefusalCode::StorageFailed,
        BlobError::Busy { .. } => RefusalCode::Overloaded,
        _ => RefusalCode::InvalidRequest,
    };
    Refusal::new(code, error.to_string())
}

/// A node that was built without a store.
fn no_files() -> Refusal {
    Refusal::new(RefusalCode::Unsupported, "this node was built without a store for files")
}
