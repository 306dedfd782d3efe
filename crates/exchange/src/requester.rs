//! The requester's side of one exchange.
//!
//! ```text
//! Asked -> Accepted -> Streaming -> Settling -> Over
//!    \________\___________\____________\-> Over (refused, broken off)
//! ```
//!
//! # Invariants
//!
//! * E3: a voucher is durable before it is sent, and the order before anything is.
//! * E4: a voucher covers what was received, and no more.
//! * E13: silence of [`SILENCE_MAX`] ends the exchange; nothing waits for ever.
//!
//! Not here: the user's connection (dropping it is [`Input::Cancel`]) and the stream.

use commons_port::engine::Token;
use commons_port::journal::Change;
use commons_record::constraint::ToolFormat;
use commons_record::envelope::{Expect, Unverified, Verified};
use commons_record::evidence::{amount_due, check_receipt};
use commons_record::manifest::ModelManifest;
use commons_record::merkle::Transcript;
use commons_record::mesh::Usage;
use commons_record::order::Requester as Party;
use commons_record::order::{Infer, Job, Limits, Order, Privacy, Prompt, Sampling};
use commons_record::seed::{SeedMode, SeedTranscript, commit};
use commons_record::settlement::{EndReason, Receipt, Scope, Voucher};
use commons_record::{Credits, Hash, Millis, Nonce, PeerId, PublicKey, RequestId, Salt};
use serde_bytes::ByteBuf;

use crate::entry::{Entry, Side, StoredOpening, outbox_put, outbox_remove, record_change};
use crate::message::{AskMessage, ToProvider, ToRequester, WireCode, WireRefusal};
use crate::standing::{SequenceRange, Standing};

/// A provider answers an order within this: it verifies, starts the engine and writes once.
pub const ACCEPT_MAX: Millis = Millis::from_secs(10);

/// A provider at work says so every second. After three and a half it is gone: the user hears of
/// it within five seconds, whatever the transport still hopes for.
pub const SILENCE_MAX: Millis = Millis(3_500);

/// The receipt follows the last voucher within this, or it comes later through `settle`.
pub const RECEIPT_MAX: Millis = Millis::from_secs(3);

/// The text of one token with its alternatives, or what is held back at the end. A vocabulary's
/// longest pieces and a stop string stay far below, and a queue of such events stays bounded.
const TEXT_LEN_MAX: usize = 16 * 1024;

/// What is to be asked, before it is an order.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The request.
    pub request: RequestId,
    /// Which attempt at it.
    pub attempt: u32,
    /// Who is asked.
    pub provider: PeerId,
    /// The model.
    pub model: Hash,
    /// The adapter.
    pub adapter: Option<Hash>,
    /// The prompt.
    pub prompt: Prompt,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// The caller's seed; without one the seed is made jointly.
    pub seed: Option<i64>,
    /// Bounds on the work.
    pub limits: Limits,
    /// How many alternatives to report.
    pub top_logprobs: u8,
    /// The most that may be owed.
    pub price_ceiling: Credits,
    /// How the content may be used.
    pub privacy: Privacy,
    /// How long the provider has.
    pub deadline_ms: Millis,
}

/// Unpredictable values that the caller draws for one exchange.
#[derive(Debug, Clone, Copy)]
pub struct Secrets {
    /// Opens the order's commitment.
    pub nonce: Nonce,
    /// Salts the order's hashes.
    pub salt: Salt,
}

/// What can happen.
#[derive(Debug)]
pub enum Input {
    /// The stream stands: begin.
    Begin,
    /// The provider said something.
    Message(ToRequester),
    /// The stream ended, or something on it could not be read.
    Closed(WireRefusal),
    /// The user wants no more.
    Cancel,
    /// A [`Output::Persist`] failed; what came after it was not performed.
    StorageFailed(String),
    /// The time of [`Requester::wake_at`] has come.
    TimerFired,
}

/// What is to be done, in order.
#[derive(Debug)]
pub enum Output {
    /// Make these changes durable before going on.
    Persist(Vec<Change>),
    /// Send.
    Send(ToProvider),
    /// Tell the user.
    Event(Event),
    /// End the stream. Nothing follows.
    Close,
}

