//! Cuts as the published expressions make them.

use proptest::prelude::*;

use super::*;

fn words<'a>(splits: &[Split], text: &'a str) -> Vec<&'a str> {
    let mut words = Vec::new();
    each_word(splits, text, &mut |word| words.push(word));
    words
}

#[test]
fn families_cut_as_their_expressions_do() {
    let check = |name: &str, text: &str, wanted: &[&str]| {
        let family = by_name(name).unwrap_or_else(|_| panic!("{name} is known"));
        assert_eq!(words(family.splits, text), wanted, "{name}");
    };
    check("gpt-2", "I'll I'LL  12345 x", &["I", "'ll", " I", "'", "LL", " ", " 12345", " x"]);
    check("gpt-2", "a\n\n b \t", &["a", "\n\n", " b", " \t"]);
    check("llama3", "I'LL\t12345 é!\n\n x", &["I", "'LL", "\t", "123", "45", " é", "!\n\n", " x"]);
    check("llama3", "'ſ 're", &["'ſ", " '", "re"]);
    check("llama3", "a \n \n  b", &["a", " \n \n", " ", " b"]);
    check("qwen2", "x12 (a)/\n", &["x", "1", "2", " (", "a", ")/\n"]);
    check("qwen2", "e\u{301}a", &["e", "\u{301}a"]);
    check("qwen35", "e\u{301}a", &["e\u{301}a"]);
    check("tekken", "helloWorld HTTPServer ABC中x", &["hello", "World", " HTTPServer", " ABC中x"]);
    check("tekken", "中ABC don't a//\n", &["中", "ABC", " don", "'t", " a", "//\n"]);
    check("gpt-4o", "don't DON'T 1234", &["don't", " DON'T", " ", "123", "4"]);
    check("smollm", "a1 23", &["a", "1", " ", "2", "3"]);
    check("default", "a1234!", &["a", "123", "4", "!"]);
}

#[test]
fn unknown_names_and_expressions_are_not_guessed() {
    assert!(by_name("deepseek-v3").is_err_and(|names| names.contains("tekken")));
    assert_eq!(by_regex(r"\w+"), None);
    assert_eq!(by_regex(r"\p{N}{1,3}"), Some((Split::DigitGroups(3), false)));
}

#[test]
fn bert_drops_spaces_and_isolates_punctuation() {
    assert_eq!(words(&[Split::Bert], " a,b\u{3000}c.. "), ["a", ",", "b", "c", ".", "."]);
}

const ALL: [&str; 8] =
    ["default", "gpt-2", "llama3", "qwen2", "qwen35", "gpt-4o", "tekken", "smollm"];

proptest! {
    /// Whatever the text, the words put together are the text.
    #[test]
    fn words_cover_the_text(text in "[ \t\r\n'sSa-cA-C0-9é中ʰ\u{301}ǅ.,/$\u{3000}\u{0}\u{1f999}]{0,40}") {
        for name in ALL {
            let family = by_name(name).unwrap_or_else(|_| panic!("{name} is known"));
            let words = words(family.splits, &text);
            prop_assert!(words.iter().all(|word| !word.is_empty()), "{name}");
            prop_assert_eq!(words.concat(), text.clone(), "{}", name);
        }
    }
}
