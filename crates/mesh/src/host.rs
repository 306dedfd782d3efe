//! The swarm task: it owns all sockets and connections, and takes no decision that a smaller
//! part can take (`redial.rs` when to dial, `gossip.rs` what travels on, `addr.rs` where).
//!
//! Everything that can wake the loop is an [`Input`]. It ends when the last handle is gone or
//! says so, and tells the peers goodbye.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use commons_port::net::{NetError, Validator};
use commons_record::{Hash, Millis, PeerId};
use futures::StreamExt as _;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Swarm, gossipsub};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use crate::addr::Book;
use crate::behaviour::{Behaviour, BehaviourEvent};
use crate::gossip::Topics;
use crate::identity;
use crate::peers::Sessions;
use crate::redial::{self, Redial};
use crate::streams::{Accepting, OpenError, OpenRequest};

mod listening;
pub(crate) mod providers;
mod waiting;

pub(crate) use listening::Listening;
use providers::Providers;
use waiting::Waiting;

/// What a handle asks of the host.
pub(crate) enum Command {
    Open { peer: PeerId, request: OpenRequest },
    Publish { topic: String, message: Vec<u8>, reply: oneshot::Sender<Result<(), NetError>> },
    Subscribe { topic: String, validator: Validator, deliver: mpsc::Sender<Vec<u8>> },
    ListenAddrs { reply: oneshot::Sender<Vec<String>> },
    Provide { key: Hash, is_on: bool, reply: oneshot::Sender<Result<(), NetError>> },
    FindProviders { key: Hash, deliver: mpsc::Sender<PeerId> },
    Shutdown,
}

/// Everything that can wake the host.
enum Input {
    Command(Command),
    HandlesGone,
    AddrsChanged,
    RedialDue,
    Sweep,
    Swarm(Box<SwarmEvent<BehaviourEvent>>),
}

/// How often what its owners have dropped is let go of.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How long goodbyes may take: a peer that does not answer is not worth more.
const GOODBYE_TIME: Duration = Duration::from_secs(1);

/// What the host is made of; see [`Host::run`].
pub(crate) struct Host {
    swarm: Swarm<Behaviour>,
    book: Arc<Book>,
    accepting: Arc<Accepting>,
    listening: Listening,
    sessions: Sessions,
    redial: Redial,
    /// Dials that `redial` asked for and that are not decided.
    dials: BTreeMap<ConnectionId, PeerId>,
    waiting: Waiting,
    topics: Topics,
    providers: Providers,
    start: Instant,
}

impl Host {
    pub(crate) fn new(
        swarm: Swarm<Behaviour>,
        listening: Listening,
        sessions: Sessions,
        redial: Redial,
        (book, accepting): (Arc<Book>, Arc<Accepting>),
    ) -> Self {
        Self {
            swarm,
            book,
            accepting,
            listening,
            sessions,
            redial,
            dials: BTreeMap::new(),
            waiting: Waiting::default(),
            topics: Topics::default(),
            providers: Providers::default(),
            start: Instant::now(),
        }
    }

