//! The parameters of a JSON object, taken one at a time, with nothing left over.
//!
//! A parameter is known, known to be unsupported, or unknown; only the first may be there.
//! Each keeps its own JSON text until it is taken, so a number is read from the
//! digits that the caller wrote. `null` means absent. Of a repeated name the last counts.

use std::collections::BTreeMap;

use commons_record::Micro;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{ApiError, quote};

/// What is left of an object.
#[derive(Debug)]
pub(crate) struct Params {
    /// Where the object stands: empty for the body, or `messages[2]`.
    at: String,
    fields: BTreeMap<String, Box<RawValue>>,
}

impl Params {
    /// Reads an object. `at` names the parameter that it is, and is empty for the body.
    pub(crate) fn parse(text: &str, at: impl Into<String>) -> Result<Self, ApiError> {
        let at = at.into();
        match serde_json::from_str(text) {
            Ok(fields) => Ok(Self { at, fields }),
            Err(error) if at.is_empty() => Err(crate::body::invalid_json(&error)),
            Err(_) => Err(wrong_type(&at, "an object")),
        }
    }

    /// The full name of a parameter.
    pub(crate) fn name(&self, name: &str) -> String {
        if self.at.is_empty() { name.to_owned() } else { format!("{}.{name}", self.at) }
    }

    /// Takes a parameter as its own JSON text.
    pub(crate) fn take_raw(&mut self, name: &str) -> Option<Box<RawValue>> {
        self.fields.remove(name).filter(|raw| raw.get() != "null")
    }

    /// Takes a parameter; `expected` says in words what it must be.
    pub(crate) fn take<T: DeserializeOwned>(
        &mut self,
        name: &str,
        expected: &str,
    ) -> Result<Option<T>, ApiError> {
        let Some(raw) = self.take_raw(name) else { return Ok(None) };
        let wrong = |_| wrong_type(&self.name(name), expected);
        serde_json::from_str(raw.get()).map(Some).map_err(wrong)
    }

    /// Takes a number exactly as it is written, or refuses it.
    pub(crate) fn take_micro(&mut self, name: &str) -> Result<Option<Micro>, ApiError> {
        let Some(raw) = self.take_raw(name) else { return Ok(None) };
        parse_micro(raw.get(), &self.name(name)).map(Some)
    }

    /// Takes a parameter that must be there.
    pub(crate) fn require<T: DeserializeOwned>(
        &mut self,
        name: &str,
        expected: &str,
    ) -> Result<T, ApiError> {
        self.take(name, expected)?.ok_or_else(|| self.missing(name))
    }

    pub(crate) fn missing(&self, name: &str) -> ApiError {
        let name = self.name(name);
        let message = format!("`{name}` is missing");
        ApiError::invalid("missing_required_parameter", message).about(name)
    }

    /// Refuses a parameter that would change the answer, unless its value changes nothing.
    pub(crate) fn refuse_unless(&mut self, name: &str, neutral: &[&str]) -> Result<(), ApiError> {
        match self.take_raw(name) {
            Some(raw) if !is_one_of(&raw, neutral) => Err(self.unsupported(name, neutral)),
            _ => Ok(()),
        }
    }

    pub(crate) fn unsupported(&self, name: &str, neutral: &[&str]) -> ApiError {
        let name = self.name(name);
        let message = match neutral {
            [] => format!("`{name}` is not supported; leave it out"),
            some => format!("`{name}` is not supported; leave it out or set {}", some.join(" or ")),
        };
        ApiError::invalid("unsupported_parameter", message).about(name)
    }

    pub(crate) fn invalid(&self, name: &str, reason: &str) -> ApiError {
        let name = self.name(name);
        ApiError::invalid("invalid_value", format!("`{name}` {reason}")).about(name)
    }

    /// Nothing may be left: a misspelt parameter must not look as if it had worked.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        let Some(name) = self.fields.keys().next() else { return Ok(()) };
        let name = self.name(&quote(name));
        let message = format!("`{name}` is not a parameter of this request");
        Err(ApiError::invalid("unknown_parameter", message).about(name))
    }
}

/// Whether a value equals one of `neutral`, however it is spaced. Too deep to read is no.
fn is_one_of(raw: &RawValue, neutral: &[&str]) -> bool {
    let value: Option<Value> = serde_json::from_str(raw.get()).ok();
    value.is_some() && neutral.iter().any(|it| serde_json::from_str(it).ok() == value)
}

/// A number from the digits that the caller wrote.
pub(crate) fn parse_micro(text: &str, name: &str) -> Result<Micro, ApiError> {
    if !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return Err(wrong_type(name, "a number"));
    }
    text.parse().map_err(|_| {
        let message = format!(
            "`{name}` is {}, which is out of range or finer than six decimal places",
            quote(text)
        );
        ApiError::invalid("invalid_value", message).about(name)
    })
}

pub(crate) fn wrong_type(name: &str, expected: &str) -> ApiError {
    ApiError::invalid("invalid_type", format!("`{name}` is not {expected}")).about(name)
}