/// What the user is told.
#[derive(Debug, Clone)]
pub enum Event {
    /// The order was accepted.
    Accepted,
    /// The prompt was read.
    Prefilled {
        /// Its size, and how much of it was cached.
        usage: Usage,
        /// How calls are written in the answer's text; none where there were no tools.
        tool_format: Option<ToolFormat>,
    },
    /// The next token.
    Token(Token),
    /// The provider is at work.
    Heartbeat,
    /// The answer is complete.
    Done(Box<Done>),
    /// It is not, and will not be.
    Failed(WireRefusal),
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Done {
    /// Why it ended.
    pub reason: EndReason,
    /// Text that was held back.
    pub text: String,
    /// What was used.
    pub usage: Usage,
    /// The receipt, if it came in time.
    pub receipt: Option<Verified<Receipt>>,
    /// The seed.
    pub seed: Option<SeedTranscript>,
}

#[derive(Debug, Clone)]
enum State {
    Asked,
    Accepted,
    Streaming,
    Settling {
        reason: EndReason,
        text: String,
    },
    Over {
        /// What the user hears if the last write fails, which stands before the last word.
        untold: Option<Box<Event>>,
    },
}

/// The requester's side of one exchange.
#[derive(Debug)]
pub struct Requester {
    standing: Standing,
    order: Verified<Order>,
    prompt: Option<Prompt>,
    secrets: Secrets,
    sequences: SequenceRange,
    entry: Entry,
    state: State,
    seed: Option<SeedTranscript>,
    /// What the provider's manifest says that it runs.
    quantisation: Option<String>,
    transcript: Transcript,
    tokens: Vec<u32>,
    usage: Usage,
    voucher: Option<Verified<Voucher>>,
    voucher_step: u32,
    state_until: Millis,
    deadline: Millis,
}

impl Requester {
    /// Signs the order. `None` if the reserved sequence numbers are used up.
    pub fn new(
        standing: Standing,
        draft: Draft,
        secrets: Secrets,
        mut sequences: SequenceRange,
        clock: Clock,
    ) -> Option<Self> {
        let (provider, prompt) = (draft.provider, draft.prompt.clone());
        let order = standing.author.sign(sequences.take()?, order_body(&standing, draft, secrets));
        let scope = if provider == standing.peer() { Scope::Local } else { Scope::Mesh };
        let body = order.body();
        let entry = Entry {
            side: Side::Requester,
            order: order.id(),
            request: body.request,
            attempt: body.attempt,
            counterparty: provider,
            scope,
            policy: body.policy,
            manifest: None,
            voucher: None,
            receipt: None,
            opening: None,
            work: None,
            opened_unix_ms: clock.unix,
        };
        // With oneself there is nobody to run ahead of: one voucher, at the end.
        let voucher_step = match scope {
            Scope::Local => u32::MAX,
            Scope::Mesh => standing.policy.body().voucher_step,
        };
        Some(Self {
            deadline: clock.now.saturating_add(body.deadline_ms),
            state_until: clock.now.saturating_add(ACCEPT_MAX),
            prompt: Some(prompt),
            transcript: Transcript::new(secrets.salt),
            state: State::Asked,
            seed: None,
            quantisation: None,
            tokens: Vec::new(),
            usage: Usage::default(),
            voucher: None,
            standing,
            order,
            secrets,
            sequences,
            entry,
            voucher_step,
        })
    }

    /// The signed order.
    pub fn order(&self) -> &Verified<Order> {
        &self.order
    }

    /// When [`Input::TimerFired`] is due; none when it is over.
    pub fn wake_at(&self) -> Option<Millis> {
        match self.state {
            State::Over { .. } => None,
            // Whoever comes last has until the receipt's time, even past the deadline.
            State::Settling { .. } => Some(self.state_until),
            State::Asked | State::Accepted | State::Streaming => {
                Some(self.state_until.min(self.deadline))
            }
        }
    }

