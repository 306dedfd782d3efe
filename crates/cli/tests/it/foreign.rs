//! A node in front of a foreign engine: any server that speaks the OpenAI API.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::{Value, json};

use crate::support::http::{complete, post};
use crate::support::{Node, folder, json as command, run, string, text};

/// A server with the model `m` that streams this to whoever asks. It ends with the test.
fn server(stream: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(connection) = connection else { return };
            std::thread::spawn(move || answer(connection, stream));
        }
    });
    addr
}

/// One request, one response, and the end of the connection.
fn answer(connection: TcpStream, stream: &str) -> Option<()> {
    let mut reader = BufReader::new(connection.try_clone().ok()?);
    let (mut first, mut size) = (String::new(), 0);
    reader.read_line(&mut first).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        size = line.strip_prefix("content-length: ").and_then(|it| it.parse().ok()).unwrap_or(size);
    }
    reader.read_exact(&mut vec![0; size]).ok()?;
    let mut connection = connection;
    if first.contains("/v1/models") {
        let list = json!({ "data": [{ "id": "m" }] }).to_string();
        let length = list.len();
        write!(connection, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{list}").ok()
    } else if first.contains("completions") {
        write!(connection, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{stream}")
            .ok()
    } else {
        write!(connection, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").ok()
    }
}

const HELLO: &str = concat!(
    r#"data: {"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#,
    "\n\n",
    r#"data: {"model":"m","choices":[{"index":0,"delta":{"content":"Hel"}}]}"#,
    "\n\n",
    r#"data: {"model":"m","choices":[{"index":0,"delta":{"content":"lo"}}]}"#,
    "\n\n",
    r#"data: {"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
    "\n\n",
    "data: [DONE]\n\n",
);

/// It dies after its first word.
const BROKEN: &str =
    concat!(r#"data: {"model":"m","choices":[{"index":0,"text":"Hel"}]}"#, "\n\n",);

fn question() -> Value {
    let messages = json!([{ "role": "user", "content": "hi" }]);
    json!({ "model": "openai/m", "max_tokens": 8, "messages": messages })
}

#[test]
fn a_foreign_engine_answers_through_the_gateway_and_is_named() {
    let folder = folder();
    let addr = server(HELLO);
    let node = Node::up(&folder.path().join("a"), &["--engine", &format!("http://{addr}/v1")]);
    assert_eq!(node.ready["models"], json!(["openai/m"]));
    let answer = post(node.api(), "/v1/chat/completions", &question());
    assert_eq!(answer.status, 200);
    let answer = answer.json();
    assert_eq!(string(&answer, "/choices/0/message/content"), "Hello");
    assert_eq!(string(&answer, "/choices/0/finish_reason"), "stop");
    assert_eq!(string(&answer, "/commons/quantisation"), "undeclared");
    let models = command(node.dir(), &["models"]);
    assert_eq!(string(&models, "/0/engine"), format!("openai at http://{addr}"));
    let shown = text(&run(node.dir(), &["models"]).stdout);
    assert!(shown.contains(&format!("openai at http://{addr}")), "{shown}");
}

#[test]
fn logprobs_that_a_foreign_engine_does_not_tell_are_null() {
    let folder = folder();
    let addr = server(HELLO);
    let node = Node::up(&folder.path().join("a"), &["--engine", &format!("http://{addr}")]);
    let mut question = question();
    question["logprobs"] = json!(true);
    let answer = post(node.api(), "/v1/chat/completions", &question).json();
    assert_eq!(
        answer.pointer("/choices/0/logprobs/content/0/logprob"),
        Some(&Value::Null),
        "{answer}"
    );
}

#[test]
fn a_foreign_engine_that_dies_is_told_to_the_client() {
    let folder = folder();
    let addr = server(BROKEN);
    let node = Node::up(&folder.path().join("a"), &["--engine", &format!("http://{addr}")]);
    let question =
        json!({ "model": "openai/m", "prompt": "Once", "max_tokens": 8, "stream": true });
    let (_, streamed) = complete(node.api(), &question);
    assert_eq!(streamed.text, "Hel");
    let reason = string(&streamed.error, "/message");
    assert!(reason.contains("before `[DONE]`"), "{reason}");
    assert!(!streamed.is_done);
}

/// Rule E15.
#[test]
fn a_foreign_engine_is_not_lent_to_the_mesh() {
    let folder = folder();
    let addr = server(HELLO);
    let noise = crate::support::noise_model(folder.path());
    let engine = format!("http://{addr}");
    let args = ["--share", "--engine", &engine, "--model", crate::support::arg(&noise)];
    let a = Node::up(&folder.path().join("a"), &args);
    let b = Node::up(&folder.path().join("b"), &[]);
    b.join(&a);
    let models = command(b.dir(), &["models"]);
    let names: Vec<_> =
        models.as_array().expect("a list").iter().map(|it| string(it, "/name")).collect();
    assert_eq!(names, ["noise"]);
}

/// Rule P1: an engine elsewhere on the network is not this machine.
#[test]
fn a_question_that_must_stay_here_does_not_go_to_an_engine_elsewhere() {
    let folder = folder();
    let addr = server(HELLO);
    // A name under plain http may be anywhere on the local network, even if it is here today.
    let host = format!("http://localhost.:{}", addr.port());
    let node = Node::begin(&folder.path().join("a"), &["--engine", &host]);
    let event = node.wait_for("ready");
    if event["models"] != json!(["openai/m"]) {
        eprintln!("SKIPPED: this machine does not resolve `localhost.`");
        return;
    }
    let output = run(node.dir(), &["chat", "-m", "hi", "--privacy", "local-only"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let output = run(node.dir(), &["chat", "-m", "hi", "--privacy", "lan"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn an_address_that_would_show_prompts_to_everyone_is_refused() {
    let folder = folder();
    for (engine, part) in [
        ("http://8.8.8.8", "insecure=on"),
        ("http://me:hunter2@localhost", "key-file"),
        ("http://localhost,kind=unheard", "llama-server"),
    ] {
        let output = run(folder.path(), &["up", "--api", "127.0.0.1:0", "--engine", engine]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(part) && !said.contains("hunter2"), "{said}");
    }
}
