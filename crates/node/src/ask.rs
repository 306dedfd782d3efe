//! Asking for an answer: the shell around the requester's machine.
//!
//! A request is routed, tried with the chosen node, and tried with another if that one refuses
//! or cannot be reached before it accepted. Once a node has accepted, the answer is its own to
//! finish: what breaks off then is told to the user, with records of what was delivered.

use std::sync::Arc;

use commons_exchange::entry::Side;
use commons_exchange::message::{ToProvider, ToRequester, WireCode, WireRefusal};
use commons_exchange::requester::{Done, Draft, Event, Input, Output, Requester, Secrets};
use commons_port::journal::Change;
use commons_port::net::Path;
use commons_port::time::draw;
use commons_record::mesh::Usage;
use commons_record::order::{AuditConsent, COMPLETION_TOKENS_MAX, Limits, Privacy};
use commons_record::settlement::Scope;
use commons_record::{Hash, Millis, Nonce, PeerId, RequestId, Salt};
use commons_route::{Measured, Policy};
use futures::stream;
use tokio::sync::{mpsc, oneshot};

use crate::api::{
    Answer, AnswerEnd, AnswerEvent, AnswerHead, AnswerProof, Ask, Refusal, RefusalCode,
};
use crate::candidates::{self, Routed};
use crate::serve;
use crate::start::Inner;
use crate::target::{self, Target};
use crate::tasks::{lock, within};
use crate::wire::{self, Link};

/// Nodes that are tried for one request before the user is told no.
const ATTEMPTS_MAX: u32 = 3;

/// A request that takes longer is a batch job.
const DEADLINE: Millis = Millis::from_secs(30 * 60);

/// Reaching a peer: a dial with its handshakes.
const CONNECT_MAX: Millis = Millis::from_secs(8);

/// Events that wait for a slow user: most answers fit, so that the exchange is settled whatever
/// the user's pace. Beyond it, the user's pace is the answer's.
const EVENT_QUEUE_LEN: usize = 1_024;

/// Vouchers, the order, and a little: the numbers that one exchange may use.
fn sequence_count(completion_tokens_max: u32, voucher_step: u32) -> u64 {
    u64::from(completion_tokens_max / voucher_step.max(1)) + 4
}

type RequesterLink = Link<ToProvider, ToRequester>;

/// Asks for an answer.
pub(crate) async fn ask(inner: Arc<Inner>, ask: Ask) -> Result<Answer, Refusal> {
    inner.counters.ask();
    let result = route_and_try(&inner, &ask).await;
    if let Err(refusal) = &result {
        inner.counters.ask_failed();
        tracing::info!(code = refusal.code.as_str(), reason = %refusal, "a request was refused");
    }
    result
}

async fn route_and_try(inner: &Arc<Inner>, ask: &Ask) -> Result<Answer, Refusal> {
    let invalid = |error: String| Refusal::new(RefusalCode::InvalidRequest, error);
    ask.prompt.check().map_err(|error| invalid(format!("the prompt: {error}")))?;
    ask.sampling.check().map_err(|error| invalid(error.to_string()))?;
    let target = target::resolve(inner, &ask.model)?;
    let request = RequestId::from_bytes(draw(&*inner.ports.entropy));
    let (mut excluded, mut last) = (Vec::new(), None);
    for number in 0..ATTEMPTS_MAX {
        let routed = candidates::route(inner, ask, &target, request, number, &excluded).await;
        let peer = match routed.outcome {
            Ok(peer) => peer,
            Err(refusal) => {
                // The decision is kept even though nothing came of it: `why` answers from it.
                if let Err(error) = inner.commit(routed.changes).await {
                    tracing::warn!(%error, "a routing decision was not stored");
                }
                return Err(last.unwrap_or(refusal));
            }
        };
        let attempt = Attempt { request, number, peer, target: &target };
        match attempt.run(inner, ask, routed).await {
            Ok(answer) => return Ok(answer),
            Err(refusal) if is_worth_another(&refusal) => {
                excluded.push(peer);
                last = Some(refusal_of(&refusal));
            }
            Err(refusal) => return Err(refusal_of(&refusal)),
        }
    }
    let none = || Refusal::new(RefusalCode::Unavailable, "no node answered");
    Err(last.unwrap_or_else(none))
}

/// Whether another node may do better with the same order.
fn is_worth_another(refusal: &WireRefusal) -> bool {
    match refusal.code {
        WireCode::InvalidPrompt
        | WireCode::InvalidConstraint
        | WireCode::TooLong
        | WireCode::PrivacyClass
        | WireCode::Unsupported
        | WireCode::Deadline => false,
        // The rest is about that node, or about how it sees this one.
        _ => true,
    }
}

