//! Everything that a server can do wrong: each ends the answer with a code and a sentence.

use std::time::Duration;

use commons_port::engine::EngineRefusalCode as Code;
use commons_record::Millis;
use commons_remote::{Key, Limits};
use serde_json::json;

use crate::support::{
    Act, DONE, Server, ends, events, head, model, ok, outcome, patient, question, says, status,
    stream, up,
};

/// A server that does this gives this text, and fails so.
async fn check(name: &str, acts: Vec<Act>, text: &str, code: Code, part: &str) {
    let server = Server::answering(acts).await;
    let engine = server.engine().await;
    let told = events(&engine, question(model(&engine, "m"))).await;
    let (got, failed) = outcome(&told);
    let failed = failed.unwrap_or_else(|| panic!("{name} did not fail: {told:?}"));
    assert_eq!((got.as_str(), failed.code), (text, code), "{name}: {failed}");
    assert!(failed.message.contains(part), "{name}: no {part:?} in {failed}");
    assert!(failed.message.contains(&server.addr.to_string()), "{name} is not named: {failed}");
}

#[tokio::test]
async fn a_status_that_is_no_success_is_told_with_the_servers_words() {
    let json = "content-type: application/json\r\n";
    let error = |text: &str| json!({ "error": { "message": text } }).to_string();
    check("401", vec![status(401, json, &error("bad key"))], "", Code::Failed, "bad key").await;
    check("404", vec![status(404, json, &error("gone"))], "", Code::UnknownModel, "gone").await;
    let busy = format!("{json}retry-after: 7\r\n");
    check("429", vec![status(429, &busy, &error("slow down"))], "", Code::Overloaded, "7 s").await;
    check("500", vec![status(500, json, &error("boom"))], "", Code::Failed, "boom").await;
    check("503", vec![status(503, json, &error("loading"))], "", Code::Overloaded, "loading").await;
    for (code, want) in [
        (401, Code::Failed),
        (404, Code::UnknownModel),
        (429, Code::Overloaded),
        (500, Code::Failed),
        (503, Code::Overloaded),
    ] {
        let page = status(code, "content-type: text/html\r\n", "<h1>Oops</h1>");
        check("a page", vec![page], "", want, "<h1>Oops</h1>").await;
        check("no words", vec![status(code, "", "")], "", want, &code.to_string()).await;
    }
    check(
        "too long",
        vec![status(400, json, &error("maximum context length is 9"))],
        "",
        Code::TooLong,
        "context length",
    )
    .await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let acts = vec![status(307, "location: http://127.0.0.1:1/\r\n", "")];
    check("a redirect", acts, "", Code::Failed, "not followed").await;
}

#[tokio::test]
async fn what_is_no_stream_of_events_is_refused() {
    let page = status(200, "content-type: text/html\r\n", "<html>Welcome</html>");
    check("a page", vec![page], "", Code::Failed, "text/html").await;
    check("json", vec![ok(&json!({ "choices": [] }))], "", Code::Failed, "application/json").await;
    let page = stream("<html>\n\n");
    check("a page in a stream", page, "", Code::Failed, "[DONE]").await;
    check(
        "not http",
        vec![Act::Send(b"SSH-2.0-OpenSSH\r\n".to_vec())],
        "",
        Code::Failed,
        "broke off",
    )
    .await;
}

#[tokio::test]
async fn a_stream_that_breaks_is_told_after_what_came() {
    let start =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let event = says("a");
    let piece = format!("{:x}\r\n{event}\r\n", event.len());
    let acts = vec![Act::Send(start.to_vec()), Act::Send(piece.into_bytes())];
    check("it dies", acts, "a", Code::Failed, "broke off").await;
    check("no [DONE]", stream(&says("a")), "a", Code::Failed, "before `[DONE]`").await;
    let cut = says("a") + &ends("stop");
    check("only [DONE] is missing", stream(&cut), "a", Code::Failed, "before `[DONE]`").await;
    check("no finish", stream(&(says("a") + DONE)), "a", Code::Failed, "before `[DONE]`").await;
}

#[tokio::test]
async fn bytes_that_are_no_text_and_lines_without_end_are_refused() {
    let mut bytes = says("a").into_bytes();
    bytes.extend_from_slice(b"data: \xff\xfe\n\n");
    check("no utf-8", vec![head(), Act::Send(bytes)], "a", Code::Failed, "UTF-8").await;
    let endless = [says("a").into_bytes(), b"data: ".to_vec(), vec![b'x'; 3 << 20]].concat();
    check("an endless line", vec![head(), Act::Send(endless)], "a", Code::Failed, "longer than")
        .await;
}

