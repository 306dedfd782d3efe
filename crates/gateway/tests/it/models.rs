//! The list of models, and one of them by name or hash.

use serde_json::json;

use crate::fake::{FakeNode, NOW_UNIX_S, app, get, model, send};

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
