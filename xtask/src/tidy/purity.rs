//! A pure room cannot do I/O: its `Cargo.toml` has no runtime and its code no clock. Nor can the
//! kernels, which alone may hold `unsafe` code.
//!
//! Only direct dependencies are looked at: what a trait crate pulls in behind its back is read
//! at review. Tests of a pure room may do what they like.

use super::{
    Problem, Tree, rooms,
    source::{find_whole, line_of, words},
};

/// Runtimes, sockets, disks, clocks and sources of chance.
const IMPURE_DEPENDENCIES: &[&str] = &[
    "async-std",
    "axum",
    "chrono",
    "fastrand",
    "getrandom",
    "hyper",
    "libp2p",
    "memmap2",
    "mio",
    "quinn",
    "rand",
    "rayon",
    "redb",
    "reqwest",
    "rusqlite",
    "smol",
    "socket2",
    "sqlx",
    "tempfile",
    "time",
    "tokio",
    "tokio-stream",
    "tokio-util",
    "ureq",
];

/// Modules of the standard library that reach outside the program.
const IMPURE_MODULES: &[&str] = &["env", "fs", "net", "process", "thread"];

/// Types that bring in a clock, or an order that differs from run to run.
const IMPURE_TYPES: &[(&str, &str)] = &[
    ("HashMap", "its order differs from run to run: use `BTreeMap`"),
    ("HashSet", "its order differs from run to run: use `BTreeSet`"),
    ("Instant", "time is an argument: take `Millis`"),
    ("SystemTime", "time is an argument: take `Millis`"),
];

const RULE: &str = "purity";

/// No runtime dependency in the `Cargo.toml` of a pure room.
pub(super) fn check_dependencies(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for package in tree.packages().filter(|it| rooms::is_without_io(it.room())) {
        let dependencies = package.manifest.dependencies();
        let impure = |name| IMPURE_DEPENDENCIES.contains(&name);
        for it in dependencies.iter().filter(|it| !it.is_dev && impure(it.name)) {
            let message = format!("`{}` does I/O: put it behind a trait of `port`", it.name);
            problems.push(Problem::new(package.path, it.line, RULE, message));
        }
    }
    problems
}

/// No mention of files, sockets, clocks or unordered maps, and no unsafe code.
pub(super) fn check_code(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for package in tree.packages().filter(|it| rooms::is_without_io(it.room())) {
        let is_safe = rooms::is_pure(package.room());
        let folder = format!("{}/src/", package.folder);
        let lib = format!("{folder}lib.rs");
        for (file, source) in tree.sources().filter(|(it, _)| it.path.starts_with(&folder)) {
            let code = source.code();
            if is_safe && file.path == lib && !code.contains("#![forbid(unsafe_code)]") {
                let message = "a pure room says `#![forbid(unsafe_code)]`";
                problems.push(Problem::new(&lib, 1, RULE, message));
            }
            for (at, message) in impure_mentions(code) {
                let line = line_of(code, at);
                if !source.is_test_line(line) {
                    problems.push(Problem::new(&file.path, line, RULE, message));
                }
            }
        }
    }
    problems
}

fn impure_mentions(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (name, why) in IMPURE_TYPES {
        found.extend(find_whole(code, name).map(|at| (at, format!("`{name}`: {why}"))));
    }
    for start in find_whole(code, "std").filter(|&at| code[at + 3..].starts_with("::")) {
        let after = start + "std::".len();
        let named = match code[after..].strip_prefix('{') {
            Some(group) => group_names(group),
            None => words(&code[after..]).take(1).map(|(_, name)| name).collect(),
        };
        for name in named.into_iter().filter(|name| IMPURE_MODULES.contains(name)) {
            found.push((start, format!("`std::{name}`: put it behind a trait of `port`")));
        }
    }
    found.sort();
    found
}

/// The names at the first level of `a, b::{c}, d}`.
fn group_names(group: &str) -> Vec<&str> {
    let (mut names, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, letter) in group.char_indices() {
        match letter {
            ',' | '}' if depth == 0 => {
                names.extend(words(&group[start..at]).next().map(|(_, name)| name));
                start = at + 1;
                if letter == '}' {
                    break;
                }
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::{super::check, *};

    #[test]
    fn a_runtime_in_a_pure_room_is_named() {
        let text = "[dependencies]\nserde.workspace = true\ntokio.workspace = true\n\
            [dev-dependencies]\ntokio.workspace = true\n";
        let path = "crates/record/Cargo.toml";
        check(check_dependencies, &[(path, text)], &["crates/record/Cargo.toml:3"]);
        check(check_dependencies, &[("crates/node/Cargo.toml", text)], &[]);
    }

    fn check_pure(text: &str, lines: &[usize]) {
        let text = format!("#![forbid(unsafe_code)] {text}");
        let want: Vec<_> = lines.iter().map(|it| format!("crates/port/src/lib.rs:{it}")).collect();
        let want: Vec<_> = want.iter().map(String::as_str).collect();
        let files = [("crates/port/Cargo.toml", ""), ("crates/port/src/lib.rs", text.as_str())];
        check(check_code, &files, &want);
    }

    #[test]
    fn a_clock_a_file_or_an_unordered_map_in_a_pure_room_is_named() {
        check_pure("\nfn f(m: HashMap<u8, u8>) {}", &[2]);
        check_pure("\nuse std::time::{Duration, Instant};", &[2]);
        check_pure("\nlet x = std::fs::read(y);\nstd::net::TcpStream", &[2, 3]);
        check_pure("\nuse std::{collections::BTreeMap, io::{self, net}, fs};", &[2]);
        check_pure("// HashMap\nuse std::{fmt, time::Duration}; struct InstantReply; my::fs", &[]);
        check_pure("\n#[cfg(test)]\nmod tests { use std::fs; }", &[]);
    }

    #[test]
    fn the_kernels_may_be_unsafe_and_do_no_io() {
        let (manifest, lib) = ("crates/kernels/Cargo.toml", "crates/kernels/src/lib.rs");
        check(check_code, &[(manifest, ""), (lib, "unsafe fn f() {}")], &[]);
        let files = [(manifest, ""), (lib, "\nuse std::fs;\nfn f() { std::thread::spawn(g) }")];
        check(check_code, &files, &["crates/kernels/src/lib.rs:2", "crates/kernels/src/lib.rs:3"]);
        let text = "[dependencies]\nrayon.workspace = true\n";
        check(check_dependencies, &[(manifest, text)], &["crates/kernels/Cargo.toml:2"]);
    }

    #[test]
    fn a_pure_room_forbids_unsafe_code() {
        let files = [("crates/port/Cargo.toml", ""), ("crates/port/src/lib.rs", "fn f() {}")];
        check(check_code, &files, &["crates/port/src/lib.rs:1"]);
    }
}
