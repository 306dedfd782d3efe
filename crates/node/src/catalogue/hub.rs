//! The catalogue as a hub: repositories under the names that mean something here.
//!
//! Not here: where the bytes come from. Whoever puts the node together says so with a [`ReadFile`].

use std::sync::Arc;

use bytes::Bytes;
use commons_port::hub::{Hub, HubError, Repo, RepoFile, RepoKind};
use commons_port::{BoxFuture, BoxStream};
use commons_record::catalogue::{ReleaseKind, RepoName};
use commons_swarm::catalogue::{Catalogue, Listed, NameRef, ResolveError, Revision};
use commons_swarm::policy::Act;

use super::{Held, query, turn};
use crate::start::{Inner, Node};

/// Reads bytes `offset..offset + len` of a file, and pulls what is missing.
pub type ReadFile =
    Arc<dyn Fn(RepoFile, u64, u64) -> BoxStream<'static, Result<Bytes, HubError>> + Send + Sync>;

/// Repositories that a search returns at most.
const FOUND_MAX: usize = 500;

/// The node as a hub.
struct NodeHub {
    inner: Arc<Inner>,
    read: ReadFile,
}

impl Node {
    /// This node as a hub for tools that know how to speak to one: what is missing is pulled.
    pub fn hub(&self) -> Arc<dyn Hub> {
        self.hub_with(crate::stock::reader(self.inner.clone()))
    }

    /// The same, with files from where the caller says.
    pub fn hub_with(&self, read: ReadFile) -> Arc<dyn Hub> {
        Arc::new(NodeHub { inner: self.inner.clone(), read })
    }
}

impl Hub for NodeHub {
    fn repo(
        &self,
        kind: RepoKind,
        id: String,
        revision: String,
    ) -> BoxFuture<'static, Result<Repo, HubError>> {
        let inner = self.inner.clone();
        Box::pin(async move {
            let no_repo = || HubError::NoRepo { repo: id.clone() };
            let name: RepoName = id.parse().map_err(|_| no_repo())?;
            let revision = Revision::parse(&revision).map_err(|_| HubError::NoRevision {
                repo: id.clone(),
                revision: revision.clone(),
            })?;
            let name = NameRef { name, revision };
            let held = turn(&inner).await.map_err(|error| unavailable(&id, &error.to_string()))?;
            let resolved = held.catalogue.resolve(&name).map_err(|error| refused(&name, &error))?;
            let listed = resolved.listed;
            if kind_of(listed) != kind {
                return Err(no_repo());
            }
            let what = || name.to_string();
            query::judge(&held, Act::Hold, listed, Some(&name))
                .map_err(|denial| HubError::Denied { what: what(), rule: denial.to_string() })?;
            Ok(repo(&held.catalogue, &name.name, listed))
        })
    }

    fn search(
        &self,
        kind: RepoKind,
        query: String,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Repo>, HubError>> {
        let inner = self.inner.clone();
        Box::pin(async move {
            let held = turn(&inner)
                .await
                .map_err(|error| unavailable("the search", &error.to_string()))?;
            Ok(found(&held, kind, &query.to_lowercase(), limit.min(FOUND_MAX)))
        })
    }

    fn read(
        &self,
        file: RepoFile,
        offset: u64,
        len: u64,
    ) -> BoxStream<'static, Result<Bytes, HubError>> {
        (self.read)(file, offset, len)
    }
}

/// Repositories whose names mean something here and may be held, in the order of their names.
fn found(held: &Held, kind: RepoKind, query: &str, limit: usize) -> Vec<Repo> {
    let words: Vec<&str> = query.split_whitespace().take(16).collect();
    let of_name = |name: &RepoName| {
        let name = NameRef { name: name.clone(), revision: Revision::Current };
        let listed = held.catalogue.resolve(&name).ok()?.listed;
        let tags = listed.release.tags.iter().map(|it| it.to_lowercase());
        let texts: Vec<String> = std::iter::once(name.name.folded()).chain(tags).collect();
        let is_found = words.iter().all(|word| texts.iter().any(|text| text.contains(word)));
        let is_it = is_found && kind_of(listed) == kind;
        let is_allowed = || query::judge(held, Act::Hold, listed, Some(&name)).is_ok();
        (is_it && is_allowed()).then(|| repo(&held.catalogue, &name.name, listed))
    };
    held.catalogue.names().filter_map(of_name).take(limit).collect()
}

fn kind_of(listed: &Listed) -> RepoKind {
    match listed.release.kind {
        ReleaseKind::DataSet => RepoKind::Dataset,
        ReleaseKind::Model | ReleaseKind::Adapter | ReleaseKind::Other => RepoKind::Model,
    }
}

fn repo(catalogue: &Catalogue, name: &RepoName, listed: &Listed) -> Repo {
    let release = &listed.release;
    let base = |it: &commons_record::catalogue::Derivation| {
        let known = it.release.and_then(|id| catalogue.release(&id));
        known.map(|it| it.release.name.to_string()).or_else(|| it.label.clone())
    };
    Repo {
        kind: kind_of(listed),
        id: name.to_string(),
        commit: listed.commit(),
        released_unix_ms: release.released_unix_ms.0,
        licence: release.licence.clone(),
        base_models: release.lineage.iter().filter_map(base).collect(),
        tags: release.tags.clone(),
        files: release
            .files
            .iter()
            .map(|file| RepoFile {
                path: file.path.to_string(),
                size: file.size,
                blob: file.blob,
                sha256: file.sha256.map(|it| *it.as_bytes()),
            })
            .collect(),
    }
}

fn unavailable(what: &str, detail: &str) -> HubError {
    HubError::Unavailable { what: what.to_owned(), detail: detail.to_owned() }
}

/// What a tool is told. Whoever may choose is told how: the rule of a refusal says it.
fn refused(name: &NameRef, error: &ResolveError) -> HubError {
    let repo = name.name.to_string();
    match error {
        ResolveError::Unknown { .. } => HubError::NoRepo { repo },
        ResolveError::NoRevision { revision, .. } => {
            HubError::NoRevision { repo, revision: revision.clone() }
        }
        ResolveError::NotHere { .. } => unavailable(&name.to_string(), &error.to_string()),
        _ => HubError::Denied { what: name.to_string(), rule: error.to_string() },
    }
}
