//! The prefix tree: finding blocks by their tokens, and hanging new ones below.

use crate::batch::PageId;

use super::{Inserted, Pages, Scope, State};

/// A cached page.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub parent: Parent,
    /// The blocks that follow, in the order of their tokens.
    pub children: Vec<PageId>,
    /// Tables that name the page, and copies that read it.
    pub holds: u32,
    /// When it was last let go.
    pub stamp: u64,
}

/// What a block hangs below.
#[derive(Clone, Debug)]
pub(super) enum Parent {
    /// Nothing: it is the first of its scope.
    Root(Box<Scope>),
    /// The block before it.
    Page(PageId),
}

impl Pages {
    /// The cached page of `block` below `parent` (none: at the start).
    pub(crate) fn find(
        &self,
        scope: &Scope,
        parent: Option<PageId>,
        block: &[u32],
    ) -> Option<PageId> {
        let children = self.children(scope, parent);
        self.position(children, block).ok().map(|at| children[at])
    }

    /// The cached page below `parent` that agrees with `tokens` the longest, and how long.
    ///
    /// Children are in the order of their tokens, so the longest common prefix is with a
    /// neighbour of the place where `tokens` would stand.
    pub(crate) fn nearest(
        &self,
        scope: &Scope,
        parent: Option<PageId>,
        tokens: &[u32],
    ) -> Option<(PageId, usize)> {
        let children = self.children(scope, parent);
        let at = self.position(children, tokens).unwrap_or_else(|at| at);
        let neighbours = [at.checked_sub(1), Some(at)];
        let pages = neighbours.into_iter().flatten().filter_map(|at| children.get(at));
        let lengths = pages.map(|&page| (page, common_len(self.block(page), tokens)));
        lengths.max_by_key(|&(_, len)| len).filter(|&(_, len)| len > 0)
    }

    /// Puts a complete page that was taken into the tree, or gives it back where the tree has one
    /// like it. Either way, the cached page is held once more. `parent` is held already.
    pub(crate) fn insert(
        &mut self,
        scope: &Scope,
        parent: Option<PageId>,
        page: PageId,
        block: &[u32],
    ) -> Inserted {
        let children = self.children(scope, parent);
        let at = match self.position(children, block) {
            Ok(at) => {
                let twin = children[at];
                self.give(page);
                self.hold(twin);
                return Inserted::Twin(twin);
            }
            Err(at) => at,
        };
        let range = self.block_range(page);
        self.tokens[range].copy_from_slice(block);
        let below = match parent {
            Some(parent) => {
                self.node_mut(parent).children.insert(at, page);
                Parent::Page(parent)
            }
            None => {
                self.roots.entry(*scope).or_default().insert(at, page);
                Parent::Root(Box::new(*scope))
            }
        };
        let node = Node { parent: below, children: Vec::new(), holds: 1, stamp: 0 };
        self.states[page.index()] = State::Cached(node);
        self.cached += 1;
        Inserted::New
    }

    /// How often a cached page is held.
    pub(crate) fn holds(&self, page: PageId) -> u32 {
        self.node(page).holds
    }

    fn children(&self, scope: &Scope, parent: Option<PageId>) -> &[PageId] {
        match parent {
            Some(parent) => &self.node(parent).children,
            None => self.roots.get(scope).map_or(&[], Vec::as_slice),
        }
    }

    /// Where a block stands, or would stand, among others.
    pub(super) fn position(&self, children: &[PageId], block: &[u32]) -> Result<usize, usize> {
        children.binary_search_by(|&page| self.block(page).cmp(block))
    }
}

/// How many tokens two sequences begin with in common.
fn common_len(left: &[u32], right: &[u32]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}
