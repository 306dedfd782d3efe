//! What is published: releases of files under names, who may name them, and who warns of them.
//!
//! ```text
//! node      -- Release      --> files by hash, licence, lineage     (says what exists)
//! authority -- NameBinding  --> ORG/NAME[@VERSION] is that release   (says what a name means)
//! owner     -- Revocation   --> records of a key no longer count
//! owner     -- Denylist     --> what nodes that subscribe to it do not hold
//! ```
//!
//! A `ModelManifest` describes what a node serves; a [`Release`] is what somebody published,
//! whether or not anyone can compute with it.
//!
//! # Invariants
//!
//! * Rule C1: a path leads to a place below its folder, on every system, and no two lead to one.
//!
//! Not here: what a name resolves to and whether a licence is wanted (see `swarm`).

mod licence;
mod text;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::amount::{Epoch, Millis};
use crate::codec;
use crate::envelope::{InvalidBody, Record, Signer};
use crate::hash::Hash;
use crate::key::PublicKey;
use crate::mesh::is_label;

pub use licence::{LICENCE_LEN_MAX, LicenceSyntaxError, NOASSERTION, check_licence};
pub use text::{FilePath, ParseTextError, RepoName, Version};

/// No release has more files; what a record holds is less where their paths are long.
pub const FILES_MAX: usize = 4_096;

/// Bytes of an encoded body. With an envelope, a certificate and a membership around it, a record
/// still fits into one message of 64 KiB: about 300 files with all their hashes.
pub const BODY_SIZE_MAX: usize = 56 * 1024;

/// What one file may be long: 64 TiB, as a blob.
pub const FILE_SIZE_MAX: u64 = 1 << 46;

/// Derivations of one release: a merge of more than this would be a data set of models.
pub const LINEAGE_MAX: usize = 64;

/// Tags of one release.
pub const TAGS_MAX: usize = 32;

/// Bytes of one tag.
const TAG_LEN_MAX: usize = 64;

/// Bytes of a description or a reason: a paragraph.
pub const SENTENCE_LEN_MAX: usize = 1_024;

/// Entries of one denylist; its author may have several.
pub const ENTRIES_MAX: usize = 1_024;

/// Releases that a revocation can spare.
pub const KEPT_MAX: usize = 1_024;

/// Whether `text` is one printable paragraph of bounded length. It may be empty.
fn is_sentence(text: &str) -> bool {
    text.len() <= SENTENCE_LEN_MAX && !text.chars().any(char::is_control)
}

fn check_size(body: &impl Serialize, field: &'static str) -> Result<(), InvalidBody> {
    let size = codec::encode(body).len();
    InvalidBody::unless(
        size <= BODY_SIZE_MAX,
        field,
        "make a record of more than 56 KiB; split it, or pack small files into one",
    )
}

/// What a release holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseKind {
    /// Weights with what belongs to them.
    Model,
    /// What changes a model.
    Adapter,
    /// Data.
    DataSet,
    /// Anything else.
    Other,
}

impl std::fmt::Display for ReleaseKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Adapter => "adapter",
            Self::DataSet => "data set",
            Self::Other => "other",
        })
    }
}

/// Files that somebody published under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// What it holds.
    pub kind: ReleaseKind,
    /// `ORG/NAME`: what its author calls it. Whether others do is said by a [`NameBinding`].
    pub name: RepoName,
    /// Tells it from other releases of the name.
    pub version: Version,
    /// Its files, in the order of their paths.
    pub files: Vec<ReleaseFile>,
    /// An SPDX expression, or [`NOASSERTION`].
    pub licence: String,
    /// What it was made from, as the one who signs says.
    pub lineage: Vec<Derivation>,
    /// What the author is called.
    pub author: String,
    /// A paragraph for people.
    pub description: String,
    /// Words that people search for, in their order.
    pub tags: Vec<String>,
    /// When it was released, by the author's calendar.
    pub released_unix_ms: Millis,
    /// The release that it replaces, by record id.
    pub previous: Option<Hash>,
}

/// A file of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseFile {
    /// Where it stands in the release.
    pub path: FilePath,
    /// Its plain BLAKE3.
    pub blob: Hash,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256, as hubs name it.
    pub sha256: Option<Hash>,
    /// The recipe of its chunks, a blob of its own.
    pub recipe: Option<Hash>,
}

