//! Byte-pair encoding of words, in both its forms.
//!
//! *Byte-level*: a word is spelt in the 256 byte tokens, and a list of merges says which neighbours
//! become one, in order of rank. *SentencePiece*: a word is spelt in characters; what is merged is
//! said by a list as well, or by the scores of the tokens: then a union is a merge if the
//! vocabulary has it. A character that is no token is spelt in bytes, or is the unknown token.
//!
//! The `tokenizers` crate is not used here. Its builder indexes past a buffer when two tokens of a
//! lying merge are longer together than the longest token, its splitter stops without a word when
//! the regular expression gives up, and it keeps users' words in a cache for the life of the thread.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use super::TokenizerError;
use super::merge::{Merger, NONE, Piece, Union};
use super::split::{Split, each_word};
use super::vocabulary::{TokenKind, Vocabulary, char_of_byte};

/// For two neighbours, left above right: the merge.
type Ranks = HashMap<u64, Union, RandomState>;

/// What decides about a merge.
#[derive(Debug)]
enum Rules {
    /// The position in the list of merges.
    Ranks(Ranks),
    /// For each token the priority that its score gives.
    Scores(Vec<u32>),
}

/// How a word is spelt before anything is merged.
#[derive(Debug)]
enum Alphabet {
    Bytes(Box<[u32; 256]>),
    Characters(Missing),
}

/// What stands for a character that is no token.
#[derive(Debug)]
pub(super) enum Missing {
    /// After all merges: for each byte its token, or the unknown token.
    BytesAtLast(Box<[u32; 256]>),
    /// Before all merges: for each byte its token.
    Bytes(Box<[u32; 256]>),
    /// This token; for a run of them once, if `is_fused`.
    Unknown { id: u32, is_fused: bool },
}

/// The rules of one model.
#[derive(Debug)]
pub(super) struct Bpe {
    rules: Rules,
    alphabet: Alphabet,
    /// How a text is cut into words that no merge reaches across.
    splits: Vec<Split>,
}

impl Bpe {
    /// Byte-level rules.
    pub(super) fn byte_level<'a>(
        vocabulary: &Vocabulary,
        merges: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
        splits: Vec<Split>,
    ) -> Result<Self, TokenizerError> {
        let mut bytes = Box::new([NONE; 256]);
        for (byte, slot) in (0u8..=255).zip(bytes.iter_mut()) {
            let id = vocabulary.id(char_of_byte(byte).encode_utf8(&mut [0; 4]));
            *slot = id.ok_or(TokenizerError::MissingByte { byte })?;
        }
        let rules = Rules::Ranks(read_ranks(vocabulary, merges)?);
        Ok(Self { rules, alphabet: Alphabet::Bytes(bytes), splits })
    }

    /// SentencePiece rules with a list of merges.
    pub(super) fn ranked<'a>(
        vocabulary: &Vocabulary,
        merges: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
        missing: Missing,
        splits: Vec<Split>,
    ) -> Result<Self, TokenizerError> {
        let rules = Rules::Ranks(read_ranks(vocabulary, merges)?);
        Ok(Self::spaced(vocabulary, rules, missing, splits))
    }

    /// SentencePiece rules with a score for each token.
    pub(super) fn scored(
        vocabulary: &Vocabulary,
        scores: &[f32],
        bytes: Box<[u32; 256]>,
    ) -> Result<Self, TokenizerError> {
        if let Some(id) = scores.iter().position(|score| score.is_nan()) {
            return Err(TokenizerError::Score { id });
        }
        let rules = Rules::Scores(scores.iter().map(|&score| priority(score)).collect());
        Ok(Self::spaced(vocabulary, rules, Missing::BytesAtLast(bytes), Vec::new()))
    }

    fn spaced(
        vocabulary: &Vocabulary,
        rules: Rules,
        missing: Missing,
        mut splits: Vec<Split>,
    ) -> Self {
        // A merge across the beginning of a run of `▁` would need a token that has one inside.
        let is_crossing = |text: &str| {
            let starts = text.match_indices('▁').map(|(at, _)| at);
            starts.into_iter().any(|at| at > 0 && !text[..at].ends_with('▁'))
        };
        let mut reachable = vocabulary
            .all()
            .filter(|(_, kind, _)| matches!(kind, TokenKind::Normal | TokenKind::UserDefined));
        if vocabulary.id("▁").is_some() && !reachable.any(|(_, _, text)| is_crossing(text)) {
            splits.push(Split::BeforeSpaceRuns);
        }
        Self { rules, alphabet: Alphabet::Characters(missing), splits }
    }

    /// Appends the tokens of `text`, which is normalised and lies between two special tokens.
    pub(super) fn encode(&self, vocabulary: &Vocabulary, text: &str, ids: &mut Vec<u32>) {
        let mut merger = Merger::default();
        let mut recent = Recent::new(text);
        each_word(&self.splits, text, &mut |word| {
            recent.copy_or(word, ids, |ids| self.encode_word(vocabulary, word, &mut merger, ids));
        });
    }

    fn encode_word(
        &self,
        vocabulary: &Vocabulary,
        word: &str,
        merger: &mut Merger,
        ids: &mut Vec<u32>,
    ) {
        if let Some(id) = vocabulary.whole_word(word.as_bytes()) {
            return ids.push(id);
        }
        merger.pieces.clear();
        self.spell(vocabulary, word, &mut merger.pieces);
        match &self.rules {
            Rules::Ranks(ranks) => merger.merge(|left, right| {
                ranks.get(&pair(left.id, right.id)).copied().unwrap_or(Union::NONE)
            }),
            Rules::Scores(priorities) => merger.merge(|left, right| {
                let union = &word[left.start as usize..right.end as usize];
                let found = vocabulary.id(union).and_then(|id| {
                    let &priority = priorities.get(id as usize)?;
                    Some(Union { priority, id })
                });
                found.unwrap_or(Union::NONE)
            }),
        }
        for piece in &merger.pieces {
            match &self.alphabet {
                Alphabet::Characters(Missing::BytesAtLast(tokens)) if piece.id == NONE => {
                    let bytes = &word.as_bytes()[piece.start as usize..piece.end as usize];
                    ids.extend(bytes.iter().map(|&byte| tokens[usize::from(byte)]));
                }
                _ => ids.push(piece.id),
            }
        }
    }

    fn spell(&self, vocabulary: &Vocabulary, word: &str, pieces: &mut Vec<Piece>) {
        match &self.alphabet {
            Alphabet::Bytes(tokens) => spell_bytes(tokens, word.as_bytes(), 0, pieces),
            Alphabet::Characters(missing) => {
                for (start, c) in (0u32..).map_while(char_starts(word)) {
                    let end = start + offset(c.len_utf8());
                    let text = &word[start as usize..end as usize];
                    match (vocabulary.id(text), missing) {
                        (Some(id), _) => pieces.push(Piece { id, start, end }),
                        (None, Missing::BytesAtLast(_)) => {
                            pieces.push(Piece { id: NONE, start, end });
                        }
                        (None, Missing::Bytes(tokens)) => {
                            spell_bytes(tokens, text.as_bytes(), start, pieces);
                        }
                        (None, &Missing::Unknown { id, is_fused }) => match pieces.last_mut() {
                            Some(last) if is_fused && last.id == id => last.end = end,
                            _ => pieces.push(Piece { id, start, end }),
                        },
                    }
                }
            }
        }
    }
}

