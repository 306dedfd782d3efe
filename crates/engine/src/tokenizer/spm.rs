//! SentencePiece encoding: merge the two neighbours whose union has the best score, until none has.
//!
//! No list of merges is needed: a union is a merge if the vocabulary has it. What is left over and
//! not in the vocabulary is spelt in byte tokens.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::TokenizerError;
use super::vocabulary::{TokenKind, Vocabulary, wrong_type};
use crate::gguf::Gguf;

/// The rules of one SentencePiece model.
#[derive(Debug)]
pub(super) struct Spm {
    scores: Vec<f32>,
    /// For each byte the token that stands for it, or the unknown token.
    bytes: Vec<u32>,
    adds_space: bool,
}

/// A character, or what characters were merged into. `size` 0: merged into its left neighbour.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    start: usize,
    size: usize,
    before: Option<usize>,
    after: Option<usize>,
}

/// Two neighbours that may be merged. It is stale once either has changed its size.
#[derive(Clone, Copy, Debug)]
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    size: usize,
}

impl Ord for Pair {
    /// The best score first; among equals the leftmost.
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Pair {}

impl Spm {
    pub(super) fn new(gguf: &Gguf, vocabulary: &Vocabulary) -> Result<Self, TokenizerError> {
        let key = "tokenizer.ggml.scores";
        let value = Gguf::require(key, gguf.get(key))?;
        let scores = value.as_f32s().ok_or_else(|| wrong_type(key, value))?.to_vec();
        if scores.len() != vocabulary.len() {
            let (found, wanted) = (scores.len(), vocabulary.len());
            return Err(TokenizerError::Count { key, found, wanted });
        }
        if let Some(id) = scores.iter().position(|score| score.is_nan()) {
            return Err(TokenizerError::Score { id });
        }
        let unknown = vocabulary.special_id(gguf, "tokenizer.ggml.unknown_token_id")?;
        let unknown = unknown.or(vocabulary.of_kind(TokenKind::Unknown).next().map(|(id, _)| id));
        let mut bytes = Vec::with_capacity(256);
        for (byte, token) in (0u8..=255).zip(vocabulary.byte_tokens()) {
            bytes.push(token.or(unknown).ok_or(TokenizerError::MissingByte { byte })?);
        }
        let adds_space = gguf.boolean("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        Ok(Self { scores, bytes, adds_space })
    }

    /// Appends the tokens of `text`, which lies between two special tokens.
    pub(super) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        is_after_special: bool,
        ids: &mut Vec<u32>,
    ) {
        let prefix = if self.adds_space && is_after_special { "▁" } else { "" };
        let text = format!("{prefix}{}", text.replace(' ', "▁"));
        for symbol in self.merge(vocabulary, &text) {
            let piece = &text[symbol.start..symbol.start + symbol.size];
            match vocabulary.id(piece) {
                Some(id) => ids.push(id),
                None => ids.extend(piece.bytes().map(|byte| self.bytes[usize::from(byte)])),
            }
        }
    }

    /// Merges characters until no union of neighbours is in the vocabulary.
    fn merge(&self, vocabulary: &Vocabulary, text: &str) -> impl Iterator<Item = Symbol> {
        let mut symbols: Vec<Symbol> = text
            .char_indices()
            .enumerate()
            .map(|(index, (start, c))| Symbol {
                start,
                size: c.len_utf8(),
                before: index.checked_sub(1),
                after: Some(index + 1).filter(|_| start + c.len_utf8() < text.len()),
            })
            .collect();
        let mut pairs = BinaryHeap::new();
        for left in 0..symbols.len() {
            pairs.extend(self.pair(vocabulary, text, &symbols, left));
        }
        while let Some(pair) = pairs.pop() {
            let (left, right) = (symbols[pair.left], symbols[pair.right]);
            let is_stale = left.size == 0 || right.size == 0 || left.size + right.size != pair.size;
            if is_stale {
                continue;
            }
            symbols[pair.left].size = pair.size;
            symbols[pair.left].after = right.after;
            symbols[pair.right].size = 0;
            if let Some(after) = right.after {
                symbols[after].before = Some(pair.left);
            }
            if let Some(before) = left.before {
                pairs.extend(self.pair(vocabulary, text, &symbols, before));
            }
            pairs.extend(self.pair(vocabulary, text, &symbols, pair.left));
        }
        symbols.into_iter().filter(|symbol| symbol.size > 0)
    }

    /// The pair of `left` and its right neighbour, if the vocabulary has their union.
    fn pair(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        symbols: &[Symbol],
        left: usize,
    ) -> Option<Pair> {
        let right = symbols[left].after?;
        let size = symbols[left].size + symbols[right].size;
        let start = symbols[left].start;
        let id = vocabulary.id(&text[start..start + size])?;
        Some(Pair { score: self.scores[id as usize], left, right, size })
    }
}
