//! Which part of a blob is asked of whom next: a pure machine for one blob.
//!
//! ```text
//! PeerUp, Holdings --> pick --Ask--> peer --Data--> Place, Put --> store --Checked--> held
//!                        ^                                           |
//!                        +-------- wrong: Ban its sender ------------+
//! ```
//!
//! Near peers come before far ones, what a reader waits for before what is rare, what is rare
//! before what is not. A peer has as many asks as about two round trips of work. What it does not
//! bring in time goes to others.
//!
//! # Invariants
//!
//! * S11: nothing is asked that is held, or of a peer that does not hold it.
//! * S12: two peers are asked for the same only when nothing unasked is left, or a reader waits.
//! * S13: what is under way and in memory is never more than the budget, which all fetches share.
//! * S14: only the sole sender of bytes that proved wrong is banned.
//! * S15: equal inputs give equal outputs; the seed is an argument.
//! * Memory: a few bits for each piece, and for each of [`PEERS_MAX`] peers that hold a part.
//!
//! In reading order: [`Input`], [`Output`], [`Fetch::step`]; `peer` (rates and rests), `pick`
//! (choices), `work` (asks under way), `blame` (what was wrong), `budget`, `bits`.
//!
//! Not here: streams, files, and whether bytes are right. The store says that of each piece.

use std::collections::BTreeSet;
use std::ops::Range;

use commons_port::blobs::{Bits, GROUP_PIECES, PIECE_LEN, pieces_of};
use commons_record::{Hash, PeerId};
use serde::{Deserialize, Serialize};

use crate::wire::{AskId, Holding, RefuseCode, STRETCH_PIECES};

mod bits;
mod blame;
mod budget;
mod peer;
mod pick;
mod work;

pub use budget::{BUDGET_BYTES, Budget};

use bits::Bitmap;
use blame::Suspect;
use peer::{Holds, Peer};
use work::{Ask, Open};

/// Peers of one fetch at a time. Beyond a few dozen, more add overhead and no speed.
pub const PEERS_MAX: usize = 64;

/// Bytes for what peers hold in part: one of 10 TB takes 1.2 MB. A peer for whom there is no room
/// counts as one that holds nothing.
const HOLDS_BYTES_MAX: u64 = 16 << 20;

/// Stretches that readers wait for.
pub const PREFER_MAX: usize = 16;

/// Banned peers that one fetch remembers; the node's own list is longer.
const BANNED_MAX: usize = 1024;

/// Parts of a piece that are fetched around local bytes.
pub const GAPS_MAX: usize = 64;

/// What is asked of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The chaining values of all groups.
    Top,
    /// The chaining values of a group's pieces.
    Page {
        /// The group.
        group: u64,
    },
    /// Bytes of one piece.
    Bytes {
        /// From the blob's beginning.
        offset: u64,
        /// How many, one piece at most.
        len: u32,
    },
}

/// What the store checks and keeps as a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The chaining values of all groups.
    Top,
    /// The chaining values of this group's pieces.
    Page(u64),
    /// This piece.
    Piece(u64),
}

/// How near a peer is. The first two are local, the others outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nearness {
    /// On this machine.
    SameHost,
    /// In this network.
    Lan,
    /// Elsewhere, directly.
    Wan,
    /// Through another peer.
    Relayed,
}

impl Nearness {
    const fn is_local(self) -> bool {
        matches!(self, Self::SameHost | Self::Lan)
    }
}

/// What a fetch begins with.
#[derive(Debug, Clone)]
pub struct Spec {
    /// What is fetched.
    pub blob: Hash,
    /// Its size, as whoever named it said.
    pub size: u64,
    /// This node.
    pub me: PeerId,
    /// Breaks ties. Each node has its own, so that nodes of one network fetch different pieces.
    pub seed: u64,
    /// Pieces that are held already.
    pub held: Bits,
    /// Whether the top is held; without meaning for a blob of one group.
    pub has_top: bool,
    /// Groups whose page is held, as bits; without meaning for a blob of one piece.
    pub pages: Bits,
}

