//! What a node holds, seeds and publishes, by its owner's rules alone.
//!
//! ```text
//! subject --> the owner's blocks --> subscribed denylists --> kind --> size --> licence --> yes
//!                 the first that says no names itself: rule, sentence, list and entry
//! ```
//!
//! # Invariants
//!
//! * Rule C7: what cannot be read, counted or judged is refused, and every refusal names its rule.
//! * Rule C8: a denylist acts on a node only if its owner subscribed to the list's author.
//!
//! Not here: which lists there are (see `catalogue`), and what is done about a refusal.

use std::collections::BTreeSet;
use std::fmt;

use commons_record::catalogue::{Denied, DenyCode, Denylist, Release, ReleaseKind, RepoName};
use commons_record::{Hash, OwnerId};
use serde::{Deserialize, Serialize};

use crate::licence::{Licence, LicenceError, LicenceId};

/// What a node is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Keep it on disk.
    Hold,
    /// Send it to others.
    Seed,
    /// Sign a release of it.
    Publish,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hold => "held",
            Self::Seed => "seeded",
            Self::Publish => "published",
        })
    }
}

/// The rules of one owner.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// What may be kept.
    pub hold: Rules,
    /// What may be sent to others.
    pub seed: Rules,
    /// What may be signed as a release.
    pub publish: Rules,
    /// What is refused whatever the rules say.
    pub blocks: Vec<Block>,
}

/// Rules for one act. By default any known licence will do, and none will not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Which licences.
    pub licences: Licences,
    /// Whether files without a known licence will do: `NOASSERTION`.
    pub allows_noassertion: bool,
    /// Bytes of all files together; none means as many as there are.
    pub size_max: Option<u64>,
    /// Which kinds; none means all.
    pub kinds: Option<BTreeSet<ReleaseKind>>,
}

/// Which licences are accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Licences {
    /// Any that can be read.
    #[default]
    Any,
    /// These.
    Only(BTreeSet<LicenceId>),
}

/// Something that the owner does not want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// What.
    pub what: Denied,
    /// Why, in the owner's words.
    pub reason: String,
}

/// What is judged.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The name under which it was asked for, and its own where that is another.
    pub names: &'a [&'a RepoName],
    /// The release, if it belongs to one.
    pub release: Option<Hash>,
    /// What it is.
    pub kind: ReleaseKind,
    /// Its licence expression, where one is known.
    pub licence: Option<&'a str>,
    /// Bytes of all its files, where they can be counted.
    pub size: Option<u64>,
    /// Its files.
    pub blobs: &'a [Hash],
}

impl<'a> Subject<'a> {
    /// A release. `blobs` are its files, `names` its own name and the one that was asked for.
    pub fn of_release(
        id: Hash,
        release: &'a Release,
        names: &'a [&'a RepoName],
        blobs: &'a [Hash],
    ) -> Self {
        Self {
            names,
            release: Some(id),
            kind: release.kind,
            licence: Some(&release.licence),
            size: release.size(),
            blobs,
        }
    }

    fn is(&self, denied: &Denied, blobs: &BTreeSet<Hash>) -> bool {
        match denied {
            Denied::Blob(blob) => blobs.contains(blob),
            Denied::Release(release) => self.release == Some(*release),
            Denied::Name(name) => {
                let folded = name.folded();
                self.names.iter().any(|it| it.folded() == folded)
            }
        }
    }
}

/// A denylist that the owner subscribed to.
#[derive(Debug, Clone, Copy)]
pub struct Subscribed<'a> {
    /// Whose it is.
    pub author: OwnerId,
    /// The list.
    pub list: &'a Denylist,
}

/// The entry of a denylist that denies something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "entry {number} of the denylist {title:?} by {author} denies {what} ({}): {reason}",
    code.as_str()
)]
pub struct FoundEntry {
    /// Whose list it is.
    pub author: OwnerId,
    /// Its title.
    pub title: String,
    /// Which entry, from 1, as people count.
    pub number: usize,
    /// What it denies.
    pub what: Denied,
    /// The kind of reason.
    pub code: DenyCode,
    /// The reason, in the author's words.
    pub reason: String,
}

