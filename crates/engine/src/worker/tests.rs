//! What happens when computing panics: nobody waits for ever.

use commons_record::order::{PromptInput, Sampling};
use futures::FutureExt;

use super::*;
use crate::noise::write_noise_model;

fn model() -> Arc<Model> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("noise.gguf");
    write_noise_model(&path, 1).expect("writes");
    Arc::new(Model::load(&path).expect("loads"))
}

fn request(model: &Model) -> EngineRequest {
    EngineRequest {
        model: model.facts().model,
        adapter: None,
        input: PromptInput::Text("bace".into()),
        stop: Vec::new(),
        sampling: Sampling::greedy(),
        seed: None,
        prompt_tokens_max: 100,
        completion_tokens_max: 4,
        top_logprobs: 0,
    }
}

#[test]
fn a_panic_fails_every_sequence_and_the_model_from_then_on() {
    let (model, desk) = (model(), Desk::default());
    let mut events = Vec::new();
    let mut running = Vec::new();
    for _ in 0..3 {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        let sequence = Running::new(&model, request(&model), Arc::default(), sender);
        running.push(sequence.expect("is taken"));
        events.push(receiver);
    }
    desk.lock().waiting.extend(running.pop());

    let mut turns = 0;
    let outcome = turn(&mut running, |sequence| {
        turns += 1;
        assert!(turns < 2, "a kernel divides by zero, say");
        sequence.step(&model)
    });
    assert_eq!(outcome, None);
    fail_all(&desk, running, CRASHED);

    for mut receiver in events {
        let mut said = Vec::new();
        while let Some(Some(event)) = receiver.next().now_or_never() {
            said.push(event);
        }
        let Some(EngineEvent::Failed(refusal)) = said.last() else { panic!("{said:?}") };
        assert_eq!((refusal.code, refusal.message.as_str()), (EngineRefusalCode::Failed, CRASHED));
    }
    assert_eq!(desk.lock().failure.as_deref(), Some(CRASHED));
}
