//! Serving peers' orders: the shell around the provider's machine.
//!
//! One task accepts streams; each order gets a task of its own that owns the stream, the
//! engine's sequence and the journal's turn, and decides nothing.

use std::sync::Arc;

use commons_exchange::Standing;
use commons_exchange::entry::Side;
use commons_exchange::message::{
    LoadAnswer, LoadQuestion, ToProvider, ToRequester, WireCode, WireRefusal,
};
use commons_exchange::provider::{self, Admitted, Input, Output, Provider, STALL_MAX, Served};
use commons_exchange::requester::Clock as Clocks;
use commons_port::engine::{
    EngineEvent, EngineRefusal, EngineRefusalCode, EngineRequest, Origin, Sequence,
};
use commons_port::net::Incoming;
use commons_port::time::draw;
use commons_record::order::Infer;
use commons_record::settlement::PairPosition;
use commons_record::{Hash, Millis, Nonce, PeerId};
use futures::StreamExt as _;

use crate::ledger::PairTurn;
use crate::start::Inner;
use crate::tasks::{lock, within};
use crate::wire::{self, Link};

/// The first message follows the stream within this.
const ASK_MAX: Millis = Millis::from_secs(10);

/// A long prompt is rendered and encoded within this, behind others.
const BEGIN_MAX: Millis = Millis::from_secs(30);

/// What was sent leaves within this after the end, or is given up.
const FLUSH_MAX: Millis = Millis::from_secs(2);

/// The provider's end of an exchange.
pub(crate) type ProviderLink = Link<ToRequester, ToProvider>;

/// Accepts orders and load questions until the task is stopped.
pub(crate) async fn accept_orders(inner: Arc<Inner>) {
    let place = inner.place();
    let mut orders = inner.ports.net.accept(place.protocol("infer/1"));
    let mut loads = inner.ports.net.accept(place.protocol("load/1"));
    loop {
        let (incoming, is_order) = tokio::select! {
            biased;
            Some(incoming) = orders.next() => (incoming, true),
            Some(incoming) = loads.next() => (incoming, false),
            else => return,
        };
        let (task, inner) = (inner.tasks.clone(), inner.clone());
        if is_order {
            task.start("order", Box::pin(serve_stream(inner, incoming)));
        } else {
            task.start("load", Box::pin(answer_load(inner, incoming)));
        }
    }
}

async fn serve_stream(inner: Arc<Inner>, incoming: Incoming) {
    let peer = incoming.peer;
    let Some(_slot) = inner.orders.take(peer) else { return };
    let mesh = inner.place().mesh();
    let accepting = wire::accept(&inner.tasks, incoming.stream, &inner.keys.hpke, &mesh);
    match within(&*inner.ports.clock, ASK_MAX, accepting).await {
        Some(Ok(link)) => Box::pin(serve(inner, peer, link)).await,
        Some(Err(error)) => tracing::debug!(%peer, %error, "a stream was not sealed to this node"),
        None => tracing::debug!(%peer, "a stream stayed silent"),
    }
}

async fn answer_load(inner: Arc<Inner>, incoming: Incoming) {
    let peer = incoming.peer;
    let Some(_slot) = inner.talks.take(peer) else { return };
    let now = inner.ports.clock.now();
    if lock(&inner.roster).member(now, &peer).is_none() {
        return; // Only members learn how busy a node is; others get a reset.
    }
    let mesh = inner.place().mesh();
    let answering = async {
        let link: Link<LoadAnswer, LoadQuestion> =
            wire::accept(&inner.tasks, incoming.stream, &inner.keys.hpke, &mesh).await.ok()?;
        let Link { tx, mut rx, flushed } = link;
        let question = rx.recv().await?.ok()?;
        let is_shared = inner.config.share && is_own(&inner, &question.model); // Rule E15.
        let load = inner.ports.engine.load(&question.model).filter(|_| is_shared);
        tx.send(LoadAnswer { load }).await.ok()?;
        drop(tx);
        flushed.await.ok()
    };
    if within(&*inner.ports.clock, ASK_MAX, answering).await.flatten().is_none() {
        tracing::debug!(%peer, "a load question was not answered");
    }
}

fn is_own(inner: &Inner, model: &Hash) -> bool {
    inner.ports.engine.origin(model) == Origin::Node
}

