//! The files that git would commit, held in memory, so that every rule is a pure function.
//!
//! Tracked files and untracked ones that are not ignored both count: a rule must speak
//! before the commit, not after it. Outside a git checkout, everything but build folders counts.
//!
//! Not here: any rule.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result};

use super::{manifest::Manifest, source::Source};

/// The whole repository as the rules see it. Paths are relative and use `/`.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, File>,
}

/// One file. What is not UTF-8, or has a zero byte, has no text.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) size: usize,
    pub(crate) text: Option<String>,
    /// Only for `.rs` files.
    pub(crate) source: Option<Source>,
}

/// A package of the workspace: its folder and what its `Cargo.toml` says.
#[derive(Debug)]
pub(crate) struct Package<'a> {
    /// The folder, such as `crates/record`.
    pub(crate) folder: &'a str,
    /// The path of its `Cargo.toml`.
    pub(crate) path: &'a str,
    pub(crate) manifest: Manifest<'a>,
}

impl Tree {
    /// Reads the checkout at `root`.
    pub(crate) fn load(root: &Path) -> Result<Self> {
        let mut contents = BTreeMap::new();
        for path in list(root)? {
            let on_disk = root.join(&path);
            if on_disk.is_file() {
                let bytes = fs::read(&on_disk).with_context(|| format!("failed to read {path}"))?;
                contents.insert(path, bytes);
            }
        }
        Ok(Self::from_contents(contents))
    }

    fn from_contents(contents: BTreeMap<String, Vec<u8>>) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok().filter(|it| !it.contains('\0'));
        let mut files = BTreeMap::new();
        for (path, bytes) in contents {
            let size = bytes.len();
            let text = text(bytes);
            let source = text
                .as_ref()
                .filter(|_| has_extension(&path, "rs"))
                .map(|text| Source::new(text, is_test_path(&path)));
            files.insert(path.clone(), File { path, size, text, source });
        }
        let mut tree = Self { files };
        tree.mark_test_modules();
        tree
    }

    /// Files declared by `#[cfg(test)] mod name;` are tests, whatever they are called.
    fn mark_test_modules(&mut self) {
        let mut found = BTreeSet::new();
        for (file, source) in self.sources() {
            let folder = module_folder(&file.path);
            for name in source.test_modules() {
                found.insert(format!("{folder}/{name}.rs"));
                found.insert(format!("{folder}/{name}/"));
            }
        }
        for file in self.files.values_mut() {
            let is_test = found.iter().any(|it| file.path.starts_with(it.as_str()));
            if let (true, Some(text), Some(_)) = (is_test, &file.text, &file.source) {
                file.source = Some(Source::new(text, true));
            }
        }
    }

    /// Every file, by path.
    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        self.files.values()
    }

    /// Every file that is text.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&File, &str)> {
        self.files().filter_map(|file| Some((file, file.text.as_deref()?)))
    }

    /// Every text file whose name ends in this extension.
    pub(crate) fn texts_with(&self, extension: &str) -> impl Iterator<Item = (&File, &str)> {
        self.texts().filter(move |(file, _)| has_extension(&file.path, extension))
    }

    /// Every Rust file.
    pub(crate) fn sources(&self) -> impl Iterator<Item = (&File, &Source)> {
        self.files().filter_map(|file| Some((file, file.source.as_ref()?)))
    }

    /// One file by its path.
    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.get(path)
    }

    /// The text of one file.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.file(path)?.text.as_deref()
    }

    /// Whether a file or a folder has this path. The root is the empty path.
    pub(crate) fn exists(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        path.is_empty()
            || self.files.contains_key(path)
            || self.files.range(folder.clone()..).next().is_some_and(|it| it.0.starts_with(&folder))
    }

    /// Every package of the workspace: `crates/*` and `xtask`.
    pub(crate) fn packages(&self) -> impl Iterator<Item = Package<'_>> {
        self.texts().filter_map(|(file, text)| {
            let folder = file.path.strip_suffix("/Cargo.toml")?;
            let is_member = folder == "xtask"
                || folder.strip_prefix("crates/").is_some_and(|name| !name.contains('/'));
            let manifest = Manifest::parse(text);
            is_member.then_some(Package { folder, path: &file.path, manifest })
        })
    }

    /// A tree from paths and texts, for tests of rules.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let contents =
            files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().into()));
        Self::from_contents(contents.collect())
    }
}

