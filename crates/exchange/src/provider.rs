//! The provider's side of one exchange.
//!
//! ```text
//! Serving -> Finishing -> Closing -> Delivering -> Over
//!    \____________\--------> Closing (the requester vanished: claim the last voucher)
//! ```
//!
//! # Invariants
//!
//! * E1: an order is served once; the shell refuses an id that it has seen.
//! * E3: the order is durable before it is accepted, the receipt before it is sent.
//! * E11: a receipt claims its last voucher and nothing beyond it.
//! * E13: silence, a full window and the deadline all end the exchange.
//!
//! Not here: who may connect, the engine and the stream.

use commons_port::engine::{Caller, EngineEvent, EngineRefusal, EngineRequest, Priority, Token};
use commons_port::journal::{Change, Table};
use commons_record::codec;
use commons_record::constraint::ToolFormat;
use commons_record::envelope::{Expect, Unverified, Verified};
use commons_record::evidence::check_voucher;
use commons_record::manifest::ModelManifest;
use commons_record::merkle::{Transcript, empty_root, prompt_hash};
use commons_record::mesh::Usage;
use commons_record::order::{Infer, Job, Order, PrivacyClass, Prompt, Requester as Party};
use commons_record::seed::{SeedMode, SeedTranscript, commit};
use commons_record::settlement::{
    EndReason, EngineClass, Meter, PairPosition, Ran, RanAdapter, Receipt, Scope, TokenRange,
    Voucher,
};
use commons_record::{Credits, Hash, Millis, Nonce, PeerId, Salt};
use serde_bytes::ByteBuf;

use crate::entry::{Entry, Side, Work, outbox_put, outbox_remove, record_change};
use crate::message::{AskMessage, ToProvider, ToRequester, WireCode, WireRefusal};
use crate::requester::Clock;
use crate::standing::{SequenceRange, Standing};

/// A provider at work is heard every second.
pub const HEARTBEAT: Millis = Millis::from_secs(1);

/// Voucher steps that may be under way before the provider waits for the requester to keep up.
const WINDOW_STEPS: u32 = 4;

/// A requester that reads nothing for this long is gone.
pub const STALL_MAX: Millis = Millis::from_secs(15);

/// The last voucher follows the end within this: one write on the other side and a round trip.
pub const VOUCHER_MAX: Millis = Millis::from_secs(5);

/// The acknowledgement of the receipt follows within this, or it is offered again later.
pub const STORED_MAX: Millis = Millis::from_secs(3);

/// A model as this node serves it.
#[derive(Debug, Clone)]
pub struct Served {
    /// The node's signed description of it.
    pub manifest: Verified<ModelManifest>,
    /// What computes it.
    pub class: EngineClass,
    /// How the numbers of the adapter are stored; none if the order names none, or if it is not
    /// here.
    pub adapter_format: Option<String>,
}

/// An order that was checked and may be served.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// The order.
    pub order: Verified<Order>,
    /// The model that it names.
    pub served: Served,
    salt: Salt,
    prompt: Prompt,
    scope: Scope,
}

