//! The `model` of a `tokenizer.json`: its vocabulary, merges and settings.
//!
//! Vocabulary and merges are read into flat lists, with a bound on each, so that a lying file costs
//! no more memory than its own size.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::super::bpe::{Bpe, Missing};
use super::super::split::Split;
use super::super::vocabulary::{Spelling, Vocabulary};
use super::super::wordpiece::{WORD_LEN_MAX, WordPiece};
use super::super::{Algorithm, TokenizerError};
use super::{AddedToken, TOKENS_MAX};

/// Merges in a file. The largest published has 514 906.
const MERGES_MAX: usize = 2 << 20;

/// Characters that `WordPiece` may look at in a word: the square of this is its time.
const WORD_LEN_LIMIT: usize = 1_000;

/// The `model` object. Fields that belong to other types are absent or null.
#[derive(Deserialize)]
pub(super) struct Model {
    /// Old files leave it out.
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    #[serde(default)]
    max_input_chars_per_word: Option<usize>,
    vocab: Vocab,
    #[serde(default)]
    merges: Option<Merges>,
}

/// Texts with their ids, in the order of the file.
#[derive(Default)]
struct Vocab {
    tokens: Vec<(String, u32)>,
    /// Whether it is a list, as the unigram model has it.
    is_list: bool,
}

impl<'de> Deserialize<'de> for Vocab {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Tokens;
        impl<'de> Visitor<'de> for Tokens {
            type Value = Vocab;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "a vocabulary of at most {TOKENS_MAX} tokens with ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab, A::Error> {
                let mut vocab = Vocab::default();
                while let Some((text, id)) = map.next_entry::<String, u32>()? {
                    if id as usize >= TOKENS_MAX || vocab.tokens.len() >= TOKENS_MAX {
                        return Err(A::Error::custom(format_args!(
                            "id {id} of {text:?} is too large"
                        )));
                    }
                    vocab.tokens.push((text, id));
                }
                Ok(vocab)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vocab, A::Error> {
                while list.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                Ok(Vocab { tokens: Vec::new(), is_list: true })
            }
        }
        from.deserialize_any(Tokens)
    }
}

/// Pairs of texts, in the order of their rank.
#[derive(Default)]
struct Merges(Vec<(String, String)>);

/// One merge: `"a b"` in old files, `["a", "b"]` in new ones.
struct Merge(String, String);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = Merge;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("two tokens with a space between them, or a list of two tokens")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Merge, E> {
                let mut parts = text.split(' ');
                match (parts.next(), parts.next(), parts.next()) {
                    (Some(left), Some(right), None) => Ok(Merge(left.to_owned(), right.to_owned())),
                    _ => Err(E::custom(format_args!("merge {text:?} is not of two tokens"))),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merge, A::Error> {
                let mut next = || list.next_element::<String>();
                let (left, right) = (next()?, next()?);
                match (left, right, next()?) {
                    (Some(left), Some(right), None) => Ok(Merge(left, right)),
                    _ => Err(A::Error::custom("a merge is not of two tokens")),
                }
            }
        }
        from.deserialize_any(Pair)
    }
}

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Merges;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "a list of at most {MERGES_MAX} merges")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merges, A::Error> {
                let mut merges = Vec::new();
                while let Some(Merge(left, right)) = list.next_element()? {
                    if merges.len() >= MERGES_MAX {
                        return Err(A::Error::custom("too many merges"));
                    }
                    merges.push((left, right));
                }
                Ok(Merges(merges))
            }
        }
        from.deserialize_seq(List)
    }
}

fn unsupported(part: &'static str, name: impl Into<String>) -> TokenizerError {
    TokenizerError::Unsupported { part, name: name.into() }
}

impl Model {
    /// The type, which old files leave to be guessed.
    fn kind(&self) -> &str {
        let guess = if self.vocab.is_list {
            "Unigram"
        } else if self.merges.is_some() {
            "BPE"
        } else {
            "WordPiece"
        };
        self.kind.as_deref().unwrap_or(guess)
    }

    /// Whether it is `WordPiece`, which brings its own spelling.
    pub(super) fn is_word_piece(&self) -> bool {
        self.kind() == "WordPiece"
    }

    pub(super) fn falls_back_to_bytes(&self) -> bool {
        self.byte_fallback
    }

    pub(super) fn unknown(&self) -> Option<&str> {
        self.unk_token.as_deref()
    }

