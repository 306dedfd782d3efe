//! What is under way: asks to peers, and the targets that their answers become.

use std::ops::Range;

use commons_port::blobs::{CV_LEN, GROUP_PIECES, PIECE_LEN};
use commons_record::PeerId;

use super::peer::Holds;
use super::{Bitmap, Ctx, Evidence, Fetch, GAPS_MAX, Lost, Output, Part, RefuseCode, Target};
use crate::wire::AskId;

/// A peer that refused something is not asked for it again for so long.
const REFUSED_MS: u64 = 10_000;

/// A peer that says it is busy is left alone at least so long.
const BUSY_MS: u64 = 250;

/// Pieces that are copied from other blobs at a time.
const FILLS_MAX: usize = 4;

/// One ask that a peer owes.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) id: AskId,
    pub(super) peer: PeerId,
    pub(super) target: Target,
    /// Where in the target.
    start: u32,
    len: u32,
    /// Of the budget: nothing where the bytes go into a piece that holds its own share.
    cost: u64,
    pub(super) asked_at: u64,
    /// Nothing else was asked of the peer then.
    was_alone: bool,
    /// Bytes that came.
    seen: u32,
}

impl Ask {
    pub(super) const fn start(&self) -> u32 {
        self.start
    }

    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    pub(super) const fn range(&self) -> Range<u32> {
        self.start..self.start + self.len
    }

    /// Whether both ask for the same bytes.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.target, self.start) == (other.target, other.start)
    }
}

/// A target that is under way.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) target: Target,
    pub(super) state: OpenState,
    pub(super) gaps: Vec<Gap>,
    /// Some of it is local bytes.
    pub(super) is_mixed: bool,
    /// Bytes of the budget that it holds, those of its asks aside.
    cost: u64,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenState {
    /// Local bytes are copied.
    Filling,
    /// Peers owe some of it.
    Asking,
    /// The store looks at it.
    Checking,
}

/// A stretch of a target that peers bring.
#[derive(Debug, Clone)]
pub(super) struct Gap {
    pub(super) range: Range<u32>,
    /// Who brought it.
    pub(super) from: Option<PeerId>,
}

impl Fetch {
    /// Bytes of a target.
    pub(super) fn target_len(&self, target: Target) -> u32 {
        let cvs = |count: u64| u32::try_from(count * CV_LEN as u64).unwrap_or(u32::MAX);
        match target {
            Target::Top => cvs(self.pages.len()),
            Target::Page(group) => {
                let first = group.saturating_mul(GROUP_PIECES);
                cvs(self.pieces.saturating_sub(first).min(GROUP_PIECES))
            }
            Target::Piece(piece) => self.piece_len(piece),
        }
    }

    /// Opens a target and asks this peer for all of it; whether there was room for that.
    pub(super) fn open(&mut self, target: Target, id: PeerId, ctx: &mut Ctx<'_>) -> bool {
        let len = self.target_len(target);
        if !self.take(u64::from(len), ctx.budget) {
            return false;
        }
        self.begin(target);
        let gaps = vec![Gap { range: 0..len, from: None }];
        let state = OpenState::Asking;
        self.opens.push(Open { target, state, gaps, is_mixed: false, cost: 0 });
        self.send((target, 0..len), id, u64::from(len), ctx);
        true
    }

    /// The one piece of an empty blob needs no peer.
    pub(super) fn open_empty(&mut self, ctx: &mut Ctx<'_>) {
        let target = Target::Piece(0);
        self.begin(target);
        let (state, gaps) = (OpenState::Checking, Vec::new());
        self.opens.push(Open { target, state, gaps, is_mixed: false, cost: 0 });
        ctx.out.push(Output::Put(target));
    }

    /// Whether one more piece can be copied from other blobs.
    pub(super) fn can_fill(&self) -> bool {
        self.opens.iter().filter(|it| it.is_mixed).count() < FILLS_MAX
    }

    /// Opens a piece whose bytes are held here in part or whole; whether there was room for that.
    pub(super) fn open_local(&mut self, piece: u64, ctx: &mut Ctx<'_>) -> bool {
        let cost = u64::from(self.piece_len(piece));
        if !self.can_fill() || !self.take(cost, ctx.budget) {
            return false;
        }
        let target = Target::Piece(piece);
        self.begin(target);
        let (state, gaps) = (OpenState::Filling, Vec::new());
        self.opens.push(Open { target, state, gaps, is_mixed: true, cost });
        ctx.out.push(Output::Fill { piece });
        true
    }