    /// Runs until the handles are gone or one of them ends it.
    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let book = self.book.clone();
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.redial.deadline();
            // Not biased: whatever floods us, from the network or from ourselves, everything
            // else still gets its turns.
            let input = tokio::select! {
                () = self.sleep_until(due) => Input::RedialDue,
                _ = sweep.tick() => Input::Sweep,
                () = book.changed() => Input::AddrsChanged,
                command = inbox.recv() => command.map_or(Input::HandlesGone, Input::Command),
                event = self.swarm.select_next_some() => Input::Swarm(Box::new(event)),
            };
            match input {
                Input::HandlesGone | Input::Command(Command::Shutdown) => break,
                Input::Command(command) => self.on_command(command),
                Input::AddrsChanged => self.on_addrs_changed(),
                Input::RedialDue => self.step(redial::Input::TimerFired),
                Input::Sweep => self.on_sweep(),
                Input::Swarm(event) => self.on_event(*event),
            }
        }
        self.say_goodbye().await;
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Completes at a time on the host's clock, or never. Dropping it is harmless.
    fn sleep_until(&self, due: Option<Millis>) -> impl Future<Output = ()> + use<> {
        let at = due.map(|due| self.start + Duration::from_millis(due.0));
        async move {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Open { peer, request } => self.open(peer, request),
            Command::Publish { topic, message, reply } => {
                let gossip = &mut self.swarm.behaviour_mut().gossip;
                // Nobody may wait for the answer any more; the message is out all the same.
                let _ = reply.send(self.topics.publish(gossip, now, topic, message));
            }
            Command::Subscribe { topic, validator, deliver } => {
                let gossip = &mut self.swarm.behaviour_mut().gossip;
                self.topics.subscribe(gossip, topic, validator, deliver);
            }
            Command::ListenAddrs { reply } => self.listening.ask(&self.swarm, reply),
            Command::Provide { key, is_on, reply } => {
                let kad = &mut self.swarm.behaviour_mut().kad;
                // Nobody may wait for the answer any more; it is said all the same.
                let _ = reply.send(Providers::provide(kad, key, is_on));
            }
            Command::FindProviders { key, deliver } => {
                self.providers.search(&mut self.swarm.behaviour_mut().kad, key, deliver);
            }
            Command::Shutdown => {} // The loop ends before it gets here.
        }
    }

    /// Opens a stream on a connection that stands, or once one does.
    fn open(&mut self, peer: PeerId, request: OpenRequest) {
        self.on_addrs_changed(); // What the caller said before is heard before.
        let refuse = |request: OpenRequest, detail: &str| {
            // The caller may have given up: then nobody needs the answer.
            let _ = request.reply.send(Err(OpenError::Unreachable(detail.to_owned())));
        };
        let Some(id) = identity::to_libp2p(peer) else {
            return refuse(request, "its key is not a key");
        };
        if id == *self.swarm.local_peer_id() {
            return refuse(request, "it is this node itself");
        }
        if self.swarm.is_connected(&id) {
            return self.swarm.behaviour_mut().streams.open(id, request);
        }
        if self.book.addrs(peer).is_none_or(|addrs| addrs.is_empty()) {
            return refuse(request, "no address of it is known");
        }
        if let Err(request) = self.waiting.push(peer, request) {
            return refuse(request, "too many streams wait for it already");
        }
        self.step(redial::Input::Wanted(peer));
    }

    /// Takes over what the book has heard, and lets go of what it has forgotten.
    fn on_addrs_changed(&mut self) {
        let fresh = self.book.take_fresh();
        if fresh.is_empty() {
            return;
        }
        let forgotten: Vec<PeerId> =
            self.redial.peers().filter(|peer| self.book.addrs(*peer).is_none()).collect();
        for peer in forgotten {
            if let Some(id) = identity::to_libp2p(peer) {
                let behaviour = self.swarm.behaviour_mut();
                behaviour.streams.keep(id, false);
                behaviour.kad.remove_peer(&id);
            }
            self.step(redial::Input::Forgotten(peer));
        }
        for peer in fresh {
            let Some(id) = identity::to_libp2p(peer) else { continue };
            let Some(addrs) = self.book.addrs(peer) else { continue };
            let behaviour = self.swarm.behaviour_mut();
            behaviour.streams.keep(id, true);
            for addr in addrs {
                behaviour.kad.add_address(&id, addr);
            }
            let is_connected = self.swarm.is_connected(&id);
            self.step(redial::Input::Known { peer, is_connected });
        }
    }

    fn on_sweep(&mut self) {
        let now = self.now();
        self.topics.sweep(&mut self.swarm.behaviour_mut().gossip, now);
        self.waiting.sweep();
    }

    /// Steps the redial machine and does what it says.
    fn step(&mut self, input: redial::Input) {
        let now = self.now();
        for redial::Output::Dial(peer) in self.redial.step(now, input) {
            self.dial(peer);
        }
    }

    fn dial(&mut self, peer: PeerId) {
        let addrs = self.book.addrs(peer).unwrap_or_default();
        let Some(id) = identity::to_libp2p(peer) else { return };
        let dial = DialOpts::peer_id(id).condition(PeerCondition::Disconnected).addresses(addrs);
        let dial = dial.build();
        self.dials.insert(dial.connection_id(), peer);
        let connection = dial.connection_id();
        if let Err(error) = self.swarm.dial(dial) {
            self.on_dial_failed(connection, &error);
        }
    }

    fn on_dial_failed(&mut self, connection: ConnectionId, error: &DialError) {
        let Some(peer) = self.dials.remove(&connection) else { return };
        // The first address that answers decides a dial. If somebody else answered there, the
        // peer may still be at the next.
        if let DialError::WrongPeerId { address, .. } | DialError::LocalPeerId { address } = error
            && self.book.discredit(peer, address)
        {
            return self.dial(peer);
        }
        let detail = in_short(error);
        tracing::debug!(%peer, %detail, "a dial failed");
        let is_connected = identity::to_libp2p(peer).is_some_and(|id| self.swarm.is_connected(&id));
        if !is_connected {
            self.waiting.fail(peer, &detail);
        }
        self.step(redial::Input::DialFailed(peer));
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(event)) => self.on_gossip(event),
            SwarmEvent::Behaviour(BehaviourEvent::Kad(event)) => {
                let (now, book) = (self.now(), Arc::clone(&self.book));
                let is_known = |peer| book.addrs(peer).is_some();
                let kad = &mut self.swarm.behaviour_mut().kad;
                self.providers.on_event(kad, now, is_known, event);
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.dials.remove(&connection_id);
                let Some(peer) = identity::from_libp2p(&peer_id) else { return };
                self.on_connected(peer, peer_id, endpoint.get_remote_address().to_string());
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, cause, .. } => {
                let Some(peer) = identity::from_libp2p(&peer_id) else { return };
                tracing::debug!(%peer, ?cause, "disconnected");
                self.sessions.end(peer);
                self.step(redial::Input::Disconnected(peer));
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.on_dial_failed(connection_id, &error);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(from = %send_back_addr, %error, "an incoming connection failed");
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                tracing::info!(%address, "listening");
                self.listening.on_ready(&self.swarm, listener_id);
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                tracing::warn!(?reason, "a listener ended");
                self.listening.on_ready(&self.swarm, listener_id);
            }
            SwarmEvent::ListenerError { error, .. } => tracing::debug!(%error, "a listener erred"),
            SwarmEvent::ExternalAddrConfirmed { address } => {
                tracing::info!(%address, "reachable from outside");
            }
            // Progress that changes nothing here.
            _ => {}
        }
    }

    fn on_connected(&mut self, peer: PeerId, id: libp2p::PeerId, addr: String) {
        self.sessions.start(peer, addr);
        self.step(redial::Input::Connected(peer));
        // On this connection, or on a better one that stands already.
        for request in self.waiting.take(peer) {
            self.swarm.behaviour_mut().streams.open(id, request);
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        let now = self.now();
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let verdict = self.topics.judge(&message);
                gossip.report_message_validation_result(&message_id, &propagation_source, verdict);
            }
            gossipsub::Event::Subscribed { topic, .. } => {
                self.topics.on_subscribed(gossip, now, &topic);
            }
            gossipsub::Event::Unsubscribed { .. }
            | gossipsub::Event::GossipsubNotSupported { .. }
            | gossipsub::Event::SlowPeer { .. } => {}
        }
    }

    /// Closes all connections and lets the goodbyes out; then whoever listens is told.
    async fn say_goodbye(mut self) {
        self.accepting.close();
        let connected: Vec<libp2p::PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in connected {
            // It may have gone in this moment: that is what was wanted.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let all_gone = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        if tokio::time::timeout(GOODBYE_TIME, all_gone).await.is_err() {
            tracing::debug!("not every peer took its leave in time");
        }
        self.sessions.end_all();
    }
}

/// Detail for people, in one line of bounded length.
fn in_short(error: &DialError) -> String {
    let text = match error {
        DialError::WrongPeerId { address, .. } => format!("somebody else answers at {address}"),
        DialError::LocalPeerId { .. } => "its address is our own".to_owned(),
        DialError::NoAddresses => "no address of it can be dialled".to_owned(),
        DialError::Denied { cause } => format!("{cause}"),
        other => other.to_string(),
    };
    text.chars().take(DETAIL_LEN_MAX).collect()
}

/// A line in a log: the first two addresses and what went wrong with them.
const DETAIL_LEN_MAX: usize = 400;
