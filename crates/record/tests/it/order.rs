//! Orders and prompts: what may be asked, by the numbers.

use commons_record::codec;
use commons_record::constraint::{
    CHOICES_MAX, CONSTRAINT_SIZE_MAX, Constraint, Function, ToolCall, ToolChoice, Tools,
};
use commons_record::order::{
    COMPLETION_TOKENS_MAX, DEADLINE_MAX, Infer, Job, LOGIT_BIAS_MAX, LogitBias, MESSAGES_MAX,
    Message, Order, PROMPT_SIZE_MAX, PrivacyClass, Prompt, PromptInput, Requester, STOP_LEN_MAX,
    STOP_MAX, Sampling,
};
use commons_record::{Credits, Hash, Micro, Millis, PublicKey, Record as _, Salt};

use crate::sample::{SALT, joint_mode, key, order, peer_id, prompt, resumed_order};

fn micro(text: &str) -> Micro {
    text.parse().expect("a number")
}

#[test]
fn sampling_numbers_have_the_ranges_of_the_api() {
    type Set = fn(&mut Sampling, Micro);
    let cases: &[(&str, Set, &[&str], &[&str])] = &[
        ("temperature", |it, to| it.temperature = to, &["0", "2"], &["-0.000001", "2.000001"]),
        ("top_p", |it, to| it.top_p = to, &["0.000001", "1"], &["0", "-1", "1.000001"]),
        ("min_p", |it, to| it.min_p = to, &["0", "1"], &["-0.000001", "1.000001"]),
        (
            "repetition_penalty",
            |it, to| it.repetition_penalty = to,
            &["0.000001", "10"],
            &["0", "-1", "10.000001"],
        ),
        (
            "presence_penalty",
            |it, to| it.presence_penalty = to,
            &["-2", "2"],
            &["-2.000001", "2.000001"],
        ),
        (
            "frequency_penalty",
            |it, to| it.frequency_penalty = to,
            &["-2", "2"],
            &["-2.000001", "2.000001"],
        ),
        (
            "logit_bias",
            |it, bias| it.logit_bias = vec![LogitBias { token: 1, bias }],
            &["-100", "100"],
            &["-100.000001", "100.000001"],
        ),
    ];
    assert_eq!(Sampling::greedy().check(), Ok(()));
    for (field, set, good, bad) in cases {
        let check = |text: &str| {
            let mut sampling = Sampling::greedy();
            set(&mut sampling, micro(text));
            sampling.check().map_err(|it| it.field)
        };
        for text in *good {
            assert_eq!(check(text), Ok(()), "{field} of {text}");
        }
        for text in *bad {
            assert_eq!(check(text), Err(*field), "{field} of {text}");
        }
    }
}

#[test]
fn a_logit_bias_names_each_token_once_in_order() {
    let with = |tokens: Vec<u32>| {
        let logit_bias = tokens.iter().map(|token| LogitBias { token: *token, bias: Micro::ONE });
        let sampling = Sampling { logit_bias: logit_bias.collect(), ..Sampling::greedy() };
        sampling.check().is_ok()
    };
    assert!(with(vec![0, 1, u32::MAX]));
    assert!(!with(vec![1, 1]), "one text for one meaning");
    assert!(!with(vec![2, 1]), "one order for one meaning");
    let count = u32::try_from(LOGIT_BIAS_MAX).expect("small");
    assert!(with((0..count).collect()));
    assert!(!with((0..=count).collect()));
}

#[test]
fn an_order_is_bounded() {
    let check = |what: &str, change: &dyn Fn(&mut Order), want: Option<&str>| {
        let mut order = order(joint_mode());
        change(&mut order);
        assert_eq!(order.check().err().map(|it| it.field), want, "{what}");
    };
    let infer = |change: fn(&mut Infer)| {
        move |order: &mut Order| {
            let Job::Infer(infer) = &mut order.job;
            change(infer);
        }
    };
    check("honest", &|_| {}, None);
    check(
        "no token",
        &infer(|it| it.limits.completion_tokens_max = 0),
        Some("completion_tokens_max"),
    );
    check("all tokens", &infer(|it| it.limits.completion_tokens_max = COMPLETION_TOKENS_MAX), None);
    check(
        "one more",
        &infer(|it| it.limits.completion_tokens_max = COMPLETION_TOKENS_MAX + 1),
        Some("completion_tokens_max"),
    );
    check("20 alternatives", &infer(|it| it.top_logprobs = 20), None);
    check("21 alternatives", &infer(|it| it.top_logprobs = 21), Some("top_logprobs"));
    check("too hot", &infer(|it| it.sampling.temperature = Micro::MAX), Some("temperature"));
    check("no time", &|it| it.deadline_ms = Millis(0), Some("deadline_ms"));
    check("an hour", &|it| it.deadline_ms = DEADLINE_MAX, None);
    check("over an hour", &|it| it.deadline_ms.0 = DEADLINE_MAX.0 + 1, Some("deadline_ms"));
    check("for nothing", &|it| it.price_ceiling = Credits::ZERO, None);
    let resume = |prefix| {
        move |it: &mut Order| {
            it.resume = resumed_order()
                .resume
                .map(|resume| commons_record::order::Resume { prefix_tokens: prefix, ..resume });
        }
    };
    check("one token left", &resume(127), None);
    check("nothing left", &resume(128), Some("resume"));
}

