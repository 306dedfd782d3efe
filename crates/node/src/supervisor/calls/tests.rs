//! What a child may say of a call, and what it is not believed.

use commons_port::engine::{
    Alternative, Caller, EmbedRequest, EmbeddingVector, Priority, ScoreRequest, Scores,
};
use commons_record::Millis;
use commons_record::key::PublicKey;
use commons_record::order::{PromptInput, Sampling};
use commons_record::settlement::EndReason;

use super::*;

fn caller() -> Caller {
    let key = PublicKey::from_bytes([1; 32]);
    Caller { key, priority: Priority::Owner, shares_prefixes: false }
}

fn model() -> Hash {
    Hash::of_content(b"model")
}

/// For at most two tokens after at most three.
fn request() -> EngineRequest {
    EngineRequest {
        model: model(),
        adapter: None,
        caller: caller(),
        input: PromptInput::Text("a".to_owned()),
        stop: Vec::new(),
        constraint: None,
        tools: None,
        sampling: Sampling::greedy(),
        seed: None,
        prompt_tokens_max: 3,
        completion_tokens_max: 2,
        top_logprobs: 1,
    }
}

fn prefilled(count: u32, cached_tokens: u32) -> EngineEvent {
    EngineEvent::Prefilled { prompt: (0..count).collect(), cached_tokens, tool_format: None }
}

fn token(top: usize) -> EngineEvent {
    let alternative = Alternative { id: 1, text: "a".to_owned(), logprob_micro: 0 };
    let top = vec![alternative; top];
    EngineEvent::Token(Token { id: 1, text: "a".to_owned(), logprob_micro: 0, top })
}

fn finished(text: &str) -> EngineEvent {
    let compute_ms = Millis(1);
    EngineEvent::Finished { reason: EndReason::Stop, text: text.to_owned(), compute_ms }
}

fn refusal(message: &str) -> EngineRefusal {
    refuse(EngineRefusalCode::Failed, message)
}

#[expect(clippy::unnecessary_wraps, reason = "what is answered is one or the other")]
fn started() -> Result<Box<Answer>, EngineRefusal> {
    Ok(Box::new(Answer::Started))
}

/// Plays events to a sequence that has started; the last one is judged.
fn check(events: Vec<EngineEvent>, want: fn(CallId) -> Result<(), Violation>) {
    let mut calls = Calls::default();
    let begun = calls.start(request()).expect("is sent");
    calls.answered(begun.id, started()).expect("has its place");
    let last = events.len() - 1;
    for (at, event) in events.into_iter().enumerate() {
        let told = format!("{event:?}");
        let heard = calls.event(begun.id, event);
        if at == last {
            assert_eq!(heard, want(begun.id), "{told}");
        } else {
            assert_eq!(heard, Ok(()), "{told}");
        }
    }
}

#[test]
fn events_come_in_their_order_and_no_more_than_was_asked_for() {
    let good = |_| Ok(());
    let disorder = |id| Err(Violation::OutOfOrder(id));
    let much = |id| Err(Violation::TooMuch(id));
    let unknown = |id| Err(Violation::UnknownCall(id));
    check(vec![prefilled(3, 3), token(2), token(0), finished("b")], good);
    check(vec![EngineEvent::Failed(refusal("no"))], good);
    check(vec![token(0)], disorder);
    check(vec![finished("")], disorder);
    check(vec![prefilled(1, 0), prefilled(1, 0)], disorder);
    check(vec![prefilled(4, 0)], much);
    check(vec![prefilled(1, 2)], much);
    check(vec![prefilled(1, 0), token(3)], much);
    check(vec![prefilled(1, 0), token(0), token(0), token(0)], much);
    check(vec![prefilled(1, 0), finished(&"x".repeat(TEXT_SIZE_MAX + 1))], much);
    check(vec![prefilled(1, 0), finished(""), token(0)], unknown);
    check(vec![EngineEvent::Failed(refusal("no")), finished("")], unknown);
}

#[test]
fn nothing_comes_ahead_of_what_was_read_beyond_the_window() {
    let mut calls = Calls::default();
    let request = EngineRequest { completion_tokens_max: 1_000, ..request() };
    let mut begun = calls.start(request).expect("is sent");
    calls.answered(begun.id, started()).expect("has its place");
    calls.event(begun.id, prefilled(1, 0)).expect("the first");
    for _ in 1..EVENTS_AHEAD {
        calls.event(begun.id, token(0)).expect("inside the window");
    }
    assert_eq!(calls.event(begun.id, token(0)), Err(Violation::TooMuch(begun.id)));
    calls.read(begun.id, 1);
    calls.event(begun.id, token(0)).expect("one was read");
    // The end of the process finds room beside a full window.
    let gone = refuse(EngineRefusalCode::Unavailable, "gone");
    assert!(begun.events.try_recv().is_ok());
    calls.fail_all(&gone);
    let mut last = None;
    while let Ok(event) = begun.events.try_recv() {
        last = Some(event);
    }
    assert_eq!(last, Some(EngineEvent::Failed(gone)));
}