    /// All texts by id, those of the added tokens too; `None` where an id is left out.
    pub(super) fn texts<'a>(
        &'a self,
        added: &'a [AddedToken],
    ) -> Result<Vec<Option<&'a str>>, TokenizerError> {
        let own = self.vocab.tokens.iter().map(|(text, id)| (text.as_str(), *id));
        let added = added.iter().filter_map(|token| Some((token.content.as_str(), token.id?)));
        let mut texts: Vec<Option<&str>> = Vec::with_capacity(self.vocab.tokens.len());
        for (text, id) in own.chain(added) {
            let at = id as usize;
            if at >= TOKENS_MAX {
                return Err(TokenizerError::VocabularySize { limit: TOKENS_MAX });
            }
            if at >= texts.len() {
                texts.resize(at + 1, None);
            }
            match texts[at] {
                Some(first) if first != text => {
                    let (first, second) = (first.to_owned(), text.to_owned());
                    return Err(TokenizerError::SameId { id, first, second });
                }
                _ => texts[at] = Some(text),
            }
        }
        Ok(texts)
    }

    /// Builds the algorithm; `splits` is how the pipeline cuts words.
    pub(super) fn build(
        &self,
        vocabulary: &mut Vocabulary,
        spelling: Spelling,
        splits: Vec<Split>,
    ) -> Result<Algorithm, TokenizerError> {
        match self.kind() {
            "WordPiece" => self.build_word_piece(vocabulary),
            "BPE" => self.build_bpe(vocabulary, spelling, splits).map(Algorithm::Bpe),
            other => Err(unsupported("model", other)),
        }
    }

    fn build_bpe(
        &self,
        vocabulary: &mut Vocabulary,
        spelling: Spelling,
        splits: Vec<Split>,
    ) -> Result<Bpe, TokenizerError> {
        if let Some(dropout) = self.dropout.filter(|&it| it != 0.0) {
            return Err(unsupported("dropout", dropout.to_string()));
        }
        let affixes = [&self.continuing_subword_prefix, &self.end_of_word_suffix];
        if let Some(affix) = affixes.into_iter().flatten().find(|it| !it.is_empty()) {
            return Err(unsupported("the model's word affix", affix));
        }
        if self.ignore_merges {
            if spelling != Spelling::ByteLevel {
                return Err(unsupported("ignore_merges without", "ByteLevel"));
            }
            vocabulary.index_words();
        }
        let merges = self.merges.as_ref().map(|it| it.0.as_slice()).unwrap_or_default();
        let merges = merges.iter().map(|(left, right)| (left.as_str(), right.as_str()));
        if spelling == Spelling::ByteLevel {
            return Bpe::byte_level(vocabulary, merges, splits);
        }
        let missing = if self.byte_fallback {
            let mut bytes = Box::new([0; 256]);
            let tokens = (0u8..=255).zip(vocabulary.byte_tokens());
            for ((byte, token), slot) in tokens.zip(bytes.iter_mut()) {
                *slot = token.ok_or(TokenizerError::MissingByte { byte })?;
            }
            Missing::Bytes(bytes)
        } else {
            let id = self.unknown().and_then(|text| vocabulary.any_id(text));
            Missing::Unknown { id: id.ok_or(TokenizerError::NoUnknown)?, is_fused: self.fuse_unk }
        };
        Bpe::ranked(vocabulary, merges, missing, splits)
    }

    fn build_word_piece(&self, vocabulary: &Vocabulary) -> Result<Algorithm, TokenizerError> {
        let unknown = self.unknown().unwrap_or("[UNK]");
        let unknown = vocabulary.any_id(unknown).ok_or(TokenizerError::NoUnknown)?;
        let prefix = self.continuing_subword_prefix.as_deref().unwrap_or("##");
        if prefix != "##" {
            return Err(unsupported("continuing_subword_prefix", prefix));
        }
        let word_len_max = self.max_input_chars_per_word.unwrap_or(WORD_LEN_MAX);
        if word_len_max > WORD_LEN_LIMIT {
            return Err(unsupported("max_input_chars_per_word", word_len_max.to_string()));
        }
        Ok(Algorithm::WordPiece(WordPiece {
            unknown,
            first_prefix: String::new(),
            rest_prefix: prefix.to_owned(),
            word_len_max,
        }))
    }
}

/// The name of a component: its `type`.
pub(super) fn type_of(component: &Value) -> &str {
    component.get("type").and_then(Value::as_str).unwrap_or("without a type")
}
