//! What happens, and what the machines want done.

use commons_port::blobs::{CV_LEN, PIECE_LEN, pieces_of};
use commons_record::PeerId;
use commons_swarm::fetch::{Evidence, Input, Output, Part, Target};
use commons_swarm::upload::{self, SERVING_MAX};
use commons_swarm::wire::{AskId, RefuseCode};

use super::{Event, Role, SwarmWorld, set};

/// A link inside a site, in bytes per millisecond.
const SITE_RATE: u64 = 100_000;

/// The store looks at a piece for so long.
const CHECK_MS: u64 = 2;

/// A long answer is heard on its way this often.
const HEARD_MS: u64 = 2_000;

/// Every piece whose index this divides is wrong when a liar sends it.
const LIE_EVERY: u64 = 7;

impl SwarmWorld {
    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Fetch { node, via, input, is_right } => self.arrive(node, via, input, is_right),
            Event::Ask { seeder, from, link, ask, part } => {
                if self.link(seeder, from) == Some(link) {
                    self.asked(seeder, from, ask, part);
                }
            }
            Event::Cancel { seeder, from, link, ask } => {
                if self.link(seeder, from) == Some(link) {
                    let peer = self.nodes[from as usize].id;
                    self.upload(seeder, upload::Input::Cancelled { peer, stream: link, ask });
                }
            }
            Event::Sent { seeder, to } => {
                let peer = self.nodes[to as usize].id;
                self.upload(seeder, upload::Input::Served { peer });
            }
            Event::WakeUpload { node } => self.upload(node, upload::Input::Tick),
            Event::Fate(fate) => self.befall(fate),
        }
    }

    fn arrive(&mut self, node: u32, via: Option<(u32, u64)>, input: Input, is_right: bool) {
        let from = via.map(|(from, _)| from);
        if let Some((from, link)) = via
            && self.link(node, from) != Some(link)
        {
            return;
        }
        if let (Some(from), Input::Data { len, .. }) = (from, &input) {
            let is_outside = self.nodes[node as usize].site != self.nodes[from as usize].site;
            self.report.bytes.0 += u64::from(*len);
            self.report.bytes.1 += if is_outside { u64::from(*len) } else { 0 };
            self.node(node).answer = Some((from, is_right));
        }
        if let Input::Checked { target, is_right } = input {
            self.checked(node, target, is_right);
        }
        let len = match input {
            Input::Data { len, .. } => u64::from(len),
            _ => 0,
        };
        self.tell(node, from, input);
        if self.node(node).answer.take().is_some() {
            self.report.wasted += len;
        }
    }

    /// Gives a node's fetch something, and does what it says.
    pub(super) fn tell(&mut self, index: u32, from: Option<u32>, input: Input) {
        let now = self.now;
        let node = self.node(index);
        if !node.is_up {
            return;
        }
        let Some(mut fetch) = node.fetch.take() else { return };
        let outputs = fetch.step(now, input, &mut node.budget);
        assert!(node.budget.used() <= node.budget.total(), "Rule S13");
        let used = node.budget.used();
        node.fetch = Some(fetch);
        self.report.taken_max = self.report.taken_max.max(used);
        self.note(1, index, from.map_or(u64::MAX, u64::from));
        for output in outputs {
            self.perform(index, output);
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "what is performed is done with")]
    fn perform(&mut self, index: u32, output: Output) {
        match output {
            Output::Ask { peer, ask, part } => {
                let seeder = self.index_of(peer);
                let Some(link) = self.link(index, seeder) else { return };
                let at = self.now + self.latency(index, seeder);
                self.note(2, index, u64::from(ask.0));
                self.later(at, Event::Ask { seeder, from: index, link, ask, part });
            }
            Output::Cancel { peer, ask } => {
                let seeder = self.index_of(peer);
                let Some(link) = self.link(index, seeder) else { return };
                let at = self.now + self.latency(index, seeder);
                self.later(at, Event::Cancel { seeder, from: index, link, ask });
            }
            Output::Place { target, .. } => {
                let node = self.node(index);
                let answer = node.answer.take().expect("an answer is here");
                node.placed.insert(target, answer);
            }
            Output::Put(target) => {
                let (_, is_right) = self.nodes[index as usize].placed[&target];
                let input = Input::Checked { target, is_right };
                let at = self.now + CHECK_MS;
                self.later(at, Event::Fetch { node: index, via: None, input, is_right: true });
            }
            Output::Forget(target) => {
                self.node(index).placed.remove(&target);
            }
            Output::Ban { peer, evidence } => self.ban(index, peer, evidence),
            Output::Leave { peer } => {
                let other = self.index_of(peer);
                self.disconnect(index, other);
            }
            Output::Done => {
                let now = self.now;
                self.node(index).is_done = true;
                self.report.done.0 += 1;
                self.report.finished_at = now;
                self.note(3, index, 0);
            }
            Output::Wake(at) => {
                let input = Input::Tick;
                self.later(at, Event::Fetch { node: index, via: None, input, is_right: true });
            }
            Output::Stalled(_) | Output::Going => {}
            Output::Fill { .. }
            | Output::Retain { .. }
            | Output::Compare { .. }
            | Output::DistrustRecipe => unreachable!("there are no local bytes in this world"),
        }
    }

    /// Rule S14: only a liar is banned, by one that it lied to.
    fn ban(&mut self, index: u32, peer: PeerId, evidence: Evidence) {
        let other = self.index_of(peer);
        assert_eq!(self.nodes[other as usize].role, Role::Liar, "{evidence:?}");
        let Evidence::WrongBytes(Target::Piece(piece)) = evidence else {
            panic!("a liar sends wrong pieces and nothing else: {evidence:?}");
        };
        assert_eq!(piece % LIE_EVERY, 0, "that one was right");
        assert!(self.node(index).banned.insert(other), "once");
        self.report.bans += 1;
        self.note(4, index, u64::from(other));
        self.disconnect(index, other);
    }

    fn index_of(&self, peer: PeerId) -> u32 {
        self.index[&peer]
    }

    /// The store looked at something.
    fn checked(&mut self, index: u32, target: Target, is_right: bool) {
        let node = self.node(index);
        // A node that was restarted since has forgotten it.
        let Some((from, _)) = node.placed.remove(&target) else { return };
        match (target, is_right) {
            (Target::Piece(piece), true) => {
                assert!(!node.held.has(piece), "a piece is put once");
                set(&mut node.held, piece);
                node.held_count += 1;
                let count = node.held_count;
                self.announce(index, piece);
                self.nearly_done(count);
            }
            (Target::Piece(_), false) => {
                assert_eq!(self.nodes[from as usize].role, Role::Liar);
                self.report.lies += 1;
                self.deceived.insert((index, from));
            }
            _ => node.has_pages = true,
        }
    }

    fn announce(&mut self, index: u32, piece: u64) {
        let peer = self.nodes[index as usize].id;
        let others: Vec<u32> = self.neighbours[index as usize].iter().copied().collect();
        for other in others {
            let Some(link) = self.link(index, other) else { continue };
            let is_wanted = self.nodes[other as usize].fetch.is_some();
            if is_wanted && !self.nodes[other as usize].is_done {
                let input = Input::Have { peer, pieces: vec![piece] };
                let at = self.now + self.latency(index, other);
                let via = Some((index, link));
                self.later(at, Event::Fetch { node: other, via, input, is_right: true });
            }
        }
    }

    /// A peer asks a node.
    fn asked(&mut self, seeder: u32, from: u32, ask: AskId, part: Part) {
        let Some(link) = self.link(seeder, from) else { return };
        let pieces = pieces_of(self.spec.size);
        let peer = self.nodes[from as usize].id;
        let node = self.node(seeder);
        let (has, len) = match part {
            Part::Bytes { offset, len } => (node.held.has(offset / u64::from(PIECE_LEN)), len),
            Part::Page { .. } => {
                (node.held_count > 0, u32::try_from(pieces * CV_LEN as u64).unwrap_or(u32::MAX))
            }
            Part::Top => (node.held_count > 0, 0),
        };
        if !has {
            return self.refuse(seeder, from, ask, RefuseCode::NotYet);
        }
        node.owed.insert((from, ask), part);
        let job = upload::Job { peer, stream: link, ask, len };
        self.upload(seeder, upload::Input::Asked(job));
    }

    fn refuse(&mut self, seeder: u32, from: u32, ask: AskId, code: RefuseCode) {
        let Some(link) = self.link(seeder, from) else { return };
        let peer = self.nodes[seeder as usize].id;
        let input = Input::Refused { peer, ask, code, retry_after_ms: None };
        let at = self.now + self.latency(seeder, from);
        let via = Some((seeder, link));
        self.later(at, Event::Fetch { node: from, via, input, is_right: true });
    }

    /// Gives a node's upload something, and does what it says.
    pub(super) fn upload(&mut self, index: u32, input: upload::Input) {
        let now = self.now;
        let node = self.node(index);
        if !node.is_up {
            return;
        }
        let outputs = node.upload.step(now, input);
        assert!(node.upload.serving() <= SERVING_MAX);
        for output in outputs {
            match output {
                upload::Output::Serve(job) => self.send(index, job),
                upload::Output::Refuse(job) => {
                    let from = self.index_of(job.peer);
                    self.node(index).owed.remove(&(from, job.ask));
                    self.refuse(index, from, job.ask, RefuseCode::Busy);
                }
                upload::Output::Wake(at) => self.later(at, Event::WakeUpload { node: index }),
            }
        }
    }

    /// An answer goes through the uplink of one and the downlink of the other.
    fn send(&mut self, seeder: u32, job: upload::Job) {
        let to = self.index_of(job.peer);
        let len = u64::from(job.len);
        let is_near = self.nodes[seeder as usize].site == self.nodes[to as usize].site;
        let now = self.now;
        let latency = self.latency(seeder, to);
        let (sent, arrived, began) = if is_near {
            let sent = now + len.div_ceil(SITE_RATE);
            (sent, sent + latency, now)
        } else {
            let node = self.node(seeder);
            let began = node.sent_until.max(now);
            let sent = began + len.div_ceil(node.uplink);
            node.sent_until = sent;
            let node = self.node(to);
            let received = node.received_until.max(began) + len.div_ceil(node.downlink);
            node.received_until = received;
            (sent, received.max(sent) + latency, began)
        };
        self.later(sent, Event::Sent { seeder, to });
        let Some(part) = self.node(seeder).owed.remove(&(to, job.ask)) else { return };
        let peer = self.nodes[seeder as usize].id;
        let is_lie = self.nodes[seeder as usize].role == Role::Liar && is_lied_about(part);
        let via = Some((seeder, job.stream));
        let mut heard = began + latency + HEARD_MS;
        while heard < arrived {
            let share = len * HEARD_MS / (arrived - began).max(1);
            let bytes = u32::try_from(share).unwrap_or(0);
            let input = Input::Progress { peer, ask: job.ask, bytes };
            self.later(heard, Event::Fetch { node: to, via, input, is_right: true });
            heard += HEARD_MS;
        }
        let input = Input::Data { peer, ask: job.ask, len: job.len };
        self.later(arrived, Event::Fetch { node: to, via, input, is_right: !is_lie });
    }
}

fn is_lied_about(part: Part) -> bool {
    match part {
        Part::Bytes { offset, .. } => (offset / u64::from(PIECE_LEN)).is_multiple_of(LIE_EVERY),
        Part::Top | Part::Page { .. } => false,
    }
}
