//! The rules of the house that no compiler checks, each a pure function over the tree.
//!
//! `cargo xtask tidy` and `cargo test` both run them; a broken rule prints
//! `file:line: rule: what to do`. What clippy can say is in `clippy.toml` and not here.
//!
//! A rule lives in a module below, next to a test that shows it failing. To add one, write the
//! module and add its `check` to [`RULES`].

mod headers;
mod leftovers;
mod lengths;
mod links;
mod manifest;
mod packages;
mod places;
mod protocol;
mod purity;
mod ratchet;
mod rooms;
mod source;
mod threats;
mod tree;
mod unsafety;

use std::{fmt, path::Path};

use anyhow::{Result, ensure};

pub(crate) use source::Source;
pub(crate) use tree::Tree;

/// Looks at the tree and names what is wrong.
type Rule = fn(&Tree) -> Vec<Problem>;

const RULES: &[Rule] = &[
    headers::check,
    lengths::check_files,
    lengths::check_functions,
    lengths::check_sizes,
    rooms::check,
    packages::check,
    purity::check_dependencies,
    purity::check_code,
    unsafety::check,
    leftovers::check_marks,
    leftovers::check_exceptions,
    protocol::check,
    threats::check,
    places::check_paths,
    places::check_registries,
    links::check,
];

/// One broken rule, told to the person who can mend it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    path: String,
    line: usize,
    rule: &'static str,
    message: String,
}

impl Problem {
    fn new(path: &str, line: usize, rule: &'static str, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, rule, message } = self;
        write!(f, "{path}:{line}: {rule}: {message}")
    }
}

/// Runs every rule on the checkout at `root` and prints what is broken.
pub(crate) fn run(root: &Path) -> Result<()> {
    let tree = Tree::load(root)?;
    let problems = problems(&tree);
    for problem in &problems {
        eprintln!("{problem}");
    }
    ensure!(problems.is_empty(), "tidy: {} problem(s) above", problems.len());
    eprintln!("tidy: {} files in order", tree.files().count());
    Ok(())
}

fn problems(tree: &Tree) -> Vec<Problem> {
    let mut problems: Vec<Problem> = RULES.iter().flat_map(|rule| rule(tree)).collect();
    problems.sort();
    problems.dedup();
    problems
}

/// Runs one rule on a small tree and compares `path:line` of what it finds.
#[cfg(test)]
fn check(rule: Rule, files: &[(&str, &str)], want: &[&str]) {
    let found = rule(&Tree::of(files));
    let places: Vec<_> = found.iter().map(|it| format!("{}:{}", it.path, it.line)).collect();
    assert_eq!(places, want, "{found:#?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_print_where_which_and_what() {
        let tree = Tree::of(&[("crates/a/src/b.rs", "fn main() {}\n")]);
        let problems = problems(&tree);
        let first = problems.first().expect("a file without a header is a problem").to_string();
        assert!(first.starts_with("crates/a/src/b.rs:1: header: "), "{first}");
    }
}