    fn begin(&mut self, target: Target) {
        if let Target::Piece(piece) = target {
            self.todo.clear(piece);
        }
    }

    /// Asks a peer for a gap that was not asked for; whether there was room for that.
    pub(super) fn ask_gap(
        &mut self,
        target: Target,
        range: Range<u32>,
        id: PeerId,
        ctx: &mut Ctx<'_>,
    ) -> bool {
        let is_mixed = self.opens.iter().any(|it| it.target == target && it.is_mixed);
        let cost = if is_mixed { 0 } else { u64::from(range.end - range.start) };
        let is_taken = self.take(cost, ctx.budget);
        if is_taken {
            self.send((target, range), id, cost, ctx);
        }
        is_taken
    }

    /// The ask's bytes are taken from the budget already.
    fn send(
        &mut self,
        (target, range): (Target, Range<u32>),
        id: PeerId,
        cost: u64,
        ctx: &mut Ctx<'_>,
    ) {
        let ask = AskId(self.next_ask);
        self.next_ask = self.next_ask.wrapping_add(1);
        let was_alone = self.peer(id).is_some_and(|peer| peer.asked(ctx.now));
        let len = range.end - range.start;
        let part = match target {
            Target::Top => Part::Top,
            Target::Page(group) => Part::Page { group },
            Target::Piece(piece) => {
                let offset = piece * u64::from(PIECE_LEN) + u64::from(range.start);
                Part::Bytes { offset, len }
            }
        };
        self.asks.push(Ask {
            id: ask,
            peer: id,
            target,
            start: range.start,
            len,
            cost,
            asked_at: ctx.now,
            was_alone,
            seen: 0,
        });
        ctx.out.push(Output::Ask { peer: id, ask, part });
    }

    pub(super) fn progressed(&mut self, id: PeerId, ask: AskId, bytes: u32, ctx: &Ctx<'_>) {
        let Some(ask) = self.asks.iter_mut().find(|it| it.id == ask && it.peer == id) else {
            return;
        };
        let new = bytes.min(ask.len - ask.seen);
        ask.seen += new;
        if let Some(peer) = self.peer(id) {
            peer.heard(ctx.now, u64::from(new));
        }
    }

    /// An answer came. One that nobody waits for is no fault: its cancellation crossed it.
    pub(super) fn data(&mut self, id: PeerId, ask: AskId, len: u32, ctx: &mut Ctx<'_>) {
        let Some(at) = self.asks.iter().position(|it| it.id == ask && it.peer == id) else {
            return;
        };
        let asked = self.asks[at].len;
        if len != asked {
            self.ban(id, Evidence::WrongLength { asked, sent: len }, ctx);
            return;
        }
        let ask = self.asks.remove(at);
        if let Some(peer) = self.peer(id) {
            peer.heard(ctx.now, u64::from(ask.len - ask.seen));
            peer.ended(ctx.now);
            if matches!(ask.target, Target::Piece(_)) {
                peer.answered(ctx.now.saturating_sub(ask.asked_at), ask.was_alone);
            }
        }
        self.place(&ask, ctx);
    }

    fn place(&mut self, ask: &Ask, ctx: &mut Ctx<'_>) {
        let Ask { target, start, cost, .. } = *ask;
        let Some(open) = self.opens.iter_mut().find(|it| it.target == target) else {
            return self.give(cost, ctx.budget);
        };
        if let Some(gap) = open.gaps.iter_mut().find(|it| it.range.start == start) {
            gap.from = Some(ask.peer);
        }
        ctx.out.push(Output::Place { ask: ask.id, target, start });
        let is_complete = open.gaps.iter().all(|it| it.from.is_some());
        if is_complete {
            open.state = OpenState::Checking;
        }
        open.cost += cost;
        self.cancel_asks(ctx, |it| it.target == target && it.start == start);
        if is_complete {
            ctx.out.push(Output::Put(target));
        }
    }

