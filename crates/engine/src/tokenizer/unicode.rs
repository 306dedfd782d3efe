//! The classes of characters that words are cut by, in one table.
//!
//! The ranges are those of the `regex-syntax` crate, so a class means here what it means in a
//! regular expression. BERT's classes are those of Unicode 8, as in the library that BERT's family is
//! published for: what came later is no punctuation there, and no accent. The table has two bytes for each code point and is built once, when the
//! first tokenizer is.

use std::sync::OnceLock;

use regex_syntax::hir::{Class as HirClass, HirKind};

/// A set of classes, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class(u16);

impl Class {
    /// `\p{L}`
    pub(super) const LETTER: Self = Self(1);
    /// `\p{N}`
    pub(super) const NUMBER: Self = Self(1 << 1);
    /// `\s`
    pub(super) const SPACE: Self = Self(1 << 2);
    /// `\p{M}`
    pub(super) const MARK: Self = Self(1 << 3);
    /// `[\p{Lu}\p{Lt}]`
    pub(super) const UPPER: Self = Self(1 << 4);
    /// `\p{Ll}`
    pub(super) const LOWER: Self = Self(1 << 5);
    /// `[\p{Lm}\p{Lo}\p{M}]`: in both halves of a word that is cut where its case changes.
    pub(super) const CASELESS: Self = Self(1 << 6);
    /// `[\r\n]`
    pub(super) const LINE_END: Self = Self(1 << 7);
    /// `[\p{P}$+<=>^~|]`, which llama.cpp sets apart for files that name no pre-tokenizer.
    pub(super) const SET_APART: Self = Self(1 << 8);
    /// What BERT takes for punctuation: `\p{P}` and the rest of ASCII that is neither letter, digit
    /// nor space.
    pub(super) const BERT_PUNCTUATION: Self = Self(1 << 9);
    /// What BERT drops: `[\p{Cc}\p{Cf}\p{Co}]` but for tab and line ends, and U+0000 and U+FFFD.
    pub(super) const BERT_CONTROL: Self = Self(1 << 10);
    /// `\p{Mn}`, which BERT drops.
    pub(super) const ACCENT: Self = Self(1 << 11);
    /// `\w`
    pub(super) const WORD: Self = Self(1 << 12);

    /// The classes of either.
    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether a character is in at least one of these classes.
    pub(super) fn has(self, c: char) -> bool {
        self.0 & table()[c as usize].0 != 0
    }
}

/// The pattern of each class, with the bit that it sets.
const PATTERNS: [(&str, Class); 13] = [
    (r"\p{L}", Class::LETTER),
    (r"\p{N}", Class::NUMBER),
    (r"\s", Class::SPACE),
    (r"\p{M}", Class::MARK),
    (r"[\p{Lu}\p{Lt}]", Class::UPPER),
    (r"\p{Ll}", Class::LOWER),
    (r"[\p{Lm}\p{Lo}\p{M}]", Class::CASELESS),
    (r"[\r\n]", Class::LINE_END),
    (r"[\p{P}$+<=>^~|]", Class::SET_APART),
    (r"[[\p{P}&&\p{Age:8.0}]\x{166D}\x{111C9}!-/:-@\[-`{-~]", Class::BERT_PUNCTUATION),
    (r"[[\p{Cc}[\p{Cf}&&\p{Age:8.0}]\p{Co}\x{0}\x{FFFD}]--[\t\r\n]]", Class::BERT_CONTROL),
    (
        r"[[[\p{Mn}&&\p{Age:8.0}]\x{1734}\x{1171E}]--[\x{1885}\x{1886}\x{A9BD}\x{111C9}]]",
        Class::ACCENT,
    ),
    (r"\w", Class::WORD),
];

fn table() -> &'static [Class] {
    static TABLE: OnceLock<Box<[Class]>> = OnceLock::new();
    TABLE.get_or_init(build)
}

fn build() -> Box<[Class]> {
    let mut table = vec![Class(0); char::MAX as usize + 1];
    for (pattern, class) in PATTERNS {
        // The patterns are constants, and a test looks at every one of them.
        let Ok(hir) = regex_syntax::parse(pattern) else { continue };
        let HirKind::Class(HirClass::Unicode(ranges)) = hir.kind() else { continue };
        for range in ranges.iter() {
            for entry in &mut table[range.start() as usize..=range.end() as usize] {
                *entry = entry.or(class);
            }
        }
    }
    table.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many characters the `tokenizers` library, 0.23, has in each class: counted there by trying
    /// every character.
    #[test]
    fn classes_are_as_large_as_in_the_library() {
        for (class, wanted) in [
            (Class::LETTER, 141_028),
            (Class::NUMBER, 1_911),
            (Class::SPACE, 25),
            (Class::MARK, 2_501),
            (Class::UPPER, 1_858 + 31),
            (Class::LOWER, 2_258),
            (Class::CASELESS, 404 + 136_477 + 2_501),
            (Class::BERT_PUNCTUATION, 726),
            (Class::BERT_CONTROL, 137_681),
            (Class::ACCENT, 1_567),
        ] {
            let count = ('\0'..=char::MAX).filter(|&c| class.has(c)).count();
            assert_eq!(count, wanted, "{class:?}");
        }
    }

    #[test]
    fn every_class_has_members_and_an_outsider() {
        let check = |class: Class, inside: &str, outside: &str| {
            assert!(inside.chars().all(|c| class.has(c)), "{class:?} lacks one of {inside:?}");
            assert!(!outside.chars().any(|c| class.has(c)), "{class:?} has one of {outside:?}");
        };
        check(Class::LETTER, "aZéßΩж中あ𐐀ªʰ", "1 _\u{301}.٣");
        check(Class::NUMBER, "09٣²½Ⅷ", "a .");
        check(Class::SPACE, " \t\n\u{b}\u{c}\r\u{85}\u{a0}\u{2003}\u{3000}\u{2028}", "a\u{200b}");
        check(Class::MARK, "\u{301}\u{903}\u{20dd}", "a");
        check(Class::UPPER, "AÉΩǅ", "a中");
        check(Class::LOWER, "aéß", "A中");
        check(Class::CASELESS, "中ʰª\u{301}", "aA");
        check(Class::LINE_END, "\r\n", " \u{85}");
        check(Class::SET_APART, "!«$|~_", "`a ");
        check(Class::BERT_PUNCTUATION, "!`$|~_«。", "a €");
        check(Class::BERT_CONTROL, "\u{0}\u{7f}\u{200b}\u{e000}\u{fffd}", "\t\n\r a");
        check(Class::WORD, "aé9_\u{301}", " -");
        check(Class::ACCENT, "\u{301}", "a\u{903}");
    }
}
