//! Starting other programs, and speaking to the person who started this one.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, ensure};

/// Cargo, started in the workspace root.
///
/// Cargo tells a program that it runs which package that program is. Passed on to another cargo,
/// this would make build scripts that watch these variables run again each time.
pub(crate) fn cargo(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(args).current_dir(root);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    command
}

/// Runs a command to its end; anything but success is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    eprintln!("$ {shown}");
    let status = command.status().with_context(|| format!("failed to start `{shown}`"))?;
    ensure!(status.success(), "`{shown}` ended with {status}");
    Ok(())
}

/// Runs a command, shows its output as it comes, and hands each line of it to `read`.
pub(crate) fn run_reading(command: &mut Command, read: impl FnMut(&str) + Send) -> Result<()> {
    let shown = show(command);
    eprintln!("$ {shown}");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("failed to start `{shown}`"))?;
    let read = std::sync::Mutex::new(read);
    let tee = |stream: Box<dyn Read + Send>| {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            eprintln!("{line}");
            if let Ok(mut read) = read.lock() {
                read(&line);
            }
        }
    };
    let streams: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|it| Box::new(it) as _),
        child.stderr.take().map(|it| Box::new(it) as _),
    ];
    thread::scope(|scope| {
        for stream in streams.into_iter().flatten() {
            scope.spawn(|| tee(stream));
        }
    });
    let status = child.wait().with_context(|| format!("failed to wait for `{shown}`"))?;
    ensure!(status.success(), "`{shown}` ended with {status}");
    Ok(())
}

/// What a command prints; `None` when it cannot start or fails.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a command prints; its failure carries what it said on stderr.
pub(crate) fn output_or_reason(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("failed to start `{shown}`"))?;
    let reason = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{shown}` ended with {}: {reason}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether this program is there and answers to `--version`.
pub(crate) fn is_installed(program: &str, args: &[&str]) -> bool {
    output(Command::new(program).args(args).arg("--version")).is_some()
}

/// Prints a result. Progress and errors go to stderr instead.
pub(crate) fn say(text: &str) {
    let mut stdout = std::io::stdout().lock();
    // A reader that went away (`| head`) is no failure of ours.
    let _ = writeln!(stdout, "{text}");
}

/// The wall clock, for the table of times.
#[expect(clippy::disallowed_methods, reason = "a tool that times other programs reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

fn show(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(|it| it.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn both_streams_are_read_and_failure_is_told() {
        let mut lines = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let result = run_reading(&mut command, |line| lines.push(line.to_owned()));
        lines.sort();
        assert_eq!(lines, ["err", "out"]);
        let told = result.expect_err("the command failed").to_string();
        assert!(told.contains("exit status: 3"), "{told}");
    }

    #[test]
    fn a_program_that_is_not_there_is_not_installed() {
        assert!(is_installed("cargo", &[]));
        assert!(!is_installed("cargo", &["no-such-subcommand"]));
        assert!(!is_installed("no-such-program", &[]));
    }
}
