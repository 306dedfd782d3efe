//! Adapters: small differences to a base model, read from files, checked against the base, packed.
//!
//! ```text
//! folder: adapter_config.json, adapter_model.safetensors --+
//!                                                          +--> pairs A, B --> checked --> Adapter
//! adapter.gguf --------------------------------------------+
//! ```
//!
//! A pair changes one *site*, a matrix of one layer: `W x` becomes `W x + scale * B (A x)`; a `DoRA`
//! then multiplies each output by a factor of its own. The base stays as it is, so each row of a
//! batch may have another adapter: [`Mix`] says which row has which, and computes its part of a tile.
//!
//! # Invariants
//!
//! * Every tensor of an adapter changes a site that the base has, in the shape that the base has, or
//!   the adapter is refused: nothing is ignored.
//! * Ranks are bounded before anything is read; every number is finite.
//! * Nothing that could run code is opened: pickle files are refused by their name.
//! * Numbers keep the precision of the file; [`AdapterFacts::precision`] names it.
//! * Rows of queries and keys stand in the order of the base's rotary positions, whichever the file
//!   has: see `build.rs`.
//!
//! Not here: the arithmetic (`commons-kernels`), which adapters are in memory (`commons-schedule`).

mod build;
mod error;
mod gguf;
mod mix;
mod peft;
mod shelf;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use commons_kernels::adapt::{Factor, Up};
use commons_record::Hash;

use crate::weights::Weights;

pub use error::AdapterError;
pub(crate) use mix::Input;
pub use mix::Mix;
pub use shelf::{Registered, Shelf, ShelfError};

/// The files of a folder that are an adapter.
pub use peft::{CONFIG_NAME, WEIGHTS_NAME};

/// Matrices of a layer that read the same rows. Their parts are in the order in which the forward
/// pass stacks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Queries, keys, values.
    Inputs,
    /// What is behind the heads.
    Output,
    /// Gate and up; without a gate, up alone.
    Inner,
    /// Down.
    Down,
}

impl Group {
    /// Every group, in the order in which a layer computes them.
    pub const ALL: [Self; 4] = [Self::Inputs, Self::Output, Self::Inner, Self::Down];

    fn index(self) -> usize {
        match self {
            Self::Inputs => 0,
            Self::Output => 1,
            Self::Inner => 2,
            Self::Down => 3,
        }
    }
}

/// An adapter, ready to compute with the base that it was checked against.
pub struct Adapter {
    facts: AdapterFacts,
    /// For each layer, for each of [`Group::ALL`].
    layers: Vec<[Option<Stack>; 4]>,
}

/// How an adapter changes a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `W x + alpha / rank * B (A x)`.
    Lora,
    /// `W x + alpha / sqrt(rank) * B (A x)`: D. Kalajdzievski, "A Rank Stabilization Scaling Factor
    /// for Fine-Tuning with `LoRA`", 2023.
    RsLora,
    /// Each output is then multiplied by a factor of its own: S.-Y. Liu et al., "`DoRA`:
    /// Weight-Decomposed Low-Rank Adaptation", 2024.
    Dora,
}

impl Method {
    /// Its name in lists and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lora => "lora",
            Self::RsLora => "rslora",
            Self::Dora => "dora",
        }
    }
}

/// How an adapter's numbers are kept in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// In the precision of the file.
    #[default]
    AsFile,
    /// Rounded to `Q8_0` where rows are whole blocks of 32: `A` always, `B` where the rank is a
    /// multiple of 32. Half of 16 bits, and another answer, which the facts name.
    Rounded,
}

/// What there is to know about an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterFacts {
    /// The name of its content: of a file its plain BLAKE3; of a folder
    /// `H("commons/adapter-folder/1", name, length, content, ...)` over its two files.
    pub adapter: Hash,
    /// What people call it: the stem of the file's name, or the folder's.
    pub name: String,
    /// Bytes of the files that name it.
    pub file_size: u64,
    /// How its numbers are stored: `F16`, or several joined by a plus sign.
    pub precision: String,
    /// The largest rank of its pairs.
    pub rank_max: usize,
    /// How many sites it changes.
    pub site_count: usize,
    /// How many numbers it has.
    pub parameter_count: u64,
    /// Bytes that it takes in memory.
    pub size_bytes: u64,
    /// What it is; a `DoRA` if it is one at one site at least.
    pub method: Method,
    /// The base that it says it was made for. Informative: shapes decide.
    pub claimed_base: Option<String>,
}

