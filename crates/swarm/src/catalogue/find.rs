//! Looking for releases by words, and walking back to what a release was made from.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use commons_record::catalogue::{Derivation, ReleaseKind};
use commons_record::{Hash, OwnerId};

use super::{Catalogue, Listed};

/// Words of a search that are looked at; more narrow nothing down.
const WORDS_MAX: usize = 16;

/// How far back a walk goes: a chain of fine-tunes longer than this is a history of its own.
pub const LINEAGE_DEPTH_MAX: usize = 32;

/// Steps of one walk.
pub const LINEAGE_STEPS_MAX: usize = 512;

/// What a release was made from, as far as it is known here.
#[derive(Debug, Clone)]
pub struct Lineage<'a> {
    /// Where the walk began.
    pub root: &'a Listed,
    /// Each derivation, parents of a release right behind it.
    pub steps: Vec<Step<'a>>,
    /// Whether a bound ended the walk.
    pub is_cut: bool,
}

/// One derivation.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// How far from the root: 1 for what the root itself was made from.
    pub depth: usize,
    /// The release that says so.
    pub child: &'a Listed,
    /// What it says.
    pub derivation: &'a Derivation,
    /// What that is.
    pub parent: Parent<'a>,
}

impl Step<'_> {
    /// Whose word it is.
    pub fn by(&self) -> OwnerId {
        self.child.owner
    }
}

/// What a release was made from.
#[derive(Debug, Clone, Copy)]
pub enum Parent<'a> {
    /// A release that is known here; its own parents follow.
    Known(&'a Listed),
    /// A release that stands in the walk already.
    Again(&'a Listed),
    /// Nothing that is known here.
    Unknown,
}

impl Catalogue {
    /// Releases that hold all words of `query` in name, version, tags or description, whatever
    /// their case, in the order of their names, the newest first. Those of revoked keys are left
    /// out. No words find everything.
    pub fn search(&self, query: &str, kind: Option<ReleaseKind>, limit: usize) -> Vec<&Listed> {
        let query = query.to_lowercase();
        let words: Vec<&str> = query.split_whitespace().take(WORDS_MAX).collect();
        let is_of_kind = |it: &&Listed| kind.is_none_or(|kind| it.release.kind == kind);
        let of_kind = self.releases.values().filter(is_of_kind);
        let mut found: Vec<&Listed> = of_kind.filter(|it| it.holds_all(&words)).collect();
        found.sort_by_cached_key(|it| {
            (it.release.name.folded(), Reverse(it.release.released_unix_ms), it.id)
        });
        found.into_iter().filter(|it| self.revoked(it).is_none()).take(limit).collect()
    }

    /// Walks back from a release: bounded, and through each release once.
    pub fn lineage(&self, root: &Hash) -> Option<Lineage<'_>> {
        let root = self.releases.get(root)?;
        let mut lineage = Lineage { root, steps: Vec::new(), is_cut: false };
        let mut seen = BTreeSet::from([root.id]);
        // Releases whose derivations are being told, and which comes next.
        let mut path: Vec<(&Listed, usize)> = vec![(root, 0)];
        while let Some((child, next)) = path.last_mut() {
            let (child, at) = (*child, *next);
            *next += 1;
            let Some(derivation) = child.release.lineage.get(at) else {
                path.pop();
                continue;
            };
            if lineage.steps.len() >= LINEAGE_STEPS_MAX {
                lineage.is_cut = true;
                break;
            }
            let depth = path.len();
            let parent = match self.parent(derivation) {
                None => Parent::Unknown,
                Some(parent) if !seen.insert(parent.id) => Parent::Again(parent),
                Some(parent) => Parent::Known(parent),
            };
            lineage.steps.push(Step { depth, child, derivation, parent });
            if let Parent::Known(parent) = parent {
                if depth < LINEAGE_DEPTH_MAX {
                    path.push((parent, 0));
                } else {
                    lineage.is_cut |= !parent.release.lineage.is_empty();
                }
            }
        }
        Some(lineage)
    }

    /// Releases that have a file, whether or not they count.
    pub fn holders(&self, blob: Hash) -> impl Iterator<Item = &Listed> {
        let has_it = move |it: &&Listed| {
            it.release.files.iter().any(|file| file.blob == blob || file.recipe == Some(blob))
        };
        self.releases.values().filter(has_it)
    }

    /// The release that a derivation names. Of several that hold the file it is one that has a
    /// name here, else the one that comes first by its author's count.
    fn parent(&self, derivation: &Derivation) -> Option<&Listed> {
        if let Some(id) = derivation.release {
            return self.releases.get(&id);
        }
        let holders = self.holders(derivation.blob?);
        holders.min_by_key(|it| (!self.is_named(&it.id), self.revoked(it).is_some(), it.order()))
    }
}

impl Listed {
    fn holds_all(&self, words: &[&str]) -> bool {
        let release = &self.release;
        let texts = [release.name.as_str(), release.version.as_str(), &release.description];
        let texts = texts.into_iter().chain(release.tags.iter().map(String::as_str));
        let texts: Vec<String> = texts.map(str::to_lowercase).collect();
        words.iter().all(|word| texts.iter().any(|text| text.contains(word)))
    }
}
