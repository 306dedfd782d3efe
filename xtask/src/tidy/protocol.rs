//! `docs/PROTOCOL.md` and the code speak of the same rules.
//!
//! A rule is a line that starts with its id in bold, `**R3** text`, list marker or not.
//! Code, tests and other documents cite it as `Rule R3`, `Rules R3 and R4` or `Rules R3-R5`.
//! Every cited rule must exist, and every rule must be cited by a test.

use std::collections::{BTreeMap, BTreeSet};

use super::{Problem, Tree, source::numbered};

const DOCUMENT: &str = "docs/PROTOCOL.md";
const RULE: &str = "protocol";

/// A longer range is a slip of the finger.
const RANGE_MAX: u32 = 50;

/// Citations resolve, and each rule has a test.
pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let Some(document) = tree.text(DOCUMENT) else {
        return vec![Problem::new(DOCUMENT, 1, RULE, "write the numbered rules that code cites")];
    };
    let (rules, mut problems) = definitions(DOCUMENT, document, RULE);
    let mut tested = BTreeSet::new();
    for (file, text) in tree.texts().filter(|(file, _)| may_cite(&file.path)) {
        for (line, text) in numbered(text) {
            let is_test = file.source.as_ref().is_some_and(|it| it.is_test_line(line));
            for id in citations(text) {
                if !rules.contains_key(&id) {
                    let message =
                        format!("Rule {id} is not in {DOCUMENT}: add it there or mend the id");
                    problems.push(Problem::new(&file.path, line, RULE, message));
                }
                if is_test {
                    tested.insert(id);
                }
            }
        }
    }
    for (id, line) in rules.iter().filter(|(id, _)| !tested.contains(*id)) {
        let message = format!("no test cites it: write one that says `Rule {id}`");
        problems.push(Problem::new(DOCUMENT, *line, RULE, message));
    }
    problems
}

/// Rust code and documents cite rules; `xtask` and `CONTRIBUTING.md` only speak of how to.
fn may_cite(path: &str) -> bool {
    let is_kind = super::tree::has_extension(path, "rs") || super::tree::has_extension(path, "md");
    is_kind && path != DOCUMENT && path != "CONTRIBUTING.md" && !path.starts_with("xtask/")
}

/// Ids that open a line in bold, each with its line; ids written twice or amiss are problems.
pub(super) fn definitions(
    path: &str,
    text: &str,
    rule: &'static str,
) -> (BTreeMap<String, usize>, Vec<Problem>) {
    let (mut found, mut problems) = (BTreeMap::new(), Vec::new());
    for (line, text) in numbered(text) {
        let Some((id, rest)) = bold_id(text) else { continue };
        if !rest.starts_with("** ") {
            let message = format!("write `**{id}** text`, with nothing else in bold");
            problems.push(Problem::new(path, line, rule, message));
        } else if let Some(first) = found.insert(id.to_owned(), line) {
            let message = format!("{id} is also on line {first}: ids are never used twice");
            problems.push(Problem::new(path, line, rule, message));
        }
    }
    if found.is_empty() {
        problems.push(Problem::new(
            path,
            1,
            rule,
            "no line starts with an id such as `**R1** text`",
        ));
    }
    (found, problems)
}

/// The id that opens the line in bold, and what follows it.
pub(super) fn bold_id(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start();
    let item = line.strip_prefix("- ").or_else(|| line.strip_prefix("* ")).unwrap_or(line);
    leading_id(item.strip_prefix("**")?)
}

/// One to three capital letters and a number, and what follows them.
fn leading_id(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let letters = bytes.iter().take_while(|it| it.is_ascii_uppercase()).count();
    let digits = bytes[letters..].iter().take_while(|it| it.is_ascii_digit()).count();
    let is_id = (1..=3).contains(&letters) && (1..=4).contains(&digits);
    let (id, rest) = text.split_at_checked(letters + digits).filter(|_| is_id)?;
    let goes_on = rest.starts_with(|it: char| it.is_alphanumeric() || it == '_');
    (!goes_on).then_some((id, rest))
}

