//! The honest part of an exchange, step by step, so that a mock can leave it where it likes.

use commons_exchange::Standing;
use commons_exchange::message::{AskMessage, ToProvider, ToRequester};
use commons_exchange::requester::{Clock, Draft, Input, Output, Requester, Secrets};
use commons_port::engine::Token;
use commons_port::time::draw;
use commons_record::evidence::amount_due;
use commons_record::manifest::{FileEntry, ModelManifest, Provenance};
use commons_record::merkle::{Transcript, prompt_hash};
use commons_record::mesh::Usage;
use commons_record::order::{
    AuditConsent, Job, Limits, Order, Privacy, PrivacyClass, Prompt, PromptInput, Sampling,
};
use commons_record::seed::{SeedTranscript, commit};
use commons_record::settlement::{
    EndReason, Meter, PairPosition, Ran, Receipt, Scope, TokenRange, Voucher,
};
use commons_record::{Credits, Expect, Hash, Millis, Nonce, RequestId, Salt, Unverified, Verified};
use serde_bytes::ByteBuf;

use super::peer::{RawLink, RawPeer, Trouble};
use crate::engine::SimModel;
use crate::life::NodeId;

/// Tokens that a mock orders: enough for a few vouchers.
pub const ORDERED: u32 = 100;

/// A requester's side: an order that was signed and what opens it.
#[derive(Debug, Clone)]
pub struct Asking {
    /// What is sent first.
    pub ask: AskMessage,
    /// What the order commits to.
    pub nonce: Nonce,
    /// The order.
    pub order: Verified<Order>,
    transcript: Transcript,
    usage: Usage,
}

impl Asking {
    /// An order to `provider` for a model's answer, signed by `standing`.
    pub fn new(peer: &RawPeer<'_>, standing: Standing, provider: NodeId, model: Hash) -> Self {
        let text = "say something".to_owned();
        let secrets = Secrets {
            nonce: Nonce::from_bytes(draw(&*peer.ports.entropy)),
            salt: Salt::from_bytes(draw(&*peer.ports.entropy)),
        };
        let draft = Draft {
            request: RequestId::from_bytes(draw(&*peer.ports.entropy)),
            attempt: 0,
            provider: peer.cluster.peer(provider),
            model,
            adapter: None,
            prompt: Prompt {
                input: PromptInput::Text(text),
                stop: Vec::new(),
                constraint: None,
                tools: None,
            },
            sampling: Sampling::greedy(),
            seed: None,
            limits: Limits { prompt_tokens_max: 1_000, completion_tokens_max: ORDERED },
            top_logprobs: 0,
            price_ceiling: Credits::from_micro(1_000_000),
            privacy: Privacy {
                class: PrivacyClass::Mesh,
                audit: AuditConsent::None,
                retention_ms: Millis(0),
            },
            deadline_ms: Millis::from_secs(600),
        };
        let clock = Clock { now: peer.ports.clock.now(), unix: peer.ports.clock.unix() };
        let machine = Requester::new(standing, draft, secrets, peer.sequences(8), clock);
        let mut machine = machine.unwrap_or_else(|| unreachable!("numbers were reserved"));
        let order = machine.order().clone();
        let outputs = machine.step(clock.now, Input::Begin);
        let ask = outputs.into_iter().find_map(|output| match output {
            Output::Send(ToProvider::Ask(ask)) => Some(*ask),
            _ => None,
        });
        let ask = ask.unwrap_or_else(|| unreachable!("an exchange begins with an order"));
        let transcript = Transcript::new(secrets.salt);
        Self { ask, nonce: secrets.nonce, order, transcript, usage: Usage::default() }
    }

    /// Sends the order.
    pub async fn send(&self, link: &mut RawLink) -> Result<(), Trouble> {
        link.send(&ToProvider::Ask(Box::new(self.ask.clone()))).await
    }

    /// Opens the commitment.
    pub async fn reveal(&self, link: &mut RawLink) -> Result<(), Trouble> {
        link.send(&ToProvider::Reveal { nonce: self.nonce }).await
    }

    /// Takes note of a message, as a requester does who keeps count.
    pub fn note(&mut self, message: &ToRequester) {
        match message {
            ToRequester::Prefilled { prompt_tokens, cached_tokens, .. } => {
                self.usage.prompt_tokens = *prompt_tokens;
                self.usage.cached_tokens = *cached_tokens;
            }
            ToRequester::Tokens(tokens) => {
                for token in tokens {
                    self.transcript.push(token.id);
                }
                self.usage.completion_tokens = self.transcript.count();
            }
            _ => {}
        }
    }

    /// A voucher for what was noted, signed by `standing`.
    pub fn voucher(&self, standing: &Standing, sequence: u64) -> ToProvider {
        let amount = amount_due(self.order.body(), standing.policy.body(), self.usage);
        let body = Voucher {
            order: self.order.id(),
            usage: self.usage,
            root: self.transcript.root(),
            amount: amount.unwrap_or_default(),
        };
        let record = ByteBuf::from(standing.author.sign(sequence, body).encode());
        ToProvider::Voucher { record }
    }

