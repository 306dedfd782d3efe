//! Repositories of files by name: the ones outside that files are taken from, and the one that this
//! node is for tools that know how to speak to a hub.
//!
//! * [`Origin`]: a hub, a registry or a web server outside; `remote` implements it;
//! * [`Hub`]: what the node offers under the names of its catalogue; the gateway serves it;
//! * [`source`]: how a place outside is written, and which paths are taken from it.

pub mod source;

use bytes::Bytes;
use commons_record::Hash;

use crate::{BoxFuture, BoxStream};

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RepoKind {
    /// Weights, adapters, tokenizers.
    Model,
    /// Data sets.
    Dataset,
}

/// A place outside, as people write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `hf:ORG/REPO[@REV][:FILE]`, and `hf:datasets/ORG/REPO...`.
    HuggingFace {
        /// What it holds.
        kind: RepoKind,
        /// `ORG/REPO`.
        repo: String,
        /// A branch, a tag or a commit; `main` if none is named.
        revision: Option<String>,
        /// One file; all if none is named.
        file: Option<String>,
    },
    /// `ollama:NAME[:TAG]`.
    Ollama {
        /// `NAME` or `USER/NAME`.
        name: String,
        /// `latest` if none is named.
        tag: Option<String>,
    },
    /// `https://...#sha256=HEX` or `#blake3=HEX`.
    Url {
        /// Without the fragment.
        url: String,
        /// What the file must hash to.
        digest: Digest,
    },
}

/// What a file must hash to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digest {
    /// SHA-256.
    Sha256([u8; 32]),
    /// Plain BLAKE3.
    Blake3(Hash),
    /// A git blob's SHA-1: hubs name small files so. It tells versions apart and proves nothing.
    GitSha1([u8; 20]),
}

/// A file of a place outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginFile {
    /// Its path in the repository: relative, of plain names.
    pub path: String,
    /// Bytes, as the place says.
    pub size: u64,
    /// What it must hash to, where the place says.
    pub digest: Option<Digest>,
    /// Where it is; for [`Origin::fetch`] alone.
    pub url: String,
}

/// What a place outside has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The commit or manifest digest that was listed.
    pub revision: String,
    /// An SPDX expression, as the place says.
    pub licence: Option<String>,
    /// The models that it says it was made from.
    pub base_models: Vec<String>,
    /// Its files, in the order of their paths.
    pub files: Vec<OriginFile>,
}

/// Bytes of a file outside.
pub struct Fetched {
    /// Where the bytes begin: what was asked for, or 0 if the place cannot resume.
    pub offset: u64,
    /// The bytes, in order.
    pub bytes: BoxStream<'static, Result<Bytes, OriginError>>,
}

impl std::fmt::Debug for Fetched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetched").field("offset", &self.offset).finish_non_exhaustive()
    }
}

/// Why nothing came from a place outside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum OriginError {
    #[error("this node is offline by its owner's word; nothing outside is asked")]
    Offline,

    #[error("{what} is not there")]
    NotFound { what: String },

    #[error("{what} wants a login that this node does not have; set its token and try again")]
    Unauthorised { what: String },

    #[error("{host} asks to wait {after_ms} ms")]
    Busy { host: String, after_ms: u64 },

    #[error("{host} was not reached: {detail}")]
    Unreachable { host: String, detail: String },

    #[error("{host} sent something else than it said: {detail}")]
    Broken { host: String, detail: String },

    #[error("{what} changed while it was fetched")]
    Changed { what: String },

    #[error("{what} is not allowed: {detail}")]
    Refused { what: String, detail: String },
}

impl OriginError {
    /// Whether the same may succeed if it is asked again after a while.
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Unreachable { .. } | Self::Broken { .. })
    }
}

/// Places outside.
pub trait Origin: Send + Sync {
    /// What a place has.
    fn list(&self, source: Source) -> BoxFuture<'static, Result<Listing, OriginError>>;

    /// A file's bytes from `offset` on. One attempt: whoever asks decides when to ask again.
    fn fetch(
        &self,
        file: OriginFile,
        offset: u64,
    ) -> BoxFuture<'static, Result<Fetched, OriginError>>;
}

/// A repository of this node's catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo {
    /// What it holds.
    pub kind: RepoKind,
    /// `ORG/NAME`.
    pub id: String,
    /// 40 hexadecimal digits: the first 20 bytes of the release's record id.
    pub commit: String,
    /// When it was released, in milliseconds of Unix time.
    pub released_unix_ms: u64,
    /// An SPDX expression.
    pub licence: String,
    /// Repositories that it was made from.
    pub base_models: Vec<String>,
    /// Words that people search for.
    pub tags: Vec<String>,
    /// Its files, in the order of their paths.
    pub files: Vec<RepoFile>,
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoFile {
    /// Its path: relative, of plain names.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Its plain BLAKE3.
    pub blob: Hash,
    /// Its SHA-256, where one is known.
    pub sha256: Option<[u8; 32]>,
}

/// Why a hub did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum HubError {
    #[error("no repository is called {repo} here")]
    NoRepo { repo: String },

    #[error("{repo} has no revision {revision}")]
    NoRevision { repo: String, revision: String },

    #[error("{repo} has no file {path}")]
    NoFile { repo: String, path: String },

    #[error("{what} is not served here: {rule}")]
    Denied { what: String, rule: String },

    #[error("{what} could not be had: {detail}")]
    Unavailable { what: String, detail: String },
}

/// What the node offers to tools that know how to speak to a hub.
pub trait Hub: Send + Sync {
    /// A repository as it was at a revision (`main`, a version, or a commit).
    fn repo(
        &self,
        kind: RepoKind,
        id: String,
        revision: String,
    ) -> BoxFuture<'static, Result<Repo, HubError>>;

    /// Repositories whose id or tags hold all words of `query`, in the order of their ids.
    fn search(
        &self,
        kind: RepoKind,
        query: String,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Repo>, HubError>>;

    /// Bytes `offset..offset + len` of a file, in order; what is missing is pulled, these bytes
    /// first.
    fn read(
        &self,
        file: RepoFile,
        offset: u64,
        len: u64,
    ) -> BoxStream<'static, Result<Bytes, HubError>>;
}