/// Checks an order as it arrives from `peer`. Rules E5 to E7, M2 and P1.
pub fn admit(
    standing: &Standing,
    peer: PeerId,
    ask: AskMessage,
    served: impl Fn(&Infer) -> Option<Served>,
) -> Result<Admitted, WireRefusal> {
    let refuse = |code, sentence: &str| WireRefusal::new(code, sentence);
    let expect = Expect::arriving(standing.mesh(), standing.author.epoch);
    let order = Unverified::<Order>::decode(&ask.order)
        .and_then(|order| order.verify(&expect))
        .map_err(|error| refuse(WireCode::InvalidOrder, &format!("the order: {error}")))?;
    standing
        .check_membership(&ask.membership, order.owner())
        .map_err(|error| refuse(WireCode::NotAMember, &error.to_string()))?;
    let body = order.body();
    let Job::Infer(infer) = &body.job;
    let is_sender = body.requester == Party::Node(peer) && order.node() == peer;
    if !is_sender || body.provider != standing.peer() {
        let sentence = "the order is by another node, or for another node, than this stream";
        return Err(refuse(WireCode::WrongParty, sentence));
    }
    if body.policy != standing.policy.id() {
        let sentence = format!("the policy in force here is {}", standing.policy.id());
        return Err(refuse(WireCode::UnknownPolicy, &sentence));
    }
    let scope = if peer == standing.peer() { Scope::Local } else { Scope::Mesh };
    if body.privacy.class == PrivacyClass::LocalOnly && scope == Scope::Mesh {
        let sentence = "the order's privacy class is local-only, and it left its node";
        return Err(refuse(WireCode::PrivacyClass, sentence));
    }
    if body.resume.is_some() {
        let sentence = "this version does not resume another provider's answer";
        return Err(refuse(WireCode::Unsupported, sentence));
    }
    ask.prompt
        .check()
        .map_err(|error| refuse(WireCode::InvalidPrompt, &format!("the prompt: {error}")))?;
    let limits = infer.limits;
    let dearest = Usage {
        prompt_tokens: limits.prompt_tokens_max,
        cached_tokens: 0,
        completion_tokens: limits.completion_tokens_max,
    };
    let dearest = standing.policy.body().prices.amount(dearest);
    if dearest.is_none_or(|dearest| dearest > body.price_ceiling) {
        // Rule E8 caps what is owed, so work beyond the ceiling would be work for nothing.
        let sentence = "the order's price ceiling does not cover its own limits";
        return Err(refuse(WireCode::InvalidOrder, sentence));
    }
    if ask.prompt.commitment(&ask.salt) != infer.prompt {
        let sentence = "the prompt is not the one that the order commits to";
        return Err(refuse(WireCode::InvalidOrder, sentence));
    }
    let served = served(infer).ok_or_else(|| {
        refuse(WireCode::UnknownModel, &format!("model {} is not here", infer.model))
    })?;
    if let Some(adapter) = infer.adapter.filter(|_| served.adapter_format.is_none()) {
        // Rule E10: never the base in its place.
        let sentence = format!("adapter {adapter} of model {} is not here", infer.model);
        return Err(refuse(WireCode::UnknownAdapter, &sentence));
    }
    if scope == Scope::Mesh && served.class.is_foreign() {
        let sentence = "a foreign engine has this model, and nobody could check what it draws: it \
                        serves its owner alone";
        return Err(refuse(WireCode::Unsupported, sentence)); // Rule E15.
    }
    Ok(Admitted { salt: ask.salt, prompt: ask.prompt, scope, served, order })
}

/// What can happen.
#[derive(Debug)]
pub enum Input {
    /// The order is new: begin.
    Begin,
    /// The engine refused to start.
    EngineRefused(EngineRefusal),
    /// The engine said something; none if it ended without a last word.
    Engine(Option<EngineEvent>),
    /// The requester said something.
    Message(ToProvider),
    /// The stream ended, or something on it could not be read.
    Closed,
    /// The answer to [`Output::AllotPair`].
    Allotted(PairPosition),
    /// A [`Output::Persist`] failed; what came after it was not performed.
    StorageFailed,
    /// The time of [`Provider::wake_at`] has come.
    TimerFired,
}

/// What is to be done, in order.
#[derive(Debug)]
pub enum Output {
    /// Start a sequence. If the engine refuses, say so and perform nothing that follows.
    StartEngine(Box<EngineRequest>),
    /// Hand the seed to the engine.
    RevealSeed([u8; 32]),
    /// Stop the sequence.
    DropEngine,
    /// Make these changes durable before going on.
    Persist(Vec<Change>),
    /// Send.
    Send(ToRequester),
    /// Give the next position between the two parties, over this amount.
    AllotPair(Credits),
    /// End the stream. Nothing follows.
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The engine works.
    Serving,
    /// All was sent; the last voucher is awaited.
    Finishing {
        reason: EndReason,
        until: Millis,
    },
    /// The receipt is being written.
    Closing {
        reason: EndReason,
    },
    /// The receipt was sent; its acknowledgement is awaited.
    Delivering {
        receipt: Hash,
        until: Millis,
    },
    Over,
}

