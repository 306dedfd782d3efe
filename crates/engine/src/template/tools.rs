//! Functions and their calls as templates want to see them, and how a template writes calls.
//!
//! The names are those of `transformers`: a tool is `{"type": "function", "function": {..}}`, a
//! message that calls has `tool_calls` whose `arguments` are values and not text, and a result is a
//! message of the role `tool`.
//!
//! Not here: the grammar of calls (`grammar/tools.rs`).

use commons_record::Hash;
use commons_record::constraint::{ToolCall, ToolFormat, Tools};
use commons_record::order::Message;
use minijinja::value::{Value, ValueKind};

use super::TemplateError;
use super::conversation::Json;

/// Letters and digits of a call's id, where a template counts them: those of Mistral take nine.
const SHORT_ID_LEN: usize = 9;

/// How calls are written by the model of this template, by what the template itself writes of them.
/// A way that is not known here is none: what the model would write could not be read.
pub(super) fn format_of(source: &str) -> Option<ToolFormat> {
    let has = |text: &str| source.contains(text);
    if !has("tools") {
        None
    } else if has("[TOOL_CALLS]") {
        Some(if has("[ARGS]") { ToolFormat::MistralArgs } else { ToolFormat::MistralList })
    } else if has("<tool_call>") {
        // Others put XML or pairs of keys and values between the same two words.
        let is_json = has("arguments") && !has("<function=") && !has("<arg_key>");
        is_json.then_some(ToolFormat::Hermes)
    } else {
        let is_llama = has("<|python_tag|>") || (has("\"parameters\": ") && has("{\"name\": "));
        is_llama.then_some(ToolFormat::Llama)
    }
}

impl Json {
    /// A conversation's messages, for a template that writes calls in this format.
    pub fn of_messages(
        messages: &[Message],
        format: Option<ToolFormat>,
    ) -> Result<Self, TemplateError> {
        let messages = messages.iter().map(|message| message_value(message, format));
        Ok(Self(messages.collect::<Result<Vec<_>, _>>()?.into()))
    }

    /// The functions that may be called.
    pub fn of_tools(tools: &Tools) -> Result<Self, TemplateError> {
        let tool = |function: &commons_record::constraint::Function| {
            let mut pairs = vec![("name", Value::from(function.name.as_str()))];
            let description = function.description.as_deref().unwrap_or_default();
            pairs.push(("description", Value::from(description)));
            let parameters = function.parameters.as_deref();
            let parameters = parameters.unwrap_or(r#"{"type":"object","properties":{}}"#);
            pairs.push(("parameters", object("schema", &function.name, parameters)?));
            let function = Value::from_iter(pairs);
            Ok(Value::from_iter([("type", Value::from("function")), ("function", function)]))
        };
        let tools = tools.functions.iter().map(tool);
        Ok(Self(tools.collect::<Result<Vec<_>, TemplateError>>()?.into()))
    }
}

fn message_value(message: &Message, format: Option<ToolFormat>) -> Result<Value, TemplateError> {
    let mut pairs = vec![("role", Value::from(message.role.as_str()))];
    pairs.push(("content", Value::from(message.content.as_str())));
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| call_value(call, format));
        pairs.push(("tool_calls", calls.collect::<Result<Vec<_>, _>>()?.into()));
    }
    if let Some(id) = &message.tool_call_id {
        pairs.push(("tool_call_id", id_for(id, format).into()));
    }
    if let Some(name) = &message.name {
        pairs.push(("name", Value::from(name.as_str())));
    }
    Ok(Value::from_iter(pairs))
}

fn call_value(call: &ToolCall, format: Option<ToolFormat>) -> Result<Value, TemplateError> {
    let arguments = object("arguments", &call.name, &call.arguments)?;
    let function = [("name", Value::from(call.name.as_str())), ("arguments", arguments)];
    let pairs = [
        ("type", Value::from("function")),
        ("id", Value::from(id_for(&call.id, format))),
        ("function", Value::from_iter(function)),
    ];
    Ok(Value::from_iter(pairs))
}

/// The id as it is, or one that the template takes. The same id becomes the same.
fn id_for(id: &str, format: Option<ToolFormat>) -> String {
    let is_short = id.len() == SHORT_ID_LEN && id.bytes().all(|it| it.is_ascii_alphanumeric());
    match format {
        Some(ToolFormat::MistralList | ToolFormat::MistralArgs) if !is_short => {
            let hash = Hash::of_fields("commons/call-id/1", &[id.as_bytes()]).to_string();
            hash.chars().take(SHORT_ID_LEN).collect()
        }
        Some(_) | None => id.to_owned(),
    }
}

fn object(what: &'static str, name: &str, text: &str) -> Result<Value, TemplateError> {
    let refuse = |cause: String| TemplateError::NoObject { what, name: name.to_owned(), cause };
    let value: Value = serde_json::from_str(text).map_err(|error| refuse(error.to_string()))?;
    if value.kind() == ValueKind::Map {
        Ok(value)
    } else {
        Err(refuse("it is another value".into()))
    }
}

#[cfg(test)]
mod tests;
