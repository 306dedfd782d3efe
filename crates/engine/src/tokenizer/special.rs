//! Finds special tokens in a text: the user-defined ones always, control tokens where allowed.
//!
//! The leftmost that matches is taken, and of those the longest. Tokens may take the white space on
//! either side with them, and may have to stand alone as words: files say so of each.
//!
//! # Invariants
//!
//! * Looking at one place of a text costs at most [`SPECIAL_SIZE_MAX`] steps, whatever the file.

use super::TokenizerError;
use super::unicode::Class;

/// Bytes of a special token. Published ones have up to some sixty.
pub(super) const SPECIAL_SIZE_MAX: usize = 256;

/// Bytes of all special tokens together. The largest published vocabulary has some 80 KiB.
const SPECIALS_SIZE_MAX: usize = 1 << 20;

/// A piece of a text: a special token, or the bytes between two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Token(u32),
    Text { start: usize, end: usize },
}

/// One token that is recognised as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own in the files")]
pub(super) struct Special {
    pub(super) id: u32,
    pub(super) text: String,
    /// Whether it is recognised only where the template wrote it.
    pub(super) is_control: bool,
    /// Whether it is looked for in the text as written, or in the normalised text.
    pub(super) is_normalized: bool,
    /// Whether it takes the white space before it.
    pub(super) takes_left: bool,
    /// Whether it takes the white space behind it.
    pub(super) takes_right: bool,
    /// Whether it is one only where no letter or digit touches it.
    pub(super) is_single_word: bool,
}

/// A token's text, or the end of one: the token's index, and where it begins.
type Tail = (u32, u16);

/// All tokens that are recognised as a whole.
#[derive(Debug, Default)]
pub(super) struct Specials {
    list: Vec<Special>,
    /// All, in order of their texts.
    all: Vec<Tail>,
    /// The bytes that one of them begins with.
    first_bytes: Vec<u8>,
    /// Control tokens, in order of their texts.
    controls: Vec<Tail>,
    /// What control tokens end with, in order.
    control_tails: Vec<Tail>,
}

impl Specials {
    /// Indexes these tokens. Empty ones are not recognised.
    pub(super) fn new(mut specials: Vec<Special>) -> Result<Self, TokenizerError> {
        specials.retain(|special| !special.text.is_empty());
        specials.sort_by(|a, b| a.text.cmp(&b.text).then(b.is_control.cmp(&a.is_control)));
        specials.dedup_by(|a, b| a.text == b.text);
        if let Some(special) = specials.iter().find(|it| it.text.len() > SPECIAL_SIZE_MAX) {
            let (id, size) = (special.id as usize, special.text.len());
            return Err(TokenizerError::TokenSize { id, size, limit: SPECIAL_SIZE_MAX });
        }
        let size = specials.iter().map(|special| special.text.len()).sum::<usize>();
        if size > SPECIALS_SIZE_MAX {
            return Err(TokenizerError::SpecialsSize { size, limit: SPECIALS_SIZE_MAX });
        }
        let mut found = Self { list: specials, ..Self::default() };
        for (index, special) in (0u32..).zip(&found.list) {
            found.all.push((index, 0));
            found.first_bytes.extend(special.text.bytes().next());
            if special.is_control {
                found.controls.push((index, 0));
                let starts = special.text.char_indices().skip(1).map(|(at, _)| at);
                let starts = starts.filter_map(|at| u16::try_from(at).ok());
                found.control_tails.extend(starts.map(|at| (index, at)));
            }
        }
        found.first_bytes.dedup();
        let specials = &found.list;
        found.control_tails.sort_by(|a, b| tail(specials, *a).cmp(tail(specials, *b)));
        Ok(found)
    }

    /// Whether a control token begins where `text` does, even if it would end only behind it.
    pub(super) fn begins_control(&self, text: &str) -> bool {
        self.is_begun(&self.controls, text)
    }

    /// Whether a control token that begins before `text` could reach into it, or through it.
    pub(super) fn enters_control(&self, text: &str) -> bool {
        self.is_begun(&self.control_tails, text)
    }