/// Why something is not held, seeded or published here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum Denial {
    #[error("not {act} here: the owner of this node blocks {what}: {reason}")]
    Blocked { act: Act, what: Denied, reason: String },

    #[error("not {act} here: {entry}")]
    Denylisted { act: Act, entry: Box<FoundEntry> },

    #[error("not {act} here: the rules of this node leave out releases of kind {kind}")]
    Kind { act: Act, kind: ReleaseKind },

    #[error("not {act} here: {size} bytes are more than the {max} that this node's rules allow")]
    TooLarge { act: Act, size: u64, max: u64 },

    #[error("not {act} here: its size is not known, and this node's rules allow {max} bytes")]
    SizeUnknown { act: Act, max: u64 },

    #[error(
        "not {act} here: it says nothing of its licence, and this node's rules want one; name an \
         SPDX licence, or allow NOASSERTION in the rules"
    )]
    NoLicence { act: Act },

    #[error("not {act} here: {why}")]
    LicenceUnreadable { act: Act, why: LicenceError },

    #[error("not {act} here: this node's rules do not list the licence {licence}")]
    LicenceNotListed { act: Act, licence: String },
}

impl Denial {
    /// The stable name of the rule.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Blocked { .. } => "blocked",
            Self::Denylisted { .. } => "denylisted",
            Self::Kind { .. } => "kind",
            Self::TooLarge { .. } => "too_large",
            Self::SizeUnknown { .. } => "size_unknown",
            Self::NoLicence { .. } => "no_licence",
            Self::LicenceUnreadable { .. } => "licence_unreadable",
            Self::LicenceNotListed { .. } => "licence_not_listed",
        }
    }
}

impl Policy {
    /// Whether an act is allowed: everything has to say yes.
    pub fn judge<'a>(
        &self,
        act: Act,
        subject: &Subject<'_>,
        lists: impl IntoIterator<Item = Subscribed<'a>>,
    ) -> Result<(), Denial> {
        let blobs: BTreeSet<Hash> = subject.blobs.iter().copied().collect();
        if let Some(block) = self.blocks.iter().find(|it| subject.is(&it.what, &blobs)) {
            let (what, reason) = (block.what.clone(), block.reason.clone());
            return Err(Denial::Blocked { act, what, reason });
        }
        for Subscribed { author, list } in lists {
            let mut entries = list.entries.iter().zip(1..);
            if let Some((it, number)) = entries.find(|(it, _)| subject.is(&it.what, &blobs)) {
                let entry = FoundEntry {
                    author,
                    title: list.title.clone(),
                    number,
                    what: it.what.clone(),
                    code: it.code,
                    reason: it.reason.clone(),
                };
                return Err(Denial::Denylisted { act, entry: Box::new(entry) });
            }
        }
        let rules = match act {
            Act::Hold => &self.hold,
            Act::Seed => &self.seed,
            Act::Publish => &self.publish,
        };
        rules.judge(act, subject)
    }
}

impl Rules {
    fn judge(&self, act: Act, subject: &Subject<'_>) -> Result<(), Denial> {
        let kind = subject.kind;
        if self.kinds.as_ref().is_some_and(|kinds| !kinds.contains(&kind)) {
            return Err(Denial::Kind { act, kind });
        }
        match (subject.size, self.size_max) {
            (Some(size), Some(max)) if size > max => {
                return Err(Denial::TooLarge { act, size, max });
            }
            (None, max) => {
                return Err(Denial::SizeUnknown { act, max: max.unwrap_or(u64::MAX) });
            }
            (Some(_), _) => {}
        }
        let Some(text) = subject.licence else { return self.without_licence(act) };
        let licence: Licence =
            text.parse().map_err(|why| Denial::LicenceUnreadable { act, why })?;
        match &self.licences {
            _ if !licence.is_asserted() => self.without_licence(act),
            Licences::Any => Ok(()),
            Licences::Only(listed) if licence.is_within(listed) => Ok(()),
            Licences::Only(_) => Err(Denial::LicenceNotListed { act, licence: text.to_owned() }),
        }
    }

    fn without_licence(&self, act: Act) -> Result<(), Denial> {
        if self.allows_noassertion { Ok(()) } else { Err(Denial::NoLicence { act }) }
    }
}

#[cfg(test)]
mod tests;
