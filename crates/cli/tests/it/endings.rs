//! How a node ends: in order, with its folder free for the next.

use crate::support::http::{Streamed, post, question};
use crate::support::{Node, arg, folder, json, noise_model, run};

type Wish = fn(&mut Node);

#[test]
fn every_wish_to_end_ends_in_order() {
    let folder = folder();
    let dir = folder.path().join("a");
    let wishes: [(&str, Wish); 4] = [
        ("SIGINT", |node| node.interrupt()),
        ("SIGTERM", |node| node.terminate()),
        ("commons stop", |node| assert_eq!(json(node.dir(), &["stop"])["stopped"], true)),
        ("the end of standard input", |node| drop(node.stdin.take())),
    ];
    for (name, wish) in wishes {
        // The folder is free again, or the next one would not start.
        let mut node = Node::up(&dir, &["--until-stdin-ends"]);
        wish(&mut node);
        let status = node.ended();
        assert!(status.success(), "{name}: {status}");
        node.wait_for("stopped");
        assert!(!dir.join("control.sock").exists(), "{name}");
    }
}

#[test]
fn an_answer_in_work_may_end() {
    let folder = folder();
    let model = noise_model(folder.path());
    let mut node = Node::up(&folder.path().join("a"), &["--model", arg(&model)]);
    let mut response = post(node.api(), "/v1/completions", &question("noise", 200));
    let mut streamed = Streamed::default();
    while streamed.token_count < 5 {
        assert!(streamed.take(&response.event().expect("the answer goes on")));
    }
    node.interrupt();
    streamed.read(&mut response);
    assert!(streamed.is_done, "{streamed:?}");
    assert_eq!(streamed.token_count, 200);
    assert!(node.ended().success());
}

#[test]
fn a_second_interrupt_ends_at_once() {
    let folder = folder();
    let model = noise_model(folder.path());
    let mut node = Node::up(&folder.path().join("a"), &["--model", arg(&model)]);
    // Nobody reads the long answer, so the node would wait for its end.
    let body = serde_json::json!({ "model": "noise", "prompt": "x", "max_tokens": 1900, "stream": true,
        "logprobs": 20, "logit_bias": { "2": -100 } });
    let mut response = post(node.api(), "/v1/completions", &body);
    response.event().expect("the answer begins");
    node.interrupt();
    // The first was heard when no connection is accepted any more.
    crate::support::until("the API's end", || std::net::TcpStream::connect(node.api()).err());
    node.interrupt();
    assert_eq!(node.ended().code(), Some(130));
}

#[test]
fn a_killed_node_leaves_a_folder_that_starts() {
    let folder = folder();
    let dir = folder.path().join("a");
    let first = Node::up(&dir, &[]);
    let peer = first.peer().to_owned();
    first.kill();
    assert!(dir.join("control.sock").exists(), "this test is about what a kill leaves");
    assert_eq!(run(&dir, &["peers"]).status.code(), Some(1));
    let second = Node::up(&dir, &[]);
    assert_eq!(second.peer(), peer, "it is the same node");
}
