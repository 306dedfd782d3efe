//! A child process of this node: started, told, heard, ended.
//!
//! ```text
//! spawn -> thread of its own: start the program, wait for its end, take its remains away
//!            |                                                 |
//!            v pipes, as futures                               v how it ended
//! ```
//!
//! The kernel ends a jailed child with the *thread* that started it, so that thread lives as long
//! as the child and is none of a runtime's, whose threads come and go. It waits for the end without
//! taking the remains, then takes them under the lock under which the child is killed: a number
//! that another process got meanwhile is never signalled.
//!
//! Not here: what the program does, and what it gives up (`jail.rs`).

use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use commons_port::BoxFuture;
use commons_port::process::{ChildProcess, SpawnError, Spawned, Spawner};
use futures::channel::oneshot;
use futures::future::{FutureExt as _, Shared};
use rustix::process::{Pid, WaitId, WaitIdOptions};

use crate::compat::{Reader, Writer};

/// A line of a child's log at most; what is longer is cut.
const LINE_SIZE_MAX: u64 = 4_096;

/// Starts a program as a jailed child.
#[derive(Debug, Clone)]
pub struct ProgramSpawner {
    program: PathBuf,
    args: Vec<String>,
    environment: Vec<(String, String)>,
}

impl ProgramSpawner {
    /// This program with these arguments, to which `--parent ID` and `--read PATH` for each
    /// readable path are added. The child's environment is `environment` and nothing else.
    pub fn new(program: PathBuf, args: Vec<String>, environment: Vec<(String, String)>) -> Self {
        Self { program, args, environment }
    }

    fn command(&self, readable: &[PathBuf]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).arg("--parent").arg(std::process::id().to_string());
        for path in readable {
            command.arg("--read").arg(path);
        }
        // A group of its own: Ctrl-C at a terminal ends the node, which ends the child in order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl Spawner for ProgramSpawner {
    fn spawn(&self, readable: Vec<PathBuf>) -> BoxFuture<'static, Result<Spawned, SpawnError>> {
        let command = self.command(&readable);
        Box::pin(async move {
            let (started, starting) = oneshot::channel();
            let thread = std::thread::Builder::new().name("engine process".to_owned());
            thread.spawn(move || keep(command, started)).map_err(|error| failed(&error))?;
            let started = starting.await.map_err(|_| SpawnError { detail: GONE.to_owned() })?;
            let Started { process, stdin, stdout } = started.map_err(|error| failed(&error))?;
            let reader = Reader::new(stdout).map_err(|error| failed(&error))?;
            let writer = Writer::new(stdin).map_err(|error| failed(&error))?;
            let (reader, writer) = (Box::new(reader), Box::new(writer));
            Ok(Spawned { reader, writer, process: Box::new(process) })
        })
    }
}

const GONE: &str = "the thread that starts it ended";

fn failed(error: &std::io::Error) -> SpawnError {
    SpawnError { detail: error.to_string() }
}

/// A child that runs, with the ends of its pipes.
struct Started {
    process: Process,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

/// What the thread of a child does.
fn keep(mut command: Command, started: oneshot::Sender<std::io::Result<Started>>) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return drop(started.send(Err(error))),
    };
    let id = child.id();
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (ended, ending) = oneshot::channel();
    let child = Arc::new(Mutex::new(child));
    if let (Some(stdin), Some(stdout), Some(stderr)) = pipes {
        let process = Process { id, child: Arc::clone(&child), ended: ending.shared() };
        // Nobody waits for it any more: dropping the process kills the child.
        drop(started.send(Ok(Started { process, stdin, stdout })));
        let logging = std::thread::Builder::new().name("engine log".to_owned());
        if let Err(error) = logging.spawn(move || log(stderr)) {
            tracing::warn!(%error, "what the engine process logs is not heard");
        }
    }
    let how = wait(id, &child);
    drop(ended.send(how));
}

/// Waits for the end of the child and takes its remains.
fn wait(id: u32, child: &Mutex<Child>) -> String {
    let id = i32::try_from(id).ok().and_then(Pid::from_raw);
    // Waits without the lock and takes nothing: who wants to kill it meanwhile can.
    while let Some(id) = id {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        match rustix::process::waitid(WaitId::Pid(id), options) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) | Err(_) => break,
        }
    }
    match lock(child).wait() {
        Ok(status) => describe(status),
        Err(error) => format!("an end that nobody saw: {error}"),
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown end".to_owned(),
    }
}

fn lock(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Passes on what a child logs: line by line, cut, and without what steers a terminal.
fn log(stderr: ChildStderr) {
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match lines.by_ref().take(LINE_SIZE_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text: String =
            String::from_utf8_lossy(&line).chars().filter(|it| !it.is_control()).collect();
        if !text.trim().is_empty() {
            tracing::warn!(target: "commons::engine_process", "{text}");
        }
    }
}

/// A running child.
struct Process {
    id: u32,
    child: Arc<Mutex<Child>>,
    ended: Shared<oneshot::Receiver<String>>,
}

impl ChildProcess for Process {
    fn id(&self) -> u32 {
        self.id
    }

    fn ended(&mut self) -> BoxFuture<'_, String> {
        let ended = self.ended.clone();
        Box::pin(async { ended.await.unwrap_or_else(|_| GONE.to_owned()) })
    }

    fn kill(&mut self) {
        // One that has ended is not signalled: its remains were taken under this lock, or wait.
        if let Err(error) = lock(&self.child).kill() {
            tracing::debug!(%error, "the engine process could not be killed");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests;
