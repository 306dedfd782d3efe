//! The rules by which byte-level families cut words, and the one walk that applies them.
//!
//! At each place the first of these that matches is a word, as in the published expressions:
//! a contraction; letters, with one character before them; digits; other characters, with a space
//! before them and line ends behind; white space up to its last line end; white space but for its
//! last character, which belongs to the next word; white space.

use super::Class;

/// Where `'s` and its like are words or parts of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contractions {
    /// Nowhere.
    None,
    /// Words of their own, in lower case only.
    Lower,
    /// Words of their own, in any case.
    AnyCase,
    /// The end of the word before, in any case.
    Suffix,
}

/// What a word of letters is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Letters {
    /// Letters together.
    Plain,
    /// Letters and combining marks together.
    Marked,
    /// As `Marked`, cut where lower case is followed by upper case.
    Cased,
}

/// What sets the families apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct WordRules {
    contractions: Contractions,
    letters: Letters,
    /// Whether any character but a line end may lead a word of letters, or only a space.
    leads_with_any: bool,
    /// How many digits are together at most; a space may lead them if there is no limit.
    digits_max: usize,
    /// Characters that may follow punctuation: line ends, and for some families slashes.
    follows_punctuation: &'static [char],
    /// Whether white space ends with its last line end.
    ends_lines: bool,
}

impl WordRules {
    pub(in super::super) const GPT2: Self = Self {
        contractions: Contractions::Lower,
        letters: Letters::Plain,
        leads_with_any: false,
        digits_max: usize::MAX,
        follows_punctuation: &[],
        ends_lines: false,
    };

    pub(in super::super) const LLAMA3: Self = Self {
        contractions: Contractions::AnyCase,
        letters: Letters::Plain,
        leads_with_any: true,
        digits_max: 3,
        follows_punctuation: &['\r', '\n'],
        ends_lines: true,
    };

    pub(in super::super) const QWEN2: Self = Self { digits_max: 1, ..Self::LLAMA3 };

    pub(in super::super) const QWEN35: Self = Self { letters: Letters::Marked, ..Self::QWEN2 };

    pub(in super::super) const TEKKEN: Self = Self {
        contractions: Contractions::None,
        letters: Letters::Cased,
        follows_punctuation: &['\r', '\n', '/'],
        ..Self::QWEN2
    };

    pub(in super::super) const GPT4O: Self =
        Self { contractions: Contractions::Suffix, digits_max: 3, ..Self::TEKKEN };

