//! An adapter in a GGUF file, as llama.cpp's converter writes it.
//!
//! `general.type` is `adapter`, `adapter.type` is `lora`; tensors are called after the matrix that
//! they change: `blk.3.attn_q.weight.lora_a`. The scale of a pair is `adapter.lora.alpha` through
//! its rank; no alpha, or 0, means 1. Rows of queries and keys stand as in a base file of this
//! architecture.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::AdapterError;
use super::build::{Listing, Pair, Role, Scale, Stored};
use crate::gguf::{Gguf, GgufError};
use crate::settings::{Family, Settings};
use crate::weights::file::SourceFile;
use crate::weights::read_header;

/// Reads what a file holds.
pub(super) fn read(path: &Path, settings: &Settings) -> Result<Listing, AdapterError> {
    let open = |source| AdapterError::Open { path: path.to_owned(), source };
    let file = SourceFile::open(path).map_err(open)?;
    let gguf = read_header(&file).map_err(|it| AdapterError::File(Box::new(it)))?;
    let bad = |source| AdapterError::Gguf { path: path.to_owned(), source: Box::new(source) };
    let alpha = check_kind(path, &gguf)?;
    let family = check_family(path, &gguf, settings)?;
    let mut pairs = BTreeMap::new();
    for (name, info) in gguf.tensors() {
        let refuse = || AdapterError::Site { path: path.to_owned(), name: name.clone() };
        let ends = [(".lora_a", Role::Down), (".lora_b", Role::Up)];
        let split = ends.iter().find_map(|(end, role)| Some((name.strip_suffix(end)?, *role)));
        let (ours, role) = split.ok_or_else(refuse)?;
        let at = super::build::locate(ours).ok_or_else(refuse)?;
        let stored = Stored {
            name: name.clone(),
            kind: info.kind(),
            dims: info.dims().iter().map(|&dim| dim as u64).collect(),
            start: info.bytes().start as u64,
        };
        let pair: &mut Pair = pairs.entry(at).or_default();
        pair.put(path, role, stored)?;
    }
    let name = path.file_stem().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| AdapterError::Name { path: path.to_owned() })?.to_owned();
    let base = gguf.text("general.base_model.0.name").map_err(bad)?;
    Ok(Listing {
        file,
        name,
        content: vec![path.to_owned()],
        is_folder: false,
        claimed_base: base.map(str::to_owned),
        pairs,
        style: family.gguf_style(),
        scale: Box::new(Alpha { path: path.to_owned(), alpha }),
        is_rank_stabilised: false,
    })
}

/// Checks that the file is a `LoRA`, and returns its alpha.
fn check_kind(path: &Path, gguf: &Gguf) -> Result<f64, AdapterError> {
    let bad =
        |source: GgufError| AdapterError::Gguf { path: path.to_owned(), source: Box::new(source) };
    let kind = gguf.text("general.type").map_err(bad)?.unwrap_or("model");
    if kind != "adapter" {
        let (path, found) = (path.to_owned(), kind.to_owned());
        return Err(AdapterError::NotAdapter { path, found });
    }
    let key = "adapter.type";
    let found = Gguf::require(key, gguf.text(key).map_err(bad)?).map_err(bad)?;
    let refuse = |key, found: &str, wanted| {
        let (path, found) = (path.to_owned(), found.to_owned());
        Err(AdapterError::Unsupported { path, key, found, wanted })
    };
    if found != "lora" {
        return refuse(key, found, "supported is lora");
    }
    let alora = "adapter.alora.invocation_tokens";
    if gguf.get(alora).is_some() {
        return refuse(alora, "there", "an adapter holds from the first token on");
    }
    Ok(gguf.float("adapter.lora.alpha").map_err(bad)?.unwrap_or(0.0))
}

/// Checks that the file was made for the base's family.
fn check_family(
    path: &Path,
    gguf: &Gguf,
    settings: &Settings,
) -> Result<&'static Family, AdapterError> {
    let bad =
        |source: GgufError| AdapterError::Gguf { path: path.to_owned(), source: Box::new(source) };
    let key = "general.architecture";
    let found = Gguf::require(key, gguf.text(key).map_err(bad)?).map_err(bad)?;
    // GGUF files call Mistral `llama`.
    let wanted = match settings.architecture.as_str() {
        "mistral" => "llama",
        other => other,
    };
    match Family::named(found) {
        Some(family) if found == wanted => Ok(family),
        _ => {
            let (found, wanted) = (found.to_owned(), wanted.to_owned());
            Err(AdapterError::Architecture { path: path.to_owned(), found, wanted })
        }
    }
}

/// One alpha for all pairs.
struct Alpha {
    path: PathBuf,
    alpha: f64,
}

impl Scale for Alpha {
    fn of(&self, name: &str, rank: usize) -> Result<f64, AdapterError> {
        if !self.alpha.is_finite() {
            let (path, name) = (self.path.clone(), name.to_owned());
            return Err(AdapterError::Scale { path, name, scale: self.alpha });
        }
        // Ranks are small: exact.
        let rank = u32::try_from(rank).map_or(f64::INFINITY, f64::from);
        Ok(if self.alpha == 0.0 { 1.0 } else { self.alpha / rank })
    }
}
