//! How refusals look from outside: one status and one stable code for each.

use axum::body::Body;
use axum::http::Request;
use commons_gateway::{GatewayConfig, router};
use commons_node::api::{Refusal, RefusalCode};
use commons_record::Millis;

use crate::fake::{CHAT, FakeNode, Script, app, chat, get, post, send, state};

#[tokio::test]
async fn each_refusal_of_the_node_has_its_status() {
    let cases = [
        (RefusalCode::ModelNotFound, 404, "model_not_found", Some("model")),
        (RefusalCode::InvalidRequest, 400, "invalid_request", None),
        (RefusalCode::ContextLengthExceeded, 400, "context_length_exceeded", None),
        (RefusalCode::Unsupported, 400, "unsupported", None),
        (RefusalCode::PrivacyClass, 403, "privacy_class", None),
        (RefusalCode::Overloaded, 429, "overloaded", None),
        (RefusalCode::Unavailable, 503, "unavailable", None),
        (RefusalCode::ProviderFailed, 502, "provider_failed", None),
        (RefusalCode::DeadlineExceeded, 504, "deadline_exceeded", None),
        (RefusalCode::StorageFailed, 503, "storage_failed", None),
        (RefusalCode::NotAuthority, 403, "not_authority", None),
        (RefusalCode::NotFound, 404, "not_found", None),
        (RefusalCode::ShuttingDown, 503, "shutting_down", None),
    ];
    for (code, status, name, param) in cases {
        let node = FakeNode::new([Script::Refuse(Refusal::new(code, "because"))]);
        let reply = send(&app(&node), post(CHAT, chat(""))).await;
        assert_eq!(reply.error(), (status, name.to_owned(), param.map(str::to_owned)));
        assert_eq!(reply.json()["error"]["message"], "because");
        let expects_wait = status == 429;
        assert_eq!(reply.headers.contains_key("retry-after"), expects_wait, "{name}");
    }
}

#[tokio::test]
async fn a_wait_is_told_in_whole_seconds_rounded_up() {
    for (code, wait, told) in [
        (RefusalCode::Overloaded, Some(Millis(1_001)), "2"),
        (RefusalCode::Overloaded, Some(Millis(0)), "1"),
        (RefusalCode::Overloaded, None, "1"),
        (RefusalCode::Unavailable, Some(Millis(5_000)), "5"),
    ] {
        let refusal = Refusal { retry_after_ms: wait, ..Refusal::new(code, "busy") };
        let node = FakeNode::new([Script::Refuse(refusal)]);
        let reply = send(&app(&node), post(CHAT, chat(""))).await;
        assert_eq!(reply.headers["retry-after"], told);
    }
}

#[tokio::test]
async fn more_answers_than_the_bound_are_told_to_come_back() {
    let node = FakeNode::new([Script::Hang(Vec::new())]);
    let config = GatewayConfig { answers_max: 1, ..GatewayConfig::default() };
    let app = router(state(&node, config));
    let first = tower::ServiceExt::oneshot(app.clone(), post(CHAT, chat(r#","stream":true"#)));
    let first = first.await.unwrap();
    let second = send(&app, post(CHAT, chat(""))).await;
    assert_eq!(second.error(), (429, "overloaded".into(), None));
    assert_eq!(second.headers["retry-after"], "1");
    assert_eq!(node.ask_count(), 1, "the node is not asked");
    drop(first);
    assert_eq!(send(&app, post(CHAT, chat(""))).await.status, 200, "the place is free again");
}

#[tokio::test]
async fn what_is_no_route_is_refused_in_the_published_shape() {
    let app = app(&FakeNode::new([]));
    for path in ["/", "/v1", "/v1/models/a/b", "/v1/embeddings", "/api/chat"] {
        assert_eq!(
            send(&app, get(path)).await.error(),
            (404, "unknown_url".into(), None),
            "{path}"
        );
    }
    let reply = send(&app, get(CHAT)).await;
    assert_eq!(reply.error(), (405, "method_not_allowed".into(), None));
    assert_eq!(reply.headers["allow"], "POST");
    let delete = Request::delete("/v1/models/stories").header("host", "localhost");
    let reply = send(&app, delete.body(Body::empty()).unwrap()).await;
    assert_eq!(reply.error(), (405, "method_not_allowed".into(), None));
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_one_at_the_limit_is_read() {
    let node = FakeNode::new([]);
    let config = GatewayConfig { body_size_max: 1_000, ..GatewayConfig::default() };
    let app = router(state(&node, config));
    let padded = |size: usize| {
        let body = chat("");
        format!("{body}{}", " ".repeat(size - body.len()))
    };
    assert_eq!(send(&app, post(CHAT, padded(1_000))).await.status, 200);
    let reply = send(&app, post(CHAT, padded(1_001))).await;
    assert_eq!(reply.error(), (413, "request_too_large".into(), None));
    let reply = send(&app, post(CHAT, padded(100_000))).await;
    assert_eq!(reply.error(), (413, "request_too_large".into(), None));
    assert_eq!(node.ask_count(), 1);
}

#[tokio::test]
async fn a_body_that_is_not_called_json_is_refused() {
    let app = app(&FakeNode::new([]));
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
        let mut request = post(CHAT, chat(""));
        request.headers_mut().insert("content-type", kind.parse().unwrap());
        let expected = (415, "unsupported_media_type".to_owned(), None);
        assert_eq!(send(&app, request).await.error(), expected, "{kind}");
    }
    let mut request = post(CHAT, chat(""));
    let kind = "Application/JSON; charset=utf-8".parse().unwrap();
    request.headers_mut().insert("content-type", kind);
    assert_eq!(send(&app, request).await.status, 200);
}
