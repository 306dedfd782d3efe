//! Weights in a Hugging Face folder: `config.json`, and one or more safetensors files.
//!
//! Not here: the header of such a file (`safetensors.rs`), and what names mean (`names.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::Value;

use super::file::{SourceFile, read_small};
use super::names::{self, Target};
use super::safetensors::{self, Entry, Unique};
use super::{Part, Source, Tensor, TensorFacts, WeightError, Weights, error, fused, identity};
use crate::settings::{Config, Pooling, Settings, SettingsError, end_tokens};

/// The file that says what the model is.
pub const CONFIG_NAME: &str = "config.json";
const GENERATION_NAME: &str = "generation_config.json";
const POOLING_NAME: &str = "1_Pooling/config.json";
const SINGLE_NAME: &str = "model.safetensors";
pub(super) const INDEX_NAME: &str = "model.safetensors.index.json";

/// Bytes of a settings file. Published ones have up to 40 KiB, most of it rotary factors.
const CONFIG_SIZE_MAX: u64 = 1 << 20;

/// Bytes of a list of weights: 65 536 names of some 150 bytes.
const INDEX_SIZE_MAX: u64 = 16 << 20;

/// Files of one model. The most published are below 200.
const SHARDS_MAX: usize = 1_024;

/// A Hugging Face folder whose settings were read.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file of the folder, if it is there, of at most `limit` bytes. `name` is not joined with
    /// anything that a model says: callers name their own files.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, WeightError> {
        let path = self.path.join(name);
        match read_small(&path, limit) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(error::open(&path, source)),
        }
    }
}

/// Opens a folder and checks everything but the numbers.
pub(super) fn open(path: &Path) -> Result<Weights, WeightError> {
    let folder = Folder { path: path.to_owned() };
    let (config, settings) = read_settings(&folder)?;
    let (files, entries) = open_files(&folder)?;
    let mut tensors = canonical(&files, &entries, &config, &settings)?;
    fused::split(&mut tensors, &settings)?;
    settle_output(&mut tensors, &config, &folder)?;
    let identity = identity::of_folder(path, &files, &tensors)?;
    let source = Source::Folder(Box::new(folder));
    let taken = Mutex::new(BTreeSet::new());
    Ok(Weights { source: Some(source), settings, identity, files, tensors, taken })
}

fn read_settings(folder: &Folder) -> Result<(Config, Settings), WeightError> {
    let path = folder.path.join(CONFIG_NAME);
    let json = read_small(&path, CONFIG_SIZE_MAX).map_err(|source| error::open(&path, source))?;
    let refuse = |source| WeightError::Settings { path: path.clone(), source: Box::new(source) };
    let config = Config::parse(&json).map_err(refuse)?;
    let mut settings = config.settings().map_err(refuse)?;
    if let Some(generation) = read_object(folder, GENERATION_NAME)? {
        // What generates text asks this file first; a model for conversations ends with either.
        let more = end_tokens(&generation).map_err(refuse)?.unwrap_or_default();
        for id in more {
            if !settings.end_tokens.contains(&id) {
                settings.end_tokens.push(id);
            }
        }
    }
    if settings.pooling.is_some()
        && let Some(pooling) = read_object(folder, POOLING_NAME)?
    {
        settings.pooling = Some(pooling_of(&pooling).map_err(refuse)?);
    }
    Ok((config, settings))
}

type Object = serde_json::Map<String, Value>;

/// A JSON object that need not be there.
fn read_object(folder: &Folder, name: &str) -> Result<Option<Object>, WeightError> {
    let Some(json) = folder.read(name, CONFIG_SIZE_MAX)? else { return Ok(None) };
    serde_json::from_slice(&json).map(Some).map_err(|source| WeightError::Settings {
        path: folder.path.join(name),
        source: Box::new(SettingsError::Config { source }),
    })
}