/// One attempt at a request with one node.
struct Attempt<'a> {
    request: RequestId,
    number: u32,
    peer: PeerId,
    target: &'a Target,
}

impl Attempt<'_> {
    /// Resolves once the node has accepted, or will not.
    async fn run(
        self,
        inner: &Arc<Inner>,
        ask: &Ask,
        routed: Routed,
    ) -> Result<Answer, WireRefusal> {
        let (peer, target) = (self.peer, self.target);
        let machine = self.machine(inner, ask).await?;
        let scope = if peer == inner.peer() { Scope::Local } else { Scope::Mesh };
        let link = match scope {
            Scope::Local => local(inner, peer),
            Scope::Mesh => {
                let reached = reach(inner, peer).await;
                reached.inspect_err(|_| note_failure(inner, peer, target.model))?
            }
        };
        let head = AnswerHead {
            request: self.request,
            peer,
            scope,
            route: routed.decision,
            model_name: target.name.clone(),
            model: target.model,
            adapter: target.adapter,
        };
        let (events, receiver) = mpsc::channel(EVENT_QUEUE_LEN);
        let (accepted, started) = oneshot::channel();
        let session = Session {
            inner: inner.clone(),
            head: head.clone(),
            quantisation: target.quantisation.clone(),
            machine,
            link,
            events,
            accepted: Some(accepted),
            decision: routed.changes,
            timing: Timing { asked: inner.ports.clock.now(), first: None, last: None, tokens: 0 },
        };
        inner.tasks.start("request", Box::pin(session.run()));
        let stopped = || WireRefusal::new(WireCode::ShuttingDown, "this node is shutting down");
        started.await.map_err(|_| stopped())??;
        let events = stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|event| (event, receiver))
        });
        Ok(Answer { head, events: Box::pin(events) })
    }

    /// Signs the order.
    async fn machine(&self, inner: &Arc<Inner>, ask: &Ask) -> Result<Box<Requester>, WireRefusal> {
        let standing = inner.standing();
        let policy = standing.policy.body();
        let context_len = self.target.context_len;
        let completion = ask.completion_tokens_max.unwrap_or(context_len);
        let limits = Limits {
            prompt_tokens_max: context_len,
            completion_tokens_max: completion.clamp(1, COMPLETION_TOKENS_MAX),
        };
        let dearest = Usage {
            prompt_tokens: limits.prompt_tokens_max,
            cached_tokens: 0,
            completion_tokens: limits.completion_tokens_max,
        };
        let unpayable =
            || WireRefusal::new(WireCode::Unsupported, "the price cannot be represented");
        let privacy =
            Privacy { class: ask.class, audit: AuditConsent::None, retention_ms: Millis(0) };
        let draft = Draft {
            request: self.request,
            attempt: self.number,
            provider: self.peer,
            model: self.target.model,
            adapter: self.target.adapter,
            prompt: ask.prompt.clone(),
            sampling: ask.sampling.clone(),
            seed: ask.seed,
            limits,
            top_logprobs: ask.top_logprobs,
            price_ceiling: policy.prices.amount(dearest).ok_or_else(unpayable)?,
            privacy,
            deadline_ms: DEADLINE,
        };
        let secrets = Secrets {
            nonce: Nonce::from_bytes(draw(&*inner.ports.entropy)),
            salt: Salt::from_bytes(draw(&*inner.ports.entropy)),
        };
        let storage = |detail: String| WireRefusal::new(WireCode::StorageFailed, detail);
        let count = sequence_count(limits.completion_tokens_max, policy.voucher_step);
        let sequences = inner.ledger.sequences(count).await;
        let sequences = sequences.map_err(|error| storage(error.to_string()))?;
        Requester::new(standing, draft, secrets, sequences, inner.clocks())
            .map(Box::new)
            .ok_or_else(|| storage("no sequence number is left".to_owned()))
    }
}

/// This node serves itself: the same machines, tied together.
fn local(inner: &Arc<Inner>, peer: PeerId) -> RequesterLink {
    let (ours, theirs) = wire::local_link(&inner.tasks);
    inner.tasks.start("local order", Box::pin(serve::serve(inner.clone(), peer, theirs)));
    ours
}

