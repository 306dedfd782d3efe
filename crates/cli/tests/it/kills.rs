//! `kill -9` in the middle of an answer: nothing hangs, and the records cover what was delivered
//! and no more (Rules E3, E4, E11, E13 and E14).

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::http::{Response, Streamed, post, question};
use crate::support::{
    Node, arg, export, folder, json, noise_model, now, run, string, until, verify,
};

/// As many tokens as the noise model's context holds, less the prompt.
const LONG: u32 = 1_900;

/// Vouchers are due after 32 tokens: by now one was sent.
const MIDDLE: u64 = 70;

/// A client is told within this that its provider is gone.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

struct Scene {
    a: Node,
    b: Node,
    response: Response,
    streamed: Streamed,
    request: String,
}

/// A provider, a requester, and a long answer between them that has begun.
fn begin(folder: &Path) -> Scene {
    let model = noise_model(folder);
    let a = Node::up(&folder.join("a"), &["--share", "--model", arg(&model)]);
    let b = Node::up(&folder.join("b"), &[]);
    b.join(&a);
    let mut response = post(b.api(), "/v1/completions", &question("noise", LONG));
    let mut streamed = Streamed::default();
    while streamed.token_count < MIDDLE {
        assert!(streamed.take(&response.event().expect("the answer goes on")), "{streamed:?}");
    }
    let request = response.header("x-commons-request").to_owned();
    Scene { a, b, response, streamed, request }
}

/// The claim of a node's copy of the evidence, once it has one, verified by a stranger.
fn claim(node: &Node, request: &str, name: &str) -> Value {
    until("evidence of the broken answer", || {
        run(node.dir(), &["receipts", "show", request]).status.success().then_some(())
    });
    let (valid, report) = verify(&export(node, request, name));
    assert!(valid, "{report}");
    report["claim"].clone()
}

#[test]
fn a_killed_provider_is_told_to_the_client_and_owed_what_it_delivered() {
    let folder = folder();
    let Scene { a, b, mut response, mut streamed, request } = begin(folder.path());
    let (dir, listen) = (a.dir().to_owned(), a.listen_args());
    a.kill();
    let killed = now();
    streamed.read(&mut response);
    let told_after = killed.elapsed();
    assert!(!streamed.is_done, "the answer is not complete");
    assert!(streamed.error["code"].is_string(), "the stream ends with an error: {streamed:?}");
    assert!(told_after < TOLD_WITHIN, "told after {told_after:?}");

    // The provider comes back with nothing but its folder, where it was.
    let listen: Vec<&str> = listen.iter().map(String::as_str).collect();
    let a = Node::up(&dir, &[&["--share"], &listen[..]].concat());
    let (of_a, of_b) = (claim(&a, &request, "of-a"), claim(&b, &request, "of-b"));
    assert_eq!(of_a["receipt"], of_b["receipt"], "both hold the same receipt");
    let claimed = of_b["usage"]["completion_tokens"].as_u64().unwrap();
    assert!(claimed > 0, "what was delivered is owed: {of_b}");
    assert!(claimed <= streamed.token_count, "{claimed} of {} tokens", streamed.token_count);
}

#[test]
fn a_killed_requester_leaves_a_receipt_that_claims_its_last_voucher() {
    let folder = folder();
    let Scene { a, b, request, .. } = begin(folder.path());
    b.kill();
    let claim = claim(&a, &request, "of-a");
    assert_eq!(claim["acknowledged"], false, "{claim}");
    assert_eq!(claim["two_sided"], false);
    let claimed = claim["usage"]["completion_tokens"].as_u64().unwrap();
    assert!((32..u64::from(LONG)).contains(&claimed), "{claim}");
    assert_eq!(claimed % 32, 0, "vouchers are for whole steps: {claim}");
    let listed = json(a.dir(), &["receipts", "list"]);
    assert_eq!(listed[0]["acknowledged"], false);
    assert_eq!(string(&listed[0], "/role"), "provider");
}
