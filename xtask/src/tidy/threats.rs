//! Every claim in `docs/THREATS.md` is shown by a test that exists.
//!
//! A claim is a line that starts with `**T1**`, and goes on to the next claim or heading. It
//! holds at least one `[test: crates/record/src/tests.rs::a_flipped_bit_fails]`.

use super::{
    Problem, Tree,
    protocol::{bold_id, definitions},
    source::numbered,
};

const DOCUMENT: &str = "docs/THREATS.md";
const RULE: &str = "threats";
const OPEN: &str = "[test:";

/// Each claim links a test, and each link resolves.
pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let Some(document) = tree.text(DOCUMENT) else {
        return vec![Problem::new(DOCUMENT, 1, RULE, "write the claims and link their tests")];
    };
    let (claims, mut problems) = definitions(DOCUMENT, document, RULE);
    for (id, line) in &claims {
        let is_claim = id.strip_prefix('T').is_some_and(|it| it.parse::<u32>().is_ok());
        if !is_claim {
            let message = format!("`{id}` is no claim: number claims T1, T2 and so on");
            problems.push(Problem::new(DOCUMENT, *line, RULE, message));
        }
        if is_claim && !block(document, *line).contains(OPEN) {
            let message = format!("{id} is not shown: add `{OPEN} <file>::<name of the test>]`");
            problems.push(Problem::new(DOCUMENT, *line, RULE, message));
        }
    }
    for (line, text) in numbered(document) {
        for link in text.split(OPEN).skip(1) {
            let link = link.split(']').next().unwrap_or_default().trim();
            if let Err(message) = resolve(tree, link) {
                problems.push(Problem::new(DOCUMENT, line, RULE, message));
            }
        }
    }
    problems
}

/// The lines of the claim that starts on this line.
fn block(document: &str, line: usize) -> String {
    let mut lines = document.lines().skip(line - 1);
    let first = lines.next().unwrap_or_default();
    let rest = lines.take_while(|it| bold_id(it).is_none() && !it.starts_with('#'));
    [first].into_iter().chain(rest).collect::<Vec<_>>().join("\n")
}

fn resolve(tree: &Tree, link: &str) -> Result<(), String> {
    let (path, name) =
        link.split_once("::").ok_or_else(|| format!("`{link}`: write `<file>::<name>`"))?;
    let source = tree.file(path).and_then(|file| file.source.as_ref());
    let source = source.ok_or_else(|| format!("`{path}` is not a Rust file of this repository"))?;
    let is_there =
        source.functions().iter().any(|it| it.name == name && source.is_test_line(it.line));
    if is_there { Ok(()) } else { Err(format!("`{path}` has no test `{name}`: mend the link")) }
}

#[cfg(test)]
mod tests {
    use super::{super::check as check_rule, *};

    const TEST: (&str, &str) = ("crates/a/tests/it.rs", "#[test]\nfn it_holds() {}\n");

    fn check_document(text: &str, lines: &[usize]) {
        let want: Vec<_> = lines.iter().map(|it| format!("{DOCUMENT}:{it}")).collect();
        let want: Vec<_> = want.iter().map(String::as_str).collect();
        check_rule(check, &[(DOCUMENT, text), TEST], &want);
    }

    #[test]
    fn a_claim_without_a_test_is_named() {
        let link = "[test: crates/a/tests/it.rs::it_holds]";
        check_document(&format!("**T1** It holds. {link}"), &[]);
        check_document(&format!("**T1** It\n\nholds.\n{link}\n"), &[]);
        check_document(&format!("**T1** It holds.\n**T2** So. {link}\n"), &[1]);
        check_document(&format!("**T1** It holds.\n## Next\n{link}\n"), &[1]);
        check_document(&format!("**X1** It holds. {link}"), &[1]);
        check_document("# No claims", &[1]);
        check_rule(check, &[], &["docs/THREATS.md:1"]);
    }

    #[test]
    fn a_link_to_no_test_is_named() {
        let check_link = |link: &str| check_document(&format!("**T1** Yes.\n[test: {link}]"), &[2]);
        check_link("crates/a/tests/it.rs::it_fails");
        check_link("crates/a/tests/of.rs::it_holds");
        check_link("it_holds");
        let code = ("crates/a/src/lib.rs", "fn it_holds() {}");
        let claim = "**T1** Yes. [test: crates/a/src/lib.rs::it_holds]";
        check_rule(check, &[(DOCUMENT, claim), code], &["docs/THREATS.md:1"]);
    }
}
