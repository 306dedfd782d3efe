//! The messages between a node and its engine process: a change is a new version of the protocol.

use std::fmt::Write as _;

use commons_port::engine::{
    EngineEvent, EngineLoad, EngineRefusal, EngineRefusalCode, Score, Scores, Token,
};
use commons_port::process::frame::{Frames, encode};
use commons_port::process::{
    AddModel, Answer, Ask, Attempt, CallId, FromEngine, Jail, JailLevel, SyscallFilter, ToEngine,
};
use commons_record::Hash;

const GOLDEN: &str = include_str!("../golden/process.hex");

fn hash(text: &str) -> Hash {
    Hash::of_content(text.as_bytes())
}

fn to_engine() -> Vec<ToEngine> {
    let call = CallId(7);
    let add = AddModel {
        path: "/models/a.gguf".into(),
        device: None,
        draft: None,
        draft_kv_size_max: Some(1),
    };
    vec![
        ToEngine::Ask { call, ask: Box::new(Ask::Add(add)) },
        ToEngine::Ask { call, ask: Box::new(Ask::Remove { model: hash("model") }) },
        ToEngine::Reveal { call, seed: [3; 32] },
        ToEngine::Read { call, count: 16 },
        ToEngine::Cancel { call },
    ]
}

fn from_engine() -> Vec<FromEngine> {
    let call = CallId(u64::MAX);
    let attempt = Attempt { name: "run a program".to_owned(), refused: Some("EPERM".to_owned()) };
    let jail = Jail {
        landlock: Some(7),
        syscalls: Some(SyscallFilter::Allowed),
        no_new_privileges: true,
        attempts: vec![attempt],
        ..Jail::default()
    };
    let token = Token { id: 5, text: "é".to_owned(), logprob_micro: -1, top: Vec::new() };
    let score = Score { token: Some(token.clone()), margin: Some(f64::INFINITY) };
    let scores =
        Scores { tokens: vec![1, 5], scores: vec![score.clone()], next: score, next_ends: true };
    let refusal =
        EngineRefusal { code: EngineRefusalCode::TooLong, message: "too long".to_owned() };
    let load = EngineLoad { running: 1, queued: 2, slots: 3 };
    vec![
        FromEngine::Hello { protocol: 1, jail: Box::new(jail) },
        FromEngine::Figures { loads: vec![(hash("model"), load)] },
        FromEngine::Answer { call, answer: Ok(Box::new(Answer::Started)) },
        FromEngine::Answer { call, answer: Ok(Box::new(Answer::Scores(scores))) },
        FromEngine::Answer { call, answer: Err(refusal.clone()) },
        FromEngine::Event { call, event: EngineEvent::Token(token) },
        FromEngine::Event { call, event: EngineEvent::Failed(refusal) },
        FromEngine::Over { call },
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.as_bytes().chunks(2).collect();
    let byte = |it: &&[u8]| u8::from_str_radix(std::str::from_utf8(it).expect("text"), 16);
    digits.iter().map(|it| byte(it).expect("hexadecimal")).collect()
}

#[test]
fn messages_are_written_as_they_always_were_and_read_again() {
    let mut frames: Vec<_> = to_engine().iter().map(encode).collect();
    frames.extend(from_engine().iter().map(encode));
    let written: String = frames.into_iter().map(|it| hex(&it.expect("fits")) + "\n").collect();
    assert_eq!(written, GOLDEN, "a change here is a new `PROTOCOL`");

    let (mut frames, mut lines) = (Frames::default(), GOLDEN.lines());
    for message in to_engine() {
        frames.push(&bytes(lines.next().expect("a line")));
        assert_eq!(frames.read(), Ok(Some(message)));
    }
    for message in from_engine() {
        frames.push(&bytes(lines.next().expect("a line")));
        assert_eq!(frames.read(), Ok(Some(message)));
    }
}

#[test]
fn a_jail_is_whole_only_where_everything_that_was_tried_was_refused() {
    let check = |jail: Jail, want| assert_eq!(jail.level(), want, "{jail}");
    let attempt =
        |refused: Option<&str>| Attempt { name: "x".to_owned(), refused: refused.map(Into::into) };
    let closed = Jail {
        landlock: Some(1),
        syscalls: Some(SyscallFilter::Denied),
        attempts: vec![attempt(Some("EPERM"))],
        ..Jail::default()
    };
    check(closed.clone(), JailLevel::Full);
    check(Jail { attempts: Vec::new(), ..closed.clone() }, JailLevel::Partial);
    check(Jail { landlock: None, ..closed.clone() }, JailLevel::Partial);
    check(Jail { syscalls: None, ..closed.clone() }, JailLevel::Partial);
    let open = Jail { attempts: vec![attempt(Some("EPERM")), attempt(None)], ..closed };
    check(open.clone(), JailLevel::Partial);
    check(Jail { landlock: None, syscalls: None, ..open }, JailLevel::None);
    check(Jail::default(), JailLevel::None);
}
