//! Why a model's settings were refused: which key, what it says, and what is accepted.

use crate::gguf::GgufError;

/// Why a model's settings were refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum SettingsError {
    #[error("the settings are not readable")]
    Gguf(#[from] GgufError),

    #[error("config.json is not readable")]
    Config { source: serde_json::Error },

    #[error("architecture {name:?} is not supported; supported: {supported}")]
    Architecture { name: String, supported: String },

    #[error("{what} is not supported yet")]
    Unsupported { what: String },

    #[error("config.json has no value for {key:?}; it is not a complete model, fetch another")]
    Missing { key: String },

    #[error("value of {key:?} should be {wanted} and is {found}")]
    WrongType { key: String, wanted: &'static str, found: &'static str },

    #[error("{key:?} is {found}, accepted are 1 to {limit}")]
    Range { key: String, found: u64, limit: u64 },

    #[error("{key:?} is {found}, which is not a positive finite number")]
    Number { key: String, found: f64 },

    #[error("{key:?} has {found} entries, {wanted} are needed")]
    Length { key: String, found: usize, wanted: usize },

    #[error("{what} do not fit together: {detail}")]
    Inconsistent { what: &'static str, detail: String },

    #[error("failed to read tensor {name:?}, which the settings need: {reason}")]
    Tensor { name: String, reason: String },
}

/// Refuses something by what it is.
pub(super) fn unsupported<T>(what: impl Into<String>) -> Result<T, SettingsError> {
    Err(SettingsError::Unsupported { what: what.into() })
}

/// Refuses sizes that contradict each other.
pub(super) fn inconsistent<T>(
    what: &'static str,
    detail: impl Into<String>,
) -> Result<T, SettingsError> {
    Err(SettingsError::Inconsistent { what, detail: detail.into() })
}
