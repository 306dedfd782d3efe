//! Two machines back to back, in virtual time: a second shell around them.
//!
//! It performs outputs as `node` does: in order, and nothing after a `Persist` that failed.
//! Messages cross as bytes in two queues that a test delivers, delays and cuts. After every
//! step the invariants of [`crate::invariant`] are checked.
//!
//! Not here: what is offered again after the end (`settling.rs`).

use std::cell::Cell;
use std::collections::VecDeque;

use commons_exchange::message::{Message, ToProvider, ToRequester, WireCode, WireRefusal};
use commons_exchange::provider::{self, Provider};
use commons_exchange::requester::{self, Clock, Event, Requester};
use commons_exchange::{SequenceRange, Standing};
use commons_record::envelope::Verified;
use commons_record::order::{Infer, Order};
use commons_record::settlement::PairPosition;
use commons_record::{Hash, Millis, PeerId};

use crate::disk::Disk;
use crate::engine::{Engine, Script};
use crate::{invariant, sample};

/// What differs between two worlds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) script: Script,
    pub(crate) seed: Option<i64>,
    pub(crate) voucher_step: u32,
    /// One node is both parties.
    pub(crate) is_local: bool,
}

impl Setup {
    pub(crate) fn answer(tokens: u32) -> Self {
        Self { script: Script::answer(tokens), seed: None, voucher_step: 4, is_local: false }
    }
}

/// What comes out of one direction of the stream.
enum Arrival<M> {
    Message(M),
    End,
}

/// One direction of the stream.
#[derive(Debug)]
pub(crate) struct Pipe<M> {
    queue: VecDeque<Vec<u8>>,
    /// Everything that was ever sent, delivered or not.
    pub(crate) sent: Vec<M>,
    is_ended: bool,
    is_end_told: bool,
}

impl<M: Message> Pipe<M> {
    fn new() -> Self {
        Self { queue: VecDeque::new(), sent: Vec::new(), is_ended: false, is_end_told: false }
    }

    fn push(&mut self, message: M) {
        if !self.is_ended {
            self.queue.push_back(message.to_bytes());
        }
        self.sent.push(message);
    }

    /// What arrives next; the end comes once.
    fn pop(&mut self) -> Option<Arrival<M>> {
        if let Some(bytes) = self.queue.pop_front() {
            let message = M::from_bytes(&bytes).expect("what a machine sends can be read");
            return Some(Arrival::Message(message));
        }
        let is_news = self.is_ended && !std::mem::replace(&mut self.is_end_told, self.is_ended);
        is_news.then_some(Arrival::End)
    }

    fn cut(&mut self, keep: usize) {
        self.queue.truncate(keep);
        self.is_ended = true;
    }
}

/// The requester's side.
pub(crate) struct Asker {
    pub(crate) standing: Standing,
    pub(crate) machine: Option<Requester>,
    pub(crate) is_closed: bool,
    /// What the user was told.
    pub(crate) told: Vec<Event>,
    /// Tokens that the machine was given, told or not.
    pub(crate) received: Vec<u32>,
}

/// The provider's side.
pub(crate) struct Server {
    pub(crate) standing: Standing,
    pub(crate) machine: Option<Provider>,
    pub(crate) is_closed: bool,
    pub(crate) engine: Option<Engine>,
    /// The seed that the engine sampled with.
    pub(crate) seed: Option<[u8; 32]>,
}

pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) now: Millis,
    pub(crate) order: Verified<Order>,
    pub(crate) asker: Asker,
    pub(crate) server: Server,
    pub(crate) up: Pipe<ToProvider>,
    pub(crate) down: Pipe<ToRequester>,
    /// The provider's, and the requester's unless it is the same node.
    disks: [Disk; 2],
    /// Commits that the invariants have seen.
    checked: Cell<usize>,
}

pub(crate) const START: Millis = Millis(1_000_000);

impl World {
    /// A world in which the order was just asked.
    pub(crate) fn begin(setup: Setup) -> Self {
        Self::begin_on(setup, |_| {})
    }

    /// The same, with disks that were prepared first.
    pub(crate) fn begin_on(setup: Setup, prepare: impl FnOnce(&mut Self)) -> Self {
        let server = sample::standing(sample::PROVIDER, sample::AUTHORITY, setup.voucher_step);
        let asker = if setup.is_local {
            server.clone()
        } else {
            sample::standing(sample::REQUESTER, sample::OWNER, setup.voucher_step)
        };
        let draft = sample::draft(server.peer(), setup.seed);
        let clock = Clock { now: START, unix: sample::CALENDAR };
        let sequences = SequenceRange::new(100, 100 + 48 / u64::from(setup.voucher_step) + 4);
        let machine = Requester::new(asker.clone(), draft, sample::secrets(), sequences, clock);
        let machine = machine.expect("numbers are left");
        let mut world = Self {
            setup,
            now: START,
            order: machine.order().clone(),
            asker: Asker {
                standing: asker,
                machine: Some(machine),
                is_closed: false,
                told: Vec::new(),
                received: Vec::new(),
            },
            server: Server {
                standing: server,
                machine: None,
                is_closed: false,
                engine: None,
                seed: None,
            },
            up: Pipe::new(),
            down: Pipe::new(),
            disks: [Disk::default(), Disk::default()],
            checked: Cell::new(usize::MAX),
        };
        prepare(&mut world);
        world.step_asker(requester::Input::Begin);
        world
    }

