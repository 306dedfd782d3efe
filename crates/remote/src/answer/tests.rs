//! What follows from each event that a server may send.

use commons_port::engine::EngineRefusalCode;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn asked() -> Asked {
    Asked {
        model: "m".to_owned(),
        prompt_size: 10,
        prompt: None,
        prompt_tokens_max: 100,
        completion_tokens_max: 8,
        top_logprobs: 0,
    }
}

/// Everything that comes out of these events, and how it ends.
fn told(asked: Asked, events: &[&str]) -> (Vec<EngineEvent>, Result<Progress, Fault>, Answer) {
    let (mut answer, mut out, mut result) = (Answer::new(asked), Vec::new(), Ok(Progress::More));
    for event in events {
        result = answer.data(event, &mut out);
        if result != Ok(Progress::More) {
            break;
        }
    }
    (out, result, answer)
}

fn says(text: &str) -> String {
    json!({ "model": "m", "choices": [{ "index": 0, "delta": { "content": text } }] }).to_string()
}

fn ends(reason: &str) -> String {
    json!({ "model": "m", "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }] })
        .to_string()
}

fn texts(events: &[EngineEvent]) -> Vec<&str> {
    let mut texts = Vec::new();
    for event in events {
        if let EngineEvent::Token(token) = event {
            texts.push(token.text.as_str());
        }
    }
    texts
}

fn fails(events: &[&str], want: &Fault) {
    let (out, result, _) = told(asked(), events);
    assert_eq!(result.as_ref().err(), Some(want), "{events:?} gave {out:?}");
}

#[test]
fn an_answer_is_its_events_in_order() {
    let (out, result, _) =
        told(asked(), &[&says(""), &says("a"), &says("b"), &ends("stop"), "[DONE]"]);
    assert_eq!(result, Ok(Progress::Done(EndReason::Stop)));
    assert_eq!(
        out[0],
        EngineEvent::Prefilled { prompt: Vec::new(), cached_tokens: 0, tool_format: None }
    );
    assert_eq!(texts(&out), ["a", "b"]);
    let EngineEvent::Token(token) = &out[1] else { panic!("a token: {out:?}") };
    assert_eq!((token.id, token.logprob_micro), (Token::NO_ID, Token::NO_LOGPROB));
}

#[test]
fn another_model_is_never_passed_on() {
    let other = json!({ "model": "n", "choices": [{ "delta": { "content": "x" } }] }).to_string();
    let (out, result, _) = told(asked(), &[&other]);
    assert!(matches!(result, Err(Fault::OtherModel { .. })) && out.is_empty(), "{out:?}");
    let (out, result, _) = told(asked(), &[&says("a"), &other]);
    assert!(matches!(result, Err(Fault::OtherModel { .. })));
    assert_eq!(texts(&out), ["a"]);
    let nameless = json!({ "choices": [{ "delta": { "content": "x" } }] }).to_string();
    fails(&[&nameless], &Fault::NamelessModel);
}

#[test]
fn what_is_no_answer_fails_with_its_reason() {
    let with = |delta: serde_json::Value| {
        json!({ "model": "m", "choices": [{ "delta": delta }] }).to_string()
    };
    fails(&[&with(json!({ "tool_calls": [{ "id": "x" }] }))], &Fault::ToolCall);
    fails(&[&ends("tool_calls")], &Fault::ToolCall);
    fails(&[&ends("stop"), &says("more")], &Fault::AfterFinish);
    fails(&[&says("a"), "[DONE]"], &Fault::EndedEarly);
    fails(&[&ends("content_filter")], &Fault::WorthlessEnd { reason: "content_filter".into() });
    let other = json!({ "model": "m", "choices": [{ "index": 1, "delta": {} }] }).to_string();
    fails(&[&other], &Fault::OtherChoice);
    let error = json!({ "error": { "message": "CUDA out of memory", "code": 500 } }).to_string();
    fails(&[&says("a"), &error], &Fault::Error { words: "\"CUDA out of memory\"".into() });
    assert!(matches!(told(asked(), &["<html>"]).1, Err(Fault::Json { .. })));
}

#[test]
fn an_empty_list_of_tool_calls_is_none() {
    let delta = json!({ "content": "a", "tool_calls": [], "function_call": null });
    let chunk = json!({ "model": "m", "choices": [{ "delta": delta }] }).to_string();
    assert_eq!(texts(&told(asked(), &[&chunk]).0), ["a"]);
}

#[test]
fn more_than_was_asked_for_is_cut_off() {
    let say = says("x");
    let events = vec![say.as_str(); 9];
    let (out, result, _) = told(asked(), &events);
    assert_eq!((texts(&out).len(), result), (8, Err(Fault::TooMuch { count: 8, what: "tokens" })));
    let (out, result, _) = told(asked(), &[&says(&"x".repeat(100_000))]);
    assert!(matches!(result, Err(Fault::TooMuch { .. })), "{result:?}");
    assert!(texts(&out).iter().map(|it| it.len()).sum::<usize>() <= 8 * TOKEN_TEXT_MAX);
}

#[test]
fn the_servers_ids_and_prompt_are_taken_where_it_sends_them() {
    let logprobs = json!({ "content": [
        { "token": "a", "logprob": -0.5, "top_logprobs": [{ "token": "b", "logprob": -2.0 }, { "token": "a", "logprob": -0.5 }] },
        { "token": "b", "logprob": -9999.0, "top_logprobs": [] },
    ] });
    let chunk = json!({
        "model": "m", "prompt_token_ids": [1, 2, 3],
        "usage": { "prompt_tokens": 3, "prompt_tokens_details": { "cached_tokens": 2 } },
        "choices": [{ "delta": { "content": "ab" }, "token_ids": [7, 8], "logprobs": logprobs }],
    });
    let (out, result, _) = told(Asked { top_logprobs: 1, ..asked() }, &[&chunk.to_string()]);
    assert_eq!(result, Ok(Progress::More));
    assert_eq!(
        out[0],
        EngineEvent::Prefilled { prompt: vec![1, 2, 3], cached_tokens: 2, tool_format: None }
    );
    let [_, EngineEvent::Token(a), EngineEvent::Token(b)] = out.as_slice() else {
        panic!("two tokens: {out:?}")
    };
    assert_eq!((a.id, a.text.as_str(), a.logprob_micro), (7, "a", -500_000));
    assert_eq!((b.id, b.text.as_str(), b.logprob_micro), (8, "b", Token::NO_LOGPROB + 1));
    let top: Vec<_> = a.top.iter().map(|it| (it.text.as_str(), it.id)).collect();
    assert_eq!(top, [("a", Token::NO_ID)], "the likeliest, as many as were asked for");
}

#[test]
fn a_completion_is_read_like_a_chat() {
    let logprobs = json!({ "tokens": [" upon"], "token_logprobs": [-0.25], "text_offset": [4],
        "top_logprobs": [{ " upon": -0.25, " there": -4.0 }] });
    let chunk =
        json!({ "model": "m", "choices": [{ "index": 0, "text": " upon", "logprobs": logprobs }] });
    let (out, _, _) = told(Asked { top_logprobs: 2, ..asked() }, &[&chunk.to_string()]);
    let EngineEvent::Token(token) = &out[1] else { panic!("a token: {out:?}") };
    assert_eq!((token.text.as_str(), token.logprob_micro, token.top.len()), (" upon", -250_000, 2));
    assert_eq!(token.top[1].logprob_micro, -4_000_000);
}

#[test]
fn logprobs_that_were_asked_for_and_do_not_come_are_a_fault() {
    let (_, result, _) = told(Asked { top_logprobs: 1, ..asked() }, &[&says("a")]);
    assert_eq!(result, Err(Fault::NoLogprobs));
    assert_eq!(Fault::NoLogprobs.refusal("s", None).code, EngineRefusalCode::Unsupported);
}

#[test]
fn the_prompt_is_counted_where_the_server_tells_in_time() {
    let check = |extra: serde_json::Value, want: usize, cached: u32, lies: bool| {
        let mut chunk = json!({ "model": "m", "choices": [{ "delta": { "content": "a" } }] });
        chunk
            .as_object_mut()
            .expect("an object")
            .extend(extra.as_object().expect("an object").clone());
        let asked = Asked { prompt_tokens_max: 10_000, ..asked() };
        let (out, _, answer) = told(asked, &[&chunk.to_string()]);
        let prefilled = EngineEvent::Prefilled {
            prompt: vec![Token::NO_ID; want],
            cached_tokens: cached,
            tool_format: None,
        };
        assert_eq!((&out[0], answer.lie().is_some()), (&prefilled, lies), "{extra}");
    };
    check(json!({}), 0, 0, false);
    check(json!({ "usage": { "prompt_tokens": 5 } }), 5, 0, false);
    check(json!({ "timings": { "prompt_n": 2, "cache_n": 3 } }), 5, 3, false);
    check(json!({ "usage": { "prompt_tokens": -5 } }), 0, 0, false);
    check(json!({ "usage": { "prompt_tokens": 5000 } }), 0, 0, true);
    check(
        json!({ "usage": { "prompt_tokens": 5, "prompt_tokens_details": { "cached_tokens": 50 } } }),
        5,
        5,
        false,
    );
    let chunk =
        json!({ "model": "m", "usage": { "prompt_tokens": 101 }, "choices": [{ "delta": {} }] });
    fails(&[&chunk.to_string()], &Fault::PromptTooLong { count: 101, max: 100 });
}

#[test]
fn a_count_that_cannot_be_is_named_and_not_believed() {
    let check = |usage: serde_json::Value, lies: bool| {
        let last = json!({ "model": "m", "choices": [], "usage": usage }).to_string();
        let (out, result, answer) = told(asked(), &[&says("abc"), &ends("stop"), &last, "[DONE]"]);
        assert_eq!(result, Ok(Progress::Done(EndReason::Stop)), "{usage}");
        assert_eq!(
            (texts(&out).len(), answer.lie().is_some()),
            (1, lies),
            "{usage}: {:?}",
            answer.lie()
        );
    };
    check(json!({ "prompt_tokens": 5, "completion_tokens": 3 }), false);
    check(json!({ "prompt_tokens": 5, "completion_tokens": 4 }), false);
    check(json!({ "prompt_tokens": 5, "completion_tokens": 1000 }), true);
    check(json!({ "prompt_tokens": 5, "completion_tokens": -1 }), true);
    check(json!({ "prompt_tokens": 5, "completion_tokens": 1.5 }), true);
    check(json!({ "prompt_tokens": 1e30, "completion_tokens": 3 }), true);
    check(json!({ "prompt_tokens": "many", "completion_tokens": 3 }), true);
    check(json!({}), false);
}

#[test]
fn what_is_thought_is_counted_and_not_said() {
    let thought = json!({ "model": "m", "choices": [{ "delta": { "reasoning_content": "hm" } }] });
    let (out, _, _) = told(asked(), &[&thought.to_string(), &says("a")]);
    assert_eq!(texts(&out), ["", "a"]);
}

#[test]
fn a_large_piece_is_cut_into_texts_that_an_exchange_takes() {
    let piece = "ä".repeat(5000);
    let (out, result, _) = told(Asked { completion_tokens_max: 1000, ..asked() }, &[&says(&piece)]);
    assert_eq!(result, Ok(Progress::More));
    assert!(texts(&out).len() > 1 && texts(&out).iter().all(|it| it.len() <= 4096));
    assert_eq!(texts(&out).concat(), piece);
}

#[test]
fn a_stop_string_is_told_apart_where_the_server_does() {
    let end = json!({ "model": "m", "choices": [{ "delta": {}, "finish_reason": "stop", "stop_reason": "END" }] });
    assert_eq!(
        told(asked(), &[&end.to_string(), "[DONE]"]).1,
        Ok(Progress::Done(EndReason::StopString))
    );
    assert_eq!(
        told(asked(), &[&ends("length"), "[DONE]"]).1,
        Ok(Progress::Done(EndReason::Length))
    );
}

proptest! {
    /// Whatever a server sends, no more comes out than was asked for, and nothing panics.
    #[test]
    fn no_more_comes_out_than_was_asked_for(texts_sent in proptest::collection::vec(".{0,40}", 0..30), ids in proptest::collection::vec(any::<u32>(), 0..20)) {
        let mut events: Vec<String> = texts_sent.iter().map(|it| says(it)).collect();
        events.push(json!({ "model": "m", "choices": [{ "delta": { "content": "z" }, "token_ids": ids }] }).to_string());
        let events: Vec<_> = events.iter().map(String::as_str).collect();
        let (out, _, _) = told(asked(), &events);
        prop_assert!(texts(&out).len() <= 8);
        let all = texts_sent.concat() + "z";
        prop_assert!(all.starts_with(&texts(&out).concat()));
    }
}
