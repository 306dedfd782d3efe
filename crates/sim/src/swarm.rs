//! Many nodes that fetch one blob from each other, in virtual time from one seed.
//!
//! The machines are the real ones: `swarm::fetch` and `swarm::upload` on each node. Around them
//! stands an event queue instead of tasks, so that a thousand nodes take seconds. No bytes travel:
//! an answer is a length, and whether a liar sent it.
//!
//! ```text
//! ask --latency--> Upload --uplink, downlink--> data --> Fetch --put--> held --have--> neighbours
//! ```
//!
//! Fate (`fate.rs`) lets nodes leave and come back, cuts sites off, and takes every seeder away when
//! the first fetcher is nearly done. The world checks at every step:
//!
//! * a banned peer is a liar, and lied to the one who bans it (Rule S14);
//! * no node has more under way and in memory than its budget (Rule S13);
//! * no node answers more at a time than it may.
//!
//! Not here: real streams, disks and actors (`cluster.rs`).

use std::collections::{BTreeMap, BTreeSet};

use commons_port::blobs::{Bits, pieces_of};
use commons_record::{Hash, PeerId};
use commons_swarm::fetch::{Budget, Fetch, Input, Nearness, Part, Spec};
use commons_swarm::upload::{self, Upload};
use commons_swarm::wire::{AskId, Holding};

use crate::entropy::Rng;

mod act;
mod fate;

use fate::Fate;

/// What a world is made of.
#[derive(Debug, Clone)]
pub struct SwarmSpec {
    /// Nodes in all.
    pub nodes: u32,
    /// Bytes of the blob.
    pub size: u64,
    /// Nodes that hold all from the beginning.
    pub seeders: u32,
    /// Nodes that claim to hold all, and send every seventh piece wrong.
    pub liars: u32,
    /// Nodes that hold a third, and fetch nothing.
    pub partial: u32,
    /// Nodes of one network.
    pub site_nodes: u32,
    /// Of a thousand nodes, those whose uplink is 60 KB/s.
    pub slow_per_mille: u32,
    /// Connections that each node makes when it comes.
    pub links: usize,
    /// Whether nodes leave and come back, sites are cut off, and seeders vanish at 99 %.
    pub has_faults: bool,
    /// What each node's fetch may have under way and in memory.
    pub budget: u64,
}

impl SwarmSpec {
    /// A world with everything in it.
    pub fn mixed(nodes: u32) -> Self {
        Self {
            nodes,
            size: (48 << 20) + 12_345,
            seeders: nodes.div_ceil(50).max(2),
            liars: nodes.div_ceil(40),
            partial: nodes.div_ceil(30),
            site_nodes: 8,
            slow_per_mille: 150,
            links: 8,
            has_faults: true,
            budget: 32 << 20,
        }
    }
}

/// How a node behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Seeder,
    Partial,
    Liar,
    Fetcher,
}

/// A node and all that it knows.
struct Node {
    id: PeerId,
    role: Role,
    site: u32,
    is_up: bool,
    /// Bytes per millisecond.
    uplink: u64,
    downlink: u64,
    /// When all that was given to the link has left, or arrived.
    sent_until: u64,
    received_until: u64,
    held: Bits,
    held_count: u64,
    has_pages: bool,
    fetch: Option<Fetch>,
    budget: Budget,
    upload: Upload,
    /// What each ask that waits or is being answered is for.
    owed: BTreeMap<(u32, AskId), Part>,
    /// Whether what was placed of a target is right, and whose it is.
    placed: BTreeMap<commons_swarm::fetch::Target, (u32, bool)>,
    /// The answer that is being delivered.
    answer: Option<(u32, bool)>,
    banned: BTreeSet<u32>,
    is_done: bool,
}

/// What is to happen.
enum Event {
    /// Something for a node's fetch. Over a link it is lost if that went down since.
    Fetch {
        node: u32,
        via: Option<(u32, u64)>,
        input: Input,
        is_right: bool,
    },
    /// Something for a node's upload, likewise.
    Ask {
        seeder: u32,
        from: u32,
        link: u64,
        ask: AskId,
        part: Part,
    },
    Cancel {
        seeder: u32,
        from: u32,
        link: u64,
        ask: AskId,
    },
    /// An answer has left.
    Sent {
        seeder: u32,
        to: u32,
    },
    WakeUpload {
        node: u32,
    },
    Fate(Fate),
}