/// How sentence embedders say which rows make the vector.
fn pooling_of(object: &Object) -> Result<Pooling, SettingsError> {
    let modes = [
        ("pooling_mode_mean_tokens", Some(Pooling::Mean)),
        ("pooling_mode_cls_token", Some(Pooling::Cls)),
        ("pooling_mode_lasttoken", Some(Pooling::Last)),
        ("pooling_mode_max_tokens", None),
        ("pooling_mode_mean_sqrt_len_tokens", None),
        ("pooling_mode_weightedmean_tokens", None),
    ];
    let on: Vec<_> =
        modes.iter().filter(|(key, _)| object.get(*key) == Some(&Value::Bool(true))).collect();
    match on.as_slice() {
        [] => Ok(Pooling::Mean),
        [(_, Some(pooling))] => Ok(*pooling),
        [(key, None)] => Err(SettingsError::Unsupported { what: (*key).to_owned() }),
        _ => Err(SettingsError::Unsupported { what: "pooling in several ways".to_owned() }),
    }
}

/// A tensor of one of the files.
type Placed = (usize, Entry);

/// Opens the one file, or all that the list names, and reads their headers.
fn open_files(folder: &Folder) -> Result<(Vec<SourceFile>, BTreeMap<String, Placed>), WeightError> {
    let single = folder.path.join(SINGLE_NAME);
    if single.exists() {
        let file = SourceFile::open(&single).map_err(|source| error::open(&single, source))?;
        let entries = safetensors::read(&file)?;
        let entries = entries.into_iter().map(|(name, entry)| (name, (0, entry))).collect();
        return Ok((vec![file], entries));
    }
    let path = folder.path.join(INDEX_NAME);
    let Some(json) = folder.read(INDEX_NAME, INDEX_SIZE_MAX)? else {
        return Err(WeightError::NoWeights { path: folder.path.clone() });
    };
    let refuse = |what: String| WeightError::Index { path: path.clone(), what };
    let listed = parse_index(&json).map_err(refuse)?;
    let shards: BTreeSet<&String> = listed.values().collect();
    let (mut files, mut entries) = (Vec::new(), BTreeMap::new());
    for shard in shards {
        let shard_path = folder.path.join(shard);
        let file = SourceFile::open(&shard_path);
        let file = file.map_err(|source| error::open(&shard_path, source))?;
        for (name, entry) in safetensors::read(&file)? {
            if listed.get(&name) != Some(shard) {
                return Err(refuse(format!("{shard} holds {name:?}, which is not listed there")));
            }
            entries.insert(name, (files.len(), entry));
        }
        files.push(file);
    }
    match listed.iter().find(|(name, _)| !entries.contains_key(*name)) {
        Some((name, shard)) => Err(refuse(format!("{name:?} is not in {shard}"))),
        None => Ok((files, entries)),
    }
}

/// The names of all tensors and of the file that each lies in.
pub(super) fn parse_index(json: &[u8]) -> Result<BTreeMap<String, String>, String> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: Unique<String>,
    }
    let index: Index = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let listed = index.weight_map.0;
    if let Some(shard) = listed.values().find(|shard| !is_file_name(shard)) {
        return Err(format!("{shard:?} is not the plain name of a safetensors file"));
    }
    let count = listed.values().collect::<BTreeSet<_>>().len();
    if count == 0 || count > SHARDS_MAX {
        return Err(format!("it names {count} files, accepted are 1 to {SHARDS_MAX}"));
    }
    Ok(listed)
}

/// Whether a name stays in the folder: letters, digits, dots, dashes, underscores.
fn is_file_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let has_end = name.strip_suffix(".safetensors").is_some_and(|stem| !stem.is_empty());
    has_end && name.len() <= 255 && !name.starts_with('.') && name.chars().all(is_plain)
}

