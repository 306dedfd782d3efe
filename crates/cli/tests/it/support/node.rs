//! A node as a process under test.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{PATIENCE, commons, json, string, text, until};

/// A running node; dropping it kills it.
pub(crate) struct Node {
    child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    dir: PathBuf,
    events: Receiver<Value>,
    /// What it said when it was ready.
    pub(crate) ready: Value,
}

impl Node {
    /// Starts a node on a free port and waits until it is ready.
    pub(crate) fn up(dir: &Path, args: &[&str]) -> Self {
        let mut node = Self::begin(dir, args);
        node.ready = node.wait_for("ready");
        node
    }

    /// Starts a node and does not wait.
    pub(crate) fn begin(dir: &Path, args: &[&str]) -> Self {
        let all = [&["up", "--json", "--api", "127.0.0.1:0"], args].concat();
        let mut command = commons(dir, &all);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Standard error stays the test's own: it is shown when the test fails.
        let mut child = command.spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("it was piped");
        // A node says a few lines in a test; nobody waits for room.
        let (sender, events) = sync_channel(1024);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { return };
                let event = serde_json::from_str(&line).expect("every line is JSON");
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        Self { child, stdin, dir: dir.to_owned(), events, ready: Value::Null }
    }

    /// The next event of that kind; what comes before it is passed over.
    pub(crate) fn wait_for(&self, event: &str) -> Value {
        loop {
            let next = self.events.recv_timeout(PATIENCE);
            let next = next.unwrap_or_else(|error| panic!("no {event:?} event: {error}"));
            if next["event"] == event {
                return next;
            }
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn api(&self) -> SocketAddr {
        let url = string(&self.ready, "/api");
        url.strip_prefix("http://").and_then(|it| it.parse().ok()).expect("an address")
    }

    pub(crate) fn peer(&self) -> &str {
        string(&self.ready, "/peer")
    }

    /// `--listen` arguments that bring a node back where it was.
    pub(crate) fn listen_args(&self) -> Vec<String> {
        let addrs = self.ready["addrs"].as_array().expect("addresses");
        let pairs = addrs.iter().map(|it| ["--listen", it.as_str().expect("text")]);
        pairs.flatten().map(str::to_owned).collect()
    }

    /// Joins the mesh of another node, and waits until that node's models are seen.
    pub(crate) fn join(&self, inviter: &Self) {
        let invite = json(inviter.dir(), &["invite"]);
        let view = json(self.dir(), &["join", string(&invite, "/ticket")]);
        assert_eq!(view["state"], "joined", "{view}");
        until("a model of the mesh", || {
            let models = json(self.dir(), &["models"]);
            let is_there = models.as_array().is_some_and(|it| !it.is_empty());
            is_there.then_some(())
        });
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(id.expect("a process id"), signal).expect("the process can be signalled");
    }

    pub(crate) fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// `kill -9`, as it happens to nodes.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the process can be killed");
        self.child.wait().expect("the process can be waited for");
    }

    /// Waits until the process has ended by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        until("the node's end", || self.child.try_wait().expect("the process can be waited for"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The text of an answer and the receipt of it, asked through the program itself.
pub(crate) fn chat(dir: &Path, args: &[&str]) -> Value {
    let output = commons(dir, &[&["chat", "--json"], args].concat()).output().expect("it starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON value")
}