/// How a release came from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// The same weights in fewer bits.
    QuantisedFrom,
    /// Trained further.
    FineTunedFrom,
    /// Changes that model while it computes.
    AdapterOf,
    /// One of several that were merged.
    MergedFrom,
    /// Learnt from that model's answers.
    DistilledFrom,
    /// Learnt from those data.
    TrainedOn,
    /// The same content in another format.
    ConvertedFrom,
}

impl Relation {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 7] = [
        Self::QuantisedFrom,
        Self::FineTunedFrom,
        Self::AdapterOf,
        Self::MergedFrom,
        Self::DistilledFrom,
        Self::TrainedOn,
        Self::ConvertedFrom,
    ];

    /// The words, with hyphens: `quantised-from`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QuantisedFrom => "quantised-from",
            Self::FineTunedFrom => "fine-tuned-from",
            Self::AdapterOf => "adapter-of",
            Self::MergedFrom => "merged-from",
            Self::DistilledFrom => "distilled-from",
            Self::TrainedOn => "trained-on",
            Self::ConvertedFrom => "converted-from",
        }
    }
}

impl std::fmt::Display for Relation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that a release was made from. The signer of the release says so, nobody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Derivation {
    /// How.
    pub relation: Relation,
    /// The release that it came from, by record id.
    pub release: Option<Hash>,
    /// The file that it came from.
    pub blob: Option<Hash>,
    /// What people call it; says nothing by itself.
    pub label: Option<String>,
}

impl Derivation {
    fn check(&self) -> Result<(), InvalidBody> {
        let is_named = self.release.is_some() || self.blob.is_some();
        InvalidBody::unless(is_named, "lineage", "names neither a release nor a file by hash")?;
        let is_printable = self.label.as_deref().is_none_or(is_label);
        InvalidBody::unless(is_printable, "lineage", "has an unprintable label")
    }
}

impl Release {
    /// All bytes of its files; `None` if they cannot be counted.
    pub fn size(&self) -> Option<u64> {
        self.files.iter().try_fold(0_u64, |sum, file| sum.checked_add(file.size))
    }

    /// The commit by which tools know a release: the first 20 bytes of its record id.
    pub fn commit_of(id: &Hash) -> String {
        id.to_string()[..40].to_owned()
    }

    fn check_files(&self) -> Result<(), InvalidBody> {
        let count = self.files.len();
        let is_some = (1..=FILES_MAX).contains(&count);
        InvalidBody::unless(is_some, "files", "are none or more than 4096")?;
        let is_sorted = self.files.is_sorted_by(|one, next| one.path < next.path);
        InvalidBody::unless(is_sorted, "files", "are not in the order of their paths, each once")?;
        // Some file systems do not tell `README` from `readme`.
        let folded: BTreeSet<String> = self.files.iter().map(|it| it.path.folded()).collect();
        let are_apart = folded.len() == count;
        InvalidBody::unless(are_apart, "files", "have paths that differ in case only")?;
        let is_folder = |path: &String| {
            let ends = path.match_indices('/').map(|(end, _)| &path[..end]);
            ends.into_iter().any(|folder| folded.contains(folder))
        };
        let is_clear = !folded.iter().any(is_folder);
        InvalidBody::unless(is_clear, "files", "have a path that is also the folder of another")?;
        let are_bounded = self.files.iter().all(|it| it.size <= FILE_SIZE_MAX);
        InvalidBody::unless(are_bounded, "files", "are longer than 64 TiB")?;
        InvalidBody::unless(self.size().is_some(), "files", "are longer than can be counted")
    }
}

impl Record for Release {
    const TYPE: &'static str = "commons/release/1";
    const SIGNER: Signer = Signer::Node;

    fn check(&self) -> Result<(), InvalidBody> {
        self.check_files()?;
        let is_licence = check_licence(&self.licence).is_ok();
        InvalidBody::unless(is_licence, "licence", "is no SPDX expression and not NOASSERTION")?;
        let lineage = &self.lineage;
        InvalidBody::unless(lineage.len() <= LINEAGE_MAX, "lineage", "is longer than 64")?;
        lineage.iter().try_for_each(Derivation::check)?;
        InvalidBody::unless(is_label(&self.author), "author", "is empty, too long or unprintable")?;
        let is_readable = is_sentence(&self.description);
        InvalidBody::unless(is_readable, "description", "is over 1024 bytes or unprintable")?;
        let are_few = self.tags.len() <= TAGS_MAX;
        InvalidBody::unless(are_few, "tags", "are more than 32")?;
        let is_tag = |tag: &String| is_label(tag) && tag.len() <= TAG_LEN_MAX;
        let are_tags = self.tags.iter().all(is_tag) && self.tags.is_sorted_by(|a, b| a < b);
        InvalidBody::unless(are_tags, "tags", "are over 64 bytes, unprintable or out of order")?;
        check_size(self, "files")
    }
}