async fn reach(inner: &Arc<Inner>, peer: PeerId) -> Result<RequesterLink, WireRefusal> {
    let unreachable = |detail: String| WireRefusal::new(WireCode::Disconnected, detail);
    let now = inner.ports.clock.now();
    let hpke = lock(&inner.roster).member(now, &peer).map(|member| member.hpke);
    let hpke = hpke.ok_or_else(|| unreachable(format!("{peer} is not present any more")))?;
    let place = inner.place();
    let entropy = draw(&*inner.ports.entropy);
    let connecting = async {
        let opened = inner.ports.net.open(peer, place.protocol("infer/1"), Path::Direct).await;
        let stream = opened.map_err(|error| unreachable(error.to_string()))?.stream;
        let link = wire::connect(&inner.tasks, stream, entropy, &place.mesh(), &hpke).await;
        link.map_err(|error| error.refusal())
    };
    within(&*inner.ports.clock, CONNECT_MAX, connecting)
        .await
        .unwrap_or_else(|| Err(unreachable(format!("{peer} could not be reached in time"))))
}

/// One exchange under way.
struct Session {
    inner: Arc<Inner>,
    head: AnswerHead,
    quantisation: String,
    machine: Box<Requester>,
    link: RequesterLink,
    events: mpsc::Sender<AnswerEvent>,
    /// Taken when the provider has accepted, or will not.
    accepted: Option<oneshot::Sender<Result<(), WireRefusal>>>,
    /// The routing decision, stored with the order.
    decision: Vec<Change>,
    timing: Timing,
}

struct Timing {
    asked: Millis,
    first: Option<Millis>,
    last: Option<Millis>,
    tokens: u32,
}

enum Performed {
    All(Option<Input>),
    Closed,
}

impl Session {
    async fn run(mut self) {
        let order = self.machine.order().id();
        self.inner.live.insert(Side::Requester, order);
        self.drive().await;
        self.inner.live.remove(Side::Requester, &order);
        let Link { tx, flushed, .. } = self.link;
        drop(tx);
        within(&*self.inner.ports.clock, Millis::from_secs(2), flushed).await;
    }

    async fn drive(&mut self) {
        let mut input = Input::Begin;
        let mut is_cancelled = false;
        loop {
            let now = self.inner.ports.clock.now();
            let outputs = self.machine.step(now, input);
            input = match self.perform(outputs).await {
                Performed::Closed => break,
                Performed::All(Some(follows)) => follows,
                Performed::All(None) => match self.next_input(is_cancelled).await {
                    Some(next) => next,
                    None => break,
                },
            };
            is_cancelled |= matches!(input, Input::Cancel);
        }
    }

    async fn next_input(&mut self, is_cancelled: bool) -> Option<Input> {
        let wake_at = self.machine.wake_at()?;
        let timer = self.inner.ports.clock.sleep_until(wake_at);
        Some(tokio::select! {
            // Messages first: after waiting for a slow user, what has arrived meanwhile counts
            // before the silence does. The machine itself keeps its deadline.
            biased;
            message = self.link.rx.recv() => match message {
                Some(Ok(message)) => Input::Message(message),
                Some(Err(refusal)) => Input::Closed(refusal),
                None => Input::Closed(WireRefusal::new(
                    WireCode::Disconnected,
                    "the connection to the provider was lost",
                )),
            },
            () = timer => Input::TimerFired,
            () = self.events.closed(), if !is_cancelled => Input::Cancel,
        })
    }

    /// In order, up to the first that fails.
    async fn perform(&mut self, outputs: Vec<Output>) -> Performed {
        for output in outputs {
            match output {
                Output::Persist(mut changes) => {
                    changes.append(&mut self.decision);
                    if let Err(error) = self.inner.commit(changes).await {
                        return Performed::All(Some(Input::StorageFailed(error.to_string())));
                    }
                }
                Output::Send(message) => {
                    let sending = self.link.tx.send(message);
                    let limit = commons_exchange::requester::SILENCE_MAX;
                    // A stream that takes nothing shows on the other queue, with a reason.
                    let _ = within(&*self.inner.ports.clock, limit, sending).await;
                }
                Output::Event(event) => self.tell(event).await,
                Output::Close => return Performed::Closed,
            }
        }
        Performed::All(None)
    }

