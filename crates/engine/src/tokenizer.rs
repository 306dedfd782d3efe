//! Text to token ids and back, with the vocabulary that a model carries.
//!
//! ```text
//! text -> special tokens apart -> normalised -> words -> tokens -> opening and closing tokens
//! ```
//!
//! A definition comes out of a GGUF file (`gguf.rs`) or out of a Hugging Face folder (`folder.rs`);
//! what is made of it is the same. Two algorithms: byte-pair encoding (`bpe.rs`), byte-level or as
//! SentencePiece has it, and word pieces (`wordpiece.rs`). All see only the text between special
//! tokens; `special.rs` finds those.
//!
//! # Invariants
//!
//! * Control tokens come out of [`Tokenizer::encode_rendered`] only where the template wrote them:
//!   what a user wrote is plain text, whatever it looks like.
//! * A merge never ends in a control, unknown or byte token, so plain text cannot reach one.
//! * Building is linear in the vocabulary; encoding `n` bytes takes `O(n log n)` steps.
//! * What a definition asks for and is not here is refused by name.
//!
//! Not here: chat templates (`template.rs`); unigram models.

mod bpe;
mod error;
mod folder;
mod gguf;
mod guard;
mod merge;
mod normalize;
mod special;
mod split;
mod stream;
mod unicode;
mod vocabulary;
mod wordpiece;

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::path::Path;

use commons_record::Hash;

pub use error::TokenizerError;
pub use folder::TokenizerFiles;
pub(crate) use folder::read_file;
pub use guard::Guard;
pub use stream::TextStream;

use crate::gguf::Gguf;
use bpe::Bpe;
use normalize::{Step, normalize};
use special::{Part, Special, Specials};
use vocabulary::{TokenKind, Vocabulary};
use wordpiece::WordPiece;

/// Bytes of text in one call. Four times the longest context in use (1 Mi tokens) would be more
/// than any request body that the gateway accepts.
pub const TEXT_SIZE_MAX: usize = 4 << 20;

/// Names under which published models keep their other end-of-turn tokens.
const END_NAMES: [&str; 8] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<EOT>",
];

/// The vocabulary and the rules of one model.
#[derive(Debug)]
pub struct Tokenizer {
    algorithm: Algorithm,
    steps: Vec<Step>,
    late_steps: Vec<Step>,
    /// Those that are looked for in the text as it was written.
    specials: Specials,
    /// Those that are looked for in the normalised text.
    normalized_specials: Specials,
    vocabulary: Vocabulary,
    bos: Option<u32>,
    eos: Option<u32>,
    ends: Vec<u32>,
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    adds_space: bool,
    hash: Hash,
}

#[derive(Debug)]
enum Algorithm {
    Bpe(Bpe),
    WordPiece(WordPiece),
}

/// What a source says of a tokenizer.
struct Definition {
    vocabulary: Vocabulary,
    algorithm: Algorithm,
    /// What is done to a text between special tokens.
    steps: Vec<Step>,
    /// What is done after that, between special tokens that are looked for in normalised text.
    late_steps: Vec<Step>,
    specials: Vec<Special>,
    /// What goes before a text.
    prefix: Vec<u32>,
    /// What goes behind a text that is not continued.
    suffix: Vec<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    ends: Vec<u32>,
    /// Whether a space is put before a text, which decoding takes away.
    adds_space: bool,
    hash: Hash,
}

