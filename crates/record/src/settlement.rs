//! Vouchers and receipts: what the requester acknowledges and the provider claims.
//!
//! While an answer streams, the requester signs a [`Voucher`] after every few tokens and at the
//! end. The [`Receipt`] names the last one: together they are a receipt signed by both sides.
//! A requester that vanished leaves a receipt that claims its last voucher and no more.

use serde::{Deserialize, Serialize};

use crate::amount::{Credits, Millis};
use crate::envelope::{InvalidBody, Record, Signer};
use crate::hash::Hash;
use crate::mesh::{Usage, is_label};
use crate::seed::SeedTranscript;

/// The requester has received this much of an order's answer. It is the countersignature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Voucher {
    /// The order's record id.
    pub order: Hash,
    /// What was received so far.
    pub usage: Usage,
    /// Root over the tokens received so far.
    pub root: Hash,
    /// What is owed for it, by the order's policy and under its ceiling. Cumulative.
    pub amount: Credits,
}

impl Record for Voucher {
    const TYPE: &'static str = "commons/voucher/1";
    const SIGNER: Signer = Signer::Node;

    fn check(&self) -> Result<(), InvalidBody> {
        check_usage(&self.usage)
    }
}

fn check_usage(usage: &Usage) -> Result<(), InvalidBody> {
    let is_part = usage.cached_tokens <= usage.prompt_tokens;
    InvalidBody::unless(is_part, "cached_tokens", "are more than the prompt's")
}

/// What a provider did for an order, and what it claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The order's record id.
    pub order: Hash,
    /// Whether two parties stand behind it or one node served itself.
    pub scope: Scope,
    /// Exactly what ran.
    pub ran: Ran,
    /// Salted hash of the rendered prompt's token ids.
    pub prompt: Hash,
    /// The work that is claimed.
    pub usage: Usage,
    /// Root over the claimed tokens.
    pub root: Hash,
    /// Which tokens of the request's answer these are.
    pub range: TokenRange,
    /// Why the answer ended.
    pub end: EndReason,
    /// What the seed was made of; none if the order ended before it was known.
    pub seed: Option<SeedTranscript>,
    /// What is claimed for this order.
    pub amount: Credits,
    /// Where this receipt stands among all of this provider for this requester.
    pub pair: PairPosition,
    /// The last voucher's record id.
    pub voucher: Option<Hash>,
    /// Whether that voucher covers everything that the provider sent.
    pub acknowledged: bool,
    /// What the work took, by the provider's own word.
    pub meter: Meter,
}

/// Whose receipt it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One node was both parties: never credit, never evidence (Rule E12).
    Local,
    /// Two nodes of a mesh.
    Mesh,
}

/// Exactly what ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ran {
    /// The base model's file.
    pub model: Hash,
    /// The adapter, if one was applied.
    pub adapter: Option<RanAdapter>,
    /// `Q4_K_M`, `F16`.
    pub quantisation: String,
    /// What computed it.
    pub engine: EngineClass,
}

/// An adapter that was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RanAdapter {
    /// The hash of its file.
    pub adapter: Hash,
    /// How its numbers were stored while they were computed with: `F16`, `Q8_0`. Another form is
    /// another answer.
    pub format: String,
}

/// What computed an answer. Two nodes of one class can be expected to agree closely.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineClass {
    /// `cpu/x86_64`, or an accelerator's name.
    pub device: String,
    /// The kernel set, and how exactly it repeats: `commons/rows-1`.
    pub kernels: String,
    /// The engine's version.
    pub version: String,
}

/// How the kernels of a foreign engine's class begin: `foreign/vllm`.
pub const FOREIGN_KERNELS: &str = "foreign/";

impl EngineClass {
    /// Whether a foreign engine computed: the model is what that engine declares, no seed of ours
    /// drew its tokens, and no two answers can be expected to agree (Rule E15).
    pub fn is_foreign(&self) -> bool {
        self.kernels.starts_with(FOREIGN_KERNELS)
    }
}

/// A range of an answer's tokens, from `start` up to but without `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRange {
    /// The first token.
    pub start: u32,
    /// One past the last token.
    pub end: u32,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The model said so.
    Stop,
    /// A stop string came up.
    StopString,
    /// The limit or the context was reached.
    Length,
    /// The requester did not want more.
    Cancelled,
    /// The requester was not heard of any more.
    Vanished,
    /// The order's deadline passed.
    Deadline,
    /// The provider could not go on.
    Failed,
}

/// Where a receipt stands among all between two parties: a missing one shows (Rule E9).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairPosition {
    /// From 1, without gaps.
    pub sequence: u64,
    /// Sum of all amounts up to and including this receipt.
    pub cumulative: Credits,
}

impl PairPosition {
    /// The next position after a receipt over `amount`; `None` on overflow.
    pub fn next(self, amount: Credits) -> Option<Self> {
        let sequence = self.sequence.checked_add(1)?;
        Some(Self { sequence, cumulative: self.cumulative.checked_add(amount)? })
    }
}

/// What the work took, declared by the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meter {
    /// Time that the engine computed.
    pub compute_ms: Millis,
    /// Energy, where the provider says anything about it.
    pub energy: Option<Energy>,
}

/// An amount of energy and how it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Energy {
    /// Read from a counter.
    Measured {
        /// Millijoules.
        mj: u64,
    },
    /// Computed from time and a rated power.
    Estimated {
        /// Millijoules.
        mj: u64,
    },
}

impl Record for Receipt {
    const TYPE: &'static str = "commons/receipt/1";
    const SIGNER: Signer = Signer::Node;

    fn check(&self) -> Result<(), InvalidBody> {
        check_usage(&self.usage)?;
        let count = self.range.end.checked_sub(self.range.start);
        let is_counted = count == Some(self.usage.completion_tokens);
        InvalidBody::unless(is_counted, "range", "is not as long as the completion")?;
        let engine = &self.ran.engine;
        let labels = [&self.ran.quantisation, &engine.device, &engine.kernels, &engine.version];
        let are_labels = labels.into_iter().all(|it| is_label(it));
        InvalidBody::unless(are_labels, "ran", "has a label that is empty or unprintable")?;
        let is_claimable = self.amount == Credits::ZERO || self.voucher.is_some();
        InvalidBody::unless(is_claimable, "amount", "is claimed without a voucher")?;
        let is_placed = self.pair.sequence > 0 && self.pair.cumulative >= self.amount;
        InvalidBody::unless(is_placed, "pair", "cannot hold this amount")
    }
}
