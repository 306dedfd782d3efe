//! What cannot be done is said with its cause and the next step, and leaves nothing behind.

use std::path::Path;

use crate::support::{Node, arg, failure, folder, json, noise_model, run, text};

/// Every part is in the one line that a person reads.
fn check(dir: &Path, args: &[&str], parts: &[&str]) {
    let error = failure(dir, args);
    assert!(error.starts_with("error: "), "{args:?}: {error}");
    assert_eq!(error.trim_end().lines().count(), 1, "{args:?}: {error}");
    for part in parts {
        assert!(error.contains(part), "{args:?}: no {part:?} in {error}");
    }
}

#[test]
fn a_command_without_a_node_says_how_to_start_one() {
    let folder = folder();
    let dir = folder.path().join("a b");
    for args in [
        &["models"][..],
        &["peers"],
        &["invite"],
        &["receipts", "list"],
        &["receipts", "show", "00"],
        &["why", "00"],
        &["stop"],
        &["chat", "-m", "hi"],
    ] {
        check(&dir, args, &["no node runs on the data folder", "commons up --data-dir '"]);
    }
    assert!(!dir.exists(), "asking makes no folder");
}

#[test]
fn an_unknown_command_is_a_usage_error() {
    let folder = folder();
    for args in
        [&["frobnicate"][..], &["up", "--frobnicate"], &["receipts"], &["invite", "--uses", "0"]]
    {
        let output = run(folder.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains("Usage") || text(&output.stderr).contains("--help"));
    }
}

#[test]
fn a_taken_port_is_named() {
    let folder = folder();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = holder.local_addr().unwrap().to_string();
    check(&folder.path().join("a"), &["up", "--api", &addr], &[&addr, "--api"]);
}

#[test]
fn a_taken_address_of_the_mesh_is_named() {
    let folder = folder();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = format!("/ip4/127.0.0.1/tcp/{}", holder.local_addr().unwrap().port());
    let up = |listen: &str, part: &str| {
        let args = ["up", "--api", "127.0.0.1:0", "--listen", listen];
        check(&folder.path().join("a"), &args, &[listen, "--listen", part]);
    };
    up(&addr, "in use");
    up("/ip4/127.0.0.1", "address");
    up("nowhere", "address");
}

#[test]
fn a_second_node_on_a_folder_is_refused_and_the_first_goes_on() {
    let folder = folder();
    let dir = folder.path().join("a");
    let node = Node::up(&dir, &[]);
    let process = node.ready["process"].to_string();
    let args = ["up", "--api", "127.0.0.1:0"];
    check(&dir, &args, &["another node", &process, "--data-dir"]);
    json(&dir, &["peers"]);
}

#[test]
fn a_model_that_cannot_be_served_is_named_with_the_reason() {
    let folder = folder();
    let dir = folder.path().join("a");
    let up = |model: &Path, parts: &[&str]| {
        let model = arg(model);
        check(&dir, &["up", "--api", "127.0.0.1:0", "--model", model], &[&[model], parts].concat());
    };
    let missing = folder.path().join("missing.gguf");
    up(&missing, &["there is no model", "--model"]);
    assert!(!dir.exists(), "a typing error opens nothing");
    up(folder.path(), &["is no model", "config.json"]);

    let text = folder.path().join("text.gguf");
    std::fs::write(&text, "this is a text and not a model").unwrap();
    up(&text, &["not a GGUF file"]);

    let whole = std::fs::read(noise_model(folder.path())).unwrap();
    let cut = folder.path().join("cut.gguf");
    std::fs::write(&cut, whole.get(..whole.len() / 2).unwrap()).unwrap();
    up(&cut, &[]);

    let foreign = folder.path().join("foreign.gguf");
    let mut writer = commons_engine::gguf::GgufWriter::new();
    let name = commons_engine::gguf::Value::String("mamba".into());
    writer.set("general.architecture", name);
    std::fs::write(&foreign, writer.to_bytes()).unwrap();
    up(&foreign, &["mamba"]);
    // A failed start gives the folder back.
    drop(Node::up(&dir, &[]));
}

#[test]
fn an_open_address_without_a_key_is_refused() {
    let folder = folder();
    let dir = folder.path().join("a");
    check(&dir, &["up", "--api", "0.0.0.0:0"], &["0.0.0.0:0", "--api-key-file"]);
    let lax = folder.path().join("key");
    std::fs::write(&lax, "a-key-of-enough-length").unwrap();
    let lax = lax.to_str().unwrap();
    check(&dir, &["up", "--api", "0.0.0.0:0", "--api-key-file", lax], &["chmod 600"]);
}

#[test]
fn a_ticket_that_is_none_is_refused_and_not_repeated() {
    let folder = folder();
    let node = Node::up(&folder.path().join("a"), &[]);
    for ticket in ["hello", "commons1secretsecret"] {
        let error = failure(node.dir(), &["join", ticket]);
        assert!(error.contains("no ticket that can be used"), "{error}");
        assert!(!error.contains(ticket), "a ticket is a secret: {error}");
    }
}

#[test]
fn a_folder_too_deep_for_a_socket_is_named() {
    let folder = folder();
    let dir = folder.path().join("x".repeat(100));
    check(&dir, &["up", "--api", "127.0.0.1:0"], &["control", "--data-dir"]);
}

#[test]
fn an_unknown_receipt_is_refused() {
    let folder = folder();
    let node = Node::up(&folder.path().join("a"), &[]);
    for args in [&["receipts", "show", "00"][..], &["receipts", "export", "00"], &["why", "00"]] {
        let error = failure(node.dir(), args);
        assert!(error.contains("\"00\""), "{args:?}: {error}");
    }
}

#[test]
fn a_file_that_is_no_evidence_is_refused() {
    let folder = folder();
    let file = folder.path().join("a.evidence");
    let path = file.to_str().unwrap();
    check(folder.path(), &["receipts", "verify", path], &["failed to read", path]);
    std::fs::write(&file, "hello").unwrap();
    let output = run(folder.path(), &["receipts", "verify", path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("NOT VALID (unreadable)"), "{}", text(&output.stdout));
}

#[test]
fn errors_are_json_for_programs() {
    let folder = folder();
    let output = run(folder.path(), &["models", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert!(error["error"].as_str().is_some_and(|it| it.contains("no node runs")));
}
