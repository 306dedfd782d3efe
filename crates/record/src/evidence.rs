//! The evidence of one order in one file, and its verification by a stranger offline.
//!
//! A file holds the order, the receipt, the last voucher and the policy, each as the signed
//! bytes that crossed the wire, and the mesh's genesis. A holder may add the opening (salt,
//! prompt and answer tokens): then the published roots are checked against the tokens too.
//!
//! [`Evidence::verify`] runs the rules E5 to E12 in order and stops at the first that fails.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::amount::Credits;
use crate::codec::{self, DecodeError};
use crate::envelope::{Expect, Record, Unverified, Verified, VerifyError};
use crate::hash::Hash;
use crate::key::{PublicKey, Salt};
use crate::manifest::ModelManifest;
use crate::merkle::{Transcript, prompt_hash};
use crate::mesh::{MeshGenesis, NO_MESH, Policy, Usage};
use crate::order::{Job, Order};
use crate::settlement::{Receipt, Scope, Voucher};

/// Five records and the tokens of the longest answer and prompt, five bytes each.
pub const EVIDENCE_SIZE_MAX: usize = 4 * 1024 * 1024;

/// What a file of evidence begins with, so that people and tools tell it apart.
pub const EVIDENCE_FORMAT: &str = "commons/evidence/1";

/// The records of one order, as they were signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// [`EVIDENCE_FORMAT`].
    pub format: String,
    /// The mesh's genesis.
    pub genesis: ByteBuf,
    /// The policy whose prices applied.
    pub policy: ByteBuf,
    /// The order.
    pub order: ByteBuf,
    /// The last voucher, if one was sent.
    pub voucher: Option<ByteBuf>,
    /// The receipt.
    pub receipt: ByteBuf,
    /// The provider's description of the model, where it was kept.
    pub manifest: Option<ByteBuf>,
    /// What opens the salted hashes; left out of copies that are given away.
    pub opening: Option<Opening>,
}

/// What opens the salted hashes of an order and its receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// The salt of the order.
    pub salt: Salt,
    /// The rendered prompt, where the holder has it (the provider does).
    pub prompt: Option<Vec<u32>>,
    /// The tokens of the answer that the receipt claims.
    pub tokens: Vec<u32>,
}

/// What an answer is compared by (Rule E16): the same for the same tokens, whoever computed them.
/// The roots that are signed are salted, so that a receipt alone lets nobody guess a text.
pub fn output_hash(tokens: &[u32]) -> Hash {
    let bytes: Vec<u8> = tokens.iter().flat_map(|it| it.to_le_bytes()).collect();
    Hash::of_fields("commons/output/1", &[&bytes])
}

/// Why evidence does not hold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum EvidenceError {
    #[error("the file is not evidence that this version can read")]
    Unreadable(#[from] DecodeError),

    #[error("the file says it is {found:?}, and this version reads {EVIDENCE_FORMAT:?}")]
    Format { found: String },

    #[error("the {record} is not valid")]
    Record { record: &'static str, source: VerifyError },

    #[error("rule {rule} is broken: {what}")]
    Broken { rule: &'static str, what: &'static str },
}

impl EvidenceError {
    /// A stable code for programs: which part failed.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "unreadable",
            Self::Format { .. } => "unknown_format",
            Self::Record { .. } => "invalid_record",
            Self::Broken { .. } => "broken_rule",
        }
    }
}

/// What verified evidence says.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The mesh's genesis.
    pub genesis: Verified<MeshGenesis>,
    /// The order.
    pub order: Verified<Order>,
    /// The last voucher.
    pub voucher: Option<Verified<Voucher>>,
    /// The receipt.
    pub receipt: Verified<Receipt>,
    /// The model's description, if it is in the file.
    pub manifest: Option<Verified<ModelManifest>>,
    /// Whether the tokens were there and led to the signed roots.
    pub is_opened: bool,
    /// The hash of the answer, if the tokens were there (Rule E16).
    pub output: Option<Hash>,
}