/// What happens to a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A stream to this peer stands.
    PeerUp {
        /// The peer.
        peer: PeerId,
        /// How near it is.
        near: Nearness,
    },
    /// It is gone, and what it owed with it.
    PeerDown {
        /// The peer.
        peer: PeerId,
    },
    /// A peer says what it holds; [`Input::Held`] follows for a part.
    Holdings {
        /// The peer.
        peer: PeerId,
        /// The blob's size, as the peer knows it.
        size: u64,
        /// How much it holds.
        holding: Holding,
    },
    /// A stretch of what a peer holds; see `wire::ToFetcher::Held`.
    Held {
        /// The peer.
        peer: PeerId,
        /// Which stretch.
        stretch: u32,
        /// Its bits.
        bits: Vec<u8>,
    },
    /// Pieces that a peer holds since.
    Have {
        /// The peer.
        peer: PeerId,
        /// Which.
        pieces: Vec<u64>,
    },
    /// Bytes of an answer came, and more are to come.
    Progress {
        /// From whom.
        peer: PeerId,
        /// To which ask.
        ask: AskId,
        /// How many since the last time.
        bytes: u32,
    },
    /// An answer is here as a whole.
    Data {
        /// From whom.
        peer: PeerId,
        /// To which ask.
        ask: AskId,
        /// How many bytes it has.
        len: u32,
    },
    /// A peer does not answer an ask.
    Refused {
        /// The peer.
        peer: PeerId,
        /// The ask.
        ask: AskId,
        /// Why.
        code: RefuseCode,
        /// When asking again makes sense.
        retry_after_ms: Option<u64>,
    },
    /// A piece has bytes that are held here in other blobs, says the recipe.
    Local {
        /// The piece.
        piece: u64,
        /// Whether all of it is.
        is_whole: bool,
    },
    /// Local bytes were copied, after [`Output::Fill`].
    Filled {
        /// The piece.
        piece: u64,
        /// What is still missing, in order; [`GAPS_MAX`] at most.
        gaps: Vec<Range<u32>>,
    },
    /// Local bytes could not be copied, or were not what their chunk's hash says.
    FillFailed {
        /// The piece.
        piece: u64,
    },
    /// The store checked what it was given, and keeps it if it is right.
    Checked {
        /// What.
        target: Target,
        /// Whether it is what the tree says.
        is_right: bool,
    },
    /// The store could not keep something. Nothing more is asked until [`Input::Pause`] is off.
    StoreFailed {
        /// What.
        target: Target,
        /// Why.
        message: String,
    },
    /// What [`Output::Compare`] asked for.
    Compared {
        /// The piece.
        piece: u64,
        /// For each of the ranges, whether the bytes that were kept differ from the right ones.
        differs: Vec<bool>,
    },
    /// Readers wait for these pieces, the most urgent first. Replaces what was said before.
    Prefer(Vec<Range<u64>>),
    /// Stops asking, or goes on.
    Pause(bool),
    /// Ends the fetch. What is held stays.
    Cancel,
    /// Time passed; see [`Output::Wake`].
    Tick,
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Ask this peer.
    Ask {
        /// The peer.
        peer: PeerId,
        /// The ask's name.
        ask: AskId,
        /// What.
        part: Part,
    },
    /// Tell this peer that the answer is not wanted any more, and drop it if it comes.
    Cancel {
        /// The peer.
        peer: PeerId,
        /// The ask.
        ask: AskId,
    },
    /// The answer that is here belongs at this place of this target; keep it for [`Output::Put`].
    /// An answer without this is dropped.
    Place {
        /// The ask that was answered.
        ask: AskId,
        /// What it is part of.
        target: Target,
        /// Where in it.
        start: u32,
    },
    /// Give the target, which is complete, to the store; then say [`Input::Checked`], and drop the
    /// bytes unless [`Output::Retain`] is the answer. The piece of an empty blob is put without
    /// anything placed.
    Put(Target),
    /// Forget what was placed of this.
    Forget(Target),
    /// Copy what is held of this piece's chunks; then say [`Input::Filled`].
    Fill {
        /// The piece.
        piece: u64,
    },
    /// Keep the bytes of this piece, which are wrong, for [`Output::Compare`].
    Retain {
        /// The piece.
        piece: u64,
    },
    /// The piece is right now: in which of these ranges do the kept bytes differ? They can be
    /// dropped then.
    Compare {
        /// The piece.
        piece: u64,
        /// The ranges.
        ranges: Vec<Range<u32>>,
    },
    /// The recipe led to wrong bytes. No more is copied by it.
    DistrustRecipe,
    /// This peer lied or broke the protocol; nothing is asked of it again.
    Ban {
        /// The peer.
        peer: PeerId,
        /// What shows it.
        evidence: Evidence,
    },
    /// There is no room for this peer, or no use.
    Leave {
        /// The peer.
        peer: PeerId,
    },
    /// Nothing can be asked. Said once for each reason.
    Stalled(Stall),
    /// It goes on after having stalled.
    Going,
    /// All pieces are held. The last output.
    Done,
    /// Say [`Input::Tick`] at this time.
    Wake(u64),
}

