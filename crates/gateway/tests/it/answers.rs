//! Answers as one body: text, counts, log-probabilities, headers and evidence.

use commons_node::api::{AnswerEvent, Refusal, RefusalCode};
use commons_port::engine::Token;
use commons_record::order::PrivacyClass;
use commons_record::settlement::EndReason;
use serde_json::{Value, json};

use crate::fake::{
    CHAT, FakeNode, NOW_UNIX_S, Script, TEXT, alternative, app, chat, done, hash, hello, peer,
    post, request_id, send, text, token,
};

/// What stands as `commons` in every answer of the fake node.
pub(crate) fn proof() -> Value {
    json!({
        "request": request_id().to_string(),
        "receipt": hash(6).to_string(),
        "peer": peer().to_string(),
        "model": hash(5).to_string(),
        "quantisation": "Q4_K_M",
        "adapter": null,
        "class": {"device": "cpu", "kernels": "candle/tol", "version": "1"},
        "seed": {"client": {"seed": 7}},
    })
}

#[tokio::test]
async fn a_chat_answer_has_the_published_fields_and_its_evidence() {
    let reply = send(&app(&FakeNode::new([])), post(CHAT, chat(""))).await;
    assert_eq!(reply.headers["x-commons-request"], request_id().to_string());
    assert_eq!(reply.headers["x-commons-peer"], peer().to_string());
    assert_eq!(reply.headers["x-commons-route"], hash(3).to_string());
    let expected = json!({
        "id": format!("chatcmpl-{}", request_id()),
        "object": "chat.completion",
        "created": NOW_UNIX_S,
        "model": "stories",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": "Hello world", "refusal": null},
            "logprobs": null,
            "finish_reason": "stop",
        }],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 2,
            "total_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 2},
        },
        "commons": proof(),
    });
    assert_eq!(reply.json(), expected);
}

#[tokio::test]
async fn a_completion_has_the_published_fields_and_its_evidence() {
    let body = send(&app(&FakeNode::new([])), post(TEXT, text(""))).await.json();
    assert_eq!(body["id"], format!("cmpl-{}", request_id()));
    assert_eq!(body["object"], "text_completion");
    let choice =
        json!({"index": 0, "text": "Hello world", "logprobs": null, "finish_reason": "stop"});
    assert_eq!(body["choices"], json!([choice]));
    assert_eq!(body["commons"], proof());
}

