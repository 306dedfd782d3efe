//! `cargo xtask test`: every check and every test, in one command, on a bare machine.
//!
//! Steps run in order, cheap ones first, and stop at the first failure. Then come a table of
//! steps with their times, and one line for machines: `N passed, N failed, N skipped`, counted
//! from what the test runners said.
//!
//! Not here: how to install what is missing (see `test/tools.rs`).

mod tools;

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, anyhow};

use crate::{
    shell::{self, cargo, say},
    tidy,
};

/// One step: its name and what it does.
type Step = (&'static str, fn(&mut Session) -> Result<Outcome>);

const STEPS: &[Step] = &[
    ("tools", tools),
    ("format", format),
    ("tidy", tidy),
    ("clippy", clippy),
    ("tests", tests),
    ("emulation", emulation),
    ("candle", candle),
    ("doc tests", doc_tests),
    ("docs", docs),
    ("deny", deny),
    ("demo", demo),
];

/// What the steps share.
#[derive(Debug)]
struct Session<'a> {
    root: &'a Path,
    counts: Counts,
}

/// How a step ended when it did not fail.
#[derive(Debug)]
enum Outcome {
    Done,
    /// Left out, with the reason for the table.
    Skipped(&'static str),
}

/// Tests, as the runners counted them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

/// Runs the steps, prints the table and the counts, and fails if a step failed.
pub(crate) fn run(root: &Path) -> Result<()> {
    let start = shell::now();
    let mut session = Session { root, counts: Counts::default() };
    let mut rows = Vec::new();
    let mut failure = None;
    for (name, step) in STEPS {
        eprintln!("\n==> {name}");
        let step_start = shell::now();
        let result = step(&mut session);
        let verdict = match &result {
            Ok(Outcome::Done) => "ok",
            Ok(Outcome::Skipped(why)) => why,
            Err(_) => "FAILED",
        };
        rows.push(row(name, step_start.elapsed(), verdict));
        if let Err(error) = result {
            failure = Some(error.context(format!("step `{name}` failed")));
            break;
        }
    }
    say(&format!("\n{}\n{}", rows.join("\n"), row("total", start.elapsed(), "")));
    if let Some(error) = &failure {
        say(&format!("FAILED: {error:#}"));
    }
    let Counts { passed, failed, skipped } = session.counts;
    say(&format!("{passed} passed, {failed} failed, {skipped} skipped"));
    failure.map_or(Ok(()), |_| Err(anyhow!("not all is well; see the table above")))
}

fn row(name: &str, time: Duration, verdict: &str) -> String {
    format!("{name:<10} {:>8.1} s  {verdict}", time.as_secs_f64()).trim_end().to_owned()
}

fn tools(session: &mut Session) -> Result<Outcome> {
    tools::ensure(session.root)?;
    Ok(Outcome::Done)
}

fn format(session: &mut Session) -> Result<Outcome> {
    let checked = shell::run(&mut cargo(session.root, &["fmt", "--all", "--check"]));
    checked.context("type `cargo fmt --all`")?;
    Ok(Outcome::Done)
}

fn tidy(session: &mut Session) -> Result<Outcome> {
    tidy::run(session.root)?;
    Ok(Outcome::Done)
}

fn clippy(session: &mut Session) -> Result<Outcome> {
    let args = ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    shell::run(&mut cargo(session.root, &args))?;
    Ok(Outcome::Done)
}

fn tests(session: &mut Session) -> Result<Outcome> {
    if shell::is_installed("cargo", &["nextest"]) {
        let args = ["nextest", "run", "--workspace", "--no-fail-fast"];
        return session.run_counted(cargo(session.root, &args), nextest_summary);
    }
    eprintln!("cargo-nextest is not installed: `cargo test` runs the tests, more slowly");
    let args = ["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"];
    session.run_counted(cargo(session.root, &args), libtest_summary)
}

/// The tests of the kernels once more, with AVX-512 emulated: see `intrinsics.rs` there.
///
/// Cargo keeps what it builds this way beside what it builds otherwise, so nothing is built again.
fn emulation(session: &mut Session) -> Result<Outcome> {
    if !has_avx2() {
        eprintln!("NOT CHECKED: the AVX-512 kernels, because their emulation needs AVX2.");
        return Ok(Outcome::Skipped("SKIPPED: this machine has no AVX2"));
    }
    let package = ["--package", "commons-kernels", "--lib", "--profile", "test"];
    let flags = ["--", "--cfg", "emulated_avx512", "--deny", "warnings"];
    shell::run(&mut cargo(session.root, &[&["rustc"], &package[..], &flags].concat()))?;
    let format = ["--message-format", "json"];
    let args = [&["rustc"], &package[..], &format, &flags].concat();
    let messages = shell::output_or_reason(&mut cargo(session.root, &args))?;
    let program = executable(&messages).context("cargo names no test program")?;
    let mut command = Command::new(program);
    command.current_dir(session.root.join("crates/kernels"));
    session.run_counted(command, libtest_summary)
}

fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// The program that cargo built, out of its messages: one JSON object a line.
fn executable(messages: &str) -> Option<String> {
    let mut messages = messages.lines().rev().flat_map(serde_json::from_str::<serde_json::Value>);
    messages.find_map(|message| Some(message["executable"].as_str()?.to_owned()))
}

/// The engine with the library that computes on GPUs, here on the processor.
fn candle(session: &mut Session) -> Result<Outcome> {
    const ENGINE: [&str; 4] = ["--package", "commons-engine", "--features", "candle"];
    let clippy = [&["clippy"], &ENGINE[..], &["--lib", "--test", "candle"]].concat();
    shell::run(&mut cargo(session.root, &[&clippy[..], &["--", "--deny", "warnings"]].concat()))?;
    let units = ["--lib", "--", "forward::candle", "place", "devices"];
    let units = cargo(session.root, &[&["test"], &ENGINE[..], &units].concat());
    session.run_counted(units, libtest_summary)?;
    let against_ours = ["--test", "candle"];
    let against_ours = cargo(session.root, &[&["test"], &ENGINE[..], &against_ours].concat());
    session.run_counted(against_ours, libtest_summary)
}

fn doc_tests(session: &mut Session) -> Result<Outcome> {
    let args = ["test", "--workspace", "--doc", "--no-fail-fast"];
    session.run_counted(cargo(session.root, &args), libtest_summary)
}

fn docs(session: &mut Session) -> Result<Outcome> {
    let mut command = cargo(session.root, &["doc", "--workspace", "--no-deps"]);
    shell::run(command.env("RUSTDOCFLAGS", "--deny warnings"))?;
    Ok(Outcome::Done)
}

/// Advisories come over the network, the rest does not.
fn deny(session: &mut Session) -> Result<Outcome> {
    if !shell::is_installed("cargo", &["deny"]) {
        eprintln!(
            "NOT CHECKED: licences, sources and advisories of dependencies.\n\
             Type `cargo install --locked cargo-deny` to have them checked."
        );
        return Ok(Outcome::Skipped("SKIPPED: cargo-deny is not installed"));
    }
    let deny = |args: &[&str]| cargo(session.root, &[&["deny", "--workspace"], args].concat());
    shell::run(&mut deny(&["check", "bans", "licenses", "sources"]))?;
    if shell::run(&mut deny(&["fetch", "db"])).is_err() {
        eprintln!("NOT CHECKED: advisories, because their list cannot be fetched.");
        return Ok(Outcome::Skipped("ok, but SKIPPED advisories: cannot fetch their list"));
    }
    shell::run(&mut deny(&["check", "advisories"]))?;
    Ok(Outcome::Done)
}

/// Runs the program as a person would, from the debug build beside this one.
fn demo(session: &mut Session) -> Result<Outcome> {
    // The same selection as the tests, so that nothing is built again with other features.
    shell::run(&mut cargo(session.root, &["build", "--workspace", "--bins", "--tests"]))?;
    let here = std::env::current_exe().context("failed to find this program's own folder")?;
    let program = here.with_file_name(format!("commons{}", std::env::consts::EXE_SUFFIX));
    shell::run(Command::new(program).arg("demo").current_dir(session.root))?;
    Ok(Outcome::Done)
}

impl Session<'_> {
    /// Runs a test runner and adds up what it counts.
    fn run_counted(&mut self, mut command: Command, summary: Summary) -> Result<Outcome> {
        let counts = &mut self.counts;
        command.env("CARGO_TERM_COLOR", "never"); // Colours would hide the counts.
        shell::run_reading(&mut command, |line| {
            if let Some(summary) = summary(line) {
                counts.add(summary);
            }
        })?;
        Ok(Outcome::Done)
    }
}

