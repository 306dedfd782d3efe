//! Why a vocabulary or a text was refused.

use std::path::PathBuf;

use super::TEXT_SIZE_MAX;
use crate::gguf::GgufError;

/// Why a vocabulary was not built, or a text not encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum TokenizerError {
    #[error("the vocabulary is not readable")]
    Gguf(#[from] GgufError),

    #[error("failed to read {path:?}")]
    Read { path: PathBuf, source: std::io::Error },

    #[error("{file} has more than {limit} bytes; it is no tokenizer")]
    FileSize { file: String, limit: u64 },

    #[error("{file} is not what a model folder has there; fetch it again")]
    Json { file: &'static str, source: Box<serde_json::Error> },

    #[error(
        "tokenizer model {name:?} is not supported; supported: llama (SentencePiece), gpt2 (BPE), \
         bert (WordPiece)"
    )]
    Model { name: String },

    #[error("pre-tokenizer {name:?} is not supported; supported: {supported}")]
    PreTokenizer { name: String, supported: String },

    #[error("{part} {name:?} of tokenizer.json is not supported; use another file of this model")]
    Unsupported { part: &'static str, name: String },

    #[error("{key:?} has {found} entries, the vocabulary has {wanted} tokens")]
    Count { key: &'static str, found: usize, wanted: usize },

    #[error("the vocabulary is empty or has more than {limit} tokens")]
    VocabularySize { limit: usize },

    #[error("token {id} has {size} bytes, at most {limit} accepted")]
    TokenSize { id: usize, size: usize, limit: usize },

    #[error("the special tokens have {size} bytes, at most {limit} accepted")]
    SpecialsSize { size: usize, limit: usize },

    #[error("token {id} has unknown type {kind}")]
    Kind { id: usize, kind: i32 },

    #[error("token {id} has a score that is not a number")]
    Score { id: usize },

    #[error("token {id} is both {first:?} and {second:?}")]
    SameId { id: u32, first: String, second: String },

    #[error("the vocabulary has no token for the byte {byte:#04x}, and none for the unknown")]
    MissingByte { byte: u8 },

    #[error("the vocabulary has no token for the unknown")]
    NoUnknown,

    #[error("merge {index} ({text:?}) names a token that plain text may not become")]
    Merge { index: usize, text: String },

    #[error("{key:?} is {id}, but the vocabulary has {count} tokens")]
    SpecialId { key: String, id: u64, count: usize },

    #[error("text of {size} bytes, at most {TEXT_SIZE_MAX} accepted")]
    TooLong { size: usize },

    #[error(
        "the text uses every one of the 32 Unicode non-characters U+FDD0 to U+FDEF; remove one"
    )]
    NoMark,
}
