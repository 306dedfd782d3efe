//! A real foreign server, at the address in `COMMONS_FOREIGN_ENGINE`:
//!
//! ```sh
//! python -m llama_cpp.server --model FILE.gguf --port 8761 &
//! COMMONS_FOREIGN_ENGINE=http://127.0.0.1:8761 cargo test -p commons-remote --test it real -- --nocapture
//! ```

use commons_port::engine::{Engine as _, EngineEvent, EngineRefusalCode, Token};
use commons_record::order::PromptInput;
use commons_record::{Hash, Millis};
use commons_remote::{RemoteConfig, RemoteEngine, RemoteState};

use crate::support::{events, outcome, question, until, up};

const ADDRESS: &str = "COMMONS_FOREIGN_ENGINE";

async fn engine() -> Option<(RemoteEngine, Hash)> {
    #[expect(clippy::disallowed_methods, reason = "a test is told here where its server is")]
    let Ok(address) = std::env::var(ADDRESS) else {
        eprintln!("SKIPPED: {ADDRESS} names no foreign engine");
        return None;
    };
    let engine = up(RemoteConfig::new(address.parse().expect("is an address"))).await;
    engine.looked_at(Millis::from_secs(20)).await;
    let view = engine.view();
    eprintln!("{view:?}");
    assert_eq!(view.state, RemoteState::Up);
    let model = engine.models().first().expect("it lists a model").model;
    Some((engine, model))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_answers_cancels_and_refuses() {
    let Some((engine, model)) = engine().await else { return };
    let chat = events(&engine, question(model)).await;
    let (text, failed) = outcome(&chat);
    eprintln!("chat: {text:?}, {:?}, {} events", chat.last(), chat.len());
    assert_eq!(failed, None);
    assert!(!text.is_empty() && matches!(chat.last(), Some(EngineEvent::Finished { .. })));
    assert_eq!(
        outcome(&events(&engine, question(model)).await).0,
        text,
        "the likeliest tokens twice"
    );

    let mut long = question(model);
    long.input = PromptInput::Text("Once upon a time".into());
    long.completion_tokens_max = 400;
    let mut sequence = engine.start(long.clone()).expect("it starts");
    while !matches!(sequence.next().await, Some(EngineEvent::Token(_))) {}
    drop(sequence);
    until("the place is free", || engine.load(&model).is_some_and(|it| it.running == 0)).await;
    let after = outcome(&events(&engine, question(model)).await);
    assert_eq!(after, (text, None), "the server goes on after a cancelled answer");

    long.completion_tokens_max = 4;
    long.top_logprobs = 2;
    let scored = events(&engine, long.clone()).await;
    match outcome(&scored) {
        (text, None) => {
            eprintln!("with log-probabilities: {text:?} {:?}", scored.get(1));
            let has_logprob = |it: &EngineEvent| !matches!(it, EngineEvent::Token(token) if token.logprob_micro == Token::NO_LOGPROB);
            assert!(scored.iter().all(has_logprob));
        }
        (_, Some(refusal)) => eprintln!("log-probabilities are refused: {refusal}"),
    }
    long.top_logprobs = 0;
    long.input = PromptInput::Tokens(vec![1, 403, 407]);
    match engine.start(long) {
        Ok(_) => eprintln!("token ids are taken"),
        Err(refusal) => {
            eprintln!("token ids are refused: {refusal}");
            assert_eq!(refusal.code, EngineRefusalCode::Unsupported);
        }
    }
}
