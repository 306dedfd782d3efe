//! A server that is not there yet, comes, changes and goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use commons_port::engine::{Engine as _, EngineRefusalCode};
use commons_record::Hash;
use commons_remote::{RemoteConfig, RemoteEngine, RemoteState};
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::{Act, Server, model, ok, patient, question, status, until, up};

fn lists(names: &[&str]) -> Vec<Act> {
    let data: Vec<_> = names.iter().map(|it| json!({ "id": it })).collect();
    vec![ok(&json!({ "data": data }))]
}

fn names(engine: &RemoteEngine) -> Vec<String> {
    let mut names: Vec<_> = engine.models().into_iter().map(|it| it.name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_server_that_comes_and_goes_is_found_and_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    drop(listener);
    let config = RemoteConfig::new(format!("http://{addr}").parse().expect("is an address"));
    let engine = up(config.with_limits(patient())).await;
    let RemoteState::Down { reason } = engine.view().state else { panic!("{:?}", engine.view()) };
    assert!(reason.contains("cannot be reached"), "{reason}");
    assert!(engine.models().is_empty());
    let listener = TcpListener::bind(addr).await.expect("the port is still free");
    let server = Server::on(listener, |request| match request.path.as_str() {
        "/v1/models" => lists(&["m"]),
        _ => vec![status(404, "", "")],
    });
    until("it is found", || engine.view().state == RemoteState::Up).await;
    assert_eq!(names(&engine), ["openai/m"]);
    let asked = question(model(&engine, "m"));
    let stranger = question(Hash::of_content(b"another model"));
    let refusal = engine.start(stranger).err().expect("it has one model");
    assert_eq!(refusal.code, EngineRefusalCode::UnknownModel);
    drop(server);
    until("it is lost", || matches!(engine.view().state, RemoteState::Down { .. })).await;
    assert!(engine.models().is_empty());
    // The model is known no more, and whoever asks learns that it may come back.
    let refusal = engine.start(asked).err().expect("nobody is there");
    assert_eq!(refusal.code, EngineRefusalCode::Unavailable);
    assert!(refusal.message.contains("cannot be reached"), "{refusal}");
}

#[tokio::test]
async fn a_list_that_changes_is_seen_to_change() {
    let has_more = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&has_more);
    let server = Server::start(move |request| match request.path.as_str() {
        "/v1/models" if switch.load(Ordering::Relaxed) => lists(&["b", "c"]),
        "/v1/models" => lists(&["a", "b"]),
        _ => vec![status(404, "", "")],
    })
    .await;
    let engine = server.engine().await;
    assert_eq!(names(&engine), ["openai/a", "openai/b"]);
    has_more.store(true, Ordering::Relaxed);
    until("the list changes", || names(&engine) == ["openai/b", "openai/c"]).await;
}

#[tokio::test]
async fn what_is_no_list_is_no_engine() {
    for acts in [
        vec![status(200, "content-type: text/html\r\n", "<html>")],
        vec![status(500, "", "boom")],
        vec![ok(&json!([]))],
    ] {
        let server = Server::start(move |_| acts.clone()).await;
        let engine = server.engine().await;
        assert!(matches!(engine.view().state, RemoteState::Down { .. }), "{:?}", engine.view());
        assert!(engine.models().is_empty());
    }
}
