//! Parts of a listing that a stranger may fill with anything.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Words of a card that are kept.
const WORDS_MAX: usize = 16;

/// Names of models and licences are shorter.
const WORD_LEN_MAX: usize = 200;

/// More than this in one array is refused while it is read, so that a small text cannot become a
/// large value: the most files that any configuration of `HubLimits` lists.
const ITEMS_MAX: usize = 100_000;

/// One word or several, as cards have them; everything else counts as none. Nothing but the words
/// is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Words(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WordsVisitor { is_inside: false })
    }
}

struct WordsVisitor {
    is_inside: bool,
}

impl<'de> Visitor<'de> for WordsVisitor {
    type Value = Words;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("words")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Words, E> {
        let is_word =
            !text.is_empty() && text.len() <= WORD_LEN_MAX && !text.chars().any(char::is_control);
        Ok(Words(if is_word { vec![text.to_owned()] } else { Vec::new() }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Words, A::Error> {
        let mut words = Vec::new();
        while !self.is_inside && words.len() < WORDS_MAX {
            let Some(Inner(next)) = seq.next_element()? else { return Ok(Words(words)) };
            words.extend(next.0);
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Words(words))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Words, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Words::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Words, E> {
        Ok(Words::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Words, E> {
        Ok(Words::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Words, E> {
        Ok(Words::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Words, E> {
        Ok(Words::default())
    }

    fn visit_unit<E>(self) -> Result<Words, E> {
        Ok(Words::default())
    }
}

/// A word within a list.
struct Inner(Words);

impl<'de> Deserialize<'de> for Inner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WordsVisitor { is_inside: true }).map(Self)
    }
}

/// An array that ends before it becomes too large.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Items<T>(pub(crate) Vec<T>);

impl<T> Default for Items<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Items<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ItemsVisitor(PhantomData))
    }
}

struct ItemsVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ItemsVisitor<T> {
    type Value = Items<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Items<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(next) = seq.next_element()? {
            if items.len() >= ITEMS_MAX {
                return Err(de::Error::custom("an array has too many elements"));
            }
            items.push(next);
        }
        Ok(Items(items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_says_words_or_nothing() {
        let check = |json: &str, want: &[&str]| {
            let words = serde_json::from_str::<Words>(json).expect(json);
            assert_eq!(words.0, want, "{json}");
        };
        check(r#""mit""#, &["mit"]);
        check(r#"["a/b", "c/d"]"#, &["a/b", "c/d"]);
        check(r#"["a", 1, null, {"x": ["y"]}, ["z"], "b"]"#, &["a", "b"]);
        check(r#"{"a": "b"}"#, &[]);
        check("7", &[]);
        check("-7.5", &[]);
        check("true", &[]);
        check("null", &[]);
        check("\"a\\nb\"", &[]);
        check(&format!("\"{}\"", "x".repeat(201)), &[]);
        let many = format!("[{}]", vec!["\"x\""; 5_000].join(","));
        assert_eq!(serde_json::from_str::<Words>(&many).expect("is read").0.len(), WORDS_MAX);
    }

    #[test]
    fn an_array_ends_before_it_is_too_large() {
        let many = format!("[{}]", vec!["{}"; ITEMS_MAX + 1].join(","));
        let error = serde_json::from_str::<Items<IgnoredAny>>(&many).map(|_| ());
        assert!(error.is_err_and(|it| it.to_string().contains("too many")));
        assert_eq!(serde_json::from_str::<Items<u8>>("[1,2]").ok(), Some(Items(vec![1, 2])));
    }
}
