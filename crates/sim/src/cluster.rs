//! Real nodes on the machines of a world.
//!
//! A cluster founds a mesh with its first node and lets the others join it with a ticket, as
//! people do. From there on a scenario asks, crashes, cuts and starts again.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use commons_exchange::entry::Entry;
use commons_node::api::{Ask, JoinState, NodeApi as _, Opening};
use commons_node::{Node, NodeConfig};
use commons_record::evidence::Evidence;
use commons_record::mesh::Capability;
use commons_record::settlement::Scope;
use commons_record::{Hash, Millis, SecretKey};
use zeroize::Zeroizing;

use crate::entropy::Rng;
use crate::invariants;
use crate::life::NodeId;
use crate::lock;
use crate::net::Crash;
use crate::user::{self, User};
use crate::world::{NodeSpec, World};

/// Founding, joining and getting to know each other takes seconds. A presence whose gossip was
/// lost is announced again after 200 of them, and may be lost again.
const MEET_MAX: Millis = Millis::from_secs(450);

/// A world with real nodes in it. It is a [`World`] in every other respect.
#[derive(Debug)]
pub struct Cluster {
    // Before the world, so that nodes are dropped while it stands.
    running: Mutex<BTreeMap<NodeId, Arc<Node>>>,
    world: World,
}

impl Deref for Cluster {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl Cluster {
    /// Machines for these nodes, all off. The invariants hold from the beginning.
    pub fn new(seed: u64, specs: Vec<NodeSpec>) -> Self {
        let world = World::new(seed);
        world.hold(&invariants::ALL);
        for spec in specs {
            world.add(spec);
        }
        Self { running: Mutex::default(), world }
    }

    /// Runs a scenario on nodes that have met.
    pub fn play(seed: u64, specs: Vec<NodeSpec>, scenario: impl AsyncFnOnce(&Self)) {
        let cluster = Self::new(seed, specs);
        cluster.run(async {
            cluster.meet().await;
            scenario(&cluster).await;
        });
    }

    /// Starts every node; the first founds a mesh, and all others join it and know each other.
    pub async fn meet(&self) {
        for node in self.nodes() {
            self.start(node).await;
        }
        let ticket = self.ticket().await;
        for node in self.nodes().into_iter().skip(1) {
            self.join(node, &ticket).await;
        }
        let others = self.node_count() - 1;
        for node in self.nodes() {
            self.knows(node, others).await;
        }
    }

    /// Starts a node on its machine.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub async fn start(&self, node: NodeId) {
        let ports = self.boot(node);
        let started = Node::start(self.config(node), ports).await;
        let started = started.unwrap_or_else(|error| panic!("{node} does not start: {error}"));
        lock(&self.running).insert(node, started);
    }

    /// What a node is told at its start: the same at every start.
    pub fn config(&self, node: NodeId) -> NodeConfig {
        let draw = |purpose| Rng::new(self.seed(), purpose, u64::from(node.0)).bytes();
        NodeConfig {
            owner: SecretKey::from_seed(&draw("owner")),
            node: self.secret(node),
            hpke_seed: Zeroizing::new(draw("hpke")),
            mesh_name: format!("mesh of {node}"),
            capability: Capability { device: "sim".to_owned(), threads: 1, memory_mib: 1024 },
            share: self.shares(node),
            version: "0.0.0".to_owned(),
        }
    }