    /// Pure and total: time is an argument, and every input has an outcome in every state.
    pub fn step(&mut self, now: Millis, input: Input) -> Vec<Output> {
        if let State::Over { untold } = &mut self.state {
            // Late inputs are harmless: the stream is closed. Only a last write that failed has
            // kept the last word from being told.
            return match (input, untold.take()) {
                (Input::StorageFailed(_), Some(last)) => vec![Output::Event(*last), Output::Close],
                (_, untold) => {
                    self.state = State::Over { untold };
                    Vec::new()
                }
            };
        }
        let is_late = now >= self.deadline && !matches!(self.state, State::Settling { .. });
        match input {
            Input::StorageFailed(detail) => self.over(Event::Failed(WireRefusal::new(
                WireCode::StorageFailed,
                format!("a record could not be stored here: {detail}"),
            ))),
            // Whatever comes in: a flood of messages must not postpone the end.
            Input::Begin
            | Input::Message(_)
            | Input::Closed(_)
            | Input::Cancel
            | Input::TimerFired
                if is_late =>
            {
                let sentence = "the request's deadline passed";
                self.break_off(WireRefusal::new(WireCode::Deadline, sentence), Link::Stands)
            }
            Input::Begin => self.begin(),
            Input::Message(message) => self.hear(now, message),
            Input::Closed(refusal) => self.closed(refusal),
            Input::Cancel => {
                // Whoever goes on after this serves nobody, and is not paid for long.
                self.deadline = self.deadline.min(now.saturating_add(SILENCE_MAX));
                vec![Output::Send(ToProvider::Cancel)]
            }
            Input::TimerFired => self.timer_fired(now),
        }
    }

    fn begin(&mut self) -> Vec<Output> {
        let Some(prompt) = self.prompt.take() else { return Vec::new() };
        let ask = AskMessage {
            order: ByteBuf::from(self.order.encode()),
            membership: ByteBuf::from(self.standing.membership.clone()),
            salt: self.secrets.salt,
            prompt,
        };
        let changes = vec![
            record_change(&self.order),
            record_change(&self.standing.policy),
            self.entry.change(),
            self.entry.index_change(),
        ];
        vec![Output::Persist(changes), Output::Send(ToProvider::Ask(Box::new(ask)))]
    }

    fn hear(&mut self, now: Millis, message: ToRequester) -> Vec<Output> {
        if !matches!(self.state, State::Settling { .. }) {
            self.state_until = now.saturating_add(SILENCE_MAX);
        }
        match (self.state.clone(), message) {
            (State::Asked, ToRequester::Accepted { commit, manifest }) => {
                self.accepted(commit, &manifest)
            }
            (State::Asked, ToRequester::Refused(refusal)) => {
                self.over(Event::Failed(refusal.bounded()))
            }
            (
                State::Accepted,
                ToRequester::Prefilled { prompt_tokens, cached_tokens, tool_format },
            ) => self.prefilled(prompt_tokens, cached_tokens, tool_format),
            (State::Streaming, ToRequester::Tokens(tokens)) => self.received(tokens),
            (State::Accepted | State::Streaming, ToRequester::Heartbeat) => {
                vec![Output::Event(Event::Heartbeat)]
            }
            (State::Accepted | State::Streaming, ToRequester::Finished { reason, text, usage }) => {
                self.finished(now, reason, text, usage)
            }
            (State::Settling { reason, text }, ToRequester::Receipt { record }) => {
                self.settled(reason, text, &record)
            }
            // The answer is whole; its receipt comes later or not at all (Rule E14).
            (State::Settling { reason, text }, ToRequester::Failed(_)) => {
                self.done(reason, text, None)
            }
            (_, ToRequester::Failed(refusal)) => self.break_off(refusal.bounded(), Link::Stands),
            (_, unexpected) => {
                self.violation(&format!("it sent {} out of turn", name(&unexpected)))
            }
        }
    }

