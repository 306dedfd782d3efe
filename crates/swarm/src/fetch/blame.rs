//! What proved wrong, and whose fault that is.
//!
//! The sole sender of a wrong piece lied. Where a piece was put together from several senders, or
//! from local bytes that a recipe named, its bytes are kept, the piece is fetched again whole from
//! one peer, and the two are compared: so nobody is blamed for what another one sent (Rule S14).

use std::collections::BTreeSet;
use std::ops::Range;

use commons_record::PeerId;

use super::work::{Gap, Open};
use super::{BANNED_MAX, Ctx, Evidence, Fetch, Lost, Output, Target};

/// Wrong pieces that are kept for comparison at a time.
const SUSPECTS_MAX: usize = 4;

/// A wrong piece that waits for the right one.
#[derive(Debug)]
pub(super) struct Suspect {
    piece: u64,
    gaps: Vec<Gap>,
    /// What lies between the gaps: local bytes.
    local: Vec<Range<u32>>,
    /// Of the budget.
    cost: u64,
    is_asked: bool,
}

impl Fetch {
    /// A target was wrong.
    pub(super) fn blame(&mut self, open: Open, ctx: &mut Ctx<'_>) {
        let target = open.target;
        self.put_back(target);
        let senders: BTreeSet<PeerId> = open.gaps.iter().filter_map(|it| it.from).collect();
        if let (Some(sender), 1, false) = (senders.first(), senders.len(), open.is_mixed) {
            return self.ban(*sender, Evidence::WrongBytes(target), ctx);
        }
        let Target::Piece(piece) = target else { return };
        // The next try is whole and from one peer, so it cannot come here again.
        self.not_local(piece);
        if senders.is_empty() {
            return self.distrust(ctx);
        }
        let len = u64::from(self.piece_len(piece));
        let kept: u64 = self.suspects.iter().map(|it| it.cost).sum();
        // What is kept must leave room to fetch the right one, for all fetches.
        let has_room = self.suspects.len() < SUSPECTS_MAX && kept + len <= ctx.budget.share() / 8;
        if !has_room || !self.take(len, ctx.budget) {
            return self.distrust(ctx);
        }
        let local = between(&open.gaps, self.piece_len(piece));
        let suspect = Suspect { piece, gaps: open.gaps, local, cost: len, is_asked: false };
        self.suspects.push(suspect);
        ctx.out.push(Output::Retain { piece });
    }

    /// Whether a wrong piece with local bytes waits for judgement: until then nothing is copied.
    pub(super) fn doubts_recipe(&self) -> bool {
        self.suspects.iter().any(|it| !it.local.is_empty())
    }

    /// A piece is right: if a wrong one was kept, they are compared.
    pub(super) fn compare(&mut self, piece: u64, ctx: &mut Ctx<'_>) {
        let Some(suspect) = self.suspects.iter_mut().find(|it| it.piece == piece) else { return };
        suspect.is_asked = true;
        let gaps = suspect.gaps.iter().map(|it| it.range.clone());
        let ranges = gaps.chain(suspect.local.iter().cloned()).collect();
        ctx.out.push(Output::Compare { piece, ranges });
    }

    /// Which ranges of a kept piece differ from the right one.
    pub(super) fn compared(&mut self, piece: u64, differs: &[bool], ctx: &mut Ctx<'_>) {
        let is_it = |it: &Suspect| it.piece == piece && it.is_asked;
        let Some(at) = self.suspects.iter().position(is_it) else { return };
        let suspect = self.suspects.swap_remove(at);
        self.give(suspect.cost, ctx.budget);
        let (sent, local) = differs.split_at(suspect.gaps.len().min(differs.len()));
        let wrong = suspect.gaps.iter().zip(sent).filter(|(_, differs)| **differs);
        let liars: BTreeSet<PeerId> = wrong.filter_map(|(gap, _)| gap.from).collect();
        for liar in liars {
            self.ban(liar, Evidence::WrongBytes(Target::Piece(piece)), ctx);
        }
        if local.contains(&true) {
            self.distrust(ctx);
        }
        self.version += 1;
    }

    fn distrust(&mut self, ctx: &mut Ctx<'_>) {
        if self.local_whole.is_some() || self.local_part.is_some() {
            (self.local_whole, self.local_part) = (None, None);
            ctx.out.push(Output::DistrustRecipe);
        }
    }

    /// Nothing is asked of this peer again.
    pub(super) fn ban(&mut self, id: PeerId, evidence: Evidence, ctx: &mut Ctx<'_>) {
        if self.banned.contains(&id) {
            return;
        }
        if self.banned.len() == BANNED_MAX {
            self.banned.pop_first();
        }
        self.banned.insert(id);
        self.lose_asks(id, Lost::Stream, ctx);
        self.peers.retain(|it| it.id != id);
        ctx.out.push(Output::Ban { peer: id, evidence });
        self.version += 1;
    }
}

/// What lies outside the gaps.
fn between(gaps: &[Gap], len: u32) -> Vec<Range<u32>> {
    let mut found = Vec::new();
    let mut end = 0;
    for gap in gaps {
        found.push(end..gap.range.start);
        end = gap.range.end;
    }
    found.push(end..len);
    found.retain(|it| !it.is_empty());
    found
}
