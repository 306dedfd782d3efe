//! Cuts a text into words, as the pre-tokenizers of the families do.
//!
//! The families publish regular expressions. Here each is a function over character classes that
//! goes from left to right and looks at a character a bounded number of times: the expressions'
//! own engines step back, and stop or take a second where a text has a million spaces. The cuts
//! are the same; `tests/golden/tokenizers` holds them against the original engine.
//!
//! # Invariants
//!
//! * Words cover the text, in order, and none is empty.
//! * The time is linear in the text.

mod word;

use std::borrow::Cow;

use super::unicode::Class;
pub(super) use word::WordRules;

/// One way to cut. A pre-tokenizer is a list of them, each applied to the words of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Split {
    /// By rules for words, numbers, punctuation and white space.
    Words(WordRules),
    /// Each digit apart, of whatever script (`Digits`; `\p{N}` isolated).
    EachDigit,
    /// Runs of digits apart, as `Digits` takes them.
    NumericRuns,
    /// Runs of digits apart (`\p{N}+` isolated).
    DigitRuns,
    /// Up to this many digits together, from the left (`\p{N}{1,3}` isolated).
    DigitGroups(usize),
    /// Runs of what llama.cpp sets apart.
    PunctuationRuns,
    /// Three ASCII digits together.
    AsciiTriples,
    /// Before each `▁` (`Metaspace` with `split`).
    BeforeSpaceMarks,
    /// Before each run of `▁`.
    BeforeSpaceRuns,
    /// At white space, which is dropped, and around each punctuation mark (`BertPreTokenizer`).
    Bert,
}

impl Split {
    /// Calls `word` for each word of `text`.
    pub(super) fn each<'a>(self, text: &'a str, word: &mut dyn FnMut(&'a str)) {
        match self {
            Self::Words(rules) => rules.each(text, word),
            Self::EachDigit => groups(text, char::is_numeric, 1, word),
            Self::NumericRuns => groups(text, char::is_numeric, usize::MAX, word),
            Self::DigitRuns => groups(text, |c| Class::NUMBER.has(c), usize::MAX, word),
            Self::DigitGroups(count) => groups(text, |c| Class::NUMBER.has(c), count, word),
            Self::PunctuationRuns => groups(text, |c| Class::SET_APART.has(c), usize::MAX, word),
            Self::AsciiTriples => ascii_triples(text, word),
            Self::BeforeSpaceMarks => before_space_marks(text, false, word),
            Self::BeforeSpaceRuns => before_space_marks(text, true, word),
            Self::Bert => bert(text, word),
        }
    }
}

/// Applies all cuts, one after the other.
pub(super) fn each_word<'a>(splits: &[Split], text: &'a str, word: &mut dyn FnMut(&'a str)) {
    match splits {
        [] if text.is_empty() => {}
        [] => word(text),
        [last] => last.each(text, word),
        [first, rest @ ..] => first.each(text, &mut |part| each_word(rest, part, word)),
    }
}

/// Members of a class in groups of at most `count_max`, and everything between them together.
fn groups<'a>(
    text: &'a str,
    is_member: impl Fn(char) -> bool,
    count_max: usize,
    word: &mut dyn FnMut(&'a str),
) {
    let (mut start, mut count) = (0, 0);
    let mut was_member = false;
    for (at, c) in text.char_indices() {
        let is_member = is_member(c);
        if at > start && (is_member != was_member || (is_member && count == count_max)) {
            word(&text[start..at]);
            (start, count) = (at, 0);
        }
        count += 1;
        was_member = is_member;
    }
    if start < text.len() {
        word(&text[start..]);
    }
}

fn ascii_triples<'a>(text: &'a str, word: &mut dyn FnMut(&'a str)) {
    let bytes = text.as_bytes();
    let (mut start, mut at) = (0, 0);
    while at < bytes.len() {
        let is_triple = bytes.get(at..at + 3).is_some_and(|it| it.iter().all(u8::is_ascii_digit));
        if is_triple {
            if start < at {
                word(&text[start..at]);
            }
            word(&text[at..at + 3]);
            at += 3;
            start = at;
        } else {
            at += 1;
        }
    }
    if start < text.len() {
        word(&text[start..]);
    }
}

fn before_space_marks<'a>(text: &'a str, keeps_runs: bool, word: &mut dyn FnMut(&'a str)) {
    let mut start = 0;
    for (at, _) in text.match_indices('▁') {
        if keeps_runs && text[..at].ends_with('▁') {
            continue;
        }
        if at > start {
            word(&text[start..at]);
        }
        start = at;
    }
    if start < text.len() {
        word(&text[start..]);
    }
}

fn bert<'a>(text: &'a str, word: &mut dyn FnMut(&'a str)) {
    let mut start = 0;
    for (at, c) in text.char_indices() {
        let (is_space, is_mark) = (Class::SPACE.has(c), Class::BERT_PUNCTUATION.has(c));
        if !is_space && !is_mark {
            continue;
        }
        if at > start {
            word(&text[start..at]);
        }
        start = at + c.len_utf8();
        if is_mark {
            word(&text[at..start]);
        }
    }
    if start < text.len() {
        word(&text[start..]);
    }
}

