//! The process that computes models: its jail, its death, and its end with the node.

use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::sync_channel;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::http::{Response, Streamed, post, question};
use crate::support::{Node, arg, commons, failure, folder, json, noise_model, text, until};

/// Ways out that are tried at the least.
const ATTEMPTS_MIN: usize = 30;

/// Streams that are open when the process is killed.
const STREAMS: usize = 50;

/// What `commons engine --probe` measured.
fn probe(args: &[&str]) -> Value {
    let nowhere = folder();
    let all = [&["engine", "--probe", "--json"], args].concat();
    let output = commons(nowhere.path(), &all).output().expect("it starts");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)))
}

#[test]
fn a_jailed_process_finds_no_way_out() {
    let folder = folder();
    let model = noise_model(folder.path());
    let jail = probe(&["--read", arg(&model), "--device", "cpu"]);
    let attempts = jail["attempts"].as_array().expect("a list");
    for attempt in attempts {
        eprintln!("{:<45} {}", attempt["name"].to_string(), attempt["refused"]);
    }
    if jail["landlock"].is_null() || jail["syscalls"].is_null() {
        eprintln!("SKIPPED: this kernel lacks a part of the jail: {}", jail["reasons"]);
        return;
    }
    let open: Vec<_> = attempts.iter().filter(|it| it["refused"].is_null()).collect();
    assert!(open.is_empty(), "there is a way out: {open:#?}");
    assert!(attempts.len() >= ATTEMPTS_MIN, "{}", attempts.len());
    assert_eq!(jail["syscalls"], "allowed");
    assert_eq!(jail["no_new_privileges"], true);
    assert_eq!(jail["is_dumpable"], false);
    assert_eq!(jail["reasons"], serde_json::json!([]));
}

/// The probe itself must be able to fail: without the jail the same attempts find open doors.
#[test]
fn the_same_attempts_succeed_outside() {
    let folder = folder();
    let model = noise_model(folder.path());
    let attempts = commons_sandbox::probe::all(&[model]);
    let is_open = |name: &str| attempts.iter().any(|it| it.name == name && it.refused.is_none());
    if cfg!(not(target_os = "linux")) {
        eprintln!("SKIPPED: nothing is tried on this system");
        return;
    }
    for name in [
        "read a file of the system",
        "list the root folder",
        "write to a readable file",
        "create a file in /tmp",
        "create a file beside what is readable",
        "connect over TCP",
        "listen on TCP",
        "run a program",
        "make a process",
        "raise its limits",
    ] {
        assert!(is_open(name), "{name}: {attempts:#?}");
    }
}

#[test]
fn a_process_whose_node_is_gone_does_not_begin() {
    let nowhere = folder();
    if cfg!(not(target_os = "linux")) {
        eprintln!("SKIPPED: only Linux tells a process that its parent is gone");
        return;
    }
    let error = failure(nowhere.path(), &["engine", "--parent", "1"]);
    assert!(error.contains("is gone"), "{error}");
}

/// The number of the process that computes, as the node tells it.
fn process(node: &Node) -> i32 {
    loop {
        let event = node.wait_for("process");
        if let Some(id) = event["process"].as_i64() {
            return i32::try_from(id).expect("a process id");
        }
    }
}

/// A node with the noise model, and the number of its engine process.
fn up(dir: &Path, args: &[&str]) -> (Node, i32) {
    let mut node = Node::begin(dir, args);
    let id = process(&node);
    node.ready = node.wait_for("ready");
    (node, id)
}

fn kill(id: i32) {
    let id = Pid::from_raw(id).expect("a process id");
    kill_process(id, Signal::KILL).expect("it is there");
}

/// Neither running nor a zombie. Only Linux shows it so plainly.
fn is_gone(id: i32) -> bool {
    !Path::new("/proc").exists() || !Path::new(&format!("/proc/{id}")).exists()
}

fn gone(id: i32) {
    until("the engine process's end", || is_gone(id).then_some(()));
}

fn short() -> Value {
    let mut question = question("noise", 3);
    question["stream"] = Value::Bool(false);
    question
}

