//! What a repository says of itself, and lists of repositories.
//!
//! A hub that counts downloads and likes would have to watch its users; this one says 0. What is
//! not known is left out, as hubs do.

use commons_port::hub::{Repo, RepoKind};
use serde_json::{Map, Value, json};

use super::refusal::Refusal;
use super::{date, entry, text};

/// Repositories in one list: about a MiB of JSON. Pages of more are not offered.
pub(super) const LIST_LEN_MAX: usize = 1_000;

/// Words that are searched for, all together.
const QUERY_LEN_MAX: usize = 1_024;

/// How many digits other hubs give the id of a row. Nothing is looked up by it.
const ROW_ID_LEN: usize = 24;

/// How much a tool wants to know.
#[derive(Debug, Default)]
pub(super) struct Wants {
    /// Size and hashes of each file.
    blobs: bool,
    security: bool,
    /// In a list, files are told only if someone wants them.
    siblings: bool,
    /// These fields alone.
    expand: Option<Vec<String>>,
}

impl Wants {
    /// Reads the query of a question for one repository.
    pub(super) fn of_one(query: &str) -> Self {
        Self { siblings: true, ..Self::of_list(&text::pairs(query)) }
    }

    fn of_list(pairs: &[(String, String)]) -> Self {
        let mut wants = Self::default();
        for (name, value) in pairs {
            match name.as_str() {
                "blobs" => wants.blobs = text::is_yes(value),
                "securityStatus" => wants.security = text::is_yes(value),
                "full" => wants.siblings = text::is_yes(value),
                "expand" => {
                    let fields = value.split(',').map(str::to_owned);
                    wants.expand.get_or_insert_default().extend(fields);
                }
                _ => {} // Tools send what only other hubs know, such as `cardData`.
            }
        }
        wants
    }
}

/// A repository as it tells of itself.
pub(super) fn of(repo: &Repo, wants: &Wants) -> Value {
    let date = date::text(repo.released_unix_ms);
    let author = repo.id.split('/').next().unwrap_or_default();
    let licence = repo.licence.to_lowercase();
    let mut fields = Map::new();
    let mut add = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    add("_id", row_id(&repo.id).into());
    add("id", repo.id.clone().into());
    if repo.kind == RepoKind::Model {
        add("modelId", repo.id.clone().into());
        add("library_name", library(repo).map_or(Value::Null, Value::from));
    }
    add("author", author.into());
    add("sha", repo.commit.clone().into());
    add("lastModified", date.clone().into());
    add("createdAt", date.into());
    add("private", false.into());
    add("gated", false.into());
    add("disabled", false.into());
    add("downloads", 0.into());
    add("likes", 0.into());
    add("tags", tags(repo).into());
    add("cardData", json!({ "license": licence, "base_model": repo.base_models }));
    let size = repo.files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.size));
    add("usedStorage", size.into());
    add("spaces", json!([]));
    let siblings = repo.files.iter().map(|file| entry::sibling(file, wants.blobs));
    let is_expanded =
        |name: &str| wants.expand.as_ref().is_some_and(|fields| fields.iter().any(|it| it == name));
    if wants.siblings || is_expanded("siblings") {
        add("siblings", siblings.collect());
    }
    if wants.security {
        add("securityRepoStatus", json!({ "scansDone": false, "filesWithIssues": [] }));
    }
    if wants.expand.is_some() {
        fields.retain(|name, _| matches!(name.as_str(), "_id" | "id") || is_expanded(name));
    }
    fields.into()
}

/// Where the one branch is.
pub(super) fn refs(repo: &Repo) -> Value {
    let main = json!({ "name": "main", "ref": "refs/heads/main", "targetCommit": repo.commit });
    json!({ "branches": [main], "tags": [], "converts": [], "pullRequests": [] })
}

/// What a list is asked for.
#[derive(Debug)]
pub(super) struct Search {
    /// Words that the id or a tag of each repository holds.
    pub(super) query: String,
    author: Option<String>,
    tags: Vec<String>,
    limit: usize,
    order: Order,
    wants: Wants,
}

/// Ties are told by id. Downloads, likes and all else that other hubs order by are ties here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    ById,
    NewestFirst,
    OldestFirst,
}

impl Search {
    pub(super) fn parse(query: &str) -> Result<Self, Refusal> {
        let pairs = text::pairs(query);
        let value =
            |name: &str| pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.as_str());
        let words = value("search").unwrap_or_default();
        if words.len() > QUERY_LEN_MAX {
            let message = format!("`search` is longer than {QUERY_LEN_MAX} bytes");
            return Err(Refusal::invalid(message));
        }
        let limit = match value("limit") {
            Some(limit) => limit
                .parse()
                .map_err(|_invalid| Refusal::invalid("`limit` is no whole number, such as 10"))?,
            None => LIST_LEN_MAX,
        };
        let is_by_date = matches!(
            value("sort"),
            Some("lastModified" | "last_modified" | "createdAt" | "created_at")
        );
        let order = match (is_by_date, value("direction")) {
            (false, _) => Order::ById,
            (true, Some("1")) => Order::OldestFirst,
            (true, _) => Order::NewestFirst,
        };
        let tags = pairs.iter().filter(|pair| pair.0 == "filter");
        let tags = tags.flat_map(|pair| pair.1.split(',')).filter(|tag| !tag.is_empty());
        Ok(Self {
            query: words.to_owned(),
            author: value("author").map(str::to_owned),
            tags: tags.map(str::to_owned).collect(),
            limit: limit.min(LIST_LEN_MAX),
            order,
            wants: Wants::of_list(&pairs),
        })
    }

    /// Those of the found repositories that fit, in order.
    pub(super) fn list(&self, mut found: Vec<Repo>) -> Value {
        found.retain(|repo| self.fits(repo));
        match self.order {
            Order::ById => {}
            Order::NewestFirst => {
                found.sort_by_key(|repo| std::cmp::Reverse(repo.released_unix_ms));
            }
            Order::OldestFirst => found.sort_by_key(|repo| repo.released_unix_ms),
        }
        found.iter().take(self.limit).map(|repo| of(repo, &self.wants)).collect()
    }

    fn fits(&self, repo: &Repo) -> bool {
        let author = repo.id.split('/').next().unwrap_or_default();
        let has = tags(repo);
        let is_author = self.author.as_ref().is_none_or(|it| author.eq_ignore_ascii_case(it));
        is_author && self.tags.iter().all(|tag| has.iter().any(|it| it.eq_ignore_ascii_case(tag)))
    }
}

/// The words of a repository, and those that hubs make of its licence, lineage and files.
fn tags(repo: &Repo) -> Vec<String> {
    let mut tags = repo.tags.clone();
    let mut add = |tag: String| {
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    };
    for (word, suffix) in [("gguf", ".gguf"), ("safetensors", ".safetensors")] {
        if repo.files.iter().any(|file| file.path.ends_with(suffix)) {
            add(word.to_owned());
        }
    }
    for base in &repo.base_models {
        add(format!("base_model:{base}"));
    }
    add(format!("license:{}", repo.licence.to_lowercase()));
    tags
}

/// The library that tools load it with, as its files tell.
fn library(repo: &Repo) -> Option<&'static str> {
    let has = |name: &str| repo.files.iter().any(|file| file.path == name);
    if has("adapter_config.json") {
        return Some("peft");
    }
    (has("config.json") && has("tokenizer_config.json")).then_some("transformers")
}

fn row_id(id: &str) -> String {
    blake3::hash(id.as_bytes()).to_hex().chars().take(ROW_ID_LEN).collect()
}