/// What shows that a peer is to be banned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// It alone sent what proved wrong.
    WrongBytes(Target),
    /// It sent another number of bytes than it was asked for.
    WrongLength {
        /// Asked for.
        asked: u32,
        /// Sent.
        sent: u32,
    },
}

/// Why nothing can be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum Stall {
    #[error("no peer that holds any of it is connected")]
    NoPeers,

    #[error("{missing} pieces are missing that no connected peer holds")]
    NobodyHas { missing: u64 },

    #[error("every peer that holds what is missing failed lately; it is asked again soon")]
    Resting,

    #[error("what was fetched could not be stored: {message}")]
    Store { message: String },

    #[error("paused")]
    Paused,
}

/// Where a fetch stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Status {
    Going,
    Stalled(Stall),
    Over,
}

/// How a fetch stands, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Pieces that are held.
    pub held: u64,
    /// Pieces in all.
    pub pieces: u64,
    /// Peers that are connected.
    pub peers: u64,
    /// Bytes per second from all peers, as each was last measured.
    pub bytes_per_s: u64,
    /// Bytes that this fetch has under way and in memory.
    pub taken: u64,
}

/// The machine. See the head of this file.
#[derive(Debug)]
pub struct Fetch {
    spec: Spec,
    pieces: u64,
    held: Bitmap,
    /// Neither held nor under way.
    todo: Bitmap,
    has_top: bool,
    pages: Bitmap,
    /// Pieces whose bytes are all held here, or some.
    local_whole: Option<Bitmap>,
    local_part: Option<Bitmap>,
    peers: Vec<Peer>,
    banned: BTreeSet<PeerId>,
    opens: Vec<Open>,
    asks: Vec<Ask>,
    suspects: Vec<Suspect>,
    prefer: Vec<Range<u64>>,
    next_ask: u32,
    /// Of the budget.
    taken: u64,
    /// Counts what may give an idle peer something to do.
    version: u64,
    status: Status,
    is_paused: bool,
    store_failure: Option<String>,
    wake_at: Option<u64>,
}

impl Fetch {
    /// A fetch that goes on from what is held.
    pub fn new(mut spec: Spec, budget: &mut Budget) -> Self {
        budget.join();
        let pieces = pieces_of(spec.size);
        let groups = pieces.div_ceil(GROUP_PIECES);
        let held = Bitmap::from_bytes(&std::mem::take(&mut spec.held).0, pieces);
        let mut todo = Bitmap::full(pieces);
        (0..pieces).filter(|piece| held.has(*piece)).for_each(|piece| {
            todo.clear(piece);
        });
        let pages = match pieces {
            1 => Bitmap::full(1),
            _ => Bitmap::from_bytes(&std::mem::take(&mut spec.pages).0, groups),
        };
        Self {
            has_top: spec.has_top || groups == 1,
            spec,
            pieces,
            held,
            todo,
            pages,
            local_whole: None,
            local_part: None,
            peers: Vec::new(),
            banned: BTreeSet::new(),
            opens: Vec::new(),
            asks: Vec::new(),
            suspects: Vec::new(),
            prefer: Vec::new(),
            next_ask: 0,
            taken: 0,
            version: 0,
            status: Status::Going,
            is_paused: false,
            store_failure: None,
            wake_at: None,
        }
    }

    /// Pure and total: every input has an outcome in every state. `now` is in milliseconds and
    /// never goes back; a repeated or late [`Input::Tick`] is harmless.
    pub fn step(&mut self, now: u64, input: Input, budget: &mut Budget) -> Vec<Output> {
        let mut out = Vec::new();
        if self.status == Status::Over {
            return out;
        }
        let ctx = &mut Ctx { now, budget, out: &mut out };
        self.take_in(input, ctx);
        if self.status != Status::Over {
            self.expire(ctx);
            self.pump(ctx);
            self.settle(ctx);
        }
        out
    }

    /// Whether it is done or was cancelled: no input has an outcome any more.
    pub fn is_over(&self) -> bool {
        self.status == Status::Over
    }

    /// How it stands.
    pub fn progress(&self) -> Progress {
        Progress {
            held: self.held.ones(),
            pieces: self.pieces,
            peers: self.peers.len() as u64,
            bytes_per_s: self.peers.iter().map(Peer::rate_per_s).sum(),
            taken: self.taken,
        }
    }

