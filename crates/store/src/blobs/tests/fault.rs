//! Ends the process, or has the disk refuse, at the n-th change of a file.
//!
//! The plan is for the whole process, so only child processes of a test have one.

use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// `kill:N` ends the process at change N; `full:N:M` has changes N to M refused.
const PLAN: &str = "COMMONS_STORE_TEST_PLAN";

/// Tells a child what it works on: words of its test.
const TASK: &str = "COMMONS_STORE_TEST_TASK";

#[derive(Debug, Clone, Copy)]
pub(super) enum Plan {
    Nothing,
    Kill(u64),
    Full(u64, u64),
}

static COUNT: AtomicU64 = AtomicU64::new(0);

static IS_OVER: AtomicBool = AtomicBool::new(false);

fn plan() -> Plan {
    static FOUND: OnceLock<Plan> = OnceLock::new();
    *FOUND.get_or_init(|| {
        #[expect(clippy::disallowed_methods, reason = "how a test tells its child what it is")]
        let Ok(text) = std::env::var(PLAN) else { return Plan::Nothing };
        let words: Vec<&str> = text.split(':').collect();
        let number = |at: usize| words[at].parse().expect("a number");
        match words[0] {
            "kill" => Plan::Kill(number(1)),
            "full" => Plan::Full(number(1), number(2)),
            other => panic!("no plan: {other}"),
        }
    })
}

/// Passed before every change of a file.
pub(in super::super) fn point() -> io::Result<()> {
    let plan = plan();
    if matches!(plan, Plan::Nothing) || IS_OVER.load(Ordering::Relaxed) {
        return Ok(());
    }
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    match plan {
        Plan::Kill(at) if count == at => {
            end();
            Ok(())
        }
        Plan::Full(from, to) if (from..=to).contains(&count) => {
            Err(io::ErrorKind::StorageFull.into())
        }
        Plan::Nothing | Plan::Kill(_) | Plan::Full(..) => Ok(()),
    }
}

/// Ends this process as `kill -9` does.
pub(super) fn end() {
    #[cfg(unix)]
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
        .expect("may end itself");
    #[cfg(not(unix))]
    std::process::abort();
}

/// The plan is over: what follows looks at what it left.
pub(super) fn stop() {
    IS_OVER.store(true, Ordering::Relaxed);
}

/// How many changes this process made under its plan.
pub(super) fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// What this process is to do, if it is a child.
pub(super) fn task() -> Option<Vec<String>> {
    #[expect(clippy::disallowed_methods, reason = "how a test tells its child what it is")]
    let text = std::env::var(TASK).ok()?;
    Some(text.split('\n').map(str::to_owned).collect())
}

/// The command that runs one test of this binary as a child.
pub(super) fn child(test: &str, plan: &str, task: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    let test = format!("blobs::tests::{test}");
    command.args([test.as_str(), "--exact", "--nocapture", "--test-threads=1"]);
    command.env(TASK, task.join("\n")).stdout(Stdio::piped()).stderr(Stdio::null());
    if !plan.is_empty() {
        command.env(PLAN, plan);
    }
    command
}

/// Waits for a child: the lines that it wrote.
pub(super) fn lines(child: Child) -> Vec<String> {
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8(output.stdout).expect("plain lines");
    // A line that was cut off by the kill says nothing.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    // The first line stands behind the name of the test.
    let own = |line: &str| line.rsplit_once(" ... ").map_or(line, |(_, own)| own).to_owned();
    whole.lines().map(own).collect()
}

/// The folder of a child's task.
pub(super) fn folder_of(task: &[String]) -> &Path {
    Path::new(&task[0])
}
