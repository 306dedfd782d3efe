//! One question, two spellings: a value of GGUF metadata or of a `config.json`.
//!
//! Not here: what the values mean (`family.rs`), and what only one of the sources has.

use serde_json::{Map, Value};

use super::SettingsError;
use crate::gguf::Gguf;

/// A value that both sources have: its GGUF key without the architecture, and its JSON key.
pub(super) type Key = (&'static str, &'static str);

/// Where settings are read from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reader<'a> {
    /// Metadata, and the architecture that starts each key.
    Gguf(&'a Gguf, &'a str),
    /// The object that describes the text model.
    Config(&'a Map<String, Value>),
}

impl<'a> Reader<'a> {
    /// The key as the source spells it.
    pub(super) fn spell(&self, key: Key) -> String {
        match self {
            Self::Gguf(_, architecture) => format!("{architecture}.{}", key.0),
            Self::Config(_) => key.1.to_owned(),
        }
    }

    /// A count from 1 to `limit`; it must be there.
    pub(super) fn count(&self, key: Key, limit: u64) -> Result<usize, SettingsError> {
        self.required(key, self.optional_count(key, limit)?)
    }

    /// A count from 1 to `limit`, if it is there.
    pub(super) fn optional_count(
        &self,
        key: Key,
        limit: u64,
    ) -> Result<Option<usize>, SettingsError> {
        let Some(found) = self.whole(key)? else { return Ok(None) };
        match usize::try_from(found) {
            Ok(value) if (1..=limit).contains(&found) => Ok(Some(value)),
            _ => Err(SettingsError::Range { key: self.spell(key), found, limit }),
        }
    }

    /// A non-negative whole number.
    pub(super) fn whole(&self, key: Key) -> Result<Option<u64>, SettingsError> {
        match self {
            Self::Gguf(gguf, _) => Ok(gguf.unsigned(&self.spell(key))?),
            Self::Config(object) => {
                typed(object, key.1, "a non-negative whole number", Value::as_u64)
            }
        }
    }

    /// A positive finite number; it must be there.
    pub(super) fn number(&self, key: Key) -> Result<f64, SettingsError> {
        self.required(key, self.optional_number(key)?)
    }

    /// A positive finite number, if it is there.
    pub(super) fn optional_number(&self, key: Key) -> Result<Option<f64>, SettingsError> {
        let found = match self {
            Self::Gguf(gguf, _) => gguf.float(&self.spell(key))?,
            Self::Config(object) => typed(object, key.1, "a number", Value::as_f64)?,
        };
        found.map(|found| positive(&self.spell(key), found)).transpose()
    }

    /// Whether the family's own value holds where the source has no key: a `config.json` that says
    /// `null` means none.
    pub(super) fn implies(&self, key: Key) -> bool {
        match self {
            Self::Gguf(..) => true,
            Self::Config(object) => !object.contains_key(key.1),
        }
    }

    /// A truth value.
    pub(super) fn flag(&self, key: Key) -> Result<Option<bool>, SettingsError> {
        match self {
            Self::Gguf(gguf, _) => Ok(gguf.boolean(&self.spell(key))?),
            Self::Config(object) => typed(object, key.1, "true or false", Value::as_bool),
        }
    }

    /// A text.
    pub(super) fn text(&self, key: Key) -> Result<Option<&'a str>, SettingsError> {
        match *self {
            Self::Gguf(gguf, _) => Ok(gguf.text(&self.spell(key))?),
            Self::Config(object) => typed(object, key.1, "a text", Value::as_str),
        }
    }

    fn required<T>(&self, key: Key, value: Option<T>) -> Result<T, SettingsError> {
        match self {
            Self::Gguf(..) => Ok(Gguf::require(&self.spell(key), value)?),
            Self::Config(_) => {
                value.ok_or_else(|| SettingsError::Missing { key: key.1.to_owned() })
            }
        }
    }
}

/// A value of a JSON object; `null` is the same as nothing.
pub(super) fn typed<'a, T>(
    object: &'a Map<String, Value>,
    key: &str,
    wanted: &'static str,
    convert: impl FnOnce(&'a Value) -> Option<T>,
) -> Result<Option<T>, SettingsError> {
    let Some(value) = object.get(key).filter(|value| !value.is_null()) else { return Ok(None) };
    let found = type_name(value);
    let wrong = || SettingsError::WrongType { key: key.to_owned(), wanted, found };
    convert(value).map(Some).ok_or_else(wrong)
}

/// Refuses what is no divisor, no base and no scale.
pub(super) fn positive(key: &str, found: f64) -> Result<f64, SettingsError> {
    let is_sound = found.is_finite() && found > 0.0;
    if is_sound { Ok(found) } else { Err(SettingsError::Number { key: key.to_owned(), found }) }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "another number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