impl Package<'_> {
    /// The name of the room: the last part of the folder.
    pub(crate) fn room(&self) -> &str {
        self.folder.rsplit('/').next().unwrap_or(self.folder)
    }
}

/// Whether the file name ends in `.extension`.
pub(crate) fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|it| it == extension)
}

/// `tests.rs`, and everything below a folder of tests or benches.
fn is_test_path(path: &str) -> bool {
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    name == "tests.rs" || folders.split('/').any(|it| it == "tests" || it == "benches")
}

/// The folder in which the modules declared by this file lie.
fn module_folder(path: &str) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        "lib.rs" | "main.rs" => folder.to_owned(),
        _ => path.trim_end_matches(".rs").to_owned(),
    }
}

fn list(root: &Path) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    // A checkout owned by another user (a CI volume) is still only read.
    git.args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others"])
        .arg("--exclude-standard")
        .current_dir(root);
    if let Ok(output) = git.output()
        && output.status.success()
    {
        let names = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
        return Ok(names.split_terminator('\0').map(str::to_owned).collect());
    }
    let mut paths = Vec::new();
    walk(root, "", &mut paths)?;
    Ok(paths)
}

/// Depth is bounded by the file system's own limit on paths; links are not followed.
fn walk(folder: &Path, prefix: &str, paths: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("failed to list {prefix}"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type()?;
        if kind.is_dir() && name != ".git" && name != "target" {
            walk(&entry.path(), &format!("{prefix}{name}/"), paths)?;
        } else if kind.is_file() {
            paths.push(format!("{prefix}{name}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_tests_are_known_by_place_and_by_declaration() {
        let tree = Tree::of(&[
            ("crates/a/src/lib.rs", "#[cfg(test)] mod cases;\nmod x;\nmod y;"),
            ("crates/a/src/cases.rs", ""),
            ("crates/a/src/cases/deep.rs", ""),
            ("crates/a/src/x.rs", "#[cfg(test)]\nmod tests;"),
            ("crates/a/src/x/tests.rs", ""),
            ("crates/a/src/y.rs", "#[cfg(test)]\nmod z;"),
            ("crates/a/src/y/z.rs", ""),
            ("crates/a/src/z.rs", ""),
            ("crates/a/tests/it/main.rs", ""),
        ]);
        let tests = tree.sources().filter(|(_, source)| source.is_test_line(100));
        let tests: Vec<_> = tests.map(|(file, _)| file.path.as_str()).collect();
        let want = ["cases.rs", "cases/deep.rs", "x/tests.rs", "y/z.rs"];
        let want = want.map(|it| format!("crates/a/src/{it}"));
        assert_eq!(tests[..4], want);
        assert_eq!(tests[4..], ["crates/a/tests/it/main.rs"]);
    }

    #[test]
    fn folders_and_files_exist() {
        let tree = Tree::of(&[("a/b/c.md", ""), ("a/bc.md", "")]);
        assert!(["", "a", "a/b", "a/b/c.md", "a/bc.md"].iter().all(|it| tree.exists(it)));
        assert!(!["b", "a/b/c", "a/b.md"].iter().any(|it| tree.exists(it)));
    }

    #[test]
    fn this_checkout_loads() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let tree = Tree::load(&root).expect("the checkout is readable");
        assert!(tree.packages().any(|package| package.folder == "xtask"));

        let mut paths = Vec::new();
        walk(&root.join("xtask"), "xtask/", &mut paths).expect("the folder is readable");
        assert!(paths.contains(&"xtask/src/main.rs".to_owned()), "{paths:?}");
    }
}