#[test]
fn the_requester_is_the_key_that_signs() {
    let public = key(8).public();
    assert_eq!(Requester::OneTime(public).key(), public);
    assert_eq!(Requester::Node(peer_id(&key(8))).key(), PublicKey::from(peer_id(&key(8))));
}

// Rule P1: a class is read exactly; what is not a class is none, and no default.
#[test]
fn privacy_classes_have_names_and_an_order() {
    let classes =
        [PrivacyClass::LocalOnly, PrivacyClass::Lan, PrivacyClass::Mesh, PrivacyClass::Any];
    let names = ["local-only", "lan", "mesh", "any"];
    assert!(classes.is_sorted(), "from the narrowest to the widest");
    for (class, name) in classes.into_iter().zip(names) {
        assert_eq!((class.as_str(), PrivacyClass::from_name(name)), (name, Some(class)));
        // The name in a header is the name in a record.
        assert_eq!(codec::encode(&class), codec::encode(&name));
    }
    for name in ["", "local", "Local-Only", "local_only", "MESH", " mesh", "public"] {
        assert_eq!(PrivacyClass::from_name(name), None, "{name}");
    }
}

#[test]
fn a_prompt_is_bounded_and_not_empty() {
    let check = |what: &str, input: PromptInput, want: Option<&str>| {
        let found = Prompt { input, stop: Vec::new(), constraint: None, tools: None }
            .check()
            .err()
            .map(|it| it.field);
        assert_eq!(found, want, "{what}");
    };
    let message = |role: &str, content: String| Message::new(role, content);
    let chat = |role: &str, content: &str, count| {
        PromptInput::Chat(vec![message(role, content.into()); count])
    };
    check("a text", PromptInput::Text("a".into()), None);
    check("no text", PromptInput::Text(String::new()), Some("prompt"));
    check("a long text", PromptInput::Text("a".repeat(PROMPT_SIZE_MAX)), None);
    check("too long a text", PromptInput::Text("a".repeat(PROMPT_SIZE_MAX + 1)), Some("prompt"));
    check("no tokens", PromptInput::Tokens(Vec::new()), Some("prompt"));
    check("many tokens", PromptInput::Tokens(vec![0; PROMPT_SIZE_MAX / 5]), None);
    check("too many", PromptInput::Tokens(vec![0; PROMPT_SIZE_MAX / 5 + 1]), Some("prompt"));
    check("no messages", PromptInput::Chat(Vec::new()), Some("messages"));
    check("many messages", chat("user", "a", MESSAGES_MAX), None);
    check("too many messages", chat("user", "a", MESSAGES_MAX + 1), Some("messages"));
    check("empty messages", chat("user", "", 3), Some("messages"));
    check("no role", chat("", "a", 1), Some("role"));
    check("a role of 33 bytes", chat(&"r".repeat(33), "a", 1), Some("role"));
    check(
        "two halves and a bit",
        PromptInput::Chat(vec![
            message("user", "a".repeat(PROMPT_SIZE_MAX)),
            message("user", "a".into()),
        ]),
        Some("messages"),
    );
    let stop = |stop: Vec<String>| Prompt { stop, ..prompt() }.check().is_ok();
    assert!(stop(vec!["s".repeat(STOP_LEN_MAX); STOP_MAX]));
    assert!(!stop(vec!["s".into(); STOP_MAX + 1]));
    assert!(!stop(vec!["s".repeat(STOP_LEN_MAX + 1)]));
    assert!(!stop(vec![String::new()]), "an empty marker ends everything at once");
}

fn tools(names: &[&str], choice: ToolChoice) -> Tools {
    let function =
        |name: &&str| Function { name: (*name).into(), description: None, parameters: None };
    Tools { functions: names.iter().map(function).collect(), choice, is_parallel: true }
}

