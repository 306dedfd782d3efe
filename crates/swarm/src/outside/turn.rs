//! Which of several nodes takes a file from outside, so that one copy is fetched.
//!
//! All members that want a file say so to each other, and how much of it they have. Rendezvous
//! hashing over file and member gives all of them the same order without a word; the first in it
//! fetches. One that makes no progress loses its turn to the next. (Thaler and Ravishankar, "A
//! Name-Based Mapping Scheme for Rendezvous", 1996: who goes or comes moves only the files that it
//! was first for.)
//!
//! ```text
//! Want --settle--> nobody fetches -> the first in order that is not passed over: me? Fetch
//!                  somebody does  -> wait while it makes progress; two do: the later in order stops
//! ```
//!
//! # Invariants
//!
//! * O1: while no word is lost and nobody fails, exactly one member fetches.
//! * O2: two that both hear of each other's progress do not both go on: the later in order stands
//!   down.
//! * O3: while one member is left that can fetch, the file is fetched: each that makes no progress
//!   holds the others up once for [`Timing::takeover`], and the first comes again after the last.
//! * O4: a member whose progress is a lie costs time and no byte: what counts is what is beyond all
//!   that it ever had, so that it ends.
//!
//! Not here: the bytes (`pull`), how they go on from member to member (`fetch`), and the messages.
//! Whoever has the file whole says so by other means: then the turn is over ([`Input::Have`]).

use std::collections::BTreeMap;

use commons_record::{Hash, Millis, PeerId};

/// Members of one file. The files of more are fetched by the first that were heard of.
pub const MEMBERS_MAX: usize = 256;

/// How long members wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Before the first decision: a word from every member must be here by then.
    pub settle: Millis,
    /// Between two words of a member, while it wants the file.
    pub announce: Millis,
    /// A member without progress for so long loses its turn. Several words long, so that one that
    /// is lost does no harm.
    pub takeover: Millis,
    /// Fewer bytes are no progress.
    pub progress_min: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            settle: Millis::from_secs(1),
            announce: Millis::from_secs(5),
            takeover: Millis::from_secs(30),
            progress_min: 64 * 1024,
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// This node wants the file, of which it has so much.
    Want {
        /// Bytes from outside that are kept.
        kept: u64,
    },
    /// A member said that it wants the file.
    Heard {
        /// Who.
        peer: PeerId,
        /// How much of it it has from outside.
        kept: u64,
        /// Whether it is fetching.
        is_fetching: bool,
    },
    /// A member went, or wants the file no more.
    Left {
        /// Who.
        peer: PeerId,
    },
    /// This node has so much of it now.
    Kept {
        /// Bytes from outside that are kept.
        len: u64,
    },
    /// This node cannot get it from outside.
    GaveUp,
    /// The file is held here, or nobody here wants it any more.
    Have,
    /// A timer that was set, or any other.
    TimerFired,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Tell all members.
    Announce {
        /// How much of it this node has from outside.
        kept: u64,
        /// Whether it is fetching.
        is_fetching: bool,
    },
    /// Fetch it from outside: it is this node's turn.
    Fetch,
    /// Fetch no more: it is another's turn. What is kept stays.
    StandDown,
    /// Say [`Input::TimerFired`] then.
    SetTimer(Millis),
}

/// A member's place in the order for a file: the highest is first.
pub fn score(file: &Hash, peer: &PeerId) -> Hash {
    Hash::of_fields("commons/outside/turn/1", &[file.as_bytes(), peer.as_bytes()])
}

/// All members in the order for a file.
pub fn order(file: &Hash, members: impl IntoIterator<Item = PeerId>) -> Vec<PeerId> {
    let mut members: Vec<PeerId> = members.into_iter().collect();
    members.sort_by_key(|peer| (std::cmp::Reverse(score(file, peer)), *peer));
    members.dedup();
    members
}

#[derive(Debug, Clone, Copy)]
struct Member {
    score: Hash,
    is_fetching: bool,
    /// The most that it ever had.
    reached: u64,
    /// When that grew, or it began.
    progressed: Millis,
    /// It had its turn and made no progress.
    is_passed_over: bool,
}

