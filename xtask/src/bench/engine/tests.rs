//! The whole benchmark against scripts that print what an engine would.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;

/// A folder of our own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for scratch");
        Self(folder)
    }

    /// A program that appends its arguments to a file and then does what `script` says.
    fn program(&self, name: &str, script: &str) -> String {
        let path = self.0.join(name);
        let log = self.0.join("log").display().to_string();
        let script = format!("#!/bin/sh\necho {name} \"$@\" >> '{log}'\n{script}\n");
        fs::write(&path, script).expect("a script in the scratch folder");
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&path, mode).expect("a script that can be run");
        path.display().to_string()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.0.join("log")).unwrap_or_default()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A line as an engine prints it, of so many seconds.
fn line(seconds: &str) -> String {
    format!(
        r#"echo '{{"schema":1,"engine":"fake","seconds":[{seconds}],"tokens_timed":100,
        "cold_s":2,"load_s":1,"loaded_bytes":3145728,"before_bytes":1048576,"peak_bytes":4194304,
        "file_bytes":1048576,"computed_s":[1],"kv_bytes":524288,"drafted":10,"accepted":5}}' | tr -d '\n'"#
    )
}

fn args(words: &[&str]) -> Vec<String> {
    words.iter().map(|&it| it.to_owned()).collect()
}

#[test]
fn all_contenders_are_measured_in_turn_and_compared() {
    let scratch = Scratch::new("all");
    let ours = scratch.program("ours", &line("2"));
    let theirs = scratch.program("python", &format!("[ \"$1\" = -c ] || {}", line("4")));
    let model = scratch.program("model.gguf", "");
    let rest = ["--model", &model, "--commons", &ours, "--python", &theirs];
    let rest = [&rest[..], &["--threads", "3", "--rounds", "2", "--isa", "it"]].concat();
    let page = measure(Path::new("."), &args(&rest)).unwrap();

    assert!(page.contains("* Commons: fake\n* llama.cpp: fake\n"), "{page}");
    let row = "| Decode, 1 row | tokens/s | 50.0 | 25.0 | 25.0 | 2.00 | 0 % |";
    assert!(page.contains(row), "{page}");
    let row = "| Decode, 4 rows as requests | tokens/s | 50.0 | | | | 0 % |";
    assert!(page.contains(row), "{page}");
    let row = "| Time besides the model, 4 rows | % | 50.00 | | | | 0 % |";
    assert!(page.contains(row), "{page}");
    assert!(page.contains("| 16 rows together, of 1 | 1.00 | 1.00 | 1.00 |"), "{page}");
    assert!(page.contains("| The same, of file and keys and values | times | 2.00 |"), "{page}");
    assert!(page.contains("| Drafted tokens that were right | % | 50.0 |"), "{page}");

    let log = scratch.log();
    let wanted =
        format!("ours bench {model} --json --threads 3 --only prefill --tokens 512 --isa it");
    assert!(log.contains(&wanted), "{log}");
    // A check for the reference, then of 13 cases 5 are ours alone; the others are run three times.
    assert_eq!(log.lines().count(), 1 + 2 * (5 + 3 * 8), "{log}");
    assert!(log.lines().nth(1).is_some_and(|it| it.starts_with("ours ")), "{log}");
}

#[test]
fn each_contender_begins_a_round_in_its_turn() {
    let firsts: Vec<_> = (0..3).map(|round| turn(3, round).next()).collect();
    assert_eq!(firsts, [Some(0), Some(1), Some(2)]);
}

#[test]
fn without_a_reference_the_page_says_so() {
    let scratch = Scratch::new("alone");
    let ours = scratch.program("ours", &line("2"));
    let model = scratch.program("model.gguf", "");
    let rest = ["--model", &model, "--commons", &ours, "--rounds", "1", "--case", "prefill"];
    let page = measure(Path::new("."), &args(&rest)).unwrap();
    assert!(page.contains("No reference was given"), "{page}");
    assert!(page.contains("| Prefill of 128 tokens | tokens/s | 50.0 | | 0 % |"), "{page}");
}

#[test]
fn what_goes_wrong_is_named() {
    let scratch = Scratch::new("wrong");
    let model = scratch.program("model.gguf", "");
    let fails = scratch.program("fails", "echo because >&2; exit 3");
    let silent = scratch.program("silent", "true");
    let ours = scratch.program("ours", &line("2"));
    for (words, reason) in [
        (&["--model", "no-such-file", "--commons", &ours][..], "failed to read no-such-file"),
        (&["--model", &model, "--commons", &fails], "because"),
        (&["--model", &model, "--commons", &silent], "Commons could not measure: prefill 512"),
        (&["--model", &model, "--commons", &ours, "--python", &fails], "there is no reference"),
        (&["--model", &model, "--commons", &ours, "--case", "zebra"], "no case has \"zebra\""),
        (&["--model", &model, "--commons", &ours, "--rounds", "0"], "without a round"),
        (&["--commons", &ours], "--model <FILE>"),
    ] {
        let told = format!("{:#}", measure(Path::new("."), &args(words)).unwrap_err());
        assert!(told.contains(reason), "{words:?}: {told}");
    }
}
