//! What templates make of functions and calls, and how formats are found.

use commons_record::constraint::{Function, ToolChoice};
use serde_json::Value as Plain;

use super::*;
use crate::template::{Conversation, Template};

/// What `transformers` made of these conversations: see `tests/golden/make_templates.py`.
fn golden() -> Plain {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/templates.json");
    serde_json::from_slice(&std::fs::read(path).expect("is there")).expect("JSON")
}

/// The conversation that calls, in our own types.
fn conversation() -> (Vec<Message>, Tools) {
    let arguments = r#"{"place": "Zürich", "days": 2, "exact": true, "scale": 1.0, "note": null}"#;
    let call =
        ToolCall { id: "abcdef123".into(), name: "weather".into(), arguments: arguments.into() };
    let messages = vec![
        Message::new("user", " What is 2+2?\n"),
        Message { tool_calls: vec![call], ..Message::new("assistant", "") },
        Message { name: Some("weather".into()), ..Message::new("tool", "{\"degrees\": 21}") },
    ];
    let parameters = r#"{"type": "object", "properties": {"place": {"type": "string",
        "enum": ["Zürich", "Köln"]}, "days": {"type": "integer", "default": 1}},
        "required": ["place"]}"#;
    let function = Function {
        name: "weather".into(),
        description: Some("The weather's \"state\".".into()),
        parameters: Some(parameters.into()),
    };
    let tools = Tools { functions: vec![function], choice: ToolChoice::Auto, is_parallel: true };
    (messages, tools)
}

#[test]
fn calls_and_functions_are_rendered_as_transformers_renders_them() {
    let (golden, (messages, tools)) = (golden(), conversation());
    for (name, format) in [
        ("qwen3", Some(ToolFormat::Hermes)),
        ("llama3", Some(ToolFormat::Llama)),
        ("mistral", Some(ToolFormat::MistralList)),
        ("gemma", None),
        ("chatml", None),
    ] {
        let source = golden["templates"][name].as_str().expect("a template");
        let template = Template::new(source).expect("compiles");
        assert_eq!(template.tool_format(), format, "{name}");
        assert_eq!(template.mentions_tools(), format.is_some(), "{name}");
        if format.is_none() {
            continue;
        }
        let cases = golden["cases"].as_array().expect("cases").iter();
        let mut cases = cases.filter(|it| it["template"] == name && it["conversation"] == 7);
        let want = cases.next().and_then(|it| it["text"].as_str()).expect("a text");
        let messages = Json::of_messages(&messages, format).expect("objects");
        let tools = Json::of_tools(&tools).expect("objects");
        let conversation = Conversation { tools: Some(&tools), ..Conversation::new(&messages) };
        let text = template.render(&conversation, "<s>", "</s>").expect("renders");
        assert_eq!(text, want, "{name}");
    }
}

#[test]
fn formats_are_told_apart_by_what_templates_write() {
    let check = |source: &str, want| assert_eq!(format_of(source), want, "{source}");
    check("tools <tool_call> arguments", Some(ToolFormat::Hermes));
    check("tools <tool_call>\n<function=f> arguments", None);
    check("tools <tool_call>f\n<arg_key> arguments", None);
    check("tools [TOOL_CALLS]", Some(ToolFormat::MistralList));
    check("tools [TOOL_CALLS] [ARGS]", Some(ToolFormat::MistralArgs));
    check("tools {\"name\": .., \"parameters\": ..}", Some(ToolFormat::Llama));
    check("tools <|python_tag|>", Some(ToolFormat::Llama));
    check("<|python_tag|>", None);
    check("tools", None);
}

#[test]
fn ids_are_made_short_where_a_template_counts_their_letters() {
    let long = id_for("call_0123456789", Some(ToolFormat::MistralList));
    assert!(long.len() == 9 && long.bytes().all(|it| it.is_ascii_alphanumeric()), "{long}");
    assert_eq!(long, id_for("call_0123456789", Some(ToolFormat::MistralArgs)));
    assert_ne!(long, id_for("call_0123456780", Some(ToolFormat::MistralList)));
    assert_eq!(id_for("abcDEF123", Some(ToolFormat::MistralList)), "abcDEF123");
    assert_eq!(id_for("call_1", Some(ToolFormat::Hermes)), "call_1");
}

#[test]
fn arguments_that_are_no_object_are_refused_by_name() {
    let (mut messages, _) = conversation();
    for wrong in ["", "[]", "7", "{"] {
        messages[1].tool_calls[0].arguments = wrong.into();
        let error = Json::of_messages(&messages, None).expect_err("is refused").to_string();
        assert!(error.contains("weather"), "{error}");
    }
}