/// How a world ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwarmReport {
    /// When the last one was done, in milliseconds.
    pub finished_at: u64,
    /// Fetchers that hold all, and fetchers.
    pub done: (u64, u64),
    /// Bans, each of a liar by one that it lied to.
    pub bans: u64,
    /// Wrong pieces that came to be checked: a liar's window may hold several.
    pub lies: u64,
    /// Of a fetcher and a liar, how many pairs in which one sent the other a wrong piece.
    pub deceived: u64,
    /// Bytes that arrived, and of these those from another site.
    pub bytes: (u64, u64),
    /// Bytes that arrived and that nobody waited for any more.
    pub wasted: u64,
    /// The most that any node had under way and in memory.
    pub taken_max: u64,
    /// Events that happened.
    pub events: u64,
    /// A hash over all of them, in order.
    pub trace: Hash,
}

/// The world.
pub struct SwarmWorld {
    spec: SwarmSpec,
    now: u64,
    nodes: Vec<Node>,
    /// Which nodes are connected, the lower first, and a number for that connection.
    links: BTreeMap<(u32, u32), u64>,
    neighbours: Vec<BTreeSet<u32>>,
    /// Sites that cannot reach the others.
    cut: BTreeSet<u32>,
    next_link: u64,
    queue: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    rng: Rng,
    trace: blake3::Hasher,
    report: SwarmReport,
    index: BTreeMap<PeerId, u32>,
    has_lost_seeders: bool,
    deceived: BTreeSet<(u32, u32)>,
}

impl std::fmt::Debug for SwarmWorld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SwarmWorld").field("now", &self.now).finish_non_exhaustive()
    }
}

/// No world takes longer: six hours.
const TIME_MAX_MS: u64 = 6 * 3_600_000;

/// The blob of every world: no bytes, so any name will do.
const BLOB: Hash = Hash::from_bytes([0x5a; 32]);

impl SwarmWorld {
    /// Makes the nodes and connects them.
    pub fn new(seed: u64, spec: SwarmSpec) -> Self {
        Self::placed(seed, spec, |_| {})
    }

    /// As [`Self::new`], but all fetchers are in one network and all seeders outside it.
    pub fn with_seeders_outside(seed: u64, spec: SwarmSpec) -> Self {
        Self::placed(seed, spec, |nodes| {
            for (node, index) in nodes.iter_mut().zip(1..) {
                node.site = if node.role == Role::Fetcher { 0 } else { index };
            }
        })
    }

    fn placed(seed: u64, spec: SwarmSpec, place: impl FnOnce(&mut [Node])) -> Self {
        let mut rng = Rng::new(seed, "swarm", 0);
        let mut nodes: Vec<_> =
            (0..spec.nodes).map(|index| Node::new(index, &spec, &mut rng)).collect();
        place(&mut nodes);
        let index = nodes.iter().zip(0..).map(|(node, index)| (node.id, index)).collect();
        let neighbours = vec![BTreeSet::new(); nodes.len()];
        let fetchers = nodes.iter().filter(|it| it.role == Role::Fetcher).count() as u64;
        let report = SwarmReport {
            finished_at: 0,
            done: (0, fetchers),
            bans: 0,
            lies: 0,
            deceived: 0,
            bytes: (0, 0),
            wasted: 0,
            taken_max: 0,
            events: 0,
            trace: Hash::from_bytes([0; 32]),
        };
        let mut world = Self {
            spec,
            now: 0,
            nodes,
            links: BTreeMap::new(),
            neighbours,
            cut: BTreeSet::new(),
            next_link: 0,
            queue: BTreeMap::new(),
            next_event: 0,
            rng,
            trace: blake3::Hasher::new(),
            report,
            index,
            has_lost_seeders: false,
            deceived: BTreeSet::new(),
        };
        for node in 0..world.spec.nodes {
            world.start_fetch(node);
        }
        for node in 0..world.spec.nodes {
            world.link_up(node);
        }
        if world.spec.has_faults {
            world.plan_fate();
        }
        world
    }

