//! What a node can be asked about published releases: the part of the contract for its catalogue.
//!
//! Names are written `ORG/NAME`, `ORG/NAME@VERSION` or `ORG/NAME@COMMIT`; where a release can be
//! named, its record id will do as well.

use commons_port::BoxFuture;
use commons_record::catalogue::{
    DenyEntry, Derivation, Release, ReleaseFile, ReleaseKind, RepoName, Version,
};
use commons_record::{Epoch, Hash, OwnerId, PeerId, PublicKey};
use commons_swarm::policy::{Act, Policy};
use serde::{Deserialize, Serialize};

use super::Refusal;

/// The catalogue of a running node, as its front rooms see it.
pub trait CatalogueApi: Send + Sync {
    /// Signs a release and tells the mesh. The name is pinned here, and bound for the whole mesh
    /// if the owner is one of its authorities.
    fn publish(&self, draft: ReleaseDraft) -> BoxFuture<'static, Result<PublishedView, Refusal>>;

    /// Releases that hold all words, in the order of their names.
    fn search(&self, search: Search) -> BoxFuture<'static, Result<Vec<ReleaseView>, Refusal>>;

    /// A release, whether or not its name means it.
    fn show(&self, what: String) -> BoxFuture<'static, Result<ReleaseView, Refusal>>;

    /// The release that a name means, by the owner's pins or an authority's word. Nothing else
    /// makes a name mean anything; the refusal says who claims the name and how to choose.
    fn resolve(&self, name: String) -> BoxFuture<'static, Result<ReleaseView, Refusal>>;

    /// What a release was made from, as far as it is known here.
    fn lineage(&self, what: String) -> BoxFuture<'static, Result<LineageView, Refusal>>;

    /// Says what a name means on this node.
    fn pin(&self, name: String, release: Hash) -> BoxFuture<'static, Result<PinView, Refusal>>;

    /// Takes a pin back.
    fn unpin(&self, name: String) -> BoxFuture<'static, Result<PinView, Refusal>>;

    /// All pins, by name.
    fn pins(&self) -> BoxFuture<'static, Result<Vec<PinView>, Refusal>>;

    /// Says what a name means in the whole mesh, or that it means nothing. For authorities.
    fn bind(
        &self,
        name: String,
        release: Option<Hash>,
    ) -> BoxFuture<'static, Result<Hash, Refusal>>;

    /// Takes back the word of a key: one's own, one of one's nodes, or any for an authority.
    fn revoke(&self, draft: RevocationDraft) -> BoxFuture<'static, Result<Hash, Refusal>>;

    /// Signs a denylist, which replaces the one of the same title.
    fn publish_denylist(
        &self,
        title: String,
        entries: Vec<DenyEntry>,
    ) -> BoxFuture<'static, Result<Hash, Refusal>>;

    /// Listens to an author's denylists, or stops listening.
    fn subscribe(
        &self,
        author: OwnerId,
        is_on: bool,
    ) -> BoxFuture<'static, Result<Vec<DenylistView>, Refusal>>;

    /// All denylists that are known here.
    fn denylists(&self) -> BoxFuture<'static, Result<Vec<DenylistView>, Refusal>>;

    /// The owner's rules of what to hold, seed and publish.
    fn policy(&self) -> BoxFuture<'static, Result<Policy, Refusal>>;

    /// Sets the owner's rules.
    fn set_policy(&self, policy: Policy) -> BoxFuture<'static, Result<(), Refusal>>;

    /// Whether the owner's rules and the denylists that it subscribed to allow an act. The
    /// refusal's code is [`super::RefusalCode::Denied`], its sentence names the rule.
    fn may(&self, act: Act, what: Judged) -> BoxFuture<'static, Result<(), Refusal>>;
}

/// What is judged by the owner's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// A release that is known here.
    Release(Hash),
    /// A file. If releases hold it, one of them has to be allowed; else it has no licence.
    Blob {
        /// Its hash.
        blob: Hash,
        /// Its length in bytes.
        size: u64,
    },
}