/// The provider's side of one exchange.
#[derive(Debug)]
pub struct Provider {
    standing: Standing,
    admitted: Admitted,
    nonce: Nonce,
    sequences: SequenceRange,
    entry: Entry,
    state: State,
    usage: Usage,
    is_prefilled: bool,
    sent: Vec<u32>,
    acknowledged: Transcript,
    voucher: Option<Verified<Voucher>>,
    started: Millis,
    compute: Option<Millis>,
    last_sent: Millis,
    /// When the requester last said something that let the work go on.
    last_heard: Millis,
    deadline: Millis,
}

impl Provider {
    /// Takes on an admitted order. `nonce` must be fresh.
    pub fn new(
        standing: Standing,
        admitted: Admitted,
        nonce: Nonce,
        sequences: SequenceRange,
        clock: Clock,
    ) -> Self {
        let order = &admitted.order;
        let body = order.body();
        let entry = Entry {
            side: Side::Provider,
            order: order.id(),
            request: body.request,
            attempt: body.attempt,
            counterparty: order.node(),
            scope: admitted.scope,
            policy: body.policy,
            manifest: Some(admitted.served.manifest.id()),
            voucher: None,
            receipt: None,
            opening: None,
            work: Some(Work {
                class: admitted.served.class.clone(),
                adapter_format: admitted.served.adapter_format.clone(),
                prompt: prompt_hash(&admitted.salt, &[]),
                seed: None,
            }),
            opened_unix_ms: clock.unix,
        };
        Self {
            deadline: clock.now.saturating_add(body.deadline_ms),
            acknowledged: Transcript::new(admitted.salt),
            state: State::Serving,
            usage: Usage::default(),
            is_prefilled: false,
            sent: Vec::new(),
            voucher: None,
            started: clock.now,
            compute: None,
            last_sent: clock.now,
            last_heard: clock.now,
            standing,
            admitted,
            nonce,
            sequences,
            entry,
        }
    }

    /// Whether the next event of the engine is wanted. While the window is full it is not: the
    /// engine waits, and the requester's pace is the answer's pace.
    pub fn wants_engine(&self) -> bool {
        self.state == State::Serving && !self.is_window_full()
    }

    /// When [`Input::TimerFired`] is due; none when it is over.
    pub fn wake_at(&self) -> Option<Millis> {
        match self.state {
            State::Serving => {
                let heartbeat = self.last_sent.saturating_add(HEARTBEAT);
                Some(heartbeat.min(self.deadline))
            }
            State::Finishing { until, .. } | State::Delivering { until, .. } => Some(until),
            State::Closing { .. } | State::Over => None,
        }
    }

    /// Pure and total: time is an argument, and every input has an outcome in every state.
    pub fn step(&mut self, now: Millis, input: Input) -> Vec<Output> {
        match (self.state, input) {
            // The acknowledgement could not be noted: the receipt is offered once more.
            (State::Over, Input::StorageFailed) => vec![Output::Close],
            (State::Serving, Input::Begin) => self.begin(),
            (State::Serving, Input::EngineRefused(refusal)) => {
                self.state = State::Over;
                vec![Output::Send(ToRequester::Refused(refusal.into())), Output::Close]
            }
            (State::Serving, Input::Engine(event)) => self.engine(now, event),
            (_, Input::Message(message)) => self.hear(now, message),
            (State::Serving, Input::Closed) => self.close(EndReason::Vanished),
            (State::Finishing { reason, .. }, Input::Closed) => self.close(reason),
            (State::Delivering { .. }, Input::Closed) => self.end(),
            (State::Closing { reason }, Input::Allotted(pair)) => self.sign(now, reason, pair),
            // The entry on disk is still open, so `settle` finishes it once there is room.
            (_, Input::StorageFailed) => self.storage_failed(),
            (_, Input::TimerFired) => self.timer_fired(now),
            // Late inputs are harmless: the stream is closed. And nothing else can change a state:
            // the engine was dropped, or it is too late.
            (State::Over, _)
            | (
                State::Finishing { .. } | State::Closing { .. } | State::Delivering { .. },
                Input::Begin | Input::EngineRefused(_) | Input::Engine(_),
            )
            | (State::Closing { .. }, Input::Closed)
            | (
                State::Serving | State::Finishing { .. } | State::Delivering { .. },
                Input::Allotted(_),
            ) => Vec::new(),
        }
    }

