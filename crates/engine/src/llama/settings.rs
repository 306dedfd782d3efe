//! What a file says about its model, checked before a weight is read.

use crate::gguf::{Gguf, GgufError};

/// The architecture that this module computes, by the name that files use.
const ARCHITECTURE: &str = "llama";

/// The base of the rotary frequencies where the file names none.
const ROPE_BASE: f64 = 10_000.0;

/// A dimension above this is not a model's. The widest published layer has 53 248.
const DIMENSION_MAX: u64 = 1 << 20;

/// Layers. The deepest published dense model has 126.
const LAYERS_MAX: u64 = 1_024;

/// Positions. The longest published context has 10 Mi.
const CONTEXT_MAX: u64 = 16 << 20;

/// What a file says about its model.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The architecture's name.
    pub architecture: String,
    /// How many layers there are.
    pub layer_count: usize,
    /// Numbers in the row of a token.
    pub width: usize,
    /// Query heads.
    pub head_count: usize,
    /// Key and value heads; each serves as many query heads as any other.
    pub kv_head_count: usize,
    /// Numbers in the row of a head.
    pub head_size: usize,
    /// Numbers in the row between the two halves of the feed-forward part.
    pub feed_forward_len: usize,
    /// Positions that the model was made for.
    pub context_len: usize,
    /// Tokens in the vocabulary.
    pub token_count: usize,
    /// Keeps the norm from dividing by zero.
    pub epsilon: f32,
    /// Base of the rotary frequencies.
    pub rope_base: f64,
    /// Positions are divided by this.
    pub rope_scale: f64,
}

/// Why a model's settings were refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum SettingsError {
    #[error("the settings are not readable")]
    Gguf(#[from] GgufError),

    #[error("architecture {name:?} is not supported; supported: llama")]
    Architecture { name: String },

    #[error("{what} is not supported yet")]
    Unsupported { what: String },

    #[error("{key:?} is {found}, accepted are 1 to {limit}")]
    Range { key: String, found: u64, limit: u64 },

    #[error("{key:?} is {found}, which is not a positive finite number")]
    Number { key: String, found: f64 },

    #[error("{what} do not fit together: {detail}")]
    Inconsistent { what: &'static str, detail: String },
}

impl Settings {
    /// Reads the settings of a model whose vocabulary has `token_count` tokens.
    pub fn from_gguf(gguf: &Gguf, token_count: usize) -> Result<Self, SettingsError> {
        let architecture = Self::check_architecture(gguf)?;
        let keys = Keys { gguf, architecture };
        refuse_unsupported(&keys)?;
        let width = keys.dimension("embedding_length", DIMENSION_MAX)?;
        let head_count = keys.dimension("attention.head_count", DIMENSION_MAX)?;
        let kv_head_count = keys.optional("attention.head_count_kv", DIMENSION_MAX)?;
        let head_size = keys.optional("attention.key_length", DIMENSION_MAX)?;
        let settings = Self {
            architecture: architecture.to_owned(),
            layer_count: keys.dimension("block_count", LAYERS_MAX)?,
            width,
            head_count,
            kv_head_count: kv_head_count.unwrap_or(head_count),
            head_size: head_size.unwrap_or(width / head_count),
            feed_forward_len: keys.dimension("feed_forward_length", DIMENSION_MAX)?,
            context_len: keys.dimension("context_length", CONTEXT_MAX)?,
            token_count,
            epsilon: keys.epsilon()?,
            rope_base: keys.number("rope.freq_base")?.unwrap_or(ROPE_BASE),
            rope_scale: keys.number("rope.scaling.factor")?.unwrap_or(1.0),
        };
        settings.check(&keys)?;
        Ok(settings)
    }

    /// The architecture's name, if it is a supported one.
    pub fn check_architecture(gguf: &Gguf) -> Result<&str, SettingsError> {
        let key = "general.architecture";
        let name = Gguf::require(key, gguf.text(key)?)?;
        if name != ARCHITECTURE {
            return Err(SettingsError::Architecture { name: name.to_owned() });
        }
        Ok(name)
    }

    /// Query heads that share one key and value head.
    pub fn group_size(&self) -> usize {
        self.head_count / self.kv_head_count
    }

    fn check(&self, keys: &Keys<'_>) -> Result<(), SettingsError> {
        let heads = (self.head_count, self.kv_head_count, self.head_size);
        if !self.head_count.is_multiple_of(self.kv_head_count)
            || self.head_size == 0
            || !self.head_size.is_multiple_of(2)
        {
            let what = "heads, key heads and head size";
            return Err(SettingsError::Inconsistent { what, detail: format!("{heads:?}") });
        }
        let rotated = keys.optional("rope.dimension_count", DIMENSION_MAX)?;
        if rotated.is_some_and(|rotated| rotated != self.head_size) {
            let what = format!("rotating {rotated:?} of {} numbers in a head", self.head_size);
            return Err(SettingsError::Unsupported { what });
        }
        let values = keys.optional("attention.value_length", DIMENSION_MAX)?;
        if values.is_some_and(|values| values != self.head_size) {
            let what = "a value head of another size than its key head".to_owned();
            return Err(SettingsError::Unsupported { what });
        }
        Ok(())
    }
}

/// What would change the numbers and is not computed here is refused by name.
fn refuse_unsupported(keys: &Keys<'_>) -> Result<(), SettingsError> {
    let experts = keys.gguf.unsigned(&keys.full("expert_count"))?.unwrap_or(0);
    if experts > 0 {
        let what = format!("a mixture of {experts} experts");
        return Err(SettingsError::Unsupported { what });
    }
    match keys.gguf.text(&keys.full("rope.scaling.type"))? {
        None | Some("none" | "linear") => Ok(()),
        Some(other) => {
            Err(SettingsError::Unsupported { what: format!("rotary scaling {other:?}") })
        }
    }
}

/// Reads the keys of one architecture.
struct Keys<'a> {
    gguf: &'a Gguf,
    architecture: &'a str,
}

impl Keys<'_> {
    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn dimension(&self, key: &str, limit: u64) -> Result<usize, SettingsError> {
        Ok(Gguf::require(&self.full(key), self.optional(key, limit)?)?)
    }

    fn optional(&self, key: &str, limit: u64) -> Result<Option<usize>, SettingsError> {
        let key = self.full(key);
        let Some(found) = self.gguf.unsigned(&key)? else { return Ok(None) };
        match usize::try_from(found) {
            Ok(value) if (1..=limit).contains(&found) => Ok(Some(value)),
            _ => Err(SettingsError::Range { key, found, limit }),
        }
    }

    fn number(&self, key: &str) -> Result<Option<f64>, SettingsError> {
        let key = self.full(key);
        let Some(found) = self.gguf.float(&key)? else { return Ok(None) };
        let is_sound = found.is_finite() && found > 0.0;
        if is_sound { Ok(Some(found)) } else { Err(SettingsError::Number { key, found }) }
    }

    fn epsilon(&self) -> Result<f32, SettingsError> {
        let key = "attention.layer_norm_rms_epsilon";
        let epsilon = Gguf::require(&self.full(key), self.number(key)?)?;
        #[expect(clippy::cast_possible_truncation, reason = "files store it as f32")]
        Ok(epsilon as f32)
    }
}
