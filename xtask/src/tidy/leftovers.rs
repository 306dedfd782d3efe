//! Nothing half-done is committed, and every lifted lint says why.

use super::{
    Problem, Tree,
    source::{after_closing, find_whole, line_of, numbered},
};

/// A mark for work that is not ready. Joined here, or this line would break the rule.
const MARK: &str = concat!("FIX", "ME");

/// No mark of unfinished work, no `dbg!`, no `todo!`.
pub(super) fn check_marks(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (file, source) in tree.sources() {
        let mut report = |line, what: &str| {
            let message = format!("`{what}`: finish it, or write an issue");
            problems.push(Problem::new(&file.path, line, "leftover", message));
        };
        for (line, text) in numbered(file.text.as_deref().unwrap_or_default()) {
            if find_whole(text, MARK).next().is_some() {
                report(line, MARK);
            }
        }
        for (line, code) in source.code_lines() {
            for name in ["dbg", "todo", "unimplemented"] {
                if find_whole(code, name).any(|at| code[at + name.len()..].starts_with('!')) {
                    report(line, &format!("{name}!"));
                }
            }
        }
    }
    problems
}

/// No `#[allow(..)]` or `#[expect(..)]` without a reason.
pub(super) fn check_exceptions(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (file, source) in tree.sources() {
        let code = source.code();
        for open in ["[allow(", "[expect("] {
            let attributes = code.match_indices(open).map(|(at, _)| at);
            for at in attributes.filter(|&at| code[..at].trim_end_matches('!').ends_with('#')) {
                let end = after_closing(code, at).unwrap_or(code.len());
                if find_whole(&code[at..end], "reason").next().is_none() {
                    let message = "say why: `reason = \"..\"`";
                    problems.push(Problem::new(&file.path, line_of(code, at), "reason", message));
                }
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::{super::check, *};

    #[test]
    fn unfinished_work_is_named() {
        let text = format!("// {MARK} later\ndbg!(x);\n\ntodo!()\n// dbg!(x)\nfn todo() {{}}\n");
        check(check_marks, &[("a.rs", &text)], &["a.rs:1", "a.rs:2", "a.rs:4"]);
        check(check_marks, &[("a.md", &text)], &[]);
    }

    #[test]
    fn an_exception_without_a_reason_is_named() {
        let good = "#[allow(x, reason = \"y\")]\n#![expect(\n  x,\n  reason = \"y\",\n)]\nreturn f[allow(x)]";
        check(check_exceptions, &[("a.rs", good)], &[]);
        let bad = "#[allow(x)] // reason\n\n#![expect(clippy::x)]\n";
        check(check_exceptions, &[("a.rs", bad)], &["a.rs:1", "a.rs:3"]);
    }
}
