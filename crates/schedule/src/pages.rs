//! The pool of key/value pages, and the prefix tree over those that are complete.
//!
//! A page is in one of three states:
//!
//! ```text
//!            take                  insert
//!   Free ------------> Owned ------------------> Cached { holds }
//!     ^   give           |                            |
//!     +------------------+       evicted, holds = 0   |
//!     +-----------------------------------------------+
//! ```
//!
//! The tree has one node for each cached page: a block of `page_len` tokens below the block before
//! it. A node is named by its page, so that the pool bounds the tree's memory. A node is found by
//! its real tokens, compared one by one; no hash is trusted. Nothing recurses: a deep tree costs
//! no stack.
//!
//! Every table that names a cached page holds it, and with it every page before: so a node is held
//! at least as often as any child, and what nobody holds can be evicted from the leaves up. The
//! leaf that was let go longest ago goes first.
//!
//! Not here: which pages a sequence needs, and when (`scheduler`).

mod tree;

use std::collections::{BTreeMap, BTreeSet};

use crate::ask::{CallerId, PrefixKey};
use crate::batch::{PageId, to_u32};
use tree::{Node, Parent};

/// Within which prefixes are found: what computes them, and whose they are (nobody's, if shared).
pub(crate) type Scope = (PrefixKey, Option<CallerId>);

#[derive(Clone, Debug)]
enum State {
    Free,
    Owned,
    Cached(Node),
}

/// All pages, by what became of them.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    page_len: usize,
    states: Vec<State>,
    /// The last freed is taken first: it is the likeliest to be warm.
    free: Vec<PageId>,
    /// The tokens of each cached page, at `page * page_len`.
    tokens: Vec<u32>,
    /// First blocks, in the order of their tokens.
    roots: BTreeMap<Scope, Vec<PageId>>,
    /// Cached pages that nobody holds and that have no child, the oldest first.
    leaves: BTreeSet<(u64, PageId)>,
    /// Cached pages, and those of them that nobody holds.
    cached: usize,
    unheld: usize,
    /// Counts the times that a page was let go: the order of eviction.
    ticks: u64,
}

/// Pages by state. `owned + held + unheld + free` is the size of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub free: usize,
    pub owned: usize,
    pub held: usize,
    pub unheld: usize,
}

/// What became of a complete page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// It is cached now, and held once.
    New,
    /// The tree has these tokens already, in this page: it is held once more, ours is free.
    Twin(PageId),
}

impl Pages {
    pub(crate) fn new(page_len: u32, page_count: u32) -> Self {
        let (page_len, count) = (page_len as usize, page_count as usize);
        Self {
            page_len,
            states: vec![State::Free; count],
            free: (0..page_count).rev().map(PageId).collect(),
            tokens: vec![0; page_len * count],
            roots: BTreeMap::new(),
            leaves: BTreeSet::new(),
            cached: 0,
            unheld: 0,
            ticks: 0,
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let (free, unheld) = (self.free.len(), self.unheld);
        let owned = self.states.len() - free - self.cached;
        Counts { free, owned, held: self.cached - unheld, unheld }
    }

    /// Pages that `take` can give before it fails.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.unheld
    }

    /// A page to write to: a free one, otherwise the cached one let go longest ago.
    pub(crate) fn take(&mut self) -> Option<PageId> {
        let page = match self.free.pop() {
            Some(page) => page,
            None => self.evict()?,
        };
        self.states[page.index()] = State::Owned;
        Some(page)
    }

    /// Gives back a page that was taken and never inserted.
    pub(crate) fn give(&mut self, page: PageId) {
        debug_assert!(matches!(self.states[page.index()], State::Owned), "owned: {page}");
        self.states[page.index()] = State::Free;
        self.free.push(page);
    }

    /// Holds a cached page against eviction. Its parent is held already, or held next.
    pub(crate) fn hold(&mut self, page: PageId) {
        let (is_first, stamp) = {
            let node = self.node_mut(page);
            node.holds += 1;
            (node.holds == 1, node.stamp)
        };
        if is_first {
            self.unheld -= 1;
            self.leaves.remove(&(stamp, page));
        }
    }

