//! `cargo xtask stats`: how much code there is, how much of it is tests, and how many
//! third-party crates each package brings in, as a Markdown table.
//!
//! A line counts when something is left of it without comments and blanks.

use std::{collections::BTreeSet, path::Path};

use anyhow::Result;

use crate::{
    shell::{self, cargo, say},
    tidy::{Source, Tree},
};

/// Lines of one package.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lines {
    code: usize,
    tests: usize,
}

/// Prints one row for each package, and their sum.
pub(crate) fn run(root: &Path) -> Result<()> {
    let tree = Tree::load(root)?;
    let mut rows = vec![
        "| package | code | tests | tests/code | crates |".to_owned(),
        "|---|---:|---:|---:|---:|".to_owned(),
    ];
    let (mut total, mut all) = (Lines::default(), BTreeSet::new());
    for package in tree.packages() {
        let folder = format!("{}/", package.folder);
        let sources = tree.sources().filter(|(file, _)| file.path.starts_with(&folder));
        let lines = sources.map(|(_, source)| count(source)).fold(Lines::default(), Lines::plus);
        let name = package.manifest.value("package", "name").unwrap_or("?").trim_matches('"');
        let crates = crates_below(root, name);
        rows.push(row(name, lines, crates.len()));
        total = total.plus(lines);
        all.extend(crates);
    }
    rows.push(row("**all**", total, all.len()));
    say(&rows.join("\n"));
    Ok(())
}

fn count(source: &Source) -> Lines {
    let mut lines = Lines::default();
    for (line, _) in source.code_lines() {
        if source.is_test_line(line) {
            lines.tests += 1;
        } else {
            lines.code += 1;
        }
    }
    lines
}

impl Lines {
    fn plus(self, other: Self) -> Self {
        Self { code: self.code + other.code, tests: self.tests + other.tests }
    }
}

fn row(name: &str, lines: Lines, crates: usize) -> String {
    let Lines { code, tests } = lines;
    let percent = tests * 100 / code.max(1);
    format!("| {name} | {code} | {tests} | {}.{:02} | {crates} |", percent / 100, percent % 100)
}

/// Third-party crates that this package links, by name and version; empty if cargo cannot say.
fn crates_below(root: &Path, package: &str) -> BTreeSet<String> {
    let args = ["tree", "--edges", "normal", "--prefix", "none", "--package", package];
    let tree = shell::output(&mut cargo(root, &args)).unwrap_or_default();
    third_party(&tree)
}

/// Our own crates carry their folder in brackets, and repeated ones a `(*)`.
fn third_party(tree: &str) -> BTreeSet<String> {
    let lines = tree.lines().map(|line| line.trim_end_matches(" (*)"));
    lines
        .filter(|line| !line.is_empty() && !line.contains(" (/"))
        .map(|line| line.trim_end_matches(" (proc-macro)").to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blanks_do_not_count_and_tests_count_apart() {
        let text = "//! doc\n\nfn a() {} // b\n#[cfg(test)]\nmod tests {\n    // c\n}\n";
        assert_eq!(count(&Source::new(text, false)), Lines { code: 1, tests: 3 });
    }

    #[test]
    fn a_crate_counts_once_and_ours_not_at_all() {
        let tree = "commons-a v0.1.0 (/x/a)\nserde v1.0.0\nserde_derive v1.0.0 (proc-macro)\n\
            serde v1.0.0 (*)\n";
        assert_eq!(third_party(tree).len(), 2);
    }

    #[test]
    fn a_row_divides_tests_by_code() {
        assert_eq!(row("a", Lines { code: 8, tests: 9 }, 3), "| a | 8 | 9 | 1.12 | 3 |");
        assert_eq!(row("b", Lines::default(), 0), "| b | 0 | 0 | 0.00 | 0 |");
    }
}