    /// Calls `word` for each word of `text`.
    pub(super) fn each<'a>(&self, text: &'a str, word: &mut dyn FnMut(&'a str)) {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let size = self.size(rest, first).max(first.len_utf8());
            let (found, behind) = rest.split_at(size);
            word(found);
            rest = behind;
        }
    }

    /// The size of the word at the beginning of `text`, whose first character is `first`.
    fn size(&self, text: &str, first: char) -> usize {
        if first == '\'' {
            let size = match self.contractions {
                Contractions::Lower => contraction(text, false),
                Contractions::AnyCase => contraction(text, true),
                Contractions::None | Contractions::Suffix => 0,
            };
            if size > 0 {
                return size;
            }
        }
        let found = self.letters(text, first).or_else(|| self.digits(text, first));
        let found = found.or_else(|| self.punctuation(text, first));
        found.unwrap_or_else(|| self.space(text))
    }

    fn letters(&self, text: &str, first: char) -> Option<usize> {
        let may_lead = if self.leads_with_any {
            !Class::LETTER.or(Class::NUMBER).or(Class::LINE_END).has(first)
        } else {
            first == ' '
        };
        let lead = if may_lead { first.len_utf8() } else { 0 };
        let found = match self.letters {
            Letters::Plain => led(text, lead, |it| run(it, Class::LETTER)),
            Letters::Marked => led(text, lead, |it| run(it, Class::LETTER.or(Class::MARK))),
            Letters::Cased => {
                led(text, lead, mixed_case).or_else(|| led(text, lead, upper_case_first))
            }
        };
        let size = found?;
        let suffix = match self.contractions {
            Contractions::Suffix => contraction(&text[size..], true),
            _ => 0,
        };
        Some(size + suffix)
    }

    fn digits(&self, text: &str, first: char) -> Option<usize> {
        if self.digits_max == usize::MAX {
            let lead = usize::from(first == ' ');
            return led(text, lead, |it| run(it, Class::NUMBER));
        }
        let digits = text.chars().take(self.digits_max).take_while(|&c| Class::NUMBER.has(c));
        Some(digits.map(char::len_utf8).sum()).filter(|&size| size > 0)
    }

    fn punctuation(&self, text: &str, first: char) -> Option<usize> {
        let mut others = Class::SPACE.or(Class::LETTER).or(Class::NUMBER);
        if self.letters == Letters::Marked {
            others = others.or(Class::MARK);
        }
        let lead = usize::from(first == ' ');
        let size = led(text, lead, |it| it.find(|c| others.has(c)).unwrap_or(it.len()))?;
        let behind = &text[size..];
        Some(size + behind.len() - behind.trim_start_matches(self.follows_punctuation).len())
    }

    /// White space. Elsewhere every other character was taken, so `text` begins with one.
    fn space(&self, text: &str) -> usize {
        let all = run(text, Class::SPACE);
        let space = &text[..all];
        if self.ends_lines
            && let Some(last) = space.rfind(['\r', '\n'])
        {
            return last + 1;
        }
        if all == text.len() {
            return all;
        }
        let last = space.chars().next_back().map_or(0, char::len_utf8);
        if last < all { all - last } else { all }
    }
}

/// A match behind the leading character, otherwise one that begins with it.
fn led(text: &str, lead: usize, size: impl Fn(&str) -> usize) -> Option<usize> {
    if lead > 0 {
        let behind = size(&text[lead..]);
        if behind > 0 {
            return Some(lead + behind);
        }
    }
    Some(size(text)).filter(|&size| size > 0)
}

/// The size of the characters of a class at the beginning.
fn run(text: &str, class: Class) -> usize {
    text.find(|c| !class.has(c)).unwrap_or(text.len())
}

/// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`. Where no lower case follows, the
/// first part gives back characters up to one that may stand in the second.
fn mixed_case(text: &str) -> usize {
    let head = run(text, Class::UPPER.or(Class::CASELESS));
    let tail = run(&text[head..], Class::LOWER.or(Class::CASELESS));
    if tail > 0 {
        return head + tail;
    }
    let last = text[..head].char_indices().rev().find(|&(_, c)| Class::CASELESS.has(c));
    last.map_or(0, |(at, c)| at + c.len_utf8())
}

/// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*`
fn upper_case_first(text: &str) -> usize {
    let head = run(text, Class::UPPER.or(Class::CASELESS));
    if head == 0 { 0 } else { head + run(&text[head..], Class::LOWER.or(Class::CASELESS)) }
}

/// The size of `'s`, `'t`, `'re`, `'ve`, `'m`, `'ll` or `'d` at the beginning, or 0. In any case,
/// the long s (U+017F) is an s, as in Unicode's case folding.
fn contraction(text: &str, in_any_case: bool) -> usize {
    let mut chars = text.chars();
    if chars.next() != Some('\'') {
        return 0;
    }
    let fold = |c: char| match c {
        'ſ' if in_any_case => 's',
        _ if in_any_case => c.to_ascii_lowercase(),
        _ => c,
    };
    let Some(first) = chars.next() else { return 0 };
    match (fold(first), chars.next().map(fold)) {
        ('s' | 't' | 'm' | 'd', _) => 1 + first.len_utf8(),
        ('r' | 'v', Some('e')) | ('l', Some('l')) => 3,
        _ => 0,
    }
}