#[test]
fn forms_functions_and_calls_are_bounded() {
    let check = |what: &str, prompt: Prompt, want: Option<&str>| {
        assert_eq!(prompt.check().err().map(|it| it.field), want, "{what}");
    };
    let held = |constraint| Prompt { constraint: Some(constraint), ..prompt() };
    let no_form = Some("constraint");
    check("an object", held(Constraint::JsonObject), None);
    check("a schema", held(Constraint::JsonSchema("{}".into())), None);
    check("no schema", held(Constraint::JsonSchema(String::new())), no_form);
    let long = "a".repeat(CONSTRAINT_SIZE_MAX + 1);
    check("a long schema", held(Constraint::JsonSchema(long.clone())), no_form);
    check("a long expression", held(Constraint::Regex(long.clone())), no_form);
    check("no choice", held(Constraint::Choice(Vec::new())), no_form);
    check("choices", held(Constraint::Choice(vec!["a".into(); CHOICES_MAX])), None);
    check("many choices", held(Constraint::Choice(vec!["a".into(); CHOICES_MAX + 1])), no_form);
    check("a long choice", held(Constraint::Choice(vec![long.clone()])), no_form);

    let with = |tools| Prompt { tools: Some(tools), ..prompt() };
    let auto = |names: &[&str]| with(tools(names, ToolChoice::Auto));
    let named = |name: &str| with(tools(&["f", "g"], ToolChoice::Named(name.into())));
    check("two functions", auto(&["f", "g-2_X"]), None);
    check("none", auto(&[]), Some("tools"));
    check("one twice", auto(&["f", "g", "f"]), Some("tools"));
    check("a name of two words", auto(&["f g"]), Some("tools"));
    check("a name of 65 letters", auto(&[&"f".repeat(65)]), Some("tools"));
    check("129 functions", auto(&["f"; 129]), Some("tools"));
    check("one by name", named("g"), None);
    check("another by name", named("h"), Some("tool_choice"));
    let mut large = tools(&["f"], ToolChoice::Auto);
    large.functions[0].parameters = Some(long);
    check("large functions", with(large), Some("tools"));
    let text = Prompt { input: PromptInput::Text("a".into()), ..auto(&["f"]) };
    check("functions without a conversation", text, Some("tools"));

    let call = |id: &str, name: &str| ToolCall {
        id: id.into(),
        name: name.into(),
        arguments: "{}".into(),
    };
    let said = |message: Message| Prompt { input: PromptInput::Chat(vec![message]), ..prompt() };
    let calls = |tool_calls| said(Message { tool_calls, ..Message::new("assistant", "") });
    check("a call and no text", calls(vec![call("c", "f")]), None);
    check("a call without an id", calls(vec![call("", "f")]), Some("tool_calls"));
    check("a long id", calls(vec![call(&"c".repeat(129), "f")]), Some("tool_calls"));
    check("a call without a name", calls(vec![call("c", "")]), Some("tool_calls"));
    check("129 calls", calls(vec![call("c", "f"); 129]), Some("tool_calls"));
    let result = |id: &str, name: &str| {
        let (tool_call_id, name) = (Some(id.to_owned()), Some(name.to_owned()));
        said(Message { tool_call_id, name, ..Message::new("tool", "a") })
    };
    check("a result", result("c", "f"), None);
    check("a result of nothing", result("", "f"), Some("tool_call_id"));
    check("a result of no name", result("c", ""), Some("name"));
}

/// The order says nothing about the text to those who do not know the salt.
#[test]
fn a_prompt_is_committed_to_under_a_salt() {
    let commitment = prompt().commitment(&SALT);
    let encoded = codec::encode(&prompt());
    assert_eq!(commitment, Hash::of_fields("commons/prompt/2", &[SALT.as_bytes(), &encoded]));
    assert_ne!(commitment, prompt().commitment(&Salt::from_bytes([0; 32])));
    let mut other = prompt();
    other.stop.clear();
    assert_ne!(commitment, other.commitment(&SALT));
    let held = Prompt { constraint: Some(Constraint::JsonObject), ..prompt() };
    assert_ne!(commitment, held.commitment(&SALT), "the form of the answer counts");
    let tools = |choice| Prompt { tools: Some(tools(&["f"], choice)), ..prompt() };
    let (auto, required) = (tools(ToolChoice::Auto), tools(ToolChoice::Required));
    assert_ne!(commitment, auto.commitment(&SALT), "so do the functions");
    assert_ne!(auto.commitment(&SALT), required.commitment(&SALT), "and whether one is called");
    let text = |text: &str| Prompt {
        input: PromptInput::Text(text.into()),
        stop: Vec::new(),
        constraint: None,
        tools: None,
    };
    let tokens = Prompt {
        input: PromptInput::Tokens(vec![97]),
        stop: Vec::new(),
        constraint: None,
        tools: None,
    };
    assert_ne!(text("a").commitment(&SALT), tokens.commitment(&SALT));
}
