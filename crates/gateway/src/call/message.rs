//! One message of a conversation: a role and a text.

use commons_record::order::{MESSAGES_MAX, Message};
use serde_json::value::RawValue;

use crate::error::ApiError;
use crate::params::{Params, wrong_type};

/// Roles of conversations with tools, which are not supported.
const TOOL_ROLES: [&str; 2] = ["tool", "function"];

/// Parts of a message that are not text, each with the values that mean "none": clients send an
/// assistant's message back as they got it.
const UNSUPPORTED: &[(&str, &[&str])] = &[
    ("annotations", &["[]"]),
    ("audio", &[]),
    ("function_call", &[]),
    ("name", &[]),
    ("refusal", &[]),
    ("tool_call_id", &[]),
    ("tool_calls", &["[]"]),
];

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
    if TOOL_ROLES.contains(&role.as_str()) {
        return Err(params.unsupported("role", &[]));
    }
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if role.is_empty() || role.len() > 32 || !role.bytes().all(is_word) {
        return Err(params.invalid("role", "is not a word of at most 32 letters"));
    }
    let content = take_content(&mut params)?;
    for (name, neutral) in UNSUPPORTED {
        params.refuse_unless(name, neutral)?;
    }
    params.finish()?;
    // `developer` is the newer name of `system`; templates of open models know the older.
    let role = if role == "developer" { "system".to_owned() } else { role };
    Ok(Message { role, content })
}

/// A text, or a list of text parts, which are put together as they are.
fn take_content(params: &mut Params) -> Result<String, ApiError> {
    let Some(raw) = params.take_raw("content") else { return Err(params.missing("content")) };
    let name = params.name("content");
    if raw.get().starts_with('"') {
        return serde_json::from_str(raw.get()).map_err(|_| wrong_type(&name, "a string"));
    }
    let parts: Vec<Box<RawValue>> = serde_json::from_str(raw.get())
        .map_err(|_| wrong_type(&name, "a string or a list of text parts"))?;
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