    async fn tell(&mut self, event: Event) {
        let event = match event {
            Event::Accepted => {
                if let Some(accepted) = self.accepted.take() {
                    // The caller may have gone; the dropped events say so next.
                    let _ = accepted.send(Ok(()));
                }
                return;
            }
            Event::Prefilled { usage, tool_format } => {
                AnswerEvent::Prefilled { usage, tool_format }
            }
            Event::Token(token) => {
                self.timing.token(self.inner.ports.clock.now());
                if self.head.scope == Scope::Mesh {
                    self.inner.counters.token_received();
                }
                AnswerEvent::Token(token)
            }
            Event::Heartbeat => AnswerEvent::Heartbeat,
            Event::Done(done) => {
                self.timing.learn(&self.inner, &self.head);
                AnswerEvent::Done(Box::new(self.end(*done)))
            }
            Event::Failed(refusal) => {
                note_failure_of(&self.inner, &self.head, &refusal);
                if let Some(accepted) = self.accepted.take() {
                    let _ = accepted.send(Err(refusal));
                    return;
                }
                self.inner.counters.ask_failed();
                AnswerEvent::Failed(refusal_of(&refusal))
            }
        };
        // A user that has gone away is noticed by `events.closed`.
        let _ = self.events.send(event).await;
    }

    fn end(&self, done: Done) -> AnswerEnd {
        let receipt = done.receipt.as_ref();
        AnswerEnd {
            reason: done.reason,
            text: done.text,
            usage: done.usage,
            proof: AnswerProof {
                request: self.head.request,
                receipt: receipt.map(commons_record::Verified::id),
                peer: self.head.peer,
                model: self.head.model,
                quantisation: self.quantisation.clone(),
                adapter: self.head.adapter,
                adapter_format: receipt
                    .and_then(|it| Some(it.body().ran.adapter.as_ref()?.format.clone())),
                class: receipt.map(|it| it.body().ran.engine.clone()),
                seed: done.seed,
            },
        }
    }
}

impl Timing {
    fn token(&mut self, now: Millis) {
        self.first.get_or_insert(now);
        self.last = Some(now);
        self.tokens += 1;
    }

    /// Speed is what was measured here (Rule N6).
    fn learn(&self, inner: &Inner, head: &AnswerHead) {
        let (Some(first), Some(last)) = (self.first, self.last) else { return };
        let decoded = u64::from(self.tokens - 1);
        let took = last.since(first).0.max(1);
        let speed = decoded.saturating_mul(1_000_000_000) / took;
        let first_token = first.since(self.asked);
        let update = |known: Measured| known.after_success(first_token, speed);
        lock(&inner.roster).learn_speed(head.peer, head.model, update);
    }
}

fn note_failure(inner: &Inner, peer: PeerId, model: Hash) {
    let now = inner.ports.clock.now();
    let update = |known: Measured| known.after_failure(&Policy::DEFAULT, now);
    lock(&inner.roster).learn_speed(peer, model, update);
}

/// Only what the peer is to blame for cools it down.
fn note_failure_of(inner: &Inner, head: &AnswerHead, refusal: &WireRefusal) {
    let is_its_fault = matches!(
        refusal.code,
        WireCode::Disconnected
            | WireCode::Silent
            | WireCode::ProtocolViolation
            | WireCode::EngineFailed
            | WireCode::Unavailable
            | WireCode::StorageFailed
            | WireCode::ShuttingDown
    );
    if is_its_fault && head.scope == Scope::Mesh {
        note_failure(inner, head.peer, head.model);
    }
}

/// What the user is told when an exchange is refused or breaks off.
pub(crate) fn refusal_of(refusal: &WireRefusal) -> Refusal {
    let code = match refusal.code {
        WireCode::UnknownModel => RefusalCode::ModelNotFound,
        WireCode::UnknownAdapter => RefusalCode::AdapterNotFound,
        WireCode::InvalidPrompt => RefusalCode::InvalidRequest,
        WireCode::InvalidConstraint => RefusalCode::InvalidConstraint,
        WireCode::TooLong => RefusalCode::ContextLengthExceeded,
        WireCode::PrivacyClass => RefusalCode::PrivacyClass,
        WireCode::Unsupported => RefusalCode::Unsupported,
        WireCode::Overloaded => RefusalCode::Overloaded,
        WireCode::StorageFailed => RefusalCode::StorageFailed,
        WireCode::Deadline => RefusalCode::DeadlineExceeded,
        WireCode::ShuttingDown => RefusalCode::ShuttingDown,
        WireCode::NotSharing
        | WireCode::NotAMember
        | WireCode::UnknownPolicy
        | WireCode::Unavailable => RefusalCode::Unavailable,
        // Orders that are our own making, and exchanges that broke: the provider's side failed us.
        _ => RefusalCode::ProviderFailed,
    };
    let mut told = Refusal::new(code, refusal.message.clone());
    told.retry_after_ms = refusal.retry_after_ms;
    told
}