impl Member {
    /// Notes how much it has; whether that is progress.
    fn note(&mut self, now: Millis, kept: u64, progress_min: u64) -> bool {
        let is_progress = kept >= self.reached.saturating_add(progress_min.max(1));
        if is_progress {
            (self.reached, self.progressed, self.is_passed_over) = (kept, now, false);
        }
        is_progress
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    /// Listens for other members until then.
    Settling {
        until: Millis,
    },
    Deciding,
    Over,
}

/// One file that this node and others want.
#[derive(Debug, Clone)]
pub struct Turn {
    file: Hash,
    me: PeerId,
    timing: Timing,
    state: State,
    members: BTreeMap<PeerId, Member>,
    kept: u64,
    /// Since when it has been the turn of whoever is first now and does not fetch yet.
    waiting: Option<(PeerId, Millis)>,
    announced: Millis,
}

impl Turn {
    /// A file by its [`file_key`](super::file_key).
    pub fn new(file: Hash, me: PeerId, timing: Timing) -> Self {
        let (state, members, kept) = (State::Idle, BTreeMap::new(), 0);
        Self { file, me, timing, state, members, kept, waiting: None, announced: Millis(0) }
    }

    /// Whether it is this node that fetches.
    pub fn is_mine(&self) -> bool {
        self.members.get(&self.me).is_some_and(|it| it.is_fetching)
    }

    /// Pure and total: every input has an outcome in every state.
    pub fn step(&mut self, now: Millis, input: Input) -> Vec<Output> {
        if self.state == State::Over {
            return Vec::new();
        }
        let mut outputs = Vec::new();
        match input {
            Input::Want { kept } if self.state == State::Idle => {
                self.kept = kept;
                self.meet(self.me, now);
                if let Some(me) = self.members.get_mut(&self.me) {
                    me.reached = kept;
                }
                self.state = State::Settling { until: now.saturating_add(self.timing.settle) };
                self.announce(now, &mut outputs);
            }
            Input::Heard { peer, kept, is_fetching } if peer != self.me => {
                self.heard(now, (peer, kept, is_fetching), &mut outputs);
            }
            Input::Left { peer } if peer != self.me => {
                self.members.remove(&peer);
            }
            Input::Kept { len } => self.keep(now, len, &mut outputs),
            Input::GaveUp | Input::Have => return self.over(now),
            // Asked for twice, of this node itself, or only the time.
            Input::Want { .. } | Input::Heard { .. } | Input::Left { .. } | Input::TimerFired => {}
        }
        if let State::Settling { until } = self.state
            && now >= until
        {
            self.state = State::Deciding;
        }
        if self.state == State::Deciding {
            self.decide(now, &mut outputs);
        }
        if outputs.iter().any(|it| matches!(it, Output::Fetch | Output::StandDown)) {
            self.announce(now, &mut outputs);
        }
        self.remind(now, &mut outputs);
        outputs
    }

    fn meet(&mut self, peer: PeerId, now: Millis) -> bool {
        let is_known = self.members.contains_key(&peer);
        let has_room = self.members.len() < MEMBERS_MAX || peer == self.me;
        if is_known || !has_room {
            return false;
        }
        let score = score(&self.file, &peer);
        let (is_fetching, reached, is_passed_over) = (false, 0, false);
        let member = Member { score, is_fetching, reached, progressed: now, is_passed_over };
        self.members.insert(peer, member);
        true
    }

    fn heard(
        &mut self,
        now: Millis,
        (peer, kept, is_fetching): (PeerId, u64, bool),
        outputs: &mut Vec<Output>,
    ) {
        if self.meet(peer, now) {
            // It knows as little of us. What it has already is where it begins.
            if let Some(member) = self.members.get_mut(&peer) {
                (member.reached, member.is_fetching) = (kept, is_fetching);
            }
            if self.state != State::Idle {
                self.announce(now, outputs);
            }
            return;
        }
        let Some(member) = self.members.get_mut(&peer) else { return };
        member.note(now, kept, self.timing.progress_min);
        if is_fetching && !member.is_fetching && !member.is_passed_over {
            member.progressed = now;
        }
        // One that stopped had its turn. It is heard again once it makes progress, or all had theirs.
        member.is_passed_over |= member.is_fetching && !is_fetching;
        member.is_fetching = is_fetching && !member.is_passed_over;
    }

