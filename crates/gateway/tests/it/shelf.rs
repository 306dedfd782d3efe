//! Repositories in memory, behind `port::hub::Hub`: for the tests, and for the example `hub`.

use std::collections::BTreeMap;

use bytes::Bytes;
use commons_port::hub::{Hub, HubError, Repo, RepoFile, RepoKind};
use commons_port::{BoxFuture, BoxStream};
use commons_record::Hash;
use futures::{StreamExt, stream};
use sha2::{Digest, Sha256};

/// The version that every repository here has beside `main` and its commit.
const VERSION: &str = "1.0.0";

/// Bytes in one chunk of a read.
const CHUNK_SIZE: usize = 64 * 1024;

/// When everything was released, in milliseconds of Unix time.
const RELEASED_UNIX_MS: u64 = 1_700_000_000_999;

/// Whether the SHA-256 of a file is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sha {
    Known,
    Unknown,
}

/// Repositories and the bytes of their files.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    repos: BTreeMap<(RepoKind, String), Repo>,
    contents: BTreeMap<Hash, Bytes>,
}

impl Shelf {
    /// Puts a repository there.
    pub(crate) fn add(&mut self, kind: RepoKind, id: &str, files: Vec<(String, Bytes, Sha)>) {
        let files: Vec<RepoFile> = files.into_iter().map(|file| self.keep(file)).collect();
        let names: Vec<u8> = files.iter().flat_map(|file| *file.blob.as_bytes()).collect();
        let repo = Repo {
            kind,
            id: id.to_owned(),
            commit: Hash::of_content(&names).to_string().chars().take(40).collect(),
            released_unix_ms: RELEASED_UNIX_MS,
            licence: "MIT".into(),
            base_models: vec!["karpathy/tinyllamas".into()],
            tags: vec!["stories".into()],
            files,
        };
        self.repos.insert((kind, id.to_owned()), repo);
    }

    fn keep(&mut self, (path, bytes, sha): (String, Bytes, Sha)) -> RepoFile {
        let blob = Hash::of_content(&bytes);
        let sha256 = (sha == Sha::Known).then(|| Sha256::digest(&bytes).into());
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.contents.insert(blob, bytes);
        RepoFile { path, size, blob, sha256 }
    }

    fn find(&self, kind: RepoKind, id: String, revision: String) -> Result<Repo, HubError> {
        let Some(repo) = self.repos.get(&(kind, id.clone())) else {
            return Err(HubError::NoRepo { repo: id });
        };
        if [VERSION, "main", &repo.commit].contains(&revision.as_str()) {
            Ok(repo.clone())
        } else {
            Err(HubError::NoRevision { repo: id, revision })
        }
    }
}

impl Hub for Shelf {
    fn repo(
        &self,
        kind: RepoKind,
        id: String,
        revision: String,
    ) -> BoxFuture<'static, Result<Repo, HubError>> {
        let found = self.find(kind, id, revision);
        Box::pin(async { found })
    }

    fn search(
        &self,
        kind: RepoKind,
        query: String,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Repo>, HubError>> {
        let fits = |repo: &&Repo| {
            let holds =
                |word: &str| repo.id.contains(word) || repo.tags.iter().any(|it| it == word);
            repo.kind == kind && query.split_whitespace().all(holds)
        };
        let found: Vec<_> = self.repos.values().filter(fits).take(limit).cloned().collect();
        Box::pin(async { Ok(found) })
    }

    fn read(
        &self,
        file: RepoFile,
        offset: u64,
        len: u64,
    ) -> BoxStream<'static, Result<Bytes, HubError>> {
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let part = self.contents.get(&file.blob).map(|bytes| {
            let start = index(offset).min(bytes.len());
            bytes.slice(start..index(offset.saturating_add(len)).min(bytes.len()))
        });
        let part = part.unwrap_or_default();
        let chunks = (0..part.len()).step_by(CHUNK_SIZE);
        let chunks: Vec<_> =
            chunks.map(|at| part.slice(at..part.len().min(at + CHUNK_SIZE))).collect();
        stream::iter(chunks.into_iter().map(Ok)).boxed()
    }
}