    /// Cancels asks whose answers are not wanted any more.
    fn cancel_asks(&mut self, ctx: &mut Ctx<'_>, mut is_over: impl FnMut(&Ask) -> bool) {
        while let Some(at) = self.asks.iter().position(&mut is_over) {
            let ask = self.asks.remove(at);
            self.give(ask.cost, ctx.budget);
            if let Some(peer) = self.peer(ask.peer) {
                peer.ended(ctx.now);
            }
            ctx.out.push(Output::Cancel { peer: ask.peer, ask: ask.id });
        }
    }

    pub(super) fn refused(
        &mut self,
        (id, ask): (PeerId, AskId),
        code: RefuseCode,
        retry_after_ms: Option<u64>,
        ctx: &mut Ctx<'_>,
    ) {
        let Some(at) = self.asks.iter().position(|it| it.id == ask && it.peer == id) else {
            return;
        };
        let ask = self.asks.remove(at);
        self.give(ask.cost, ctx.budget);
        let (target, pieces) = (ask.target, self.pieces);
        let retry = retry_after_ms.unwrap_or(0);
        if let Some(peer) = self.peer(id) {
            peer.ended(ctx.now);
            match code {
                RefuseCode::Busy => peer.failed(ctx.now, retry.max(BUSY_MS)),
                RefuseCode::NotYet | RefuseCode::OutOfRange | RefuseCode::Broken => {
                    peer.refuses(target, ctx.now + retry.max(REFUSED_MS));
                    peer.failed(ctx.now, 0);
                    if let (Target::Piece(piece), Holds::Some(bits)) = (target, &mut peer.holds) {
                        bits.clear(piece);
                    }
                }
                // It gives nothing of this blob, until it says otherwise.
                RefuseCode::NotHeld
                | RefuseCode::NotAMember
                | RefuseCode::Policy
                | RefuseCode::ShuttingDown => {
                    peer.failed(ctx.now, retry);
                    peer.holds = match peer.holds {
                        Holds::Some(_) => Holds::Some(Bitmap::empty(pieces)),
                        _ => Holds::Nothing,
                    };
                }
            }
        }
        self.reopen(target, ctx);
        self.version += 1;
        self.lose_asks_not_held(id, ctx);
    }

    /// A peer's asks go back to be asked of others.
    pub(super) fn lose_asks(&mut self, id: PeerId, lost: Lost, ctx: &mut Ctx<'_>) {
        self.lose(lost, ctx, |it| it.peer == id);
    }

    /// A peer holds less than it did: what it cannot bring any more goes to others.
    pub(super) fn lose_asks_not_held(&mut self, id: PeerId, ctx: &mut Ctx<'_>) {
        let Some(peer) = self.peers.iter().find(|it| it.id == id) else { return };
        let holds = peer.holds.clone();
        self.lose(Lost::Told, ctx, |it| {
            it.peer == id
                && match it.target {
                    Target::Piece(piece) => !holds.has(piece),
                    Target::Top | Target::Page(_) => holds.is_nothing(),
                }
        });
    }

    fn lose(&mut self, lost: Lost, ctx: &mut Ctx<'_>, mut is_lost: impl FnMut(&Ask) -> bool) {
        while let Some(at) = self.asks.iter().position(&mut is_lost) {
            let ask = self.asks.remove(at);
            self.give(ask.cost, ctx.budget);
            if let Some(peer) = self.peer(ask.peer) {
                peer.ended(ctx.now);
            }
            if lost == Lost::Told {
                ctx.out.push(Output::Cancel { peer: ask.peer, ask: ask.id });
            }
            self.reopen(ask.target, ctx);
            self.version += 1;
        }
    }

    /// An ask for this target was lost. If nobody else owes any of it, it goes back.
    pub(super) fn reopen(&mut self, target: Target, ctx: &mut Ctx<'_>) {
        if self.asks.iter().any(|it| it.target == target) {
            return;
        }
        let at = self.opens.iter().position(|it| it.target == target);
        if let Some(at) = at.filter(|at| self.opens[*at].state == OpenState::Asking) {
            self.forget(at, ctx);
        }
    }

    /// Drops a target that is under way, and what came of it.
    fn forget(&mut self, at: usize, ctx: &mut Ctx<'_>) {
        let open = self.opens.swap_remove(at);
        self.give(open.cost, ctx.budget);
        ctx.out.push(Output::Forget(open.target));
        self.put_back(open.target);
    }

