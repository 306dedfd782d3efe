//! What a node knows of published releases: a pure state over verified records.
//!
//! ```text
//! Verified<Release | NameBinding | Revocation | Denylist> --admit--> Admission
//! pins, subscriptions: the owner's own word
//! NAME[@VERSION|@COMMIT] --resolve--> a release, or why not and what to do
//! ```
//!
//! Whoever admits a record has checked that its owner is a member of the mesh (Rule C5).
//!
//! # Invariants
//!
//! * Rule C2: a name means what the owner pinned, else what an authority bound. Nothing that
//!   another author signs changes that.
//! * Rule C4: records of a revoked key name nothing, and every refusal says so.
//! * Rule C6: an author can push out its own releases alone. Where there is no room in all, the
//!   author with the most bytes loses its oldest; what is pinned or bound stays.
//!
//! Not here: disks and peers; whether something may be held (see `policy`).

mod admit;
mod find;
mod names;
mod room;

use std::collections::{BTreeMap, BTreeSet};

use commons_record::catalogue::{Denylist, NameBinding, Release, RepoName, Revocation, Version};
use commons_record::{Epoch, Hash, OwnerId, PeerId, PublicKey};

use crate::policy::Subscribed;

pub use find::{LINEAGE_DEPTH_MAX, LINEAGE_STEPS_MAX, Lineage, Parent, Step};
pub use names::{By, Candidate, NameRef, ParseNameError, ResolveError, Resolved, Revision};

/// How much is kept. The numbers keep a full catalogue, in memory, far below what a node without
/// a model may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all releases, encoded.
    pub bytes: usize,
    /// Bytes of one author's releases.
    pub bytes_per_author: usize,
    /// Names and versions that authorities bound.
    pub bindings: usize,
    /// Keys that were revoked.
    pub revocations: usize,
    /// Denylists of authors that nobody here subscribed to.
    pub denylists: usize,
    /// Denylists of one author.
    pub denylists_per_author: usize,
    /// The owner's own pins.
    pub pins: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 16 << 20,
            bytes_per_author: 4 << 20,
            bindings: 16_384,
            revocations: 4_096,
            denylists: 64,
            denylists_per_author: 4,
            pins: 16_384,
        }
    }
}

/// A release as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The record's id.
    pub id: Hash,
    /// Who answers for it.
    pub owner: OwnerId,
    /// The node that signed.
    pub node: PeerId,
    /// When it was signed, by the author.
    pub epoch: Epoch,
    /// The author's sequence number.
    pub sequence: u64,
    /// Bytes of the encoded record.
    pub size: usize,
    /// What it says.
    pub release: Release,
}

impl Listed {
    fn order(&self) -> (Epoch, u64, Hash) {
        (self.epoch, self.sequence, self.id)
    }
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It is kept, and these are not any more.
    Kept {
        /// Ids of records that gave way.
        gone: Vec<Hash>,
    },
    /// It was there already.
    Known,
    /// It is not kept.
    Refused(NotKept),
}

/// Why a record is not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum NotKept {
    #[error("its key {key} was revoked by {by}: {reason}")]
    Revoked { key: PublicKey, by: OwnerId, reason: String },

    #[error("{owner} is no authority of this mesh, and only an authority binds names")]
    NoAuthority { owner: OwnerId },

    #[error("serial {known} is known, and {found} does not replace it")]
    Stale { known: u64, found: u64 },

    #[error("there is no room for more of {owner}'s records")]
    NoRoom { owner: OwnerId },
}

/// Why an owner's word was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum PinError {
    #[error("release {release} is not known here; a pin needs a release that was seen")]
    Unknown { release: Hash },

    #[error("there are {max} pins already; remove one")]
    TooMany { max: usize },

    #[error("{release} does not count: its key {key} was revoked by {by}: {reason}")]
    Revoked { release: Hash, key: PublicKey, by: OwnerId, reason: String },
}

/// A name, or one version of it, where case does not count.
type NameKey = (String, Option<Version>);

fn name_key(name: &RepoName, version: Option<&Version>) -> NameKey {
    (name.folded(), version.cloned())
}

#[derive(Debug, Clone)]
struct Bound {
    id: Hash,
    by: OwnerId,
    author: PublicKey,
    epoch: Epoch,
    binding: NameBinding,
}

#[derive(Debug, Clone)]
struct Revoked {
    id: Hash,
    revocation: Revocation,
}

impl Revoked {
    /// What spares less comes first: always, then earlier, then fewer.
    fn severity(&self) -> (Option<Epoch>, usize, Hash) {
        (self.revocation.from, self.revocation.kept.len(), self.id)
    }
}

#[derive(Debug, Clone)]
struct Listing {
    id: Hash,
    author: PublicKey,
    epoch: Epoch,
    list: Denylist,
}

#[derive(Debug, Clone, Default)]
struct Shelf {
    bytes: usize,
    releases: BTreeSet<(Epoch, u64, Hash)>,
}