/// The ids cited on a line.
fn citations(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for word in ["Rule", "Rules", "rule", "rules"] {
        for at in super::source::find_whole(line, word) {
            collect_ids(&line[at + word.len()..], &mut found);
        }
    }
    found
}

/// Reads ` R3`, ` R3, R4 and R5` or ` R3-R5` from the start of the text.
fn collect_ids(text: &str, found: &mut Vec<String>) {
    let Some(mut rest) = text.strip_prefix(' ') else { return };
    let mut range_from: Option<String> = None;
    while let Some((id, after)) = leading_id(rest.trim_start_matches('`')) {
        match range_from.take() {
            Some(first) => found.extend(range(&first, id)),
            None => found.push(id.to_owned()),
        }
        let after = after.trim_start_matches('`');
        let separators = [", and ", ", ", " and ", " or ", "-", "\u{2013}", " to "];
        let Some(separator) = separators.iter().find(|it| after.starts_with(**it)) else { return };
        if matches!(*separator, "-" | "\u{2013}" | " to ") {
            range_from = Some(id.to_owned());
        }
        rest = &after[separator.len()..];
    }
}

/// What lies after `first` up to `last`; at least `last` itself.
fn range(first: &str, last: &str) -> Vec<String> {
    let split = |id: &str| {
        let letters = id.trim_end_matches(|it: char| it.is_ascii_digit());
        Some((letters.to_owned(), id[letters.len()..].parse::<u32>().ok()?))
    };
    match (split(first), split(last)) {
        (Some((from, low)), Some((to, high))) if from == to && high <= low + RANGE_MAX => {
            (low + 1..=high).map(|number| format!("{to}{number}")).collect()
        }
        _ => vec![last.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::{super::check as check_rule, *};

    #[test]
    fn citations_are_read_one_by_one_in_lists_and_in_ranges() {
        let check = |line: &str, want: &[&str]| assert_eq!(citations(line), want, "{line}");
        check("// Rule R3: pays once", &["R3"]);
        check("see rule `REC12`.", &["REC12"]);
        check("Rules R3, R4 and S1 hold", &["R3", "R4", "S1"]);
        check("the rules L1-L4 in", &["L1", "L2", "L3", "L4"]);
        check("Rule R1 and Rule R2", &["R1", "R2"]);
        check("Rule Q4_0, ruler R1, Rule 3, Rule ABCD1, Rules are R1", &[]);
    }

    const CITED: (&str, &str) = ("crates/a/tests/it.rs", "// Rule R1");

    #[test]
    fn a_cited_rule_exists() {
        let document = (DOCUMENT, "# Rules\n**R1** pays once\n");
        check_rule(check, &[document, CITED], &[]);
        let code = ("crates/a/src/lib.rs", "\n// Rules R1 and R2.");
        check_rule(check, &[document, CITED, code], &["crates/a/src/lib.rs:2"]);
    }

    #[test]
    fn a_rule_without_a_test_is_named() {
        let document = (DOCUMENT, "- **R1** pays once\n* **R2** and persists\n");
        let code = "// Rule R2\n#[cfg(test)]\nmod tests {\n  // Rule R1\n}\n";
        check_rule(check, &[document, ("a.rs", code)], &["docs/PROTOCOL.md:2"]);
    }

    #[test]
    fn rules_are_written_one_way_and_once() {
        check_rule(check, &[CITED], &["docs/PROTOCOL.md:1"]);
        let empty = (DOCUMENT, "# Rules\n");
        let (name, line) = ("docs/PROTOCOL.md:1", "crates/a/tests/it.rs:1");
        check_rule(check, &[empty, CITED], &[name, line]);
        let twice = (DOCUMENT, "**R1** a\n**R1** b\n**R2.** c\n");
        check_rule(check, &[twice, CITED], &["docs/PROTOCOL.md:2", "docs/PROTOCOL.md:3"]);
    }
}