    fn accepted(&mut self, provider_commit: Hash, manifest: &[u8]) -> Vec<Output> {
        let Job::Infer(infer) = &self.order.body().job;
        let expect = Expect::mesh(self.standing.mesh());
        let manifest =
            Unverified::<ModelManifest>::decode(manifest).and_then(|it| it.verify(&expect));
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(error) => return self.violation(&format!("its manifest is not valid: {error}")),
        };
        let is_provider = manifest.author() == PublicKey::from(self.order.body().provider);
        if !is_provider || manifest.body().model() != Some(infer.model) {
            return self.violation("its manifest is not its own or of another model");
        }
        self.state = State::Accepted;
        self.quantisation = Some(manifest.body().quantisation.clone());
        self.entry.manifest = Some(manifest.id());
        let mut outputs = vec![
            Output::Persist(vec![record_change(&manifest), self.entry.change()]),
            Output::Event(Event::Accepted),
        ];
        match infer.seed {
            SeedMode::Client { seed } => self.seed = Some(SeedTranscript::Client { seed }),
            SeedMode::Joint { .. } => {
                let client_nonce = self.secrets.nonce;
                self.seed = Some(SeedTranscript::Joint { client_nonce, provider_commit });
                outputs.push(Output::Send(ToProvider::Reveal { nonce: client_nonce }));
            }
        }
        outputs
    }

    fn prefilled(
        &mut self,
        prompt_tokens: u32,
        cached_tokens: u32,
        tool_format: Option<ToolFormat>,
    ) -> Vec<Output> {
        let Job::Infer(infer) = &self.order.body().job;
        if prompt_tokens > infer.limits.prompt_tokens_max || cached_tokens > prompt_tokens {
            return self.violation("it claims more prompt tokens than the order allows");
        }
        self.state = State::Streaming;
        self.usage = Usage { prompt_tokens, cached_tokens, completion_tokens: 0 };
        vec![Output::Event(Event::Prefilled { usage: self.usage, tool_format })]
    }

    fn received(&mut self, tokens: Vec<Token>) -> Vec<Output> {
        let mut outputs = Vec::new();
        for token in tokens {
            if let Err(what) = self.check_token(&token) {
                // What came before it was received: it is told, and it is paid.
                outputs.extend(self.violation(what));
                return outputs;
            }
            self.transcript.push(token.id);
            self.tokens.push(token.id);
            self.usage.completion_tokens = self.transcript.count();
            outputs.push(Output::Event(Event::Token(token)));
            if self.unvouched() >= self.voucher_step {
                match self.next_voucher() {
                    Ok(voucher) => outputs.extend(self.vouch(voucher, Waiting::No)),
                    Err(refusal) => {
                        outputs.extend(self.break_off(refusal, Link::Stands));
                        return outputs;
                    }
                }
            }
        }
        outputs
    }

