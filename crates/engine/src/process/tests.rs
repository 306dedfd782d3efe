//! The loop of the child, driven through pipes by a node that plays by the rules and by others.

use std::io::{PipeReader, PipeWriter, pipe};
use std::thread::JoinHandle;

use commons_port::engine::{Caller, EngineEvent, EngineRefusalCode, EngineRequest, Priority};
use commons_port::process::frame::{Frames, encode};
use commons_port::process::{AddModel, Answer, Ask, EVENTS_AHEAD};
use commons_record::Hash;
use commons_record::key::PublicKey;
use commons_record::order::{PromptInput, Sampling};

use super::*;
use crate::WorkerConfig;

/// A node that talks to a served engine.
struct Node {
    /// None once it is gone.
    to: Option<PipeWriter>,
    from: PipeReader,
    frames: Frames,
    served: JoinHandle<Result<(), ServeError>>,
    _folder: tempfile::TempDir,
    model: Hash,
}

impl Node {
    /// One that has heard the hello and has had the noise model loaded.
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("noise.gguf");
        crate::noise::write_noise_model(&path, 7).expect("writes");
        let ((input, to), (from, output)) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
        let engine = LocalEngine::new(WorkerConfig { threads: 1, ..WorkerConfig::default() });
        let served =
            std::thread::spawn(move || serve(input, output, &Arc::new(engine), Jail::default()));
        let frames = Frames::default();
        let model = Hash::of_content(b"");
        let mut node = Self { to: Some(to), from, frames, served, _folder: folder, model };
        let hello = node.hear();
        assert!(matches!(hello, FromEngine::Hello { protocol: PROTOCOL, .. }), "{hello:?}");
        let add = AddModel { path, device: None, draft: None, draft_kv_size_max: None };
        node.ask(1, Ask::Add(add));
        let Ok(Answer::Added(added)) = node.answer(1) else { panic!("it loads") };
        node.model = added.facts.model;
        node
    }

    fn send(&mut self, bytes: &[u8]) {
        self.to.as_mut().expect("the node is there").write_all(bytes).expect("is read");
    }

    fn say(&mut self, message: &ToEngine) {
        self.send(&encode(message).expect("fits"));
    }

    fn ask(&mut self, call: u64, ask: Ask) {
        self.say(&ToEngine::Ask { call: CallId(call), ask: Box::new(ask) });
    }

    /// The next message that is no sign of life.
    fn hear(&mut self) -> FromEngine {
        let mut buffer = [0; 4096];
        loop {
            match self.frames.read().expect("is well-formed") {
                Some(FromEngine::Figures { .. }) => {}
                Some(message) => return message,
                None => {
                    let size = self.from.read(&mut buffer).expect("can be read");
                    assert!(size > 0, "the engine ended");
                    self.frames.push(&buffer[..size]);
                }
            }
        }
    }

    fn answer(&mut self, want: u64) -> Result<Answer, EngineRefusalCode> {
        match self.hear() {
            FromEngine::Answer { call, answer } if call == CallId(want) => {
                answer.map(|it| *it).map_err(|it| it.code)
            }
            other => panic!("no answer to {want}: {other:?}"),
        }
    }

    fn event(&mut self, want: u64) -> EngineEvent {
        match self.hear() {
            FromEngine::Event { call, event } if call == CallId(want) => event,
            other => panic!("no event of {want}: {other:?}"),
        }
    }

    fn request(&self, count: u32) -> EngineRequest {
        let key = PublicKey::from_bytes([1; 32]);
        EngineRequest {
            model: self.model,
            adapter: None,
            caller: Caller { key, priority: Priority::Owner, shares_prefixes: false },
            input: PromptInput::Text("Once upon a time".to_owned()),
            stop: Vec::new(),
            constraint: None,
            tools: None,
            sampling: Sampling::greedy(),
            seed: None,
            prompt_tokens_max: 100,
            completion_tokens_max: count,
            top_logprobs: 0,
        }
    }

    /// Goes away; returns how the engine ended.
    fn leave(mut self) -> Result<(), ServeError> {
        drop(self.to.take());
        self.served.join().expect("it does not panic")
    }
}