    /// Lets go of a cached page. Children go before their parents, so that a parent is younger.
    pub(crate) fn let_go(&mut self, page: PageId) {
        self.ticks += 1;
        let ticks = self.ticks;
        let node = self.node_mut(page);
        node.holds -= 1;
        if node.holds > 0 {
            return;
        }
        node.stamp = ticks;
        let is_leaf = node.children.is_empty();
        self.unheld += 1;
        if is_leaf {
            self.leaves.insert((ticks, page));
        }
    }

    /// Takes the leaf that was let go longest ago out of the tree.
    fn evict(&mut self) -> Option<PageId> {
        let (_, page) = self.leaves.pop_first()?;
        let state = std::mem::replace(&mut self.states[page.index()], State::Free);
        let State::Cached(node) = state else {
            unreachable!("leaves are cached pages");
        };
        self.cached -= 1;
        self.unheld -= 1;
        match node.parent {
            Parent::Page(parent) => {
                let at = self.position(&self.node(parent).children, self.block(page));
                let parent_node = self.node_mut(parent);
                if let Ok(at) = at {
                    parent_node.children.remove(at);
                }
                if parent_node.children.is_empty() && parent_node.holds == 0 {
                    let stamp = parent_node.stamp;
                    self.leaves.insert((stamp, parent));
                }
            }
            Parent::Root(scope) => self.remove_root(&scope, page),
        }
        Some(page)
    }

    fn remove_root(&mut self, scope: &Scope, page: PageId) {
        let Some(children) = self.roots.get(scope) else { return };
        let at = self.position(children, self.block(page));
        if let (Ok(at), Some(children)) = (at, self.roots.get_mut(scope)) {
            children.remove(at);
            if children.is_empty() {
                self.roots.remove(scope);
            }
        }
    }

    fn node(&self, page: PageId) -> &Node {
        match &self.states[page.index()] {
            State::Cached(node) => node,
            State::Free | State::Owned => unreachable!("page {page} is in the tree"),
        }
    }

    fn node_mut(&mut self, page: PageId) -> &mut Node {
        match &mut self.states[page.index()] {
            State::Cached(node) => node,
            State::Free | State::Owned => unreachable!("page {page} is in the tree"),
        }
    }

    /// Recounts everything from nothing: `holds` says how often tables name each page, `owned`
    /// which pages they own. `Err` names the first disagreement.
    pub(crate) fn audit(&self, holds: &[u32], owned: &[bool]) -> Result<(), String> {
        let (mut cached, mut unheld, mut free) = (0, 0, 0);
        for (page, state) in (0..).map(PageId).zip(&self.states) {
            let (want_holds, is_owned) = (holds[page.index()], owned[page.index()]);
            let is_right = match state {
                State::Free => {
                    free += 1;
                    want_holds == 0 && !is_owned
                }
                State::Owned => want_holds == 0 && is_owned,
                State::Cached(node) => {
                    cached += 1;
                    unheld += usize::from(node.holds == 0);
                    let is_leaf = node.holds == 0 && node.children.is_empty();
                    let is_listed = self.leaves.contains(&(node.stamp, page));
                    want_holds == node.holds
                        && !is_owned
                        && is_leaf == is_listed
                        && self.is_linked(page, node)
                }
            };
            if !is_right {
                return Err(format!(
                    "page {page}: {state:?}, {want_holds} holds, {is_owned} owned"
                ));
            }
        }
        let mut listed = self.free.clone();
        listed.sort_unstable();
        listed.dedup();
        if (cached, unheld, free, listed.len()) != (self.cached, self.unheld, free, free)
            || self.free.len() != free
        {
            return Err(format!("counted {cached} cached, {unheld} unheld, {free} free pages"));
        }
        Ok(())
    }

    /// Whether a node's parent lists it, and holds as much as it does.
    fn is_linked(&self, page: PageId, node: &Node) -> bool {
        match &node.parent {
            Parent::Page(parent) => {
                let parent = self.node(*parent);
                parent.holds >= node.holds && parent.children.contains(&page)
            }
            Parent::Root(scope) => self.roots.get(scope).is_some_and(|it| it.contains(&page)),
        }
    }

    /// The slots of a page's tokens.
    fn block_range(&self, page: PageId) -> std::ops::Range<usize> {
        let start = page.index() * self.page_len;
        start..start + self.page_len
    }

    fn block(&self, page: PageId) -> &[u32] {
        &self.tokens[self.block_range(page)]
    }

    /// Pages of the pool.
    pub(crate) fn page_count(&self) -> u32 {
        to_u32(self.states.len())
    }
}