    fn check_token(&self, token: &Token) -> Result<(), &'static str> {
        let Job::Infer(infer) = &self.order.body().job;
        if self.transcript.count() >= infer.limits.completion_tokens_max {
            return Err("it sent more tokens than were ordered");
        }
        if token.top.len() > usize::from(infer.top_logprobs) {
            return Err("it sent more alternatives than were ordered");
        }
        let text_len = token.text.len() + token.top.iter().map(|it| it.text.len()).sum::<usize>();
        if text_len > TEXT_LEN_MAX {
            return Err("it sent a token with too much text");
        }
        Ok(())
    }

    fn finished(
        &mut self,
        now: Millis,
        reason: EndReason,
        text: String,
        usage: Usage,
    ) -> Vec<Output> {
        if text.len() > TEXT_LEN_MAX {
            return self.violation("it held back too much text");
        }
        if usage != self.usage {
            return self.violation("its count of tokens is not what was received");
        }
        self.state = State::Settling { reason, text };
        self.state_until = now.saturating_add(RECEIPT_MAX);
        if self.voucher.as_ref().is_some_and(|it| it.body().usage == self.usage) {
            // The answer ended on a voucher step. A second voucher for the same tokens would be
            // another record: the two sides would not mean the same one by "the last".
            return vec![Output::Persist(self.waiting_changes())];
        }
        match self.next_voucher() {
            Ok(voucher) => self.vouch(voucher, Waiting::ForReceipt),
            Err(refusal) => self.break_off(refusal, Link::Stands),
        }
    }

    fn settled(&mut self, reason: EndReason, text: String, record: &[u8]) -> Vec<Output> {
        let expect = Expect::mesh(self.standing.mesh());
        let receipt = Unverified::<Receipt>::decode(record).and_then(|it| it.verify(&expect));
        let receipt = match receipt {
            Ok(receipt) => receipt,
            Err(error) => return self.violation(&format!("its receipt is not valid: {error}")),
        };
        if receipt.body().voucher != self.voucher.as_ref().map(Verified::id) {
            // The provider could wait no longer and claims an earlier voucher. It offers that
            // receipt again, and then it is held against the voucher that it names (Rule E14).
            return self.done(reason, text, None);
        }
        let policy = &self.standing.policy;
        if let Err(error) = check_receipt(&self.order, self.voucher.as_ref(), &receipt, policy) {
            return self.violation(&format!("its receipt does not hold: {error}"));
        }
        if receipt.body().seed != self.seed {
            return self.violation("its receipt names another seed than the one agreed on");
        }
        if self.quantisation.as_ref() != Some(&receipt.body().ran.quantisation) {
            return self.violation("its receipt names another quantisation than its manifest");
        }
        self.entry.receipt = Some(receipt.id());
        let mut changes = vec![record_change(&receipt), self.entry.change()];
        if let Some(voucher) = &self.voucher {
            changes.push(outbox_remove(&self.entry.counterparty, &voucher.id()));
        }
        let stored = ToProvider::Stored { receipt: receipt.id() };
        let mut outputs = vec![Output::Persist(changes), Output::Send(stored)];
        outputs.extend(self.done(reason, text, Some(receipt)));
        outputs
    }

    fn done(
        &mut self,
        reason: EndReason,
        text: String,
        receipt: Option<Verified<Receipt>>,
    ) -> Vec<Output> {
        let (usage, seed) = (self.usage, self.seed);
        let done = Done { reason, text, usage, receipt, seed };
        // If the receipt cannot be stored, the answer is whole all the same.
        let unsettled = Done { receipt: None, ..done.clone() };
        self.over_after(Event::Done(Box::new(done)), Event::Done(Box::new(unsettled)))
    }

    fn timer_fired(&mut self, now: Millis) -> Vec<Output> {
        let due = self.wake_at().is_some_and(|at| now >= at);
        if !due {
            return Vec::new(); // Early and repeated firings are harmless.
        }
        if let State::Settling { reason, text } = self.state.clone() {
            // The answer is whole; the receipt will be offered again (Rule E14).
            return self.done(reason, text, None);
        }
        let refusal = WireRefusal::new(WireCode::Silent, "the provider was silent for too long");
        self.break_off(refusal, Link::Broken)
    }

    fn closed(&mut self, refusal: WireRefusal) -> Vec<Output> {
        if let State::Settling { reason, text } = self.state.clone() {
            return self.done(reason, text, None);
        }
        self.break_off(refusal.bounded(), Link::Broken)
    }

    fn unvouched(&self) -> u32 {
        let vouched = self.voucher.as_ref().map_or(0, |it| it.body().usage.completion_tokens);
        self.transcript.count() - vouched
    }

    /// Signs for everything received so far (Rule E4).
    fn next_voucher(&mut self) -> Result<Verified<Voucher>, WireRefusal> {
        let broken = |what| WireRefusal::new(WireCode::ProtocolViolation, what);
        let amount = amount_due(self.order.body(), self.standing.policy.body(), self.usage)
            .ok_or_else(|| broken("the price of the answer cannot be represented"))?;
        let sequence =
            self.sequences.take().ok_or_else(|| broken("the sequence numbers are used up"))?;
        let body = Voucher {
            order: self.order.id(),
            usage: self.usage,
            root: self.transcript.root(),
            amount,
        };
        Ok(self.standing.author.sign(sequence, body))
    }

    /// Durable first, then sent (Rule E3).
    fn vouch(&mut self, voucher: Verified<Voucher>, waiting: Waiting) -> Vec<Output> {
        let mut changes = vec![record_change(&voucher)];
        let record = ByteBuf::from(voucher.encode());
        self.entry.voucher = Some(voucher.id());
        self.voucher = Some(voucher);
        match waiting {
            Waiting::No => changes.push(self.entry.change()),
            Waiting::ForReceipt => changes.extend(self.waiting_changes()),
        }
        vec![Output::Persist(changes), Output::Send(ToProvider::Voucher { record })]
    }

    /// The last voucher is signed: until its receipt comes, it is offered again (Rule E14).
    fn waiting_changes(&mut self) -> Vec<Change> {
        let tokens = std::mem::take(&mut self.tokens);
        self.entry.opening = Some(StoredOpening { salt: self.secrets.salt, tokens });
        let voucher = self.voucher.as_ref().filter(|_| self.entry.scope == Scope::Mesh);
        let mut changes: Vec<_> =
            voucher.map(|it| outbox_put(&self.entry.counterparty, &it.id())).into_iter().collect();
        changes.push(self.entry.change());
        changes
    }

    fn violation(&mut self, what: &str) -> Vec<Output> {
        let sentence = format!("the provider broke the protocol: {what}");
        self.break_off(WireRefusal::new(WireCode::ProtocolViolation, sentence), Link::Stands)
    }

    /// Ends before its time: signs for what was received, tells the user, and tells the
    /// provider if it can still hear.
    fn break_off(&mut self, refusal: WireRefusal, link: Link) -> Vec<Output> {
        let mut outputs = Vec::new();
        let owed = match self.unvouched() {
            0 => None,
            _ => self.next_voucher().ok(),
        };
        if let Some(voucher) = owed {
            outputs.extend(self.vouch(voucher, Waiting::ForReceipt));
            if link == Link::Broken {
                outputs.pop();
            }
        } else {
            if self.voucher.is_some() && self.entry.opening.is_none() {
                // All of it is signed for, and the last voucher may be lost on the way.
                outputs.push(Output::Persist(self.waiting_changes()));
            }
            if link == Link::Stands && !matches!(self.state, State::Asked) {
                outputs.push(Output::Send(ToProvider::Cancel));
            }
        }
        let last = Event::Failed(refusal);
        outputs.extend(self.over_after(last.clone(), last));
        outputs
    }

    fn over(&mut self, last: Event) -> Vec<Output> {
        self.state = State::Over { untold: None };
        vec![Output::Event(last), Output::Close]
    }

    /// Over behind a write; if that fails, the user hears `untold` in its stead.
    fn over_after(&mut self, last: Event, untold: Event) -> Vec<Output> {
        let outputs = self.over(last);
        self.state = State::Over { untold: Some(Box::new(untold)) };
        outputs
    }
}

