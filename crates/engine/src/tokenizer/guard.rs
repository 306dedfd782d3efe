//! Keeps what a user wrote from being read as control tokens.
//!
//! A chat template mixes the model's own control tokens with the user's text, and what it returns
//! is one string. So before rendering, a *mark* is put into the user's text wherever a control
//! token could begin or reach over an edge. Before the string is cut the marks are lifted out, and
//! no control token is recognised where one was, or across it. The mark is a Unicode non-character
//! that the user's text does not contain, so nothing the user wrote is lost, and a text that looks
//! like no control token passes through the template unchanged.

use std::collections::BTreeSet;

use super::TokenizerError;
use super::special::Specials;

/// The mark for one set of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    mark: char,
}

impl Guard {
    /// Chooses a mark that none of the texts contains.
    pub(super) fn new<'a>(
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, TokenizerError> {
        let mut free: BTreeSet<char> = ('\u{fdd0}'..='\u{fdef}').collect();
        for text in texts {
            free.retain(|&mark| !text.contains(mark));
        }
        free.first().map(|&mark| Self { mark }).ok_or(TokenizerError::NoMark)
    }

    /// The text without the marks, and where they were, in order.
    pub(super) fn lift(self, text: &str) -> (String, Vec<usize>) {
        let mut clean = String::with_capacity(text.len());
        let mut marks = Vec::new();
        for part in text.split_inclusive(self.mark) {
            match part.strip_suffix(self.mark) {
                Some(before) => {
                    clean.push_str(before);
                    marks.push(clean.len());
                }
                None => clean.push_str(part),
            }
        }
        (clean, marks)
    }

    /// Puts the marks into `text`.
    pub(super) fn protect(self, specials: &Specials, text: &str) -> String {
        let mut at = BTreeSet::new();
        at.extend(
            text.char_indices()
                .map(|(at, _)| at)
                .filter(|&at| specials.begins_control(&text[at..])),
        );
        // Templates often trim, so the edges are looked for on both sides of the white space.
        let trimmed = text.trim();
        let trimmed_start = text.len() - text.trim_start().len();
        at.extend(trimmed.char_indices().map(|(at, _)| at).filter_map(|at| {
            specials.begins_control(&trimmed[at..]).then_some(trimmed_start + at)
        }));
        for (start, core) in [(0, text), (trimmed_start, trimmed)] {
            if !core.is_empty() && specials.enters_control(core) {
                at.insert(start);
            }
        }
        let mut marked = String::with_capacity(text.len() + at.len() * self.mark.len_utf8());
        let mut from = 0;
        for to in at {
            marked.push_str(&text[from..to]);
            marked.push(self.mark);
            from = to;
        }
        marked.push_str(&text[from..]);
        marked
    }
}
