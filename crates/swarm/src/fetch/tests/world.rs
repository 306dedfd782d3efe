//! One fetch and made-up peers, in virtual time from one seed. No bytes: what is wrong is marked.
//!
//! The world checks every rule of `fetch.rs` at every output, from what it knows itself.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;

/// How a peer behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Honest,
    /// Every piece whose index this divides is wrong.
    LiesEvery(u64),
    /// Holds all and answers nothing.
    Silent,
    /// Holds all and refuses all.
    Refuses(RefuseCode),
    /// Sends a byte too few.
    Short,
}

#[derive(Debug, Clone)]
pub(super) struct Other {
    pub(super) id: PeerId,
    pub(super) near: Nearness,
    pub(super) manner: Manner,
    pub(super) has: BTreeSet<u64>,
    /// Milliseconds there and back.
    pub(super) round_trip: u64,
    /// Bytes per millisecond.
    pub(super) rate: u64,
    /// When it has sent all that it owes.
    pub(super) busy_until: u64,
    pub(super) is_up: bool,
}

pub(super) struct World {
    pub(super) now: u64,
    pub(super) size: u64,
    pub(super) fetch: Fetch,
    pub(super) budget: Budget,
    pub(super) others: BTreeMap<PeerId, Other>,
    pub(super) held: BTreeSet<u64>,
    /// The recipe: pieces with local bytes, which bytes those are, and whether they are right.
    pub(super) local: BTreeMap<u64, (Range<u32>, bool)>,
    pub(super) asks: BTreeMap<(PeerId, AskId), (Part, u64)>,
    placed: BTreeMap<Target, BTreeMap<u32, (u32, bool)>>,
    retained: BTreeMap<u64, BTreeMap<u32, (u32, bool)>>,
    /// What the store has just found wrong.
    wrong: BTreeMap<u64, BTreeMap<u32, (u32, bool)>>,
    last_answer: Option<(u32, bool)>,
    events: BTreeMap<(u64, u64), Input>,
    next_event: u64,
    pub(super) banned: BTreeSet<PeerId>,
    pub(super) lied: BTreeSet<PeerId>,
    pub(super) is_done: bool,
    pub(super) is_distrusted: bool,
    pub(super) stalls: Vec<Stall>,
    pub(super) asked: Vec<(PeerId, Part)>,
    pub(super) prefer: Vec<Range<u64>>,
    pub(super) trace: blake3::Hasher,
    has_hashes: BTreeSet<Target>,
}

