//! One message of a conversation: a role and a text, calls of functions, or the result of one.

use commons_record::constraint::{CALLS_MAX, ToolCall, is_function_name};
use commons_record::order::{MESSAGES_MAX, Message};
use serde_json::value::RawValue;

use crate::error::ApiError;
use crate::params::{Params, wrong_type};

/// Parts of a message that are not text, each with the values that mean "none": clients send an
/// assistant's message back as they got it.
const UNSUPPORTED: &[(&str, &[&str])] =
    &[("annotations", &["[]"]), ("audio", &[]), ("function_call", &[]), ("refusal", &[])];

/// Takes the conversation.
pub(super) fn take_messages(params: &mut Params) -> Result<Vec<Message>, ApiError> {
    let messages: Vec<Box<RawValue>> = params.require("messages", "a list of messages")?;
    if messages.is_empty() || messages.len() > MESSAGES_MAX {
        return Err(params.invalid("messages", "is empty or has over 4096 messages"));
    }
    let numbered = messages.iter().enumerate();
    numbered.map(|(index, raw)| parse_message(raw, format!("messages[{index}]"))).collect()
}

fn parse_message(raw: &RawValue, at: String) -> Result<Message, ApiError> {
    let mut params = Params::parse(raw.get(), at)?;
    let role: String = params.require("role", "a string")?;
    if role == "function" {
        // The older form, in which a result does not say of which call it is.
        return Err(params.unsupported("role", &[]));
    }
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if role.is_empty() || role.len() > 32 || !role.bytes().all(is_word) {
        return Err(params.invalid("role", "is not a word of at most 32 letters"));
    }
    let tool_calls = take_calls(&mut params, &role)?;
    let content = match params.take_raw("content") {
        Some(raw) => parse_content(&raw, &params.name("content"))?,
        // What calls need not say anything.
        None if !tool_calls.is_empty() => String::new(),
        None => return Err(params.missing("content")),
    };
    let (tool_call_id, name) = take_result(&mut params, &role)?;
    for (name, neutral) in UNSUPPORTED {
        params.refuse_unless(name, neutral)?;
    }
    params.finish()?;
    // `developer` is the newer name of `system`; templates of open models know the older.
    let role = if role == "developer" { "system".to_owned() } else { role };
    Ok(Message { role, content, tool_calls, tool_call_id, name })
}

/// The calls of an assistant's message.
fn take_calls(params: &mut Params, role: &str) -> Result<Vec<ToolCall>, ApiError> {
    let calls: Option<Vec<Box<RawValue>>> = params.take("tool_calls", "a list of calls")?;
    let calls = calls.unwrap_or_default();
    if !calls.is_empty() && role != "assistant" {
        return Err(params.invalid("tool_calls", "stand in a message that is not the assistant's"));
    }
    if calls.len() > CALLS_MAX {
        return Err(params.invalid("tool_calls", "are over 128"));
    }
    let (at, numbered) = (params.name("tool_calls"), calls.iter().enumerate());
    numbered.map(|(index, raw)| parse_call(raw, format!("{at}[{index}]"))).collect()
}

fn parse_call(raw: &RawValue, at: String) -> Result<ToolCall, ApiError> {
    let mut call = Params::parse(raw.get(), at)?;
    let kind = call.take::<String>("type", "a string")?;
    if kind.is_some_and(|kind| kind != "function") {
        return Err(call.unsupported("type", &[r#""function""#]));
    }
    let id = call.require("id", "a string")?;
    // Clients send the pieces of a stream back as they put them together.
    call.take::<u32>("index", "a whole number")?;
    let Some(raw) = call.take_raw("function") else { return Err(call.missing("function")) };
    let mut function = Params::parse(raw.get(), call.name("function"))?;
    let name: String = function.require("name", "a string")?;
    let arguments: String = function.require("arguments", "JSON in a string")?;
    let is_object = serde_json::from_str::<serde_json::Map<_, serde_json::Value>>(&arguments);
    if is_object.is_err() {
        return Err(function.invalid("arguments", "is not a JSON object in a string"));
    }
    function.finish()?;
    call.finish()?;
    let checked = ToolCall { id, name, arguments };
    checked.check().map_err(|error| call_error(&error))?;
    Ok(checked)
}

fn call_error(error: &commons_record::InvalidBody) -> ApiError {
    ApiError::invalid("invalid_value", format!("`{}` {}", error.field, error.reason))
        .about(error.field)
}

/// Of which call a tool's message is the result, and the function's name if it says so. The `name`
/// of anybody else is a person's, which no template of open models knows.
fn take_result(
    params: &mut Params,
    role: &str,
) -> Result<(Option<String>, Option<String>), ApiError> {
    if role != "tool" {
        params.refuse_unless("name", &[])?;
        params.refuse_unless("tool_call_id", &[])?;
        return Ok((None, None));
    }
    let id = params.require("tool_call_id", "a string")?;
    let name: Option<String> = params.take("name", "a string")?;
    if name.as_ref().is_some_and(|name| !is_function_name(name)) {
        return Err(params.invalid("name", "is not 1 to 64 of a-z, A-Z, 0-9, _ and -"));
    }
    Ok((Some(id), name))
}

/// A text, or a list of text parts, which are put together as they are.
fn parse_content(raw: &RawValue, name: &str) -> Result<String, ApiError> {
    if raw.get().starts_with('"') {
        return serde_json::from_str(raw.get()).map_err(|_| wrong_type(name, "a string"));
    }
    let parts: Vec<Box<RawValue>> = serde_json::from_str(raw.get())
        .map_err(|_| wrong_type(name, "a string or a list of text parts"))?;
    let numbered = parts.iter().enumerate();
    numbered.map(|(index, raw)| parse_part(raw, format!("{name}[{index}]"))).collect()
}

fn parse_part(raw: &RawValue, at: String) -> Result<String, ApiError> {
    let mut part = Params::parse(raw.get(), at)?;
    let kind: String = part.require("type", "a string")?;
    if kind != "text" {
        return Err(part.unsupported("type", &[r#""text""#]));
    }
    let text = part.require("text", "a string")?;
    part.finish()?;
    Ok(text)
}