/// Each character with where it starts.
fn char_starts(word: &str) -> impl FnMut(u32) -> Option<(u32, char)> {
    let mut chars = word.char_indices();
    move |_| chars.next().map(|(at, c)| (offset(at), c))
}

fn spell_bytes(tokens: &[u32; 256], bytes: &[u8], start: u32, pieces: &mut Vec<Piece>) {
    let spelt = (start..).zip(bytes);
    pieces.extend(spelt.map(|(at, &byte)| Piece {
        id: tokens[usize::from(byte)],
        start: at,
        end: at + 1,
    }));
}

/// A position in a text. Texts are far below 4 GiB: see `TEXT_SIZE_MAX`.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// The better the score, the smaller. The bits of floating-point numbers are in their order, those
/// of negative ones in the inverse order.
fn priority(score: f32) -> u32 {
    // Both zeros are one score.
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 1 { bits } else { !bits & 0x7fff_ffff }
}

fn read_ranks<'a>(
    vocabulary: &Vocabulary,
    merges: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
) -> Result<Ranks, TokenizerError> {
    let mut ranks = Ranks::with_capacity_and_hasher(merges.len(), RandomState::default());
    let mut text = String::new();
    for (priority, (left, right)) in (0u32..).zip(merges) {
        text.clear();
        text.push_str(left);
        text.push_str(right);
        let ids = [left, right, &text].map(|text| vocabulary.id(text));
        let [Some(left), Some(right), Some(id)] = ids else {
            let (index, text) = (priority as usize, format!("{left} {right}"));
            return Err(TokenizerError::Merge { index, text });
        };
        ranks.entry(pair(left, right)).or_insert(Union { priority, id });
    }
    Ok(ranks)
}

/// Where words of a text were met before, so that a word is merged once for many.
///
/// It holds places and no text, for one call.
struct Recent<'a> {
    text: &'a str,
    slots: Vec<Place>,
    state: RandomState,
}

/// A word of the text, and its ids in the answer. Empty: nothing was met.
#[derive(Clone, Copy, Default)]
struct Place {
    start: u32,
    end: u32,
    ids_start: u32,
    ids_end: u32,
}

impl<'a> Recent<'a> {
    /// Below this many bytes few words come twice.
    const TEXT_SIZE_MIN: usize = 512;
    /// Places that are remembered: 64 KiB, which stays in a processor's cache.
    const SLOTS: usize = 4_096;
    /// Longer words seldom come twice.
    const WORD_SIZE_MAX: usize = 64;

    fn new(text: &'a str) -> Self {
        let count = if text.len() < Self::TEXT_SIZE_MIN { 0 } else { Self::SLOTS };
        Self { text, slots: vec![Place::default(); count], state: RandomState::default() }
    }

    /// Appends the ids of `word`, a part of the text: copies them from where it was met, or asks.
    fn copy_or(&mut self, word: &str, ids: &mut Vec<u32>, encode: impl FnOnce(&mut Vec<u32>)) {
        if self.slots.is_empty() || word.len() > Self::WORD_SIZE_MAX {
            return encode(ids);
        }
        let hash = self.state.hash_one(word.as_bytes());
        let slot = usize::try_from(hash % Self::SLOTS as u64).unwrap_or(0);
        let place = self.slots[slot];
        if &self.text[place.start as usize..place.end as usize] == word {
            return ids.extend_from_within(place.ids_start as usize..place.ids_end as usize);
        }
        let ids_start = offset(ids.len());
        encode(ids);
        let start = offset(word.as_ptr().addr() - self.text.as_ptr().addr());
        let end = start + offset(word.len());
        self.slots[slot] = Place { start, end, ids_start, ids_end: offset(ids.len()) };
    }
}
