//! `Cargo.toml`, read as far as the rules need: tables, keys and values with their lines.
//!
//! Our manifests are plain, so this is a line reader and not a TOML parser: it knows tables,
//! dotted keys, comments, and values that go on over several lines. A manifest that cargo
//! accepts and this misreads is reported by a rule, never passed over in silence, because
//! the rules ask for exact forms.

/// The entries of one `Cargo.toml` in order.
#[derive(Debug)]
pub(crate) struct Manifest<'a> {
    entries: Vec<Entry<'a>>,
}

/// One `key = value`, with the table it stands in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) line: usize,
    /// Such as `dependencies` or `target.'cfg(unix)'.dependencies`.
    pub(crate) table: &'a str,
    /// As written, dots included: `serde.workspace`.
    pub(crate) key: &'a str,
    /// The first line of the value, without a comment.
    pub(crate) value: &'a str,
}

/// One dependency, whichever way it is written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dependency<'a> {
    pub(crate) line: usize,
    pub(crate) name: &'a str,
    /// Whether it is found under `[dev-dependencies]`, which reach no user.
    pub(crate) is_dev: bool,
    /// Whether its version comes from `[workspace.dependencies]`.
    pub(crate) is_inherited: bool,
}

impl<'a> Manifest<'a> {
    /// Reads a manifest.
    pub(crate) fn parse(text: &'a str) -> Self {
        let (mut entries, mut table, mut open) = (Vec::new(), "", 0_isize);
        for (index, line) in text.lines().enumerate() {
            let line = without_comment(line).trim();
            let was_open = open > 0;
            if !was_open && line.starts_with('[') {
                table = line.trim_matches(['[', ']']).trim();
                continue;
            }
            open += balance(line);
            if let (false, Some((key, value))) = (was_open, line.split_once('=')) {
                let (key, value) = (key.trim(), value.trim());
                entries.push(Entry { line: index + 1, table, key, value });
            }
        }
        Self { entries }
    }

    /// The value of a key in a table, as written.
    pub(crate) fn value(&self, table: &str, key: &str) -> Option<&'a str> {
        self.entries.iter().find(|it| it.table == table && it.key == key).map(|it| it.value)
    }

    /// Every dependency of every kind and platform.
    pub(crate) fn dependencies(&self) -> Vec<Dependency<'a>> {
        let mut found: Vec<Dependency<'_>> = Vec::new();
        for entry in &self.entries {
            let Some((kind, name, key)) = dependency_key(entry) else { continue };
            let is_dev = kind == "dev-dependencies";
            let is_inherited = match key {
                "" => entry.value.replace(' ', "").contains("workspace=true"),
                key => key == "workspace" && entry.value == "true",
            };
            match found.iter_mut().find(|it| it.name == name && it.is_dev == is_dev) {
                Some(known) if !key.is_empty() => known.is_inherited |= is_inherited,
                _ => found.push(Dependency { line: entry.line, name, is_dev, is_inherited }),
            }
        }
        found
    }
}

/// Splits `[dependencies] a.workspace`, or `[dependencies.a] workspace`, into kind, name, key.
fn dependency_key<'a>(entry: &Entry<'a>) -> Option<(&'a str, &'a str, &'a str)> {
    for kind in ["dev-dependencies", "build-dependencies", "dependencies"] {
        let Some(start) = entry.table.rfind(kind) else { continue };
        let is_platform = entry.table.starts_with("target.");
        if start != 0 && !(is_platform && entry.table[..start].ends_with('.')) {
            continue;
        }
        return match entry.table[start + kind.len()..].strip_prefix('.') {
            Some(name) => Some((kind, name, entry.key)),
            None => Some(match entry.key.split_once('.') {
                Some((name, key)) => (kind, name, key),
                None => (kind, entry.key, ""),
            }),
        };
    }
    None
}

fn without_comment(line: &str) -> &str {
    let mut is_quoted = false;
    for (at, letter) in line.char_indices() {
        match letter {
            '"' => is_quoted = !is_quoted,
            '#' if !is_quoted => return &line[..at],
            _ => {}
        }
    }
    line
}

/// Brackets opened less brackets closed.
fn balance(line: &str) -> isize {
    line.chars().fold(0, |sum, letter| match letter {
        '[' | '{' => sum + 1,
        ']' | '}' => sum - 1,
        _ => sum,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_found_however_they_are_written() {
        let text = r##"
[package]
name = "x" # a comment with dependencies = "no"
[dependencies]
a.workspace = true
b = { workspace = true, features = [
    "c", # "d"
] }
e = "1"
[dependencies.f]
workspace = true
features = ["#"]
[target.'cfg(unix)'.dependencies]
g = { version = "2" }
[dev-dependencies]
a = { path = "../a" }
[workspace.dependencies]
no = "1"
"##;
        let found = Manifest::parse(text).dependencies();
        let found: Vec<_> =
            found.iter().map(|it| (it.line, it.name, it.is_dev, it.is_inherited)).collect();
        let want = [
            (5, "a", false, true),
            (6, "b", false, true),
            (9, "e", false, false),
            (11, "f", false, true),
            (14, "g", false, false),
            (16, "a", true, false),
        ];
        assert_eq!(found, want);
    }

    #[test]
    fn values_are_read_by_table_and_key() {
        let manifest = Manifest::parse("[lints]\nworkspace = true # yes\n[bin]\nname = \"x#y\"\n");
        assert_eq!(manifest.value("lints", "workspace"), Some("true"));
        assert_eq!(manifest.value("bin", "name"), Some("\"x#y\""));
        assert_eq!(manifest.value("lints", "name"), None);
    }
}
