//! Lists of exceptions to a limit that can only shrink.
//!
//! A list holds `key max reason` lines. An entry must name something that is over the limit,
//! with exactly its size: when the thing shrinks, the entry must follow, and at the limit it
//! must go. So nothing that is listed can grow, and no entry outlives its reason.

use std::collections::BTreeMap;

use super::{Problem, Tree, source::numbered};

/// A limit and the file that lists the exceptions to it.
#[derive(Debug)]
pub(super) struct Ratchet {
    pub(super) rule: &'static str,
    pub(super) list: &'static str,
    pub(super) limit: usize,
    /// What to do about a thing that is too long.
    pub(super) advice: &'static str,
}

/// Something that was measured.
#[derive(Debug)]
pub(super) struct Measured {
    /// Its name in the list.
    pub(super) key: String,
    pub(super) path: String,
    pub(super) line: usize,
    pub(super) size: usize,
}

impl Ratchet {
    /// Compares what was measured with the limit and the list.
    pub(super) fn check(&self, tree: &Tree, measured: &[Measured]) -> Vec<Problem> {
        let mut problems = Vec::new();
        let listed = self.read_list(tree, &mut problems);
        let max = |key: &str| listed.get(key).map(|&(_, max)| max);

        let over = measured.iter().filter(|it| it.size > self.limit);
        for it in over.filter(|it| max(&it.key).is_none_or(|max| it.size > max)) {
            let Self { rule, list, limit, advice } = self;
            let size = it.size;
            let message = match max(&it.key) {
                Some(max) => format!("{size} lines, but {list} allows {max}: {advice}"),
                None => format!("{size} lines, limit {limit}: {advice}"),
            };
            problems.push(Problem::new(&it.path, it.line, rule, message));
        }
        for (key, (line, max)) in listed {
            let same = measured.iter().filter(|it| it.key == key);
            let message = match same.map(|it| it.size).max() {
                None => format!("{key} does not exist: remove this line"),
                Some(size) if size <= self.limit => {
                    format!("{key} is within the limit: remove this line")
                }
                Some(size) if size < max => format!("{key} shrank: write {size} for {max}"),
                Some(_) => continue,
            };
            problems.push(Problem::new(self.list, line, self.rule, message));
        }
        problems
    }

    /// Key -> (line in the list, largest size allowed).
    fn read_list<'a>(
        &self,
        tree: &'a Tree,
        problems: &mut Vec<Problem>,
    ) -> BTreeMap<&'a str, (usize, usize)> {
        let mut listed = BTreeMap::new();
        for (line, entry) in numbered(tree.text(self.list).unwrap_or_default()) {
            let entry = entry.trim();
            if entry.is_empty() || entry.starts_with('#') {
                continue;
            }
            let mut parts = entry.splitn(3, ' ');
            let (key, max) = (parts.next(), parts.next().and_then(|it| it.parse().ok()));
            let (Some(key), Some(max), Some(_reason)) = (key, max, parts.next()) else {
                let message = "write `key max_lines reason`, with one space between";
                problems.push(Problem::new(self.list, line, self.rule, message));
                continue;
            };
            listed.insert(key, (line, max));
        }
        listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATCHET: Ratchet = Ratchet { rule: "length", list: "list", limit: 10, advice: "split" };

    fn check(list: &str, size: usize, want: &[&str]) {
        let tree = Tree::of(&[("list", list)]);
        let measured = [Measured { key: "a".into(), path: "a.rs".into(), line: 7, size }];
        let found = RATCHET.check(&tree, &measured);
        let found: Vec<_> = found.iter().map(|it| format!("{}:{}", it.path, it.line)).collect();
        assert_eq!(found, want, "{list:?} {size}");
    }

    #[test]
    fn what_is_over_the_limit_is_named_unless_listed() {
        check("", 10, &[]);
        check("", 11, &["a.rs:7"]);
        check("# why\na 11 a flat table", 11, &[]);
    }

    #[test]
    fn what_is_listed_cannot_grow() {
        check("a 11 a flat table", 12, &["a.rs:7"]);
    }

    #[test]
    fn the_list_follows_what_shrinks() {
        check("a 12 a flat table", 11, &["list:1"]);
        check("a 12 a flat table", 10, &["list:1"]);
        check("b 12 gone", 10, &["list:1"]);
    }

    #[test]
    fn an_entry_without_a_reason_does_not_count() {
        check("a 11", 11, &["list:1", "a.rs:7"]);
        check("a eleven flat", 11, &["list:1", "a.rs:7"]);
    }
}
