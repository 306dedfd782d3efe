//! Every Rust file opens by saying what it is.

use super::{Problem, Tree};

/// A header of fewer words repeats the file name.
const WORDS_MIN: usize = 3;

/// The first line of every `.rs` file is a `//!` sentence.
pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let without = tree.texts_with("rs").filter(|(_, text)| {
        let header = text.lines().next().and_then(|line| line.strip_prefix("//!"));
        header.is_none_or(|it| it.split_whitespace().count() < WORDS_MIN)
    });
    let message = "open the file with `//!` and a sentence that says what it is";
    without.map(|(file, _)| Problem::new(&file.path, 1, "header", message)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::check as check_rule;

    #[test]
    fn a_file_without_a_sentence_at_its_head_is_named() {
        let files = [
            ("a.rs", "//! What this is.\nfn main() {}"),
            ("b.rs", "fn main() {}\n//! What this is."),
            ("c.rs", "//! stub\n"),
            ("d.rs", ""),
            ("e.md", "text"),
        ];
        check_rule(super::check, &files, &["b.rs:1", "c.rs:1", "d.rs:1"]);
    }
}