/// An authority says what a name means in its mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameBinding {
    /// The name.
    pub name: RepoName,
    /// One version of it; none means the name alone.
    pub version: Option<Version>,
    /// The release, by record id; none withdraws the name.
    pub release: Option<Hash>,
    /// Higher replaces lower for the same name and version.
    pub serial: u64,
}

impl Record for NameBinding {
    const TYPE: &'static str = "commons/name/1";
    const SIGNER: Signer = Signer::Owner;

    fn check(&self) -> Result<(), InvalidBody> {
        Ok(())
    }
}

/// An owner, or an authority, takes back the word of a key.
///
/// What is spared is named by epoch, which a thief of the key can write as it likes, or by record
/// id, which it cannot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// The key of a node or of an owner.
    pub key: PublicKey,
    /// The first epoch whose records no longer count; none means that none ever did.
    pub from: Option<Epoch>,
    /// Records that go on counting, in the order of their ids.
    pub kept: Vec<Hash>,
    /// Why, for people.
    pub reason: String,
}

impl Revocation {
    /// Whether a record of the key still counts.
    pub fn spares(&self, record: &Hash, epoch: Epoch) -> bool {
        self.kept.binary_search(record).is_ok() || self.from.is_some_and(|from| epoch < from)
    }
}

impl Record for Revocation {
    const TYPE: &'static str = "commons/revocation/1";
    const SIGNER: Signer = Signer::Owner;

    fn check(&self) -> Result<(), InvalidBody> {
        InvalidBody::unless(self.kept.len() <= KEPT_MAX, "kept", "are more than 1024")?;
        let is_sorted = self.kept.is_sorted_by(|a, b| a < b);
        InvalidBody::unless(is_sorted, "kept", "are not in order, each once")?;
        InvalidBody::unless(is_sentence(&self.reason), "reason", "is too long or unprintable")?;
        check_size(self, "kept")
    }
}

/// What its author advises against holding. It acts on those who subscribed to its author.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denylist {
    /// Tells it from other lists of its author.
    pub title: String,
    /// Higher replaces lower for the same author and title.
    pub serial: u64,
    /// What is on it.
    pub entries: Vec<DenyEntry>,
}

/// One entry of a denylist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenyEntry {
    /// What is denied.
    pub what: Denied,
    /// The kind of reason.
    pub code: DenyCode,
    /// The reason in a sentence.
    pub reason: String,
}

/// What an entry is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Denied {
    /// A file, wherever it stands.
    Blob(Hash),
    /// A release, by record id.
    Release(Hash),
    /// All releases of a name.
    Name(RepoName),
}

impl std::fmt::Display for Denied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Blob(blob) => write!(f, "file {blob}"),
            Self::Release(release) => write!(f, "release {release}"),
            Self::Name(name) => write!(f, "name {name}"),
        }
    }
}

/// Kinds of reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenyCode {
    /// A law forbids it where the author is.
    Illegal,
    /// It attacks who uses it.
    Malware,
    /// Its licence is broken by its being shared.
    Licence,
    /// It gives away what is private.
    Privacy,
    /// It is not what it says.
    Deception,
    /// Anything else.
    Other,
}

impl DenyCode {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Illegal => "illegal",
            Self::Malware => "malware",
            Self::Licence => "licence",
            Self::Privacy => "privacy",
            Self::Deception => "deception",
            Self::Other => "other",
        }
    }
}

impl Record for Denylist {
    const TYPE: &'static str = "commons/denylist/1";
    const SIGNER: Signer = Signer::Owner;

    fn check(&self) -> Result<(), InvalidBody> {
        InvalidBody::unless(is_label(&self.title), "title", "is empty, too long or unprintable")?;
        let are_few = self.entries.len() <= ENTRIES_MAX;
        InvalidBody::unless(are_few, "entries", "are more than 1024")?;
        let is_reason = |it: &DenyEntry| !it.reason.is_empty() && is_sentence(&it.reason);
        let are_reasons = self.entries.iter().all(is_reason);
        InvalidBody::unless(are_reasons, "entries", "have no printable reason")?;
        check_size(self, "entries")
    }
}
