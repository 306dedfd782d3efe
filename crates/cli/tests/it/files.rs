//! Files as people use them: published on one machine, pulled on another, read by tools.

use std::path::{Path, PathBuf};

use commons_record::Hash;
use serde_json::Value;

use crate::support::http::{ranged, request};
use crate::support::{
    Node, arg, commons, failure, folder, json as command, noise_model, string, text, until,
};

/// Bytes that repeat nowhere, the same in every run.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| next()).take(len).collect()
}

fn write(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(path, content).expect("a file");
}

/// A release of a file of several pieces and of an empty one.
fn release(folder: &Path) -> (PathBuf, Vec<u8>) {
    let content = noise((5 << 20) + 4321, 1);
    let path = folder.join("tiny");
    write(&path.join("q4/model.gguf"), &content);
    write(&path.join("README.md"), b"");
    (path, content)
}

fn publish(node: &Node, path: &Path) -> Value {
    let name = ["publish", arg(path), "--name", "acme/tiny", "--version", "1"];
    command(node.dir(), &[&name[..], &["--licence", "MIT"]].concat())
}

/// A node that others join: they wait until they see its model.
fn founder(folder: &Path) -> Node {
    let model = noise_model(folder);
    Node::up(&folder.join("a"), &["--share", "--model", arg(&model)])
}

/// A founder, and a member that knows it.
fn two(folder: &Path) -> (Node, Node) {
    let a = founder(folder);
    let b = Node::up(&folder.join("b"), &["--offline"]);
    b.join(&a);
    (a, b)
}

fn shown(node: &Node) {
    until("the release on the other machine", || {
        let shown = commons(node.dir(), &["--json", "show", "acme/tiny"]).output();
        shown.expect("the program runs").status.success().then_some(())
    });
}

#[test]
fn what_one_publishes_another_pulls_checks_and_gives_on() {
    let folder = folder();
    let (a, b) = two(folder.path());
    let (path, content) = release(folder.path());
    assert_eq!(publish(&a, &path)["is_bound"], true);
    shown(&b);

    let to = folder.path().join("pulled");
    let pulled = command(b.dir(), &["pull", "acme/tiny", "--to", arg(&to)]);
    let files = pulled["files"].as_array().expect("files");
    let model = files.iter().find(|it| it["path"] == "q4/model.gguf").expect("the model");
    // The name of a file is what `b3sum` prints for it.
    assert_eq!(model["blob"], Hash::of_content(&content).to_string(), "{pulled}");
    assert_eq!(model["fetched"], content.len(), "{pulled}");
    assert!(std::fs::read(to.join("q4/model.gguf")).expect("the file") == content);
    assert_eq!(std::fs::read(to.join("README.md")).expect("the file"), b"");

    // What is held is not fetched again, is pinned, right, and given on.
    let again = command(b.dir(), &["pull", "acme/tiny"]);
    let fetched: u64 = again["files"]
        .as_array()
        .expect("files")
        .iter()
        .map(|it| it["fetched"].as_u64().expect("a number"))
        .sum();
    assert_eq!(fetched, 0, "{again}");
    let blob = string(model, "/blob").to_owned();
    let verified = command(b.dir(), &["blobs", "verify", &blob]);
    assert_eq!(verified["wrong_pieces"].as_array().map(Vec::len), Some(0), "{verified}");
    let listed = until("the file to be given", || {
        let all = command(b.dir(), &["blobs", "ls"]);
        let it = all.as_array()?.iter().find(|it| it["blob"] == blob.as_str())?.clone();
        it["kept_back"].is_null().then_some(it)
    });
    assert_eq!(listed["names"][0], "acme/tiny@1:q4/model.gguf", "{listed}");
    assert!(listed["pins"].as_u64() > Some(0), "{listed}");

    command(b.dir(), &["blobs", "rm", &blob]);
    let error = failure(b.dir(), &["blobs", "verify", &blob]);
    assert!(error.contains("not held"), "{error}");
}

