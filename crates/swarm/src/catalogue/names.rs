//! What a name means: the owner's pins, then what authorities bound, and nothing else (Rule C2).
//!
//! ```text
//! NAME            pin, else binding
//! NAME@VERSION    pin, else binding, else a release of that version which the release that NAME
//!                 means names as its predecessor, by hash, however many steps back
//! NAME@COMMIT     the release of that hash: whoever wrote it down needs nobody's word
//! ```

use std::fmt;
use std::str::FromStr;

use commons_record::catalogue::{ParseTextError, Release, RepoName, Version};
use commons_record::{Hash, OwnerId};

use super::{Bound, Catalogue, Listed, NotKept, name_key};

/// Candidates that a refusal lists.
const CANDIDATES_MAX: usize = 16;

/// Predecessors that are looked at.
const CHAIN_MAX: usize = 256;

/// A name, with a version or a commit behind `@` if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameRef {
    /// The name.
    pub name: RepoName,
    /// Which release of it.
    pub revision: Revision,
}

/// Which release of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revision {
    /// Whatever the name means now.
    Current,
    /// One version.
    Version(Version),
    /// 40 or 64 hexadecimal digits: the beginning of a record id, or all of it.
    Commit(String),
}

/// Why a text names no release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not ORG/NAME, ORG/NAME@VERSION or ORG/NAME@COMMIT")]
pub struct ParseNameError {
    /// The text, cut to a printable length.
    pub text: String,
    /// What is wrong with the name or the version.
    pub source: ParseTextError,
}

impl Revision {
    /// Reads what tools write for a revision: `main` and `HEAD` are the current one.
    pub fn parse(text: &str) -> Result<Self, ParseTextError> {
        let is_hex = || text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match text.len() {
            _ if matches!(text, "main" | "HEAD") => Ok(Self::Current),
            40 | 64 if is_hex() => Ok(Self::Commit(text.to_ascii_lowercase())),
            _ => text.parse().map(Self::Version),
        }
    }
}

impl FromStr for NameRef {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        let (name, revision) = match text.split_once('@') {
            Some((name, revision)) => (name, Revision::parse(revision)),
            None => (text, Ok(Revision::Current)),
        };
        let error = |source| ParseNameError { text: text.chars().take(80).collect(), source };
        Ok(Self { name: name.parse().map_err(error)?, revision: revision.map_err(error)? })
    }
}

impl fmt::Display for NameRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.revision {
            Revision::Current => write!(f, "{}", self.name),
            Revision::Version(version) => write!(f, "{}@{version}", self.name),
            Revision::Commit(commit) => write!(f, "{}@{commit}", self.name),
        }
    }
}

/// Why a name means a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The owner of this node said so.
    Pin,
    /// An authority of the mesh said so.
    Authority(OwnerId),
    /// The release that the name means names it as its predecessor.
    Predecessor(Hash),
    /// Its hash was asked for.
    Commit,
}

/// A release that a name means.
#[derive(Debug, Clone, Copy)]
pub struct Resolved<'a> {
    /// The release.
    pub listed: &'a Listed,
    /// Why.
    pub by: By,
}

/// A release that calls itself by a name which nobody bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The release.
    pub release: Hash,
    /// What its author calls this release.
    pub version: Version,
    /// Who answers for it.
    pub owner: OwnerId,
    /// What the author says to be called.
    pub author: String,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { release, version, owner, author } = self;
        write!(f, "{release} (version {version}, signed by {owner}, who says to be {author:?})")
    }
}

/// Why a name means no release here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum ResolveError {
    #[error("nothing is called {name} here")]
    Unknown { name: RepoName },

    #[error(
        "neither you nor an authority of the mesh has said what {name} is; {}; to choose one, \
         type: commons pin {name} RELEASE",
        told(candidates)
    )]
    Unbound { name: RepoName, candidates: Vec<Candidate> },

    #[error(
        "{name} has no release {revision} that you or an authority of the mesh named; {}",
        told(candidates)
    )]
    NoRevision { name: RepoName, revision: String, candidates: Vec<Candidate> },

    #[error("an authority of the mesh, {by}, withdrew the name {name}")]
    Withdrawn { name: RepoName, by: OwnerId },

    #[error("{name} is release {release}, which has not come here yet; try again in a while")]
    NotHere { name: RepoName, release: Hash },

    #[error("{name} is release {release}, which does not count: {why}")]
    Revoked { name: RepoName, release: Hash, why: Box<NotKept> },
}

fn told(candidates: &[Candidate]) -> String {
    let list: Vec<String> = candidates.iter().map(ToString::to_string).collect();
    if list.is_empty() {
        return "no release that counts calls itself so".to_owned();
    }
    format!("these call themselves so: {}", list.join("; "))
}

/// What was said of a name and version.
enum Said {
    Is(Hash, By),
    Withdrawn(OwnerId),
    Nothing,
}