impl Checked {
    /// Whether both parties signed for everything that is claimed, and they are two.
    pub fn is_two_sided(&self) -> bool {
        let receipt = self.receipt.body();
        receipt.scope == Scope::Mesh && receipt.acknowledged && self.voucher.is_some()
    }
}

impl Evidence {
    /// The canonical bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a file without judging it.
    pub fn decode(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let evidence: Self = codec::decode("evidence file", bytes, EVIDENCE_SIZE_MAX)?;
        if evidence.format != EVIDENCE_FORMAT {
            return Err(EvidenceError::Format { found: evidence.format });
        }
        Ok(evidence)
    }

    /// Checks every signature and every rule that binds the records to each other.
    pub fn verify(&self) -> Result<Checked, EvidenceError> {
        let genesis: Verified<MeshGenesis> =
            record("genesis", &self.genesis, Expect::mesh(NO_MESH))?;
        let expect = Expect::mesh(genesis.id());
        let policy: Verified<Policy> = record("policy", &self.policy, expect)?;
        let order: Verified<Order> = record("order", &self.order, expect)?;
        let receipt: Verified<Receipt> = record("receipt", &self.receipt, expect)?;
        let voucher = self.voucher.as_ref().map(|it| record("voucher", it, expect)).transpose()?;
        let manifest =
            self.manifest.as_ref().map(|it| record("manifest", it, expect)).transpose()?;
        rule(
            genesis.body().authorities.contains(&policy.owner()),
            "E5",
            "the policy is not signed by an authority of the mesh",
        )?;
        check_receipt(&order, voucher.as_ref(), &receipt, &policy)?;
        check_manifest(manifest.as_ref(), &receipt)?;
        if let Some(opening) = &self.opening {
            check_opening(opening, &receipt)?;
        }
        let is_opened = self.opening.is_some();
        let output = self.opening.as_ref().map(|it| output_hash(&it.tokens));
        Ok(Checked { genesis, order, voucher, receipt, manifest, is_opened, output })
    }
}

fn record<T: Record>(
    name: &'static str,
    bytes: &[u8],
    expect: Expect,
) -> Result<Verified<T>, EvidenceError> {
    Unverified::decode(bytes)
        .and_then(|record| record.verify(&expect))
        .map_err(|source| EvidenceError::Record { record: name, source })
}

fn rule(holds: bool, rule: &'static str, what: &'static str) -> Result<(), EvidenceError> {
    if holds { Ok(()) } else { Err(EvidenceError::Broken { rule, what }) }
}

/// What is owed for `usage` under an order: the policy's price, and never over the ceiling.
/// `None` if the price cannot be represented.
pub fn amount_due(order: &Order, policy: &Policy, usage: Usage) -> Option<Credits> {
    Some(policy.prices.amount(usage)?.min(order.price_ceiling))
}

/// Rules E5 to E8: a voucher is by the order's requester, over what the policy charges.
pub fn check_voucher(
    order: &Verified<Order>,
    voucher: &Verified<Voucher>,
    policy: &Verified<Policy>,
) -> Result<(), EvidenceError> {
    let body = voucher.body();
    rule(body.order == order.id(), "E6", "the voucher is for another order")?;
    let is_requester = voucher.author() == order.body().requester.key();
    rule(is_requester, "E7", "the voucher is not signed by the order's requester")?;
    let due = amount_due(order.body(), policy.body(), body.usage);
    rule(due == Some(body.amount), "E8", "the voucher's amount is not what the policy charges")
}