    fn infer(&self) -> &Infer {
        let Job::Infer(infer) = &self.admitted.order.body().job;
        infer
    }

    /// The requester, as the engine knows it. Who asks its own node comes first; a one-time key
    /// is a caller of its own, so nothing connects its prompts in the cache.
    fn caller(&self) -> Caller {
        let order = self.admitted.order.body();
        let is_own = matches!(order.requester, Party::Node(peer) if peer == order.provider);
        let priority = if is_own { Priority::Owner } else { Priority::Normal };
        Caller { key: order.requester.key(), priority, shares_prefixes: false }
    }

    fn begin(&mut self) -> Vec<Output> {
        let infer = self.infer().clone();
        let mut seed = None;
        if let SeedMode::Client { seed: chosen } = infer.seed {
            let transcript = SeedTranscript::Client { seed: chosen };
            seed = Some(transcript.seed32(&self.entry.request));
            self.entry.set_seed(transcript);
        }
        let request = EngineRequest {
            model: infer.model,
            adapter: infer.adapter,
            caller: self.caller(),
            input: self.admitted.prompt.input.clone(),
            stop: self.admitted.prompt.stop.clone(),
            constraint: self.admitted.prompt.constraint.clone(),
            tools: self.admitted.prompt.tools.clone(),
            sampling: infer.sampling,
            seed,
            prompt_tokens_max: infer.limits.prompt_tokens_max,
            completion_tokens_max: infer.limits.completion_tokens_max,
            top_logprobs: infer.top_logprobs,
        };
        let manifest = &self.admitted.served.manifest;
        let changes = vec![
            record_change(&self.admitted.order),
            record_change(manifest),
            record_change(&self.standing.policy),
            self.entry.change(),
            self.entry.index_change(),
        ];
        let accepted = ToRequester::Accepted {
            commit: commit(&self.nonce),
            manifest: ByteBuf::from(manifest.encode()),
        };
        vec![
            Output::StartEngine(Box::new(request)),
            Output::Persist(changes),
            Output::Send(accepted),
        ]
    }

    fn engine(&mut self, now: Millis, event: Option<EngineEvent>) -> Vec<Output> {
        match event {
            Some(EngineEvent::Prefilled { prompt, cached_tokens, tool_format }) => {
                self.prefilled(now, &prompt, cached_tokens, tool_format)
            }
            Some(EngineEvent::Token(token)) => self.token(now, token),
            Some(EngineEvent::Finished { reason, text, compute_ms }) => {
                self.compute = Some(compute_ms);
                self.finish(now, reason, text)
            }
            Some(EngineEvent::Failed(refusal)) => self.fail(refusal.into()),
            None => {
                let sentence = "the engine ended without a last word";
                self.fail(WireRefusal::new(WireCode::EngineFailed, sentence))
            }
        }
    }

    fn prefilled(
        &mut self,
        now: Millis,
        prompt: &[u32],
        cached_tokens: u32,
        tool_format: Option<ToolFormat>,
    ) -> Vec<Output> {
        // The engine kept the order's bound, so the count fits; a cache cannot hold more.
        let prompt_tokens = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        let cached_tokens = cached_tokens.min(prompt_tokens);
        self.usage = Usage { prompt_tokens, cached_tokens, completion_tokens: 0 };
        self.is_prefilled = true;
        self.entry.set_prompt(prompt_hash(&self.admitted.salt, prompt));
        let mut outputs = self.keep_work();
        let prefilled = ToRequester::Prefilled { prompt_tokens, cached_tokens, tool_format };
        outputs.extend(self.send(now, prefilled));
        outputs
    }

