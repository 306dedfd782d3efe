//! The adapters that are registered for one model. A thousand of them cost their files, and here a
//! few hundred bytes each: which are in memory is decided in `commons-schedule`.
//!
//! # Invariants
//!
//! * What is registered was read once, checked against the base, and let go.
//! * What is read later has the hash that was registered, or it is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use commons_port::engine::LoadedAdapter;
use commons_record::Hash;
use commons_record::hash::FieldHasher;
use commons_schedule::AdapterId;

use super::{Adapter, AdapterError, Storage};
use crate::weights::Weights;

/// Adapters of one model. A list of more is read by nobody.
const REGISTERED_MAX: usize = 30_000;

/// The longest name, in bytes.
const NAME_LEN_MAX: usize = 128;

/// Why an adapter was not registered, or cannot be read again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum ShelfError {
    #[error(transparent)]
    Adapter(#[from] AdapterError),

    #[error(
        "an adapter cannot be called {name:?}: take 1 to {NAME_LEN_MAX} letters, digits, and any of \
         `-_.:`"
    )]
    Name { name: String },

    #[error("{name:?} is the name of another adapter of this model; choose another, or remove it")]
    NameTaken { name: String },

    #[error("{REGISTERED_MAX} adapters are registered already; remove one first")]
    TooMany,

    #[error("{} was changed since it was registered; register it again", path.display())]
    Changed { path: PathBuf },
}

/// An adapter whose file is known.
#[derive(Debug)]
pub struct Registered {
    facts: LoadedAdapter,
    path: PathBuf,
    storage: Storage,
    size_bytes: u64,
}

impl Registered {
    /// What it is called in memory: the same adapter rounded is another one there.
    pub fn id(&self) -> AdapterId {
        let mut hasher = FieldHasher::new("commons/adapter-in-memory/1");
        hasher.field(self.facts.adapter.as_bytes());
        hasher.field(self.facts.format.as_bytes());
        AdapterId(*hasher.finish().as_bytes())
    }

    /// What there is to know about it.
    pub fn facts(&self) -> &LoadedAdapter {
        &self.facts
    }

    /// Bytes that it takes in memory.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

/// The adapters of one model.
#[derive(Debug)]
pub struct Shelf {
    model: Hash,
    base: Weights,
    registered: RwLock<BTreeMap<Hash, Arc<Registered>>>,
}

impl Shelf {
    /// An empty shelf. Of the base, shapes and numbers are needed, and no header.
    pub fn new(model: Hash, base: Weights) -> Self {
        Self { model, base: base.without_header(), registered: RwLock::default() }
    }

    /// Reads an adapter, checks it and remembers where it is. The same again in another storage, or
    /// under another name, is the new one from then on.
    pub fn add(
        &self,
        path: PathBuf,
        name: Option<String>,
        storage: Storage,
    ) -> Result<Arc<Registered>, ShelfError> {
        let adapter = Adapter::load_as(&path, &self.base, storage)?;
        let facts = adapter.facts();
        let name = name.unwrap_or_else(|| facts.name.clone());
        check_name(&name)?;
        let registered = Arc::new(Registered {
            facts: LoadedAdapter {
                adapter: facts.adapter,
                model: self.model,
                name: name.clone(),
                file_size: facts.file_size,
                method: facts.method.name().to_owned(),
                rank: u32::try_from(facts.rank_max).unwrap_or(u32::MAX),
                format: facts.precision.clone(),
            },
            path,
            storage,
            size_bytes: facts.size_bytes,
        });
        let mut all = self.registered.write().unwrap_or_else(PoisonError::into_inner);
        let is_other = |it: &Arc<Registered>| {
            it.facts.name == name && it.facts.adapter != registered.facts.adapter
        };
        if all.values().any(is_other) {
            return Err(ShelfError::NameTaken { name });
        }
        if all.len() >= REGISTERED_MAX && !all.contains_key(&registered.facts.adapter) {
            return Err(ShelfError::TooMany);
        }
        all.insert(registered.facts.adapter, Arc::clone(&registered));
        Ok(registered)
    }

    /// Whether an adapter fits the base: reads all of it, and remembers nothing.
    pub fn check(&self, path: &Path) -> Result<(), ShelfError> {
        Adapter::load(path, &self.base)?;
        Ok(())
    }

    /// Forgets an adapter. Whoever has it keeps it. False if there is none of that hash.
    pub fn remove(&self, adapter: &Hash) -> bool {
        let mut all = self.registered.write().unwrap_or_else(PoisonError::into_inner);
        all.remove(adapter).is_some()
    }

    /// The adapter of that hash.
    pub fn find(&self, adapter: &Hash) -> Option<Arc<Registered>> {
        self.read().get(adapter).cloned()
    }

    /// All adapters.
    pub fn list(&self) -> Vec<LoadedAdapter> {
        self.read().values().map(|it| it.facts.clone()).collect()
    }

    /// Reads an adapter from its file, and compares it with what was registered.
    pub fn load(&self, registered: &Registered) -> Result<Adapter, ShelfError> {
        let path = &registered.path;
        let adapter = Adapter::load_as(path, &self.base, registered.storage)?;
        if adapter.facts().adapter != registered.facts.adapter {
            return Err(ShelfError::Changed { path: path.clone() });
        }
        Ok(adapter)
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Hash, Arc<Registered>>> {
        self.registered.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name stands behind a plus sign in the name of a model, in addresses and on command lines.
fn check_name(name: &str) -> Result<(), ShelfError> {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    if (1..=NAME_LEN_MAX).contains(&name.len()) && name.chars().all(is_plain) {
        return Ok(());
    }
    let name = name.chars().take(NAME_LEN_MAX).collect();
    Err(ShelfError::Name { name })
}
