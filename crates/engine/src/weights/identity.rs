//! What a model is called, how large it is, and the hash that names its content.
//!
//! A folder's hash is `H("commons/model-folder/1", name, length, content, ...)` over its files in
//! the order of their names: `length` as 8 bytes, little-endian, `content` the BLAKE3 of the file.
//! Files that take part are the weights that are used and those of [`FOLDER_FILES`] that are there:
//! what decides which tokens come out. A readme or a picture does not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use commons_record::Hash;
use commons_record::hash::{ContentHasher, FieldHasher};

use super::file::SourceFile;
use super::folder::{CONFIG_NAME, INDEX_NAME};
use super::{Source, Tensor, WeightError};
use crate::gguf::{Gguf, TensorInfo, TensorType};

/// Files of a folder that belong to the model beside its weights.
const FOLDER_FILES: [&str; 14] = [
    "1_Pooling/config.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    CONFIG_NAME,
    "generation_config.json",
    "merges.txt",
    INDEX_NAME,
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
];

/// How much is read at once to be hashed: large enough to keep a disk busy.
const PIECE_SIZE: usize = 1 << 20;

/// What to call a model, and how large it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What people call it: the stem of the file's name, or the folder's.
    pub name: String,
    /// The name of the file or folder.
    pub file_name: String,
    /// Bytes of all files with weights.
    pub file_size: u64,
    /// How most numbers are stored: `Q4_K_M`, `F16`.
    pub quantisation: String,
    /// How many parameters it has.
    pub parameter_count: u64,
    /// The licence that the file states, if it states one.
    pub licence: Option<String>,
}

pub(super) fn of_gguf(
    path: &Path,
    file: &SourceFile,
    gguf: &Gguf,
) -> Result<Identity, WeightError> {
    let tensors = gguf.tensors().values();
    let most = most_common(tensors.clone().map(|info| (info.kind(), info.element_count())));
    let claimed = gguf.unsigned("general.file_type").ok().flatten().and_then(file_type_name);
    // The file's own word is taken only if most numbers agree with it.
    let claimed = claimed.filter(|claimed| claimed.starts_with(most));
    Ok(Identity {
        name: name(path, path.file_stem())?,
        file_name: name(path, path.file_name())?,
        file_size: file.len(),
        quantisation: claimed.unwrap_or(most).to_owned(),
        parameter_count: tensors.map(TensorInfo::element_count).sum(),
        licence: gguf.text("general.license").ok().flatten().map(str::to_owned),
    })
}

pub(super) fn of_folder(
    path: &Path,
    files: &[SourceFile],
    tensors: &BTreeMap<String, Tensor>,
) -> Result<Identity, WeightError> {
    // A path such as `.` has no name until it is followed.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = name(&path, path.file_name())?;
    let counts = tensors
        .values()
        .map(|tensor| (tensor.facts.kind, tensor.facts.rows as u64 * tensor.facts.columns as u64));
    Ok(Identity {
        file_name: name.clone(),
        name,
        file_size: files.iter().map(SourceFile::len).sum(),
        quantisation: most_common(counts.clone()).to_owned(),
        parameter_count: counts.map(|(_, count)| count).sum(),
        licence: None,
    })
}

fn name(path: &Path, part: Option<&std::ffi::OsStr>) -> Result<String, WeightError> {
    let text = part.and_then(|part| part.to_str());
    text.map(str::to_owned).ok_or_else(|| WeightError::Name { path: path.to_owned() })
}

/// The type that most numbers have.
fn most_common(counts: impl Iterator<Item = (TensorType, u64)>) -> &'static str {
    let mut sums: BTreeMap<TensorType, u64> = BTreeMap::new();
    for (kind, count) in counts {
        *sums.entry(kind).or_default() += count;
    }
    sums.into_iter().max_by_key(|&(_, count)| count).map_or("none", |(kind, _)| kind.name())
}

/// The names of mixtures, by their number in the format.
fn file_type_name(code: u64) -> Option<&'static str> {
    Some(match code {
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        _ => return None,
    })
}

/// Reads all files and names their content.
pub(super) fn hash(source: &Source, files: &[SourceFile]) -> Result<Hash, WeightError> {
    let folder = match source {
        Source::Gguf(_) => return files.first().map_or_else(|| Ok(Hash::of_content(b"")), content),
        Source::Folder(folder) => folder.path(),
    };
    let mut parts: BTreeMap<String, (u64, Hash)> = BTreeMap::new();
    let base = |path: &Path| -> Result<String, WeightError> { name(path, path.file_name()) };
    for file in files {
        parts.insert(base(file.path())?, (file.len(), content(file)?));
    }
    for name in FOLDER_FILES {
        let path = folder.join(name);
        if path.exists() {
            let file = SourceFile::open(&path).map_err(|source| failed(path, source))?;
            parts.insert(name.to_owned(), (file.len(), content(&file)?));
        }
    }
    let mut hasher = FieldHasher::new("commons/model-folder/1");
    for (name, (len, content)) in &parts {
        hasher.field(name.as_bytes());
        hasher.field(&len.to_le_bytes());
        hasher.field(content.as_bytes());
    }
    Ok(hasher.finish())
}

/// Plain BLAKE3 of a file, read in pieces.
pub(crate) fn content(file: &SourceFile) -> Result<Hash, WeightError> {
    let mut hasher = ContentHasher::default();
    let mut piece = vec![0; PIECE_SIZE];
    let mut at = 0;
    while at < file.len() {
        let size = usize::try_from(file.len() - at).unwrap_or(PIECE_SIZE).min(PIECE_SIZE);
        file.read_at(at, &mut piece[..size])
            .map_err(|source| failed(file.path().to_owned(), source))?;
        hasher.update(&piece[..size]);
        at += size as u64;
    }
    Ok(hasher.finish())
}

fn failed(path: PathBuf, source: std::io::Error) -> WeightError {
    WeightError::Hash { path, source }
}
