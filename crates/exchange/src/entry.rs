//! The state of one exchange on disk, for either side.
//!
//! The key is the role and the order's record id, so that a node that serves itself keeps both
//! sides apart. The records themselves lie in [`Table::Record`] under their ids.

use commons_port::journal::{Change, Table};
use commons_record::codec::{self, DecodeError};
use commons_record::envelope::Verified;
use commons_record::seed::SeedTranscript;
use commons_record::settlement::{EngineClass, Scope};
use commons_record::{Hash, Millis, PeerId, RequestId, Salt};
use serde::{Deserialize, Serialize};

/// Which side of an exchange a node was on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// It asked.
    Requester,
    /// It served.
    Provider,
}

/// An exchange on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Which side this node is on.
    pub side: Side,
    /// The order's record id.
    pub order: Hash,
    /// The request.
    pub request: RequestId,
    /// Which attempt at it.
    pub attempt: u32,
    /// The other party.
    pub counterparty: PeerId,
    /// Whether the other party is this node itself.
    pub scope: Scope,
    /// The policy's record id.
    pub policy: Hash,
    /// The model's manifest, once it is known.
    pub manifest: Option<Hash>,
    /// The last voucher.
    pub voucher: Option<Hash>,
    /// The receipt: with it the exchange is settled.
    pub receipt: Option<Hash>,
    /// The requester's own copy of what opens the hashes.
    pub opening: Option<StoredOpening>,
    /// What a provider needs to write the receipt, whatever happens to it meanwhile.
    pub work: Option<Work>,
    /// When the entry was made, by this machine's calendar.
    pub opened_unix_ms: Millis,
}

/// What a requester keeps to open its own records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredOpening {
    /// The salt.
    pub salt: Salt,
    /// The tokens that the last voucher covers.
    pub tokens: Vec<u32>,
}

/// The provider's side of the work so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// What computes it.
    pub class: EngineClass,
    /// How the numbers of the adapter are stored, if there is one.
    pub adapter_format: Option<String>,
    /// Salted hash of the rendered prompt.
    pub prompt: Hash,
    /// The seed, once it is known.
    pub seed: Option<SeedTranscript>,
}

/// The longest answer at five bytes a token, and the rest.
const ENTRY_SIZE_MAX: usize = 1024 * 1024;

impl Entry {
    /// The key of an exchange.
    pub fn key(side: Side, order: &Hash) -> Vec<u8> {
        let side = match side {
            Side::Requester => b'r',
            Side::Provider => b'p',
        };
        [[side].as_slice(), order.as_bytes()].concat()
    }

    /// The key of the index from requests to orders: all attempts at a request lie together.
    pub fn request_key(&self) -> Vec<u8> {
        let attempt = self.attempt.to_be_bytes();
        [self.request.as_bytes().as_slice(), &attempt, self.order.as_bytes()].concat()
    }

    /// The seed, once it is known to the provider.
    pub fn seed(&self) -> Option<SeedTranscript> {
        self.work.as_ref().and_then(|work| work.seed)
    }

    pub(crate) fn set_seed(&mut self, seed: SeedTranscript) {
        if let Some(work) = &mut self.work {
            work.seed = Some(seed);
        }
    }

    pub(crate) fn set_prompt(&mut self, prompt: Hash) {
        if let Some(work) = &mut self.work {
            work.prompt = prompt;
        }
    }

    /// Reads an entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode("stored exchange", bytes, ENTRY_SIZE_MAX)
    }

    /// The change that stores it.
    pub fn change(&self) -> Change {
        Change::put(Table::Exchange, Self::key(self.side, &self.order), codec::encode(self))
    }

    /// The change that makes it findable by its request.
    pub fn index_change(&self) -> Change {
        Change::put(Table::Request, self.request_key(), self.order.as_bytes().as_slice())
    }
}

/// The change that stores a signed record under its id.
pub fn record_change<T>(record: &Verified<T>) -> Change {
    Change::put(Table::Record, record.id().as_bytes().as_slice(), record.encode())
}

/// The key under which a record waits for a peer to acknowledge it.
pub fn outbox_key(peer: &PeerId, record: &Hash) -> Vec<u8> {
    [peer.as_bytes().as_slice(), record.as_bytes()].concat()
}

/// The change that makes a record wait for a peer.
pub fn outbox_put(peer: &PeerId, record: &Hash) -> Change {
    Change::put(Table::Outbox, outbox_key(peer, record), Vec::new())
}

/// The change that ends the wait.
pub fn outbox_remove(peer: &PeerId, record: &Hash) -> Change {
    Change::remove(Table::Outbox, outbox_key(peer, record))
}
