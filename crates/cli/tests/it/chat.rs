//! Talking through the running node.

use std::io::Write as _;
use std::process::Stdio;

use crate::support::node::chat;
use crate::support::{Node, arg, commons, failure, folder, noise_model, text};

#[test]
fn one_message_gets_one_answer() {
    let folder = folder();
    let model = noise_model(folder.path());
    let node = Node::up(&folder.path().join("a"), &["--model", arg(&model)]);
    let args = ["--message", "hello", "--max-tokens", "12", "--seed", "5"];
    let (first, second) = (chat(node.dir(), &args), chat(node.dir(), &args));
    assert_eq!(first["text"], second["text"], "a seed repeats the answer");
    assert_eq!(first["commons"]["peer"], node.peer());
    assert!(first["commons"]["receipt"].is_string(), "{first}");

    let output = commons(node.dir(), &["chat", "-m", "hello", "--max-tokens", "4"]).output();
    let output = output.unwrap();
    assert!(output.status.success());
    assert!(!output.stdout.is_empty());
    assert!(text(&output.stderr).contains("this node answered with noise"));
}

#[test]
fn questions_can_be_piped_in() {
    let folder = folder();
    let model = noise_model(folder.path());
    let node = Node::up(&folder.path().join("a"), &["--model", arg(&model)]);
    let mut command = commons(node.dir(), &["chat", "--json", "--max-tokens", "4"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"one\n\ntwo\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let answers: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 2, "{answers:?}");
}

#[test]
fn what_cannot_be_asked_is_refused_with_its_reason() {
    let folder = folder();
    let node = Node::up(&folder.path().join("a"), &[]);
    let error = failure(node.dir(), &["chat", "-m", "hi"]);
    assert!(error.contains("no model is in reach"), "{error}");
    let error = failure(node.dir(), &["chat", "-m", "hi", "--model", "nobodys"]);
    assert!(error.contains("nobodys"), "{error}");
}
