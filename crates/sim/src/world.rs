//! A world: nodes that start, crash and start again, and what must hold for all of them.
//!
//! ```no_run
//! # use commons_sim::world::{NodeSpec, World};
//! let world = World::new(7);
//! let node = world.add(NodeSpec::default());
//! let ports = world.boot(node);
//! world.run(async { ports.clock.sleep_until(commons_record::Millis(500)).await });
//! ```
//!
//! A scenario is an async block given to [`World::run`]; when it cannot go on, the run panics
//! with the seed and the end of the log. Invariants are named functions over the whole world;
//! they are checked every second of virtual time, at every crash and at the end.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use commons_node::Ports;
use commons_record::{Millis, PeerId, SecretKey};

use crate::books::{Book, Library};
use crate::clock::{Micros, SimClock, Skew};
use crate::engine::{SimEngine, SimModel};
use crate::entropy::{Rng, SimEntropy};
use crate::executor::{Executor, Schedule, SimSpawn, Stuck};
use crate::journal::{Disk, SimJournal};
use crate::life::{Life, NodeId};
use crate::lock;
use crate::log::Log;
use crate::net::{Crash, Fabric, Place};
use crate::user::Notebook;

/// Lines of the log that a failure prints.
const TAIL: usize = 60;

/// How often invariants are checked.
const CHECK_EVERY: Micros = Micros::from_secs(1);

/// A scenario that is not over after this hangs, unless [`World::set_end`] says otherwise.
const END: Micros = Micros::from_secs(2 * 3600);

/// Something that must hold, and what to call it.
pub type Invariant = (&'static str, fn(&World) -> Result<(), String>);

/// What a node is to be.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// Models that its engine holds.
    pub models: Vec<SimModel>,
    /// Where its address lies.
    pub place: Place,
    /// How far its calendar is off, in milliseconds.
    pub skew_ms: i64,
    /// Whether its owner lets others use its engine.
    pub shares: bool,
}

impl Default for NodeSpec {
    fn default() -> Self {
        Self { models: Vec::new(), place: Place::Public, skew_ms: 0, shares: true }
    }
}

impl NodeSpec {
    /// A node on the internet that holds one model.
    pub fn with_model(model: SimModel) -> Self {
        Self { models: vec![model], ..Self::default() }
    }
}

/// What outlives the runs of a node.
#[derive(Debug)]
struct Machine {
    secret: [u8; 32],
    disk: Arc<Disk>,
    engine: Arc<SimEngine>,
    skew: Skew,
    shares: bool,
    life: Option<Arc<Life>>,
    ports: Option<Ports>,
    is_mock: bool,
    runs: u32,
}

/// A world of nodes. Dropping it stops everything in it.
#[derive(Debug)]
pub struct World {
    seed: u64,
    executor: Executor,
    log: Arc<Log>,
    fabric: Arc<Fabric>,
    machines: Mutex<Vec<Machine>>,
    invariants: Mutex<Vec<Invariant>>,
    heard: Arc<Notebook>,
    library: Library,
}

impl World {
    /// An empty world in which ready tasks run in any order.
    pub fn new(seed: u64) -> Self {
        Self::with_schedule(seed, Schedule::Shuffled)
    }

