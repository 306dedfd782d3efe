//! A journal in memory: whole batches or nothing, and full when a test says so.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;

use commons_exchange::entry::{Entry, Side};
use commons_exchange::provider::pair_key;
use commons_exchange::settle::Held;
use commons_port::journal::{Change, Table};
use commons_record::codec;
use commons_record::envelope::{Expect, Record, Unverified, Verified};
use commons_record::settlement::PairPosition;
use commons_record::{Hash, PeerId};

use crate::sample;

/// What survives a crash.
#[derive(Default)]
pub(crate) struct Disk {
    rows: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
    /// Records that were verified once: a test looks at them after every step.
    verified: RefCell<BTreeMap<Hash, Box<dyn Any>>>,
    /// While it is, every commit fails.
    pub(crate) is_full: bool,
    /// Commits that succeeded.
    pub(crate) commits: usize,
}

/// The disk is full: nothing of the batch is there.
#[derive(Debug)]
pub(crate) struct Full;

impl Disk {
    pub(crate) fn commit(&mut self, changes: Vec<Change>) -> Result<(), Full> {
        if self.is_full {
            return Err(Full);
        }
        self.commits += 1;
        for Change { table, key, value } in changes {
            match value {
                Some(value) => self.rows.insert((table, key), value),
                None => self.rows.remove(&(table, key)),
            };
        }
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Option<&Vec<u8>> {
        self.rows.get(&(table, key.to_vec()))
    }

    fn scan(&self, table: Table) -> impl Iterator<Item = (&Vec<u8>, &Vec<u8>)> {
        self.rows
            .iter()
            .filter(move |((of, _), _)| *of == table)
            .map(|((_, key), value)| (key, value))
    }

    pub(crate) fn bytes(&self, id: &Hash) -> Option<&Vec<u8>> {
        self.get(Table::Record, id.as_bytes())
    }

    /// A record that some row speaks of: it must be there and valid.
    pub(crate) fn needed<T: Record + Clone + 'static>(&self, id: &Hash) -> Verified<T> {
        let bytes = self.bytes(id).unwrap_or_else(|| panic!("{} {id} is not on disk", T::TYPE));
        let mut verified = self.verified.borrow_mut();
        if let Some(record) = verified.get(id).and_then(|it| it.downcast_ref::<Verified<T>>()) {
            return record.clone();
        }
        let record = Unverified::<T>::decode(bytes).and_then(|it| it.verify(&expect()));
        let record = record.unwrap_or_else(|error| panic!("{} {id}: {error}", T::TYPE));
        assert_eq!(record.id(), *id, "a record lies under its own name");
        verified.insert(*id, Box::new(record.clone()));
        record
    }

    pub(crate) fn find<T: Record + Clone + 'static>(&self, id: &Hash) -> Option<Verified<T>> {
        self.bytes(id).map(|_| self.needed(id))
    }

    /// Every record of a type.
    pub(crate) fn all<T: Record + Clone + 'static>(&self) -> Vec<Verified<T>> {
        let is_of_type = |bytes: &[u8]| Unverified::<T>::decode(bytes).is_ok();
        let ids = self.scan(Table::Record).filter(|(_, bytes)| is_of_type(bytes)).map(|(id, _)| id);
        let ids = ids.map(|id| Hash::from_bytes(id.as_slice().try_into().expect("32 bytes")));
        ids.map(|id| self.needed(&id)).collect()
    }

    pub(crate) fn entry(&self, side: Side, order: &Hash) -> Option<Entry> {
        let bytes = self.get(Table::Exchange, &Entry::key(side, order))?;
        Some(Entry::decode(bytes).expect("a stored entry is readable"))
    }

    /// Every entry of both sides.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let rows = self.scan(Table::Exchange);
        rows.map(|(_, bytes)| Entry::decode(bytes).expect("readable")).collect()
    }

    /// The whole exchange; every record that its entry names must be there.
    pub(crate) fn held(&self, side: Side, order: &Hash) -> Option<Held> {
        let entry = self.entry(side, order)?;
        Some(Held {
            order: self.needed(&entry.order),
            policy: self.needed(&entry.policy),
            manifest: entry.manifest.map(|id| self.needed(&id)),
            voucher: entry.voucher.map(|id| self.needed(&id)),
            receipt: entry.receipt.map(|id| self.needed(&id)),
            entry,
        })
    }

    /// The records that wait for a peer.
    pub(crate) fn outbox(&self, peer: &PeerId) -> Vec<Hash> {
        let keys = self.scan(Table::Outbox).map(|(key, _)| key);
        let own = keys.filter_map(|key| key.strip_prefix(peer.as_bytes().as_slice()));
        own.map(|id| Hash::from_bytes(id.try_into().expect("32 bytes"))).collect()
    }

    pub(crate) fn pair(&self, provider: &PeerId, requester: &PeerId) -> PairPosition {
        let stored = self.get(Table::Pair, &pair_key(provider, requester));
        stored.map_or_else(PairPosition::default, |bytes| {
            codec::decode("pair position", bytes, 256).expect("readable")
        })
    }
}

pub(crate) fn expect() -> Expect {
    Expect::mesh(sample::genesis().id())
}