/// The counts in a line, if it is the summary of a run. Only the runner that was started is
/// believed: nextest repeats what libtest said about each failed test.
type Summary = fn(&str) -> Option<&str>;

fn nextest_summary(line: &str) -> Option<&str> {
    Some(line.trim_start().strip_prefix("Summary [")?.split_once("run: ")?.1)
}

fn libtest_summary(line: &str) -> Option<&str> {
    Some(line.strip_prefix("test result: ")?.split_once(". ")?.1)
}

impl Counts {
    /// Adds the counts of one run.
    fn add(&mut self, summary: &str) {
        let words: Vec<&str> = summary.split_whitespace().collect();
        for pair in words.windows(2) {
            let Ok(count) = pair[0].parse::<u64>() else { continue };
            match pair[1].trim_end_matches([',', ';', ')']) {
                "passed" => self.passed += count,
                "failed" | "timed" | "exec" => self.failed += count, // `timed out`, `exec failed`
                "skipped" | "ignored" => self.skipped += count,
                _ => {} // `slow`, `leaky`, `measured`, `filtered out`: counted already, or not run.
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(summary: Summary, lines: &str, want: (u64, u64, u64)) {
        let mut counts = Counts::default();
        lines.lines().filter_map(summary).for_each(|it| counts.add(it));
        assert_eq!((counts.passed, counts.failed, counts.skipped), want, "{lines}");
    }

    #[test]
    fn counts_come_from_what_nextest_says() {
        let ok = "     Summary [   0.123s] 5 tests run: 5 passed, 2 skipped";
        check(nextest_summary, ok, (5, 0, 2));
        let bad = "    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured\n     \
             Summary [   9.1s] 9/11 tests run: 6 passed (1 slow, 1 leaky), 1 failed, \
             1 exec failed, 1 timed out, 0 skipped\n   Compiling a v0.1.0";
        check(nextest_summary, bad, (6, 3, 0));
    }

    #[test]
    fn counts_come_from_what_libtest_says() {
        let all = "running 3 tests\n\
             test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; in 1s\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n\
             a test said: test result: ok. 7 passed";
        check(libtest_summary, all, (3, 1, 1));
    }

    #[test]
    fn the_program_is_the_one_that_cargo_names() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
             {\"reason\":\"compiler-artifact\",\"executable\":\"/target/kernels-1\"}\n\
             {\"reason\":\"build-finished\",\"success\":true}\nno message";
        assert_eq!(executable(messages).as_deref(), Some("/target/kernels-1"));
        assert_eq!(executable("{\"executable\":null}"), None);
    }

    #[test]
    fn a_row_says_name_time_and_verdict() {
        assert_eq!(row("docs", Duration::from_millis(1_250), "ok"), "docs            1.2 s  ok");
    }
}
