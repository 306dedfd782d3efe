//! Keeps what a user wrote from being read as control tokens.
//!
//! A chat template mixes the model's own control tokens with the user's text, and what it returns
//! is one string. So before rendering, a *mark* is put into the user's text wherever a control
//! token could begin or reach over an edge; no control token is recognised right behind a mark or
//! across one; and the marks are removed when the string is cut. The mark is a Unicode
//! non-character that the user's text does not contain, so nothing the user wrote is lost, and a
//! text that looks like no control token passes through the template unchanged.

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

    pub(super) fn mark(self) -> char {
        self.mark
    }

    /// Puts the marks into `text`.
    pub(super) fn protect(self, specials: &Specials, text: &str) -> String {
        let mut at = BTreeSet::new();
        // Templates often trim, so the edges are looked for on both sides of the white space.
        for (start, core) in [(0, text), (text.len() - text.trim_start().len(), text.trim())] {
            mark_beginnings(specials, start, core, &mut at);
            if enters(specials, core) {
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

/// Where a control token begins in `core`, even if it would end only behind it.
fn mark_beginnings(specials: &Specials, start: usize, core: &str, at: &mut BTreeSet<usize>) {
    for (index, _) in core.char_indices() {
        let rest = &core[index..];
        let mut tokens = specials.control_texts_from(rest.as_bytes()[0]);
        if tokens.any(|token| rest.starts_with(token) || token.starts_with(rest)) {
            at.insert(start + index);
        }
    }
}

/// Whether a control token that begins before `core` could reach into it, or through it.
fn enters(specials: &Specials, core: &str) -> bool {
    let reaches = |token: &str| {
        let tails = token.char_indices().skip(1).map(|(index, _)| &token[index..]);
        tails.into_iter().any(|tail| core.starts_with(tail) || tail.starts_with(core))
    };
    !core.is_empty() && specials.control_texts().any(reaches)
}
