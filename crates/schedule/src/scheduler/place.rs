//! Rows and pages: who enters, who is parked, and what is cached already.

use crate::batch::{PageCopy, to_u32};
use crate::config::Caching;
use crate::pages::Inserted;

use super::Scheduler;

/// What became of a waiting sequence.
pub(super) enum Entry {
    /// It runs.
    Admitted,
    /// It waits for a row of this step that computes its next block.
    Follows,
    /// There is no row, or there are not enough pages.
    Blocked,
}

impl Scheduler {
    pub(super) fn is_caching(&self) -> bool {
        self.config.caching != Caching::Off
    }

    /// Lets a waiting sequence in if it fits, making room as rules 3 and 4 allow.
    pub(super) fn enter(&mut self, slot: u32) -> Entry {
        if self.is_still_blocked(slot) {
            return Entry::Blocked;
        }
        self.take_prefix(slot);
        if self.follows(slot) {
            self.give_pages(slot);
            self.sequences[slot].followed_at = self.step;
            return Entry::Follows;
        }
        if !self.make_room(slot) {
            self.give_pages(slot);
            let ticket = self.sequences[slot].ticket;
            self.blocked = Some((ticket, self.pages.available(), self.running.len()));
            return Entry::Blocked;
        }
        self.start(slot);
        let sequence = &mut self.sequences[slot];
        sequence.found.get_or_insert(sequence.computed);
        if sequence.todo() == 0 {
            self.sequences[slot].is_held = true; // All found, and the seed is not known.
            self.refresh(slot);
            return Entry::Follows;
        }
        Entry::Admitted
    }

    /// Whether a sequence did not fit before and nothing changed for the better: spares looking
    /// its prefix up in every step.
    fn is_still_blocked(&self, slot: u32) -> bool {
        let rows = self.running.len();
        let is_full = rows >= self.config.rows_max as usize;
        let sequence = &self.sequences[slot];
        let is_same = self.blocked.is_some_and(|(ticket, available, running)| {
            ticket == sequence.ticket && self.pages.available() <= available && rows >= running
        });
        let yields = |&it: &u32| !self.sequences[it].is_live || self.yields(it, slot);
        (is_full || is_same) && !self.running.iter().any(yields)
    }

    /// Whether a running sequence may be parked for a waiting one of a higher priority (rule 4).
    fn yields(&self, running: u32, waiting: u32) -> bool {
        let (running, waiting) = (&self.sequences[running], &self.sequences[waiting]);
        !running.is_tenured && running.planned <= 1 && running.priority > waiting.priority
    }

    /// Holds the longest cached prefix that is of use.
    fn take_prefix(&mut self, slot: u32) {
        if !self.is_caching() {
            return;
        }
        let page_len = self.config.page_len as usize;
        let sequence = &mut self.sequences[slot];
        debug_assert!(sequence.table.is_empty(), "a waiting sequence has no pages");
        let blocks = sequence.tokens[..sequence.reusable()].chunks_exact(page_len);
        let mut parent = None;
        for block in blocks {
            let Some(page) = self.pages.find(&sequence.scope, parent, block) else { break };
            self.pages.hold(page);
            sequence.table.push(page);
            parent = Some(page);
        }
        sequence.cached = sequence.table.len();
    }

    /// Parks until a row and the pages of all tokens are there, with a page to spare for each that
    /// runs. Whether they are.
    fn make_room(&mut self, slot: u32) -> bool {
        let needed = self.pages_needed(slot);
        loop {
            let rows = self.running.len();
            let has_row = rows < self.config.rows_max as usize;
            if has_row && self.pages.available() >= needed + rows {
                return true;
            }
            if let Some(idle) = self.last_idle() {
                self.park(idle);
            } else if let Some(last) = self.last_yielding(slot)
                && self.would_fit(slot)
            {
                self.park(last);
            } else {
                return false;
            }
        }
    }

