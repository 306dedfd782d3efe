//! What is owed after a crash or a lost connection.
//!
//! Each side keeps the records that the other has not acknowledged, and offers them again when
//! they meet (Rule E14). A provider that crashed closes what was open: it claims the last voucher
//! that it holds. A requester checks a late receipt like one that came in time.
//!
//! [`Held`] is one exchange as it lies on disk. Its methods are pure: they say what to change.

use commons_port::journal::Change;
use commons_record::envelope::{Expect, Unverified, Verified};
use commons_record::evidence::{EVIDENCE_FORMAT, Evidence, Opening, check_receipt, check_voucher};
use commons_record::manifest::ModelManifest;
use commons_record::mesh::{MeshGenesis, Policy, Usage};
use commons_record::order::{Job, Order};
use commons_record::settlement::{EndReason, PairPosition, Receipt, Voucher};
use commons_record::{Hash, Millis, PublicKey};
use serde_bytes::ByteBuf;

use crate::entry::{Entry, Side, outbox_remove, record_change};
use crate::message::{WireCode, WireRefusal};
use crate::provider::{Claim, receipt_changes};
use crate::standing::{SequenceRange, Standing};

/// After a crash a provider waits this long for the requester to come back with a later voucher
/// before it claims the one that it holds.
pub const RECOVERY_GRACE: Millis = Millis::from_secs(30);

/// One exchange as it lies on disk.
#[derive(Debug, Clone)]
pub struct Held {
    /// How it stands.
    pub entry: Entry,
    /// The order.
    pub order: Verified<Order>,
    /// The policy whose prices apply.
    pub policy: Verified<Policy>,
    /// The model's manifest, if the order was accepted.
    pub manifest: Option<Verified<ModelManifest>>,
    /// The last voucher.
    pub voucher: Option<Verified<Voucher>>,
    /// The receipt, if it is settled.
    pub receipt: Option<Verified<Receipt>>,
}

fn refuse(sentence: &str) -> WireRefusal {
    WireRefusal::new(WireCode::InvalidOrder, sentence)
}

/// A receipt may claim less than was received: it names the last voucher that arrived.
fn claimed(tokens: &[u32], receipt: &Receipt) -> Vec<u32> {
    let count = usize::try_from(receipt.usage.completion_tokens).unwrap_or(usize::MAX);
    tokens.iter().copied().take(count).collect()
}

impl Held {
    /// The order that an offered record is about, before anything of it is believed.
    pub fn order_of(record: &[u8]) -> Result<(Side, Hash), WireRefusal> {
        if let Ok(voucher) = Unverified::<Voucher>::decode(record) {
            return Ok((Side::Provider, voucher.claimed().order));
        }
        match Unverified::<Receipt>::decode(record) {
            Ok(receipt) => Ok((Side::Requester, receipt.claimed().order)),
            Err(error) => Err(refuse(&format!("not a voucher or a receipt: {error}"))),
        }
    }

    /// Whether the exchange ended without a receipt.
    pub fn is_open(&self) -> bool {
        self.receipt.is_none()
    }

    /// A requester offers a voucher again. The changes store it if it goes beyond the last one;
    /// there are none if it says nothing new.
    pub fn take_voucher(&mut self, mesh: Hash, record: &[u8]) -> Result<Vec<Change>, WireRefusal> {
        let voucher = Unverified::<Voucher>::decode(record)
            .and_then(|it| it.verify(&Expect::mesh(mesh)))
            .map_err(|error| refuse(&format!("the voucher: {error}")))?;
        check_voucher(&self.order, &voucher, &self.policy)
            .map_err(|error| refuse(&format!("the voucher: {error}")))?;
        let Job::Infer(infer) = &self.order.body().job;
        let (usage, limits) = (voucher.body().usage, infer.limits);
        if usage.prompt_tokens > limits.prompt_tokens_max
            || usage.completion_tokens > limits.completion_tokens_max
        {
            return Err(refuse("the voucher is for more than the order allows"));
        }
        let known = self.voucher.as_ref().map(|it| it.body().usage.completion_tokens);
        if known.is_some_and(|known| voucher.body().usage.completion_tokens <= known) {
            return Ok(Vec::new());
        }
        if !self.is_open() {
            return Err(refuse("the exchange is settled by an earlier voucher"));
        }
        self.entry.voucher = Some(voucher.id());
        let changes = vec![record_change(&voucher), self.entry.change()];
        self.voucher = Some(voucher);
        Ok(changes)
    }