#[tokio::test]
async fn an_answer_of_another_model_a_tool_call_and_a_late_word_are_refused() {
    let other = says("b").replace("\"m\"", "\"n\"");
    check("another model", stream(&(says("a") + &other)), "a", Code::Failed, "\"n\"").await;
    let call = r#"data: {"model":"m","choices":[{"delta":{"tool_calls":[{"id":"1"}]}}]}"#;
    check("a tool call", stream(&format!("{call}\n\n")), "", Code::Unsupported, "tool").await;
    let late = says("a") + &ends("stop") + &says("b");
    check("a late word", stream(&late), "a", Code::Failed, "after it said").await;
    let error = says("a") + "data: {\"error\":{\"message\":\"out of memory\"}}\n\n";
    check("an error in the stream", stream(&error), "a", Code::Failed, "out of memory").await;
    let many = says("x").repeat(17) + &ends("stop") + DONE;
    check("too many tokens", stream(&many), &"x".repeat(16), Code::Failed, "cut off after 16")
        .await;
}

/// A server that is too slow in this way.
async fn check_slow(name: &str, acts: Vec<Act>, limits: Limits, part: &str) {
    let server = Server::answering(acts).await;
    let engine = up(server.config().with_limits(limits)).await;
    let (_, failed) = outcome(&events(&engine, question(model(&engine, "m"))).await);
    let failed = failed.unwrap_or_else(|| panic!("{name} did not fail"));
    assert!(failed.code == Code::Failed && failed.message.contains(part), "{name}: {failed}");
}

#[tokio::test]
async fn silence_and_trickles_end() {
    let short = Millis(150);
    let limits = Limits { first_byte: short, ..patient() };
    check_slow("it never answers", vec![Act::Hang], limits, "did not answer within 150 ms").await;
    let limits = Limits { idle: short, ..patient() };
    check_slow("it falls silent", vec![head(), Act::Hang], limits, "no line within 150 ms").await;
    let drop = [Act::Send(b"x".to_vec()), Act::Wait(Duration::from_millis(20))];
    let trickle: Vec<_> = [head()].into_iter().chain(drop.into_iter().cycle().take(2000)).collect();
    check_slow("it trickles", trickle, limits, "no line within 150 ms").await;
    let limits = Limits { total: short, ..patient() };
    let ping = [Act::Send(b": ping\n\n".to_vec()), Act::Wait(Duration::from_millis(20))];
    let pings: Vec<_> = [head()].into_iter().chain(ping.into_iter().cycle().take(2000)).collect();
    check_slow("it pings for ever", pings, limits, "longer than 150 ms").await;
}

#[tokio::test]
async fn comments_and_data_in_several_lines_are_part_of_a_stream() {
    let split = "data: {\"model\":\"m\",\ndata: \"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    let text = format!(": hello\n\n{split}event: x\nid: 1\n: ping\n\n{}{DONE}", ends("stop"));
    let server = Server::answering(stream(&text)).await;
    let engine = server.engine().await;
    let (text, failed) = outcome(&events(&engine, question(model(&engine, "m"))).await);
    assert_eq!((text.as_str(), failed), ("a", None));
}

#[tokio::test]
async fn what_follows_the_end_is_not_read() {
    let text = says("a") + &ends("stop") + DONE + &says("b") + "data: garbage\n\n";
    let server = Server::answering(stream(&text)).await;
    let engine = server.engine().await;
    let (text, failed) = outcome(&events(&engine, question(model(&engine, "m"))).await);
    assert_eq!((text.as_str(), failed), ("a", None));
}

#[tokio::test]
async fn a_server_that_repeats_the_key_does_not_make_us_tell_it() {
    let acts = vec![status(401, "", r#"{"error":"no such key: sk-very-secret"}"#)];
    let server = Server::answering(acts).await;
    let key = Key::new("sk-very-secret").expect("is a key");
    let engine = up(server.config().with_key(key).expect("is near")).await;
    let (_, failed) = outcome(&events(&engine, question(model(&engine, "m"))).await);
    let failed = failed.expect("it fails").message;
    assert!(failed.contains("[key]") && !failed.contains("sk-very-secret"), "{failed}");
    let head = &server.questions()[0].head;
    assert!(head.contains("Bearer sk-very-secret"), "it was sent: {head}");
    assert!(!format!("{engine:?} {:?}", engine.view()).contains("sk-very-secret"));
}