/// What an adapter changes in one group of a layer.
#[derive(Debug)]
struct Stack {
    /// The `A` of all parts, one below the other.
    down: Factor,
    /// One for each matrix of the group.
    parts: Vec<Option<Part>>,
}

/// What an adapter changes in one matrix.
#[derive(Debug)]
struct Part {
    /// Where its own rows of `A` begin in the stack.
    first: usize,
    up: Factor,
    scale: f32,
    row_factors: Option<Vec<f32>>,
}

impl Part {
    fn up(&self) -> Up<'_> {
        let row_factors = self.row_factors.as_deref();
        Up { factor: &self.up, scale: self.scale, row_factors }
    }
}

impl Adapter {
    /// Reads an adapter and checks it against its base: a PEFT folder, the safetensors file in it,
    /// or a GGUF file. It takes as long as reading the file, and for a `DoRA` also the base.
    pub fn load(path: &Path, base: &Weights) -> Result<Self, AdapterError> {
        Self::load_as(path, base, Storage::AsFile)
    }

    /// As [`Self::load`], kept in memory as told.
    pub fn load_as(path: &Path, base: &Weights, storage: Storage) -> Result<Self, AdapterError> {
        let listing = match locate(path)? {
            Located::Gguf => gguf::read(path, base.settings())?,
            Located::Folder { folder, weights } => {
                let name = weights.file_name().and_then(|name| name.to_str());
                let name = name.ok_or_else(|| AdapterError::Name { path: path.to_owned() })?;
                peft::read(folder, name, base.settings())?
            }
        };
        build::build(&listing, base, storage)
    }

    /// What there is to know about it.
    pub fn facts(&self) -> &AdapterFacts {
        &self.facts
    }

    fn stack(&self, layer: usize, group: Group) -> Option<&Stack> {
        self.layers.get(layer)?[group.index()].as_ref()
    }
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adapter").field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// The files that an adapter is made of: of a GGUF file itself; of a folder, or of the safetensors
/// file in it, the configuration and the numbers. Nothing of them is read.
///
/// # Errors
///
/// As [`Adapter::load`] refuses what is missing, and pickle files by their names.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, AdapterError> {
    let Located::Folder { folder, weights } = locate(path)? else {
        return Ok(vec![path.to_owned()]);
    };
    if !weights.exists() {
        return Err(peft::absent(folder));
    }
    let config = folder.join(CONFIG_NAME);
    if !config.exists() {
        return Err(AdapterError::Incomplete { path: folder.to_owned(), wanted: CONFIG_NAME });
    }
    Ok(vec![config, weights])
}

/// What a path means.
enum Located<'a> {
    Gguf,
    /// A folder with a configuration, and the file of numbers in it.
    Folder {
        folder: &'a Path,
        weights: PathBuf,
    },
}

fn locate(path: &Path) -> Result<Located<'_>, AdapterError> {
    refuse_pickle(path)?;
    let open = |source| AdapterError::Open { path: path.to_owned(), source };
    let is_folder = std::fs::metadata(path).map_err(open)?.is_dir();
    let is_safetensors = path.extension().is_some_and(|it| it == "safetensors");
    Ok(match path.parent() {
        _ if is_folder => Located::Folder { folder: path, weights: path.join(WEIGHTS_NAME) },
        Some(folder) if is_safetensors => Located::Folder { folder, weights: path.to_owned() },
        _ => Located::Gguf,
    })
}

/// Files that run code when they are read.
const PICKLE_ENDS: [&str; 6] = ["bin", "pt", "pth", "ckpt", "pkl", "pickle"];

/// Refuses a pickle file by its name; it is never opened.
fn refuse_pickle(path: &Path) -> Result<(), AdapterError> {
    let end = path.extension().and_then(|end| end.to_str()).map(str::to_ascii_lowercase);
    match end {
        Some(end) if PICKLE_ENDS.contains(&end.as_str()) => {
            Err(AdapterError::Pickle { path: path.to_owned() })
        }
        _ => Ok(()),
    }
}