#[tokio::test]
async fn each_end_has_its_finish_reason_or_is_an_error() {
    for (reason, told) in
        [(EndReason::Stop, "stop"), (EndReason::StopString, "stop"), (EndReason::Length, "length")]
    {
        let node = FakeNode::new([Script::Events(vec![done(reason, "a")])]);
        let body = send(&app(&node), post(CHAT, chat(""))).await.json();
        assert_eq!(body["choices"][0]["finish_reason"], told);
    }
    for (reason, status, code) in [
        (EndReason::Deadline, 504, "deadline_exceeded"),
        (EndReason::Cancelled, 502, "provider_failed"),
        (EndReason::Vanished, 502, "provider_failed"),
        (EndReason::Failed, 502, "provider_failed"),
    ] {
        let node = FakeNode::new([Script::Events(vec![done(reason, "a")])]);
        let reply = send(&app(&node), post(CHAT, chat(""))).await;
        assert_eq!(reply.error(), (status, code.to_owned(), None));
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error_and_never_half_a_body() {
    let mut events = hello();
    events.pop();
    let unended = Script::Events(events.clone());
    events.push(AnswerEvent::Failed(Refusal::new(RefusalCode::DeadlineExceeded, "too late")));
    for (script, status, code) in [
        (unended, 502, "provider_failed"),
        (Script::Events(events), 504, "deadline_exceeded"),
        (Script::Events(Vec::new()), 502, "provider_failed"),
    ] {
        let node = FakeNode::new([script]);
        let reply = send(&app(&node), post(CHAT, chat(""))).await;
        assert_eq!(reply.error(), (status, code.to_owned(), None));
        assert_eq!(reply.headers["x-commons-request"], request_id().to_string());
        node.dropped(1).await;
    }
}

#[tokio::test]
async fn an_answer_without_end_is_given_up_and_cancelled() {
    let node = FakeNode::new([Script::Endless(token(1, &"x".repeat(65_536)))]);
    let reply = send(&app(&node), post(CHAT, chat(""))).await;
    assert_eq!(reply.error(), (502, "provider_failed".into(), None));
    node.dropped(1).await;
}

/// Two tokens, of which the first is half a character.
fn scored() -> Script {
    let first = Token {
        top: vec![alternative(12, "\u{fffd}", -250_000), alternative(13, " a", -2_000_000)],
        ..token(12, "")
    };
    let second = Token { top: vec![alternative(15, " b", -1)], ..token(14, "é!") };
    let events = [first, second].map(AnswerEvent::Token);
    Script::Events([events.to_vec(), vec![done(EndReason::Length, "")]].concat())
}

#[tokio::test]
async fn log_probabilities_of_a_chat_have_the_published_shape() {
    let node = FakeNode::new([scored()]);
    let reply = send(&app(&node), post(CHAT, chat(r#","logprobs":true,"top_logprobs":2"#))).await;
    let expected = json!({
        "content": [
            {
                "token": "", "logprob": -0.25, "bytes": [],
                "top_logprobs": [
                    {"token": "\u{fffd}", "logprob": -0.25, "bytes": null},
                    {"token": " a", "logprob": -2.0, "bytes": [32, 97]},
                ],
            },
            {
                "token": "é!", "logprob": -0.25, "bytes": [195, 169, 33],
                "top_logprobs": [{"token": " b", "logprob": -0.000_001, "bytes": [32, 98]}],
            },
        ],
        "refusal": null,
    });
    assert_eq!(reply.json()["choices"][0]["logprobs"], expected);
}

#[tokio::test]
async fn log_probabilities_of_a_completion_have_the_published_shape() {
    let node = FakeNode::new([scored()]);
    let reply = send(&app(&node), post(TEXT, text(r#","logprobs":2"#))).await;
    let expected = json!({
        "tokens": ["", "é!"],
        "token_logprobs": [-0.25, -0.25],
        "top_logprobs": [{"\u{fffd}": -0.25, " a": -2.0}, {" b": -0.000_001, "é!": -0.25}],
        "text_offset": [0, 0],
    });
    assert_eq!(reply.json()["choices"][0]["logprobs"], expected);
}

#[tokio::test]
async fn a_privacy_class_is_passed_on_and_an_unknown_one_is_refused() {
    for (value, class) in [
        ("local-only", PrivacyClass::LocalOnly),
        ("lan", PrivacyClass::Lan),
        ("mesh", PrivacyClass::Mesh),
        ("any", PrivacyClass::Any),
    ] {
        let node = FakeNode::new([]);
        let mut request = post(CHAT, chat(""));
        request.headers_mut().insert("x-commons-privacy", value.parse().unwrap());
        assert_eq!(send(&app(&node), request).await.status, 200);
        assert_eq!(node.last_ask().class, class);
    }
    for value in ["", "local_only", "Local-Only", "mesh, any"] {
        let node = FakeNode::new([]);
        let mut request = post(CHAT, chat(""));
        request.headers_mut().insert("x-commons-privacy", value.parse().unwrap());
        let expected = (400, "invalid_value".to_owned(), Some("x-commons-privacy".to_owned()));
        assert_eq!(send(&app(&node), request).await.error(), expected, "{value}");
        assert_eq!(node.ask_count(), 0);
    }
    let mut twice = post(CHAT, chat(""));
    twice.headers_mut().append("x-commons-privacy", "any".parse().unwrap());
    twice.headers_mut().append("x-commons-privacy", "local-only".parse().unwrap());
    assert_eq!(send(&app(&FakeNode::new([])), twice).await.status, 400);
}