/// Rules E5 to E12 on one receipt, with the last voucher that it names.
pub fn check_receipt(
    order: &Verified<Order>,
    voucher: Option<&Verified<Voucher>>,
    receipt: &Verified<Receipt>,
    policy: &Verified<Policy>,
) -> Result<(), EvidenceError> {
    let (asked, claim) = (order.body(), receipt.body());
    let Job::Infer(infer) = &asked.job;
    rule(policy.id() == asked.policy, "E5", "the policy is not the one that the order names")?;
    let is_requester = order.author() == asked.requester.key();
    rule(is_requester, "E7", "the order is not signed by its requester")?;
    rule(claim.order == order.id(), "E6", "the receipt is for another order")?;
    let is_provider = receipt.author() == PublicKey::from(asked.provider);
    rule(is_provider, "E7", "the receipt is not signed by the order's provider")?;
    let is_local = order.author() == receipt.author();
    let says_local = claim.scope == Scope::Local;
    rule(is_local == says_local, "E12", "the receipt's scope is not what its parties are")?;
    let adapter = claim.ran.adapter.as_ref().map(|it| it.adapter);
    let ran_as_asked = claim.ran.model == infer.model && adapter == infer.adapter;
    rule(ran_as_asked, "E10", "what ran is not what was ordered")?;
    // The end and not the count: the limit is on the answer, of which a resume is the rest.
    let within = claim.range.end <= infer.limits.completion_tokens_max;
    rule(within, "E10", "the receipt claims more tokens than the order allows")?;
    let within = claim.usage.prompt_tokens <= infer.limits.prompt_tokens_max;
    rule(within, "E10", "the receipt claims more prompt tokens than the order allows")?;
    let start = asked.resume.map_or(0, |resume| resume.prefix_tokens);
    rule(claim.range.start == start, "E10", "the token range does not begin where the order does")?;
    let follows = claim.seed.is_none_or(|seed| seed.follows(&infer.seed));
    rule(follows, "S3", "the seed is not the one that the order committed to")?;
    let is_seeded = claim.seed.is_some() || claim.usage.completion_tokens == 0;
    rule(is_seeded, "S3", "tokens were drawn without a recorded seed")?;
    check_claim(order, voucher, receipt, policy)
}

/// Rules E8, E9 and E11: the receipt claims what the last voucher acknowledges.
fn check_claim(
    order: &Verified<Order>,
    voucher: Option<&Verified<Voucher>>,
    receipt: &Verified<Receipt>,
    policy: &Verified<Policy>,
) -> Result<(), EvidenceError> {
    let claim = receipt.body();
    rule(voucher.map(Verified::id) == claim.voucher, "E11", "the receipt names another voucher")?;
    let Some(voucher) = voucher else {
        rule(claim.amount == Credits::ZERO, "E11", "an amount is claimed without a voucher")?;
        let is_empty = claim.usage.completion_tokens == 0;
        return rule(is_empty, "E11", "tokens are claimed without a voucher");
    };
    check_voucher(order, voucher, policy)?;
    let body = voucher.body();
    rule(body.usage == claim.usage, "E11", "the receipt claims another usage than the voucher")?;
    rule(body.root == claim.root, "E11", "the receipt claims other tokens than the voucher")?;
    rule(body.amount == claim.amount, "E8", "the receipt claims another amount than the voucher")
}

fn check_manifest(
    manifest: Option<&Verified<ModelManifest>>,
    receipt: &Verified<Receipt>,
) -> Result<(), EvidenceError> {
    let Some(manifest) = manifest else { return Ok(()) };
    let (body, ran) = (manifest.body(), &receipt.body().ran);
    let is_same = body.model() == Some(ran.model) && body.quantisation == ran.quantisation;
    rule(is_same, "E10", "the manifest describes another model than the one that ran")?;
    let is_provider = manifest.author() == receipt.author();
    rule(is_provider, "E7", "the manifest is not signed by the provider")
}

fn check_opening(opening: &Opening, receipt: &Verified<Receipt>) -> Result<(), EvidenceError> {
    let claim = receipt.body();
    let mut transcript = Transcript::new(opening.salt);
    for token in &opening.tokens {
        transcript.push(*token);
    }
    let is_counted = transcript.count() == claim.usage.completion_tokens;
    rule(is_counted, "E10", "the opened tokens are not as many as the receipt claims")?;
    rule(transcript.root() == claim.root, "E10", "the opened tokens are not the signed ones")?;
    let Some(prompt) = &opening.prompt else { return Ok(()) };
    let is_same = prompt_hash(&opening.salt, prompt) == claim.prompt;
    rule(is_same, "E10", "the opened prompt is not the signed one")
}
