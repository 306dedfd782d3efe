//! Weights in a GGUF file.
//!
//! Not here: what the header holds (`crate::gguf`), and what fused tensors are (`fused.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;

use super::file::SourceFile;
use super::{Part, Source, Tensor, TensorFacts, WeightError, Weights};
use super::{check_finite, error, finite, fused, identity};
use crate::gguf::{Gguf, GgufError, TensorInfo};
use crate::settings::{Settings, SettingsError};

/// How much of a file is read at first. Headers of published files have 1 to 12 MiB.
const HEAD_SIZE: u64 = 4 << 20;

/// The most that a header may have: every limit of the parser together is far below.
const HEADER_SIZE_MAX: u64 = 512 << 20;

/// Tensors that the settings have read: rotary factors.
const IN_SETTINGS: [&str; 3] =
    ["rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"];

/// Rotary factors: one for each pair of numbers in a head.
const FACTORS_MAX: usize = 1 << 16;

/// Opens a file and checks everything but the numbers.
pub(super) fn open(path: &Path) -> Result<Weights, WeightError> {
    let file = SourceFile::open(path).map_err(|source| error::open(path, source))?;
    let gguf = read_header(&file)?;
    refuse_split(path, &gguf)?;
    let settings = Settings::from_gguf(&gguf, &|name| factors(&file, &gguf, name));
    let settings = settings.map_err(|source| WeightError::Settings {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    let mut tensors = BTreeMap::new();
    for (name, info) in gguf.tensors() {
        if !IN_SETTINGS.contains(&name.as_str()) {
            tensors.insert(name.clone(), tensor(info));
        }
    }
    fused::split(&mut tensors, &settings)?;
    let identity = identity::of_gguf(path, &file, &gguf)?;
    let source = Source::Gguf(Box::new(gguf));
    let taken = Mutex::new(BTreeSet::new());
    Ok(Weights { source: Some(source), settings, identity, files: vec![file], tensors, taken })
}

/// Reads as much of the file as its header has, and no tensor beyond the last piece.
pub(crate) fn read_header(file: &SourceFile) -> Result<Gguf, WeightError> {
    let mut size = HEAD_SIZE;
    loop {
        let head = file.head(size).map_err(|source| error::open(file.path(), source))?;
        match Gguf::parse_header(&head, file.len()) {
            Ok(gguf) => return Ok(gguf),
            Err(GgufError::Truncated { .. }) if (head.len() as u64) < file.len() => {}
            Err(source) => {
                let path = file.path().to_owned();
                return Err(WeightError::Gguf { path, source: Box::new(source) });
            }
        }
        if size >= HEADER_SIZE_MAX {
            let path = file.path().to_owned();
            return Err(WeightError::HeaderSize { path, limit: HEADER_SIZE_MAX });
        }
        size *= 4;
    }
}

fn refuse_split(path: &Path, gguf: &Gguf) -> Result<(), WeightError> {
    let count = gguf
        .unsigned("split.count")
        .map_err(|source| WeightError::Gguf { path: path.to_owned(), source: Box::new(source) })?;
    match count.filter(|&count| count > 1) {
        Some(count) => Err(WeightError::Split { path: path.to_owned(), count }),
        None => Ok(()),
    }
}

/// The rows and columns of a tensor: all dimensions but the last are rows.
fn tensor(info: &TensorInfo) -> Tensor {
    let columns = info.dims().last().copied().unwrap_or(1);
    let rows = info.dims().iter().rev().skip(1).product();
    let start = info.bytes().start as u64;
    Tensor {
        facts: TensorFacts { kind: info.kind(), rows, columns },
        parts: vec![Part { file: 0, start, rows }],
        adds_one: false,
    }
}

/// Reads rotary factors, which the settings ask for.
fn factors(file: &SourceFile, gguf: &Gguf, name: &str) -> Result<Option<Vec<f32>>, SettingsError> {
    let Some(info) = gguf.tensors().get(name) else { return Ok(None) };
    let refuse = |reason: String| SettingsError::Tensor { name: name.to_owned(), reason };
    let (dims, kind) = (info.dims(), info.kind());
    if dims.len() != 1 || dims[0] > FACTORS_MAX {
        return Err(refuse(format!("it has the shape {dims:?}")));
    }
    let mut bytes = vec![0; info.bytes().len()];
    file.read_at(info.bytes().start as u64, &mut bytes)
        .map_err(|source| refuse(source.to_string()))?;
    if check_finite(kind, dims[0], &bytes).is_err() {
        return Err(refuse("it holds a number that is not finite".to_owned()));
    }
    let values = finite::widen(kind, &bytes);
    values.map(Some).ok_or_else(|| refuse(format!("it is quantised as {kind}")))
}
