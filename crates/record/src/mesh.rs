//! Who may take part in a mesh, and under which rules.
//!
//! ```text
//! MeshGenesis (its id is the mesh id) -- names --> authorities (owners)
//! authority -- Membership --> owner -- NodeCertificate --> node (signing key, HPKE key)
//! authority -- Policy --> prices, epoch length, voucher step, protocol versions
//! authority -- Invite --> one-time key -- JoinRequest --> a new Membership
//! node -- Presence --> what it serves, for ten minutes from arrival
//! ```
//!
//! Rules M1 to M6. Several devices stand under one owner: one account.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::amount::{Credits, Epoch, Millis};
use crate::envelope::{InvalidBody, Record, Signer};
use crate::hash::Hash;
use crate::key::{HpkeKey, OwnerId, PeerId, PublicKey, Signature};

/// Names, ids and labels that people or peers choose.
pub(crate) const NAME_LEN_MAX: usize = 128;

/// More authorities than this is a consortium's vote, which has its own records.
const AUTHORITIES_MAX: usize = 16;

/// Protocol versions that a policy lists: a handful for each protocol.
const PROTOCOLS_MAX: usize = 64;

/// Models that one node announces.
pub const PRESENCE_MODELS_MAX: usize = 64;

/// Adapters that one node announces, for all its models: what fits a message that is gossiped.
pub const PRESENCE_ADAPTERS_MAX: usize = 64;

/// Addresses that one node announces.
pub const PRESENCE_ADDRS_MAX: usize = 16;

/// Whether `text` is a printable label of bounded length.
pub(crate) fn is_label(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_LEN_MAX && !text.chars().any(char::is_control)
}

/// What a genesis says instead of a mesh (Rule M1).
pub const NO_MESH: Hash = Hash::from_bytes([0; 32]);

/// The birth of a mesh. Its record id is the mesh id, so its own envelope names no mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeshGenesis {
    /// What people call it.
    pub name: String,
    /// Owners whose memberships, policies and invites count.
    pub authorities: Vec<OwnerId>,
    /// The start of epoch 0, in milliseconds of Unix time.
    pub start_unix_ms: Millis,
    /// How long an epoch lasts.
    pub epoch_ms: Millis,
    /// Random bytes, so that two meshes of one name differ.
    pub nonce: Hash,
}

/// Epochs shorter than an hour could not absorb clocks that are an hour apart (Rule R7).
const EPOCH_MS_MIN: Millis = Millis(3_600_000);

impl Record for MeshGenesis {
    const TYPE: &'static str = "commons/mesh-genesis/1";
    const SIGNER: Signer = Signer::Owner;

    fn check(&self) -> Result<(), InvalidBody> {
        let authorities = self.authorities.len();
        InvalidBody::unless(is_label(&self.name), "name", "is empty, too long or not printable")?;
        InvalidBody::unless(
            (1..=AUTHORITIES_MAX).contains(&authorities),
            "authorities",
            "are none or more than 16",
        )?;
        InvalidBody::unless(self.epoch_ms >= EPOCH_MS_MIN, "epoch_ms", "is under one hour")
    }
}

impl MeshGenesis {
    /// The epoch at a Unix time; everything before the start is epoch 0.
    pub fn epoch_at(&self, unix: Millis) -> Epoch {
        // `check` refuses a short epoch; `max` keeps even an unchecked genesis from dividing by 0.
        Epoch(unix.since(self.start_unix_ms).0 / self.epoch_ms.0.max(1))
    }
}

/// An authority admits an owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// Who is admitted.
    pub owner: OwnerId,
    /// The invite that led here, if one did.
    pub invite: Option<Hash>,
    /// The last epoch in which it holds.
    pub last_epoch: Epoch,
}

impl Record for Membership {
    const TYPE: &'static str = "commons/membership/1";
    const SIGNER: Signer = Signer::Owner;

    fn check(&self) -> Result<(), InvalidBody> {
        Ok(())
    }
}

/// An owner lets a node speak and be addressed for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeCertificate {
    /// The node's signing key, which is also how it is reached.
    pub node: PeerId,
    /// The key that requests to the node are sealed to.
    pub hpke: HpkeKey,
    /// Higher replaces lower for the same node.
    pub serial: u64,
    /// The last epoch in which it holds.
    pub last_epoch: Epoch,
}

impl Record for NodeCertificate {
    const TYPE: &'static str = "commons/node-certificate/1";
    const SIGNER: Signer = Signer::Owner;

    fn check(&self) -> Result<(), InvalidBody> {
        Ok(())
    }
}

/// The integers that a mesh agrees on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Higher replaces lower.
    pub version: u64,
    /// What work costs.
    pub prices: Prices,
    /// A voucher is due after this many tokens.
    pub voucher_step: u32,
    /// Which protocol versions are spoken, and until when.
    pub protocols: Vec<ProtocolTerm>,
}

/// Prices in micro-credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// For a prompt token that had to be computed.
    pub prompt: Credits,
    /// For a prompt token out of a cache.
    pub cached: Credits,
    /// For a token of the answer.
    pub completion: Credits,
}

/// A protocol version and the epoch at which it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProtocolTerm {
    /// `infer/1`.
    pub id: String,
    /// The first epoch in which it is no longer spoken.
    pub ends: Option<Epoch>,
}

impl Record for Policy {
    const TYPE: &'static str = "commons/policy/1";
    const SIGNER: Signer = Signer::Owner;