/// Serves one exchange on a link, whoever is behind it.
pub(crate) async fn serve(inner: Arc<Inner>, peer: PeerId, mut link: ProviderLink) {
    match admit(&inner, peer, &mut link).await {
        Ok(Some((standing, admitted))) => {
            let order = admitted.order.id();
            let refused = match begin(&inner, standing, admitted).await {
                Ok(machine) => {
                    let session = Session::new(inner.clone(), peer, machine, link);
                    session.run().await;
                    note_unsettled(&inner, order).await;
                    inner.live.remove(Side::Provider, &order);
                    return;
                }
                Err(refusal) => refusal,
            };
            inner.live.remove(Side::Provider, &order);
            refuse(&inner, link, refused).await;
        }
        Ok(None) => {} // Nothing was asked.
        Err(refusal) => refuse(&inner, link, refusal).await,
    }
}

/// An exchange that ended without its receipt is not forgotten: the disk may have room later.
async fn note_unsettled(inner: &Inner, order: Hash) {
    let is_settled = match inner.ledger.entry(Side::Provider, &order).await {
        Ok(entry) => entry.is_none_or(|entry| entry.receipt.is_some()),
        Err(_) => false,
    };
    if !is_settled {
        lock(&inner.unsettled).insert(order);
    }
}

async fn refuse(inner: &Inner, link: ProviderLink, refusal: WireRefusal) {
    inner.counters.orders_refused();
    tracing::info!(code = ?refusal.code, reason = %refusal.message, "an order was refused");
    let _ = link.tx.send(ToRequester::Refused(refusal)).await;
    drop(link.tx);
    within(&*inner.ports.clock, FLUSH_MAX, link.flushed).await;
}

/// Reads and checks the first message. An order that was seen before is refused (Rule E1).
async fn admit(
    inner: &Arc<Inner>,
    peer: PeerId,
    link: &mut ProviderLink,
) -> Result<Option<(Standing, Admitted)>, WireRefusal> {
    let first = within(&*inner.ports.clock, ASK_MAX, link.rx.recv()).await;
    let ask = match first.flatten() {
        Some(Ok(ToProvider::Ask(ask))) => *ask,
        Some(Ok(_)) => {
            let sentence = "an exchange begins with an order";
            return Err(WireRefusal::new(WireCode::ProtocolViolation, sentence));
        }
        Some(Err(refusal)) => return Err(refusal),
        None => return Ok(None),
    };
    let standing = inner.standing();
    if peer != standing.peer() && !inner.config.share {
        // Rule N5.
        let sentence = "this node's owner does not share compute";
        return Err(WireRefusal::new(WireCode::NotSharing, sentence));
    }
    let manifests = inner.manifests().await.map_err(|error| storage_refusal(&error))?;
    let served = |infer: &Infer| -> Option<Served> {
        let (manifest, class) = manifests.get(&infer.model)?;
        let adapter = infer.adapter.and_then(|it| inner.ports.engine.adapter(&infer.model, &it));
        Some(Served {
            manifest: manifest.clone(),
            class: class.clone(),
            adapter_format: adapter.map(|it| it.format),
        })
    };
    let admitted = provider::admit(&standing, peer, ask, served)?;
    let order = admitted.order.id();
    let replayed = || {
        let sentence = format!("order {order} was seen before");
        WireRefusal::new(WireCode::ReplayedOrder, sentence)
    };
    if !inner.live.insert(Side::Provider, order) {
        return Err(replayed());
    }
    match inner.ledger.entry(Side::Provider, &order).await {
        Ok(None) => Ok(Some((standing, admitted))),
        Ok(Some(_)) => {
            inner.live.remove(Side::Provider, &order);
            Err(replayed())
        }
        Err(error) => {
            inner.live.remove(Side::Provider, &order);
            Err(storage_refusal(&error))
        }
    }
}

fn storage_refusal(error: &crate::ledger::LedgerError) -> WireRefusal {
    tracing::error!(%error, "the journal failed");
    WireRefusal::new(WireCode::StorageFailed, "this node cannot use its journal now")
}

async fn begin(
    inner: &Arc<Inner>,
    standing: Standing,
    admitted: Admitted,
) -> Result<Box<Provider>, WireRefusal> {
    let sequences = inner.ledger.sequences(1).await.map_err(|error| storage_refusal(&error))?;
    let nonce = Nonce::from_bytes(draw(&*inner.ports.entropy));
    Ok(Box::new(Provider::new(standing, admitted, nonce, sequences, inner.clocks())))
}

/// An engine that does not say in time whether it takes a request does not take it.
async fn start_engine(
    inner: &Inner,
    request: EngineRequest,
) -> Result<Box<dyn Sequence>, EngineRefusal> {
    let beginning = inner.ports.engine.begin(request);
    within(&*inner.ports.clock, BEGIN_MAX, beginning).await.unwrap_or_else(|| {
        let message = format!("the engine did not answer within {BEGIN_MAX}");
        Err(EngineRefusal { code: EngineRefusalCode::Unavailable, message })
    })
}