    fn pages_needed(&self, slot: u32) -> usize {
        let sequence = &self.sequences[slot];
        self.config.pages_for(sequence.tokens.len()) - sequence.cached
    }

    /// The last in rank that cannot use a step.
    fn last_idle(&self) -> Option<u32> {
        self.running.iter().rev().copied().find(|&it| !self.sequences[it].is_live)
    }

    fn last_yielding(&self, slot: u32) -> Option<u32> {
        self.running.iter().rev().copied().find(|&it| self.yields(it, slot))
    }

    /// Whether there is room once all that yield are parked: nobody is parked in vain.
    fn would_fit(&self, slot: u32) -> bool {
        let (mut rows, mut available) = (self.running.len(), self.pages.available());
        for &it in &self.running {
            if self.yields(it, slot) {
                let sequence = &self.sequences[it];
                let shared = &sequence.table[..sequence.cached];
                let alone = shared.iter().filter(|&&page| self.pages.holds(page) == 1).count();
                available += sequence.table.len() - sequence.cached + alone;
                rows -= 1;
            }
        }
        let has_row = rows < self.config.rows_max as usize;
        has_row && available >= self.pages_needed(slot) + rows
    }

    /// Takes the pages, of which there are enough, and moves the sequence to the running ones.
    fn start(&mut self, slot: u32) {
        let page_len = self.config.page_len as usize;
        let needed = self.pages_needed(slot);
        // A copy holds its source for a step: only with a page more than needed.
        let source = if self.pages.available() > needed { self.copy_source(slot) } else { None };
        if let Some((page, _)) = source {
            self.pages.hold(page);
        }
        let sequence = &mut self.sequences[slot];
        for _ in 0..needed {
            let page = self.pages.take().expect("`make_room` counted the pages");
            sequence.table.push(page);
        }
        sequence.computed = sequence.cached * page_len;
        if let Some((from, len)) = source {
            let to = sequence.table[sequence.cached];
            sequence.copy = Some(PageCopy { from, to, len: to_u32(len) });
            sequence.computed += len;
        }
        sequence.charged = sequence.charged.max(sequence.computed);
        self.totals.cached += sequence.computed as u64;
        sequence.is_running = true;
        let (caller, priority, entry) =
            (sequence.caller, sequence.priority, (sequence.ticket, slot));
        self.waiting -= 1;
        let caller = &mut self.callers.slots[caller];
        caller.waiting -= 1;
        caller.line_mut(priority).remove(&entry);
        self.insert_by_rank(slot);
    }

    /// A cached page that begins as the next block does, and how far: if that is far enough.
    fn copy_source(&self, slot: u32) -> Option<(crate::PageId, usize)> {
        let Caching::On { copy_len_min } = self.config.caching else { return None };
        let page_len = self.config.page_len as usize;
        let sequence = &self.sequences[slot];
        let start = sequence.cached * page_len;
        let end = sequence.reusable().min(start + page_len);
        let len_min = (copy_len_min as usize).max(1);
        if end < start + len_min {
            return None;
        }
        let wanted = &sequence.tokens[start..end];
        let nearest = self.pages.nearest(&sequence.scope, sequence.cursor(), wanted);
        nearest.filter(|&(_, len)| len >= len_min)
    }

    /// Before a chunk: takes blocks that others computed meanwhile, or waits for one that is
    /// computed in this step. Whether there is a chunk to compute.
    pub(super) fn catch_up(&mut self, slot: u32) -> bool {
        let page_len = self.config.page_len as usize;
        let sequence = &mut self.sequences[slot];
        while self.config.caching != Caching::Off
            && sequence.computed == sequence.cached * page_len
            && sequence.computed + page_len <= sequence.reusable()
            && let block = sequence.next_block(page_len)
            && let Some(page) = self.pages.find(&sequence.scope, sequence.cursor(), block)
        {
            self.pages.hold(page);
            self.pages.give(sequence.table[sequence.cached]);
            sequence.table[sequence.cached] = page;
            sequence.cached += 1;
            sequence.computed += page_len;
            sequence.charged = sequence.charged.max(sequence.computed);
            self.totals.cached += page_len as u64;
        }
        if sequence.todo() == 0 {
            sequence.is_held = true;
            self.refresh(slot);
            return false;
        }
        if self.follows(slot) {
            self.sequences[slot].followed_at = self.step;
            return false;
        }
        true
    }