impl Catalogue {
    /// The release that a name means.
    pub fn resolve(&self, wanted: &NameRef) -> Result<Resolved<'_>, ResolveError> {
        let name = &wanted.name;
        let said = match &wanted.revision {
            Revision::Current => self.said(name, None),
            Revision::Version(version) => match self.said(name, Some(version)) {
                Said::Nothing => self.predecessor(name, version),
                said => said,
            },
            Revision::Commit(commit) => self.committed(name, commit),
        };
        match (said, &wanted.revision) {
            (Said::Is(release, by), _) => self.counted(name, release, by),
            (Said::Withdrawn(by), _) => Err(ResolveError::Withdrawn { name: name.clone(), by }),
            (Said::Nothing, Revision::Current) => {
                let (name, candidates) = (name.clone(), self.candidates(name));
                if candidates.is_empty() {
                    return Err(ResolveError::Unknown { name });
                }
                Err(ResolveError::Unbound { name, candidates })
            }
            (Said::Nothing, Revision::Version(_) | Revision::Commit(_)) => {
                let candidates = self.candidates(name);
                let revision = match &wanted.revision {
                    Revision::Version(version) => version.to_string(),
                    Revision::Commit(commit) => commit.clone(),
                    Revision::Current => "main".to_owned(),
                };
                Err(ResolveError::NoRevision { name: name.clone(), revision, candidates })
            }
        }
    }

    /// Whether the owner or an authority said that some name is this release.
    pub fn is_named(&self, release: &Hash) -> bool {
        self.holds.contains_key(release)
    }

    /// Names that mean something here, in their order: as they were pinned or bound.
    pub fn names(&self) -> impl Iterator<Item = &RepoName> {
        let pins = self.pins.iter().map(|(key, (name, _))| (key, name));
        let bound = self.bindings.iter().map(|(key, it)| (key, &it.binding.name));
        let current = pins.chain(bound).filter(|((_, version), _)| version.is_none());
        // A pin is looked at first, and writes the name.
        let mut names = std::collections::BTreeMap::new();
        for ((folded, _), name) in current {
            names.entry(folded).or_insert(name);
        }
        names.into_values()
    }

    fn said(&self, name: &RepoName, version: Option<&Version>) -> Said {
        let key = name_key(name, version);
        if let Some((_, release)) = self.pins.get(&key) {
            return Said::Is(*release, By::Pin);
        }
        match self.bindings.get(&key) {
            Some(Bound { by, binding, .. }) => match binding.release {
                Some(release) => Said::Is(release, By::Authority(*by)),
                None => Said::Withdrawn(*by),
            },
            None => Said::Nothing,
        }
    }

    /// The release of a version that leads to the current one by hashes.
    fn predecessor(&self, name: &RepoName, version: &Version) -> Said {
        let Said::Is(current, by) = self.said(name, None) else { return Said::Nothing };
        let mut next = Some(current);
        for _ in 0..CHAIN_MAX {
            let Some(listed) = next.and_then(|id| self.releases.get(&id)) else { break };
            if listed.release.version == *version {
                let is_current = listed.id == current;
                return Said::Is(listed.id, if is_current { by } else { By::Predecessor(current) });
            }
            next = listed.release.previous;
        }
        Said::Nothing
    }

    fn committed(&self, name: &RepoName, commit: &str) -> Said {
        // A name may mean a release that calls itself otherwise.
        let current = match self.said(name, None) {
            Said::Is(release, _) => Some(release),
            Said::Withdrawn(_) | Said::Nothing => None,
        };
        let named = self.by_name.get(&name.folded()).into_iter().flatten().copied();
        let of_versions = self.bindings.range(name_key(name, None)..);
        let of_versions = of_versions.take_while(|((folded, _), _)| *folded == name.folded());
        let of_versions = of_versions.filter_map(|(_, it)| it.binding.release);
        let mut all = current.into_iter().chain(named).chain(of_versions);
        match all.find(|id| id.to_string().starts_with(commit)) {
            Some(id) => Said::Is(id, By::Commit),
            None => Said::Nothing,
        }
    }

    fn counted(
        &self,
        name: &RepoName,
        release: Hash,
        by: By,
    ) -> Result<Resolved<'_>, ResolveError> {
        let name = || name.clone();
        let Some(listed) = self.releases.get(&release) else {
            return Err(ResolveError::NotHere { name: name(), release });
        };
        if let Some(why) = self.revoked(listed) {
            return Err(ResolveError::Revoked { name: name(), release, why: Box::new(why) });
        }
        Ok(Resolved { listed, by })
    }

    /// Releases that count and call themselves so, newest first by their authors' calendars.
    fn candidates(&self, name: &RepoName) -> Vec<Candidate> {
        let named = self.by_name.get(&name.folded()).into_iter().flatten();
        let mut listed: Vec<&Listed> = named.filter_map(|id| self.releases.get(id)).collect();
        listed.retain(|it| self.revoked(it).is_none());
        listed.sort_by_key(|it| (std::cmp::Reverse(it.release.released_unix_ms), it.id));
        let candidate = |it: &Listed| Candidate {
            release: it.id,
            version: it.release.version.clone(),
            owner: it.owner,
            author: it.release.author.clone(),
        };
        listed.into_iter().take(CANDIDATES_MAX).map(candidate).collect()
    }
}

impl Listed {
    /// The commit by which tools know it.
    pub fn commit(&self) -> String {
        Release::commit_of(&self.id)
    }
}
