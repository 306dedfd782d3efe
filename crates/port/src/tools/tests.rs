//! Each format: a table of answers, each cut at every byte.

use commons_record::constraint::ToolFormat::{self, Hermes, Llama, MistralArgs, MistralList};
use proptest::prelude::*;

use super::*;

/// What an answer came to: its text, and each call's name, arguments and whether it is complete.
type Read = (String, Vec<(String, String, bool)>);

fn gather(pieces: Vec<Piece>) -> Read {
    let mut read: Read = Default::default();
    for piece in pieces {
        let last = read.1.last_mut();
        match (piece, last) {
            (Piece::Text(text), _) => read.0 += &text,
            (Piece::Begins { name }, _) => read.1.push((name, String::new(), false)),
            (Piece::Arguments(text), Some(call)) if !call.2 => call.1 += &text,
            (Piece::Ends, Some(call)) if !call.2 => call.2 = true,
            (piece, _) => panic!("{piece:?} outside of a call"),
        }
    }
    read
}

fn parse<'a>(format: ToolFormat, parts: impl IntoIterator<Item = &'a str>) -> Read {
    let mut parser = CallParser::new(format);
    let mut pieces: Vec<Piece> = parts.into_iter().flat_map(|part| parser.push(part)).collect();
    pieces.extend(parser.finish());
    gather(pieces)
}

/// Whole, in two parts at every place, and character by character.
fn check(format: ToolFormat, answer: &str, text: &str, calls: &[(&str, &str)]) {
    let calls = calls.iter().map(|(name, arguments)| {
        let (arguments, is_whole) = match arguments.strip_suffix('…') {
            Some(arguments) => (arguments, false),
            None => (*arguments, true),
        };
        (name.to_string(), arguments.to_owned(), is_whole)
    });
    let want: Read = (text.to_owned(), calls.collect());
    assert_eq!(parse(format, [answer]), want, "{format:?} {answer:?}");
    for (at, _) in answer.char_indices() {
        let parts = [&answer[..at], &answer[at..]];
        assert_eq!(parse(format, parts), want, "{format:?} {parts:?}");
    }
    let letters = answer.char_indices().map(|(at, c)| &answer[at..at + c.len_utf8()]);
    assert_eq!(parse(format, letters), want, "{format:?} {answer:?} letter by letter");
}

#[test]
fn calls_between_the_words_of_hermes() {
    let call = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}\\\"{\"}}\n</tool_call>";
    let arguments = "{\"a\": \"}\\\"{\"}";
    check(Hermes, "", "", &[]);
    check(Hermes, "hello", "hello", &[]);
    check(Hermes, "a < b <tool_cal", "a < b <tool_cal", &[]);
    check(Hermes, call, "", &[("f", arguments)]);
    check(Hermes, &format!("Let me see.\n{call}"), "Let me see.\n", &[("f", arguments)]);
    check(Hermes, &format!("{call}\n{call}"), "", &[("f", arguments), ("f", arguments)]);
    check(Hermes, &format!("{call}\n"), "", &[("f", arguments)]);
    check(Hermes, &format!("{call} so"), " so", &[("f", arguments)]);
    let tight = r#"<tool_call>{"name":"f","arguments":{}}</tool_call>"#;
    check(Hermes, tight, "", &[("f", "{}")]);
}

#[test]
fn what_is_no_call_stays_text() {
    for answer in [
        "<tool_call>\nhello",
        "<tool_call>\n{\"name\": 1}",
        "<tool_call>\n{\"name\": \"f f\", \"arguments\": {}}",
        "<tool_call>\n{\"name\": \"\", \"arguments\": {}}",
        "<tool_call>\n{\"name\": \"f\", \"arguments\": []}\n</tool_call>",
        "<tool_call>",
    ] {
        check(Hermes, answer, answer, &[]);
    }
    let long = format!("<tool_call>{}", " ".repeat(10_000));
    check(Hermes, &long[..600], &long[..600], &[]);
    for answer in ["{}", "{\"a\": 1}", "hello {\"name\": \"f\", \"parameters\": {}}", "{", " x"] {
        check(Llama, answer, answer, &[]);
    }
    for answer in ["[TOOL_CALLS]", "[TOOL_CALLS] no", "[TOOL_CALLS] [1]", "[1]"] {
        check(MistralList, answer, answer, &[]);
    }
    for answer in ["[TOOL_CALLS]f", "[TOOL_CALLS]f[ARGS]1", "[ARGS]{}"] {
        check(MistralArgs, answer, answer, &[]);
    }
}

