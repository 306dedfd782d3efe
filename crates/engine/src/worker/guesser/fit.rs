//! Whether a model can guess for another, and how much it may keep in mind.
//!
//! The two must mean the same by every id: the same text, and a control token in both or in none.
//! Nothing else of a tokenizer matters, because text is only ever encoded by the larger model:
//! scores, merges, templates and the choice of end tokens may differ, as they do between a base
//! model and a tuned one. Ids that a file marks as unused are as good as absent: published models
//! of one family are padded to different sizes.

use commons_kernels::kv::KvError;

use crate::cache::PAGE_LEN;
use crate::model::Model;
use crate::room::Room;
use crate::settings::ModelKind;
use crate::worker::WorkerConfig;

/// A model that guesses for another.
#[derive(Debug)]
pub struct Draft {
    /// The smaller model.
    pub model: Model,
    /// Bytes that its keys and values may take; none means a quarter of what is free.
    pub kv_size_max: Option<u64>,
}

/// Why a model cannot guess for another.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum DraftError {
    #[error("{name} turns text into vectors and continues none: nothing can be guessed with it")]
    Encoder { name: String },

    #[error(
        "token {id} is {ours} in {model} and {theirs} in {draft}: take a smaller model of the \
         same family"
    )]
    Vocabulary { id: u32, model: String, ours: String, draft: String, theirs: String },

    #[error("no guesses are allowed; allow some, or load {name} without a model that guesses")]
    NoGuesses { name: String },

    #[error("{needed} bytes are needed for one page of {name} and {limit} may be used")]
    Memory { name: String, needed: u64, limit: u64 },

    #[error("keys and values of the model that guesses cannot be stored")]
    Kv(#[from] KvError),
}

/// Refuses what does not go together. Returns how many pages the smaller model gets.
pub(super) fn check(
    draft: &Draft,
    model: &Model,
    room: &Room,
    config: &WorkerConfig,
) -> Result<usize, DraftError> {
    let name = |it: &Model| it.facts().name.clone();
    for it in [model, &draft.model] {
        if it.transformer().settings().kind == ModelKind::Encoder {
            return Err(DraftError::Encoder { name: name(it) });
        }
    }
    if config.draft_len_max == 0 {
        return Err(DraftError::NoGuesses { name: name(model) });
    }
    check_vocabulary(model, &draft.model)?;
    let transformer = draft.model.transformer();
    let settings = transformer.settings();
    let page = transformer.page_bytes(config.kv_format)?.max(1);
    // The processor's pages are taken when they are first written, so what the larger model set
    // aside for itself, a half of what was free, still counts as free there.
    let free = transformer.memory_available().map_or(u64::MAX, |available| available / 4);
    let limit = draft.kv_size_max.unwrap_or(free);
    let longest = settings.context_len.min(room.context_len());
    let wanted = (longest.div_ceil(PAGE_LEN) as u64).saturating_mul(config.slots.max(1) as u64);
    match wanted.min(limit / page).min(PAGES_MAX) {
        0 => Err(DraftError::Memory { name: name(&draft.model), needed: page, limit }),
        pages => Ok(usize::try_from(pages).unwrap_or(usize::MAX)),
    }
}

fn check_vocabulary(model: &Model, draft: &Model) -> Result<(), DraftError> {
    let Some(id) = model.tokenizer().difference(draft.tokenizer()) else { return Ok(()) };
    Err(DraftError::Vocabulary {
        id,
        model: model.facts().name.clone(),
        ours: model.tokenizer().describe(id),
        draft: draft.facts().name.clone(),
        theirs: draft.tokenizer().describe(id),
    })
}

/// Pages that are numbered.
const PAGES_MAX: u64 = 1 << 24;
