//! One model: opened, checked, packed, and ready to compute.
//!
//! ```text
//! path -> settings, tokenizer, template -> where does it fit? -> weights (packed) -> facts
//! ```
//!
//! Not here: which models to load, and when to drop them (the node).

use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

use commons_port::engine::{LoadedModel, ModelKind as PortKind};
use commons_record::settlement::EngineClass;

use crate::adapter::Shelf;
use crate::cache::KvFormat;
use crate::forward::{LoadOptions, Transformer};
use crate::grammar::{GrammarError, Grammars};
use crate::place::{self, DeviceError, Place, Placement};
use crate::room::{self, Room, RoomError};
use crate::settings::ModelKind;
use crate::template::{Template, TemplateError};
use crate::tokenizer::{Tokenizer, TokenizerError};
use crate::weights::{WeightError, Weights};

/// Why a model was not loaded. The text of the cause says where in the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum LoadError {
    #[error("the weights cannot be used")]
    Weights(#[from] Box<WeightError>),

    #[error("the vocabulary cannot be used")]
    Tokenizer(#[from] Box<TokenizerError>),

    #[error("the vocabulary has {tokens} tokens and the model only {rows}")]
    Vocabulary { tokens: usize, rows: usize },

    #[error("the model does not fit")]
    Room(#[from] RoomError),

    #[error("the model cannot be computed where it was asked for")]
    Device(#[from] DeviceError),
}

/// A model that is loaded.
pub struct Model {
    facts: LoadedModel,
    placement: Placement,
    transformer: Transformer,
    tokenizer: Tokenizer,
    /// A bad template spoils conversations, and nothing else.
    template: Result<Template, TemplateError>,
    adapters: Shelf,
    /// Made when somebody first asks for an answer of a certain form.
    grammars: OnceLock<Result<Grammars, GrammarError>>,
}

impl fmt::Debug for Model {
    /// Its name: the rest is a vocabulary and weights, pages of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("name", &self.facts.name).finish_non_exhaustive()
    }
}

impl Model {
    /// Loads a GGUF file or a Hugging Face folder.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        Self::load_with(path, &LoadOptions::default())
    }

    /// Loads a model as told.
    pub fn load_with(path: &Path, options: &LoadOptions<'_>) -> Result<Self, LoadError> {
        let weights = Weights::open(path).map_err(Box::new)?;
        let settings = weights.settings().clone();
        let (tokenizer, template) = match weights.folder() {
            Some(folder) => {
                (Tokenizer::from_folder(folder.path()), Template::from_folder(folder.path()))
            }
            None => match weights.gguf() {
                Some(gguf) => (Tokenizer::from_gguf(gguf), Template::from_gguf(gguf)),
                None => unreachable!("weights are in a file or in a folder"),
            },
        };
        let tokenizer = tokenizer.map_err(Box::new)?;
        // Rows behind the vocabulary are padding; tokens behind the rows would have none.
        let (tokens, rows) = (tokenizer.token_count(), settings.token_count);
        if tokens > rows {
            return Err(LoadError::Vocabulary { tokens, rows });
        }
        let size = weights.tensors().map(|(_, facts)| facts.size()).sum();
        let needed = room::needed_on_device(&settings, size);
        let (place, placement) = place::choose(options.device, needed)?;
        if matches!(place, Place::Cpu) {
            Room::check_weights(size)?;
        }
        // The name of a large file takes as long as its weights: both at once.
        let (hash, transformer) = std::thread::scope(|scope| {
            let hash = scope.spawn(|| weights.hash());
            let transformer = Transformer::load_at(&place, &weights, settings, options);
            let hash = hash.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (hash, transformer)
        });
        let transformer = transformer.map_err(Box::new)?;
        let identity = weights.identity();
        let settings = transformer.settings();
        let facts = LoadedModel {
            model: hash.map_err(Box::new)?,
            name: identity.name.clone(),
            file_name: identity.file_name.clone(),
            file_size: identity.file_size,
            family: settings.architecture.clone(),
            quantisation: identity.quantisation.clone(),
            tokenizer: tokenizer.hash(),
            context_len: u32::try_from(settings.context_len).unwrap_or(u32::MAX),
            parameter_count: identity.parameter_count,
            licence: identity.licence.clone(),
            class: placement.class.clone(),
            kind: match settings.kind {
                ModelKind::Decoder => PortKind::Decoder,
                ModelKind::Encoder => PortKind::Encoder,
            },
        };
        let adapters = Shelf::new(facts.model, weights);
        let grammars = OnceLock::new();
        Ok(Self { facts, placement, transformer, tokenizer, template, adapters, grammars })
    }

    /// What there is to know about it.
    pub fn facts(&self) -> &LoadedModel {
        &self.facts
    }

    /// Where it is computed, and why there.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// The forward pass.
    pub fn transformer(&self) -> &Transformer {
        &self.transformer
    }

    /// The adapters that are registered for it.
    pub fn adapters(&self) -> &Shelf {
        &self.adapters
    }

    /// What it needs to keep answers to a form. The first call reads the vocabulary.
    pub fn grammars(&self) -> Result<&Grammars, &GrammarError> {
        self.grammars.get_or_init(|| Grammars::new(&self.tokenizer)).as_ref()
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

/// A class whose keys and values are stored so. Another form gives other results, so it is another
/// class; the usual one, 16 bits, goes without saying.
pub(crate) fn class_with(class: &EngineClass, kv_format: KvFormat) -> EngineClass {
    let kept = match kv_format {
        // A device claims a tolerance, and stores them as it can.
        _ if *class != engine_class() => "",
        KvFormat::F16 => "",
        KvFormat::F32 => "+kv-f32",
        KvFormat::Q8 => "+kv-q8",
    };
    EngineClass { kernels: format!("{}{kept}", class.kernels), ..class.clone() }
}

/// What this build computes with on the processor: kernels whose bits depend on no machine. The
/// instruction set is therefore no part of it.
pub fn engine_class() -> EngineClass {
    EngineClass {
        device: format!("cpu/{}", std::env::consts::ARCH),
        kernels: "commons/rows-1".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
