//! Answers as server-sent events: the exact sequence, failure, back-pressure and cancellation.

use axum::body::Body;
use commons_node::api::{AnswerEvent, Refusal, RefusalCode};
use commons_record::settlement::EndReason;
use futures::StreamExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::answers::proof;
use crate::fake::{
    CHAT, FakeNode, NOW_UNIX_S, Script, TEXT, app, chat, done, hello, peer, post, request_id, send,
    text, token,
};

/// The events of a stream: `data:` as JSON, `[DONE]` and comments as strings.
fn events(body: &str) -> Vec<Value> {
    let frames = body.strip_suffix("\n\n").expect("a stream ends with a whole event");
    let parse = |frame: &str| match frame.strip_prefix("data: ") {
        Some("[DONE]") => json!("[DONE]"),
        Some(data) => serde_json::from_str(data).unwrap(),
        None => json!(frame),
    };
    frames.split("\n\n").map(parse).collect()
}

/// A chunk with this choice and these members.
fn chunk(object: &str, choices: &Value, more: &[(&str, Value)]) -> Value {
    let prefix = if object == "text_completion" { "cmpl" } else { "chatcmpl" };
    let mut chunk = json!({
        "id": format!("{prefix}-{}", request_id()),
        "object": object,
        "created": NOW_UNIX_S,
        "model": "stories",
        "choices": choices,
    });
    for (name, value) in more {
        chunk[*name] = value.clone();
    }
    chunk
}