    /// Plays until every fetcher is done, or nothing happens any more.
    ///
    /// # Panics
    ///
    /// If a rule is broken on the way.
    pub fn run(mut self) -> SwarmReport {
        while let Some(((at, _), event)) = self.queue.pop_first() {
            if at > TIME_MAX_MS || self.is_over() {
                break;
            }
            self.now = at;
            self.report.events += 1;
            self.happen(event);
        }
        self.report.deceived = self.deceived.len() as u64;
        self.report.trace = Hash::from_bytes(*self.trace.finalize().as_bytes());
        self.report
    }

    /// Everyone who fetches is done, and fate has nothing more in store.
    fn is_over(&self) -> bool {
        self.report.done.0 == self.report.done.1 && self.nodes.iter().all(|it| it.is_up)
    }

    fn later(&mut self, at: u64, event: Event) {
        self.next_event += 1;
        self.queue.insert((at.max(self.now), self.next_event), event);
    }

    fn note(&mut self, what: u8, node: u32, detail: u64) {
        self.trace.update(&self.now.to_le_bytes());
        self.trace.update(&[what]);
        self.trace.update(&node.to_le_bytes());
        self.trace.update(&detail.to_le_bytes());
    }

    fn node(&mut self, node: u32) -> &mut Node {
        &mut self.nodes[node as usize]
    }

    fn link(&self, one: u32, other: u32) -> Option<u64> {
        self.links.get(&(one.min(other), one.max(other))).copied()
    }

    /// Milliseconds one way.
    fn latency(&self, one: u32, other: u32) -> u64 {
        let (low, high) = (one.min(other), one.max(other));
        match self.near(one, other) {
            Nearness::SameHost | Nearness::Lan => 1,
            _ => 10 + u64::from(low.wrapping_mul(2_654_435_761) ^ high.wrapping_mul(40_503)) % 90,
        }
    }

    fn near(&self, one: u32, other: u32) -> Nearness {
        let is_same = self.nodes[one as usize].site == self.nodes[other as usize].site;
        match (is_same, (one ^ other) % 11) {
            (true, _) => Nearness::Lan,
            (false, 0) => Nearness::Relayed,
            (false, _) => Nearness::Wan,
        }
    }

    /// A node begins, or goes on from what it holds.
    fn start_fetch(&mut self, index: u32) {
        let seed = self.rng.next_u64();
        let size = self.spec.size;
        let budget = Budget::new(self.spec.budget);
        let node = self.node(index);
        node.budget = budget;
        node.upload = Upload::new();
        node.owed.clear();
        node.placed.clear();
        if node.role != Role::Fetcher || node.is_done {
            return;
        }
        let spec = Spec {
            blob: BLOB,
            size,
            me: node.id,
            seed,
            held: node.held.clone(),
            has_top: true,
            pages: Bits(if node.has_pages { vec![0xff; 128] } else { Vec::new() }),
        };
        node.fetch = Some(Fetch::new(spec, &mut node.budget));
    }

    /// A node that is up connects to mates of its site and to others that it can reach.
    fn link_up(&mut self, index: u32) {
        let site = self.nodes[index as usize].site;
        let mates: Vec<u32> = (0..self.spec.nodes)
            .filter(|it| *it != index && self.nodes[*it as usize].site == site)
            .collect();
        for mate in mates {
            self.connect(index, mate);
        }
        for _ in 0..self.spec.links {
            let other = u32::try_from(self.rng.below(u64::from(self.spec.nodes))).unwrap_or(0);
            self.connect(index, other);
        }
        // Whoever finds nothing with these is told of a seeder, as a directory would.
        let seeders: Vec<u32> = (0..self.spec.seeders).collect();
        let one = seeders[self.rng.index(seeders.len())];
        self.connect(index, one);
    }

