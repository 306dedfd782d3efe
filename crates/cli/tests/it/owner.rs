//! One node, its owner, and programs on the same machine.

use serde_json::{Value, json};

use crate::support::http::{complete, get, post, question, request};
use crate::support::{
    Node, arg, commons, export, fixture, folder, json as command, noise_model, run, string, text,
    until, verify,
};

/// Rule N3: a local answer needs neither the network nor another node.
#[test]
fn a_node_answers_its_owner_and_proves_it() {
    let folder = folder();
    let model = noise_model(folder.path());
    let node = Node::up(&folder.path().join("a"), &["--model", arg(&model)]);
    assert_eq!(node.ready["models"], json!(["noise"]));

    let (response, streamed) = complete(node.api(), &question("noise", 40));
    assert!(streamed.is_done, "{streamed:?}");
    assert_eq!(streamed.token_count, 40);
    assert_eq!(response.header("x-commons-peer"), node.peer());
    assert_eq!(string(&streamed.proof, "/peer"), node.peer());

    let whole = json!({ "model": "noise", "messages": [{ "role": "user", "content": "hi" }],
        "max_completion_tokens": 8 });
    let whole = post(node.api(), "/v1/chat/completions", &whole).json();
    assert!(whole["choices"][0]["message"]["content"].is_string(), "{whole}");

    let request = response.header("x-commons-request").to_owned();
    let receipts = command(node.dir(), &["receipts", "list"]);
    let receipts = receipts.as_array().unwrap();
    assert_eq!(receipts.len(), 2);
    assert!(receipts.iter().all(|it| it["scope"] == "local"), "{receipts:?}");
    let shown = command(node.dir(), &["receipts", "show", &request]);
    assert_eq!(shown["claim"]["opened"], true, "{shown}");
    assert_eq!(shown["claim"]["usage"]["completion_tokens"], 40);

    let (valid, report) = verify(&export(&node, &request, "local.evidence"));
    assert!(valid, "{report}");
    // Rule E12.
    assert_eq!(report["claim"]["scope"], "local");
    assert_eq!(report["claim"]["two_sided"], false, "a local receipt is no evidence");

    let why = command(node.dir(), &["why", &request]);
    assert_eq!(why["decisions"][0]["is_reproduced"], true, "{why}");
    assert_eq!(string(&why, "/request"), request);
}

#[test]
fn lists_are_told_to_people_and_to_programs() {
    let folder = folder();
    let model = noise_model(folder.path());
    let node = Node::up(&folder.path().join("a"), &["--model", arg(&model)]);
    let listed = command(node.dir(), &["models"]);
    assert_eq!(listed[0]["name"], "noise");
    assert_eq!(get(node.api(), "/v1/models")["data"][0]["id"], "noise");
    assert_eq!(command(node.dir(), &["peers"]), json!([]));
    assert_eq!(command(node.dir(), &["receipts", "list"]), json!([]));
    for (args, said) in [
        (&["models"][..], "noise"),
        (&["peers"], "no other member is known"),
        (&["receipts", "list"], "no receipt yet"),
        (&["doctor", "--model", arg(&model)], "up for"),
    ] {
        let output = run(node.dir(), args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains(said), "{args:?}: {}", text(&output.stdout));
    }
}

#[test]
fn a_doctor_needs_no_node() {
    let folder = folder();
    let dir = folder.path().join("not-there-yet");
    let findings = command(&dir, &["doctor", "--api", "127.0.0.1:0"]);
    let find = |name: &str| {
        let all = findings.as_array().unwrap();
        all.iter().find(|it| it["check"] == name).cloned().unwrap_or(Value::Null)
    };
    assert_eq!(find("data folder")["verdict"], "ok", "{findings}");
    assert_eq!(find("node")["verdict"], "note");
    assert!(string(&find("node"), "/next").contains("commons up"));
    assert!(!dir.exists(), "looking makes nothing");

    let nowhere = folder.path().join("no.gguf");
    let args = ["doctor", "--api", "127.0.0.1:0", "--model", arg(&nowhere)];
    let output = run(&dir, &args);
    assert_eq!(output.status.code(), Some(1), "a fault is told by the exit code");
    assert!(text(&output.stdout).contains("1 fault"), "{}", text(&output.stdout));
}

#[test]
fn an_api_beyond_this_machine_needs_its_key() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = folder();
    let key_file = folder.path().join("key");
    std::fs::write(&key_file, "a-key-of-enough-length\n").unwrap();
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let args = ["--api-key-file", arg(&key_file)];
    let node = Node::up(&folder.path().join("a"), &args);
    assert_eq!(request(node.api(), "GET", "/v1/models", None).status, 401);
    assert_eq!(request(node.api(), "GET", "/healthz", None).status, 200);
    // The owner's commands need no key: the folder is theirs.
    assert_eq!(command(node.dir(), &["models"]), json!([]));
}

#[test]
fn the_api_answers_while_a_model_is_loaded() {
    let folder = folder();
    let model = noise_model(folder.path());
    let node = Node::begin(&folder.path().join("a"), &["--model", arg(&model)]);
    let listening = node.wait_for("listening");
    let addr = string(&listening, "/api").strip_prefix("http://").unwrap().parse().unwrap();
    assert_eq!(request(addr, "GET", "/healthz", None).status, 200);
    node.wait_for("model");
    assert_eq!(node.wait_for("ready")["models"], json!(["noise"]));
}

#[test]
fn threads_are_the_number_that_was_asked_for() {
    let folder = folder();
    let model = noise_model(folder.path());
    let args = ["--model", arg(&model), "--threads", "2", "--share"];
    let node = Node::begin(&folder.path().join("a"), &args);
    assert_eq!(node.wait_for("sharing")["threads"], 2);
    node.wait_for("ready");
}

#[test]
fn a_story_is_told_the_same_with_one_seed() {
    let Some(model) = fixture("models/stories260K.gguf") else { return };
    let folder = folder();
    let node = Node::up(&folder.path().join("a"), &["--model", arg(&model)]);
    let body = json!({ "model": "stories260K", "prompt": "Once upon a time", "max_tokens": 24,
        "temperature": 0, "stream": true });
    let (_, greedy) = complete(node.api(), &body);
    assert!(greedy.text.starts_with(", there was a little girl named Lily."), "{}", greedy.text);
    let drawn = || complete(node.api(), &question("stories260K", 24)).1.text;
    assert_eq!(drawn(), drawn());
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = folder();
    let node = Node::up(&folder.path().join("a"), &[]);
    let mut child = commons(node.dir(), &["peers"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let status = until("the command's end", || child.try_wait().unwrap());
    assert!(status.success(), "{status}");
}