    pub(super) fn put_back(&mut self, target: Target) {
        if let Target::Piece(piece) = target
            && !self.held.has(piece)
        {
            self.todo.set(piece);
        }
        self.version += 1;
    }

    /// Takes a target out that the store has looked at, and gives its bytes back.
    pub(super) fn close(&mut self, target: Target, ctx: &mut Ctx<'_>) -> Option<Open> {
        let is_it = |it: &Open| it.target == target && it.state == OpenState::Checking;
        let at = self.opens.iter().position(is_it)?;
        let open = self.opens.swap_remove(at);
        self.give(open.cost, ctx.budget);
        Some(open)
    }

    pub(super) fn filled(&mut self, piece: u64, gaps: Vec<Range<u32>>, ctx: &mut Ctx<'_>) {
        let target = Target::Piece(piece);
        let len = self.piece_len(piece);
        let is_it = |it: &&mut Open| it.target == target && it.state == OpenState::Filling;
        let Some(open) = self.opens.iter_mut().find(is_it) else { return };
        let mut end = 0;
        let is_good = gaps.len() <= GAPS_MAX
            && gaps.iter().all(|gap| {
                let follows = gap.start >= end && gap.start < gap.end && gap.end <= len;
                end = gap.end;
                follows
            })
            && gaps.first() != Some(&(0..len));
        if !is_good {
            return self.fill_failed(piece, ctx);
        }
        open.gaps = gaps.into_iter().map(|range| Gap { range, from: None }).collect();
        open.state = OpenState::Asking;
        if open.gaps.is_empty() {
            open.state = OpenState::Checking;
            ctx.out.push(Output::Put(target));
        }
        self.version += 1;
    }

    pub(super) fn fill_failed(&mut self, piece: u64, ctx: &mut Ctx<'_>) {
        let is_it = |it: &Open| it.target == Target::Piece(piece) && it.state == OpenState::Filling;
        self.not_local(piece);
        if let Some(at) = self.opens.iter().position(is_it) {
            self.forget(at, ctx);
        }
    }

    /// This piece is fetched whole from now on.
    pub(super) fn not_local(&mut self, piece: u64) {
        for local in [&mut self.local_whole, &mut self.local_part].into_iter().flatten() {
            local.clear(piece);
        }
    }

    pub(super) fn checked(&mut self, target: Target, is_right: bool, ctx: &mut Ctx<'_>) {
        let Some(open) = self.close(target, ctx) else { return };
        self.version += 1;
        if !is_right {
            return self.blame(open, ctx);
        }
        match target {
            Target::Top => self.has_top = true,
            Target::Page(group) => {
                self.pages.set(group);
            }
            Target::Piece(piece) => {
                self.held.set(piece);
                self.not_local(piece);
                self.compare(piece, ctx);
            }
        }
    }

    pub(super) fn store_failed(&mut self, target: Target, message: String, ctx: &mut Ctx<'_>) {
        if self.close(target, ctx).is_some() {
            self.put_back(target);
        }
        self.store_failure = Some(message);
        self.cancel_all(ctx);
    }

    /// Takes every ask back. What the store looks at goes on.
    pub(super) fn cancel_all(&mut self, ctx: &mut Ctx<'_>) {
        self.lose(Lost::Told, ctx, |_| true);
        while let Some(at) = self.opens.iter().position(|it| it.state != OpenState::Checking) {
            self.forget(at, ctx);
        }
    }

    /// Gives back everything.
    pub(super) fn drop_all(&mut self, ctx: &mut Ctx<'_>) {
        self.cancel_all(ctx);
        self.opens.clear();
        self.suspects.clear();
        let all = self.taken;
        self.give(all, ctx.budget);
    }

    /// Peers that bring nothing in time lose what they owe, and rest.
    pub(super) fn expire(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now;
        let is_late = |at: Option<u64>| at.is_some_and(|at| at <= now);
        let late: Vec<_> =
            self.peers.iter().filter(|it| is_late(it.deadline())).map(|it| it.id).collect();
        for id in late {
            self.lose_asks(id, Lost::Told, ctx);
            if let Some(peer) = self.peer(id) {
                peer.failed(now, 0);
            }
        }
    }
}