    /// Rule E3: before the first token leaves, what its receipt will need is durable. With
    /// oneself nothing is offered again after a crash, so nothing needs to be kept for that.
    fn keep_work(&self) -> Vec<Output> {
        let is_due = self.is_prefilled && !self.is_unrevealed();
        let is_due = is_due && self.admitted.scope == Scope::Mesh;
        is_due.then(|| Output::Persist(vec![self.entry.change()])).into_iter().collect()
    }

    fn token(&mut self, now: Millis, token: Token) -> Vec<Output> {
        self.sent.push(token.id);
        self.usage.completion_tokens += 1;
        self.send(now, ToRequester::Tokens(vec![token]))
    }

    fn send(&mut self, now: Millis, message: ToRequester) -> Vec<Output> {
        self.last_sent = now;
        vec![Output::Send(message)]
    }

    fn finish(&mut self, now: Millis, reason: EndReason, text: String) -> Vec<Output> {
        self.state = State::Finishing { reason, until: now.saturating_add(VOUCHER_MAX) };
        let usage = self.usage;
        let finished = ToRequester::Finished { reason, text, usage };
        let mut outputs = vec![Output::DropEngine, Output::Send(finished)];
        if self.is_acknowledged() {
            // The answer ended on a voucher step: the last voucher is here, and no other follows.
            outputs.extend(self.close(reason));
        }
        outputs
    }

    fn hear(&mut self, now: Millis, message: ToProvider) -> Vec<Output> {
        match (self.state, message) {
            (State::Serving | State::Finishing { .. }, ToProvider::Reveal { nonce }) => {
                self.reveal(now, nonce)
            }
            (State::Serving | State::Finishing { .. }, ToProvider::Voucher { record }) => {
                self.vouched(now, &record)
            }
            (State::Serving, ToProvider::Cancel) => {
                self.finish(now, EndReason::Cancelled, String::new())
            }
            (State::Delivering { receipt, .. }, ToProvider::Stored { receipt: stored })
                if stored == receipt =>
            {
                let settled = outbox_remove(&self.entry.counterparty, &receipt);
                let mut outputs = vec![Output::Persist(vec![settled])];
                outputs.extend(self.end());
                outputs
            }
            // What crossed our own last word on the way says nothing new.
            (State::Finishing { .. }, ToProvider::Cancel)
            | (
                State::Closing { .. } | State::Delivering { .. },
                ToProvider::Cancel | ToProvider::Voucher { .. } | ToProvider::Reveal { .. },
            )
            | (State::Over, _) => Vec::new(),
            (
                State::Serving
                | State::Finishing { .. }
                | State::Closing { .. }
                | State::Delivering { .. },
                ToProvider::Ask(_) | ToProvider::Stored { .. },
            ) => self.violation("a message came out of turn"),
        }
    }

    fn reveal(&mut self, now: Millis, client_nonce: Nonce) -> Vec<Output> {
        let provider_commit = commit(&self.nonce);
        let transcript = SeedTranscript::Joint { client_nonce, provider_commit };
        if self.entry.seed().is_some() || !transcript.follows(&self.infer().seed) {
            return self.violation("the nonce is not the one that the order commits to");
        }
        self.last_heard = now;
        self.entry.set_seed(transcript);
        if self.state != State::Serving {
            return Vec::new(); // The engine is gone; the receipt still names the seed.
        }
        let mut outputs = vec![Output::RevealSeed(transcript.seed32(&self.entry.request))];
        outputs.extend(self.keep_work());
        outputs
    }

    fn vouched(&mut self, now: Millis, record: &[u8]) -> Vec<Output> {
        let expect = Expect::mesh(self.standing.mesh());
        let voucher = Unverified::<Voucher>::decode(record).and_then(|it| it.verify(&expect));
        let Ok(voucher) = voucher else { return self.violation("a voucher is not valid") };
        if check_voucher(&self.admitted.order, &voucher, &self.standing.policy).is_err() {
            return self.violation("a voucher does not hold");
        }
        if self.voucher.as_ref().is_some_and(|last| last.body() == voucher.body()) {
            return Vec::new(); // Nothing new: neither a write nor a sign of progress (Rule E13).
        }
        if !self.acknowledge(voucher.body()) {
            return self.violation("a voucher is not for what was sent");
        }
        self.last_heard = now;
        self.entry.voucher = Some(voucher.id());
        let changes = vec![record_change(&voucher), self.entry.change()];
        self.voucher = Some(voucher);
        let mut outputs = vec![Output::Persist(changes)];
        if let State::Finishing { reason, .. } = self.state
            && self.is_acknowledged()
        {
            outputs.extend(self.close(reason));
        }
        outputs
    }

