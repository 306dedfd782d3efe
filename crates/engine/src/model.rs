//! One model file: opened, checked, and ready to compute.
//!
//! ```text
//! path -> map -> GGUF -> tokenizer, template, settings -> weights -> facts (hash last)
//! ```
//!
//! Not here: which files to load, and when to drop them (the node).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use commons_port::engine::LoadedModel;
use commons_record::Hash;
use commons_record::settlement::EngineClass;

use crate::gguf::{Gguf, GgufError, TensorInfo, TensorType};
use crate::llama::{Llama, Settings, SettingsError};
use crate::mapped::MappedFile;
use crate::template::{Template, TemplateError};
use crate::tokenizer::{Tokenizer, TokenizerError};
use crate::weights::WeightError;

/// Why a model was not loaded. The text of the cause says where in the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum LoadError {
    #[error("failed to open {}", path.display())]
    Open { path: PathBuf, source: io::Error },

    #[error("{} is not a file with a name in UTF-8", path.display())]
    Name { path: PathBuf },

    #[error("{} is not a model file that can be used", path.display())]
    Gguf { path: PathBuf, source: Box<GgufError> },

    #[error("{} is part of a model in {count} files; join them into one first", path.display())]
    Split { path: PathBuf, count: u64 },

    #[error("the vocabulary of {} cannot be used", path.display())]
    Tokenizer { path: PathBuf, source: Box<TokenizerError> },

    #[error("the settings of {} cannot be used", path.display())]
    Settings { path: PathBuf, source: Box<SettingsError> },

    #[error("the weights of {} cannot be used", path.display())]
    Weights { path: PathBuf, source: Box<WeightError> },
}

/// A model that is loaded.
#[derive(Debug)]
pub struct Model {
    facts: LoadedModel,
    llama: Llama,
    tokenizer: Tokenizer,
    /// A bad template spoils conversations, and nothing else.
    template: Result<Template, TemplateError>,
}

impl Model {
    /// Loads a GGUF file. It stays mapped, so it must not be changed while the model lives.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let at = || path.to_owned();
        let (file_name, name) = names_of(path)?;
        let file = open(path).map_err(|source| LoadError::Open { path: at(), source })?;
        let gguf = Gguf::parse(file.bytes())
            .map_err(|source| LoadError::Gguf { path: at(), source: Box::new(source) })?;
        refuse_split(path, &gguf)?;
        // First what says which family it is: "architecture X is not supported" helps more than
        // a complaint about its vocabulary.
        Settings::check_architecture(&gguf)
            .map_err(|source| LoadError::Settings { path: at(), source: Box::new(source) })?;
        let tokenizer = Tokenizer::from_gguf(&gguf)
            .map_err(|source| LoadError::Tokenizer { path: at(), source: Box::new(source) })?;
        let settings = Settings::from_gguf(&gguf, tokenizer.token_count())
            .map_err(|source| LoadError::Settings { path: at(), source: Box::new(source) })?;
        let llama = Llama::load(&file, &gguf, settings)
            .map_err(|source| LoadError::Weights { path: at(), source: Box::new(source) })?;
        let template = Template::from_gguf(&gguf);
        let settings = llama.settings();
        let facts = LoadedModel {
            model: Hash::of_content(file.bytes()),
            name,
            file_name,
            file_size: file.bytes().len() as u64,
            family: settings.architecture.clone(),
            quantisation: quantisation(&gguf),
            tokenizer: tokenizer.hash(),
            context_len: u32::try_from(settings.context_len).unwrap_or(u32::MAX),
            parameter_count: gguf.tensors().values().map(TensorInfo::element_count).sum(),
            licence: gguf.text("general.license").ok().flatten().map(str::to_owned),
            class: engine_class(),
        };
        Ok(Self { facts, llama, tokenizer, template })
    }

    /// What there is to know about it.
    pub fn facts(&self) -> &LoadedModel {
        &self.facts
    }

    /// The forward pass.
    pub fn llama(&self) -> &Llama {
        &self.llama
    }

    /// The vocabulary.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The chat template, or why it cannot be used.
    pub fn template(&self) -> Result<&Template, &TemplateError> {
        self.template.as_ref()
    }
}

/// What this build computes with. `tol`: two machines agree closely, not bit for bit.
pub fn engine_class() -> EngineClass {
    EngineClass {
        device: format!("cpu/{}", std::env::consts::ARCH),
        kernels: "candle/tol".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn names_of(path: &Path) -> Result<(String, String), LoadError> {
    let text = |part: Option<&std::ffi::OsStr>| Some(part?.to_str()?.to_owned());
    match (text(path.file_name()), text(path.file_stem())) {
        (Some(file_name), Some(stem)) => Ok((file_name, stem)),
        _ => Err(LoadError::Name { path: path.to_owned() }),
    }
}

fn open(path: &Path) -> io::Result<MappedFile> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    // An empty map is an error on some systems; an empty file is no model on any.
    if metadata.len() == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty"));
    }
    MappedFile::new(&file)
}

fn refuse_split(path: &Path, gguf: &Gguf) -> Result<(), LoadError> {
    let count = gguf.unsigned("split.count");
    let count = count
        .map_err(|source| LoadError::Gguf { path: path.to_owned(), source: Box::new(source) })?;
    match count.filter(|&count| count > 1) {
        Some(count) => Err(LoadError::Split { path: path.to_owned(), count }),
        None => Ok(()),
    }
}

/// The quantisation's name. The file's own word is taken only if most numbers agree with it.
fn quantisation(gguf: &Gguf) -> String {
    let mut counts: BTreeMap<TensorType, u64> = BTreeMap::new();
    for info in gguf.tensors().values() {
        *counts.entry(info.kind()).or_default() += info.element_count();
    }
    let most = counts.into_iter().max_by_key(|&(_, count)| count);
    let most = most.map_or("none", |(kind, _)| kind.name());
    let claimed = gguf.unsigned("general.file_type").ok().flatten().and_then(file_type_name);
    claimed.filter(|claimed| claimed.starts_with(most)).unwrap_or(most).to_owned()
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
