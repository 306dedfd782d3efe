//! Folders of a repository, which has none: they are the beginnings of its files' paths.
//!
//! A listing comes in pages. The address of the next page names the commit and not the branch, so
//! that all pages are of one version, and the last path that was told, so that nothing is kept
//! between two of them.

use std::collections::BTreeMap;

use commons_port::hub::{Repo, RepoFile, RepoKind};
use serde_json::{Map, Value};

use super::refusal::Refusal;
use super::{entry, text};

/// Entries of one page: a quarter of a MiB of JSON, and what other hubs send.
const PAGE_LEN: usize = 1_000;

/// Paths that are looked up in one question.
const PATHS_MAX: usize = 1_000;

/// Something in a tree.
enum Entry<'a> {
    File(&'a RepoFile),
    /// A folder, and what is in it so far.
    Folder(Box<blake3::Hasher>),
}

impl Entry<'_> {
    fn value(&self, path: &str, release: Option<&Repo>) -> Value {
        match self {
            Self::File(file) => entry::in_tree(file, release),
            Self::Folder(hasher) => entry::folder_in_tree(path, &entry::folder_id(hasher), release),
        }
    }
}

/// How a tree is told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    is_recursive: bool,
    is_expanded: bool,
    /// The last path of the page before.
    after: Option<String>,
}

impl Listing {
    pub(super) fn parse(query: &str) -> Self {
        let mut listing = Self::default();
        for (name, value) in text::pairs(query) {
            match name.as_str() {
                "recursive" => listing.is_recursive = text::is_yes(&value),
                "expand" => listing.is_expanded = text::is_yes(&value),
                "cursor" => listing.after = Some(value),
                _ => {} // Tools may send more, such as a `limit` that other hubs have.
            }
        }
        listing
    }
}

/// A page of a tree.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) entries: Value,
    /// Path and query of the next page.
    pub(super) next: Option<String>,
}

/// Tells what is in a folder. The root is `""`.
pub(super) fn list(repo: &Repo, folder: &str, listing: &Listing) -> Result<Page, Refusal> {
    let entries = entries(repo);
    if !folder.is_empty() && !matches!(entries.get(folder), Some(Entry::Folder(_))) {
        return Err(Refusal::no_file(&repo.id, folder, &repo.commit));
    }
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let release = listing.is_expanded.then_some(repo);
    let inside = entries.iter().filter_map(|(path, entry)| {
        let rest = path.strip_prefix(&prefix)?;
        let is_told = listing.is_recursive || !rest.contains('/');
        let is_new = listing.after.as_ref().is_none_or(|after| **path > **after);
        (is_told && is_new).then_some((path, entry))
    });
    let told: Vec<_> = inside.take(PAGE_LEN + 1).collect();
    let page = &told[..told.len().min(PAGE_LEN)];
    let last = page.last().filter(|_| told.len() > PAGE_LEN);
    Ok(Page {
        entries: page.iter().map(|(path, entry)| entry.value(path, release)).collect(),
        next: last.map(|(path, _)| next(repo, folder, listing, path)),
    })
}

/// Tells of these paths; what is not there is left out, as hubs do.
pub(super) fn look_up(repo: &Repo, paths: &Paths) -> Value {
    let entries = entries(repo);
    let release = paths.is_expanded.then_some(repo);
    let found = paths.paths.iter().filter_map(|path| entries.get_key_value(path.as_str()));
    found.map(|(path, entry)| entry.value(path, release)).collect()
}

/// The body of `paths-info`.
#[derive(Debug, Default, serde::Deserialize)]
pub(super) struct Paths {
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default, rename = "expand")]
    is_expanded: bool,
}

impl Paths {
    /// Reads what JavaScript sends.
    pub(super) fn parse_json(body: &[u8]) -> Result<Self, Refusal> {
        // An object alone: a list would be read as its fields in order.
        let parsed = serde_json::from_slice::<Map<String, Value>>(body)
            .and_then(|fields| serde_json::from_value::<Self>(fields.into()));
        let parsed = parsed.map_err(|error| {
            Refusal::invalid(format!("the body is not {{\"paths\": [PATH, ..]}}: {error}"))
        })?;
        parsed.check()
    }

    /// Reads what Python sends.
    pub(super) fn parse_form(body: &[u8]) -> Result<Self, Refusal> {
        let form = std::str::from_utf8(body)
            .map_err(|_invalid| Refusal::invalid("the body is not utf-8"))?;
        let mut parsed = Self::default();
        for (name, value) in text::pairs(form) {
            match name.as_str() {
                "paths" => parsed.paths.push(value),
                "expand" => parsed.is_expanded = text::is_yes(&value),
                _ => {} // As in JSON, what is not known is passed over.
            }
        }
        parsed.check()
    }

    fn check(mut self) -> Result<Self, Refusal> {
        if self.paths.len() > PATHS_MAX {
            return Err(Refusal::invalid(format!("more than {PATHS_MAX} paths at once")));
        }
        for path in &mut self.paths {
            path.truncate(path.trim_end_matches('/').len());
        }
        Ok(self)
    }
}

/// Everything in a repository, folders too, by path.
fn entries(repo: &Repo) -> BTreeMap<&str, Entry<'_>> {
    let mut entries = BTreeMap::new();
    for file in &repo.files {
        for (at, _) in file.path.match_indices('/') {
            let folder =
                entries.entry(&file.path[..at]).or_insert_with(|| Entry::Folder(Box::default()));
            // A file in the place of a folder comes from no checked release; the folder goes.
            if let Entry::Folder(hasher) = folder {
                let rest = &file.path.as_bytes()[at..];
                hasher.update(&u64::try_from(rest.len()).unwrap_or(u64::MAX).to_le_bytes());
                hasher.update(rest).update(file.blob.as_bytes());
            }
        }
        entries.insert(&file.path, Entry::File(file));
    }
    entries
}

fn next(repo: &Repo, folder: &str, listing: &Listing, after: &str) -> String {
    let kind = match repo.kind {
        RepoKind::Model => "models",
        RepoKind::Dataset => "datasets",
    };
    let folder =
        if folder.is_empty() { String::new() } else { format!("/{}", text::encode(folder)) };
    let Listing { is_recursive, is_expanded, after: _ } = listing;
    format!(
        "/api/{kind}/{}/tree/{}{folder}?recursive={is_recursive}&expand={is_expanded}&cursor={}",
        repo.id,
        repo.commit,
        text::encode(after)
    )
}
