//! A SentencePiece vocabulary of any size, generated: control tokens, bytes, pieces, characters.
//!
//! Pieces are all runs of two, then of three small letters, with and without a word's beginning.
//! Each is the union of a shorter piece and a letter, so that merging neighbours reaches it, and
//! shorter ones score better, so that merging passes through them. Layout and scores are those of
//! a trained file: the score of a piece is minus its place, and single characters come last.

/// `▁`, which stands for a space.
const SPACE: char = '\u{2581}';

/// The control tokens and the 256 bytes.
const FIXED: usize = 3 + 256;

/// The smallest vocabulary: what is fixed, and every character that can be printed.
pub(super) const TOKENS_MIN: usize = FIXED + 95;

/// Codes of the kinds of token, as the format numbers them.
mod kind {
    pub(super) const NORMAL: i32 = 1;
    pub(super) const UNKNOWN: i32 = 2;
    pub(super) const CONTROL: i32 = 3;
    pub(super) const BYTE: i32 = 6;
}

/// A vocabulary as the file holds it: three lists of one length.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pub(super) texts: Vec<String>,
    pub(super) scores: Vec<f32>,
    pub(super) kinds: Vec<i32>,
}

impl Pieces {
    /// `count` tokens, [`TOKENS_MIN`] at least. Once all runs of letters are in, the rest are
    /// numbered and never written.
    pub(super) fn generate(count: usize) -> Self {
        let mut pieces = Self::default();
        pieces.push("<unk>".into(), 0.0, kind::UNKNOWN);
        pieces.push("<s>".into(), 0.0, kind::CONTROL);
        pieces.push("</s>".into(), 0.0, kind::CONTROL);
        for byte in 0..=255 {
            pieces.push(format!("<0x{byte:02X}>"), 0.0, kind::BYTE);
        }
        let merged = count.saturating_sub(TOKENS_MIN);
        let numbered = (0..).map(|index| format!("<piece {index}>"));
        for text in runs().chain(numbered).take(merged) {
            pieces.push_next(text);
        }
        for character in std::iter::once(SPACE).chain('!'..='~') {
            pieces.push_next(character.into());
        }
        pieces
    }

    fn push_next(&mut self, text: String) {
        #[expect(clippy::cast_precision_loss, reason = "a vocabulary has less than 2^24 tokens")]
        let score = -((self.texts.len() - FIXED) as f32);
        self.push(text, score, kind::NORMAL);
    }

    fn push(&mut self, text: String, score: f32, kind: i32) {
        self.texts.push(text);
        self.scores.push(score);
        self.kinds.push(kind);
    }
}

/// Runs of letters, each after those that it is merged from.
fn runs() -> impl Iterator<Item = String> {
    let letters = || 'a'..='z';
    let begun = letters().map(|it| format!("{SPACE}{it}"));
    let pairs = move || letters().flat_map(move |a| letters().map(move |b| format!("{a}{b}")));
    let triples = move || pairs().flat_map(move |it| letters().map(move |c| format!("{it}{c}")));
    let with_space = |it: String| format!("{SPACE}{it}");
    begun
        .chain(pairs())
        .chain(pairs().map(with_space))
        .chain(triples())
        .chain(triples().map(with_space))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_vocabulary_has_the_size_asked_for_and_no_text_twice() {
        for count in [TOKENS_MIN, 2_048, 32_000, 50_000] {
            let pieces = Pieces::generate(count);
            assert_eq!(pieces.texts.iter().collect::<BTreeSet<_>>().len(), count);
            assert_eq!((pieces.scores.len(), pieces.kinds.len()), (count, count));
        }
    }

    #[test]
    fn every_piece_is_the_union_of_two_others() {
        let pieces = Pieces::generate(32_000);
        let known: BTreeSet<&str> = pieces.texts.iter().map(String::as_str).collect();
        for text in &pieces.texts[FIXED..] {
            let mut cuts = text.char_indices().skip(1).map(|(at, _)| text.split_at(at));
            let is_single = text.chars().count() == 1;
            assert!(is_single || cuts.any(|(a, b)| known.contains(a) && known.contains(b)));
        }
    }
}
