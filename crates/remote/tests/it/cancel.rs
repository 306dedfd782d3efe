//! Who goes away is seen to go, and leaves his place.

use commons_port::engine::{Engine as _, EngineEvent, EngineRefusalCode};
use commons_remote::Limits;

use crate::support::{Act, Server, head, model, patient, question, says, until, up};

#[tokio::test]
async fn a_dropped_answer_closes_its_connection_at_once() {
    let acts = vec![head(), Act::Send(says("a").into_bytes()), Act::Hang];
    let server = Server::answering(acts).await;
    let engine = server.engine().await;
    let id = model(&engine, "m");
    let mut sequence = engine.start(question(id)).expect("it starts");
    while !matches!(sequence.next().await, Some(EngineEvent::Token(_))) {}
    assert_eq!(engine.load(&id).map(|it| it.running), Some(1));
    drop(sequence);
    server.left_by(1).await;
    until("the place is free", || engine.load(&id).is_some_and(|it| it.running == 0)).await;
}

#[tokio::test]
async fn an_answer_that_is_dropped_before_its_first_byte_closes_too() {
    let server = Server::answering(vec![Act::Hang]).await;
    let engine = server.engine().await;
    let sequence = engine.start(question(model(&engine, "m"))).expect("it starts");
    until("the question arrives", || !server.questions().is_empty()).await;
    drop(sequence);
    server.left_by(1).await;
}

#[tokio::test]
async fn one_answer_too_many_is_refused() {
    let server = Server::answering(vec![head(), Act::Hang]).await;
    let engine = up(server.config().with_limits(Limits { answers_max: 1, ..patient() })).await;
    let id = model(&engine, "m");
    let first = engine.start(question(id)).expect("it starts");
    let refused = engine.start(question(id)).map(|_| ()).expect_err("the second is too many");
    assert_eq!(refused.code, EngineRefusalCode::Overloaded);
    drop(first);
    until("the place is free", || engine.load(&id).is_some_and(|it| it.running == 0)).await;
    assert!(engine.start(question(id)).is_ok());
}
