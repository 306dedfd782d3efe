//! Calls for a family that has no words for them: Gemma, asked as its documents ask it.
//!
//! Templates of Gemma 1 to 3 know neither tools nor their results. Google's guide to function calling
//! with Gemma puts the functions and the wanted form into the first user turn, and a result into a
//! turn of the user; this does the same. The form is that of Llama.
//!
//! See <https://ai.google.dev/gemma/docs/capabilities/function-calling>.

use commons_record::constraint::{ToolChoice, Tools};
use commons_record::order::Message;
use serde_json::{Value, json};

use crate::model::Model;
use crate::template::Template;

/// Whether a model is of such a family, and its template really has no words for tools.
pub(crate) fn knows(model: &Model) -> bool {
    let has_words = model.template().is_ok_and(Template::mentions_tools);
    model.facts().family.starts_with("gemma") && !has_words
}

/// The conversation with its tools, calls and results said in words.
pub(crate) fn messages(messages: &[Message], tools: Option<&Tools>) -> Vec<Message> {
    let mut said: Vec<Message> = Vec::with_capacity(messages.len());
    for message in messages {
        let role = if message.role == "tool" { "user" } else { message.role.as_str() };
        let content = content(message);
        match said.last_mut() {
            // The template wants its turns to alternate.
            Some(last) if last.role == role && role == "user" => {
                last.content = format!("{}\n{content}", last.content);
            }
            Some(_) | None => said.push(Message::new(role, content)),
        }
    }
    if let Some(tools) = tools {
        let intro = intro(tools);
        match said.iter_mut().find(|it| it.role == "user") {
            Some(first) => first.content = format!("{intro}\n\n{}", first.content),
            None => said.insert(0, Message::new("user", intro)),
        }
    }
    said
}

fn content(message: &Message) -> String {
    if message.role == "tool" {
        let of = message.name.as_ref().map_or(String::new(), |name| format!(" of {name}"));
        return format!("The result{of}: {}", message.content);
    }
    if message.tool_calls.is_empty() {
        return message.content.clone();
    }
    let calls = message
        .tool_calls
        .iter()
        .map(|call| format!("{{\"name\": \"{}\", \"parameters\": {}}}", call.name, call.arguments));
    calls.collect::<Vec<_>>().join("; ")
}

/// What the model is told of its functions.
fn intro(tools: &Tools) -> String {
    let functions: Vec<Value> = tools
        .functions
        .iter()
        .map(|function| {
            let parameters = function.parameters.as_deref().unwrap_or("{}");
            let parameters: Value = serde_json::from_str(parameters).unwrap_or_default();
            json!({
                "name": function.name,
                "description": function.description,
                "parameters": parameters,
            })
        })
        .collect();
    let must = match &tools.choice {
        ToolChoice::Auto => "If you decide to invoke any of the functions",
        ToolChoice::Required | ToolChoice::Named(_) => "Invoke one of the functions:",
    };
    let functions = serde_json::to_string_pretty(&functions).unwrap_or_default();
    format!(
        "You have access to functions. {must} you MUST put it in the format of\n\
         {{\"name\": function name, \"parameters\": dictionary of argument name and its value}}\n\
         You SHOULD NOT include any other text in the response if you call a function.\n\
         {functions}"
    )
}
