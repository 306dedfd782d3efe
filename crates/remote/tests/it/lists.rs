//! What each program is recognised by, and what it lists.

use commons_port::engine::Engine as _;
use serde_json::{Value, json};

use crate::support::{Server, ok, status, up};

/// A server with these routes beside its list is taken for this.
async fn check(routes: Vec<(&'static str, Value)>, kind: &str, version: &str, context: u32) {
    let server = Server::start(move |request| {
        let list = || vec![ok(&json!({ "data": [{ "id": "m", "max_model_len": null }] }))];
        if request.path == "/v1/models" {
            return list();
        }
        let found = routes.iter().find(|(path, _)| *path == request.path);
        vec![found.map_or_else(|| status(404, "", "no"), |(_, body)| ok(body))]
    })
    .await;
    let engine = server.engine().await;
    let view = engine.view();
    assert_eq!(
        (view.kind.as_deref(), view.version.as_deref()),
        (Some(kind), Some(version)),
        "{view:?}"
    );
    let facts = &engine.models()[0];
    assert_eq!((facts.name.clone(), facts.context_len), (format!("{kind}/m"), context));
    assert_eq!(
        (facts.class.kernels.clone(), facts.class.version.as_str()),
        (format!("foreign/{kind}"), version)
    );
}

#[tokio::test]
async fn a_program_is_recognised_by_what_it_alone_has() {
    let unknown = 131_072;
    check(vec![], "openai", "unknown", unknown).await;
    check(vec![("/version", json!({ "version": "0.11.0" }))], "vllm", "0.11.0", unknown).await;
    let settings = json!({ "n_ctx": 4096 });
    let props = json!({ "default_generation_settings": settings, "build_info": "b6000-abc" });
    check(vec![("/props", props)], "llama-server", "b6000-abc", 4096).await;
    check(vec![("/api/version", json!({ "version": "0.12.3" }))], "ollama", "0.12.3", unknown)
        .await;
    let about = ("/get_model_info", json!({ "model_path": "/m" }));
    let server = ("/get_server_info", json!({ "version": "0.5.1", "context_length": 2048 }));
    check(vec![about, server], "sglang", "0.5.1", 2048).await;
    let schema = json!({ "info": { "title": "🦙 llama.cpp Python API", "version": "0.3.36" } });
    check(vec![("/openapi.json", schema)], "llama-cpp-python", "0.3.36", unknown).await;
    let schema = json!({ "info": { "title": "Some API", "version": "1" } });
    check(vec![("/openapi.json", schema)], "openai", "unknown", unknown).await;
}

#[tokio::test]
async fn the_owners_word_on_the_kind_the_name_and_the_models_counts() {
    let server = Server::start(|request| match request.path.as_str() {
        "/v1/models" => vec![ok(&json!({ "data": [{ "id": "a" }, { "id": "b" }, { "id": "c" }] }))],
        _ => vec![status(404, "", "")],
    })
    .await;
    let config = server.config().with_kind(commons_remote::Kind::Vllm);
    let config = config.with_prefix("lab").expect("is a prefix").with_context_len(512);
    let config = config.with_models(vec!["a".into(), "c".into(), "z".into()]).expect("are few");
    let engine = up(config).await;
    let mut names: Vec<_> =
        engine.models().into_iter().map(|it| (it.name, it.context_len)).collect();
    names.sort();
    assert_eq!(names, [("lab/a".to_owned(), 512), ("lab/c".to_owned(), 512)]);
}
