//! Answers of a certain form, and calls, from the HTTP request to the sampler and back.

use std::path::{Path, PathBuf};

use commons_engine::gguf::Value as Gguf;
use serde_json::{Value, json};

use crate::support::http::post;
use crate::support::{Node, arg, folder};

const CHAT: &str = "/v1/chat/completions";

/// A model of random weights that was, by its template, trained to write calls as Qwen does.
fn calling_model(folder: &Path) -> PathBuf {
    let template = "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}\
        {% for message in messages %}{{ message.content }}{% for call in message.tool_calls or [] %}\
        <tool_call>{{ call.function.arguments | tojson }}</tool_call>{% endfor %}{% endfor %}";
    let mut model = commons_engine::noise::noise_model(7).expect("a model");
    model.set("tokenizer.chat_template", Gguf::String(template.into()));
    let path = folder.join("calls.gguf");
    std::fs::write(&path, model.to_bytes()).expect("is written");
    path
}

fn body(more: &Value) -> Value {
    let mut body = json!({
        "model": "calls", "messages": [{ "role": "user", "content": "hello" }],
        "max_tokens": 600, "temperature": 1.1, "seed": 5,
    });
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

#[test]
fn an_answer_over_http_has_the_form_that_was_asked_for() {
    let folder = folder();
    let model = calling_model(folder.path());
    let node = Node::up(&folder.path().join("a"), &["--model", arg(&model)]);
    let schema = json!({
        "type": "object", "required": ["size", "kind"], "additionalProperties": false,
        "properties": {
            "size": { "type": "integer", "minimum": 1, "maximum": 40 },
            "kind": { "enum": ["cat", "dog"] },
        },
    });
    let format =
        json!({ "type": "json_schema", "json_schema": { "name": "pet", "schema": schema } });
    let reply = post(node.api(), CHAT, &body(&json!({ "response_format": format }))).json();
    let choice = &reply["choices"][0];
    assert_eq!(choice["finish_reason"], "stop", "{reply}");
    let text = choice["message"]["content"].as_str().expect("a text");
    let pet: Value = serde_json::from_str(text).expect("JSON");
    assert!((1..=40).contains(&pet["size"].as_i64().expect("a size")), "{text}");
    assert!(["cat", "dog"].contains(&pet["kind"].as_str().expect("a kind")), "{text}");

    let asked = json!({
        "model": "calls", "prompt": "once", "max_tokens": 50, "temperature": 1,
        "guided_regex": "[a-c]{3}(-[0-9]{2}){2}",
    });
    let reply = post(node.api(), "/v1/completions", &asked).json();
    let text = reply["choices"][0]["text"].as_str().expect("a text");
    assert!(text.len() == 9 && text.as_bytes()[3] == b'-' && text.as_bytes()[6] == b'-', "{reply}");

    let tools =
        json!([{ "type": "function", "function": { "name": "pick", "parameters": schema } }]);
    let mut more =
        json!({ "tools": tools, "tool_choice": "required", "parallel_tool_calls": false });
    let reply = post(node.api(), CHAT, &body(&more)).json();
    let choice = &reply["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{reply}");
    assert_eq!(choice["message"]["content"], Value::Null);
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(call["function"]["name"], "pick");
    let arguments = call["function"]["arguments"].as_str().expect("arguments");
    let pet: Value = serde_json::from_str(arguments).expect("JSON");
    assert!(["cat", "dog"].contains(&pet["kind"].as_str().expect("a kind")), "{reply}");

    // The call and its result go back, and the same is asked as a stream.
    more["stream"] = json!(true);
    more["messages"] = json!([
        { "role": "user", "content": "hello" },
        choice["message"],
        { "role": "tool", "tool_call_id": call["id"], "content": "done" },
    ]);
    let mut response = post(node.api(), CHAT, &body(&more));
    let (mut arguments, mut reason) = (String::new(), Value::Null);
    while let Some(event) = response.event() {
        let Ok(chunk) = serde_json::from_str::<Value>(&event) else { continue };
        let choice = &chunk["choices"][0];
        let call = &choice["delta"]["tool_calls"][0];
        arguments += call["function"]["arguments"].as_str().unwrap_or_default();
        if !choice["finish_reason"].is_null() {
            reason = choice["finish_reason"].clone();
        }
    }
    assert_eq!(reason, "tool_calls");
    assert!(
        serde_json::from_str::<Value>(&arguments).is_ok_and(|it| it.is_object()),
        "{arguments}"
    );
}

#[test]
fn a_form_that_cannot_be_kept_is_a_400_with_its_code_and_reason() {
    let folder = folder();
    let model = calling_model(folder.path());
    let node = Node::up(&folder.path().join("a"), &["--model", arg(&model)]);
    let check = |more: &Value, part: &str| {
        let response = post(node.api(), CHAT, &body(more));
        assert_eq!(response.status, 400);
        let error = response.json()["error"].clone();
        assert_eq!(error["code"], "invalid_constraint", "{error}");
        assert!(error["message"].as_str().expect("a sentence").contains(part), "{error}");
    };
    check(
        &json!({ "guided_json": { "$ref": "http://example.com/s.json" } }),
        "http://example.com/s.json",
    );
    check(&json!({ "guided_json": { "type": "array", "minItems": 1_000_000 } }), "minItems");
    check(&json!({ "guided_regex": "(unclosed" }), "unclosed group");
    let schema = json!({ "$ref": "file:///etc/passwd" });
    let tools = json!([{ "type": "function", "function": { "name": "f", "parameters": schema } }]);
    check(&json!({ "tools": tools }), "file:///etc/passwd");
}
