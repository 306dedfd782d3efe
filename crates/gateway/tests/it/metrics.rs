//! The counters for the operator.

use commons_gateway::{GatewayConfig, router};

use crate::fake::{CHAT, FakeNode, Script, app, chat, get, post, send, state, token};

#[tokio::test]
async fn metrics_count_requests_answers_and_what_the_node_counts() {
    let node = FakeNode::new([Script::Events(Vec::new())]);
    let app = app(&node);
    send(&app, post(CHAT, chat(r#","stream":true"#))).await;
    send(&app, post(CHAT, chat(""))).await;
    send(&app, post(CHAT, "{}")).await;
    send(&app, get("/v1/models/nothing")).await;
    let reply = send(&app, get("/metrics")).await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(reply.headers["content-type"], kind);
    for line in [
        r#"commons_http_requests_total{route="/v1/chat/completions",status="200",code="ok"} 2"#,
        r#"commons_http_requests_total{route="/v1/chat/completions",status="400",code="missing_required_parameter"} 1"#,
        r#"commons_http_requests_total{route="/v1/models/{id}",status="404",code="model_not_found"} 1"#,
        r#"commons_answers_broken_total{code="provider_failed"} 1"#,
        "commons_answers_in_flight 0",
        "commons_first_token_seconds_count 1",
        "commons_asks_total 7",
        "commons_peers 3",
        "# EOF",
    ] {
        assert!(reply.body.lines().any(|it| it == line), "no {line} in\n{}", reply.body);
    }
}

#[tokio::test]
async fn an_answer_in_work_is_counted_until_it_is_dropped() {
    let node = FakeNode::new([Script::Endless(token(1, "a"))]);
    let app = router(state(&node, GatewayConfig::default()));
    let request = post(CHAT, chat(r#","stream":true"#));
    let response = tower::ServiceExt::oneshot(app.clone(), request).await.unwrap();
    let count = async || send(&app, get("/metrics")).await.body;
    assert!(count().await.contains("commons_answers_in_flight 1\n"));
    drop(response);
    assert!(count().await.contains("commons_answers_in_flight 0\n"));
}

#[tokio::test]
async fn callers_cannot_add_labels() {
    let app = app(&FakeNode::new([]));
    for path in ["/a", "/b", "/v1/models/c", "/v1/models/d"] {
        send(&app, get(path)).await;
    }
    let text = send(&app, get("/metrics")).await.body;
    let series = text.lines().filter(|line| line.starts_with("commons_http_requests_total{"));
    assert_eq!(series.count(), 2, "{text}");
}