#[test]
fn tools_read_through_the_endpoint_what_is_not_here_yet() {
    let folder = folder();
    let (a, b) = two(folder.path());
    let (path, content) = release(folder.path());
    publish(&a, &path);
    shown(&b);
    let place = "/acme/tiny/resolve/main/q4/model.gguf";
    let head = request(b.api(), "HEAD", place, None);
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-length"), content.len().to_string());
    assert_eq!(head.header("x-repo-commit").len(), 40);
    // A stretch across two pieces comes before the rest is here.
    let mut ranged = ranged(b.api(), place, (1 << 20) - 10, (1 << 20) + 9);
    assert_eq!(ranged.status, 206);
    assert_eq!(ranged.bytes(), content[(1 << 20) - 10..(1 << 20) + 10]);
    let mut whole = request(b.api(), "GET", place, None);
    assert!(whole.bytes() == content);
    let none = request(b.api(), "GET", "/acme/tiny/resolve/v9/q4/model.gguf", None);
    assert_eq!((none.status, none.header("x-error-code")), (404, "RevisionNotFound"));
}

#[test]
fn a_pull_goes_on_after_its_node_was_killed() {
    let folder = folder();
    let a = founder(folder.path());
    let dir = folder.path().join("b");
    let b = Node::up(&dir, &[]);
    b.join(&a);
    let content = noise(48 << 20, 2);
    let path = folder.path().join("large");
    write(&path.join("model.gguf"), &content);
    publish(&a, &path);
    shown(&b);
    let mut pulling = commons(&dir, &["pull", "acme/tiny"]).spawn().expect("the program runs");
    let blob = Hash::of_content(&content).to_string();
    let held = |node: &Node| {
        let all = command(node.dir(), &["blobs", "ls"]);
        let it = all.as_array()?.iter().find(|it| it["blob"] == blob.as_str())?.clone();
        it["pieces_held"].as_u64()
    };
    until("the first pieces", || held(&b).filter(|count| *count > 0));
    b.kill();
    pulling.wait().expect("the command ends");
    let b = Node::up(&dir, &[]);
    let kept = held(&b).expect("the blob is known");
    assert!(kept > 0);
    until("the other node again", || {
        let peers = command(&dir, &["peers"]);
        peers.as_array()?.iter().any(|it| it["is_connected"] == true).then_some(())
    });
    let pulled = command(&dir, &["pull", "acme/tiny"]);
    let fetched = pulled["files"][0]["fetched"].as_u64().expect("a number");
    assert!(
        fetched <= content.len() as u64 - kept * (1 << 20) + (1 << 20),
        "{pulled}, kept {kept}"
    );
    let verified = command(&dir, &["blobs", "verify", &blob]);
    assert_eq!(verified["wrong_pieces"].as_array().map(Vec::len), Some(0), "{verified}");
}

#[test]
fn what_rules_and_names_do_not_allow_is_refused_with_a_reason() {
    let folder = folder();
    let a = Node::up(&folder.path().join("a"), &["--offline"]);
    let file = folder.path().join("notes.txt");
    write(&file, b"notes");
    let seeded = commons(a.dir(), &["seed", arg(&file)]).output().expect("the program runs");
    assert!(seeded.status.success());
    let said = text(&seeded.stdout);
    assert!(said.contains("held, not given"), "{said}");
    for (what, parts) in [
        ("acme/none", &["acme/none"][..]),
        ("hf:acme/none", &["offline"]),
        ("hf:acme", &["hf:"]),
        (&"7".repeat(64), &["no release"]),
    ] {
        let error = failure(a.dir(), &["pull", what]);
        for part in parts {
            assert!(error.contains(part), "{what}: {error} does not say {part}");
        }
    }
    let gone = folder.path().join("gone");
    let error = failure(a.dir(), &["seed", arg(&gone)]);
    assert!(error.contains("gone"), "{error}");
}