/// A release to be signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseDraft {
    /// What it holds.
    pub kind: ReleaseKind,
    /// `ORG/NAME`.
    pub name: RepoName,
    /// Tells it from other releases of the name.
    pub version: Version,
    /// Its files, in any order.
    pub files: Vec<ReleaseFile>,
    /// An SPDX expression.
    pub licence: String,
    /// What it was made from.
    #[serde(default)]
    pub lineage: Vec<Derivation>,
    /// What the author is called; none means the owner's key.
    #[serde(default)]
    pub author: Option<String>,
    /// A paragraph for people.
    #[serde(default)]
    pub description: String,
    /// Words that people search for, in any order.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The release that it replaces; none means this owner's own one that the name means now.
    #[serde(default)]
    pub previous: Option<Hash>,
}

/// What became of a draft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedView {
    /// The release's record id.
    pub release: Hash,
    /// The commit by which tools know it.
    pub commit: String,
    /// Its name.
    pub name: RepoName,
    /// Its version.
    pub version: Version,
    /// Whether the name means it in the whole mesh now, or on this node alone.
    pub is_bound: bool,
}

/// A search.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// Words; all of them have to be there.
    pub words: String,
    /// One kind; none means all.
    #[serde(default)]
    pub kind: Option<ReleaseKind>,
    /// How many releases at most.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// Why a name means a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamedBy {
    /// The owner pinned it.
    Pin,
    /// An authority of the mesh bound it.
    Authority(OwnerId),
    /// The release that the name means names it as its predecessor.
    Predecessor(Hash),
    /// Its hash was asked for.
    Commit,
}

/// A release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseView {
    /// The record's id.
    pub release: Hash,
    /// The commit by which tools know it.
    pub commit: String,
    /// Who answers for it.
    pub owner: OwnerId,
    /// The node that signed it.
    pub node: PeerId,
    /// Whether the owner of this node or an authority gave some name to it.
    pub is_named: bool,
    /// Why the name that was asked for means it, where a name was asked for.
    pub by: Option<NamedBy>,
    /// Why it does not count, if it does not.
    pub revoked: Option<String>,
    /// Bytes of all its files.
    pub size: u64,
    /// What was signed.
    pub body: Release,
}

/// What a release was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineageView {
    /// The release.
    pub root: ReleaseView,
    /// Each derivation, the parents of a release right behind it.
    pub steps: Vec<LineageStep>,
    /// Whether a bound ended the walk.
    pub is_cut: bool,
}

/// One derivation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineageStep {
    /// 1 for what the release itself was made from.
    pub depth: usize,
    /// The release that says so.
    pub child: Hash,
    /// Who signed that release: it is this owner's word.
    pub by: OwnerId,
    /// What was said.
    pub derivation: Derivation,
    /// The release that it came from; none if it is not known here.
    pub parent: Option<LineageParent>,
    /// Whether that release stands above already; its own parents are not told again.
    pub is_again: bool,
}

/// A release that another came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineageParent {
    /// The record's id.
    pub release: Hash,
    /// What its author calls it.
    pub name: RepoName,
    /// Its version.
    pub version: Version,
    /// Who answers for it.
    pub owner: OwnerId,
    /// Its licence.
    pub licence: String,
}

/// A pin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinView {
    /// The name, with `@VERSION` if it is for one.
    pub name: String,
    /// What it means; none if it was just taken back.
    pub release: Option<Hash>,
}

/// A key whose word is to be taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationDraft {
    /// The key of a node or an owner.
    pub key: PublicKey,
    /// The first epoch whose records no longer count; none means that none ever did.
    #[serde(default)]
    pub from: Option<Epoch>,
    /// Records that go on counting.
    #[serde(default)]
    pub kept: Vec<Hash>,
    /// Why.
    pub reason: String,
}

/// A denylist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenylistView {
    /// Who signed it.
    pub author: OwnerId,
    /// Its title.
    pub title: String,
    /// Higher replaces lower.
    pub serial: u64,
    /// How many entries it has.
    pub entry_count: usize,
    /// Whether the owner of this node listens to it.
    pub is_subscribed: bool,
}
