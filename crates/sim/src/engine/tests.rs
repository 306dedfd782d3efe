//! The engine alone: answers, times, bounds and mishaps.

use commons_port::engine::{Caller, EngineEvent, Priority};
use commons_record::constraint::Constraint;
use commons_record::key::SecretKey;
use commons_record::order::{PromptInput, Sampling};
use commons_record::settlement::EndReason;

use super::*;
use crate::clock::Micros;
use crate::executor::Schedule;
use crate::life::NodeId;

struct Lab {
    executor: Executor,
    engine: Arc<SimEngine>,
    running: RunningEngine,
}

fn lab(model: SimModel) -> Lab {
    let executor = Executor::new(1, Schedule::Shuffled);
    let log = Arc::new(Log::new(executor.clone()));
    let engine = SimEngine::new(executor.clone(), log, vec![model]);
    let running = engine.of_run(Arc::new(Life::new(NodeId(0), 0)));
    Lab { executor, engine, running }
}

fn text() -> PromptInput {
    PromptInput::Text("once upon a time".to_owned())
}

fn request(model: &SimModel) -> EngineRequest {
    EngineRequest {
        model: model.loaded.model,
        adapter: None,
        caller: Caller {
            key: SecretKey::from_seed(&[1; 32]).public(),
            priority: Priority::Normal,
            shares_prefixes: false,
        },
        input: text(),
        stop: Vec::new(),
        constraint: None,
        tools: None,
        sampling: Sampling::greedy(),
        seed: Some([7; 32]),
        prompt_tokens_max: 1000,
        completion_tokens_max: 10,
        top_logprobs: 0,
    }
}

/// All events of a sequence until it ends.
async fn drain(sequence: &mut dyn Sequence) -> Vec<EngineEvent> {
    let mut events = Vec::new();
    while let Some(event) = sequence.next().await {
        events.push(event);
    }
    events
}

fn tokens(events: &[EngineEvent]) -> Vec<u32> {
    let id = |event: &EngineEvent| match event {
        EngineEvent::Token(token) => Some(token.id),
        _ => None,
    };
    events.iter().filter_map(id).collect()
}

#[test]
fn an_answer_is_the_one_that_can_be_computed_beforehand() {
    let model = SimModel::named("story");
    let lab = lab(model.clone());
    let mut sequence = lab.running.start(request(&model)).expect("it is admitted");
    let events = lab.executor.block_on(drain(&mut *sequence)).expect("it ends");
    let answer = model.answer(&text(), &[7; 32], 10);
    let expected: Vec<u32> = answer.tokens.iter().map(|token| token.id).collect();
    assert_eq!(tokens(&events), expected);
    assert!(
        matches!(events.first(), Some(EngineEvent::Prefilled { prompt, .. }) if prompt.len() == 4)
    );
    let last = events.last();
    assert!(matches!(last, Some(EngineEvent::Finished { reason: EndReason::Length, .. })));
    assert_eq!(lab.executor.now(), Micros(4 * 2_000 + 10 * 20_000));
    assert_ne!(model.answer(&text(), &[8; 32], 10), answer);
}

#[test]
fn tokens_wait_for_the_seed_and_a_second_reveal_changes_nothing() {
    let model = SimModel::named("story");
    let lab = lab(model.clone());
    let mut sequence =
        lab.running.start(EngineRequest { seed: None, ..request(&model) }).expect("admitted");
    let events = lab.executor.block_on(async {
        let first = sequence.next().await;
        lab.executor.sleep(Micros::from_secs(5)).await;
        sequence.reveal([7; 32]);
        sequence.reveal([9; 32]);
        let mut events = vec![first.expect("it was prefilled")];
        events.extend(drain(&mut *sequence).await);
        events
    });
    let expected = model.answer(&text(), &[7; 32], 10);
    let expected: Vec<u32> = expected.tokens.iter().map(|token| token.id).collect();
    assert_eq!(tokens(&events.expect("it ends")), expected);
}