    fn connect(&mut self, one: u32, other: u32) {
        let is_cut = |world: &Self, node: u32| world.cut.contains(&world.nodes[node as usize].site);
        let is_across = self.nodes[one as usize].site != self.nodes[other as usize].site;
        let blocked = is_across && is_cut(self, one) != is_cut(self, other);
        let both = [one, other].map(|it| self.nodes[it as usize].is_up);
        let is_banned = self.nodes[one as usize].banned.contains(&other)
            || self.nodes[other as usize].banned.contains(&one);
        let is_full = [one, other].iter().any(|it| self.neighbours[*it as usize].len() >= 60);
        let is_known = self.link(one, other).is_some();
        if one == other || blocked || both != [true, true] || is_banned || is_full || is_known {
            return;
        }
        self.next_link += 1;
        self.links.insert((one.min(other), one.max(other)), self.next_link);
        for (me, it) in [(one, other), (other, one)] {
            self.neighbours[me as usize].insert(it);
            self.introduce(me, it);
        }
    }

    /// `me` meets `other`, and hears what it holds.
    fn introduce(&mut self, me: u32, other: u32) {
        let near = self.near(me, other);
        let them = &self.nodes[other as usize];
        let (id, held, role, is_done) = (them.id, them.held.clone(), them.role, them.is_done);
        let size = self.spec.size;
        let holding = match role {
            Role::Seeder | Role::Liar => Holding::Whole,
            Role::Partial => Holding::Part,
            Role::Fetcher if is_done => Holding::Whole,
            Role::Fetcher => Holding::Fetching,
        };
        self.tell(me, None, Input::PeerUp { peer: id, near });
        self.tell(me, None, Input::Holdings { peer: id, size, holding });
        if matches!(holding, Holding::Part | Holding::Fetching) {
            self.tell(me, None, Input::Held { peer: id, stretch: 0, bits: held.0 });
        }
    }

    fn disconnect(&mut self, one: u32, other: u32) {
        let Some(link) = self.links.remove(&(one.min(other), one.max(other))) else { return };
        for (me, it) in [(one, other), (other, one)] {
            self.neighbours[me as usize].remove(&it);
            let peer = self.nodes[it as usize].id;
            self.node(me).owed.retain(|(from, _), _| *from != it);
            self.upload(me, upload::Input::Gone { peer, stream: link });
            self.tell(me, None, Input::PeerDown { peer });
        }
    }
}

impl Node {
    fn new(index: u32, spec: &SwarmSpec, rng: &mut Rng) -> Self {
        let role = match index {
            it if it < spec.seeders => Role::Seeder,
            it if it < spec.seeders + spec.liars => Role::Liar,
            it if it < spec.seeders + spec.liars + spec.partial => Role::Partial,
            _ => Role::Fetcher,
        };
        let pieces = pieces_of(spec.size);
        let is_slow = role == Role::Fetcher && rng.chance(spec.slow_per_mille);
        let mut held = Bits(vec![0; usize::try_from(pieces.div_ceil(8)).unwrap_or(0)]);
        let mut held_count = 0;
        for piece in 0..pieces {
            let has = match role {
                Role::Seeder | Role::Liar => true,
                Role::Partial => rng.chance(333),
                Role::Fetcher => false,
            };
            if has {
                set(&mut held, piece);
                held_count += 1;
            }
        }
        Self {
            id: PeerId::from_bytes(rng.bytes()),
            role,
            // Roles are spread over the sites.
            site: index % spec.nodes.div_ceil(spec.site_nodes.max(1)),
            is_up: true,
            uplink: if is_slow { 60 } else { rng.within(1_000, 12_000) },
            downlink: rng.within(2_000, 60_000),
            sent_until: 0,
            received_until: 0,
            held,
            held_count,
            has_pages: false,
            fetch: None,
            budget: Budget::new(spec.budget),
            upload: Upload::new(),
            owed: BTreeMap::new(),
            placed: BTreeMap::new(),
            answer: None,
            banned: BTreeSet::new(),
            is_done: role != Role::Fetcher,
        }
    }
}

fn set(bits: &mut Bits, piece: u64) {
    if let Some(byte) = usize::try_from(piece / 8).ok().and_then(|at| bits.0.get_mut(at)) {
        *byte |= 1 << (piece % 8);
    }
}