    fn check(&self) -> Result<(), InvalidBody> {
        InvalidBody::unless(
            (1..=4096).contains(&self.voucher_step),
            "voucher_step",
            "is not between 1 and 4096",
        )?;
        let protocols = &self.protocols;
        InvalidBody::unless(protocols.len() <= PROTOCOLS_MAX, "protocols", "are too many")?;
        let are_labels = protocols.iter().all(|term| is_label(&term.id));
        InvalidBody::unless(are_labels, "protocols", "hold an unprintable id")
    }
}

impl Prices {
    /// What a request costs after this much work; `None` on overflow.
    pub fn amount(&self, usage: Usage) -> Option<Credits> {
        let fresh = usage.prompt_tokens.checked_sub(usage.cached_tokens)?;
        let prompt = self.prompt.checked_mul(u64::from(fresh))?;
        let cached = self.cached.checked_mul(u64::from(usage.cached_tokens))?;
        let completion = self.completion.checked_mul(u64::from(usage.completion_tokens))?;
        prompt.checked_add(cached)?.checked_add(completion)
    }
}

/// How much work was done, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Tokens of the rendered prompt.
    pub prompt_tokens: u32,
    /// Of these, how many came out of a cache.
    pub cached_tokens: u32,
    /// Tokens of the answer.
    pub completion_tokens: u32,
}

/// An authority lets the bearer of a one-time key become a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invite {
    /// The public half of the key that the ticket carries.
    pub key: PublicKey,
    /// How many owners may join with it.
    pub uses: u32,
    /// The last epoch in which it can be used.
    pub last_epoch: Epoch,
}

impl Record for Invite {
    const TYPE: &'static str = "commons/invite/1";
    const SIGNER: Signer = Signer::Owner;

    fn check(&self) -> Result<(), InvalidBody> {
        InvalidBody::unless((1..=1024).contains(&self.uses), "uses", "are not between 1 and 1024")
    }
}

/// A node asks to be let in on an invite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The invite's record id.
    pub invite: Hash,
    /// The invite key's signature over [`JoinRequest::proof_message`].
    pub proof: Signature,
}

impl JoinRequest {
    /// What the invite key signs: it binds the ticket to the one owner who uses it.
    pub fn proof_message(invite: &Hash, owner: &OwnerId) -> Hash {
        Hash::of_fields("commons/join-proof/1", &[invite.as_bytes(), owner.as_bytes()])
    }
}

impl Record for JoinRequest {
    const TYPE: &'static str = "commons/join-request/1";
    const SIGNER: Signer = Signer::Node;

    fn check(&self) -> Result<(), InvalidBody> {
        Ok(())
    }
}

/// What a node serves, by its own word. Speed and load are not in it: they are measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Presence {
    /// Where it can be reached, as multiaddresses.
    pub addrs: Vec<String>,
    /// Models that are ready to serve.
    pub models: Vec<PresentModel>,
    /// What the machine claims to be.
    pub capability: Capability,
    /// How long the claim holds, counted from arrival.
    pub lease_ms: Millis,
    /// The encoded [`Membership`] of the node's owner.
    pub membership: ByteBuf,
}

/// A model that a node holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresentModel {
    /// The file's hash.
    pub model: Hash,
    /// The name that people use: the file's stem.
    pub name: String,
    /// `Q4_K_M`, `F16`.
    pub quantisation: String,
    /// Tokens of context that it serves.
    pub context_len: u32,
    /// Adapters that it serves with it: some of them, where they are many.
    pub adapters: Vec<PresentAdapter>,
}

/// An adapter that a node serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresentAdapter {
    /// The file's hash.
    pub adapter: Hash,
    /// What people call it.
    pub name: String,
}

/// A machine's own account of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capability {
    /// `cpu`, or the name of the accelerator in use.
    pub device: String,
    /// Threads that it computes with.
    pub threads: u32,
    /// Memory of the machine, in mebibytes.
    pub memory_mib: u32,
}

/// Presence holds for ten minutes, and no claim can ask for more.
pub const PRESENCE_LEASE_MAX: Millis = Millis::from_secs(600);

impl Record for Presence {
    const TYPE: &'static str = "commons/presence/1";
    const SIGNER: Signer = Signer::Node;

    fn check(&self) -> Result<(), InvalidBody> {
        let addrs = &self.addrs;
        let are_bounded = addrs.len() <= PRESENCE_ADDRS_MAX && addrs.iter().all(|it| is_label(it));
        InvalidBody::unless(are_bounded, "addrs", "are too many or not printable")?;
        InvalidBody::unless(self.models.len() <= PRESENCE_MODELS_MAX, "models", "are too many")?;
        let are_labels =
            self.models.iter().all(|it| is_label(&it.name) && is_label(&it.quantisation));
        InvalidBody::unless(are_labels, "models", "have unprintable names")?;
        let adapters = || self.models.iter().flat_map(|it| &it.adapters);
        let are_few = adapters().count() <= PRESENCE_ADAPTERS_MAX;
        InvalidBody::unless(are_few, "adapters", "are too many")?;
        let are_labels = adapters().all(|it| is_label(&it.name));
        InvalidBody::unless(are_labels, "adapters", "have unprintable names")?;
        InvalidBody::unless(is_label(&self.capability.device), "capability", "is unprintable")?;
        InvalidBody::unless(self.lease_ms <= PRESENCE_LEASE_MAX, "lease_ms", "is over ten minutes")
    }
}
