//! Finds special tokens in a text: the user-defined ones always, control tokens where allowed.

use std::borrow::Cow;
use std::collections::HashMap;

use super::Guard;
use super::vocabulary::{TokenKind, Vocabulary};

/// A piece of a text: a special token, or what lies between two of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Token(u32),
    Text(Cow<'a, str>),
}

/// One token that is recognised as a whole.
#[derive(Debug)]
struct Special {
    text: String,
    id: u32,
    is_control: bool,
}

/// All tokens that are recognised as a whole.
#[derive(Debug)]
pub(super) struct Specials {
    /// By first byte, longest first: the longest token that matches is the one that is meant.
    by_first_byte: HashMap<u8, Vec<Special>>,
}

impl Specials {
    pub(super) fn new(vocabulary: &Vocabulary) -> Self {
        let mut by_first_byte: HashMap<u8, Vec<Special>> = HashMap::new();
        for (kind, is_control) in [(TokenKind::Control, true), (TokenKind::UserDefined, false)] {
            for (id, text) in vocabulary.of_kind(kind) {
                if let Some(&first) = text.as_bytes().first() {
                    let special = Special { text: text.to_owned(), id, is_control };
                    by_first_byte.entry(first).or_default().push(special);
                }
            }
        }
        for specials in by_first_byte.values_mut() {
            specials.sort_by_key(|special| std::cmp::Reverse(special.text.len()));
        }
        Self { by_first_byte }
    }

    /// The texts of the control tokens.
    pub(super) fn control_texts(&self) -> impl Iterator<Item = &str> {
        let specials = self.by_first_byte.values().flatten();
        specials.filter(|special| special.is_control).map(|special| special.text.as_str())
    }

    /// The texts of the control tokens that begin with this byte.
    pub(super) fn control_texts_from(&self, first: u8) -> impl Iterator<Item = &str> {
        let specials = self.by_first_byte.get(&first).into_iter().flatten();
        specials.filter(|special| special.is_control).map(|special| special.text.as_str())
    }

    /// Cuts `text` at its special tokens, leftmost first. Without a guard no control token is seen;
    /// with one, all are seen that neither follow a mark nor contain one, and the marks vanish.
    pub(super) fn partition<'a>(&self, text: &'a str, guard: Option<Guard>) -> Vec<Part<'a>> {
        let mark = guard.map(Guard::mark);
        let mut parts = Vec::new();
        let mut start = 0;
        let mut at = 0;
        let mut is_after_mark = false;
        while let Some(c) = text[at..].chars().next() {
            let may_be_control = guard.is_some() && !is_after_mark;
            if let Some(special) = self.matching(&text[at..], may_be_control) {
                push_text(&mut parts, &text[start..at], mark);
                parts.push(Part::Token(special.id));
                at += special.text.len();
                start = at;
                is_after_mark = false;
            } else {
                at += c.len_utf8();
                is_after_mark = Some(c) == mark;
            }
        }
        push_text(&mut parts, &text[start..], mark);
        parts
    }

    fn matching(&self, text: &str, may_be_control: bool) -> Option<&Special> {
        let specials = self.by_first_byte.get(text.as_bytes().first()?)?;
        let mut allowed = specials.iter().filter(|special| may_be_control || !special.is_control);
        allowed.find(|special| text.starts_with(&special.text))
    }
}

fn push_text<'a>(parts: &mut Vec<Part<'a>>, text: &'a str, mark: Option<char>) {
    let text = match mark {
        Some(mark) if text.contains(mark) => Cow::Owned(text.replace(mark, "")),
        _ => Cow::Borrowed(text),
    };
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
}
