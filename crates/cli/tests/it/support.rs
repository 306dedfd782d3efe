//! What the tests stand on: processes, an HTTP client, models, and patience with a limit.

pub(crate) mod http;
pub(crate) mod node;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) use node::Node;

/// Far above what anything here takes on a busy machine; only a hang is this long.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A folder of this test's own.
pub(crate) fn folder() -> TempDir {
    tempfile::Builder::new().prefix("commons-it-").tempdir().expect("a temporary folder")
}

/// A small model of random weights in that folder, called `noise`.
pub(crate) fn noise_model(folder: &Path) -> PathBuf {
    let path = folder.join("noise.gguf");
    commons_engine::noise::write_noise_model(&path, 7).expect("the noise model is written");
    path
}

/// A file of the shared fixtures, or none, told loudly.
pub(crate) fn fixture(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures");
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: there is no {}", path.display());
    None
}

/// A command on a data folder. Nodes compute with one thread: several spin while they wait for
/// each other, and on a machine that builds and tests beside it that takes seconds.
pub(crate) fn commons(data_dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_commons"));
    command.args(args).env("COMMONS_DATA_DIR", data_dir).env_remove("COMMONS_LOG");
    command.env("COMMONS_THREADS", "1");
    command
}

/// What a command that succeeds prints for programs.
pub(crate) fn json(data_dir: &Path, args: &[&str]) -> Value {
    let output = run(data_dir, &[args, &["--json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("standard output is one JSON value")
}

/// Runs a command to its end.
pub(crate) fn run(data_dir: &Path, args: &[&str]) -> Output {
    commons(data_dir, args).output().expect("the program starts")
}

/// What a command that fails says on standard error.
pub(crate) fn failure(data_dir: &Path, args: &[&str]) -> String {
    let output = run(data_dir, args);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {}", text(&output.stderr));
    assert!(!text(&output.stdout).contains("error"), "an error belongs on standard error");
    text(&output.stderr)
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Looks until something is there.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(now() < deadline, "waited in vain: {what}");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[expect(clippy::disallowed_methods, reason = "a deadline of a test of real processes")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A path as an argument.
pub(crate) fn arg(path: &Path) -> &str {
    path.to_str().expect("a test's path is text")
}

/// A string inside a JSON value.
pub(crate) fn string<'a>(value: &'a Value, pointer: &str) -> &'a str {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no string at {pointer} in {value}"))
}

/// Verifies evidence as a stranger: in a folder of its own, without any node.
pub(crate) fn verify(file: &Path) -> (bool, Value) {
    let nowhere = folder();
    let output = run(nowhere.path(), &["receipts", "verify", arg(file), "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report in JSON");
    assert_eq!(output.status.success(), report["valid"] == true, "exit code and report agree");
    assert!(!nowhere.path().join("keys").exists(), "verifying makes no data folder");
    (output.status.success(), report)
}

/// Exports the evidence of a request from a node, and returns the file.
pub(crate) fn export(node: &Node, id: &str, name: &str) -> PathBuf {
    let file = node.dir().with_file_name(name);
    let args = ["receipts", "export", id, "--output", arg(&file)];
    json(node.dir(), &args);
    file
}