pub(super) fn peer(number: u64) -> PeerId {
    PeerId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

pub(super) fn other(number: u64, near: Nearness, manner: Manner) -> Other {
    let (round_trip, rate) = match near {
        Nearness::SameHost => (1, 500_000),
        Nearness::Lan => (2, 100_000),
        Nearness::Wan => (60, 5_000),
        Nearness::Relayed => (150, 500),
    };
    let (has, busy_until) = (BTreeSet::new(), 0);
    Other { id: peer(number), near, manner, has, round_trip, rate, busy_until, is_up: true }
}

pub(super) fn spec(size: u64, seed: u64) -> Spec {
    Spec {
        blob: Hash::from_bytes([3; 32]),
        size,
        me: peer(1 << 40),
        seed,
        held: Bits::default(),
        has_top: false,
        pages: Bits::default(),
    }
}

impl World {
    pub(super) fn new(spec: Spec, budget: Budget) -> Self {
        let mut budget = budget;
        let size = spec.size;
        let held = (0..pieces_of(size)).filter(|it| spec.held.has(*it)).collect();
        Self {
            now: 0,
            size,
            fetch: Fetch::new(spec, &mut budget),
            budget,
            others: BTreeMap::new(),
            held,
            local: BTreeMap::new(),
            asks: BTreeMap::new(),
            placed: BTreeMap::new(),
            retained: BTreeMap::new(),
            wrong: BTreeMap::new(),
            last_answer: None,
            events: BTreeMap::new(),
            next_event: 0,
            banned: BTreeSet::new(),
            lied: BTreeSet::new(),
            is_done: false,
            is_distrusted: false,
            stalls: Vec::new(),
            asked: Vec::new(),
            prefer: Vec::new(),
            trace: blake3::Hasher::new(),
            has_hashes: BTreeSet::new(),
        }
    }

    pub(super) fn pieces(&self) -> u64 {
        pieces_of(self.size)
    }

    /// The store holds this page already.
    pub(super) fn has_page(&mut self, group: u64) {
        self.has_hashes.insert(Target::Page(group));
    }

    pub(super) fn add(&mut self, mut other: Other, has: impl IntoIterator<Item = u64>) {
        other.has = has.into_iter().collect();
        let id = other.id;
        self.others.insert(id, other);
        self.connect(id);
    }

    pub(super) fn connect(&mut self, id: PeerId) {
        let other = self.others.get_mut(&id).unwrap();
        other.is_up = true;
        let (near, has) = (other.near, other.has.clone());
        self.say(Input::PeerUp { peer: id, near });
        let is_whole = has.len() as u64 == self.pieces();
        let holding = if is_whole { Holding::Whole } else { Holding::Part };
        self.say(Input::Holdings { peer: id, size: self.size, holding });
        if !is_whole {
            let mut bits = vec![0; usize::try_from(self.pieces().div_ceil(8)).unwrap()];
            for it in &has {
                bits[usize::try_from(it / 8).unwrap()] |= 1 << (it % 8);
            }
            self.say(Input::Held { peer: id, stretch: 0, bits });
        }
    }

    pub(super) fn disconnect(&mut self, id: PeerId) {
        self.others.get_mut(&id).unwrap().is_up = false;
        self.asks.retain(|(peer, _), _| *peer != id);
        self.say(Input::PeerDown { peer: id });
    }

    pub(super) fn later(&mut self, after: u64, input: Input) {
        self.next_event += 1;
        self.events.insert((self.now + after, self.next_event), input);
    }

    pub(super) fn say(&mut self, input: Input) {
        let outputs = self.fetch.step(self.now, input, &mut self.budget);
        for output in outputs {
            self.trace.update(format!("{} {output:?}", self.now).as_bytes());
            self.perform(output);
        }
        self.check_budget();
    }

    /// Rule S13, from what the world itself knows to be under way and in memory.
    fn check_budget(&self) {
        assert!(self.budget.used() <= self.budget.total());
        if self.is_done {
            assert_eq!(self.budget.used(), 0, "everything is given back");
        }
        let placed = self.placed.values().chain(self.retained.values());
        let placed: u64 = placed.flat_map(|it| it.values()).map(|(len, _)| u64::from(*len)).sum();
        assert!(placed <= self.budget.used(), "{placed} bytes are placed");
    }

    /// Plays until nothing is left to happen or the time is over.
    pub(super) fn run_until(&mut self, end: u64) {
        while let Some((&(at, event), _)) = self.events.first_key_value() {
            if at > end || self.is_done {
                break;
            }
            let input = self.events.remove(&(at, event)).unwrap();
            self.now = at;
            self.deliver(input);
        }
        self.now = self.now.max(end);
    }

    fn deliver(&mut self, input: Input) {
        match &input {
            Input::Data { peer, ask, .. } | Input::Refused { peer, ask, .. } => {
                let is_up = self.others[peer].is_up && !self.banned.contains(peer);
                if !is_up {
                    return;
                }
                // An answer that crossed its cancellation arrives as well: nobody waits for it.
                self.last_answer = None;
                if let Some((part, _)) = self.asks.remove(&(*peer, *ask)) {
                    let is_right = !self.lies(*peer, part);
                    if !is_right {
                        self.lied.insert(*peer);
                    }
                    let len = match input {
                        Input::Data { len, .. } => len,
                        _ => 0,
                    };
                    self.last_answer = Some((len, is_right));
                }
            }
            Input::Checked { target, is_right } => {
                let bytes = self.placed.remove(target);
                match target {
                    Target::Piece(piece) if *is_right => {
                        assert!(self.held.insert(*piece), "a piece is put once");
                    }
                    Target::Piece(piece) => {
                        self.wrong.insert(*piece, bytes.expect("it was placed"));
                    }
                    hashes => {
                        self.has_hashes.insert(*hashes);
                    }
                }
            }
            _ => {}
        }
        self.say(input);
        self.wrong.clear();
    }

    fn lies(&self, peer: PeerId, part: Part) -> bool {
        match (self.others[&peer].manner, part) {
            (Manner::LiesEvery(nth), Part::Bytes { offset, .. }) => {
                (offset / u64::from(PIECE_LEN)).is_multiple_of(nth)
            }
            _ => false,
        }
    }

    fn perform(&mut self, output: Output) {
        assert!(!self.is_done, "Done is the last output");
        match output {
            Output::Ask { peer, ask, part } => self.asked_for(peer, ask, part),
            Output::Cancel { peer, ask } => {
                assert!(self.asks.remove(&(peer, ask)).is_some(), "it was not asked");
            }
            Output::Place { target, start, .. } => {
                let (len, is_right) = self.last_answer.take().expect("an answer is here");
                self.placed.entry(target).or_default().insert(start, (len, is_right));
            }
            Output::Put(target) => self.put(target),
            Output::Forget(target) => {
                self.placed.remove(&target);
            }
            Output::Fill { piece } => {
                let (range, is_right) = self.local[&piece].clone();
                let len = self.fetch.piece_len(piece);
                let parts = self.placed.entry(Target::Piece(piece)).or_default();
                parts.insert(range.start, (range.end - range.start, is_right));
                let mut gaps = vec![0..range.start, range.end..len];
                gaps.retain(|it| !it.is_empty());
                self.later(1, Input::Filled { piece, gaps });
            }
            Output::Retain { piece } => {
                let bytes = self.placed_before(piece);
                self.retained.insert(piece, bytes);
            }
            Output::Compare { piece, ranges } => {
                let bytes = self.retained.remove(&piece).expect("it was kept");
                let differs = ranges.iter().map(|it| !bytes[&it.start].1).collect();
                self.later(1, Input::Compared { piece, differs });
            }
            Output::DistrustRecipe => self.is_distrusted = true,
            Output::Ban { peer, evidence } => self.ban(peer, evidence),
            Output::Leave { .. } | Output::Going => {}
            Output::Stalled(stall) => self.stalls.push(stall),
            Output::Done => {
                assert_eq!(self.held.len() as u64, self.pieces());
                self.is_done = true;
            }
            Output::Wake(at) => {
                assert!(at > self.now, "time goes on");
                self.later(at - self.now, Input::Tick);
            }
        }
    }

    fn placed_before(&mut self, piece: u64) -> BTreeMap<u32, (u32, bool)> {
        self.wrong.remove(&piece).expect("it was wrong just now")
    }

    fn put(&mut self, target: Target) {
        if self.size == 0 {
            return self.later(2, Input::Checked { target, is_right: true });
        }
        let parts = self.placed.get(&target).expect("something was placed");
        let (mut end, mut is_right) = (0, true);
        for (start, (len, right)) in parts {
            assert_eq!(*start, end, "no hole and no overlap");
            end += len;
            is_right &= right;
        }
        assert_eq!(end, self.fetch.target_len(target), "it is complete");
        self.later(2, Input::Checked { target, is_right });
    }

    /// Rules S11 and S12, from what the world itself knows.
    fn asked_for(&mut self, id: PeerId, ask: AskId, part: Part) {
        assert!(!self.banned.contains(&id), "nothing is asked of who was banned");
        let is_twice = self.asks.iter().any(|((peer, _), (it, _))| *peer != id && *it == part);
        let again = self.asks.iter().any(|((peer, _), (it, _))| *peer == id && *it == part);
        assert!(!again, "nothing is asked twice of one peer");
        if let Part::Bytes { offset, len } = part {
            let piece = offset / u64::from(PIECE_LEN);
            assert!(!self.held.contains(&piece), "it is not held yet");
            assert!(offset + u64::from(len) <= self.size && len > 0);
            let groups = pieces_of(self.size).div_ceil(GROUP_PIECES);
            let page = Target::Page(piece / GROUP_PIECES);
            assert!(self.pieces() == 1 || self.has_hashes.contains(&page), "it can be checked");
            assert!(groups == 1 || self.has_hashes.contains(&Target::Top));
            assert!(self.others[&id].has.contains(&piece), "the peer holds it");
            if is_twice {
                let is_urgent = self.prefer.iter().any(|it| it.contains(&piece));
                let missing = self.pieces() - self.held.len() as u64;
                assert!(is_urgent || missing <= self.under_way(), "nothing unasked is left");
            }
        }
        self.asked.push((id, part));
        self.asks.insert((id, ask), (part, self.now));
        let len = match part {
            Part::Top => self.fetch.target_len(Target::Top),
            Part::Page { group } => self.fetch.target_len(Target::Page(group)),
            Part::Bytes { len, .. } => len,
        };
        let other = self.others.get_mut(&id).unwrap();
        let begins = other.busy_until.max(self.now + other.round_trip / 2);
        other.busy_until = begins + (u64::from(len) / other.rate).max(1);
        let after = other.busy_until + other.round_trip / 2 - self.now;
        let manner = other.manner;
        match manner {
            Manner::Silent => {}
            Manner::Refuses(code) => {
                let retry_after_ms = None;
                self.later(after, Input::Refused { peer: id, ask, code, retry_after_ms });
            }
            Manner::Short => {
                self.lied.insert(id);
                self.later(after, Input::Data { peer: id, ask, len: len - 1 });
            }
            Manner::Honest | Manner::LiesEvery(_) => {
                // A long answer is heard on its way.
                for step in (1_000..after).step_by(1_000) {
                    let bytes = u32::try_from(self.others[&id].rate * 1_000).unwrap().min(len);
                    self.later(step, Input::Progress { peer: id, ask, bytes: bytes / 2 });
                }
                self.later(after, Input::Data { peer: id, ask, len });
            }
        }
    }

    /// Pieces that someone owes, that are copied, or that the store looks at.
    fn under_way(&self) -> u64 {
        let asked = self.asks.values().filter_map(|(part, _)| match part {
            Part::Bytes { offset, .. } => Some(offset / u64::from(PIECE_LEN)),
            _ => None,
        });
        let placed = self.placed.keys().filter_map(|it| match it {
            Target::Piece(piece) => Some(*piece),
            _ => None,
        });
        asked.chain(placed).collect::<BTreeSet<_>>().len() as u64
    }

    /// Rule S14.
    fn ban(&mut self, id: PeerId, evidence: Evidence) {
        let manner = self.others[&id].manner;
        assert!(self.lied.contains(&id), "{manner:?} was banned for {evidence:?}");
        assert!(matches!(manner, Manner::LiesEvery(_) | Manner::Short), "{manner:?}");
        assert!(self.banned.insert(id), "once");
        self.asks.retain(|(peer, _), _| *peer != id);
    }

    /// Pieces that are missing although an honest peer that is up has them.
    pub(super) fn missing(&self) -> Vec<u64> {
        let honest = |it: &&Other| it.is_up && it.manner == Manner::Honest;
        let has = |piece| self.others.values().filter(honest).any(|it| it.has.contains(&piece));
        (0..self.pieces()).filter(|it| !self.held.contains(it) && has(*it)).collect()
    }

    /// How many bytes were asked of outside peers.
    pub(super) fn outside_bytes(&self) -> u64 {
        let outside = |it: &&(PeerId, Part)| !self.others[&it.0].near.is_local();
        let len = |it: &(PeerId, Part)| match it.1 {
            Part::Bytes { len, .. } => u64::from(len),
            _ => 0,
        };
        self.asked.iter().filter(outside).map(len).sum()
    }
}