/// A regular expression of a published `tokenizer.json`, and what it is here.
struct Pattern {
    regex: &'static str,
    split: Split,
    /// Whether its matches cover every text. Otherwise what lies between is a word too.
    is_covering: bool,
}

const fn covering(regex: &'static str, rules: WordRules) -> Pattern {
    Pattern { regex, split: Split::Words(rules), is_covering: true }
}

const fn apart(regex: &'static str, split: Split) -> Pattern {
    Pattern { regex, split, is_covering: false }
}

/// The expressions that are recognised, letter by letter.
const PATTERNS: [Pattern; 10] = [
    covering(
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        WordRules::GPT2,
    ),
    covering(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        WordRules::LLAMA3,
    ),
    covering(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        WordRules::QWEN2,
    ),
    covering(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        WordRules::QWEN35,
    ),
    covering(
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        WordRules::TEKKEN,
    ),
    covering(
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        WordRules::GPT4O,
    ),
    apart(r"\p{N}", Split::DigitGroups(1)),
    apart(r"\p{N}{1}", Split::DigitGroups(1)),
    apart(r"\p{N}{1,3}", Split::DigitGroups(3)),
    apart(r"\p{N}+", Split::DigitRuns),
];

/// The cut that a regular expression makes, if it is known; and whether its matches cover every
/// text.
pub(super) fn by_regex(regex: &str) -> Option<(Split, bool)> {
    let pattern = PATTERNS.iter().find(|pattern| pattern.regex == regex)?;
    Some((pattern.split, pattern.is_covering))
}

/// How a family cuts, by the names that GGUF files use for it.
pub(super) struct Family {
    names: &'static [&'static str],
    pub(super) splits: &'static [Split],
    /// Whether a word that is a token as a whole is taken as it is, without merging.
    pub(super) takes_whole_words: bool,
    /// Whether the opening token goes before a text, where the file does not say.
    pub(super) adds_bos: bool,
    /// Whether texts are composed (NFC) first, as the family's own tokenizer does.
    pub(super) composes: bool,
}

const PLAIN: Family =
    Family { names: &[], splits: &[], takes_whole_words: false, adds_bos: false, composes: false };

/// The supported families. An unknown name is refused: cutting differently changes every answer.
const FAMILIES: [Family; 9] = [
    Family {
        names: &["default"],
        splits: &[
            Split::PunctuationRuns,
            Split::Words(WordRules::GPT2),
            Split::DigitRuns,
            Split::AsciiTriples,
        ],
        ..PLAIN
    },
    Family {
        names: &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "exaone4",
            "modern-bert",
        ],
        splits: &[Split::Words(WordRules::GPT2)],
        ..PLAIN
    },
    Family {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
        ],
        splits: &[Split::Words(WordRules::LLAMA3)],
        takes_whole_words: true,
        adds_bos: true,
        ..PLAIN
    },
    Family {
        names: &["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"],
        splits: &[Split::Words(WordRules::LLAMA3)],
        ..PLAIN
    },
    Family {
        names: &["qwen2", "deepseek-r1-qwen", "megrez", "kormo"],
        splits: &[Split::Words(WordRules::QWEN2)],
        composes: true,
        ..PLAIN
    },
    Family {
        names: &["qwen35"],
        splits: &[Split::Words(WordRules::QWEN35)],
        composes: true,
        ..PLAIN
    },
    Family {
        names: &["stablelm2", "hunyuan", "solar-open", "grok-2"],
        splits: &[Split::Words(WordRules::QWEN2)],
        ..PLAIN
    },
    Family {
        names: &["gpt-4o", "llama4", "kanana2"],
        splits: &[Split::Words(WordRules::GPT4O)],
        ..PLAIN
    },
    Family {
        names: &["tekken"],
        splits: &[Split::Words(WordRules::TEKKEN)],
        takes_whole_words: true,
        adds_bos: true,
        ..PLAIN
    },
];

/// Families that set digits apart before they cut words.
const DIGIT_FAMILY: Family = Family {
    names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
    splits: &[Split::DigitGroups(1), Split::Words(WordRules::GPT2)],
    ..PLAIN
};

/// The family of this name, or the names that there are.
pub(super) fn by_name(name: &str) -> Result<Family, Cow<'static, str>> {
    let mut families = FAMILIES.into_iter().chain([DIGIT_FAMILY]);
    families.find(|family| family.names.contains(&name)).ok_or_else(|| {
        let families = FAMILIES.into_iter().chain([DIGIT_FAMILY]);
        families.map(|family| family.names.join(", ")).collect::<Vec<_>>().join(", ").into()
    })
}

#[cfg(test)]
mod tests;