    /// A running node.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn node(&self, node: NodeId) -> Arc<Node> {
        let running = lock(&self.running);
        running.get(&node).cloned().unwrap_or_else(|| panic!("{node} does not run"))
    }

    /// Kills a node or cuts its power.
    pub fn kill(&self, node: NodeId, crash: Crash) {
        self.crash(node, crash);
        let gone = lock(&self.running).remove(&node);
        drop(gone);
    }

    /// An invitation by the first node.
    ///
    /// # Panics
    ///
    /// If it does not invite.
    pub async fn ticket(&self) -> String {
        let invite = self.node(NodeId(0)).invite(1024).await;
        invite.unwrap_or_else(|refusal| panic!("no ticket: {refusal}")).ticket
    }

    /// Joins a mesh and waits until it is done.
    ///
    /// # Panics
    ///
    /// If it is refused or takes too long.
    pub async fn join(&self, node: NodeId, ticket: &str) {
        let joining = self.node(node).join(ticket.to_owned()).await;
        joining.unwrap_or_else(|refusal| panic!("{node} cannot join: {refusal}"));
        let end = self.now().saturating_add(MEET_MAX);
        loop {
            let state = self.node(node).status().await.join.map(|view| view.state);
            match state {
                Some(JoinState::Joined) => return,
                Some(JoinState::Refused { reason }) => panic!("{node} was refused: {reason}"),
                Some(JoinState::Trying { .. }) | None => {}
            }
            assert!(self.now() < end, "{node} did not join: {state:?}");
            self.sleep(Millis(20)).await;
        }
    }

    /// Waits until a node knows at least so many members.
    pub async fn knows(&self, node: NodeId, count: usize) {
        let counted = || self.node(node).counters().peers >= count as u64;
        self.until(&format!("{node} knows {count} members"), MEET_MAX, counted).await;
    }

    /// Someone asks a node.
    pub fn ask(&self, node: NodeId, ask: Ask) -> User {
        user::ask(self, node, self.node(node), ask)
    }

    /// Whether nothing is owed any more: every exchange with another node has its receipt, and
    /// nothing waits for anybody.
    ///
    /// # Panics
    ///
    /// If a disk cannot be read.
    pub fn is_settled(&self) -> bool {
        let books = self.books().unwrap_or_else(|error| panic!("{error}"));
        books
            .iter()
            .all(|book| book.outbox == 0 && !book.entries.iter().any(|entry| is_open(entry)))
    }

    /// Waits until nothing is owed any more, and checks all evidence.
    ///
    /// # Panics
    ///
    /// If something is still owed after `patience`, with what it is.
    pub async fn settles(&self, patience: Millis) {
        let end = self.now().saturating_add(patience);
        while !self.is_settled() {
            assert!(self.now() < end, "still owed after {patience}: {:#?}", self.owed());
            self.sleep(Millis(500)).await;
        }
        self.shows_its_evidence().await;
    }

    /// Has every running node show what it holds, and verifies it as a stranger would.
    ///
    /// # Panics
    ///
    /// If a file does not hold.
    pub async fn shows_its_evidence(&self) {
        let running: Vec<(NodeId, Arc<Node>)> =
            lock(&self.running).iter().map(|(id, node)| (*id, Arc::clone(node))).collect();
        for (id, node) in running {
            let receipts = node.receipts(1_000).await;
            for view in receipts.unwrap_or_else(|refusal| panic!("{id}: {refusal}")) {
                for opening in [Opening::Include, Opening::Omit] {
                    let file = node.evidence(view.receipt.to_string(), opening).await;
                    let file = file.unwrap_or_else(|refusal| panic!("{id}: {refusal}"));
                    let checked = Evidence::decode(&file).and_then(|file| file.verify());
                    let about = format!("{id}, receipt {}, {opening:?}", view.receipt);
                    checked.unwrap_or_else(|error| panic!("{about}: {error}"));
                }
            }
        }
    }

    fn owed(&self) -> Vec<String> {
        let books = self.books().unwrap_or_default();
        let at_counterparty = |entry: &Arc<Entry>| {
            let other = books.iter().find(|book| book.peer == entry.counterparty)?;
            other.entries.iter().find(|it| it.order == entry.order && it.side != entry.side)
        };
        let line = |entry: &Arc<Entry>| {
            let about = |it: &Entry| {
                format!(
                    "{:?} voucher {} receipt {}",
                    it.side,
                    it.voucher.is_some(),
                    it.receipt.is_some()
                )
            };
            let other = at_counterparty(entry).map(|it| about(it));
            format!("order {}: {}; across: {other:?}", entry.order, about(entry))
        };
        let mut lines = Vec::new();
        for book in &books {
            let open = book.entries.iter().filter(|entry| is_open(entry)).map(line);
            lines.extend(open.map(|line| format!("{} {line}", book.node)));
            lines.push(format!("{}: {} in the outbox", book.node, book.outbox));
        }
        lines
    }

    /// The mesh that a node belongs to.
    pub async fn mesh(&self, node: NodeId) -> Hash {
        self.node(node).status().await.mesh
    }
}

/// Accepted by another node, and without a receipt. What a node served itself is nobody's due.
fn is_open(entry: &Entry) -> bool {
    entry.scope == Scope::Mesh && entry.receipt.is_none() && entry.manifest.is_some()
}
