//! Where the weights of a model lie, and how they are read: piece by piece, never all at once.
//!
//! ```text
//! model.gguf ----------------> header --+
//!                                       +--> Settings --> canonical tensors --> rows, vectors
//! folder: config.json, index, shards ---+
//! ```
//!
//! Both sources are shown under the names that GGUF uses (`blk.3.attn_q.weight`), and under one
//! shape: where a file fuses queries, keys and values, or gate and up, each is a range of its rows;
//! where it keeps experts apart, they are stacked. So who computes knows neither source.
//!
//! # Invariants
//!
//! * What [`Weights::open`] returns is checked: every tensor's bytes lie inside its file, fit its
//!   shape, and overlap no other's.
//! * Bytes are read by positioned reads, from any thread. Nothing is mapped: a file that changes or
//!   shrinks meanwhile is an error or another number, never a crash.
//! * [`Weights::finish`] refuses a model with a tensor that nobody took: ignoring one would compute
//!   another model. The few names that are known to carry nothing are listed in `names.rs`.
//!
//! Not here: how matrices are packed for arithmetic, and which of them a forward pass needs.

mod error;
pub(crate) mod file;
mod finite;
mod folder;
mod fused;
mod gguf;
mod identity;
pub(crate) mod names;
pub(crate) mod safetensors;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use commons_record::Hash;

use crate::gguf::{Gguf, TensorType};
use crate::settings::Settings;
use file::SourceFile;

pub use error::WeightError;
pub use finite::check_finite;
pub(crate) use finite::widen;
pub use folder::{CONFIG_NAME, Folder};
pub(crate) use gguf::read_header;
pub use identity::Identity;
pub(crate) use identity::content as content_hash;

/// Weights that lie in files and can be read.
#[derive(Debug)]
pub struct Weights {
    /// None once the header was let go.
    source: Option<Source>,
    settings: Settings,
    identity: Identity,
    files: Vec<SourceFile>,
    tensors: BTreeMap<String, Tensor>,
    /// Names that were taken. Locked for one insertion at a time.
    taken: Mutex<BTreeSet<String>>,
}

/// What the files are.
#[derive(Debug)]
enum Source {
    Gguf(Box<Gguf>),
    Folder(Box<Folder>),
}

/// What one tensor is: rows of numbers, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorFacts {
    /// How numbers are stored.
    pub kind: TensorType,
    /// Rows: the outputs of a matrix; 1 for a vector. Experts are stacked.
    pub rows: usize,
    /// Numbers in a row: the inputs of a matrix, the length of a vector.
    pub columns: usize,
}

impl TensorFacts {
    /// Bytes of one row.
    pub fn row_size(&self) -> usize {
        // A row lies inside a file whose size fits, and is whole blocks: both checked when opened.
        let blocks = self.columns as u64 / self.kind.block_len();
        usize::try_from(blocks * self.kind.block_size()).unwrap_or(usize::MAX)
    }

    /// Bytes of all rows.
    pub fn size(&self) -> u64 {
        self.row_size() as u64 * self.rows as u64
    }
}

/// One tensor under its canonical name: runs of whole rows, in order.
#[derive(Clone, Debug, PartialEq)]
struct Tensor {
    facts: TensorFacts,
    parts: Vec<Part>,
    /// Whether the weight is one more than what is stored.
    adds_one: bool,
}

/// Rows that lie one behind the other in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    file: usize,
    start: u64,
    rows: usize,
}

impl Weights {
    /// Opens a GGUF file, or a Hugging Face folder: reads and checks everything but the numbers.
    pub fn open(path: &Path) -> Result<Self, WeightError> {
        let metadata = std::fs::metadata(path).map_err(|source| error::open(path, source))?;
        if metadata.is_dir() { folder::open(path) } else { gguf::open(path) }
    }

    /// What the model says about itself.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What to call the model, and how large it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The header of the GGUF file, if it is one: the vocabulary and the template are in it.
    pub fn gguf(&self) -> Option<&Gguf> {
        if let Some(Source::Gguf(gguf)) = &self.source { Some(gguf) } else { None }
    }

    /// The Hugging Face folder, if it is one.
    pub fn folder(&self) -> Option<&Folder> {
        if let Some(Source::Folder(folder)) = &self.source { Some(folder) } else { None }
    }