fn delta(delta: &Value, finish_reason: &Value, more: &[(&str, Value)]) -> Value {
    let choice = json!([
        {"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason}
    ]);
    chunk("chat.completion.chunk", &choice, more)
}

#[tokio::test]
async fn a_chat_streams_role_text_end_with_evidence_and_done() {
    let reply = send(&app(&FakeNode::new([])), post(CHAT, chat(r#","stream":true"#))).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.headers["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(reply.headers["cache-control"], "no-cache");
    assert_eq!(reply.headers["x-commons-peer"], peer().to_string());
    let null = Value::Null;
    let expected = [
        delta(&json!({"role": "assistant", "content": ""}), &null, &[]),
        delta(&json!({"content": "Hello"}), &null, &[]),
        json!(": heartbeat"),
        delta(&json!({"content": " worl"}), &null, &[]),
        delta(&json!({"content": "d"}), &null, &[]),
        delta(&json!({}), &json!("stop"), &[("commons", proof())]),
        json!("[DONE]"),
    ];
    assert_eq!(events(&reply.body), expected);
}

#[tokio::test]
async fn usage_is_null_until_its_own_chunk() {
    let body = chat(r#","stream":true,"stream_options":{"include_usage":true}"#);
    let reply = send(&app(&FakeNode::new([])), post(CHAT, body)).await;
    let usage = json!({
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 2},
    });
    let null = Value::Null;
    let none = [("usage", Value::Null)];
    let end = [none[0].clone(), ("commons", proof())];
    let expected = [
        delta(&json!({"role": "assistant", "content": ""}), &null, &none),
        delta(&json!({"content": "Hello"}), &null, &none),
        json!(": heartbeat"),
        delta(&json!({"content": " worl"}), &null, &none),
        delta(&json!({"content": "d"}), &null, &none),
        delta(&json!({}), &json!("stop"), &end),
        chunk("chat.completion.chunk", &json!([]), &[("usage", usage)]),
        json!("[DONE]"),
    ];
    assert_eq!(events(&reply.body), expected);
}

#[tokio::test]
async fn a_completion_streams_text_end_with_evidence_and_done() {
    let reply = send(&app(&FakeNode::new([])), post(TEXT, text(r#","stream":true"#))).await;
    let piece = |text: &str, finish_reason: Value, more: &[(&str, Value)]| {
        let choice = json!([
            {"index": 0, "text": text, "logprobs": null, "finish_reason": finish_reason}
        ]);
        chunk("text_completion", &choice, more)
    };
    let expected = [
        piece("Hello", Value::Null, &[]),
        json!(": heartbeat"),
        piece(" worl", Value::Null, &[]),
        piece("d", Value::Null, &[]),
        piece("", json!("stop"), &[("commons", proof())]),
        json!("[DONE]"),
    ];
    assert_eq!(events(&reply.body), expected);
}

#[tokio::test]
async fn log_probabilities_stream_with_their_tokens() {
    let script = || {
        let tokens = [token(1, "né"), token(2, ""), token(3, "!")].map(AnswerEvent::Token);
        Script::Events([tokens.to_vec(), vec![done(EndReason::Length, "")]].concat())
    };
    let node = FakeNode::new([script(), script()]);
    let app = app(&node);
    let reply = send(&app, post(CHAT, chat(r#","stream":true,"logprobs":true"#))).await;
    let texts: Vec<_> = events(&reply.body)[1..4]
        .iter()
        .map(|event| event["choices"][0]["logprobs"]["content"][0]["token"].clone())
        .collect();
    assert_eq!(texts, ["né", "", "!"], "a token without text has its chunk too");
    let reply = send(&app, post(TEXT, text(r#","stream":true,"logprobs":0"#))).await;
    let offsets: Vec<_> = events(&reply.body)[..3]
        .iter()
        .map(|event| event["choices"][0]["logprobs"]["text_offset"][0].clone())
        .collect();
    assert_eq!(offsets, [0, 2, 2], "characters, counted over the whole stream");
}

#[tokio::test]
async fn a_token_without_text_has_no_chunk() {
    let script = vec![AnswerEvent::Token(token(1, "")), done(EndReason::Stop, "")];
    let node = FakeNode::new([Script::Events(script)]);
    let reply = send(&app(&node), post(TEXT, text(r#","stream":true"#))).await;
    assert_eq!(events(&reply.body).len(), 2, "{}", reply.body);
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_with_an_error_and_no_done() {
    let token = || AnswerEvent::Token(token(1, "a"));
    let failed = Refusal::new(RefusalCode::ProviderFailed, "the provider is gone");
    for (script, code) in [
        (vec![token(), AnswerEvent::Failed(failed)], "provider_failed"),
        (vec![token()], "provider_failed"),
        (vec![token(), done(EndReason::Deadline, "")], "deadline_exceeded"),
        (Vec::new(), "provider_failed"),
    ] {
        let node = FakeNode::new([Script::Events(script)]);
        let reply = send(&app(&node), post(CHAT, chat(r#","stream":true"#))).await;
        assert_eq!(reply.status, 200, "the answer had begun");
        let events = events(&reply.body);
        let last = events.last().unwrap();
        assert_eq!(last["error"]["code"], code);
        assert_eq!(last["error"]["type"], "server_error");
        assert_eq!(last["error"].as_object().unwrap().len(), 4);
        assert!(!events.contains(&json!("[DONE]")));
        node.dropped(1).await;
    }
}

#[tokio::test]
async fn a_refusal_before_the_answer_is_a_status_and_not_a_stream() {
    let refusal = Refusal::new(RefusalCode::ModelNotFound, "nobody has it");
    let node = FakeNode::new([Script::Refuse(refusal)]);
    let reply = send(&app(&node), post(CHAT, chat(r#","stream":true"#))).await;
    assert_eq!(reply.error(), (404, "model_not_found".into(), Some("model".into())));
}

#[tokio::test]
async fn events_are_pulled_one_at_a_time_and_only_when_asked_for() {
    let node = FakeNode::new([Script::Endless(token(1, "a"))]);
    let response = app(&node).oneshot(post(CHAT, chat(r#","stream":true"#))).await.unwrap();
    let mut body = Body::into_data_stream(response.into_body());
    assert_eq!(node.pulled(), 0);
    for expected in 0..5 {
        body.next().await.unwrap().unwrap();
        assert_eq!(node.pulled(), expected, "the first chunk is ours and costs no event");
    }
}

#[tokio::test]
async fn dropping_a_stream_cancels_the_answer() {
    let node = FakeNode::new([Script::Hang(hello())]);
    let response = app(&node).oneshot(post(CHAT, chat(r#","stream":true"#))).await.unwrap();
    let mut body = Body::into_data_stream(response.into_body());
    body.next().await.unwrap().unwrap();
    drop(body);
    node.dropped(1).await;
}

#[tokio::test]
async fn a_finished_answer_is_let_go_before_its_last_frames_are_read() {
    let node = FakeNode::new([Script::Hang(vec![done(EndReason::Stop, "all")])]);
    let response = app(&node).oneshot(post(TEXT, text(r#","stream":true"#))).await.unwrap();
    let mut body = Body::into_data_stream(response.into_body());
    body.next().await.unwrap().unwrap();
    node.dropped(1).await;
    assert_eq!(body.count().await, 2, "the end and [DONE] are still there");
}
