//! Relative links in Markdown lead somewhere.
//!
//! Not here: links to the web, and the `#heading` part of a link.

use super::{Problem, Tree, source::numbered};

/// Every relative link of every `.md` file resolves inside the repository.
pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (file, text) in tree.texts_with("md") {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut is_fenced = false;
        for (line, text) in numbered(text) {
            if text.trim_start().starts_with("```") {
                is_fenced = !is_fenced;
            }
            if is_fenced {
                continue;
            }
            for target in targets(&without_code(text)) {
                if !resolve(folder, &target).is_some_and(|path| tree.exists(&path)) {
                    let message = format!("`{target}` leads nowhere in this repository");
                    problems.push(Problem::new(&file.path, line, "link", message));
                }
            }
        }
    }
    problems
}

/// A line without its inline code.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// Relative targets of `[text](target)` and `[name]: target`, without the heading.
fn targets(line: &str) -> Vec<String> {
    let inline = line.split("](").skip(1).filter_map(|it| it.split([')', ' ']).next());
    let definition = line.strip_prefix('[').and_then(|it| it.split_once("]: "));
    let definition = definition.and_then(|(_, target)| target.split_whitespace().next());
    let all = inline.chain(definition).map(|it| it.trim_matches(['<', '>']));
    let is_web = |it: &str| it.contains("://") || it.starts_with("mailto:");
    let relative = all.filter(|it| !is_web(it)).filter_map(|it| it.split('#').next());
    relative.filter(|it| !it.is_empty()).map(str::to_owned).collect()
}

/// The path from the root; `None` when it leaves the repository.
fn resolve(folder: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|it| !it.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::super::check;

    #[test]
    fn a_link_that_leads_nowhere_is_named() {
        let good = "[a](b.md) [c](../README.md#x \"title\") [d](.) [e](#f) ![g](<b.md>)\n\
            `[h](none.md)` [i](https://example.org/x)\n```\n[j](none.md)\n```\n[k]: b.md\n";
        let files = [("docs/a.md", good), ("docs/b.md", ""), ("README.md", "[x](docs/)")];
        check(super::check, &files, &[]);
        for bad in ["[a](c.md)", "[a](../../out.md)", "[a](/b.md)", "[a]: c.md", "`x` [a](c.md)"] {
            check(super::check, &[("docs/a.md", bad), ("docs/b.md", "")], &["docs/a.md:1"]);
        }
    }
}
