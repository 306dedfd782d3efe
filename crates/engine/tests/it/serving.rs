//! The engine behind its port: order of events, bounds, seeds, cancellation.

use commons_engine::noise::{NOISE_MODEL_NAME, noise_model};
use commons_engine::{LocalEngine, WorkerConfig};
use commons_port::engine::{Engine, EngineEvent, EngineRefusalCode, EngineRequest};
use commons_record::order::{Message, PromptInput};
use commons_record::settlement::EndReason;
use commons_record::{Hash, Micro};
use futures::executor::block_on;
use futures::future::FutureExt;

use crate::support::{Said, ask, caller, config, listen, noise_engine, request, warm};

/// The refusal of a request after one change.
fn check_refused(change: impl FnOnce(&mut EngineRequest), code: EngineRefusalCode, wanted: &str) {
    let (engine, facts) = noise_engine(config());
    let mut request = request(&facts, "some text", 4);
    change(&mut request);
    let refusal = engine.start(request).map(drop).expect_err("is refused");
    assert_eq!(refusal.code, code, "{refusal}");
    assert!(refusal.message.contains(wanted), "{refusal} does not say {wanted:?}");
}

#[test]
fn the_noise_model_is_the_same_everywhere_and_says_what_it_is() {
    let bytes = noise_model(7).expect("builds").to_bytes();
    assert_eq!(
        Hash::of_content(&bytes).to_string(),
        "a22c0f83cb4f1a340626e422c348a92ac0ef376ec1851b903729676ace048f2f"
    );
    assert!(NOISE_MODEL_NAME.contains("random noise"));
    assert!(bytes.len() < 1 << 20, "{} bytes", bytes.len());
}

#[test]
fn events_come_in_order_and_count_what_they_say() {
    let (engine, facts) = noise_engine(config());
    let said = ask(&engine, request(&facts, "bace difo", 12));
    assert_eq!(said.prompt.first(), Some(&1), "begins with the opening token");
    assert_eq!(said.tokens.len(), 12);
    assert_eq!(said.reason, Some(EndReason::Length));
    assert_eq!(said.failure, None);
    assert!(said.tokens.iter().all(|token| token.logprob_micro <= 0));
}

#[test]
fn alternatives_are_reported_best_first() {
    let (engine, facts) = noise_engine(config());
    let said = ask(&engine, EngineRequest { top_logprobs: 5, ..request(&facts, "bace", 3) });
    for token in said.tokens {
        assert_eq!(token.top.len(), 5);
        assert_eq!(token.top[0].id, token.id, "greedy takes the likeliest");
        assert!(token.top.is_sorted_by(|a, b| a.logprob_micro >= b.logprob_micro));
    }
}

#[test]
fn the_same_seed_draws_the_same_answer_and_another_seed_another() {
    let (engine, facts) = noise_engine(config());
    let draw = |seed| ask(&engine, warm(request(&facts, "bace", 24), seed)).ids();
    assert_eq!(draw([1; 32]), draw([1; 32]));
    assert_ne!(draw([1; 32]), draw([2; 32]));
}

#[test]
fn sampling_waits_for_the_seed_and_reading_does_not() {
    let (engine, facts) = noise_engine(config());
    let request = EngineRequest { seed: None, ..warm(request(&facts, "bace", 8), [0; 32]) };
    let mut sequence = engine.start(request.clone()).expect("is taken");
    let first = block_on(sequence.next());
    assert!(matches!(first, Some(EngineEvent::Prefilled { .. })), "{first:?}");
    assert_eq!(sequence.next().now_or_never(), None, "nothing is drawn before the seed is known");
    sequence.reveal([3; 32]);
    sequence.reveal([4; 32]); // Changes nothing.
    let late = listen(sequence.as_mut()).ids();
    let early = ask(&engine, EngineRequest { seed: Some([3; 32]), ..request }).ids();
    assert_eq!(late, early);
}

#[test]
fn sequences_in_turn_say_what_each_says_alone() {
    let (engine, facts) = noise_engine(WorkerConfig { slots: 3, queue_len_max: 8, ..config() });
    let requests: Vec<EngineRequest> = (0u8..6)
        .map(|index| {
            let text = format!("bace{}", " difo".repeat(usize::from(index) * 9));
            warm(request(&facts, &text, 20), [index; 32])
        })
        .collect();
    let alone: Vec<Said> = requests.iter().map(|request| ask(&engine, request.clone())).collect();
    let mut sequences: Vec<_> =
        requests.iter().map(|it| engine.start(it.clone()).expect("is taken")).collect();
    let together: Vec<Said> = sequences.iter_mut().map(|it| listen(it.as_mut())).collect();
    assert_eq!(alone, together);
}

#[test]
fn an_answer_ends_before_a_stop_string() {
    let (engine, facts) = noise_engine(config());
    let whole = ask(&engine, request(&facts, "bace", 40)).text;
    let chars: Vec<char> = whole.chars().collect();
    let stop: String = chars[chars.len() / 2..chars.len() / 2 + 3].iter().collect();
    let said =
        ask(&engine, EngineRequest { stop: vec![stop.clone()], ..request(&facts, "bace", 40) });
    assert_eq!(said.reason, Some(EndReason::StopString));
    assert_eq!(said.text, whole[..whole.find(&stop).expect("is in it")]);
}

