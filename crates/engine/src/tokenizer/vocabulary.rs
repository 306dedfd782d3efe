//! The tokens of a model: their texts, kinds and bytes.
//!
//! Texts and bytes lie one after the other in two buffers, so a vocabulary of a quarter of a million
//! tokens is a handful of allocations.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::TokenizerError;

/// Tokens in a vocabulary. The largest published has 262 144.
pub(super) const TOKENS_MAX: usize = 1 << 20;

/// Bytes of one token's text. The longest published are runs of a few hundred spaces.
const TOKEN_SIZE_MAX: usize = 4_096;

/// Bytes of all texts together. The largest published vocabulary has 3 MiB.
const TEXTS_SIZE_MAX: usize = 256 << 20;

/// What a token is for; the numbers are those of GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// How a vocabulary writes what its tokens stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Each character of a normal token is one byte.
    ByteLevel,
    /// `▁` is a space; byte tokens are written `<0x0A>`.
    SpaceMarks,
    /// `##` before what continues a word; a space before what does not.
    Continuations,
}

/// Strings one behind the other.
#[derive(Debug, Default)]
struct Arena {
    data: Vec<u8>,
    /// Where each string stops.
    ends: Vec<u32>,
}

impl Arena {
    fn get(&self, id: u32) -> Option<&[u8]> {
        let id = id as usize;
        let end = *self.ends.get(id)? as usize;
        let start = id.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.data.get(start..end)
    }

    fn close(&mut self) {
        // `TEXTS_SIZE_MAX` is far below 4 GiB.
        self.ends.push(u32::try_from(self.data.len()).unwrap_or(u32::MAX));
    }
}

/// Ids by the text or bytes that they have in an arena.
#[derive(Debug, Default)]
struct Index {
    table: HashTable<u32>,
    state: RandomState,
}

impl Index {
    /// Adds an id unless another with the same string is there.
    fn insert(&mut self, arena: &Arena, id: u32) {
        let Some(key) = arena.get(id) else { return };
        let hash = self.state.hash_one(key);
        if self.table.find(hash, |&it| arena.get(it) == Some(key)).is_none() {
            let rehash = |&it: &u32| self.state.hash_one(arena.get(it).unwrap_or_default());
            self.table.insert_unique(hash, id, rehash);
        }
    }

    fn get(&self, arena: &Arena, key: &[u8]) -> Option<u32> {
        let hash = self.state.hash_one(key);
        self.table.find(hash, |&it| arena.get(it) == Some(key)).copied()
    }
}

/// The tokens of a model, by id and by text.
#[derive(Debug)]
pub(super) struct Vocabulary {
    kinds: Vec<TokenKind>,
    texts: Arena,
    /// What each token stands for.
    bytes: Arena,
    /// Only tokens that plain text may become.
    by_text: Index,
    /// Normal tokens, if words are looked up whole.
    by_bytes: Option<Index>,
}

