//! What the answer must look like: `response_format`, and the names that vLLM gave the rest.
//!
//! | parameter | is |
//! |---|---|
//! | `response_format` | `{"type": "text" / "json_object" / "json_schema", "json_schema": {"schema": ..}}` |
//! | `guided_json` | a schema, as an object or as a text |
//! | `guided_regex` | an expression for the whole answer |
//! | `guided_choice` | a list of texts |
//! | `structured_outputs` | `{"json": .., "regex": .., "choice": ..}`, one of them |
//!
//! One of them may be given. Not here: whether a schema means anything (the engine says so).

use commons_record::constraint::Constraint;
use serde_json::value::RawValue;

use crate::error::ApiError;
use crate::params::{Params, wrong_type};

/// Takes the constraint, if there is one.
pub(super) fn take_constraint(params: &mut Params) -> Result<Option<Constraint>, ApiError> {
    let mut found = take_named(params, ["guided_json", "guided_regex", "guided_choice"])?;
    if let Some(raw) = params.take_raw("structured_outputs") {
        let mut inner = Params::parse(raw.get(), "structured_outputs")?;
        for (name, constraint) in take_named(&mut inner, ["json", "regex", "choice"])? {
            found.push((format!("structured_outputs.{name}"), constraint));
        }
        inner.finish()?;
    }
    if let Some(constraint) = take_format(params)? {
        found.push(("response_format".to_owned(), constraint));
    }
    let (first, second) = (found.pop(), found.pop());
    let Some((name, constraint)) = first else { return Ok(None) };
    if let Some((other, _)) = second {
        return Err(params.invalid(&name, &format!("cannot stand beside `{other}`")));
    }
    constraint.check().map_err(|error| params.invalid(&name, error.reason))?;
    Ok(Some(constraint))
}

/// What stands under three names: a schema, an expression, a list of texts.
fn take_named(
    params: &mut Params,
    [json, regex, choice]: [&str; 3],
) -> Result<Vec<(String, Constraint)>, ApiError> {
    let mut found = Vec::new();
    if let Some(raw) = params.take_raw(json) {
        let schema = schema(&raw, &params.name(json))?;
        found.push((json.to_owned(), Constraint::JsonSchema(schema)));
    }
    if let Some(source) = params.take(regex, "a string")? {
        found.push((regex.to_owned(), Constraint::Regex(source)));
    }
    if let Some(choices) = params.take(choice, "a list of strings")? {
        found.push((choice.to_owned(), Constraint::Choice(choices)));
    }
    Ok(found)
}

fn take_format(params: &mut Params) -> Result<Option<Constraint>, ApiError> {
    let Some(raw) = params.take_raw("response_format") else { return Ok(None) };
    let mut format = Params::parse(raw.get(), "response_format")?;
    let kind: String = format.require("type", "a string")?;
    let constraint = match kind.as_str() {
        "text" => None,
        "json_object" => Some(Constraint::JsonObject),
        "json_schema" => Some(Constraint::JsonSchema(take_schema(&mut format)?)),
        _ => return Err(format.invalid("type", "is none of text, json_object and json_schema")),
    };
    format.finish()?;
    Ok(constraint)
}

/// The schema inside its own object, with a name for people.
fn take_schema(format: &mut Params) -> Result<String, ApiError> {
    let Some(raw) = format.take_raw("json_schema") else {
        return Err(format.missing("json_schema"));
    };
    let mut named = Params::parse(raw.get(), format.name("json_schema"))?;
    named.take::<String>("name", "a string")?;
    named.take::<String>("description", "a string")?;
    // An answer keeps to its schema whether it is asked to be strict or not.
    named.take::<bool>("strict", "true or false")?;
    let Some(raw) = named.take_raw("schema") else { return Err(named.missing("schema")) };
    let source = schema(&raw, &named.name("schema"))?;
    named.finish()?;
    Ok(source)
}

/// A schema as it is written, or in a text.
pub(super) fn schema(raw: &RawValue, name: &str) -> Result<String, ApiError> {
    let text = raw.get();
    if text.starts_with('"') {
        return serde_json::from_str(text).map_err(|_| wrong_type(name, "a JSON schema"));
    }
    if text.starts_with('{') || text == "true" {
        return Ok(text.to_owned());
    }
    Err(wrong_type(name, "a JSON schema"))
}
