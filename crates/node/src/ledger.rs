//! The node's records on disk: sequence numbers, stored exchanges and pair positions.
//!
//! Everything goes through the journal port. Numbers are reserved durably before they are used
//! (Rule R8).

use std::sync::{Arc, Mutex};

use commons_exchange::SequenceRange;
use commons_exchange::entry::{Entry, Side};
use commons_exchange::provider::pair_key;
use commons_exchange::settle::Held;
use commons_port::journal::{Change, Journal, JournalError, Table};
use commons_record::codec;
use commons_record::envelope::{Envelope, Expect, Record, Unverified, Verified};
use commons_record::settlement::PairPosition;
use commons_record::{Hash, PeerId};

use crate::identity::FIRST_SEQUENCE;
use crate::tasks::lock;

/// Why stored state could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    #[error(transparent)]
    Journal(#[from] JournalError),

    #[error("the stored {what} is damaged: {detail}")]
    Damaged { what: &'static str, detail: String },
}

/// Sequence numbers that one write reserves: a write for every few thousand records.
const RESERVATION: u64 = 65_536;

const SEQUENCE_KEY: &[u8] = b"sequence";

/// Exchanges read at once while looking through all of them.
const PAGE: usize = 256;

/// The node's view of its journal.
pub(crate) struct Ledger {
    pub(crate) journal: Arc<dyn Journal>,
    sequences: Mutex<Reserved>,
    reserving: tokio::sync::Mutex<()>,
    /// Receipts are written one at a time, so that pair positions have no gaps (Rule E9).
    pairs: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone, Copy)]
struct Reserved {
    next: u64,
    end: u64,
}

/// The right to write the next receipt, until it is durable or given up.
pub(crate) type PairTurn = tokio::sync::OwnedMutexGuard<()>;

impl Ledger {
    pub(crate) fn new(journal: Arc<dyn Journal>) -> Self {
        let sequences = Mutex::new(Reserved { next: 0, end: 0 });
        let (reserving, pairs) = (tokio::sync::Mutex::default(), Arc::default());
        Self { journal, sequences, reserving, pairs }
    }

    /// Reserves `count` sequence numbers.
    pub(crate) async fn sequences(&self, count: u64) -> Result<SequenceRange, LedgerError> {
        if let Some(range) = self.take(count) {
            return Ok(range);
        }
        let _turn = self.reserving.lock().await;
        if let Some(range) = self.take(count) {
            return Ok(range);
        }
        let stored = self.journal.get(Table::State, SEQUENCE_KEY.to_vec()).await?;
        let next = match stored {
            None => FIRST_SEQUENCE,
            Some(bytes) => u64::from_be_bytes(bytes.try_into().map_err(|_| {
                LedgerError::Damaged { what: "sequence", detail: "it has not 8 bytes".into() }
            })?),
        };
        // 2^64 numbers outlast any node; saturating keeps even a damaged counter from wrapping.
        let end = next.saturating_add(RESERVATION.max(count));
        let change = Change::put(Table::State, SEQUENCE_KEY, end.to_be_bytes());
        self.journal.commit(vec![change]).await?;
        *lock(&self.sequences) = Reserved { next: next + count, end };
        Ok(SequenceRange::new(next, next + count))
    }

    fn take(&self, count: u64) -> Option<SequenceRange> {
        let mut reserved = lock(&self.sequences);
        let end = reserved.next.checked_add(count).filter(|end| *end <= reserved.end)?;
        let range = SequenceRange::new(reserved.next, end);
        reserved.next = end;
        Some(range)
    }

    /// Waits for the right to write the next receipt, and says where it stands.
    pub(crate) async fn pair_turn(
        &self,
        provider: &PeerId,
        requester: &PeerId,
    ) -> Result<(PairTurn, PairPosition), LedgerError> {
        let turn = self.pairs.clone().lock_owned().await;
        let stored = self.journal.get(Table::Pair, pair_key(provider, requester)).await?;
        let position = match stored {
            None => PairPosition::default(),
            Some(bytes) => codec::decode("pair position", &bytes, 256).map_err(|error| {
                LedgerError::Damaged { what: "pair position", detail: error.to_string() }
            })?,
        };
        Ok((turn, position))
    }