/// Shows all tensors under canonical names; experts are stacked.
fn canonical(
    files: &[SourceFile],
    entries: &BTreeMap<String, Placed>,
    config: &Config,
    settings: &Settings,
) -> Result<BTreeMap<String, Tensor>, WeightError> {
    let mut tensors = BTreeMap::new();
    let mut theirs: BTreeMap<String, &str> = BTreeMap::new();
    let mut experts: BTreeMap<String, BTreeMap<usize, Tensor>> = BTreeMap::new();
    for (name, (file, entry)) in entries {
        let ours = match names::target(name, config.family, settings) {
            Target::Skip => continue,
            Target::Expert(ours, expert) => {
                let tensor = tensor(files, name, *file, entry)?;
                experts.entry(ours).or_default().insert(expert, tensor);
                continue;
            }
            Target::Tensor(ours) => ours,
            Target::Unknown => name.clone(),
        };
        let mut tensor = tensor(files, name, *file, entry)?;
        tensor.adds_one = config.family.adds_one && ours.ends_with("norm.weight");
        tensors.insert(ours.clone(), tensor);
        if let Some(first) = theirs.insert(ours, name) {
            let (first, second) = (first.to_owned(), name.clone());
            return Err(WeightError::Twice { first, second });
        }
    }
    for (name, parts) in experts {
        let tensor = stack(&name, parts, settings)?;
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

fn tensor(
    files: &[SourceFile],
    name: &str,
    file: usize,
    entry: &Entry,
) -> Result<Tensor, WeightError> {
    let path = || files[file].path().to_owned();
    let Some(kind) = entry.kind() else {
        let (name, found) = (name.to_owned(), entry.dtype.clone());
        return Err(WeightError::Dtype { path: path(), name, found });
    };
    let damaged = || WeightError::Safetensors {
        path: path(),
        what: format!("tensor {name:?} has the impossible shape {:?}", entry.shape),
    };
    let dims = entry.shape.iter().map(|&dim| usize::try_from(dim).ok().filter(|&dim| dim > 0));
    let dims = dims.collect::<Option<Vec<_>>>().ok_or_else(damaged)?;
    let columns = dims.last().copied().unwrap_or(1);
    // The product of all dimensions is a number of bytes inside the file.
    let rows = dims.iter().rev().skip(1).product();
    let parts = vec![Part { file, start: entry.start, rows }];
    Ok(Tensor { facts: TensorFacts { kind, rows, columns }, parts, adds_one: false })
}

/// All experts of one layer, one behind the other.
fn stack(
    name: &str,
    parts: BTreeMap<usize, Tensor>,
    settings: &Settings,
) -> Result<Tensor, WeightError> {
    let count = settings.experts.map_or(0, |experts| experts.count);
    // Numbers differ and are ordered: so many of them, the last below the count, are all of them.
    let is_complete = parts.len() == count && parts.keys().all(|&expert| expert < count);
    let Some(first) = parts.values().next().map(|tensor| tensor.facts).filter(|_| is_complete)
    else {
        return Err(WeightError::Missing { name: format!("{name} (one of {count} experts)") });
    };
    if let Some(other) = parts.values().find(|tensor| tensor.facts != first) {
        let found = [other.facts.rows, other.facts.columns];
        let (name, wanted) = (name.to_owned(), [first.rows, first.columns]);
        return Err(WeightError::Shape { name, found, wanted });
    }
    let rows = first.rows * count;
    let parts = parts.into_values().flat_map(|tensor| tensor.parts).collect();
    Ok(Tensor { facts: TensorFacts { rows, ..first }, parts, adds_one: false })
}

/// The output matrix as the settings want it: a tied model has none of its own.
fn settle_output(
    tensors: &mut BTreeMap<String, Tensor>,
    config: &Config,
    folder: &Folder,
) -> Result<(), WeightError> {
    let name = "output.weight";
    let is_tied = config.is_tied().map_err(|source| WeightError::Settings {
        path: folder.path.join(CONFIG_NAME),
        source: Box::new(source),
    })?;
    match is_tied {
        // A copy of the embedding, or what is left of training: it is not what the model uses.
        Some(true) => tensors.remove(name).map_or(Ok(()), |_| Ok(())),
        Some(false)
            if !tensors.contains_key(name) && tensors.contains_key("output_norm.weight") =>
        {
            Err(WeightError::Missing { name: name.to_owned() })
        }
        _ => Ok(()),
    }
}