    /// Whether a voucher is for a prefix of what was sent, at least as long as the last one's.
    fn acknowledge(&mut self, voucher: &Voucher) -> bool {
        let (usage, known) = (voucher.usage, self.acknowledged.count());
        let is_same_prompt = usage.prompt_tokens == self.usage.prompt_tokens
            && usage.cached_tokens == self.usage.cached_tokens;
        let (Ok(from), Ok(to)) = (usize::try_from(known), usize::try_from(usage.completion_tokens))
        else {
            return false;
        };
        let Some(newly) = self.sent.get(from..to) else { return false };
        for token in newly {
            self.acknowledged.push(*token);
        }
        is_same_prompt && self.acknowledged.root() == voucher.root
    }

    fn is_acknowledged(&self) -> bool {
        self.voucher.as_ref().is_some_and(|it| it.body().usage == self.usage)
    }

    fn unacknowledged(&self) -> u32 {
        self.usage.completion_tokens.saturating_sub(self.acknowledged.count())
    }

    fn is_window_full(&self) -> bool {
        let step = self.standing.policy.body().voucher_step;
        self.admitted.scope == Scope::Mesh
            && self.unacknowledged() >= step.saturating_mul(WINDOW_STEPS)
    }

    fn timer_fired(&mut self, now: Millis) -> Vec<Output> {
        if self.wake_at().is_none_or(|at| now < at) {
            return Vec::new(); // Early and repeated firings are harmless.
        }
        match self.state {
            State::Serving if now >= self.deadline => {
                self.finish(now, EndReason::Deadline, String::new())
            }
            State::Serving => {
                let is_stalled = self.is_window_full() || self.is_unrevealed();
                if is_stalled && now.since(self.last_heard) >= STALL_MAX {
                    return self.close(EndReason::Vanished);
                }
                self.send(now, ToRequester::Heartbeat)
            }
            State::Finishing { reason, .. } => self.close(reason),
            State::Delivering { .. } => self.end(),
            State::Closing { .. } | State::Over => Vec::new(),
        }
    }

    fn is_unrevealed(&self) -> bool {
        self.entry.seed().is_none()
    }

    fn violation(&mut self, what: &str) -> Vec<Output> {
        let sentence = format!("the requester broke the protocol: {what}");
        self.fail(WireRefusal::new(WireCode::ProtocolViolation, sentence))
    }

    fn fail(&mut self, refusal: WireRefusal) -> Vec<Output> {
        let mut outputs = vec![Output::Send(ToRequester::Failed(refusal))];
        match self.state {
            State::Serving | State::Finishing { .. } => {
                outputs.extend(self.close(EndReason::Failed));
            }
            // Rule E1: one order, one receipt. The one that was sent stands, and so does the one
            // that is being written.
            State::Delivering { .. } => outputs.extend(self.end()),
            State::Closing { .. } | State::Over => outputs.clear(),
        }
        outputs
    }

    /// No more is served: a receipt is made over what was acknowledged.
    fn close(&mut self, reason: EndReason) -> Vec<Output> {
        self.state = State::Closing { reason };
        let amount = self.voucher.as_ref().map_or(Credits::ZERO, |it| it.body().amount);
        vec![Output::DropEngine, Output::AllotPair(amount)]
    }

