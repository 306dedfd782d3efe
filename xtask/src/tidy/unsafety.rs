//! Unsafe code says why it is needed and why it is sound.

use super::{
    Problem, Tree,
    source::{find_whole, line_of, words},
};

/// How far above an `unsafe` its comment may stand.
const COMMENT_LINES_MAX: usize = 5;

/// Every unsafe block and impl has `SAFETY:` just above it, and its file `JUSTIFICATION:`.
pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (file, source) in tree.sources() {
        let code = source.code();
        let text = file.text.as_deref().unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let mut is_justified = text.contains("JUSTIFICATION:");
        for at in find_whole(code, "unsafe") {
            let line = line_of(code, at);
            if !is_justified {
                let message = "say `JUSTIFICATION:` and the measured gain at the head of the file";
                problems.push(Problem::new(&file.path, line, "unsafe", message));
                is_justified = true; // Once a file is enough.
            }
            let rest = code[at + "unsafe".len()..].trim_start();
            let next = words(rest).next().map(|(_, word)| word);
            let is_body = rest.starts_with('{') || next == Some("impl");
            let above = &lines[line.saturating_sub(COMMENT_LINES_MAX + 1)..line];
            if is_body && !above.iter().any(|it| it.contains("SAFETY:")) {
                let message = "say `SAFETY:` and why each precondition holds, just above";
                problems.push(Problem::new(&file.path, line, "unsafe", message));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::super::check;

    #[test]
    fn unsafe_code_without_its_two_comments_is_named() {
        let good = "// JUSTIFICATION: 2x\n// SAFETY: checked above\nlet a = unsafe { f() };\n";
        check(super::check, &[("a.rs", good)], &[]);
        check(super::check, &[("a.rs", &good.replace("JUST", ""))], &["a.rs:3"]);
        check(super::check, &[("a.rs", &good.replace("SAFE", ""))], &["a.rs:3"]);
        let far = good.replace("above", "above\n\n\n\n\n\n");
        check(super::check, &[("a.rs", &far)], &["a.rs:9"]);
        let item = "// JUSTIFICATION: 2x\nunsafe impl Send for A {}\n";
        check(super::check, &[("a.rs", item)], &["a.rs:2"]);
        check(super::check, &[("a.rs", "#![deny(unsafe_code)] // unsafe { }\n\"unsafe\"")], &[]);
    }
}