impl Vocabulary {
    /// Builds a vocabulary of these texts, one for each kind.
    pub(super) fn new<'a>(
        texts: impl ExactSizeIterator<Item = &'a str>,
        kinds: Vec<TokenKind>,
        spelling: Spelling,
    ) -> Result<Self, TokenizerError> {
        if texts.len() == 0 || texts.len() > TOKENS_MAX {
            return Err(TokenizerError::VocabularySize { limit: TOKENS_MAX });
        }
        let (arenas, index) = ((Arena::default(), Arena::default()), Index::default());
        let mut vocabulary =
            Self { kinds, texts: arenas.0, bytes: arenas.1, by_text: index, by_bytes: None };
        for (id, text) in (0u32..).zip(texts) {
            if text.len() > TOKEN_SIZE_MAX {
                let (id, size, limit) = (id as usize, text.len(), TOKEN_SIZE_MAX);
                return Err(TokenizerError::TokenSize { id, size, limit });
            }
            vocabulary.push(id, text, spelling);
            if vocabulary.texts.data.len() > TEXTS_SIZE_MAX {
                return Err(TokenizerError::VocabularySize { limit: TOKENS_MAX });
            }
        }
        Ok(vocabulary)
    }

    fn push(&mut self, id: u32, text: &str, spelling: Spelling) {
        let kind = self.kinds.get(id as usize).copied().unwrap_or(TokenKind::Unused);
        self.texts.data.extend_from_slice(text.as_bytes());
        self.texts.close();
        if !matches!(kind, TokenKind::Control | TokenKind::Unknown) {
            spell_out(kind, text, spelling, &mut self.bytes.data);
        }
        self.bytes.close();
        if matches!(kind, TokenKind::Normal | TokenKind::UserDefined) && !text.is_empty() {
            self.by_text.insert(&self.texts, id);
        }
    }

    /// Prepares [`Vocabulary::whole_word`].
    pub(super) fn index_words(&mut self) {
        let mut index = Index::default();
        for (id, &kind) in (0u32..).zip(&self.kinds) {
            if kind == TokenKind::Normal {
                index.insert(&self.bytes, id);
            }
        }
        self.by_bytes = Some(index);
    }

    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    pub(super) fn text(&self, id: u32) -> Option<&str> {
        self.texts.get(id).and_then(|text| std::str::from_utf8(text).ok())
    }

    /// What the token stands for.
    pub(super) fn bytes(&self, id: u32) -> Option<&[u8]> {
        self.bytes.get(id)
    }

    pub(super) fn kind(&self, id: u32) -> Option<TokenKind> {
        self.kinds.get(id as usize).copied()
    }

    /// The token with this text, if plain text may become it.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.by_text.get(&self.texts, text.as_bytes())
    }

    /// The token with this text, of whatever kind. Slow: it looks at all.
    pub(super) fn any_id(&self, text: &str) -> Option<u32> {
        self.id(text).or_else(|| self.all().find(|(_, _, it)| *it == text).map(|(id, _, _)| id))
    }

    /// The normal token that stands for these bytes, if words are looked up whole.
    pub(super) fn whole_word(&self, word: &[u8]) -> Option<u32> {
        self.by_bytes.as_ref()?.get(&self.bytes, word)
    }

    /// Whether an id is that of a control token, and its text; none if it is not used.
    pub(super) fn used(&self, id: u32) -> Option<(bool, &str)> {
        let kind = self.kind(id).filter(|&kind| kind != TokenKind::Unused)?;
        Some((kind == TokenKind::Control, self.text(id).unwrap_or_default()))
    }

    /// The first id that is used for something else in another vocabulary.
    pub(super) fn difference(&self, other: &Self) -> Option<u32> {
        let count = u32::try_from(self.len().max(other.len())).unwrap_or(u32::MAX);
        (0..count).find(|&id| self.used(id) != other.used(id))
    }

    /// All tokens in order.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, TokenKind, &str)> {
        let tokens = (0u32..).zip(&self.kinds);
        tokens.map(|(id, &kind)| (id, kind, self.text(id).unwrap_or_default()))
    }

    /// The tokens of one kind.
    pub(super) fn of_kind(&self, kind: TokenKind) -> impl Iterator<Item = (u32, &str)> {
        let tokens = self.all().filter(move |(_, it, _)| *it == kind);
        tokens.map(|(id, _, text)| (id, text))
    }

    /// For each byte the token that stands for it.
    pub(super) fn byte_tokens(&self) -> [Option<u32>; 256] {
        let mut tokens = [None; 256];
        for (id, text) in self.of_kind(TokenKind::Byte) {
            if let Some(byte) = parse_byte(text) {
                tokens[usize::from(byte)] = Some(id);
            }
        }
        tokens
    }
}

fn spell_out(kind: TokenKind, text: &str, spelling: Spelling, bytes: &mut Vec<u8>) {
    match spelling {
        Spelling::ByteLevel if kind != TokenKind::UserDefined => {
            text.chars().for_each(|c| match byte_of_char(c) {
                Some(byte) => bytes.push(byte),
                None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            });
        }
        Spelling::SpaceMarks if kind == TokenKind::Byte => bytes.extend(parse_byte(text)),
        Spelling::SpaceMarks => bytes.extend_from_slice(text.replace('▁', " ").as_bytes()),
        Spelling::Continuations => match text.strip_prefix("##") {
            Some(rest) => bytes.extend_from_slice(rest.as_bytes()),
            None => {
                bytes.push(b' ');
                bytes.extend_from_slice(text.as_bytes());
            }
        },
        Spelling::ByteLevel => bytes.extend_from_slice(text.as_bytes()),
    }
}

/// The byte that `<0x0A>` stands for.
pub(super) fn parse_byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_plain = digits.len() == 2 && digits.bytes().all(|it| it.is_ascii_hexdigit());
    if is_plain { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// How a byte is written in a byte-level vocabulary: itself if it is printable in Latin-1,
/// otherwise the next free character from U+0100 on.
pub(super) fn char_of_byte(byte: u8) -> char {
    let code = match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => u32::from(byte),
        0x00..=0x20 => 0x100 + u32::from(byte),
        0x7f..=0xa0 => 0x121 + u32::from(byte - 0x7f),
        0xad => 0x143,
    };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The inverse of [`char_of_byte`].
fn byte_of_char(c: char) -> Option<u8> {
    let code = match u32::from(c) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => code,
        code @ 0x100..=0x120 => code - 0x100,
        code @ 0x121..=0x142 => code - 0x121 + 0x7f,
        0x143 => 0xad,
        _ => return None,
    };
    u8::try_from(code).ok()
}