/// One exchange under way.
struct Session {
    inner: Arc<Inner>,
    peer: PeerId,
    machine: Box<Provider>,
    link: ProviderLink,
    sequence: Option<Box<dyn Sequence>>,
    /// Held from the allotment of a pair position until the receipt is durable.
    turn: Option<PairTurn>,
}

/// What performing the outputs of one step led to.
enum Performed {
    /// All of it; these inputs follow from it.
    All(Option<Input>),
    /// The stream is over.
    Closed,
}

impl Session {
    fn new(inner: Arc<Inner>, peer: PeerId, machine: Box<Provider>, link: ProviderLink) -> Self {
        Self { inner, peer, machine, link, sequence: None, turn: None }
    }

    async fn run(mut self) {
        let mut input = Input::Begin;
        loop {
            let now = self.inner.ports.clock.now();
            let outputs = self.machine.step(now, input);
            input = match self.perform(outputs).await {
                Performed::Closed => break,
                Performed::All(Some(follows)) => follows,
                Performed::All(None) => match self.next_input().await {
                    Some(next) => next,
                    None => break,
                },
            };
        }
        let Link { tx, flushed, .. } = self.link;
        drop(tx);
        within(&*self.inner.ports.clock, FLUSH_MAX, flushed).await;
    }

    async fn next_input(&mut self) -> Option<Input> {
        let wake_at = self.machine.wake_at()?;
        let timer = self.inner.ports.clock.sleep_until(wake_at);
        let wants_engine = self.machine.wants_engine();
        let engine = async {
            match &mut self.sequence {
                Some(sequence) if wants_engine => sequence.next().await,
                Some(_) | None => std::future::pending().await,
            }
        };
        Some(tokio::select! {
            biased; // Timers first: a flood of messages must not postpone a heartbeat.
            () = timer => Input::TimerFired,
            message = self.link.rx.recv() => match message {
                Some(Ok(message)) => Input::Message(message),
                Some(Err(_)) | None => Input::Closed,
            },
            event = engine => {
                if matches!(event, Some(EngineEvent::Token(_))) {
                    self.inner.counters.token_computed();
                }
                Input::Engine(event)
            }
        })
    }

    /// In order, up to the first that fails.
    async fn perform(&mut self, outputs: Vec<Output>) -> Performed {
        let mut follows = None;
        for output in outputs {
            match output {
                Output::StartEngine(request) => match start_engine(&self.inner, *request).await {
                    Ok(sequence) => {
                        self.sequence = Some(sequence);
                        if self.peer != self.inner.peer() {
                            self.inner.counters.orders_served();
                        }
                    }
                    Err(refusal) => return Performed::All(Some(Input::EngineRefused(refusal))),
                },
                Output::RevealSeed(seed) => {
                    if let Some(sequence) = &mut self.sequence {
                        sequence.reveal(seed);
                    }
                }
                Output::DropEngine => self.sequence = None,
                Output::Persist(changes) => {
                    let result = self.inner.commit(changes).await;
                    self.turn = None;
                    if result.is_err() {
                        return Performed::All(Some(Input::StorageFailed));
                    }
                }
                Output::Send(message) => {
                    // A reader that has gone away shows as `Closed` on the other queue; one that
                    // does not read at all is given up here.
                    let sending = self.link.tx.send(message);
                    match within(&*self.inner.ports.clock, STALL_MAX, sending).await {
                        Some(Ok(())) => {}
                        Some(Err(_)) | None => follows = Some(Input::Closed),
                    }
                }
                Output::AllotPair(amount) => match self.allot(amount).await {
                    Some(position) => follows = Some(Input::Allotted(position)),
                    None => follows = Some(Input::StorageFailed),
                },
                Output::Close => return Performed::Closed,
            }
        }
        Performed::All(follows)
    }

    async fn allot(&mut self, amount: commons_record::Credits) -> Option<PairPosition> {
        let provider = self.inner.peer();
        match self.inner.ledger.pair_turn(&provider, &self.peer).await {
            Ok((turn, last)) => {
                self.turn = Some(turn);
                last.next(amount)
            }
            Err(error) => {
                tracing::error!(%error, "the journal failed");
                None
            }
        }
    }
}

/// Both clocks, read once.
pub(crate) fn clocks(clock: &dyn commons_port::time::Clock) -> Clocks {
    Clocks { now: clock.now(), unix: clock.unix() }
}