#[test]
fn a_request_is_answered_to_its_end_and_the_end_of_the_input_is_the_end() {
    let mut node = Node::start();
    let request = node.request(5);
    node.ask(2, Ask::Start(request));
    assert_eq!(node.answer(2), Ok(Answer::Started));
    node.say(&ToEngine::Reveal { call: CallId(2), seed: [7; 32] });
    let prefilled = node.event(2);
    assert!(matches!(prefilled, EngineEvent::Prefilled { .. }), "{prefilled:?}");
    let mut count = 0;
    let end = loop {
        match node.event(2) {
            EngineEvent::Token(_) => count += 1,
            end => break end,
        }
    };
    assert!(matches!(end, EngineEvent::Finished { .. }), "{end:?}");
    assert!((1..=5).contains(&count), "{count}");
    // Of a call that is over nothing more is said.
    node.say(&ToEngine::Cancel { call: CallId(2) });
    node.ask(3, Ask::Remove { model: node.model });
    assert_eq!(node.answer(3), Ok(Answer::Removed(true)));
    assert!(node.leave().is_ok());
}

#[test]
fn a_caller_that_does_not_read_stalls_itself_and_nobody_else() {
    let mut node = Node::start();
    let slow = EngineRequest { seed: Some([1; 32]), ..node.request(400) };
    // Never ends by itself, so that the window is what stops it.
    let slow = {
        let bias = commons_record::order::LogitBias {
            token: 2,
            bias: commons_record::Micro::from_millionths(-100_000_000).expect("small"),
        };
        EngineRequest { sampling: Sampling { logit_bias: vec![bias], ..slow.sampling }, ..slow }
    };
    node.ask(2, Ask::Start(slow));
    assert_eq!(node.answer(2), Ok(Answer::Started));
    for _ in 0..EVENTS_AHEAD {
        node.event(2);
    }
    // Another is served while the first waits for its reader.
    let quick = EngineRequest { seed: Some([1; 32]), ..node.request(3) };
    node.ask(3, Ask::Start(quick));
    assert_eq!(node.answer(3), Ok(Answer::Started));
    while !matches!(node.event(3), EngineEvent::Finished { .. }) {}
    node.say(&ToEngine::Read { call: CallId(2), count: 2 });
    node.event(2);
    node.event(2);
    node.say(&ToEngine::Cancel { call: CallId(2) });
    assert_eq!(node.hear(), FromEngine::Over { call: CallId(2) });
    assert!(node.leave().is_ok());
}

#[test]
fn what_cannot_be_done_is_refused_with_its_reason() {
    let mut node = Node::start();
    let unknown = EngineRequest { model: Hash::of_content(b"x"), ..node.request(1) };
    node.ask(2, Ask::Start(unknown));
    assert_eq!(node.answer(2), Err(EngineRefusalCode::UnknownModel));
    let long = EngineRequest { prompt_tokens_max: 1, ..node.request(1) };
    node.ask(3, Ask::Start(long));
    assert_eq!(node.answer(3), Err(EngineRefusalCode::TooLong));
    let add = AddModel {
        path: "/no/such.gguf".into(),
        device: None,
        draft: None,
        draft_kv_size_max: None,
    };
    node.ask(4, Ask::Add(add));
    assert_eq!(node.answer(4), Err(EngineRefusalCode::Failed));
    assert!(node.leave().is_ok());
}

#[test]
fn a_node_that_breaks_the_protocol_is_left() {
    let check = |breach: &dyn Fn(&mut Node), part: &str| {
        let mut node = Node::start();
        breach(&mut node);
        let error = node.served.join().expect("it does not panic").expect_err("it is left");
        assert!(error.to_string().contains(part), "no {part:?} in {error}");
    };
    check(&|node| node.send(b"GET / HTTP/1.1\r\n\r\n"), "is more than");
    check(&|node| node.send(&[0, 0, 0, 1, 0xff]), "not a message");
    let twice = |node: &mut Node| {
        let request = node.request(1);
        node.ask(9, Ask::Start(request.clone()));
        node.ask(9, Ask::Start(request));
    };
    check(&twice, "calls are open");
}
