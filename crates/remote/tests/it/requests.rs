//! What is sent, what comes back, and what is refused before anything is sent.

use commons_port::engine::{
    Engine as _, EngineEvent, EngineRefusalCode as Code, Origin, Priority, Reach, Token,
};
use commons_record::Hash;
use commons_record::order::PromptInput;
use commons_record::settlement::EndReason;
use serde_json::json;

use crate::support::{DONE, Server, ends, events, model, question, says, stream};

fn answer() -> Vec<crate::support::Act> {
    stream(&(says("Hel") + &says("lo") + &ends("length") + DONE))
}

#[tokio::test]
async fn a_chat_is_answered() {
    let server = Server::answering(answer()).await;
    let engine = server.engine().await;
    let told = events(&engine, question(model(&engine, "m"))).await;
    assert_eq!(
        told[0],
        EngineEvent::Prefilled { prompt: Vec::new(), cached_tokens: 0, tool_format: None }
    );
    let tokens = told.iter().filter_map(|it| match it {
        EngineEvent::Token(token) => Some((token.id, token.text.as_str(), token.logprob_micro)),
        EngineEvent::Prefilled { .. } | EngineEvent::Finished { .. } | EngineEvent::Failed(_) => {
            None
        }
    });
    let unknown = |text| (Token::NO_ID, text, Token::NO_LOGPROB);
    assert_eq!(tokens.collect::<Vec<_>>(), [unknown("Hel"), unknown("lo")]);
    let Some(EngineEvent::Finished { reason, text, .. }) = told.last() else { panic!("{told:?}") };
    assert_eq!((*reason, text.as_str()), (EndReason::Length, ""));
    let asked = &server.questions()[0];
    assert_eq!((asked.path.as_str(), &asked.body["model"]), ("/v1/chat/completions", &json!("m")));
}

#[tokio::test]
async fn a_text_and_tokens_go_to_the_other_route() {
    let server = Server::answering(answer()).await;
    let engine = server.engine().await;
    let id = model(&engine, "m");
    for input in [PromptInput::Text("Once".into()), PromptInput::Tokens(vec![1, 2])] {
        let mut request = question(id);
        request.input = input;
        let told = events(&engine, request).await;
        assert!(matches!(told.last(), Some(EngineEvent::Finished { .. })), "{told:?}");
    }
    let asked = server.questions();
    assert_eq!(
        (asked[0].path.as_str(), &asked[0].body["prompt"]),
        ("/v1/completions", &json!("Once"))
    );
    assert_eq!(asked[1].body["prompt"], json!([1, 2]));
}

/// Rule E15.
#[tokio::test]
async fn a_peer_is_refused_before_anything_is_sent() {
    let server = Server::answering(answer()).await;
    let engine = server.engine().await;
    for priority in [Priority::Normal, Priority::Background] {
        let mut request = question(model(&engine, "m"));
        request.caller.priority = priority;
        let refusal = engine.start(request).map(|_| ()).expect_err("a peer is refused");
        assert_eq!(refusal.code, Code::Unsupported, "{refusal}");
        assert!(refusal.message.contains("cannot be checked"), "{refusal}");
    }
    assert!(server.questions().is_empty());
}

#[tokio::test]
async fn what_is_not_there_is_refused_by_name() {
    let server = Server::answering(answer()).await;
    let engine = server.engine().await;
    let check = |model: Hash, adapter: Option<Hash>, code: Code| {
        let mut request = question(model);
        request.adapter = adapter;
        let refusal = engine.start(request).map(|_| ()).expect_err("is refused");
        assert_eq!(refusal.code, code, "{refusal}");
    };
    let (there, nowhere) = (model(&engine, "m"), Hash::from_bytes([9; 32]));
    check(nowhere, None, Code::UnknownModel);
    check(there, Some(nowhere), Code::UnknownAdapter);
    check(there, Some(there), Code::UnknownAdapter);
    assert!(server.questions().is_empty());
}

#[tokio::test]
async fn a_foreign_model_says_what_it_is() {
    let server = Server::answering(answer()).await;
    let engine = server.engine().await;
    let facts = &engine.models()[0];
    assert_eq!(facts.name, "openai/m");
    assert!(facts.class.is_foreign() && facts.class.kernels == "foreign/openai");
    let Origin::Foreign { reach, engine: name } = engine.origin(&facts.model) else {
        panic!("it is foreign")
    };
    assert_eq!(reach, Reach::Machine);
    assert!(name.contains(&server.addr.to_string()));
}