    /// Lets the header go, with the vocabulary and the template in it: what is left is where the
    /// numbers are. It has no content's name any more.
    #[must_use]
    pub fn without_header(self) -> Self {
        Self { source: None, ..self }
    }

    /// All tensors by their canonical names, and what each is.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, TensorFacts)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.facts))
    }

    /// One tensor, if the model has it. To look is not to take.
    pub fn tensor(&self, name: &str) -> Option<TensorFacts> {
        self.tensors.get(name).map(|tensor| tensor.facts)
    }

    /// Takes a matrix of `rows` outputs and `columns` inputs.
    pub fn matrix(
        &self,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<TensorFacts, WeightError> {
        self.take(name, rows, columns).map(|tensor| tensor.facts)
    }

    /// Reads rows of a tensor into `out`, which has [`TensorFacts::row_size`] bytes for each.
    pub fn read_rows(
        &self,
        name: &str,
        rows: Range<usize>,
        out: &mut [u8],
    ) -> Result<(), WeightError> {
        let tensor = self.get(name)?;
        let row_size = tensor.facts.row_size();
        let is_sound = rows.start <= rows.end
            && rows.end <= tensor.facts.rows
            && rows.len().checked_mul(row_size) == Some(out.len());
        if !is_sound {
            return Err(WeightError::Rows { name: name.to_owned(), rows, size: out.len() });
        }
        let (mut first, mut out) = (0, out);
        for part in &tensor.parts {
            let (start, end) = (rows.start.max(first), rows.end.min(first + part.rows));
            if start < end {
                let (now, later) = out.split_at_mut((end - start) * row_size);
                let at = part.start + ((start - first) * row_size) as u64;
                self.files[part.file].read_at(at, now).map_err(|source| {
                    let path = self.files[part.file].path().to_owned();
                    WeightError::Read { name: name.to_owned(), path, source }
                })?;
                out = later;
            }
            first += part.rows;
        }
        Ok(())
    }

    /// Takes a vector of `len` numbers, as f32. Each number is finite.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, WeightError> {
        let tensor = self.take(name, 1, len)?;
        let mut bytes = vec![0; tensor.facts.row_size()];
        self.read_rows(name, 0..1, &mut bytes)?;
        let kind = tensor.facts.kind;
        if check_finite(kind, len, &bytes).is_err() {
            return Err(WeightError::NotFinite { name: name.to_owned(), row: 0 });
        }
        let Some(mut values) = finite::widen(kind, &bytes) else {
            return Err(WeightError::VectorKind { name: name.to_owned(), kind });
        };
        if tensor.adds_one {
            for value in &mut values {
                *value += 1.0;
            }
        }
        Ok(values)
    }

    /// The same, if the model has it.
    pub fn optional_vector(&self, name: &str, len: usize) -> Result<Option<Vec<f32>>, WeightError> {
        self.tensors.contains_key(name).then(|| self.vector(name, len)).transpose()
    }

    /// Tensors that nobody took.
    pub fn unused(&self) -> Vec<String> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        self.tensors.keys().filter(|name| !taken.contains(*name)).cloned().collect()
    }

    /// Refuses a model with a tensor that nobody took.
    pub fn finish(&self) -> Result<(), WeightError> {
        match self.unused().into_iter().next() {
            Some(name) => Err(WeightError::Unknown { name }),
            None => Ok(()),
        }
    }

    /// The name of the model's content: reads every byte once, in pieces, so it takes a while and
    /// no memory. For a file it is the plain BLAKE3 of its bytes; for a folder see `identity.rs`.
    pub fn hash(&self) -> Result<Hash, WeightError> {
        let source = self.source.as_ref().ok_or(WeightError::NoHeader)?;
        identity::hash(source, &self.files)
    }

    fn get(&self, name: &str) -> Result<&Tensor, WeightError> {
        self.tensors.get(name).ok_or_else(|| WeightError::Missing { name: name.to_owned() })
    }

    fn take(&self, name: &str, rows: usize, columns: usize) -> Result<&Tensor, WeightError> {
        let tensor = self.get(name)?;
        let found = [tensor.facts.rows, tensor.facts.columns];
        if found != [rows, columns] {
            let (name, wanted) = (name.to_owned(), [rows, columns]);
            return Err(WeightError::Shape { name, found, wanted });
        }
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Ok(tensor)
    }
}