    /// Takes a page for the next token, parking idle sequences first, then from behind. Whether
    /// it got one; otherwise it was the last, and is parked itself.
    pub(super) fn grow(&mut self, slot: u32) -> bool {
        loop {
            if let Some(page) = self.pages.take() {
                self.sequences[slot].table.push(page);
                return true;
            }
            let victim = self.last_idle().or(self.running.last().copied()).unwrap_or(slot);
            self.park(victim);
            if victim == slot {
                return false;
            }
        }
    }

    /// Takes the pages of a running sequence, which waits at its old place in the order.
    fn park(&mut self, slot: u32) {
        self.running.retain(|&it| it != slot);
        self.give_pages(slot);
        let sequence = &mut self.sequences[slot];
        sequence.is_running = false;
        sequence.planned = 0;
        sequence.drafts.clear();
        self.totals.parked += 1;
        self.waiting += 1;
        let caller = &mut self.callers.slots[sequence.caller];
        caller.waiting += 1;
        if sequence.is_live {
            caller.line_mut(sequence.priority).insert((sequence.ticket, slot));
        }
    }

    /// Gives back all pages, the last first: see `Pages::let_go`.
    fn give_pages(&mut self, slot: u32) {
        let sequence = &mut self.sequences[slot];
        if let Some(copy) = sequence.copy.take() {
            self.pages.let_go(copy.from);
        }
        for page in sequence.table.drain(sequence.cached..).rev() {
            self.pages.give(page);
        }
        for page in sequence.table.drain(..).rev() {
            self.pages.let_go(page);
        }
        sequence.cached = 0;
        sequence.computed = 0;
    }

    /// Puts blocks that are complete into the tree, and gives back pages past the last token.
    pub(super) fn settle(&mut self, slot: u32) {
        let page_len = self.config.page_len as usize;
        let is_caching = self.is_caching();
        let sequence = &mut self.sequences[slot];
        while is_caching && sequence.computed >= (sequence.cached + 1) * page_len {
            let (page, parent) = (sequence.table[sequence.cached], sequence.cursor());
            let block = sequence.next_block(page_len);
            if let Inserted::Twin(twin) = self.pages.insert(&sequence.scope, parent, page, block) {
                sequence.table[sequence.cached] = twin;
            }
            sequence.cached += 1;
        }
        self.trim(slot);
    }

    /// Gives back pages past the last token: guesses that were wrong, or never computed.
    pub(super) fn trim(&mut self, slot: u32) {
        let sequence = &mut self.sequences[slot];
        let kept = self.config.pages_for(sequence.tokens.len());
        while sequence.table.len() > kept
            && let Some(page) = sequence.table.pop()
        {
            self.pages.give(page);
        }
    }

    /// Forgets a sequence.
    pub(super) fn remove(&mut self, slot: u32) {
        self.give_pages(slot);
        let Some(sequence) = self.sequences.remove(slot) else { return };
        self.by_id.remove(&sequence.id);
        let caller = &mut self.callers.slots[sequence.caller];
        if sequence.is_running {
            self.running.retain(|&it| it != slot);
        } else {
            self.waiting -= 1;
            caller.waiting -= 1;
            caller.line_mut(sequence.priority).remove(&(sequence.ticket, slot));
        }
        if sequence.is_live {
            self.callers.rest(sequence.caller);
        }
        self.callers.leave(sequence.caller);
    }

    pub(super) fn insert_by_rank(&mut self, slot: u32) {
        let rank = self.sequences[slot].rank();
        let at = self.running.partition_point(|&it| self.sequences[it].rank() < rank);
        self.running.insert(at, slot);
    }
}