    fn sign(&mut self, now: Millis, end: EndReason, pair: PairPosition) -> Vec<Output> {
        let claim = Claim {
            entry: &self.entry,
            order: &self.admitted.order,
            manifest: &self.admitted.served.manifest,
            voucher: self.voucher.as_ref(),
            acknowledged: self.is_acknowledged(),
            prompt_usage: self.usage,
            end,
            pair,
            compute: self.compute.unwrap_or(now.since(self.started)),
        };
        let Some(sequence) = self.sequences.take() else { return self.storage_failed() };
        let Some(body) = claim.receipt() else { return self.storage_failed() };
        let receipt = self.standing.author.sign(sequence, body);
        let until = now.saturating_add(STORED_MAX);
        self.state = State::Delivering { receipt: receipt.id(), until };
        let changes = receipt_changes(&mut self.entry, &self.standing.peer(), &receipt);
        let record = ByteBuf::from(receipt.encode());
        vec![Output::Persist(changes), Output::Send(ToRequester::Receipt { record })]
    }

    fn storage_failed(&mut self) -> Vec<Output> {
        let sentence = "the provider cannot store the records of this exchange";
        let refusal = WireRefusal::new(WireCode::StorageFailed, sentence);
        self.state = State::Over;
        vec![Output::DropEngine, Output::Send(ToRequester::Failed(refusal)), Output::Close]
    }

    fn end(&mut self) -> Vec<Output> {
        self.state = State::Over;
        vec![Output::Close]
    }
}

/// The key of a pair in [`Table::Pair`].
pub fn pair_key(provider: &PeerId, requester: &PeerId) -> Vec<u8> {
    [provider.as_bytes().as_slice(), requester.as_bytes()].concat()
}

/// Settles an entry with its receipt: all of it in one batch.
pub(crate) fn receipt_changes(
    entry: &mut Entry,
    provider: &PeerId,
    receipt: &Verified<Receipt>,
) -> Vec<Change> {
    entry.receipt = Some(receipt.id());
    let pair = codec::encode(&receipt.body().pair);
    let pair = Change::put(Table::Pair, pair_key(provider, &entry.counterparty), pair);
    let mut changes = vec![record_change(receipt), entry.change(), pair];
    if entry.scope == Scope::Mesh {
        changes.push(outbox_put(&entry.counterparty, &receipt.id()));
    }
    changes
}

/// Everything that a receipt is made of.
pub(crate) struct Claim<'a> {
    pub(crate) entry: &'a Entry,
    pub(crate) order: &'a Verified<Order>,
    pub(crate) manifest: &'a Verified<ModelManifest>,
    pub(crate) voucher: Option<&'a Verified<Voucher>>,
    pub(crate) acknowledged: bool,
    pub(crate) prompt_usage: Usage,
    pub(crate) end: EndReason,
    pub(crate) pair: PairPosition,
    pub(crate) compute: Millis,
}

impl Claim<'_> {
    /// Rule E11: the last voucher's usage, root and amount; without one, nothing. `None` for an
    /// entry of the requester's side, which claims nothing.
    pub(crate) fn receipt(&self) -> Option<Receipt> {
        let work = self.entry.work.as_ref()?;
        let body = self.voucher.map(Verified::body);
        let usage = body.map_or(Usage { completion_tokens: 0, ..self.prompt_usage }, |it| it.usage);
        let Job::Infer(infer) = &self.order.body().job;
        Some(Receipt {
            order: self.order.id(),
            scope: self.entry.scope,
            ran: Ran {
                model: infer.model,
                adapter: infer.adapter.map(|adapter| RanAdapter {
                    adapter,
                    format: work.adapter_format.clone().unwrap_or_default(),
                }),
                quantisation: self.manifest.body().quantisation.clone(),
                engine: work.class.clone(),
            },
            prompt: work.prompt,
            usage,
            root: body.map_or_else(empty_root, |it| it.root),
            range: TokenRange { start: 0, end: usage.completion_tokens },
            end: self.end,
            seed: work.seed,
            amount: body.map_or(Credits::ZERO, |it| it.amount),
            pair: self.pair,
            voucher: self.voucher.map(Verified::id),
            acknowledged: self.acknowledged,
            meter: Meter { compute_ms: self.compute, energy: None },
        })
    }
}