    /// A stored record, verified again: the disk is not trusted either.
    pub(crate) async fn record<T: Record>(
        &self,
        mesh: Hash,
        id: &Hash,
    ) -> Result<Option<Verified<T>>, LedgerError> {
        let Some(bytes) = self.journal.get(Table::Record, id.as_bytes().to_vec()).await? else {
            return Ok(None);
        };
        let damaged = |detail: String| LedgerError::Damaged { what: T::TYPE, detail };
        let record = Unverified::<T>::decode(&bytes)
            .and_then(|record| record.verify(&Expect::mesh(mesh)))
            .map_err(|error| damaged(error.to_string()))?;
        if record.id() != *id {
            return Err(damaged("it lies under another name".to_owned()));
        }
        Ok(Some(record))
    }

    async fn needed<T: Record>(&self, mesh: Hash, id: &Hash) -> Result<Verified<T>, LedgerError> {
        self.record(mesh, id).await?.ok_or_else(|| LedgerError::Damaged {
            what: T::TYPE,
            detail: format!("record {id} is missing"),
        })
    }

    /// The entry of one side of an exchange.
    pub(crate) async fn entry(
        &self,
        side: Side,
        order: &Hash,
    ) -> Result<Option<Entry>, LedgerError> {
        let key = Entry::key(side, order);
        let Some(bytes) = self.journal.get(Table::Exchange, key).await? else { return Ok(None) };
        decode_entry(&bytes).map(Some)
    }

    /// A whole exchange; none if it is not known here.
    pub(crate) async fn held(&self, side: Side, order: &Hash) -> Result<Option<Held>, LedgerError> {
        let Some(entry) = self.entry(side, order).await? else { return Ok(None) };
        let mesh = self.mesh_of(&entry.order).await?;
        let mut held = Held {
            order: self.needed(mesh, &entry.order).await?,
            policy: self.needed(mesh, &entry.policy).await?,
            manifest: None,
            voucher: None,
            receipt: None,
            entry,
        };
        if let Some(id) = held.entry.manifest {
            held.manifest = Some(self.needed(mesh, &id).await?);
        }
        if let Some(id) = held.entry.voucher {
            held.voucher = Some(self.needed(mesh, &id).await?);
        }
        if let Some(id) = held.entry.receipt {
            held.receipt = Some(self.needed(mesh, &id).await?);
        }
        Ok(Some(held))
    }

    /// The mesh that a stored record belongs to.
    async fn mesh_of(&self, id: &Hash) -> Result<Hash, LedgerError> {
        Ok(self.envelope(id).await?.map_or(*id, |envelope| envelope.mesh))
    }

    /// A stored record of any type.
    pub(crate) async fn envelope(&self, id: &Hash) -> Result<Option<Envelope>, LedgerError> {
        let Some(bytes) = self.journal.get(Table::Record, id.as_bytes().to_vec()).await? else {
            return Ok(None);
        };
        let damaged = |error: codec::DecodeError| LedgerError::Damaged {
            what: "record",
            detail: error.to_string(),
        };
        Envelope::decode(&bytes).map(Some).map_err(damaged)
    }

    /// All entries, page by page, that `keep` wants.
    pub(crate) async fn entries(
        &self,
        prefix: &[u8],
        keep: impl Fn(&Entry) -> bool,
    ) -> Result<Vec<Entry>, LedgerError> {
        let (mut kept, mut after) = (Vec::new(), None);
        loop {
            let page = self.journal.scan(Table::Exchange, prefix.to_vec(), after, PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(kept) };
            after = Some(last.clone());
            for (_, bytes) in &page {
                kept.extend(Some(decode_entry(bytes)?).filter(&keep));
            }
        }
    }
}

fn decode_entry(bytes: &[u8]) -> Result<Entry, LedgerError> {
    Entry::decode(bytes)
        .map_err(|error| LedgerError::Damaged { what: "exchange", detail: error.to_string() })
}

#[cfg(test)]
mod tests;