    fn is_begun(&self, list: &[Tail], text: &str) -> bool {
        let mut is_whole = false;
        let is_open = self.walk(list, text.as_bytes(), |_| is_whole = true);
        is_whole || is_open
    }

    /// Cuts `text` at its special tokens. Without `marks` no control token is seen; with them, all
    /// are that neither begin at a mark nor have one inside. `marks` are in order.
    pub(super) fn partition(&self, text: &str, marks: Option<&[usize]>) -> Vec<Part> {
        let mut parts = Vec::new();
        let (mut start, mut at) = (0, 0);
        let mut is_first = [false; 256];
        self.first_bytes.iter().for_each(|&byte| is_first[usize::from(byte)] = true);
        while let Some(&byte) = text.as_bytes().get(at) {
            let found =
                if is_first[usize::from(byte)] { self.longest(text, at, marks) } else { None };
            let Some((special, end)) = found else {
                at += 1;
                continue;
            };
            if special.is_single_word && touches_word(text, at, end) {
                at = end;
                continue;
            }
            let (mut from, mut to) = (at, end);
            if special.takes_left {
                from = start + trim_end(&text[start..at]);
            }
            if special.takes_right {
                to += text[end..].len() - trim_start(&text[end..]);
            }
            if start < from {
                parts.push(Part::Text { start, end: from });
            }
            parts.push(Part::Token(special.id));
            (start, at) = (to, to);
        }
        if start < text.len() {
            parts.push(Part::Text { start, end: text.len() });
        }
        parts
    }

    /// The longest token at this place that is allowed there, and where it ends.
    fn longest(&self, text: &str, at: usize, marks: Option<&[usize]>) -> Option<(&Special, usize)> {
        // The first mark from here on: a control token must end before it, or at it.
        let mut limit = None;
        let mut longest = None;
        self.walk(&self.all, &text.as_bytes()[at..], |special| {
            let end = at + special.text.len();
            let is_allowed = !special.is_control
                || marks.is_some_and(|marks| {
                    let next = *limit.get_or_insert_with(|| {
                        marks.get(marks.partition_point(|&mark| mark < at)).copied()
                    });
                    next.is_none_or(|mark| mark >= end)
                });
            if is_allowed {
                longest = Some((special, end));
            }
        });
        longest
    }

    /// Calls `whole` for each text of the list that `text` begins with, shortest first. True if the
    /// list has a longer one that begins with all of `text`.
    fn walk<'a>(&'a self, list: &[Tail], text: &[u8], mut whole: impl FnMut(&'a Special)) -> bool {
        let mut rest = list;
        for (depth, &byte) in text.iter().enumerate() {
            let at = |entry: &Tail| self.tail(*entry).as_bytes().get(depth).copied();
            // Shorter texts come first, and those were seen.
            rest = &rest[rest.partition_point(|entry| at(entry) < Some(byte))..];
            rest = &rest[..rest.partition_point(|entry| at(entry) == Some(byte))];
            let Some(&first) = rest.first() else { return false };
            if self.tail(first).len() == depth + 1 {
                whole(&self.list[first.0 as usize]);
            }
        }
        // In order, so a longer one would be the last.
        let is_longer = |entry: &Tail| self.tail(*entry).len() > text.len();
        !text.is_empty() && rest.last().is_some_and(is_longer)
    }

    fn tail(&self, entry: Tail) -> &str {
        tail(&self.list, entry)
    }
}

fn tail(specials: &[Special], (index, at): Tail) -> &str {
    &specials[index as usize].text[usize::from(at)..]
}

fn touches_word(text: &str, start: usize, end: usize) -> bool {
    let is_word = |c: char| Class::WORD.has(c);
    text[..start].chars().next_back().is_some_and(is_word)
        || text[end..].chars().next().is_some_and(is_word)
}

fn trim_end(text: &str) -> usize {
    text.trim_end_matches(|c| Class::SPACE.has(c)).len()
}

fn trim_start(text: &str) -> usize {
    text.trim_start_matches(|c| Class::SPACE.has(c)).len()
}