/// The catalogue of a node.
#[derive(Debug, Clone)]
pub struct Catalogue {
    limits: Limits,
    authorities: BTreeSet<OwnerId>,
    releases: BTreeMap<Hash, Listed>,
    bytes: usize,
    shelves: BTreeMap<OwnerId, Shelf>,
    by_name: BTreeMap<String, BTreeSet<Hash>>,
    bindings: BTreeMap<NameKey, Bound>,
    /// By the key that is revoked and the owner who revokes it.
    revocations: BTreeMap<(PublicKey, OwnerId), Revoked>,
    denylists: BTreeMap<(OwnerId, String), Listing>,
    pins: BTreeMap<NameKey, (RepoName, Hash)>,
    subscriptions: BTreeSet<OwnerId>,
    /// How many pins and bindings hold a release.
    holds: BTreeMap<Hash, usize>,
    /// Ids of all records that are kept.
    ids: BTreeSet<Hash>,
}

impl Catalogue {
    /// An empty catalogue of a mesh with these authorities.
    pub fn new(authorities: impl IntoIterator<Item = OwnerId>, limits: Limits) -> Self {
        Self {
            limits,
            authorities: authorities.into_iter().collect(),
            releases: BTreeMap::new(),
            bytes: 0,
            shelves: BTreeMap::new(),
            by_name: BTreeMap::new(),
            bindings: BTreeMap::new(),
            revocations: BTreeMap::new(),
            denylists: BTreeMap::new(),
            pins: BTreeMap::new(),
            subscriptions: BTreeSet::new(),
            holds: BTreeMap::new(),
            ids: BTreeSet::new(),
        }
    }

    /// Whether a record is kept.
    pub fn contains(&self, id: &Hash) -> bool {
        self.ids.contains(id)
    }

    /// Ids of all records that are kept, in order.
    pub fn ids(&self) -> impl Iterator<Item = &Hash> {
        self.ids.iter()
    }

    /// A release, whether or not it counts.
    pub fn release(&self, id: &Hash) -> Option<&Listed> {
        self.releases.get(id)
    }

    /// How many releases are kept.
    pub fn release_count(&self) -> usize {
        self.releases.len()
    }

    /// Says what a name means here, whatever others say.
    pub fn pin(
        &mut self,
        name: &RepoName,
        version: Option<&Version>,
        release: Hash,
    ) -> Result<(), PinError> {
        let Some(listed) = self.releases.get(&release) else {
            return Err(PinError::Unknown { release });
        };
        if let Some(NotKept::Revoked { key, by, reason }) = self.revoked(listed) {
            return Err(PinError::Revoked { release, key, by, reason });
        }
        self.restore_pin(name, version, release)
    }

    /// Takes up a pin that was stored, even if its release has not come yet.
    pub fn restore_pin(
        &mut self,
        name: &RepoName,
        version: Option<&Version>,
        release: Hash,
    ) -> Result<(), PinError> {
        let key = name_key(name, version);
        if self.pins.len() >= self.limits.pins && !self.pins.contains_key(&key) {
            return Err(PinError::TooMany { max: self.limits.pins });
        }
        self.hold(Some(release));
        if let Some((_, old)) = self.pins.insert(key, (name.clone(), release)) {
            self.release_hold(Some(old));
        }
        Ok(())
    }

    /// Takes a pin back. False if there was none.
    pub fn unpin(&mut self, name: &RepoName, version: Option<&Version>) -> bool {
        let Some((_, release)) = self.pins.remove(&name_key(name, version)) else { return false };
        self.release_hold(Some(release));
        true
    }

    /// All pins, by name.
    pub fn pins(&self) -> impl Iterator<Item = (&RepoName, Option<&Version>, Hash)> {
        self.pins.iter().map(|((_, version), (name, id))| (name, version.as_ref(), *id))
    }

    /// Listens to an author's denylists, or stops listening.
    pub fn subscribe(&mut self, author: OwnerId, is_on: bool) {
        if is_on {
            self.subscriptions.insert(author);
        } else {
            self.subscriptions.remove(&author);
        }
    }

    /// Whose denylists the owner listens to.
    pub fn subscriptions(&self) -> impl Iterator<Item = &OwnerId> {
        self.subscriptions.iter()
    }

    /// The denylists that the owner listens to, for `Policy::judge`.
    pub fn subscribed(&self) -> impl Iterator<Item = Subscribed<'_>> {
        let is_on = |author: &OwnerId| self.subscriptions.contains(author);
        let listed = self.denylists.iter().filter(move |((author, _), _)| is_on(author));
        listed.map(|((author, _), it)| Subscribed { author: *author, list: &it.list })
    }

    /// All denylists, with whether the owner listens to them.
    pub fn denylists(&self) -> impl Iterator<Item = (OwnerId, &Denylist, bool)> {
        let is_on = |author: &OwnerId| self.subscriptions.contains(author);
        self.denylists.iter().map(move |((author, _), it)| (*author, &it.list, is_on(author)))
    }

    /// The serial that a new binding of a name needs to replace what is known.
    pub fn next_serial(&self, name: &RepoName, version: Option<&Version>) -> u64 {
        let known = self.bindings.get(&name_key(name, version));
        known.map_or(1, |it| it.binding.serial.saturating_add(1))
    }

    fn hold(&mut self, release: Option<Hash>) {
        if let Some(release) = release {
            *self.holds.entry(release).or_default() += 1;
        }
    }

    fn release_hold(&mut self, release: Option<Hash>) {
        let Some(release) = release else { return };
        if let Some(count) = self.holds.get_mut(&release) {
            *count -= 1;
            if *count == 0 {
                self.holds.remove(&release);
            }
        }
    }
}

#[cfg(test)]
mod tests;