    pub(crate) fn provider(&self) -> PeerId {
        self.server.standing.peer()
    }

    pub(crate) fn requester(&self) -> PeerId {
        self.asker.standing.peer()
    }

    pub(crate) fn server_disk(&mut self) -> &mut Disk {
        &mut self.disks[0]
    }

    pub(crate) fn asker_disk(&mut self) -> &mut Disk {
        &mut self.disks[usize::from(!self.setup.is_local)]
    }

    pub(crate) fn disk_of_server(&self) -> &Disk {
        &self.disks[0]
    }

    pub(crate) fn disk_of_asker(&self) -> &Disk {
        &self.disks[usize::from(!self.setup.is_local)]
    }

    /// Whether anything was stored since this was asked last.
    pub(crate) fn has_stored(&self) -> bool {
        let commits = self.disks.iter().map(|disk| disk.commits).sum();
        self.checked.replace(commits) != commits
    }

    pub(crate) fn order_id(&self) -> Hash {
        self.order.id()
    }

    /// Steps the requester's machine and performs what follows.
    pub(crate) fn step_asker(&mut self, input: requester::Input) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let Some(machine) = &mut self.asker.machine else { return };
            let outputs = machine.step(self.now, input);
            next = self.perform_asker(outputs);
        }
        invariant::hold(self);
    }

    fn perform_asker(&mut self, outputs: Vec<requester::Output>) -> Option<requester::Input> {
        for output in outputs {
            assert!(!self.asker.is_closed, "the requester does {output:?} after it closed");
            match output {
                requester::Output::Persist(changes) => {
                    if self.asker_disk().commit(changes).is_err() {
                        return Some(requester::Input::StorageFailed("the disk is full".into()));
                    }
                }
                requester::Output::Send(message) => {
                    invariant::e3_requester_persists_before_it_sends(self, &message);
                    self.up.push(message);
                }
                requester::Output::Event(event) => self.asker.told.push(event),
                requester::Output::Close => {
                    self.asker.is_closed = true;
                    self.up.is_ended = true;
                }
            }
        }
        None
    }

    /// Steps the provider's machine and performs what follows.
    pub(crate) fn step_server(&mut self, input: provider::Input) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let Some(machine) = &mut self.server.machine else { return };
            let outputs = machine.step(self.now, input);
            next = self.perform_server(outputs);
        }
        invariant::hold(self);
    }

    fn perform_server(&mut self, outputs: Vec<provider::Output>) -> Option<provider::Input> {
        let mut follows = None;
        for output in outputs {
            assert!(!self.server.is_closed, "the provider does {output:?} after it closed");
            match output {
                provider::Output::StartEngine(request) => {
                    self.server.seed = request.seed;
                    match Engine::start(self.setup.script, *request) {
                        Ok(engine) => self.server.engine = Some(engine),
                        Err(refusal) => return Some(provider::Input::EngineRefused(refusal)),
                    }
                }
                provider::Output::RevealSeed(seed) => {
                    self.server.seed = Some(seed);
                    self.server.engine.as_mut().expect("it is running").seed = Some(seed);
                }
                provider::Output::DropEngine => self.server.engine = None,
                provider::Output::Persist(changes) => {
                    if self.server_disk().commit(changes).is_err() {
                        return Some(provider::Input::StorageFailed);
                    }
                }
                provider::Output::Send(message) => {
                    invariant::e3_provider_persists_before_it_sends(self, &message);
                    self.down.push(message);
                }
                provider::Output::AllotPair(amount) => {
                    let last = self.disk_of_server().pair(&self.provider(), &self.requester());
                    let next: PairPosition = last.next(amount).expect("amounts are small here");
                    follows = Some(provider::Input::Allotted(next));
                }
                provider::Output::Close => {
                    self.server.is_closed = true;
                    self.down.is_ended = true;
                }
            }
        }
        follows
    }

    /// Delivers one message to the provider, or the end of the stream. Whether there was one.
    pub(crate) fn deliver_up(&mut self) -> bool {
        let Some(next) = self.up.pop() else { return false };
        match (next, self.server.machine.is_some()) {
            _ if self.server.is_closed => {}
            (Arrival::Message(ToProvider::Ask(ask)), false) => {
                assert!(!self.knows_order(), "an order that is known is asked only once here");
                let served = sample::served_by(&self.server.standing.author);
                let served = |infer: &Infer| (infer.model == sample::MODEL).then(|| served.clone());
                let standing = self.server.standing.clone();
                let admitted = provider::admit(&standing, self.requester(), *ask, served);
                let admitted = admitted.expect("an honest order is admitted");
                let clock = Clock { now: self.now, unix: sample::CALENDAR };
                let (nonce, sequences) = (sample::PROVIDER_NONCE, SequenceRange::new(500, 501));
                let machine = Provider::new(standing, admitted, nonce, sequences, clock);
                self.server.machine = Some(machine);
                self.step_server(provider::Input::Begin);
            }
            (Arrival::Message(message), true) => {
                self.step_server(provider::Input::Message(message));
            }
            (Arrival::End, true) => self.step_server(provider::Input::Closed),
            (_, false) => {
                self.server.is_closed = true;
                self.down.is_ended = true;
            }
        }
        true
    }

    fn knows_order(&self) -> bool {
        let side = commons_exchange::entry::Side::Provider;
        self.disk_of_server().entry(side, &self.order_id()).is_some()
    }

    /// Delivers one message to the requester, or the end of the stream. Whether there was one.
    pub(crate) fn deliver_down(&mut self) -> bool {
        let Some(next) = self.down.pop() else { return false };
        if self.asker.is_closed || self.asker.machine.is_none() {
            return true;
        }
        match next {
            Arrival::Message(message) => {
                if let ToRequester::Tokens(tokens) = &message {
                    self.asker.received.extend(tokens.iter().map(|token| token.id));
                }
                self.step_asker(requester::Input::Message(message));
            }
            Arrival::End => {
                let refusal = WireRefusal::new(WireCode::Disconnected, "the stream was cut");
                self.step_asker(requester::Input::Closed(refusal));
            }
        }
        true
    }

    /// Lets the engine say the next thing, if it is asked. Whether it did.
    pub(crate) fn run_engine(&mut self) -> bool {
        let is_wanted = self.server.machine.as_ref().is_some_and(Provider::wants_engine);
        let Some(engine) = self.server.engine.as_mut().filter(|_| is_wanted) else { return false };
        let Some(input) = engine.next() else { return false };
        self.step_server(input);
        true
    }

    /// Fires both timers whether they are due or not.
    pub(crate) fn fire_timers(&mut self) {
        self.step_server(provider::Input::TimerFired);
        self.step_asker(requester::Input::TimerFired);
    }

    /// When something is due next.
    pub(crate) fn wake_at(&self) -> Option<Millis> {
        let asker = self.asker.machine.as_ref().and_then(Requester::wake_at);
        let server = self.server.machine.as_ref().and_then(Provider::wake_at);
        asker.into_iter().chain(server).min()
    }

    /// Lets time pass, firing what is due on the way.
    pub(crate) fn wait(&mut self, duration: Millis) {
        let until = self.now.saturating_add(duration);
        for _ in 0..100_000 {
            match self.wake_at().filter(|at| *at <= until) {
                Some(at) => {
                    self.now = self.now.max(at);
                    self.fire_timers();
                    assert!(
                        self.wake_at().is_none_or(|at| at > self.now),
                        "a timer that fired is due again at once"
                    );
                }
                None => {
                    self.now = until;
                    return;
                }
            }
        }
        panic!("timers never end");
    }

    /// The connection breaks; so many messages of each direction were on the wire already.
    pub(crate) fn cut(&mut self, keep_up: usize, keep_down: usize) {
        self.up.cut(keep_up);
        self.down.cut(keep_down);
    }

    /// The requester's process is gone, and its memory with it.
    pub(crate) fn crash_asker(&mut self) {
        self.asker.machine = None;
        self.up.is_ended = true;
    }

    /// The provider's process is gone, and its memory with it.
    pub(crate) fn crash_server(&mut self) {
        self.server.machine = None;
        self.server.is_closed = true;
        self.server.engine = None;
        self.down.is_ended = true;
    }

    /// Everything that can happen without time passing.
    pub(crate) fn settle_down(&mut self) {
        while self.deliver_up() || self.deliver_down() || self.run_engine() {}
    }

    /// Whether both sides are over, or gone.
    pub(crate) fn is_over(&self) -> bool {
        self.wake_at().is_none()
    }

    /// Runs on fairly until both sides are over (Rule E13).
    pub(crate) fn run_to_the_end(&mut self) {
        // A deadline and the grace times after it, counted from an order that comes only now.
        let limit = self.now.saturating_add(Millis::from_secs(60 + 20));
        loop {
            self.settle_down();
            let Some(at) = self.wake_at() else { return };
            assert!(self.now <= limit, "Rule E13: the exchange does not end");
            self.wait(at.since(self.now));
        }
    }
}
