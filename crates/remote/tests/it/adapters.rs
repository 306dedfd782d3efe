//! Adapters that a server has, and those that are loaded into it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use commons_port::engine::{AddAdapter, Engine as _, EngineRefusalCode};
use commons_remote::{AdapterError, Adapters};
use serde_json::json;

use crate::support::{DONE, Server, ends, events, model, ok, question, says, status, stream, up};

/// vLLM with one base, and one adapter once it was loaded.
async fn vllm() -> Server {
    let has_poet = Arc::new(AtomicBool::new(false));
    Server::start(move |request| match request.path.as_str() {
        "/version" => vec![ok(&json!({ "version": "0.11.0" }))],
        "/v1/models" if has_poet.load(Ordering::Relaxed) => {
            vec![ok(&json!({ "data": [{ "id": "base" }, { "id": "poet", "root": "/poet", "parent": "base" }] }))]
        }
        "/v1/models" => vec![ok(&json!({ "data": [{ "id": "base" }] }))],
        "/v1/load_lora_adapter" if request.body["lora_path"] == "/poet" => {
            has_poet.store(true, Ordering::Relaxed);
            vec![status(200, "", "Success")]
        }
        "/v1/load_lora_adapter" => vec![status(400, "", r#"{"message":"no such adapter"}"#)],
        "/v1/chat/completions" => {
            let named = says("x").replace("\"m\"", &request.body["model"].to_string());
            stream(&(named + &ends("stop").replace("\"m\"", &request.body["model"].to_string()) + DONE))
        }
        _ => vec![status(404, "", "")],
    })
    .await
}

#[tokio::test]
async fn an_adapter_is_loaded_listed_and_asked_for() {
    let server = vllm().await;
    let engine = up(server.config().with_adapters(Adapters::Loaded)).await;
    assert_eq!(engine.models().len(), 1);
    engine.load_adapter("poet", "/poet").await.expect("it is loaded");
    let listed = engine.view().models;
    let poet = listed.iter().find(|it| it.name == "vllm/poet").expect("it is listed");
    assert_eq!(poet.parent.as_deref(), Some("base"));
    // By its own hash, and by the base's with its own beside it.
    let mut beside = question(model(&engine, "base"));
    beside.adapter = Some(poet.model);
    for request in [question(poet.model), beside] {
        let told = events(&engine, request).await;
        assert!(
            matches!(told.last(), Some(commons_port::engine::EngineEvent::Finished { .. })),
            "{told:?}"
        );
    }
    assert!(server.questions().iter().all(|it| it.body["model"] == "poet"));
}

#[tokio::test]
async fn an_adapter_is_loaded_only_where_that_is_allowed_and_possible() {
    let server = vllm().await;
    let closed = server.engine().await;
    let refused = closed.load_adapter("poet", "/poet").await;
    assert!(matches!(refused, Err(AdapterError::NotAllowed { .. })), "{refused:?}");
    let engine = up(server.config().with_adapters(Adapters::Loaded)).await;
    let refused = engine.load_adapter("poet", "/nowhere").await;
    assert!(
        matches!(&refused, Err(AdapterError::Failed { refusal }) if refusal.message.contains("no such adapter")),
        "{refused:?}"
    );
    assert_eq!(engine.load_adapter("a\nb", "/poet").await, Err(AdapterError::Name));
    let plain = Server::answering(vec![]).await;
    let engine = up(plain.config().with_adapters(Adapters::Loaded)).await;
    let refused = engine.load_adapter("poet", "/poet").await;
    assert!(matches!(refused, Err(AdapterError::Unsupported { .. })), "{refused:?}");
    assert!(plain.requests().iter().all(|it| !it.path.contains("lora")));
}

#[tokio::test]
async fn an_adapter_is_added_and_listed_through_the_port() {
    let server = vllm().await;
    let engine = up(server.config().with_adapters(Adapters::Loaded)).await;
    assert_eq!(engine.adapters(), []);
    let base = model(&engine, "base");
    let add = |path: &str| AddAdapter {
        model: Some(base),
        path: path.into(),
        name: None,
        is_rounded: false,
    };
    let poet = engine.add_adapter(add("/poet")).await.expect("it is taken in");
    assert_eq!((poet.name.as_str(), poet.model), ("poet", base));
    assert_eq!(engine.adapters(), std::slice::from_ref(&poet));
    let code = |refused: Result<_, commons_port::engine::EngineRefusal>| {
        refused.map(|_: commons_port::engine::LoadedAdapter| ()).expect_err("is refused").code
    };
    let rounded = AddAdapter { is_rounded: true, ..add("/poet") };
    assert_eq!(code(engine.add_adapter(rounded).await), EngineRefusalCode::Unsupported);
    assert_eq!(code(engine.add_adapter(add("/none")).await), EngineRefusalCode::InvalidAdapter);
    let closed = server.engine().await;
    assert_eq!(code(closed.add_adapter(add("/poet")).await), EngineRefusalCode::Unsupported);
    let kept = engine.remove_adapter(base, poet.adapter).expect_err("it is kept");
    assert_eq!(kept.code, EngineRefusalCode::Unsupported);
}
