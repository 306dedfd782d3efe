//! The text of an answer as it grows: complete characters, and nothing of a stop string.

use crate::tokenizer::TextStream;

/// What came of adding a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Grown {
    /// This text is complete and cannot be part of a stop string.
    Text(String),
    /// A stop string came up. This text was before it.
    Stopped(String),
}

/// Holds back what may be the beginning of a stop string.
#[derive(Debug)]
pub(super) struct Text {
    stops: Vec<String>,
    stream: TextStream,
    /// Complete text that is still held back: shorter than the longest stop string.
    held: String,
}

impl Text {
    pub(super) fn new(stops: Vec<String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self { stops, stream: TextStream::new(), held: String::new() }
    }

    /// Adds the bytes of a token.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Grown {
        self.held += &self.stream.push(bytes);
        let first = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = first {
            self.held.truncate(at);
            return Grown::Stopped(std::mem::take(&mut self.held));
        }
        let keep = self.held.len() - self.beginning();
        let kept = self.held.split_off(keep);
        Grown::Text(std::mem::replace(&mut self.held, kept))
    }

    /// The answer is over: what was held back belongs to it after all.
    pub(super) fn finish(&mut self) -> String {
        self.held += &self.stream.finish();
        std::mem::take(&mut self.held)
    }

    /// How many bytes at the end may be the beginning of a stop string.
    fn beginning(&self) -> usize {
        let starts = self.held.char_indices().map(|(at, _)| &self.held[at..]);
        let mut tails = starts.filter(|tail| self.stops.iter().any(|stop| stop.starts_with(tail)));
        tails.next().map_or(0, str::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes each piece, and checks what is given out after each and at the end.
    fn check(stops: &[&str], pieces: &[&str], wanted: &[&str], rest: &str) {
        let mut answer = Text::new(stops.iter().map(|&stop| stop.into()).collect());
        let grown: Vec<Grown> = pieces.iter().map(|piece| answer.push(piece.as_bytes())).collect();
        let wanted: Vec<Grown> = wanted
            .iter()
            .map(|text| match text.strip_suffix('!') {
                Some(text) => Grown::Stopped(text.into()),
                None => Grown::Text((*text).into()),
            })
            .collect();
        assert_eq!(grown, wanted, "{stops:?} {pieces:?}");
        assert_eq!(answer.finish(), rest, "{stops:?} {pieces:?}");
    }

    #[test]
    fn text_that_may_begin_a_stop_string_is_held_back() {
        check(&[], &["a", "b"], &["a", "b"], "");
        check(&["STOP"], &["xST", "OPy"], &["x", "!"], "");
        check(&["STOP"], &["xST", "ART"], &["x", "START"], "");
        check(&["STOP"], &["xST"], &["x"], "ST");
        check(&["aab"], &["aa", "aab"], &["", "aa!"], "");
        check(&["b", "abc"], &["ab"], &["a!"], "");
        check(&["\n\n"], &["a\n", "b\n", "\n"], &["a", "\nb", "!"], "");
        check(&["é!"], &["é", "?"], &["", "é?"], "");
        check(&[""], &["a"], &["a"], "");
    }

    #[test]
    fn a_character_split_between_tokens_comes_out_whole() {
        let mut answer = Text::new(Vec::new());
        let bytes = "🦙".as_bytes();
        assert_eq!(answer.push(&bytes[..2]), Grown::Text(String::new()));
        assert_eq!(answer.push(&bytes[2..]), Grown::Text("🦙".into()));
        assert_eq!(answer.push(&bytes[..3]), Grown::Text(String::new()));
        assert_eq!(answer.finish(), "\u{fffd}");
    }
}