    fn take_in(&mut self, input: Input, ctx: &mut Ctx<'_>) {
        match input {
            Input::PeerUp { peer, near } => self.peer_up(peer, near, ctx),
            Input::PeerDown { peer } => self.peer_down(peer, ctx),
            Input::Holdings { peer, size, holding } => self.holdings(peer, size, holding, ctx),
            Input::Held { peer, stretch, bits } => {
                let first = u64::from(stretch).saturating_mul(STRETCH_PIECES);
                self.learn(peer, ctx, |holds| holds.set_bytes(first, &bits));
            }
            Input::Have { peer, pieces } => self.learn(peer, ctx, |holds| {
                for piece in pieces {
                    holds.set(piece);
                }
            }),
            Input::Progress { peer, ask, bytes } => self.progressed(peer, ask, bytes, ctx),
            Input::Data { peer, ask, len } => self.data(peer, ask, len, ctx),
            Input::Refused { peer, ask, code, retry_after_ms } => {
                self.refused((peer, ask), code, retry_after_ms, ctx);
            }
            Input::Local { piece, is_whole } => self.local(piece, is_whole),
            Input::Filled { piece, gaps } => self.filled(piece, gaps, ctx),
            Input::FillFailed { piece } => self.fill_failed(piece, ctx),
            Input::Checked { target, is_right } => self.checked(target, is_right, ctx),
            Input::StoreFailed { target, message } => self.store_failed(target, message, ctx),
            Input::Compared { piece, differs } => self.compared(piece, &differs, ctx),
            Input::Prefer(mut ranges) => {
                ranges.truncate(PREFER_MAX);
                self.prefer = ranges;
                self.version += 1;
            }
            Input::Pause(is_paused) => self.pause(is_paused, ctx),
            Input::Cancel => self.end(ctx),
            Input::Tick => {}
        }
    }

    fn peer_up(&mut self, id: PeerId, near: Nearness, ctx: &mut Ctx<'_>) {
        self.peer_down(id, ctx);
        if self.banned.contains(&id) || id == self.spec.me {
            ctx.out.push(Output::Leave { peer: id });
            return;
        }
        if self.peers.len() == PEERS_MAX {
            // A nearer peer takes the place of the farthest one that owes nothing.
            let farthest = self.peers.iter().filter(|it| it.asks == 0 && it.near > near);
            let Some(farthest) = farthest.max_by_key(|it| (it.near, it.id)).map(|it| it.id) else {
                ctx.out.push(Output::Leave { peer: id });
                return;
            };
            self.peer_down(farthest, ctx);
            ctx.out.push(Output::Leave { peer: farthest });
        }
        self.peers.push(Peer::new(id, near, ctx.now));
        self.version += 1;
    }

    fn peer_down(&mut self, id: PeerId, ctx: &mut Ctx<'_>) {
        let Some(at) = self.peers.iter().position(|it| it.id == id) else { return };
        self.lose_asks(id, Lost::Stream, ctx);
        self.peers.remove(at);
        self.version += 1;
    }

    fn holdings(&mut self, id: PeerId, size: u64, holding: Holding, ctx: &mut Ctx<'_>) {
        let is_other = size != self.spec.size;
        let in_maps = self.peers.iter().filter(|it| matches!(it.holds, Holds::Some(_))).count();
        let map = Bitmap::size(self.pieces);
        let has_room = (in_maps as u64 + 1).saturating_mul(map) <= HOLDS_BYTES_MAX.max(map);
        let pieces = self.pieces;
        let Some(peer) = self.peer(id) else { return };
        peer.is_fetching = holding == Holding::Fetching;
        peer.news_at = ctx.now;
        peer.idle = None;
        let is_map = matches!(peer.holds, Holds::Some(_));
        peer.holds = match holding {
            // A blob of another size is another blob, whoever is right.
            _ if is_other => Holds::Nothing,
            Holding::Whole => Holds::Whole,
            Holding::Part | Holding::Fetching if has_room || is_map => {
                Holds::Some(Bitmap::empty(pieces))
            }
            Holding::Nothing | Holding::Part | Holding::Fetching => Holds::Nothing,
        };
        self.version += 1;
        self.lose_asks_not_held(id, ctx);
    }

    /// A peer says that it holds more.
    fn learn(&mut self, id: PeerId, ctx: &Ctx<'_>, add: impl FnOnce(&mut Bitmap)) {
        let Some(peer) = self.peer(id) else { return };
        if let Holds::Some(bits) = &mut peer.holds {
            let before = bits.ones();
            add(bits);
            if bits.ones() > before {
                (peer.news_at, peer.idle) = (ctx.now, None);
            }
            if bits.is_full() {
                peer.holds = Holds::Whole;
            }
        }
    }

