//! The demonstration, as `cargo xtask test` and people run it.

use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{arg, fixture, folder, text, until};

fn demo(folder: &std::path::Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_commons"));
    command.arg("demo").args(args).env("TMPDIR", folder).env_remove("COMMONS_DATA_DIR");
    command.env("COMMONS_THREADS", "1");
    command
}

fn is_empty(folder: &std::path::Path) -> bool {
    std::fs::read_dir(folder).expect("the folder is there").next().is_none()
}

#[test]
fn the_demonstration_shows_the_whole_path_and_leaves_nothing() {
    let folder = folder();
    let output = demo(folder.path(), &[]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    for part in ["its text is NOISE", "[A answered]", "both copies verified", "TOKEN/S"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert!(is_empty(folder.path()));
}

#[test]
fn the_demonstration_of_a_real_model_can_be_read_by_programs() {
    let Some(model) = fixture("models/stories260K.gguf") else { return };
    let folder = folder();
    let output = demo(folder.path(), &["--json", "--model", arg(&model)]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["model"], "stories260K");
    assert_eq!(report["is_noise"], false);
    let (holder, askers) = report["nodes"].as_array().unwrap().split_first().unwrap();
    assert_eq!(askers.len(), 2);
    for asker in askers {
        assert_eq!(asker["asked"]["served_by"], holder["peer"]);
    }
    assert!(is_empty(folder.path()));
}

#[test]
fn a_demonstration_that_fails_says_why_and_leaves_nothing() {
    let folder = folder();
    let model = folder.path().join("broken.gguf");
    std::fs::write(&model, "GGUF but not really").unwrap();
    let output = demo(folder.path(), &["--model", arg(&model)]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("the end of node A's log") && said.contains("broken.gguf"), "{said}");
    std::fs::remove_file(&model).unwrap();
    assert!(is_empty(folder.path()));
}

#[test]
fn the_nodes_of_a_killed_demonstration_end_by_themselves() {
    let folder = folder();
    let mut child = demo(folder.path(), &["--max-tokens", "1500"])
        .stdout(Stdio::null())
        .spawn()
        .expect("the program starts");
    let lock = until("the first node", || {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        entries.flatten().map(|it| it.path().join("A/lock")).find(|it| it.exists())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    until("the nodes' end", || {
        let file = std::fs::File::open(&lock).unwrap();
        file.try_lock_shared().ok()
    });
}

#[test]
fn an_interrupted_demonstration_leaves_nothing() {
    let folder = folder();
    // More tokens than come in the time: the interrupt falls into the story.
    let args = ["--max-tokens", "1500"];
    let mut child = demo(folder.path(), &args).stdout(Stdio::null()).spawn().unwrap();
    until("the first node", || {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        entries.flatten().any(|it| it.path().join("A/lock").exists()).then_some(())
    });
    let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(id, Signal::INT).unwrap();
    let status = until("its end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    assert!(is_empty(folder.path()));
}