#[test]
fn requests_that_cannot_be_served_are_refused_with_a_reason() {
    use EngineRefusalCode::{InvalidPrompt, TooLong, UnknownAdapter, UnknownModel};
    let chat = |content: &str| PromptInput::Chat(vec![Message::new("user", content)]);
    let other = Hash::of_content(b"other");
    check_refused(|it| it.model = other, UnknownModel, "not loaded");
    check_refused(|it| it.adapter = Some(other), UnknownAdapter, "is not registered");
    check_refused(|it| it.input = PromptInput::Tokens(vec![]), InvalidPrompt, "empty");
    check_refused(|it| it.input = PromptInput::Tokens(vec![9_999]), InvalidPrompt, "9999");
    check_refused(|it| it.input = chat(&"bace ".repeat(3_000)), TooLong, "shorten it");
    check_refused(|it| it.prompt_tokens_max = 2, TooLong, "the request allows 2");
    check_refused(|it| it.completion_tokens_max = 0, InvalidPrompt, "0 tokens");
    check_refused(|it| it.top_logprobs = 200, InvalidPrompt, "200");
    let negative = Micro::from_millionths(-1).expect("small");
    check_refused(|it| it.sampling.temperature = negative, InvalidPrompt, "");
}

#[test]
fn a_full_queue_refuses_and_a_dropped_sequence_makes_room() {
    let (engine, facts) = noise_engine(WorkerConfig { slots: 1, queue_len_max: 1, ..config() });
    // One whose seed is not known gives its row to one that can use it, and waits.
    let held = |number| {
        let held =
            EngineRequest { seed: None, caller: caller(number), ..request(&facts, "bace", 4) };
        let mut sequence = engine.start(held).expect("is taken");
        assert!(block_on(sequence.next()).is_some(), "its prompt is read");
        sequence
    };
    let (first, mut second) = (held(1), held(2));
    let load = engine.load(&facts.model).expect("is loaded");
    assert_eq!((load.running, load.queued, load.slots), (1, 1, 1));
    let refusal = engine.start(request(&facts, "difo", 4)).map(drop).expect_err("is refused");
    assert_eq!(refusal.code, EngineRefusalCode::Overloaded);
    drop(first);
    second.reveal([0; 32]);
    assert_eq!(listen(second.as_mut()).tokens.len(), 4);
    assert_eq!(ask(&engine, request(&facts, "difo", 4)).tokens.len(), 4, "there is room again");
}

#[test]
fn a_caller_that_does_not_read_stalls_only_itself_and_loses_nothing() {
    let (engine, facts) = noise_engine(WorkerConfig { slots: 2, queue_len_max: 2, ..config() });
    let mut idle = engine.start(request(&facts, "bace", 300)).expect("is taken");
    assert_eq!(ask(&engine, request(&facts, "difo", 200)).tokens.len(), 200);
    let late = listen(idle.as_mut());
    assert_eq!(late, ask(&engine, request(&facts, "bace", 300)));
}

#[test]
fn an_answer_ends_where_the_context_does() {
    let (engine, facts) = noise_engine(config());
    let context_len = usize::try_from(facts.context_len).expect("small");
    let tokens = vec![300; context_len - 3];
    let input = PromptInput::Tokens(tokens);
    let said = ask(&engine, EngineRequest { input, ..request(&facts, "", 100) });
    assert_eq!(said.reason, Some(EndReason::Length));
    // Prompt and answer together are as long as the context.
    assert_eq!(said.tokens.len(), 3);
}

#[test]
fn unloading_fails_what_still_runs() {
    let (engine, facts) = noise_engine(config());
    let mut sequence =
        engine.start(EngineRequest { seed: None, ..request(&facts, "bace", 4) }).expect("is taken");
    assert!(engine.remove(&facts.model));
    let said = listen(sequence.as_mut());
    assert_eq!(said.failure.map(|it| it.code), Some(EngineRefusalCode::Failed));
    assert!(engine.models().is_empty());
}

/// Weights that are finite can still give numbers that are not.
#[test]
fn logits_that_are_not_numbers_fail_the_sequence_with_a_reason() {
    let mut bytes = noise_model(7).expect("builds").to_bytes();
    // The last tensor is the norm before the logits: sums of such numbers overflow.
    let start = bytes.len() - 256;
    for number in bytes[start..].chunks_exact_mut(4) {
        number.copy_from_slice(&f32::MAX.to_le_bytes());
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("nan.gguf");
    std::fs::write(&path, bytes).expect("writes");
    let engine = LocalEngine::new(config());
    let facts = engine.add(&path).expect("loads");
    let said = ask(&engine, request(&facts, "bace", 4));
    let failure = said.failure.expect("fails");
    assert_eq!(failure.code, EngineRefusalCode::Failed);
    assert!(failure.message.contains("not a number"), "{failure}");
    // The next request is served, and fails the same way: the model is not out of service.
    let again = ask(&engine, request(&facts, "bace", 4)).failure.expect("fails");
    assert_eq!(again, failure);
}

#[test]
fn a_conversation_is_served_and_facts_are_what_the_file_is() {
    let (engine, facts) = noise_engine(config());
    let message = Message::new("user", "bace");
    let input = PromptInput::Chat(vec![message]);
    let said = ask(&engine, EngineRequest { input, ..request(&facts, "", 5) });
    assert_eq!(said, ask(&engine, request(&facts, "bace", 5)), "without a template: continued");
    assert_eq!(engine.models(), std::slice::from_ref(&facts));
    let shown = (facts.name.as_str(), facts.file_name.as_str(), facts.family.as_str());
    assert_eq!(shown, ("noise", "noise.gguf", "llama"));
    assert_eq!((facts.quantisation.as_str(), facts.context_len), ("F32", 2_048));
    assert_eq!(facts.licence.as_deref(), Some("CC0-1.0"));
    assert_eq!(facts.model, Hash::of_content(&noise_model(7).expect("builds").to_bytes()));
}
