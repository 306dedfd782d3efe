//! Functions and calls through the engine: a model of random weights with a chat template.

use commons_engine::LocalEngine;
use commons_engine::noise::noise_model;
use commons_port::engine::{Engine, EngineEvent, EngineRefusalCode, EngineRequest, LoadedModel};
use commons_port::tools::{CallParser, Piece};
use commons_record::Micro;
use commons_record::constraint::{Constraint, Function, ToolCall, ToolChoice, ToolFormat, Tools};
use commons_record::order::{Message, PromptInput, Sampling};
use commons_record::settlement::EndReason;
use futures::executor::block_on;
use serde_json::Value;

use crate::support::{config, request};

const QWEN: &str = "{%- if tools %}{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}{%- endif %}\
    {% for message in messages %}{{ message.role }}: {{ message.content }}\
    {% for call in message.tool_calls or [] %}<tool_call>\n{\"name\": \"{{ call.function.name }}\", \
    \"arguments\": {{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}\n{% endfor %}";

const MISTRAL: &str = "{% if tools %}{{ tools | tojson }}{% endif %}[TOOL_CALLS]\
    {% for message in messages %}{{ message.content }}{% endfor %}";

/// An engine whose one model of random weights has this template.
fn engine(template: Option<&str>) -> (LocalEngine, LoadedModel) {
    let mut model = noise_model(7).expect("builds");
    if let Some(template) = template {
        model.set("tokenizer.chat_template", commons_engine::gguf::Value::String(template.into()));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("calls.gguf");
    std::fs::write(&path, model.to_bytes()).expect("writes");
    let engine = LocalEngine::new(config());
    let facts = engine.add(&path).expect("loads");
    (engine, facts)
}

fn tools(choice: ToolChoice, is_parallel: bool) -> Tools {
    let parameters = r#"{"type":"object","properties":{"city":{"enum":["Ulm","Bonn"]},"days":{"type":"integer","minimum":0,"maximum":9}},"required":["city"],"additionalProperties":false}"#;
    let function = |name: &str, parameters: Option<&str>| Function {
        name: name.into(),
        description: Some("does it".into()),
        parameters: parameters.map(str::to_owned),
    };
    let functions = vec![function("weather", Some(parameters)), function("now", None)];
    Tools { functions, choice, is_parallel }
}

fn asked(facts: &LoadedModel, tools: Tools, seed: u8, count: u32) -> EngineRequest {
    let temperature = Micro::from_millionths(1_200_000).expect("small");
    EngineRequest {
        input: PromptInput::Chat(vec![Message::new("user", "hello")]),
        tools: Some(tools),
        sampling: Sampling { temperature, ..Sampling::greedy() },
        seed: Some([seed; 32]),
        ..request(facts, "", count)
    }
}

/// The text of an answer, the format that was told, and why it ended.
fn answer(engine: &LocalEngine, request: EngineRequest) -> (String, Option<ToolFormat>, EndReason) {
    let mut sequence = engine.start(request).expect("is taken");
    let (mut text, mut format) = (String::new(), None);
    while let Some(event) = block_on(sequence.next()) {
        match event {
            EngineEvent::Prefilled { tool_format, .. } => format = tool_format,
            EngineEvent::Token(token) => text += &token.text,
            EngineEvent::Finished { reason, text: rest, .. } => {
                return (text + &rest, format, reason);
            }
            EngineEvent::Failed(refusal) => panic!("{refusal:?}"),
        }
    }
    panic!("no end");
}

/// Each call's name and arguments, and the text beside them.
fn read(format: ToolFormat, text: &str) -> (Vec<(String, String)>, String) {
    let mut parser = CallParser::new(format);
    let mut pieces = parser.push(text);
    pieces.extend(parser.finish());
    let (mut calls, mut said): (Vec<(String, String)>, String) = Default::default();
    for piece in pieces {
        match piece {
            Piece::Text(text) => said += &text,
            Piece::Begins { name } => calls.push((name, String::new())),
            Piece::Arguments(text) => calls.last_mut().expect("a call").1 += &text,
            Piece::Ends => {}
        }
    }
    (calls, said)
}

#[test]
fn a_model_of_random_weights_calls_what_it_must_as_it_must() {
    for (template, format) in [(QWEN, ToolFormat::Hermes), (MISTRAL, ToolFormat::MistralList)] {
        let (engine, facts) = engine(Some(template));
        let mut whole = 0;
        for seed in 0..8 {
            for (choice, is_parallel) in [
                (ToolChoice::Required, false),
                (ToolChoice::Required, true),
                (ToolChoice::Named("now".into()), false),
            ] {
                let request = asked(&facts, tools(choice.clone(), is_parallel), seed, 400);
                let (text, told, reason) = answer(&engine, request);
                assert_eq!(told, Some(format));
                if reason != EndReason::Stop {
                    continue;
                }
                whole += 1;
                let (calls, said) = read(format, &text);
                assert_eq!(said, "", "{text}");
                assert!(is_parallel && !calls.is_empty() || calls.len() == 1, "{text}");
                for (name, arguments) in calls {
                    let arguments: Value = serde_json::from_str(&arguments).expect("JSON");
                    let is_named = choice == ToolChoice::Named("now".into());
                    match name.as_str() {
                        "weather" if !is_named => {
                            let city = arguments["city"].as_str().expect("a city");
                            assert!(["Ulm", "Bonn"].contains(&city), "{text}");
                        }
                        "now" => assert_eq!(arguments, serde_json::json!({})),
                        _ => panic!("{text}"),
                    }
                }
            }
        }
        assert!(whole > 12, "{format:?}: only {whole} of 24 answers ended");
    }
}

/// Under `auto` the text is free, and may be held to a form of its own.
#[test]
fn what_is_no_call_may_have_a_form_too() {
    let (engine, facts) = engine(Some(QWEN));
    let mut answered = 0;
    for seed in 0..12 {
        let choices = vec!["yes".to_owned(), "no".to_owned()];
        let constraint = Some(Constraint::Choice(choices.clone()));
        let base = asked(&facts, tools(ToolChoice::Auto, true), seed, 400);
        let (text, format, reason) = answer(&engine, EngineRequest { constraint, ..base.clone() });
        let (calls, said) = read(format.expect("a format"), &text);
        // What is cut may end in the beginning of another call.
        let is_whole = reason == EndReason::Stop;
        let is_call = said.is_empty() && !calls.is_empty();
        assert!(!is_whole || choices.contains(&text) || is_call, "{text}");
        answered += usize::from(is_whole);
        let (free, ..) = answer(&engine, EngineRequest { completion_tokens_max: 30, ..base });
        assert!(read(ToolFormat::Hermes, &free).0.iter().all(|(name, _)| name != "other"));
    }
    assert!(answered > 3, "only {answered} of 12 answers ended");
}

#[test]
fn functions_are_refused_where_the_model_has_no_way_to_call_them() {
    let (engine, facts) = engine(None);
    let refusal = engine.start(asked(&facts, tools(ToolChoice::Auto, true), 1, 9)).err();
    let refusal = refusal.expect("is refused");
    assert_eq!(refusal.code, EngineRefusalCode::Unsupported, "{refusal:?}");
    assert!(refusal.message.contains("tools"), "{refusal:?}");
}

#[test]
fn functions_and_histories_that_cannot_be_read_are_refused() {
    let (engine, facts) = engine(Some(QWEN));
    let mut wrong = tools(ToolChoice::Auto, true);
    wrong.functions[0].parameters = Some(r#"{"type":"string"}"#.into());
    let refusal = engine.start(asked(&facts, wrong, 1, 9)).err().expect("is refused");
    assert_eq!(refusal.code, EngineRefusalCode::InvalidConstraint, "{refusal:?}");
    assert!(refusal.message.contains("weather"), "{refusal:?}");
    let mut wrong = tools(ToolChoice::Auto, true);
    wrong.functions[0].parameters = Some(r#"{"$ref":"http://example.com/s"}"#.into());
    let refusal = engine.start(asked(&facts, wrong, 1, 9)).err().expect("is refused");
    assert!(refusal.message.contains("http://example.com/s"), "{refusal:?}");
    let call = ToolCall { id: "c".into(), name: "now".into(), arguments: "[]".into() };
    let message = Message { tool_calls: vec![call], ..Message::new("assistant", "") };
    let request = asked(&facts, tools(ToolChoice::Auto, true), 1, 9);
    let request = EngineRequest { input: PromptInput::Chat(vec![message]), ..request };
    let refusal = engine.start(request).err().expect("is refused");
    assert_eq!(refusal.code, EngineRefusalCode::InvalidPrompt, "{refusal:?}");
}
