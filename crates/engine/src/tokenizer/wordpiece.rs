//! `WordPiece`, the encoding of BERT's family: a word is the longest token that begins it, then the
//! longest that continues it, and so on; if nothing continues it, the word as a whole is unknown.

use super::split::Split;
use super::vocabulary::Vocabulary;

/// The rules of one model.
#[derive(Debug)]
pub(super) struct WordPiece {
    pub(super) unknown: u32,
    /// What the vocabulary writes before a token that begins a word.
    pub(super) first_prefix: String,
    /// What it writes before a token that continues one.
    pub(super) rest_prefix: String,
    /// Characters; a longer word is unknown.
    pub(super) word_len_max: usize,
}

/// The characters of a word that are looked at, where a file does not say.
pub(super) const WORD_LEN_MAX: usize = 100;

impl WordPiece {
    /// Appends the tokens of `text`, which is normalised and lies between two special tokens.
    pub(super) fn encode(&self, vocabulary: &Vocabulary, text: &str, ids: &mut Vec<u32>) {
        let mut key = String::new();
        Split::Bert.each(text, &mut |word| self.encode_word(vocabulary, word, &mut key, ids));
    }

    fn encode_word(
        &self,
        vocabulary: &Vocabulary,
        word: &str,
        key: &mut String,
        ids: &mut Vec<u32>,
    ) {
        let before = ids.len();
        if word.chars().nth(self.word_len_max).is_some() {
            return ids.push(self.unknown);
        }
        let mut rest = word;
        while !rest.is_empty() {
            let prefix =
                if rest.len() == word.len() { &self.first_prefix } else { &self.rest_prefix };
            key.clear();
            key.push_str(prefix);
            key.push_str(rest);
            let found = loop {
                if let Some(id) = vocabulary.id(key) {
                    break Some(id);
                }
                key.pop();
                if key.len() <= prefix.len() {
                    break None;
                }
            };
            let Some(id) = found else {
                ids.truncate(before);
                return ids.push(self.unknown);
            };
            ids.push(id);
            rest = &rest[key.len() - prefix.len()..];
        }
    }
}