    /// A provider offers a receipt again. The changes store it; there are none if it is known.
    /// `named` is the voucher that the receipt names, if we signed one by that name.
    pub fn take_receipt(
        &mut self,
        mesh: Hash,
        record: &[u8],
        named: Option<&Verified<Voucher>>,
    ) -> Result<Vec<Change>, WireRefusal> {
        let receipt = Unverified::<Receipt>::decode(record)
            .and_then(|it| it.verify(&Expect::mesh(mesh)))
            .map_err(|error| refuse(&format!("the receipt: {error}")))?;
        if let Some(known) = &self.receipt {
            let is_same = known.id() == receipt.id();
            return if is_same { Ok(Vec::new()) } else { Err(refuse("another receipt is known")) };
        }
        check_receipt(&self.order, named, &receipt, &self.policy)
            .map_err(|error| refuse(&format!("the receipt: {error}")))?;
        let ran = &receipt.body().ran;
        let manifest = self.manifest.as_ref().map(Verified::body);
        if manifest.is_some_and(|it| it.quantisation != ran.quantisation) {
            return Err(refuse("the receipt names another quantisation than the manifest"));
        }
        self.entry.receipt = Some(receipt.id());
        self.entry.voucher = named.map(Verified::id);
        let mut changes = vec![record_change(&receipt), self.entry.change()];
        if let Some(voucher) = named {
            changes.push(outbox_remove(&self.entry.counterparty, &voucher.id()));
        }
        self.receipt = Some(receipt);
        Ok(changes)
    }

    /// The voucher that an offered receipt names.
    pub fn voucher_named_by(record: &[u8]) -> Option<Hash> {
        Unverified::<Receipt>::decode(record).ok().and_then(|it| it.claimed().voucher)
    }

    /// A provider closes an exchange that a crash left open: it claims the last voucher. `None`
    /// if there is nothing to close here.
    pub fn close(
        &mut self,
        standing: &Standing,
        sequences: &mut SequenceRange,
        pair: PairPosition,
    ) -> Option<(Verified<Receipt>, Vec<Change>)> {
        let is_ours = self.entry.side == Side::Provider && self.is_open();
        let manifest = self.manifest.as_ref().filter(|_| is_ours)?;
        let claim = Claim {
            entry: &self.entry,
            order: &self.order,
            manifest,
            voucher: self.voucher.as_ref(),
            // What was sent beyond the voucher went down with the crash.
            acknowledged: false,
            prompt_usage: Usage::default(),
            end: EndReason::Failed,
            pair,
            compute: Millis(0),
        };
        let receipt = standing.author.sign(sequences.take()?, claim.receipt()?);
        let changes = receipt_changes(&mut self.entry, &standing.peer(), &receipt);
        self.receipt = Some(receipt.clone());
        Some((receipt, changes))
    }

    /// The evidence file of a settled exchange; none while it is open.
    pub fn evidence(&self, genesis: &Verified<MeshGenesis>, is_opened: bool) -> Option<Evidence> {
        let receipt = self.receipt.as_ref()?;
        let provider = PublicKey::from(self.order.body().provider);
        let manifest = self.manifest.as_ref().filter(|it| it.author() == provider);
        let opening = self.entry.opening.as_ref().filter(|_| is_opened).map(|opening| Opening {
            salt: opening.salt,
            prompt: None,
            tokens: claimed(&opening.tokens, receipt.body()),
        });
        Some(Evidence {
            format: EVIDENCE_FORMAT.to_owned(),
            genesis: ByteBuf::from(genesis.encode()),
            policy: ByteBuf::from(self.policy.encode()),
            order: ByteBuf::from(self.order.encode()),
            voucher: self.voucher.as_ref().map(|it| ByteBuf::from(it.encode())),
            receipt: ByteBuf::from(receipt.encode()),
            manifest: manifest.map(|it| ByteBuf::from(it.encode())),
            opening,
        })
    }
}
