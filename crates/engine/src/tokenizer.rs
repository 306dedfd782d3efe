//! Text to token ids and back, with the vocabulary that a GGUF file carries.
//!
//! Two families: SentencePiece (`spm.rs`, "llama" in the file) and byte-level BPE (`bpe.rs`,
//! "gpt2"). Both see only the text between special tokens; `special.rs` finds those.
//!
//! # Invariants
//!
//! * Control tokens come out of [`Tokenizer::encode_rendered`] only where the template wrote them:
//!   what a user wrote is plain text, whatever it looks like.
//! * A merge never ends in a control, unknown or byte token, so plain text cannot reach one.
//! * Building is linear in the vocabulary; encoding `n` bytes takes `O(n log n)` steps.
//!
//! Not here: chat templates (`template.rs`); `tokenizer.json` files.

mod bpe;
mod error;
mod guard;
mod special;
mod spm;
mod stream;
mod vocabulary;

#[cfg(test)]
mod tests;

use commons_record::Hash;
use commons_record::hash::FieldHasher;

pub use error::TokenizerError;
pub use guard::Guard;
pub use stream::TextStream;

use crate::gguf::Gguf;
use bpe::Bpe;
use special::{Part, Specials};
use spm::Spm;
use vocabulary::{TokenKind, Vocabulary};

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
    specials: Specials,
    vocabulary: Vocabulary,
    bos: Option<u32>,
    eos: Option<u32>,
    ends: Vec<u32>,
    adds_bos: bool,
    hash: Hash,
}

#[derive(Debug)]
enum Algorithm {
    Spm(Spm),
    Bpe(Bpe),
}

impl Tokenizer {
    /// Builds the tokenizer that the file describes.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, TokenizerError> {
        let key = "tokenizer.ggml.model";
        let (vocabulary, algorithm, adds_bos) = match Gguf::require(key, gguf.text(key)?)? {
            "llama" => {
                let vocabulary = Vocabulary::spm(gguf)?;
                let spm = Spm::new(gguf, &vocabulary)?;
                (vocabulary, Algorithm::Spm(spm), true)
            }
            "gpt2" => {
                let vocabulary = Vocabulary::bpe(gguf)?;
                let (bpe, adds_bos) = Bpe::new(gguf, &vocabulary)?;
                (vocabulary, Algorithm::Bpe(bpe), adds_bos)
            }
            other => return Err(TokenizerError::Model { name: other.to_owned() }),
        };
        let bos = vocabulary.special_id(gguf, "tokenizer.ggml.bos_token_id")?;
        let eos = vocabulary.special_id(gguf, "tokenizer.ggml.eos_token_id")?;
        let ends = find_ends(gguf, &vocabulary, eos)?;
        let adds_bos = gguf.boolean("tokenizer.ggml.add_bos_token")?.unwrap_or(adds_bos);
        let specials = Specials::new(&vocabulary);
        let hash = hash_of(gguf);
        Ok(Self { algorithm, specials, vocabulary, bos, eos, ends, adds_bos, hash })
    }

    /// How many tokens the vocabulary has.
    pub fn token_count(&self) -> usize {
        self.vocabulary.len()
    }

    /// The hash of the vocabulary and its rules: every `tokenizer.` pair of the file, by key.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Whether this token ends the answer.
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// The tokens that end an answer.
    pub fn ends(&self) -> &[u32] {
        &self.ends
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
        let mut ids: Vec<u32> = self.bos.filter(|_| self.adds_bos).into_iter().collect();
        self.encode_parts(text, None, &mut ids)?;
        Ok(ids)
    }

    /// Encodes a rendered template. Control tokens are recognised except where `guard` put a mark.
    ///
    /// The opening token is added if the model wants one and the template did not write it.
    pub fn encode_rendered(&self, text: &str, guard: Guard) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        self.encode_parts(text, Some(guard), &mut ids)?;
        if let Some(bos) = self.bos.filter(|_| self.adds_bos)
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
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

    /// Decodes ids at once; bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> =
            ids.iter().filter_map(|&id| self.piece(id)).flatten().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
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
        let mut is_after_special = true;
        for part in self.specials.partition(text, guard) {
            match part {
                Part::Token(id) => {
                    ids.push(id);
                    is_after_special = true;
                }
                Part::Text(text) => {
                    self.encode_text(&text, is_after_special, ids)?;
                    is_after_special = false;
                }
            }
        }
        Ok(())
    }

    fn encode_text(
        &self,
        text: &str,
        is_after_special: bool,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        match &self.algorithm {
            Algorithm::Spm(spm) => {
                spm.encode(&self.vocabulary, text, is_after_special, ids);
                Ok(())
            }
            Algorithm::Bpe(bpe) => bpe.encode(&self.vocabulary, text, ids),
        }
    }
}

/// The end tokens: those the file names, and control tokens with a well-known name.
fn find_ends(
    gguf: &Gguf,
    vocabulary: &Vocabulary,
    eos: Option<u32>,
) -> Result<Vec<u32>, TokenizerError> {
    let mut ends: Vec<u32> = eos.into_iter().collect();
    for key in ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        ends.extend(vocabulary.special_id(gguf, key)?);
    }
    let named = vocabulary.of_kind(TokenKind::Control);
    ends.extend(named.filter(|(_, text)| END_NAMES.contains(text)).map(|(id, _)| id));
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
}

fn hash_of(gguf: &Gguf) -> Hash {
    let mut hasher = FieldHasher::new("commons/tokenizer/1");
    for (key, value) in gguf.metadata().range("tokenizer.".to_owned()..) {
        if !key.starts_with("tokenizer.") {
            break;
        }
        hasher.field(key.as_bytes());
        hasher.field(&value.to_gguf_bytes());
    }
    hasher.finish()
}