#[test]
fn a_call_is_answered_with_what_was_asked_once() {
    let mut calls = Calls::default();
    let model = model();
    let (id, mut answer) = calls.ask(Ask::Remove { model }).expect("is sent");
    let removed = || Ok(Box::new(Answer::Removed(true)));
    assert_eq!(calls.answered(id, started()), Err(Violation::WrongAnswer(id)));
    assert_eq!(calls.event(id, token(0)), Err(Violation::WrongAnswer(id)));
    assert_eq!(calls.over(id), Err(Violation::WrongAnswer(id)));
    let (id, mut second) = calls.ask(Ask::Remove { model }).expect("is sent");
    assert_eq!(calls.answered(id, removed()), Ok(()));
    assert_eq!(second.try_recv(), Ok(removed()));
    assert_eq!(calls.answered(id, removed()), Err(Violation::UnknownCall(id)));
    assert!(answer.try_recv().is_err(), "a wrong answer reaches nobody");
}

#[test]
fn a_vector_and_scores_are_what_they_can_be() {
    let mut calls = Calls::default();
    let input = PromptInput::Text("a".to_owned());
    let embed =
        EmbedRequest { model: model(), caller: caller(), input: input.clone(), pooling: None };
    let (id, _answer) = calls.ask(Ask::Embed(embed)).expect("is sent");
    let vector = EmbeddingVector { values: vec![f32::NAN], token_count: 1 };
    let wrong = calls.answered(id, Ok(Box::new(Answer::Vector(vector))));
    assert_eq!(wrong, Err(Violation::WrongAnswer(id)));
    let score = ScoreRequest {
        model: model(),
        adapter: None,
        caller: caller(),
        input,
        from: 0,
        top_logprobs: 0,
        replay: None,
    };
    let (id, _answer) = calls.ask(Ask::Score(score)).expect("is sent");
    let none = Score { token: None, margin: None };
    let scores =
        Scores { tokens: Vec::new(), scores: vec![none.clone()], next: none, next_ends: false };
    let wrong = calls.answered(id, Ok(Box::new(Answer::Scores(scores))));
    assert_eq!(wrong, Err(Violation::WrongAnswer(id)));
}

#[test]
fn a_cancelled_call_takes_what_was_under_way_and_one_last_word() {
    let mut calls = Calls::default();
    let begun = calls.start(request()).expect("is sent");
    calls.cancel(begun.id);
    calls.cancel(begun.id);
    calls.answered(begun.id, started()).expect("was under way");
    calls.event(begun.id, prefilled(1, 0)).expect("was under way");
    assert_eq!(calls.open(&model()), 0, "nobody waits for it");
    assert_eq!(calls.over(begun.id), Ok(()));
    assert_eq!(calls.over(begun.id), Err(Violation::UnknownCall(begun.id)));
    let asked_and_cancelled = std::iter::from_fn(|| calls.next_frame()).count();
    assert_eq!(asked_and_cancelled, 2, "a second wish to cancel is none");
}

#[test]
fn a_refusal_ends_a_start_and_its_words_are_printable_and_short() {
    let mut calls = Calls::default();
    let mut begun = calls.start(request()).expect("is sent");
    let wild = refusal(&format!("\u{1b}[2J{}", "x".repeat(10_000)));
    calls.answered(begun.id, Err(wild)).expect("has its place");
    let told = begun.started.try_recv().expect("is told").expect_err("is refused");
    assert!(told.message.starts_with("[2Jx"), "{}", told.message);
    assert_eq!(told.message.chars().count(), SENTENCE_LEN_MAX);
}

#[test]
fn calls_are_bounded_and_nothing_is_asked_of_a_process_that_is_gone() {
    let mut calls = Calls::default();
    for _ in 0..CALLS_MAX {
        drop(calls.start(request()).expect("there is room"));
    }
    let full = calls.start(request()).err().expect("there is none");
    assert_eq!(full.code, EngineRefusalCode::Overloaded);
    let gone = refuse(EngineRefusalCode::Unavailable, "gone");
    calls.fail_all(&gone);
    assert_eq!(calls.start(request()).err(), Some(gone));
    assert!(calls.next_frame().is_none(), "what was not written is forgotten");
    calls.resume();
    assert!(calls.start(request()).is_ok());
}
