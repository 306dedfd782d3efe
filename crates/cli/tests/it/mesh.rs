//! Two and three nodes: one answers what another asks, and both can prove it.

use std::path::Path;

use serde_json::json;

use crate::support::http::{complete, post, question};
use crate::support::{
    Node, arg, export, fixture, folder, json as command, noise_model, run, string, text, until,
    verify,
};

fn provider(folder: &Path) -> Node {
    let model = noise_model(folder);
    Node::up(&folder.join("a"), &["--share", "--model", arg(&model)])
}

#[test]
fn a_node_without_the_model_is_answered_over_the_mesh() {
    let folder = folder();
    let a = provider(folder.path());
    let b = Node::up(&folder.path().join("b"), &[]);
    b.join(&a);
    let (response, streamed) = complete(b.api(), &question("noise", 40));
    assert!(streamed.is_done, "{streamed:?}");
    assert_eq!(response.header("x-commons-peer"), a.peer());
    let request = response.header("x-commons-request");
    check_both_copies(&a, &b, request, 40);

    let peers = command(b.dir(), &["peers"]);
    assert_eq!(peers[0]["peer"], a.peer(), "{peers}");
    assert_eq!(peers[0]["is_connected"], true);
    assert!(peers[0]["first_token_ms"].is_u64(), "speed is measured: {peers}");
    let models = command(b.dir(), &["models"]);
    assert_eq!((&models[0]["is_local"], &models[0]["peers"]), (&json!(false), &json!([a.peer()])));
    let why = command(b.dir(), &["why", request]);
    assert_eq!(why["decisions"][0]["is_reproduced"], true, "{why}");

    let served = command(a.dir(), &["receipts", "list"]);
    assert_eq!(
        (&served[0]["role"], &served[0]["counterparty"]),
        (&json!("provider"), &json!(b.peer()))
    );
    let asked = command(b.dir(), &["receipts", "list"]);
    assert_eq!(
        (&asked[0]["role"], &asked[0]["receipt"]),
        (&json!("requester"), &served[0]["receipt"])
    );
    assert_eq!(a.wait_for("meter")["orders_served"], 1);
}

/// Both copies are one record, hold for a stranger, and fail if any byte is changed.
fn check_both_copies(a: &Node, b: &Node, request: &str, tokens: u32) {
    let files = until("both copies of the receipt", || {
        let have = |node: &Node| run(node.dir(), &["receipts", "show", request]).status.success();
        (have(a) && have(b)).then(|| [export(a, request, "of-a"), export(b, request, "of-b")])
    });
    let mut receipts = Vec::new();
    for file in &files {
        let (valid, report) = verify(file);
        assert!(valid, "{report}");
        assert_eq!(report["claim"]["two_sided"], true, "{report}");
        assert_eq!(report["claim"]["usage"]["completion_tokens"], tokens);
        assert_eq!(report["claim"]["provider"], a.peer());
        assert_eq!(report["claim"]["requester"], b.peer());
        receipts.push(report["claim"]["receipt"].clone());
        check_tampered(file);
    }
    assert_eq!(receipts[0], receipts[1], "both hold the same receipt");
}

fn check_tampered(file: &Path) {
    let bytes = std::fs::read(file).expect("the evidence is there");
    let tampered = file.with_extension("tampered");
    // A sample over the whole file: every byte would take a process each.
    for index in (0..bytes.len()).step_by(bytes.len() / 12 + 1) {
        let mut changed = bytes.clone();
        changed[index] ^= 1;
        std::fs::write(&tampered, &changed).expect("the folder can be written");
        let (valid, report) = verify(&tampered);
        assert!(!valid, "byte {index} was changed: {report}");
        assert!(!string(&report, "/failure/reason").is_empty());
        assert!(report["claim"].is_null(), "what does not hold claims nothing");
    }
}

/// The requester vouches after every 32 tokens. An answer that ended on such a step was once
/// vouched for twice, and the receipt named the first voucher while the second was expected.
#[test]
fn an_answer_may_end_where_a_voucher_is_due() {
    let folder = folder();
    let a = provider(folder.path());
    let b = Node::up(&folder.path().join("b"), &[]);
    b.join(&a);
    for tokens in [1, 31, 32, 33, 64, 96] {
        let (_, streamed) = complete(b.api(), &question("noise", tokens));
        assert!(streamed.is_done, "{tokens} tokens: {streamed:?}");
        assert!(streamed.proof["receipt"].is_string(), "{tokens} tokens: {streamed:?}");
    }
}