/// Both clocks, read once.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// The clock that all deadlines are on.
    pub now: Millis,
    /// The calendar, for people only.
    pub unix: Millis,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    No,
    ForReceipt,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    Stands,
    Broken,
}

fn order_body(standing: &Standing, draft: Draft, secrets: Secrets) -> Order {
    let seed = match draft.seed {
        Some(seed) => SeedMode::Client { seed },
        None => SeedMode::Joint { client_commit: commit(&secrets.nonce) },
    };
    Order {
        request: draft.request,
        attempt: draft.attempt,
        requester: Party::Node(standing.peer()),
        provider: draft.provider,
        job: Job::Infer(Infer {
            model: draft.model,
            adapter: draft.adapter,
            prompt: draft.prompt.commitment(&secrets.salt),
            sampling: draft.sampling,
            seed,
            limits: draft.limits,
            top_logprobs: draft.top_logprobs,
        }),
        policy: standing.policy.id(),
        price_ceiling: draft.price_ceiling,
        privacy: draft.privacy,
        deadline_ms: draft.deadline_ms,
        resume: None,
    }
}

fn name(message: &ToRequester) -> &'static str {
    match message {
        ToRequester::Accepted { .. } => "an acceptance",
        ToRequester::Refused(_) => "a refusal",
        ToRequester::Prefilled { .. } => "a prefill",
        ToRequester::Tokens(_) => "tokens",
        ToRequester::Heartbeat => "a heartbeat",
        ToRequester::Finished { .. } => "an end",
        ToRequester::Receipt { .. } => "a receipt",
        ToRequester::Failed(_) => "a failure",
    }
}
