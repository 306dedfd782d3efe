//! The list of models, and one of them by name or hash.

use commons_gateway::{ApiKey, GatewayConfig};
use serde_json::json;

use crate::fake::{FakeNode, NOW_UNIX_S, app, get, model, post, send, state};

#[tokio::test]
async fn models_are_listed_in_the_published_shape() {
    let body = send(&app(&FakeNode::new([])), get("/v1/models")).await.json();
    assert_eq!(body["object"], "list");
    assert_eq!(body["data"].as_array().unwrap().len(), 2);
    let first = &body["data"][0];
    assert_eq!(first["id"], "stories");
    assert_eq!(first["object"], "model");
    assert_eq!(first["created"], NOW_UNIX_S);
    assert_eq!(first["owned_by"], "commons");
    assert_eq!(first["commons"], serde_json::to_value(model("stories")).unwrap());
}

#[tokio::test]
async fn a_model_is_found_by_name_and_by_hash() {
    let app = app(&FakeNode::new([]));
    let hash = model("tiny llama").model.to_string();
    for id in ["tiny%20llama", &hash, &hash.to_uppercase()] {
        let body = send(&app, get(&format!("/v1/models/{id}"))).await.json();
        assert_eq!(body["id"], json!("tiny llama"), "{id}");
    }
}

#[tokio::test]
async fn an_unknown_model_is_a_404_that_names_it() {
    let app = app(&FakeNode::new([]));
    for id in ["nothing", "a%2Fb", &"0".repeat(64)] {
        let reply = send(&app, get(&format!("/v1/models/{id}"))).await;
        assert_eq!(reply.error(), (404, "model_not_found".into(), Some("model".into())), "{id}");
    }
    let reply = send(&app, get("/v1/models/%ff")).await;
    assert_eq!(reply.error(), (400, "invalid_value".into(), None));
}

const KEY: &str = "a-key-that-is-long-enough";

#[tokio::test]
async fn adapters_are_listed_to_all_and_changed_by_whoever_has_the_key() {
    let node = FakeNode::new([]);
    let open = app(&node);
    let reply = send(&open, get("/v1/adapters")).await;
    assert_eq!(reply.json()["data"][0]["id"], "stories+poet", "{}", reply.body);
    let body = r#"{"path":"/adapters/poet","name":"bard"}"#;
    let delete = |path: &str| {
        let mut request = get(path);
        *request.method_mut() = axum::http::Method::DELETE;
        request
    };
    for request in [post("/v1/adapters", body), delete("/v1/adapters/stories+poet")] {
        let (status, code, _) = send(&open, request).await.error();
        assert_eq!((status, code.as_str()), (403, "owners_only"));
    }
    let config = GatewayConfig { api_key: ApiKey::new(KEY).ok(), ..GatewayConfig::default() };
    let locked = commons_gateway::router(state(&node, config));
    let with_key = |mut request: axum::http::Request<axum::body::Body>| {
        request.headers_mut().insert("authorization", format!("Bearer {KEY}").parse().unwrap());
        request
    };
    let reply = send(&locked, with_key(post("/v1/adapters", body))).await;
    assert_eq!(reply.json()["id"], "stories+bard", "{}", reply.body);
    let reply = send(&locked, with_key(delete("/v1/adapters/stories+poet"))).await;
    assert_eq!(reply.json()["id"], "stories+poet", "{}", reply.body);
    let reply = send(&locked, with_key(delete("/v1/adapters/nobody"))).await;
    assert_eq!(reply.error().1, "adapter_not_found");
    let reply = send(&locked, with_key(post("/v1/adapters", r#"{"pth":"x"}"#))).await;
    assert_eq!(reply.status, 400, "{}", reply.body);
}