#[test]
fn an_answer_that_breaks_off_tells_as_much_as_came() {
    let cut = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": [1,";
    check(Hermes, cut, "", &[("f", "{\"a\": [1,…")]);
    check(Hermes, "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool", "", &[("f", "{}")]);
    check(Llama, r#"{"name": "f", "parameters": {"a"#, "", &[("f", "{\"a…")]);
    check(MistralList, r#"[TOOL_CALLS] [{"name": "f", "arguments": {}}, "#, "", &[("f", "{}")]);
    check(MistralArgs, r#"[TOOL_CALLS]f[ARGS]{"a": "#, "", &[("f", "{\"a\": …")]);
}

#[test]
fn calls_of_llama_are_the_whole_answer() {
    let call = r#"{"name": "get_weather", "parameters": {"city": "Ulm"}}"#;
    let one = ("get_weather", r#"{"city": "Ulm"}"#);
    check(Llama, call, "", &[one]);
    check(Llama, &format!("<|python_tag|>{call}"), "", &[one]);
    check(Llama, &format!("{call}; {call}"), "", &[one, one]);
    check(Llama, r#"{"name": "f", "arguments": {}}"#, "", &[("f", "{}")]);
    check(Llama, &format!("{call} and"), " and", &[one]);
}

#[test]
fn calls_of_mistral_stand_in_a_list_or_behind_their_names() {
    let list = r#"[TOOL_CALLS] [{"name": "f", "arguments": {"a": [1, {}]}}, {"name": "g", "arguments": {}}]"#;
    check(MistralList, list, "", &[("f", r#"{"a": [1, {}]}"#), ("g", "{}")]);
    check(MistralList, &format!("So: {list}"), "So: ", &[("f", r#"{"a": [1, {}]}"#), ("g", "{}")]);
    let calls = r#"[TOOL_CALLS]f[ARGS]{"a": "]"}[TOOL_CALLS]g-2[ARGS]{}"#;
    check(MistralArgs, calls, "", &[("f", r#"{"a": "]"}"#), ("g-2", "{}")]);
    check(MistralArgs, &format!("x{calls}"), "x", &[("f", r#"{"a": "]"}"#), ("g-2", "{}")]);
}

proptest! {
    /// Whatever a peer sends, nothing panics, and where it is cut changes nothing.
    #[test]
    fn cuts_change_nothing(
        format in prop_oneof![Just(Hermes), Just(Llama), Just(MistralList), Just(MistralArgs)],
        words in proptest::collection::vec(prop_oneof![
            Just("<tool_call>"), Just("</tool_call>"), Just("[TOOL_CALLS]"), Just("[ARGS]"),
            Just("<|python_tag|>"), Just("{\"name\": \"f\", \"arguments\": "), Just("{"), Just("}"),
            Just("[{\"name\": \"g\", \"parameters\": "), Just("\""), Just("\\"), Just(" "),
            Just("\n"), Just("f"), Just("]"), Just(","), Just("é🦙"), Just("; "), Just("<tool_"),
        ], 0..24),
        cut in any::<prop::sample::Index>(),
    ) {
        let whole = words.concat();
        let places: Vec<usize> = whole.char_indices().map(|(at, _)| at).chain([whole.len()]).collect();
        let (a, b) = whole.split_at(places[cut.index(places.len())]);
        prop_assert_eq!(parse(format, [a, b]), parse(format, [whole.as_str()]));
    }
}