#[test]
fn slots_and_queue_are_bounded_and_given_back() {
    let model = SimModel { slots: 1, queue: 1, ..SimModel::named("story") };
    let lab = lab(model.clone());
    let first = lab.running.start(request(&model)).expect("a slot is free");
    lab.executor.block_on(lab.executor.sleep(Micros(1))).expect("time passes");
    let second = lab.running.start(request(&model)).expect("the queue has room");
    let third = lab.running.start(request(&model)).map(drop);
    assert_eq!(third.expect_err("it is full").code, EngineRefusalCode::Overloaded);
    let load = lab.running.load(&model.loaded.model);
    assert_eq!(load, Some(EngineLoad { running: 1, queued: 1, slots: 1 }));
    drop((first, second));
    lab.executor.run_until_quiet().expect("it becomes quiet");
    let load = lab.running.load(&model.loaded.model);
    assert_eq!(load, Some(EngineLoad { running: 0, queued: 0, slots: 1 }));
}

#[test]
fn a_caller_that_does_not_ask_stalls_its_own_sequence_only() {
    let model = SimModel::named("story");
    let lab = lab(model.clone());
    let long = EngineRequest { completion_tokens_max: 60, ..request(&model) };
    let lazy = lab.running.start(long).expect("admitted");
    let mut eager = lab.running.start(request(&model)).expect("admitted");
    let events = lab.executor.block_on(drain(&mut *eager)).expect("it ends");
    assert_eq!(tokens(&events).len(), 10);
    lab.executor.run_until_quiet().expect("the lazy one waits without a timer");
    drop(lazy);
}

#[test]
fn mishaps_come_when_they_are_planned() {
    let model = SimModel::named("story");
    let lab = lab(model.clone());
    lab.engine.plan(Mishap::FailAfter(3));
    lab.engine.plan(Mishap::Refuse(EngineRefusalCode::Overloaded));
    lab.engine.plan(Mishap::StallAfter(2));
    let mut failing = lab.running.start(request(&model)).expect("admitted");
    assert!(lab.running.start(request(&model)).is_err());
    let mut stalling = lab.running.start(request(&model)).expect("admitted");
    let events = lab.executor.block_on(drain(&mut *failing)).expect("it ends");
    assert_eq!(tokens(&events).len(), 3);
    assert!(matches!(events.last(), Some(EngineEvent::Failed(_))));
    let stalled = lab.executor.block_on(drain(&mut *stalling));
    assert!(stalled.is_err(), "a stalled sequence says nothing more");
}

#[test]
fn what_cannot_be_served_is_refused_by_kind() {
    let model = SimModel::named("story");
    let lab = lab(model.clone());
    let code = |request| lab.running.start(request).map(drop).expect_err("refused").code;
    let unknown = EngineRequest { model: Hash::of_content(b"?"), ..request(&model) };
    assert_eq!(code(unknown), EngineRefusalCode::UnknownModel);
    let adapter = EngineRequest { adapter: Some(Hash::of_content(b"?")), ..request(&model) };
    assert_eq!(code(adapter), EngineRefusalCode::UnknownAdapter);
    let empty = EngineRequest { input: PromptInput::Text(String::new()), ..request(&model) };
    assert_eq!(code(empty), EngineRefusalCode::InvalidPrompt);
    let held = EngineRequest { constraint: Some(Constraint::JsonObject), ..request(&model) };
    assert_eq!(code(held), EngineRefusalCode::InvalidConstraint);
    let long = EngineRequest { prompt_tokens_max: 3, ..request(&model) };
    assert_eq!(code(long), EngineRefusalCode::TooLong);
}

#[test]
fn a_stop_string_ends_the_answer_before_itself() {
    let model = SimModel::named("story");
    let lab = lab(model.clone());
    let answer = model.answer(&text(), &[7; 32], 10);
    let stop = answer.tokens[4].text.clone();
    let first = answer.tokens.iter().position(|token| token.text == stop).expect("it is there");
    let mut sequence =
        lab.running.start(EngineRequest { stop: vec![stop], ..request(&model) }).expect("admitted");
    let events = lab.executor.block_on(drain(&mut *sequence)).expect("it ends");
    assert_eq!(tokens(&events).len(), first);
    let last = events.last();
    assert!(matches!(last, Some(EngineEvent::Finished { reason: EndReason::StopString, .. })));
}