    /// Goes through the whole exchange as one should, up to the receipt.
    pub async fn complete(
        &mut self,
        peer: &RawPeer<'_>,
        link: &mut RawLink,
    ) -> Result<Hash, Trouble> {
        self.send(link).await?;
        loop {
            let message = link.receive().await?;
            self.note(&message);
            match message {
                ToRequester::Accepted { .. } => self.reveal(link).await?,
                ToRequester::Finished { .. } => {
                    let voucher = self.voucher(&peer.standing(), peer.sequence());
                    link.send(&voucher).await?;
                }
                ToRequester::Receipt { record } => {
                    let receipt = Unverified::<Receipt>::decode(&record)
                        .and_then(|it| it.verify(&Expect::default()))
                        .map_err(|error| error.to_string())?;
                    link.send(&ToProvider::Stored { receipt: receipt.id() }).await?;
                    return Ok(receipt.id());
                }
                ToRequester::Refused(refusal) | ToRequester::Failed(refusal) => {
                    return Err(refusal.to_string());
                }
                ToRequester::Prefilled { .. } | ToRequester::Tokens(_) | ToRequester::Heartbeat => {
                }
            }
        }
    }
}

/// A provider's side: an order that came, and an answer that is made up.
#[derive(Debug, Clone)]
pub struct Serving {
    model: SimModel,
    order: Verified<Order>,
    salt: Salt,
    nonce: Nonce,
    client_nonce: Option<Nonce>,
}

impl Serving {
    /// Reads an order.
    pub async fn take(
        peer: &RawPeer<'_>,
        link: &mut RawLink,
        model: SimModel,
    ) -> Result<Self, Trouble> {
        let ToProvider::Ask(ask) = link.receive().await? else {
            return Err("no order".to_owned());
        };
        let order = Unverified::decode(&ask.order).and_then(|it| it.verify(&Expect::default()));
        let order = order.map_err(|error| error.to_string())?;
        let nonce = Nonce::from_bytes(draw(&*peer.ports.entropy));
        Ok(Self { model, order, salt: ask.salt, nonce, client_nonce: None })
    }

    /// The acceptance, with a manifest signed by `standing`.
    pub fn acceptance(&self, standing: &Standing, sequence: u64) -> ToRequester {
        let loaded = &self.model.loaded;
        let body = ModelManifest {
            name: loaded.name.clone(),
            files: vec![FileEntry {
                name: loaded.file_name.clone(),
                hash: loaded.model,
                size: loaded.file_size,
            }],
            family: loaded.family.clone(),
            quantisation: loaded.quantisation.clone(),
            tokenizer: loaded.tokenizer,
            context_len: loaded.context_len,
            parameter_count: loaded.parameter_count,
            licence: "MIT".to_owned(),
            provenance: Provenance::default(),
        };
        let manifest = ByteBuf::from(standing.author.sign(sequence, body).encode());
        ToRequester::Accepted { commit: commit(&self.nonce), manifest }
    }

    /// Accepts, waits for the reveal and says that the prompt was read.
    pub async fn begin(&mut self, peer: &RawPeer<'_>, link: &mut RawLink) -> Result<(), Trouble> {
        link.send(&self.acceptance(&peer.standing(), peer.sequence())).await?;
        let ToProvider::Reveal { nonce } = link.receive().await? else {
            return Err("no reveal".to_owned());
        };
        self.client_nonce = Some(nonce);
        link.send(&ToRequester::Prefilled { prompt_tokens: 3, cached_tokens: 0, tool_format: None })
            .await
    }

    /// A token of the answer: not what the seed says, which nobody can see yet.
    pub fn token(index: u32) -> Token {
        Token { id: index, text: " word".to_owned(), logprob_micro: -1, top: Vec::new() }
    }

    /// Sends a number of tokens, one by one.
    pub async fn tokens(&self, link: &mut RawLink, count: u32) -> Result<(), Trouble> {
        for index in 0..count {
            link.send(&ToRequester::Tokens(vec![Self::token(index)])).await?;
        }
        Ok(())
    }

    /// Says that `count` tokens were all, and waits for the voucher over them.
    pub async fn finish(
        &self,
        link: &mut RawLink,
        count: u32,
    ) -> Result<Verified<Voucher>, Trouble> {
        let usage = Usage { prompt_tokens: 3, cached_tokens: 0, completion_tokens: count };
        let (reason, text) = (EndReason::Stop, String::new());
        link.send(&ToRequester::Finished { reason, text, usage }).await?;
        loop {
            if let ToProvider::Voucher { record } = link.receive().await? {
                let voucher = Unverified::<Voucher>::decode(&record)
                    .and_then(|it| it.verify(&Expect::default()))
                    .map_err(|error| error.to_string())?;
                if voucher.body().usage == usage {
                    return Ok(voucher);
                }
            }
        }
    }

    /// The receipt that an honest provider would write over a voucher.
    pub fn receipt(&self, voucher: &Verified<Voucher>) -> Receipt {
        let Job::Infer(infer) = &self.order.body().job;
        let body = voucher.body();
        let client_nonce = self.client_nonce.unwrap_or(self.nonce);
        Receipt {
            order: self.order.id(),
            scope: Scope::Mesh,
            ran: Ran {
                model: infer.model,
                adapter: None,
                quantisation: self.model.loaded.quantisation.clone(),
                engine: self.model.loaded.class.clone(),
            },
            prompt: prompt_hash(&self.salt, &[1, 2, 3]),
            usage: body.usage,
            root: body.root,
            range: TokenRange { start: 0, end: body.usage.completion_tokens },
            end: EndReason::Stop,
            seed: Some(SeedTranscript::Joint {
                client_nonce,
                provider_commit: commit(&self.nonce),
            }),
            amount: body.amount,
            pair: PairPosition { sequence: 1, cumulative: body.amount },
            voucher: Some(voucher.id()),
            acknowledged: true,
            meter: Meter { compute_ms: Millis(1), energy: None },
        }
    }
}

/// A receipt as it is sent.
pub fn receipt_message(standing: &Standing, sequence: u64, body: Receipt) -> ToRequester {
    let record = ByteBuf::from(standing.author.sign(sequence, body).encode());
    ToRequester::Receipt { record }
}
