//! What an answer must look like, and what it may call: how it is asked for, and how it is told.

use commons_node::api::AnswerEvent;
use commons_record::constraint::{Constraint, Function, ToolCall, ToolChoice, ToolFormat, Tools};
use commons_record::mesh::Usage;
use commons_record::order::{Message, Prompt, PromptInput};
use commons_record::settlement::EndReason;
use serde_json::{Value, json};

use crate::fake::{CHAT, FakeNode, Script, TEXT, app, chat, done, post, send, text, token};

const ONE: &str =
    r#""tools":[{"type":"function","function":{"name":"f","parameters":{"type": "object"}}}]"#;

async fn asked(path: &str, body: String) -> Prompt {
    let node = FakeNode::new([]);
    let reply = send(&app(&node), post(path, body.clone())).await;
    assert_eq!(reply.status, 200, "{body}: {}", reply.body);
    node.last_ask().prompt
}

async fn check_refused(path: &str, body: String, code: &str, param: &str) {
    let node = FakeNode::new([]);
    let reply = send(&app(&node), post(path, body.clone())).await;
    let want = (400, code.to_owned(), Some(param.to_owned()));
    assert_eq!(reply.error(), want, "{body}: {}", reply.body);
    assert_eq!(node.ask_count(), 0);
}

#[tokio::test]
async fn a_form_is_asked_for_by_each_of_its_names() {
    let schema = r#"{"type": "object",  "properties":{"b":{},"a":{"maximum":1e2}}}"#;
    let json_schema = || Some(Constraint::JsonSchema(schema.into()));
    let format = |inner: &str| format!(r#","response_format":{inner}"#);
    let named = format!(r#"{{"name":"n","strict":true,"schema":{schema}}}"#);
    let cases = [
        (format(r#"{"type":"text"}"#), None),
        (format(r#"{"type":"json_object"}"#), Some(Constraint::JsonObject)),
        (format(&format!(r#"{{"type":"json_schema","json_schema":{named}}}"#)), json_schema()),
        (format!(r#","guided_json":{schema}"#), json_schema()),
        (format!(r#","guided_json":{}"#, json!(schema)), json_schema()),
        (r#","guided_regex":"a+""#.to_owned(), Some(Constraint::Regex("a+".into()))),
        (
            r#","guided_choice":["a","b"]"#.to_owned(),
            Some(Constraint::Choice(vec!["a".into(), "b".into()])),
        ),
        (format!(r#","structured_outputs":{{"json":{schema}}}"#), json_schema()),
        (r#","structured_outputs":{"regex":"b"}"#.to_owned(), Some(Constraint::Regex("b".into()))),
        (r#","guided_json":null"#.to_owned(), None),
    ];
    for (more, want) in cases {
        assert_eq!(asked(CHAT, chat(&more)).await.constraint, want, "{more}");
        assert_eq!(asked(TEXT, text(&more)).await.constraint, want, "{more}");
    }
}

#[tokio::test]
async fn a_form_that_is_none_is_refused_by_name() {
    let large = format!(r#","guided_regex":"{}""#, "a".repeat(300_000));
    let many = format!(r#","guided_choice":{}"#, json!(vec!["a"; 5_000]));
    let cases = [
        (r#","response_format":{"type":"xml"}"#, "invalid_value", "response_format.type"),
        (r#","response_format":{}"#, "missing_required_parameter", "response_format.type"),
        (r#","response_format":7"#, "invalid_type", "response_format"),
        (
            r#","response_format":{"type":"json_object","x":1}"#,
            "unknown_parameter",
            "response_format.x",
        ),
        (
            r#","response_format":{"type":"json_schema"}"#,
            "missing_required_parameter",
            "response_format.json_schema",
        ),
        (
            r#","response_format":{"type":"json_schema","json_schema":{"name":"n"}}"#,
            "missing_required_parameter",
            "response_format.json_schema.schema",
        ),
        (
            r#","response_format":{"type":"json_schema","json_schema":{"schema":7}}"#,
            "invalid_type",
            "response_format.json_schema.schema",
        ),
        (r#","guided_regex":7"#, "invalid_type", "guided_regex"),
        (r#","guided_regex":"""#, "invalid_value", "guided_regex"),
        (r#","guided_choice":[]"#, "invalid_value", "guided_choice"),
        (r#","guided_choice":"a""#, "invalid_type", "guided_choice"),
        (r#","guided_json":[]"#, "invalid_type", "guided_json"),
        (r#","guided_json":{},"guided_regex":"a""#, "invalid_value", "guided_regex"),
        (
            r#","structured_outputs":{"choice":["a"]},"response_format":{"type":"json_object"}"#,
            "invalid_value",
            "response_format",
        ),
        (r#","structured_outputs":{"x":1}"#, "unknown_parameter", "structured_outputs.x"),
        (large.as_str(), "invalid_value", "guided_regex"),
        (many.as_str(), "invalid_value", "guided_choice"),
    ];
    for (more, code, param) in cases {
        check_refused(CHAT, chat(more), code, param).await;
        check_refused(TEXT, text(more), code, param).await;
    }
}

#[tokio::test]
async fn functions_are_asked_for_with_their_choice() {
    let function = |name: &str, description: Option<&str>, parameters: Option<&str>| Function {
        name: name.into(),
        description: description.map(str::to_owned),
        parameters: parameters.map(str::to_owned),
    };
    let tools = |choice, is_parallel| {
        let functions = vec![function("f", None, Some(r#"{"type": "object"}"#))];
        Some(Tools { functions, choice, is_parallel })
    };
    let named = r#"{"type":"function","function":{"name":"f"}}"#;
    let cases = [
        (String::new(), tools(ToolChoice::Auto, true)),
        (r#","tool_choice":"auto""#.to_owned(), tools(ToolChoice::Auto, true)),
        (
            r#","tool_choice":"required","parallel_tool_calls":false"#.to_owned(),
            tools(ToolChoice::Required, false),
        ),
        (format!(r#","tool_choice":{named}"#), tools(ToolChoice::Named("f".into()), true)),
        (r#","tool_choice":"none""#.to_owned(), None),
    ];
    for (more, want) in cases {
        assert_eq!(asked(CHAT, chat(&format!(",{ONE}{more}"))).await.tools, want, "{more}");
    }
    let two = r#","tools":[{"type":"function","function":{"name":"a-1","description":"d","strict":true}},
        {"type":"function","function":{"name":"b","parameters":null}}]"#;
    let found = asked(CHAT, chat(two)).await.tools.unwrap().functions;
    assert_eq!(found, [function("a-1", Some("d"), None), function("b", None, None)]);
}

#[tokio::test]
async fn functions_that_are_none_are_refused_by_place() {
    let tools = |inner: &str| format!(r#","tools":[{inner}]"#);
    let f = r#"{"type":"function","function":{"name":"f"}}"#;
    let many: Vec<String> = (0..129).map(|it| f.replace("\"f\"", &format!("\"f{it}\""))).collect();
    let cases = [
        (r#","tools":7"#.to_owned(), "invalid_type", "tools"),
        (tools("7"), "invalid_type", "tools[0]"),
        (tools("{}"), "missing_required_parameter", "tools[0].type"),
        (tools(r#"{"type":"web_search"}"#), "unsupported_parameter", "tools[0].type"),
        (tools(r#"{"type":"function"}"#), "missing_required_parameter", "tools[0].function"),
        (
            tools(r#"{"type":"function","function":{}}"#),
            "missing_required_parameter",
            "tools[0].function.name",
        ),
        (
            tools(r#"{"type":"function","function":{"name":"a b"}}"#),
            "invalid_value",
            "tools[0].function.name",
        ),
        (
            tools(r#"{"type":"function","function":{"name":"a","parameters":7}}"#),
            "invalid_type",
            "tools[0].function.parameters",
        ),
        (
            tools(r#"{"type":"function","function":{"name":"a","x":7}}"#),
            "unknown_parameter",
            "tools[0].function.x",
        ),
        (tools(&format!("{f},{f}")), "invalid_value", "tools"),
        (tools(&many.join(",")), "invalid_value", "tools"),
        (format!(r#",{ONE},"tool_choice":"perhaps""#), "invalid_value", "tool_choice"),
        (format!(r#",{ONE},"tool_choice":7"#), "invalid_type", "tool_choice"),
        (
            format!(r#",{ONE},"tool_choice":{{"type":"function","function":{{"name":"g"}}}}"#),
            "invalid_value",
            "tool_choice",
        ),
        (r#","tool_choice":"required""#.to_owned(), "invalid_value", "tool_choice"),
        (format!(r#",{ONE},"parallel_tool_calls":7"#), "invalid_type", "parallel_tool_calls"),
    ];
    for (more, code, param) in cases {
        check_refused(CHAT, chat(&more), code, param).await;
    }
}

#[tokio::test]
async fn a_conversation_keeps_its_calls_and_their_results() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"a"},
        {"role":"assistant","content":null,"tool_calls":[
            {"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"x\": 1.0}"}}]},
        {"role":"tool","tool_call_id":"call_1","name":"f","content":"22"},
        {"role":"tool","tool_call_id":"call_2","content":[{"type":"text","text":"23"}]}]}"#;
    let call =
        ToolCall { id: "call_1".into(), name: "f".into(), arguments: r#"{"x": 1.0}"#.into() };
    let result = |content: &str, id: &str, name: Option<&str>| Message {
        tool_call_id: Some(id.into()),
        name: name.map(str::to_owned),
        ..Message::new("tool", content)
    };
    let want = vec![
        Message::new("user", "a"),
        Message { tool_calls: vec![call], ..Message::new("assistant", "") },
        result("22", "call_1", Some("f")),
        result("23", "call_2", None),
    ];
    assert_eq!(asked(CHAT, body.into()).await.input, PromptInput::Chat(want));

    let call = |inner: &str| {
        format!(r#"{{"model":"m","messages":[{{"role":"assistant","tool_calls":[{inner}]}}]}}"#)
    };
    let function = |name: &str, arguments: &str| {
        call(&format!(
            r#"{{"id":"c","type":"function","function":{{"name":"{name}","arguments":{arguments}}}}}"#
        ))
    };
    let at = |name: &str| format!("messages[0].tool_calls[0]{name}");
    let cases = [
        (call("7"), "invalid_type", at("")),
        (call("{}"), "missing_required_parameter", at(".id")),
        (call(r#"{"id":"c","type":"custom"}"#), "unsupported_parameter", at(".type")),
        (function("f", "7"), "invalid_type", at(".function.arguments")),
        (function("f", r#""[]""#), "invalid_value", at(".function.arguments")),
        (function("f", r#""{""#), "invalid_value", at(".function.arguments")),
        (
            r#"{"model":"m","messages":[{"role":"tool","content":"a"}]}"#.to_owned(),
            "missing_required_parameter",
            "messages[0].tool_call_id".to_owned(),
        ),
        (
            r#"{"model":"m","messages":[{"role":"user","content":"a","tool_call_id":"c"}]}"#
                .to_owned(),
            "unsupported_parameter",
            "messages[0].tool_call_id".to_owned(),
        ),
        (
            function("f", r#""{}""#).replace("assistant", "user"),
            "invalid_value",
            "messages[0].tool_calls".to_owned(),
        ),
    ];
    for (body, code, param) in cases {
        check_refused(CHAT, body, code, &param).await;
    }
}

/// An answer in Hermes' words, a token every few bytes.
fn calling(format: Option<ToolFormat>) -> Script {
    let said = "So.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>";
    let usage = Usage { prompt_tokens: 5, cached_tokens: 2, completion_tokens: 0 };
    let mut events = vec![AnswerEvent::Prefilled { usage, tool_format: format }];
    let parts = said.as_bytes().chunks(7).map(|part| std::str::from_utf8(part).unwrap());
    events.extend((0..).zip(parts).map(|(id, part)| AnswerEvent::Token(token(id, part))));
    events.push(done(EndReason::Stop, ""));
    Script::Events(events)
}

#[tokio::test]
async fn a_whole_answer_tells_its_calls() {
    let node = FakeNode::new([calling(Some(ToolFormat::Hermes))]);
    let reply = send(&app(&node), post(CHAT, chat(&format!(",{ONE}")))).await;
    let choice = &reply.json()["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    let message = &choice["message"];
    assert_eq!(message["content"], "So.\n");
    let calls = message["tool_calls"].as_array().unwrap();
    assert_eq!(calls.len(), 2);
    let function = json!({ "name": "f", "arguments": "{\"x\": 1}" });
    assert_eq!((&calls[0]["type"], &calls[0]["function"]), (&json!("function"), &function));
    let ids: Vec<&str> = calls.iter().map(|call| call["id"].as_str().unwrap()).collect();
    assert!(ids.iter().all(|id| id.starts_with("call_") && id.len() == 29) && ids[0] != ids[1]);
}

#[tokio::test]
async fn a_stream_tells_its_calls_piece_by_piece() {
    let node = FakeNode::new([calling(Some(ToolFormat::Hermes))]);
    let reply = send(&app(&node), post(CHAT, chat(&format!(r#","stream":true,{ONE}"#)))).await;
    let chunks: Vec<Value> = reply
        .body
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let deltas: Vec<&Value> = chunks.iter().map(|it| &it["choices"][0]["delta"]).collect();
    let content: String = deltas.iter().filter_map(|it| it["content"].as_str()).collect();
    assert_eq!(content, "So.\n");
    let calls: Vec<&Value> = deltas.iter().filter_map(|it| it["tool_calls"].get(0)).collect();
    for index in 0..2 {
        let mut pieces = calls.iter().filter(|it| it["index"] == index);
        let first = pieces.next().unwrap();
        assert_eq!(first["type"], "function");
        assert_eq!(first["function"], json!({ "name": "f", "arguments": "" }));
        assert!(first["id"].as_str().is_some_and(|id| id.starts_with("call_")));
        let rest: Vec<&&Value> = pieces.collect();
        assert!(
            rest.iter().all(|it| it.get("id").is_none() && it["function"].get("name").is_none())
        );
        let arguments: String =
            rest.iter().filter_map(|it| it["function"]["arguments"].as_str()).collect();
        assert_eq!(arguments, ["{\"x\": 1}", "{}"][index]);
    }
    let last = chunks.last().unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "tool_calls");
}

/// Rule E17: a peer that says how calls are written, where no function could be called, changes nothing.
#[tokio::test]
async fn without_functions_an_answer_is_text_whatever_it_looks_like() {
    for (more, format) in [("", Some(ToolFormat::Hermes)), (ONE, None)] {
        let node = FakeNode::new([calling(format)]);
        let more = if more.is_empty() { String::new() } else { format!(",{more}") };
        let reply = send(&app(&node), post(CHAT, chat(&more))).await;
        let choice = &reply.json()["choices"][0];
        assert_eq!(choice["finish_reason"], "stop");
        assert!(choice["message"].get("tool_calls").is_none());
        assert!(choice["message"]["content"].as_str().unwrap().contains("</tool_call>"));
    }
}
