//! What a body may say, what it may not, and what each number becomes.

use axum::body::Body;
use commons_record::Micro;
use commons_record::order::{LogitBias, Message, PrivacyClass, PromptInput, Sampling};
use proptest::prelude::*;

use crate::fake::{CHAT, FakeNode, TEXT, app, chat, post, send, text};

/// Sends a body that must be refused before the node is asked.
async fn check_refused(path: &str, body: impl Into<Body>, code: &str, param: &str) {
    let node = FakeNode::new([]);
    let reply = send(&app(&node), post(path, body)).await;
    let param = (!param.is_empty()).then(|| param.to_owned());
    assert_eq!(reply.error(), (400, code.to_owned(), param), "{}", reply.body);
    assert_eq!(node.ask_count(), 0, "{}", reply.body);
}

/// Sends a body that must be accepted, and gives back what the node was asked.
async fn ask(path: &str, body: String) -> commons_node::api::Ask {
    let node = FakeNode::new([]);
    let reply = send(&app(&node), post(path, body.clone())).await;
    assert_eq!(reply.status, 200, "{body}: {}", reply.body);
    node.last_ask()
}

#[tokio::test]
async fn bodies_that_are_no_request_are_refused_by_what_is_wrong() {
    let invalid = "invalid_json";
    check_refused(CHAT, "", invalid, "").await;
    check_refused(CHAT, "{", invalid, "").await;
    check_refused(CHAT, "[]", invalid, "").await;
    check_refused(CHAT, "null", invalid, "").await;
    check_refused(CHAT, "{} {}", invalid, "").await;
    check_refused(CHAT, Body::from(vec![b'{', 0xff, b'}']), invalid, "").await;
    check_refused(CHAT, r#"{"\ud800":1}"#, invalid, "").await;

    let missing = "missing_required_parameter";
    check_refused(CHAT, "{}", missing, "model").await;
    check_refused(CHAT, r#"{"model":null}"#, missing, "model").await;
    check_refused(CHAT, r#"{"model":"m"}"#, missing, "messages").await;
    check_refused(TEXT, r#"{"model":"m"}"#, missing, "prompt").await;
    check_refused(CHAT, r#"{"model":7}"#, "invalid_type", "model").await;
    check_refused(CHAT, r#"{"model":""}"#, "invalid_value", "model").await;
    let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(256));
    check_refused(CHAT, long, "invalid_value", "model").await;
}

#[tokio::test]
async fn what_would_change_the_answer_and_is_not_supported_is_refused_by_name() {
    let chat_only = [
        ("functions", r#"[{"name":"f"}]"#),
        ("function_call", r#""auto""#),
        ("guided_grammar", r#""start: \"a\"""#),
        ("n", "2"),
        ("audio", "{}"),
        ("modalities", r#"["text","audio"]"#),
        ("prediction", "{}"),
        ("web_search_options", "{}"),
        ("reasoning_effort", r#""low""#),
        ("verbosity", r#""high""#),
        ("moderation", "{}"),
        ("store", "true"),
        ("service_tier", r#""flex""#),
        ("prompt_cache_options", "{}"),
    ];
    for (name, value) in chat_only {
        let body = chat(&format!(r#","{name}":{value}"#));
        check_refused(CHAT, body, "unsupported_parameter", name).await;
    }
    for (name, value) in [("best_of", "2"), ("echo", "true"), ("suffix", r#""x""#), ("n", "2")] {
        let body = text(&format!(r#","{name}":{value}"#));
        check_refused(TEXT, body, "unsupported_parameter", name).await;
    }
    let padded = chat(r#","stream":true,"stream_options":{"include_obfuscation":true}"#);
    let name = "stream_options.include_obfuscation";
    check_refused(CHAT, padded, "unsupported_parameter", name).await;
    let several = r#"{"model":"m","prompt":["a","b"]}"#;
    check_refused(TEXT, several, "unsupported_parameter", "prompt").await;
}

#[tokio::test]
async fn a_misspelt_parameter_is_refused_by_name() {
    let unknown = "unknown_parameter";
    check_refused(CHAT, chat(r#","temprature":0"#), unknown, "temprature").await;
    check_refused(CHAT, chat(r#","nothing":null"#), unknown, "nothing").await;
    check_refused(CHAT, chat(r#","best_of":1"#), unknown, "best_of").await;
    check_refused(TEXT, text(r#","messages":[]"#), unknown, "messages").await;
    let body = chat(r#","stream":true,"stream_options":{"x":1}"#);
    check_refused(CHAT, body, unknown, "stream_options.x").await;
}

#[tokio::test]
async fn values_that_change_nothing_are_accepted() {
    let neutral = r#","tools":[],"tool_choice":"none","functions":[],"function_call":"none",
        "parallel_tool_calls":true,"response_format":{ "type" : "text" },"n":1,"audio":null,
        "modalities":["text"],"prediction":null,"store":false,"service_tier":"auto","user":"me",
        "metadata":{"a":"b"},"safety_identifier":"s","prompt_cache_key":"k","verbosity":"medium",
        "stop":null,"seed":null,"logit_bias":null,"temperature":null,"top_logprobs":0,
        "logprobs":false,"stream":false,"stream_options":null"#;
    let asked = ask(CHAT, chat(neutral)).await;
    assert_eq!(asked, ask(CHAT, chat("")).await);
    let neutral = r#","best_of":1,"echo":false,"n":1,"suffix":"","logprobs":null,"user":"me""#;
    assert_eq!(ask(TEXT, text(neutral)).await, ask(TEXT, text("")).await);
}

#[tokio::test]
async fn the_defaults_are_the_published_ones() {
    let neutral = Sampling { temperature: Micro::ONE, ..Sampling::greedy() };
    let asked = ask(CHAT, chat("")).await;
    assert_eq!(asked.sampling, neutral);
    assert_eq!((asked.seed, asked.completion_tokens_max, asked.top_logprobs), (None, None, 0));
    assert_eq!(asked.class, PrivacyClass::Mesh);
    assert!(asked.prompt.stop.is_empty());
    let asked = ask(TEXT, text("")).await;
    assert_eq!(asked.sampling, neutral);
    assert_eq!(asked.completion_tokens_max, Some(16));
}

#[tokio::test]
async fn every_number_reaches_the_node_exactly() {
    let numbers = r#","temperature":0.7,"top_k":40,"top_p":0.95,"min_p":5e-2,
        "repetition_penalty":1.1,"presence_penalty":-0.5,"frequency_penalty":0.000001,
        "logit_bias":{"50256":-100,"7":0.5},"seed":-9223372036854775808,
        "max_completion_tokens":9,"max_tokens":9,"stop":["\n","END"],"logprobs":true,
        "top_logprobs":20"#;
    let asked = ask(CHAT, chat(numbers)).await;
    let micro = |millionths| Micro::from_millionths(millionths).unwrap();
    let expected = Sampling {
        temperature: micro(700_000),
        top_k: 40,
        top_p: micro(950_000),
        min_p: micro(50_000),
        repetition_penalty: micro(1_100_000),
        presence_penalty: micro(-500_000),
        frequency_penalty: micro(1),
        logit_bias: vec![
            LogitBias { token: 7, bias: micro(500_000) },
            LogitBias { token: 50_256, bias: micro(-100_000_000) },
        ],
    };
    assert_eq!(asked.sampling, expected);
    assert_eq!(asked.seed, Some(i64::MIN));
    assert_eq!(asked.completion_tokens_max, Some(9));
    assert_eq!(asked.prompt.stop, ["\n", "END"]);
    assert_eq!(asked.top_logprobs, 20);
    let asked = ask(TEXT, text(r#","stop":"END","max_tokens":1,"logprobs":0"#)).await;
    assert_eq!(asked.prompt.stop, ["END"]);
    assert_eq!((asked.completion_tokens_max, asked.top_logprobs), (Some(1), 0));
}

#[tokio::test]
async fn numbers_that_cannot_be_meant_are_refused() {
    let cases = [
        ("temperature", "0.1234567", "invalid_value"),
        // A float would have rounded this one to 0.1.
        ("temperature", "0.10000000000000000001", "invalid_value"),
        ("temperature", "2.000001", "invalid_value"),
        ("temperature", "-1", "invalid_value"),
        ("temperature", "1e999", "invalid_value"),
        ("temperature", r#""1""#, "invalid_type"),
        ("temperature", "true", "invalid_type"),
        ("top_p", "0", "invalid_value"),
        ("top_p", "1.1", "invalid_value"),
        ("top_k", "-1", "invalid_type"),
        ("top_k", "1.5", "invalid_type"),
        ("min_p", "2", "invalid_value"),
        ("repetition_penalty", "0", "invalid_value"),
        ("presence_penalty", "2.1", "invalid_value"),
        ("frequency_penalty", "-2.1", "invalid_value"),
        ("logit_bias", r#"{"7":101}"#, "invalid_value"),
        ("logit_bias", r#"{"07":1}"#, "invalid_value"),
        ("logit_bias", r#"{"cat":1}"#, "invalid_value"),
        ("logit_bias", r#"{"7":"1"}"#, "invalid_type"),
        ("logit_bias", "[]", "invalid_type"),
        ("seed", "9223372036854775808", "invalid_type"),
        ("seed", "1.5", "invalid_type"),
        ("max_tokens", "0", "invalid_value"),
        ("max_tokens", "131073", "invalid_value"),
        ("max_tokens", "-1", "invalid_type"),
        ("stop", "[1]", "invalid_type"),
        ("stop", r#""""#, "invalid_value"),
        ("stream", "1", "invalid_type"),
        ("user", "1", "invalid_type"),
        ("stream_options", r#"{"include_usage":true}"#, "invalid_value"),
    ];
    for (name, value, code) in cases {
        let body = format!(r#","{name}":{value}"#);
        check_refused(CHAT, chat(&body), code, name).await;
        check_refused(TEXT, text(&body), code, name).await;
    }
    check_refused(CHAT, chat(r#","top_logprobs":2"#), "invalid_value", "top_logprobs").await;
    let body = chat(r#","logprobs":true,"top_logprobs":21"#);
    check_refused(CHAT, body, "invalid_value", "top_logprobs").await;
    check_refused(TEXT, text(r#","logprobs":21"#), "invalid_value", "logprobs").await;
    let body = chat(r#","max_tokens":1,"max_completion_tokens":2"#);
    check_refused(CHAT, body, "invalid_value", "max_tokens").await;
    let many = vec![r#""x""#; 17].join(",");
    check_refused(CHAT, chat(&format!(r#","stop":[{many}]"#)), "invalid_value", "stop").await;
}

#[tokio::test]
async fn of_a_repeated_name_the_last_counts() {
    assert_eq!(ask(CHAT, chat(r#","seed":1,"seed":2"#)).await.seed, Some(2));
}

/// Sends a conversation with these messages.
fn conversation(messages: &str) -> String {
    format!(r#"{{"model":"m","messages":{messages}}}"#)
}

#[tokio::test]
async fn a_conversation_is_roles_and_texts() {
    let body = conversation(
        r#"[{"role":"developer","content":"Be brief."},
            {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
            {"role":"assistant","content":"","refusal":null,"annotations":[],"audio":null,
             "function_call":null,"tool_calls":null},
            {"role":"critic","content":"\u00e9"}]"#,
    );
    let said = |role: &str, content: &str| Message::new(role, content);
    let expected = [
        said("system", "Be brief."),
        said("user", "ab"),
        said("assistant", ""),
        said("critic", "é"),
    ];
    assert_eq!(ask(CHAT, body).await.prompt.input, PromptInput::Chat(expected.into()));
}

#[tokio::test]
async fn messages_that_are_not_text_are_refused_by_place() {
    let cases = [
        ("[]", "invalid_value", "messages"),
        ("{}", "invalid_type", "messages"),
        ("[7]", "invalid_type", "messages[0]"),
        (r#"[{"role":"user","content":""}]"#, "invalid_value", "messages"),
        (r#"[{"content":"a"}]"#, "missing_required_parameter", "messages[0].role"),
        (r#"[{"role":"user"}]"#, "missing_required_parameter", "messages[0].content"),
        (
            r#"[{"role":"user","content":null}]"#,
            "missing_required_parameter",
            "messages[0].content",
        ),
        (r#"[{"role":"a b","content":"a"}]"#, "invalid_value", "messages[0].role"),
        (r#"[{"role":"","content":"a"}]"#, "invalid_value", "messages[0].role"),
        (r#"[{"role":"function","content":"a"}]"#, "unsupported_parameter", "messages[0].role"),
        (
            r#"[{"role":"user","content":"a","name":"b"}]"#,
            "unsupported_parameter",
            "messages[0].name",
        ),
        (
            r#"[{"role":"user","content":"a"},{"role":"assistant","content":"a","tool_calls":[{}]}]"#,
            "missing_required_parameter",
            "messages[1].tool_calls[0].id",
        ),
        (r#"[{"role":"user","content":"a","x":1}]"#, "unknown_parameter", "messages[0].x"),
        (r#"[{"role":"user","content":7}]"#, "invalid_type", "messages[0].content"),
        (r#"[{"role":"user","content":"\ud800"}]"#, "invalid_type", "messages[0].content"),
        (
            r#"[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]"#,
            "unsupported_parameter",
            "messages[0].content[0].type",
        ),
        (
            r#"[{"role":"user","content":[{"type":"text","text":"a","x":1}]}]"#,
            "unknown_parameter",
            "messages[0].content[0].x",
        ),
    ];
    for (messages, code, param) in cases {
        check_refused(CHAT, conversation(messages), code, param).await;
    }
    let many = vec![r#"{"role":"user","content":"a"}"#; 4_097].join(",");
    check_refused(CHAT, conversation(&format!("[{many}]")), "invalid_value", "messages").await;
}

#[tokio::test]
async fn a_prompt_has_four_forms() {
    let prompt = |prompt: &str| format!(r#"{{"model":"m","prompt":{prompt}}}"#);
    let cases = [
        (r#""Once""#, PromptInput::Text("Once".into())),
        (r#"["Once"]"#, PromptInput::Text("Once".into())),
        ("[1,2]", PromptInput::Tokens(vec![1, 2])),
        ("[[1,2]]", PromptInput::Tokens(vec![1, 2])),
    ];
    for (form, expected) in cases {
        assert_eq!(ask(TEXT, prompt(form)).await.prompt.input, expected);
    }
    for empty in [r#""""#, r#"[""]"#, "[]", "[[]]"] {
        check_refused(TEXT, prompt(empty), "invalid_value", "prompt").await;
    }
    for wrong in ["7", "{}", "[1.5]", "[-1]", r#"[1,"a"]"#, r#""\ud800""#] {
        check_refused(TEXT, prompt(wrong), "invalid_type", "prompt").await;
    }
}

#[tokio::test]
async fn a_body_that_is_deeper_than_any_request_is_refused() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for name in ["messages", "stop", "tools", "logit_bias", "x"] {
        let body = format!(r#"{{"model":"m","messages":[],"{name}":{deep}}}"#);
        let reply = send(&app(&FakeNode::new([])), post(CHAT, body)).await;
        assert_eq!(reply.error().0, 400);
    }
}

fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|it| it.to_string()),
        any::<i64>().prop_map(|it| it.to_string()),
        any::<f64>().prop_filter("finite", |it| it.is_finite()).prop_map(|it| format!("{it:e}")),
        "\\PC{0,8}".prop_map(|it| serde_json::Value::from(it).to_string()),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|it| format!("[{}]", it.join(","))),
            prop::collection::vec((any_name(), inner), 0..4).prop_map(object),
        ]
    })
}

fn object(members: Vec<(String, String)>) -> String {
    let members = members
        .into_iter()
        .map(|(name, value)| format!("{}:{value}", serde_json::Value::from(name)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// Mostly names that mean something.
fn any_name() -> impl Strategy<Value = String> {
    let known = [
        "model",
        "messages",
        "role",
        "content",
        "type",
        "text",
        "prompt",
        "stop",
        "seed",
        "n",
        "temperature",
        "top_p",
        "logit_bias",
        "logprobs",
        "stream",
        "stream_options",
        "tools",
        "include_usage",
        "max_tokens",
        "metadata",
        "user",
        "response_format",
    ];
    prop_oneof![
        9 => prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        1 => "\\PC{0,6}",
    ]
}

proptest! {
    /// Whatever JSON is sent, the answer is 200 or an error in the published shape.
    #[test]
    fn any_json_body_gives_an_answer_or_a_well_formed_refusal(
        members in prop::collection::vec((any_name(), any_json()), 0..8),
        is_good in any::<bool>(),
        is_chat in any::<bool>(),
    ) {
        let good = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut all = Vec::new();
        if is_good {
            all.push(good("model", r#""m""#));
            all.push(good("messages", r#"[{"role":"user","content":"a"}]"#));
        }
        all.extend(members);
        let path = if is_chat { CHAT } else { TEXT };
        check_any(path, object(all).into_bytes())?;
    }

    /// Whatever bytes are sent, the same.
    #[test]
    fn any_bytes_give_a_well_formed_refusal(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        check_any(CHAT, bytes)?;
    }

    /// A number with at most six places reaches the node as written; a finer one never does.
    #[test]
    fn a_temperature_is_exact_or_refused(millionths in 0_i64..=2_000_000, finer in 0_u32..=99) {
        let written = format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000);
        let runtime = runtime();
        let asked = runtime.block_on(ask(CHAT, chat(&format!(r#","temperature":{written}"#))));
        prop_assert_eq!(asked.sampling.temperature.as_millionths(), millionths);
        if finer > 0 {
            let body = chat(&format!(r#","temperature":{written}{finer:02}"#));
            runtime.block_on(check_refused(CHAT, body, "invalid_value", "temperature"));
        }
    }
}

fn check_any(path: &str, body: Vec<u8>) -> Result<(), TestCaseError> {
    let reply = runtime().block_on(send(&app(&FakeNode::new([])), post(path, body)));
    if reply.status != 200 {
        let (status, _, _) = reply.error();
        prop_assert!((400..500).contains(&status), "{}", reply.body);
    }
    Ok(())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}