#[test]
fn one_who_joins_late_is_answered_too() {
    let Some(model) = fixture("models/stories260K.gguf") else { return };
    let folder = folder();
    let args = ["--share", "--model", arg(&model)];
    let a = Node::up(&folder.path().join("a"), &args);
    let body = json!({ "model": "stories260K", "prompt": "Once upon a time", "max_tokens": 20,
        "temperature": 0, "stream": true });
    let mut texts = Vec::new();
    for name in ["b", "c"] {
        let asker = Node::up(&folder.path().join(name), &[]);
        asker.join(&a);
        let (response, streamed) = complete(asker.api(), &body);
        assert!(streamed.is_done, "{streamed:?}");
        assert_eq!(response.header("x-commons-peer"), a.peer());
        texts.push(streamed.text);
    }
    assert_eq!(texts[0], texts[1]);
    assert!(texts[0].starts_with(", there was"), "{texts:?}");
}

#[test]
fn a_ticket_on_the_command_line_of_up_joins_too() {
    let folder = folder();
    let a = provider(folder.path());
    let invite = command(a.dir(), &["invite"]);
    let b = Node::up(&folder.path().join("b"), &["--join", string(&invite, "/ticket")]);
    assert_eq!(b.wait_for("join")["state"], "joined");
    // A ticket for one owner is used up.
    let c = Node::up(&folder.path().join("c"), &[]);
    let output = run(c.dir(), &["join", string(&invite, "/ticket")]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("did not let this node in"), "{}", text(&output.stderr));
}

/// Rule N5: only the owner's explicit yes lets others compute here.
#[test]
fn a_node_that_does_not_share_serves_nobody() {
    let folder = folder();
    let model = noise_model(folder.path());
    let a = Node::up(&folder.path().join("a"), &["--model", arg(&model)]);
    let b = Node::up(&folder.path().join("b"), &[]);
    let invite = command(a.dir(), &["invite"]);
    let view = command(b.dir(), &["join", string(&invite, "/ticket")]);
    assert_eq!(view["state"], "joined", "{view}");
    until("the other member", || {
        let peers = command(b.dir(), &["peers"]);
        peers.as_array().filter(|it| !it.is_empty()).map(drop)
    });
    assert_eq!(command(b.dir(), &["models"]), json!([]));
    let refused = post(b.api(), "/v1/completions", &question("noise", 4));
    assert_eq!(refused.status, 404);
    // Rule N1: a stable code and a sentence.
    let error = refused.json();
    assert_eq!(error["error"]["code"], "model_not_found");
    assert!(string(&error, "/error/message").contains("noise"), "{error}");
}

/// Rule M6: a mesh of one gives way, and any other does not.
#[test]
fn a_mesh_that_others_have_joined_is_not_left() {
    let folder = folder();
    let [a, b, c] = ["a", "b", "c"].map(|name| Node::up(&folder.path().join(name), &[]));
    let ticket = |node: &Node| string(&command(node.dir(), &["invite"]), "/ticket").to_owned();
    let of_c = ticket(&c);
    assert_eq!(command(b.dir(), &["join", &ticket(&a)])["state"], "joined");
    for member in [&a, &b] {
        let output = run(member.dir(), &["join", &of_c]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
        let error = text(&output.stderr);
        assert!(error.contains("belongs to mesh") && error.contains("--data-dir"), "{error}");
    }
    // Only an authority invites, and who is none is told so.
    let output = run(b.dir(), &["invite"]);
    assert!(text(&output.stderr).contains("authority"), "{}", text(&output.stderr));
}

#[test]
fn a_ticket_that_works_on_one_machine_alone_says_so() {
    let folder = folder();
    let a = Node::up(&folder.path().join("a"), &[]);
    let output = run(a.dir(), &["invite"]);
    assert!(text(&output.stdout).starts_with("commons1"), "the ticket alone, to be piped");
    assert_eq!(text(&output.stdout).lines().count(), 1);
    assert!(text(&output.stderr).contains("--listen"), "{}", text(&output.stderr));
}

#[test]
fn a_local_only_question_stays_here() {
    let folder = folder();
    let a = provider(folder.path());
    let b = Node::up(&folder.path().join("b"), &[]);
    b.join(&a);
    let output = run(b.dir(), &["chat", "-m", "hi", "--privacy", "local-only"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
    assert_eq!(command(a.dir(), &["receipts", "list"]), json!([]));
}
