//! Live answers against the published description of the OpenAI API.
//!
//! The description lies beside the repository, in `../shared`; without it this says so and stops.

use std::path::PathBuf;

use serde_json::Value;

use crate::fake::{CHAT, FakeNode, TEXT, app, chat, get, post, send, text};

/// `$ref`s nest a few deep in the description; more is a circle.
const DEPTH_MAX: usize = 64;

struct Description(Value);

impl Description {
    fn load() -> Option<Self> {
        let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let path = here.join("../../../shared/fixtures/protocol/openai-openapi.json");
        let Ok(json) = std::fs::read_to_string(&path) else {
            eprintln!("SKIPPED: {} is not here, so no answer was checked", path.display());
            return None;
        };
        Some(Self(serde_json::from_str(&json).unwrap()))
    }

    fn schema(&self, name: &str) -> &Value {
        &self.0["components"]["schemas"][name]
    }

    /// What is wrong with `value`, if anything: types, required members, constants, alternatives.
    fn check(&self, schema: &Value, value: &Value, depth: usize) -> Result<(), String> {
        assert!(depth < DEPTH_MAX, "the description is circular here: {schema}");
        if let Some(name) = schema["$ref"].as_str() {
            let name = name.strip_prefix("#/components/schemas/").unwrap();
            return self.check(self.schema(name), value, depth + 1);
        }
        if value.is_null() && schema["nullable"] == true {
            return Ok(());
        }
        for all in schema["allOf"].as_array().into_iter().flatten() {
            self.check(all, value, depth + 1)?;
        }
        for any in ["anyOf", "oneOf"].into_iter().filter_map(|name| schema[name].as_array()) {
            if !any.iter().any(|it| self.check(it, value, depth + 1).is_ok()) {
                return Err(format!("{value} is none of the alternatives"));
            }
        }
        if let Some(kind) = schema["type"].as_str()
            && !is_of(kind, value)
        {
            return Err(format!("{value} is not of type {kind}"));
        }
        if let Some(constants) = schema["enum"].as_array()
            && !constants.contains(value)
        {
            return Err(format!("{value} is none of {constants:?}"));
        }
        self.check_members(schema, value, depth)
    }

    fn check_members(&self, schema: &Value, value: &Value, depth: usize) -> Result<(), String> {
        if let Some(object) = value.as_object() {
            for name in schema["required"].as_array().into_iter().flatten() {
                let name = name.as_str().unwrap();
                if !object.contains_key(name) {
                    return Err(format!("`{name}` is missing in {value}"));
                }
            }
            for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                if let Some(member) = object.get(name) {
                    self.check(schema, member, depth + 1)
                        .map_err(|why| format!("{name}: {why}"))?;
                }
            }
        }
        if let Some(items) = schema.get("items") {
            for item in value.as_array().into_iter().flatten() {
                self.check(items, item, depth + 1)?;
            }
        }
        Ok(())
    }
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the description has a new type: {other}"),
    }
}

#[tokio::test]
async fn live_answers_are_what_the_published_description_says() {
    let Some(description) = Description::load() else { return };
    let app = app(&FakeNode::new([]));
    let usage = r#","stream":true,"stream_options":{"include_usage":true}"#;
    let scored = r#","stream":true,"logprobs":true,"top_logprobs":1"#;
    let cases = [
        ("CreateChatCompletionResponse", post(CHAT, chat(""))),
        ("CreateChatCompletionResponse", post(CHAT, chat(r#","logprobs":true"#))),
        ("CreateChatCompletionStreamResponse", post(CHAT, chat(r#","stream":true"#))),
        ("CreateChatCompletionStreamResponse", post(CHAT, chat(scored))),
        ("CreateCompletionResponse", post(TEXT, text(""))),
        ("CreateCompletionResponse", post(TEXT, text(r#","logprobs":1"#))),
        ("CreateCompletionResponse", post(TEXT, text(r#","stream":true,"logprobs":1"#))),
        ("CreateCompletionResponse", post(TEXT, text(r#","stream":true"#))),
        ("ListModelsResponse", get("/v1/models")),
        ("Model", get("/v1/models/stories")),
        ("ErrorResponse", get("/nowhere")),
        ("ErrorResponse", post(CHAT, "{}")),
        ("CreateChatCompletionStreamResponse", post(CHAT, chat(usage))),
    ];
    for (name, request) in cases {
        let reply = send(&app, request).await;
        let events = reply.body.lines().filter_map(|line| line.strip_prefix("data: {"));
        let bodies = if reply.body.starts_with("data: ") {
            events.collect()
        } else {
            vec![&reply.body[1..]]
        };
        assert!(!bodies.is_empty());
        for body in bodies {
            // The description says that `usage` is nullable beside a `$ref`, where JSON Schema
            // ignores it; its own text asks for the null.
            let mut value: Value = serde_json::from_str(&format!("{{{body}")).unwrap();
            if value["usage"].is_null() {
                value.as_object_mut().unwrap().remove("usage");
            }
            // It says that a streamed completion has the shape of a whole one, whose
            // `finish_reason` is no null; OpenAI's own streams have it null until the last chunk.
            let is_text_chunk =
                value["object"] == "text_completion" && reply.body.starts_with("data");
            if is_text_chunk && value["choices"][0]["finish_reason"].is_null() {
                value["choices"][0]["finish_reason"] = "stop".into();
            }
            let checked = description.check(description.schema(name), &value, 0);
            assert_eq!(checked, Ok(()), "{name}: {value}");
        }
    }
}