impl Tokenizer {
    /// Builds the tokenizer that a GGUF file describes.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, TokenizerError> {
        Self::new(gguf::read(gguf)?)
    }

    /// Builds the tokenizer that the files of a Hugging Face folder describe.
    pub fn from_files(files: &TokenizerFiles<'_>) -> Result<Self, TokenizerError> {
        Self::new(folder::read(files)?)
    }

    /// Reads those files, each bounded, and builds the tokenizer.
    pub fn from_folder(path: &Path) -> Result<Self, TokenizerError> {
        folder::Owned::read(path).and_then(|files| Self::from_files(&files.borrow()))
    }

    fn new(definition: Definition) -> Result<Self, TokenizerError> {
        let Definition { vocabulary, specials, steps, mut ends, .. } = definition;
        let named = vocabulary.of_kind(TokenKind::Control);
        ends.extend(named.filter(|(_, text)| END_NAMES.contains(text)).map(|(id, _)| id));
        ends.sort_unstable();
        ends.dedup();
        let (mut normalized, raw): (Vec<_>, Vec<_>) =
            specials.into_iter().partition(|special| special.is_normalized);
        for special in &mut normalized {
            special.text = normalize(&steps, &special.text, true).into_owned();
        }
        Ok(Self {
            algorithm: definition.algorithm,
            specials: Specials::new(raw)?,
            normalized_specials: Specials::new(normalized)?,
            steps,
            late_steps: definition.late_steps,
            vocabulary,
            bos: definition.bos,
            eos: definition.eos,
            ends,
            prefix: definition.prefix,
            suffix: definition.suffix,
            adds_space: definition.adds_space,
            hash: definition.hash,
        })
    }

    /// How many tokens the vocabulary has.
    pub fn token_count(&self) -> usize {
        self.vocabulary.len()
    }

    /// The hash of the vocabulary and its rules: of every `tokenizer.` pair of a GGUF file, by key,
    /// or of the bytes of a folder's files.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The first id that another vocabulary uses for something else: another text, or a control
    /// token in one of them alone. Ids that are marked as unused are as good as absent.
    pub fn difference(&self, other: &Self) -> Option<u32> {
        self.vocabulary.difference(&other.vocabulary)
    }

    /// What an id stands for, in words.
    pub(crate) fn describe(&self, id: u32) -> String {
        match self.vocabulary.used(id) {
            None => "nothing".to_owned(),
            Some((true, text)) => format!("the control token {text:?}"),
            Some((false, text)) => format!("{text:?}"),
        }
    }

    /// Whether this token ends the answer.
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// The tokens that end an answer.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The control token with this text.
    pub(crate) fn control(&self, text: &str) -> Option<u32> {
        let mut all = self.vocabulary.of_kind(TokenKind::Control);
        all.find(|(_, it)| *it == text).map(|(id, _)| id)
    }

    /// How a template writes a control token; empty for any other.
    pub(crate) fn control_text(&self, id: u32) -> &str {
        match self.vocabulary.used(id) {
            Some((true, text)) => text,
            Some((false, _)) | None => "",
        }
    }

    /// Whether the vocabulary says that an id stands for nothing.
    pub(crate) fn is_unused(&self, id: u32) -> bool {
        self.vocabulary.used(id).is_none()
    }

    /// The token that opens a text, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// How a template writes the opening token; empty if there is none.
    pub fn bos_text(&self) -> &str {
        self.bos.and_then(|id| self.vocabulary.text(id)).unwrap_or("")
    }

    /// How a template writes the closing token; empty if there is none.
    pub fn eos_text(&self) -> &str {
        self.eos.and_then(|id| self.vocabulary.text(id)).unwrap_or("")
    }

    /// The bytes that a token stands for; control tokens stand for none, unknown ids for `None`.
    pub fn piece(&self, id: u32) -> Option<&[u8]> {
        self.vocabulary.bytes(id)
    }

    /// Encodes plain text: no control token comes out, and none is put before it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        self.encode_parts(text, None, &mut ids)?;
        Ok(ids)
    }

    /// Encodes the prompt of a plain completion, behind the opening token if the model wants one.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = self.prefix.clone();
        self.encode_parts(text, None, &mut ids)?;
        Ok(ids)
    }

    /// Encodes a text that is complete, as an embedder reads it: between the opening and the
    /// closing tokens that the model wants.
    pub fn encode_whole(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = self.encode_prompt(text)?;
        ids.extend_from_slice(&self.suffix);
        Ok(ids)
    }

    /// Encodes a rendered template. Control tokens are recognised except where `guard` put a mark.
    ///
    /// The opening token is added if the model wants one and the template did not write it.
    pub fn encode_rendered(&self, text: &str, guard: Guard) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        self.encode_parts(text, Some(guard), &mut ids)?;
        if !ids.starts_with(&self.prefix) {
            ids.splice(0..0, self.prefix.iter().copied());
        }
        Ok(ids)
    }

    /// A guard for these texts of a user: see [`Guard`].
    pub fn guard<'a>(
        &self,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Guard, TokenizerError> {
        Guard::new(texts)
    }

    /// The same text with marks, so that no control token is recognised in it or across its edges.
    pub fn protect(&self, guard: Guard, text: &str) -> String {
        guard.protect(&self.specials, text)
    }

    /// Decodes the ids of a whole text: control tokens stand for nothing, bytes that are not UTF-8
    /// become U+FFFD, and the space that encoding put before the text is taken away.
    ///
    /// An answer is the continuation of a text, so it is decoded by [`Tokenizer::piece`] and
    /// [`TextStream`], and keeps its space.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> =
            ids.iter().filter_map(|&id| self.piece(id)).flatten().copied().collect();
        let text = bytes.strip_prefix(b" ").filter(|_| self.adds_space).unwrap_or(&bytes);
        String::from_utf8_lossy(text).into_owned()
    }

    fn encode_parts(
        &self,
        text: &str,
        guard: Option<Guard>,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        if text.len() > TEXT_SIZE_MAX {
            return Err(TokenizerError::TooLong { size: text.len() });
        }
        let (text, marks) = match guard {
            Some(guard) => {
                let (text, marks) = guard.lift(text);
                (Cow::Owned(text), Some(marks))
            }
            None => (Cow::Borrowed(text), None),
        };
        for part in self.specials.partition(&text, marks.as_deref()) {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text { start, end } => {
                    let normalized = normalize(&self.steps, &text[start..end], start == 0);
                    self.encode_normalized(&normalized, start == 0, ids);
                }
            }
        }
        Ok(())
    }

    fn encode_normalized(&self, text: &str, is_first: bool, ids: &mut Vec<u32>) {
        for part in self.normalized_specials.partition(text, None) {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text { start, end } => {
                    let is_first = is_first && start == 0;
                    let words = normalize(&self.late_steps, &text[start..end], is_first);
                    match &self.algorithm {
                        Algorithm::Bpe(bpe) => bpe.encode(&self.vocabulary, &words, ids),
                        Algorithm::WordPiece(it) => it.encode(&self.vocabulary, &words, ids),
                    }
                }
            }
        }
    }
}