/// Fifty answers are being written when the process is killed. Each is told so; the next question
/// is told to come back later, and later is answered.
#[test]
fn a_kill_under_fifty_streams_is_told_to_each_and_served_after() {
    let folder = folder();
    let model = noise_model(folder.path());
    let args = ["--model", arg(&model), "--slots", "64"];
    let (node, mut id) = up(&folder.path().join("a"), &args);
    let api = node.api();
    let (began, beginnings) = sync_channel(STREAMS);
    let streams: Vec<_> = (0..STREAMS)
        .map(|_| {
            let began = began.clone();
            std::thread::spawn(move || {
                let mut response: Response =
                    post(api, "/v1/completions", &question("noise", 1_900));
                began.send(response.status).expect("somebody counts");
                let mut streamed = Streamed::default();
                streamed.read(&mut response);
                streamed
            })
        })
        .collect();
    for _ in 0..STREAMS {
        assert_eq!(beginnings.recv(), Ok(200));
    }
    kill(id);
    for stream in streams {
        let streamed = stream.join().expect("it is read to its end");
        assert_eq!(streamed.error["code"], "unavailable", "{streamed:?}");
        assert!(!streamed.is_done);
    }
    gone(id);
    // The pause doubles with each kill: at some point it is long enough to be met.
    loop {
        let response = post(api, "/v1/completions", &short());
        if response.status == 503 {
            let wait: u64 = response.header("retry-after").parse().expect("seconds");
            assert!((1..=30).contains(&wait), "{wait}");
            let body = response.json();
            assert_eq!(body["error"]["code"], "unavailable", "{body}");
            break;
        }
        assert_eq!(response.status, 200);
        id = process(&node);
        kill(id);
    }
    until("an answer of the next process", || {
        (post(api, "/v1/completions", &short()).status == 200).then_some(())
    });
    assert_ne!(process(&node), id, "it is another process");
    let models = json(node.dir(), &["models"]);
    assert_eq!(models.as_array().map(Vec::len), Some(1), "{models}");
}

#[test]
fn the_process_ends_with_its_node_however_that_ends() {
    let folder = folder();
    let model = noise_model(folder.path());
    let dir = folder.path().join("a");
    let args = ["--model", arg(&model)];
    let (mut node, id) = up(&dir, &args);
    node.interrupt();
    assert!(node.ended().success());
    assert!(is_gone(id), "a node that has ended in order leaves no process");
    let (mut node, id) = up(&dir, &args);
    assert_eq!(json(&dir, &["stop"])["stopped"], true);
    assert!(node.ended().success());
    assert!(is_gone(id), "a node that was stopped leaves no process");
    let (node, id) = up(&dir, &args);
    node.kill();
    gone(id);
}

#[test]
fn a_model_beyond_the_memory_limit_ends_the_process_and_not_the_node() {
    let folder = folder();
    let model = noise_model(folder.path());
    let jail = probe(&["--memory", "64MiB"]);
    assert_eq!(jail["memory_max"], 64 << 20, "the limit is measured: {jail}");
    if cfg!(not(target_os = "linux")) {
        eprintln!("SKIPPED: only Linux counts what this test fills");
        return;
    }
    let all = ["--model", arg(&model), "--engine-memory", "6MiB", "--api", "127.0.0.1:0"];
    let error = failure(&folder.path().join("a"), &[&["up"], &all[..]].concat());
    assert!(error.contains("failed to serve the model"), "{error}");
    let is_told = error.contains("the engine process ended with") || error.contains("memory");
    assert!(is_told, "{error}");
}

#[test]
fn the_process_is_told_nothing_of_its_nodes_environment() {
    let folder = folder();
    let model = noise_model(folder.path());
    let (node, id) = up(&folder.path().join("a"), &["--model", arg(&model)]);
    match std::fs::read(format!("/proc/{id}/environ")) {
        Ok(environment) => {
            let names = environment.split(|it| *it == 0).filter(|it| !it.is_empty());
            let names: Vec<_> =
                names.map(|it| text(it.split(|it| *it == b'=').next().unwrap())).collect();
            let known =
                ["COMMONS_LOG", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "RUST_BACKTRACE"];
            assert!(names.iter().all(|it| known.contains(&it.as_str())), "{names:?}");
        }
        Err(error) => eprintln!("SKIPPED: nobody but root can look: {error}"),
    }
    drop(node);
    gone(id);
}

#[test]
fn models_are_computed_inside_the_node_where_that_is_wanted() {
    let folder = folder();
    let model = noise_model(folder.path());
    let args = ["--model", arg(&model), "--engine-process", "inline"];
    let node = Node::up(&folder.path().join("a"), &args);
    assert_eq!(post(node.api(), "/v1/completions", &short()).status, 200);
    let children =
        std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", node.ready["process"]));
    assert!(children.is_ok_and(|it| it.is_empty()) || cfg!(not(target_os = "linux")));
}

#[test]
fn the_doctor_says_how_the_process_would_be_jailed() {
    let folder = folder();
    let mut command = commons(folder.path(), &["doctor", "--json"]);
    let output = command.stderr(Stdio::null()).output().expect("it starts");
    let findings: Value = serde_json::from_slice(&output.stdout).expect("one JSON value");
    let finding =
        findings.as_array().and_then(|it| it.iter().find(|it| it["check"] == "engine jail"));
    let detail = finding.and_then(|it| it["detail"].as_str()).expect("a finding");
    assert!(detail.contains("ways out refused") || detail.contains("no jail"), "{detail}");
}