    fn local(&mut self, piece: u64, is_whole: bool) {
        let local = if is_whole { &mut self.local_whole } else { &mut self.local_part };
        local.get_or_insert_with(|| Bitmap::empty(self.pieces)).set(piece);
        self.version += 1;
    }

    fn pause(&mut self, is_paused: bool, ctx: &mut Ctx<'_>) {
        self.is_paused = is_paused;
        if is_paused {
            self.cancel_all(ctx);
        } else {
            self.store_failure = None;
        }
        self.version += 1;
    }

    fn end(&mut self, ctx: &mut Ctx<'_>) {
        self.cancel_all(ctx);
        self.drop_all(ctx);
        self.status = Status::Over;
        ctx.budget.leave();
    }

    fn peer(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.peers.iter_mut().find(|it| it.id == id)
    }

    fn piece_len(&self, piece: u64) -> u32 {
        let start = piece.saturating_mul(u64::from(PIECE_LEN));
        let len = self.spec.size.saturating_sub(start).min(u64::from(PIECE_LEN));
        u32::try_from(len).unwrap_or(PIECE_LEN)
    }

    fn take(&mut self, len: u64, budget: &mut Budget) -> bool {
        let is_taken = budget.take(len, self.taken);
        if is_taken {
            self.taken += len;
        }
        is_taken
    }

    fn give(&mut self, len: u64, budget: &mut Budget) {
        self.taken = self.taken.saturating_sub(len);
        budget.give(len);
    }

    /// Says where the fetch stands now, if that changed, and when to look again.
    fn settle(&mut self, ctx: &mut Ctx<'_>) {
        if self.held.is_full() {
            self.drop_all(ctx);
            self.status = Status::Over;
            ctx.budget.leave();
            ctx.out.push(Output::Done);
            return;
        }
        let status = self.stall(ctx.now).map_or(Status::Going, Status::Stalled);
        if status != self.status {
            ctx.out.push(match &status {
                Status::Stalled(stall) => Output::Stalled(stall.clone()),
                _ => Output::Going,
            });
            self.status = status;
        }
        let wake = self.next_wake(ctx.now);
        let is_past = self.wake_at.is_some_and(|at| at <= ctx.now);
        if let Some(at) = wake
            && (is_past || self.wake_at.is_none_or(|before| at < before))
        {
            self.wake_at = Some(at);
            ctx.out.push(Output::Wake(at));
        } else if is_past {
            self.wake_at = None;
        }
    }

    fn stall(&self, now: u64) -> Option<Stall> {
        if let Some(message) = &self.store_failure {
            return Some(Stall::Store { message: message.clone() });
        }
        if self.is_paused {
            return Some(Stall::Paused);
        }
        if !self.opens.is_empty() {
            return None;
        }
        let mut holders = self.peers.iter().filter(|it| !it.holds.is_nothing()).peekable();
        if holders.peek().is_none() {
            return Some(Stall::NoPeers);
        }
        let can_give = |peer: &Peer| {
            (0..self.todo.words()).any(|at| self.todo.word(at) & peer.holds.word(at) != 0)
        };
        let mut givers = holders.filter(|it| can_give(it)).peekable();
        if givers.peek().is_none() {
            return Some(Stall::NobodyHas { missing: self.todo.ones() });
        }
        givers.all(|it| it.rests(now)).then_some(Stall::Resting)
    }

    fn next_wake(&self, now: u64) -> Option<u64> {
        let deadlines = self.peers.iter().filter_map(Peer::deadline);
        let rests = self.peers.iter().filter_map(|it| it.rest_ends(now));
        let is_owed = !self.todo.is_empty() || !self.asks.is_empty();
        let idle = self.peers.iter().any(|it| it.has_room(now)) && is_owed && !self.is_paused;
        let look = idle.then_some(now + LOOK_AGAIN_MS);
        deadlines.chain(rests).chain(look).min().map(|at| at.max(now + 1))
    }
}

/// A peer with nothing to do is looked at again after this: others may have fallen behind.
const LOOK_AGAIN_MS: u64 = 500;

/// Why a peer's asks are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// There is no stream to say so.
    Stream,
    /// The peer is told.
    Told,
}

/// What a step has at hand.
struct Ctx<'a> {
    now: u64,
    budget: &'a mut Budget,
    out: &'a mut Vec<Output>,
}

#[cfg(test)]
mod tests;
