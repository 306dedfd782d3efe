//! What is on the disks: the records of all nodes, as a stranger would read them.
//!
//! Reading is remembered: a record is decoded and verified once in a world, and a disk is read
//! again only after a commit. Invariants can therefore look at everything every second.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use commons_exchange::entry::{Entry, Side};
use commons_port::journal::Table;
use commons_record::envelope::{Envelope, Expect, Record, Unverified, Verified};
use commons_record::mesh::Policy;
use commons_record::order::Order;
use commons_record::settlement::{Receipt, Voucher};
use commons_record::{Hash, PeerId};

use crate::life::NodeId;
use crate::lock;
use crate::world::World;

/// A record that invariants look into, verified, or one that they do not.
#[derive(Debug)]
pub enum Known {
    /// An order.
    Order(Verified<Order>),
    /// A voucher.
    Voucher(Verified<Voucher>),
    /// A receipt.
    Receipt(Verified<Receipt>),
    /// A policy.
    Policy(Verified<Policy>),
    /// Any other.
    Other,
}

/// A type of record that invariants look into.
pub trait Kind: Record + 'static {
    /// The record, if it is of this type.
    fn of(known: &Known) -> Option<&Verified<Self>>;
}

macro_rules! kinds {
    ($($kind:ident),*) => {$(
        impl Kind for $kind {
            fn of(known: &Known) -> Option<&Verified<Self>> {
                match known {
                    Known::$kind(record) => Some(record),
                    _ => None,
                }
            }
        }
    )*};
}

kinds!(Order, Voucher, Receipt, Policy);

/// One record on a disk.
#[derive(Debug)]
pub struct Row {
    /// As it was signed.
    pub envelope: Envelope,
    /// As it was verified.
    pub known: Known,
    bytes: Vec<u8>,
}

impl Row {
    fn read(name: &Hash, bytes: &[u8]) -> Result<Self, String> {
        let envelope = Envelope::decode(bytes).map_err(|error| error.to_string())?;
        if envelope.id() != *name {
            return Err(format!("{} lies under another name than its own", envelope.kind));
        }
        let known = match envelope.kind.as_str() {
            Order::TYPE => Known::Order(verified(&envelope)?),
            Voucher::TYPE => Known::Voucher(verified(&envelope)?),
            Receipt::TYPE => Known::Receipt(verified(&envelope)?),
            Policy::TYPE => Known::Policy(verified(&envelope)?),
            _ => Known::Other,
        };
        Ok(Self { envelope, known, bytes: bytes.to_vec() })
    }
}

fn verified<T: Record>(envelope: &Envelope) -> Result<Verified<T>, String> {
    Unverified::<T>::from_envelope(envelope.clone())
        .and_then(|it| it.verify(&Expect::default()))
        .map_err(|error| format!("{}: {error}", envelope.kind))
}

/// The records on one disk.
#[derive(Debug)]
pub struct Book {
    /// Whose disk it is.
    pub node: NodeId,
    /// The node's key.
    pub peer: PeerId,
    /// Signed records by name.
    pub records: BTreeMap<Hash, Arc<Row>>,
    /// Signed records that lie elsewhere: genesis, policy, certificates and memberships.
    pub credentials: Vec<Envelope>,
    /// Exchanges.
    pub entries: Vec<Arc<Entry>>,
    /// Records that wait for a peer.
    pub outbox: usize,
    /// By order, how many tokens its furthest voucher covers.
    pub vouched: BTreeMap<Hash, u32>,
    version: u64,
}

impl Book {
    /// A record of that name and type.
    pub fn record<T: Kind>(&self, name: &Hash) -> Result<&Verified<T>, String> {
        let row = self.records.get(name);
        let missing = || format!("{}: {} {name} is not on its disk", self.node, T::TYPE);
        row.and_then(|row| T::of(&row.known)).ok_or_else(missing)
    }

    /// All records of a type.
    pub fn of_type<T: Kind>(&self) -> impl Iterator<Item = &Verified<T>> {
        self.records.values().filter_map(|row| T::of(&row.known))
    }

    /// Exchanges on one side.
    pub fn side(&self, side: Side) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.iter().filter(move |entry| entry.side == side)
    }
}

/// What was read before.
#[derive(Debug, Default)]
pub(crate) struct Library {
    rows: Mutex<BTreeMap<Hash, Arc<Row>>>,
    entries: Mutex<BTreeMap<Vec<u8>, Arc<Entry>>>,
    books: Mutex<BTreeMap<NodeId, Arc<Book>>>,
}

impl Library {
    /// A node's book as its disk is now.
    pub(crate) fn book(&self, world: &World, node: NodeId) -> Result<Arc<Book>, String> {
        let version = world.disk(node).commits();
        let known = lock(&self.books).get(&node).cloned();
        if let Some(known) = known.filter(|book| book.version == version) {
            return Ok(known);
        }
        let book = self.read(world, node, version).map_err(|error| format!("{node}: {error}"))?;
        let book = Arc::new(book);
        lock(&self.books).insert(node, Arc::clone(&book));
        Ok(book)
    }

    fn read(&self, world: &World, node: NodeId, version: u64) -> Result<Book, String> {
        let disk = world.disk(node);
        let mut records = BTreeMap::new();
        for (key, bytes) in disk.table(Table::Record) {
            let name = key.try_into().map(Hash::from_bytes);
            let name = name.map_err(|_| "a record's name is not a hash")?;
            records.insert(name, self.row(&name, &bytes)?);
        }
        let mut entries = Vec::new();
        for (_, bytes) in disk.table(Table::Exchange) {
            entries.push(self.entry(bytes)?);
        }
        let mut vouched: BTreeMap<Hash, u32> = BTreeMap::new();
        for voucher in records.values().filter_map(|row| Voucher::of(&row.known)) {
            let covered = vouched.entry(voucher.body().order).or_default();
            *covered = voucher.body().usage.completion_tokens.max(*covered);
        }
        let state = disk.table(Table::State).into_iter();
        let credentials = state.filter_map(|(_, bytes)| Envelope::decode(&bytes).ok()).collect();
        let (outbox, peer) = (disk.table(Table::Outbox).len(), world.peer(node));
        Ok(Book { node, peer, records, credentials, entries, outbox, vouched, version })
    }

    fn row(&self, name: &Hash, bytes: &[u8]) -> Result<Arc<Row>, String> {
        let mut rows = lock(&self.rows);
        if let Some(row) = rows.get(name).filter(|row| row.bytes == bytes) {
            return Ok(Arc::clone(row));
        }
        let row = Arc::new(Row::read(name, bytes)?);
        rows.insert(*name, Arc::clone(&row));
        Ok(row)
    }

    fn entry(&self, bytes: Vec<u8>) -> Result<Arc<Entry>, String> {
        let mut entries = lock(&self.entries);
        if let Some(entry) = entries.get(&bytes) {
            return Ok(Arc::clone(entry));
        }
        let entry = Arc::new(Entry::decode(&bytes).map_err(|error| error.to_string())?);
        entries.insert(bytes, Arc::clone(&entry));
        Ok(entry)
    }
}