    fn keep(&mut self, now: Millis, len: u64, outputs: &mut Vec<Output>) {
        self.kept = len;
        let progress_min = self.timing.progress_min;
        let Some(me) = self.members.get_mut(&self.me) else { return };
        let is_late = now >= self.announced.saturating_add(self.timing.announce);
        if me.note(now, len, progress_min) && is_late {
            self.announce(now, outputs);
        }
    }

    fn decide(&mut self, now: Millis, outputs: &mut Vec<Output>) {
        let takeover = self.timing.takeover;
        let is_alone = self.members.len() == 1;
        for (peer, member) in &mut self.members {
            let is_stuck = now >= member.progressed.saturating_add(takeover);
            if member.is_fetching && is_stuck && !is_alone {
                (member.is_fetching, member.is_passed_over) = (false, true);
                if *peer == self.me {
                    outputs.push(Output::StandDown);
                }
            }
        }
        let first = |is: fn(&Member) -> bool| {
            let found = self.members.iter().filter(|(_, it)| is(it));
            found.max_by_key(|(peer, it)| (it.score, std::cmp::Reverse(**peer))).map(|it| *it.0)
        };
        if let Some(leader) = first(|it| it.is_fetching) {
            self.waiting = None;
            if leader != self.me && self.is_mine() {
                self.set_fetching(now, false);
                outputs.push(Output::StandDown);
            }
            return;
        }
        let chosen = first(|it| !it.is_passed_over);
        let Some(chosen) = chosen else { return self.begin_again(now, outputs) };
        if chosen == self.me {
            self.waiting = None;
            self.set_fetching(now, true);
            outputs.push(Output::Fetch);
            return;
        }
        match self.waiting {
            Some((peer, since)) if peer == chosen => {
                if now >= since.saturating_add(takeover) {
                    if let Some(member) = self.members.get_mut(&chosen) {
                        member.is_passed_over = true;
                    }
                    self.waiting = None;
                    self.decide(now, outputs);
                }
            }
            _ => self.waiting = Some((chosen, now)),
        }
    }

    /// All had their turn: the first comes again.
    fn begin_again(&mut self, now: Millis, outputs: &mut Vec<Output>) {
        for member in self.members.values_mut() {
            member.is_passed_over = false;
        }
        if !self.members.is_empty() {
            self.decide(now, outputs);
        }
    }

    fn set_fetching(&mut self, now: Millis, is_fetching: bool) {
        if let Some(me) = self.members.get_mut(&self.me) {
            // Whoever stops is passed over by all who hear of it, and by itself.
            let is_passed_over = !is_fetching;
            (me.is_fetching, me.progressed, me.is_passed_over) = (is_fetching, now, is_passed_over);
        }
    }

    fn announce(&mut self, now: Millis, outputs: &mut Vec<Output>) {
        self.announced = now;
        // One word for each step, and the last one is true.
        outputs.retain(|it| !matches!(it, Output::Announce { .. }));
        outputs.push(Output::Announce { kept: self.kept, is_fetching: self.is_mine() });
    }

    /// Says again what stands, when it is time, and sets the timer for what comes next.
    fn remind(&mut self, now: Millis, outputs: &mut Vec<Output>) {
        if self.state == State::Idle {
            return;
        }
        if now >= self.announced.saturating_add(self.timing.announce) {
            self.announce(now, outputs);
        }
        let takeover = self.timing.takeover;
        let fetching = self.members.values().filter(|it| it.is_fetching);
        let stuck = fetching.map(|it| it.progressed.saturating_add(takeover));
        let turn = self.waiting.map(|(_, since)| since.saturating_add(takeover));
        let settled = match self.state {
            State::Settling { until } => Some(until),
            State::Idle | State::Deciding | State::Over => None,
        };
        let next = stuck.chain(turn).chain(settled).filter(|it| *it > now).min();
        let again = self.announced.saturating_add(self.timing.announce);
        outputs.push(Output::SetTimer(next.map_or(again, |it| it.min(again))));
    }

    fn over(&mut self, now: Millis) -> Vec<Output> {
        let mut outputs = Vec::new();
        if self.is_mine() {
            self.set_fetching(now, false);
            outputs.push(Output::StandDown);
            self.announce(now, &mut outputs);
        }
        self.state = State::Over;
        outputs
    }
}

#[cfg(test)]
mod tests;
