//! The tokens of a model: their texts, kinds and bytes.

use std::collections::HashMap;

use super::TokenizerError;
use super::bpe::byte_of_char;
use crate::gguf::{Gguf, GgufError, Value};

/// Tokens in a vocabulary. The largest published has 262 144.
const TOKENS_MAX: usize = 1 << 20;

/// Bytes of one token's text. The longest published are runs of a few hundred spaces.
const TOKEN_SIZE_MAX: usize = 4_096;

/// What a token is for; the numbers are those of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// The tokens of a model, by id and by text.
#[derive(Debug)]
pub(super) struct Vocabulary {
    texts: Vec<String>,
    kinds: Vec<TokenKind>,
    /// What all tokens stand for, one after the other; `ends[id]` is where token `id` stops.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Only tokens that plain text may become.
    ids: HashMap<String, u32>,
}

impl Vocabulary {
    /// A SentencePiece vocabulary: `▁` is a space, byte tokens are written `<0x0A>`.
    pub(super) fn spm(gguf: &Gguf) -> Result<Self, TokenizerError> {
        Self::new(gguf, |kind, text, bytes| match kind {
            TokenKind::Byte => bytes.extend(parse_byte(text)),
            _ => bytes.extend_from_slice(text.replace('▁', " ").as_bytes()),
        })
    }

    /// A byte-level BPE vocabulary: each character of a normal token is one byte.
    pub(super) fn bpe(gguf: &Gguf) -> Result<Self, TokenizerError> {
        Self::new(gguf, |kind, text, bytes| match kind {
            TokenKind::UserDefined => bytes.extend_from_slice(text.as_bytes()),
            _ => text.chars().for_each(|c| match byte_of_char(c) {
                Some(byte) => bytes.push(byte),
                None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }),
        })
    }

    fn new(
        gguf: &Gguf,
        decode: impl Fn(TokenKind, &str, &mut Vec<u8>),
    ) -> Result<Self, TokenizerError> {
        let key = "tokenizer.ggml.tokens";
        let texts = Gguf::require(key, gguf.texts(key)?)?.to_vec();
        if texts.is_empty() || texts.len() > TOKENS_MAX {
            return Err(TokenizerError::VocabularySize { limit: TOKENS_MAX });
        }
        let too_long = texts.iter().enumerate().find(|(_, text)| text.len() > TOKEN_SIZE_MAX);
        if let Some((id, text)) = too_long {
            let (size, limit) = (text.len(), TOKEN_SIZE_MAX);
            return Err(TokenizerError::TokenSize { id, size, limit });
        }
        let kinds = read_kinds(gguf, texts.len())?;
        let mut vocabulary = Self {
            bytes: Vec::new(),
            ends: Vec::with_capacity(texts.len()),
            ids: HashMap::with_capacity(texts.len()),
            texts,
            kinds,
        };
        for (id, (text, &kind)) in (0u32..).zip(vocabulary.texts.iter().zip(&vocabulary.kinds)) {
            if !matches!(kind, TokenKind::Control | TokenKind::Unknown) {
                decode(kind, text, &mut vocabulary.bytes);
            }
            vocabulary.ends.push(vocabulary.bytes.len());
            if matches!(kind, TokenKind::Normal | TokenKind::UserDefined) {
                vocabulary.ids.insert(text.clone(), id);
            }
        }
        Ok(vocabulary)
    }

    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    pub(super) fn text(&self, id: u32) -> Option<&str> {
        self.texts.get(id as usize).map(String::as_str)
    }

    /// What the token stands for.
    pub(super) fn bytes(&self, id: u32) -> Option<&[u8]> {
        let id = id as usize;
        let end = *self.ends.get(id)?;
        let start = id.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[start..end])
    }

    /// The token with this text, if plain text may become it.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// The tokens of one kind.
    pub(super) fn of_kind(&self, kind: TokenKind) -> impl Iterator<Item = (u32, &str)> {
        let tokens = (0u32..).zip(self.texts.iter().zip(&self.kinds));
        tokens.filter(move |(_, (_, it))| **it == kind).map(|(id, (text, _))| (id, text.as_str()))
    }

    /// For each byte the SentencePiece token that stands for it.
    pub(super) fn byte_tokens(&self) -> [Option<u32>; 256] {
        let mut tokens = [None; 256];
        for (id, text) in self.of_kind(TokenKind::Byte) {
            if let Some(byte) = parse_byte(text) {
                tokens[usize::from(byte)] = Some(id);
            }
        }
        tokens
    }

    /// A special token's id that the file names; all ones is the format's way to say "none".
    pub(super) fn special_id(&self, gguf: &Gguf, key: &str) -> Result<Option<u32>, TokenizerError> {
        let Some(id) = gguf.unsigned(key)?.filter(|&id| id != u64::from(u32::MAX)) else {
            return Ok(None);
        };
        let found = u32::try_from(id).ok().filter(|&id| (id as usize) < self.len());
        match found {
            Some(id) => Ok(Some(id)),
            None => Err(TokenizerError::SpecialId { key: key.to_owned(), id, count: self.len() }),
        }
    }
}

/// The kind of each token. Those that open or close a text are control tokens, whatever the file
/// says: otherwise a user could write them.
fn read_kinds(gguf: &Gguf, count: usize) -> Result<Vec<TokenKind>, TokenizerError> {
    let key = "tokenizer.ggml.token_type";
    let mut kinds = vec![TokenKind::Normal; count];
    if let Some(value) = gguf.get(key) {
        let codes = value.as_i32s().ok_or_else(|| wrong_type(key, value))?;
        if codes.len() != count {
            return Err(TokenizerError::Count { key, found: codes.len(), wanted: count });
        }
        for (id, (kind, &code)) in kinds.iter_mut().zip(codes).enumerate() {
            *kind = match code {
                1 => TokenKind::Normal,
                2 => TokenKind::Unknown,
                3 => TokenKind::Control,
                4 => TokenKind::UserDefined,
                5 => TokenKind::Unused,
                6 => TokenKind::Byte,
                kind => return Err(TokenizerError::Kind { id, kind }),
            };
        }
    }
    for name in ["bos", "eos", "eot", "eom"] {
        let id = gguf.unsigned(&format!("tokenizer.ggml.{name}_token_id"))?;
        let id = id.and_then(|id| usize::try_from(id).ok());
        if let Some(kind) = id.and_then(|id| kinds.get_mut(id)) {
            *kind = TokenKind::Control;
        }
    }
    Ok(kinds)
}

/// The refusal of an array with elements of another type.
pub(super) fn wrong_type(key: &str, value: &Value) -> TokenizerError {
    let wanted = "an array of the right type";
    GgufError::WrongType { key: key.to_owned(), wanted, found: value.type_name() }.into()
}

/// The byte that `<0x0A>` stands for.
fn parse_byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}
