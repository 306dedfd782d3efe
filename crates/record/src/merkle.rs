//! Merkle trees with inclusion proofs, in the shape of RFC 6962.
//!
//! A tree over `n` leaves splits at the largest power of two below `n`. Leaves and inner nodes
//! hash in different domains (Rule R9), so neither can be passed off as the other. A proof is
//! checked against the root, the leaf count and the index: all three are part of the claim.

use serde::{Deserialize, Serialize};

use crate::hash::{FieldHasher, Hash};
use crate::key::Salt;

/// Tokens to a leaf of a transcript (Rule R10).
pub const LEAF_TOKENS: usize = 32;

/// A path can be no longer than this: 2^32 leaves have 32 levels.
const PATH_LEN_MAX: usize = 32;

/// The root of no leaves at all.
pub fn empty_root() -> Hash {
    Hash::of_fields("commons/merkle-empty/1", &[])
}

fn parent(left: &Hash, right: &Hash) -> Hash {
    Hash::of_fields("commons/merkle-node/1", &[left.as_bytes(), right.as_bytes()])
}

/// A tree that grows leaf by leaf and keeps only the roots of its complete subtrees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MerkleFrontier {
    /// Roots of complete subtrees, largest first; sizes are the set bits of `count`.
    subtrees: Vec<Hash>,
    count: u64,
}

impl MerkleFrontier {
    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut root = leaf;
        for _ in 0..self.count.trailing_ones() {
            match self.subtrees.pop() {
                Some(left) => root = parent(&left, &root),
                None => unreachable!("one subtree for each set bit of the count"),
            }
        }
        self.subtrees.push(root);
        self.count += 1;
    }

    /// The root over all leaves so far.
    pub fn root(&self) -> Hash {
        let mut subtrees = self.subtrees.iter().rev();
        let Some(last) = subtrees.next() else { return empty_root() };
        subtrees.fold(*last, |right, left| parent(left, &right))
    }
}

/// The root over `leaves`.
pub fn root(leaves: &[Hash]) -> Hash {
    let mut frontier = MerkleFrontier::default();
    for leaf in leaves {
        frontier.push(*leaf);
    }
    frontier.root()
}

/// The sibling hashes from a leaf up to the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InclusionProof {
    /// Which leaf, from 0.
    pub index: u64,
    /// How many leaves the tree has.
    pub count: u64,
    /// Siblings, from the leaf's own level up.
    pub path: Vec<Hash>,
}

impl InclusionProof {
    /// Proves that `leaves[index]` is in the tree; `None` if there is no such leaf.
    pub fn of(leaves: &[Hash], index: usize) -> Option<Self> {
        if index >= leaves.len() {
            return None;
        }
        let (mut path, mut span, mut at) = (Vec::new(), leaves, index);
        while span.len() > 1 {
            let (left, right) = span.split_at(split(span.len() as u64)?);
            if at < left.len() {
                path.push(root(right));
                span = left;
            } else {
                path.push(root(left));
                at -= left.len();
                span = right;
            }
        }
        path.reverse();
        Some(Self { index: index as u64, count: leaves.len() as u64, path })
    }

    /// Whether `leaf` stands at this index of the tree with this count and `root`.
    pub fn proves(&self, leaf: Hash, root: &Hash) -> bool {
        if self.index >= self.count || self.path.len() > PATH_LEN_MAX {
            return false;
        }
        // Which side the leaf lies on at each level, from the root down.
        let (mut sides, mut at, mut count) = (Vec::new(), self.index, self.count);
        while count > 1 {
            let Some(left) = split(count).map(|left| left as u64) else { return false };
            let is_left = at < left;
            sides.push(is_left);
            (at, count) = if is_left { (at, left) } else { (at - left, count - left) };
        }
        if sides.len() != self.path.len() {
            return false;
        }
        let climbed =
            self.path.iter().zip(sides.iter().rev()).fold(leaf, |node, (sibling, side)| {
                if *side { parent(&node, sibling) } else { parent(sibling, &node) }
            });
        climbed == *root
    }
}

/// The largest power of two below `count`, which is at least 2.
fn split(count: u64) -> Option<usize> {
    let half = count.checked_sub(1)?.checked_ilog2()?;
    usize::try_from(1_u64.checked_shl(half)?).ok()
}

/// The leaf over up to [`LEAF_TOKENS`] tokens, salted so that a published root leaks no text.
pub fn token_leaf(salt: &Salt, index: u64, tokens: &[u32]) -> Hash {
    let mut hasher = FieldHasher::new("commons/token-leaf/1");
    hasher.field(salt.as_bytes());
    hasher.field(&index.to_le_bytes());
    hasher.field(&token_bytes(tokens));
    hasher.finish()
}

/// The salted hash of a rendered prompt's token ids.
pub fn prompt_hash(salt: &Salt, tokens: &[u32]) -> Hash {
    Hash::of_fields("commons/prompt-tokens/1", &[salt.as_bytes(), &token_bytes(tokens)])
}

fn token_bytes(tokens: &[u32]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
}

/// The tokens of an answer as they arrive, and the root over them at any moment.
#[derive(Debug, Clone)]
pub struct Transcript {
    salt: Salt,
    full: MerkleFrontier,
    open: Vec<u32>,
    count: u32,
}

impl Transcript {
    /// An empty transcript under the salt that both parties know.
    pub fn new(salt: Salt) -> Self {
        Self { salt, full: MerkleFrontier::default(), open: Vec::new(), count: 0 }
    }

    /// Appends a token.
    pub fn push(&mut self, token: u32) {
        self.open.push(token);
        self.count += 1;
        if self.open.len() == LEAF_TOKENS {
            self.full.push(token_leaf(&self.salt, self.full.count, &self.open));
            self.open.clear();
        }
    }

    /// How many tokens it holds.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The root over all tokens so far, a last short leaf included.
    pub fn root(&self) -> Hash {
        let mut tree = self.full.clone();
        if !self.open.is_empty() {
            tree.push(token_leaf(&self.salt, tree.count, &self.open));
        }
        tree.root()
    }
}

/// The leaves of a whole transcript, for proofs.
pub fn token_leaves(salt: &Salt, tokens: &[u32]) -> Vec<Hash> {
    let leaves = tokens.chunks(LEAF_TOKENS).enumerate();
    leaves.map(|(index, chunk)| token_leaf(salt, index as u64, chunk)).collect()
}