    /// An empty world with a schedule of one's choice.
    pub fn with_schedule(seed: u64, schedule: Schedule) -> Self {
        let executor = Executor::new(seed, schedule);
        executor.set_end(END);
        let log = Arc::new(Log::new(executor.clone()));
        let fabric = Fabric::new(seed, executor.clone(), Arc::clone(&log));
        let (machines, invariants) = (Mutex::default(), Mutex::default());
        let heard = Arc::new(Notebook::new(executor.clone()));
        Self {
            seed,
            executor,
            log,
            fabric,
            machines,
            invariants,
            heard,
            library: Library::default(),
        }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The log.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// The network, for what a scenario does to it.
    pub fn net(&self) -> &Arc<Fabric> {
        &self.fabric
    }

    /// The executor, for tasks of the scenario itself.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// Gives a scenario up that is not over by then.
    pub fn set_end(&self, end: Millis) {
        self.executor.set_end(end.into());
    }

    /// A generator for the scenario's own choices.
    pub fn rng(&self, purpose: &str) -> Rng {
        Rng::new(self.seed, purpose, u64::MAX)
    }

    /// Adds a node that is switched off.
    pub fn add(&self, spec: NodeSpec) -> NodeId {
        let mut machines = lock(&self.machines);
        let index = machines.len() as u64;
        let secret = Rng::new(self.seed, "key", index).bytes();
        let peer = PeerId::from_key(SecretKey::from_seed(&secret).public());
        let node = self.fabric.add_host(peer, spec.place);
        let (executor, log) = (self.executor.clone(), Arc::clone(&self.log));
        let rng = Rng::new(self.seed, "disk", index);
        machines.push(Machine {
            secret,
            disk: Disk::new(executor.clone(), Arc::clone(&log), rng),
            engine: SimEngine::new(executor, log, spec.models),
            skew: Skew::new(spec.skew_ms.into()),
            shares: spec.shares,
            life: None,
            ports: None,
            is_mock: false,
            runs: 0,
        });
        node
    }

    /// How many nodes there are, on or off.
    pub fn node_count(&self) -> usize {
        lock(&self.machines).len()
    }

    /// All nodes.
    pub fn nodes(&self) -> Vec<NodeId> {
        (0..).take(self.node_count()).map(NodeId).collect()
    }

    /// A node's key.
    pub fn secret(&self, node: NodeId) -> SecretKey {
        SecretKey::from_seed(&lock(&self.machines)[node.index()].secret)
    }

    /// A node's name in the network.
    pub fn peer(&self, node: NodeId) -> PeerId {
        self.fabric.peer(node)
    }

    /// A node's disk.
    pub fn disk(&self, node: NodeId) -> Arc<Disk> {
        Arc::clone(&lock(&self.machines)[node.index()].disk)
    }

    /// A node's engine.
    pub fn engine(&self, node: NodeId) -> Arc<SimEngine> {
        Arc::clone(&lock(&self.machines)[node.index()].engine)
    }

    /// Whether a node's owner lets others use its engine.
    pub fn shares(&self, node: NodeId) -> bool {
        lock(&self.machines)[node.index()].shares
    }

    /// Sets how far a node's calendar is off: a jump, if the node runs.
    pub fn set_skew(&self, node: NodeId, skew_ms: i64) {
        lock(&self.machines)[node.index()].skew.store(skew_ms, Ordering::Relaxed);
    }

    /// Begins a run of a node that is off, and lends it what a node needs.
    ///
    /// # Panics
    ///
    /// If the node runs.
    pub fn boot(&self, node: NodeId) -> Ports {
        let mut machines = lock(&self.machines);
        let machine = &mut machines[node.index()];
        assert!(machine.life.is_none(), "{node} runs already");
        let life = Arc::new(Life::new(node, machine.runs));
        let run = u64::from(node.0) << 32 | u64::from(machine.runs);
        machine.runs += 1;
        machine.life = Some(Arc::clone(&life));
        self.fabric.power_on(Arc::clone(&life));
        self.log.note(Some(node), "node.booted", format_args!("run {}", life.run));
        let late = Rng::new(self.seed, "late", run);
        let clock = SimClock::new(self.executor.clone(), Arc::clone(&machine.skew), late);
        let ports = Ports {
            net: Arc::new(self.fabric.net(Arc::clone(&life))),
            engine: Arc::new(machine.engine.of_run(Arc::clone(&life))),
            journal: Arc::new(SimJournal::new(Arc::clone(&machine.disk), Arc::clone(&life))),
            clock: Arc::new(clock),
            entropy: Arc::new(SimEntropy::new(Rng::new(self.seed, "entropy", run))),
            spawn: Arc::new(SimSpawn::new(self.executor.clone(), life)),
            files: None,
        };
        machine.ports = Some(ports.clone());
        ports
    }

    /// What the present run of a node is lent.
    ///
    /// # Panics
    ///
    /// If the node is off.
    pub fn ports(&self, node: NodeId) -> Ports {
        let ports = lock(&self.machines)[node.index()].ports.clone();
        ports.unwrap_or_else(|| panic!("{node} is off"))
    }

    /// Ends a run as `kill -9` or a power cut does: all tasks at once, no farewell.
    ///
    /// Must not be called from a task of that node.
    pub fn crash(&self, node: NodeId, crash: Crash) {
        let Some((life, disk)) = ({
            let mut machines = lock(&self.machines);
            let machine = &mut machines[node.index()];
            machine.ports = None;
            machine.life.take().map(|life| (life, Arc::clone(&machine.disk)))
        }) else {
            return;
        };
        self.log.note(Some(node), "node.crashed", format_args!("{crash:?}"));
        life.end();
        self.fabric.power_off(node, crash);
        disk.crash();
        self.executor.stop_node(node);
        self.check_invariants();
    }

    /// What users heard so far.
    pub fn heard(&self) -> &Arc<Notebook> {
        &self.heard
    }

    /// What is on a node's disk.
    pub fn book(&self, node: NodeId) -> Result<Arc<Book>, String> {
        self.library.book(self, node)
    }

    /// What is on all disks.
    pub fn books(&self) -> Result<Vec<Arc<Book>>, String> {
        self.nodes().into_iter().map(|node| self.book(node)).collect()
    }

    /// Whether a mock has taken a node's place: it keeps no records and no rules.
    pub fn is_mock(&self, node: NodeId) -> bool {
        lock(&self.machines)[node.index()].is_mock
    }

    pub(crate) fn set_mock(&self, node: NodeId) {
        lock(&self.machines)[node.index()].is_mock = true;
    }

    /// Whether a node runs.
    pub fn is_running(&self, node: NodeId) -> bool {
        lock(&self.machines)[node.index()].life.is_some()
    }

    /// Lets time pass.
    pub async fn sleep(&self, duration: Millis) {
        self.executor.sleep(duration.into()).await;
    }

    /// The time since the world began.
    pub fn now(&self) -> Millis {
        self.executor.now().as_millis()
    }

    /// Waits until something is so, looking every ten milliseconds.
    ///
    /// # Panics
    ///
    /// If it is not so within `patience`.
    pub async fn until(&self, what: &str, patience: Millis, is_so: impl Fn() -> bool) {
        let end = self.now().saturating_add(patience);
        while !is_so() {
            assert!(self.now() < end, "not within {patience}: {what}");
            self.sleep(Millis(10)).await;
        }
    }

    /// Checks these from now on.
    pub fn hold(&self, invariants: &[Invariant]) {
        lock(&self.invariants).extend_from_slice(invariants);
    }

    /// Checks every invariant now.
    ///
    /// # Panics
    ///
    /// If one does not hold.
    pub fn check_invariants(&self) {
        let invariants = lock(&self.invariants).clone();
        for (name, holds) in invariants {
            if let Err(what) = holds(self) {
                panic!("{name} is broken at {}: {what}", self.executor.now());
            }
        }
    }

    /// Runs a scenario to its end, checking invariants on the way.
    ///
    /// # Panics
    ///
    /// If the scenario cannot go on, or an invariant is broken.
    pub fn run<T>(&self, scenario: impl Future<Output = T>) -> T {
        let check = || self.check_invariants();
        let result = self.executor.block_on_watched(scenario, CHECK_EVERY, check);
        self.check_invariants();
        match result {
            Ok(value) => value,
            Err(stuck) => self.fail(&stuck),
        }
    }

    fn fail(&self, stuck: &Stuck) -> ! {
        panic!("seed {}: {stuck}", self.seed)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the end of the log of seed {}:\n{}", self.seed, self.log.tail(TAIL));
        }
        for machine in lock(&self.machines).iter() {
            if let Some(life) = &machine.life {
                life.end();
            }
        }
        self.executor.shut_down();
    }
}

#[cfg(test)]
mod tests;
