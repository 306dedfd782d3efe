//! A store of blobs in memory, and seeders that lie from it.
//!
//! It keeps the rules of the port: nothing is kept that does not lead to its blob's name. What
//! needs a file of a real machine is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use commons_port::blobs::{
    AddEvent, Bits, BlobError, BlobInfo, Blobs, Collected, Holding, PIECE_LEN, Place, Receiving,
    pieces_of,
};
use commons_port::{BoxFuture, BoxStream};
use commons_record::Hash;
use commons_swarm::tree::{Shape, Top, TreeBuilder};
use futures::StreamExt as _;

use crate::lock;

/// The blobs of one node.
#[derive(Debug, Default)]
pub struct MemoryBlobs {
    entries: Mutex<BTreeMap<Hash, Entry>>,
    /// What is read of a piece whose index this divides is wrong.
    lies_every: Option<u64>,
}

#[derive(Debug)]
struct Entry {
    size: u64,
    top: Option<Top>,
    pages: BTreeMap<u64, Bytes>,
    pieces: BTreeMap<u64, Bytes>,
    pins: BTreeSet<String>,
}

impl Entry {
    fn new(blob: Hash, size: u64) -> Self {
        let shape = Shape::new(size);
        let top = shape.and_then(|shape| Top::check(blob, shape, Bytes::new()).ok());
        let (pages, pieces, pins) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { size, top, pages, pieces, pins }
    }

    fn info(&self, blob: Hash) -> BlobInfo {
        BlobInfo {
            blob,
            size: self.size,
            pieces_held: self.pieces.len() as u64,
            pins: u32::try_from(self.pins.len()).unwrap_or(u32::MAX),
            is_in_place: false,
            used_unix_ms: 0,
        }
    }
}

impl MemoryBlobs {
    /// A store with nothing in it.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A store that answers wrongly for every piece whose index `every` divides.
    pub fn lying(every: u64) -> Arc<Self> {
        Arc::new(Self { lies_every: Some(every), ..Self::default() })
    }

    /// Takes a file in; its name.
    ///
    /// # Panics
    ///
    /// If it is longer than a blob may be.
    pub fn take_in(&self, content: &[u8]) -> Hash {
        let mut builder = TreeBuilder::new();
        let mut cvs = Vec::new();
        builder.update(content, |cv| cvs.push(cv));
        let tree = builder.finish(|cv| cvs.push(cv)).expect("a file of bearable length");
        let top = Top::check(tree.blob, tree.shape, tree.top).expect("it was just built");
        let pages = (0..).zip(cvs.chunks(1024).map(|cvs| Bytes::from(cvs.concat())));
        let length = PIECE_LEN as usize;
        let pieces: Vec<Bytes> = match content {
            [] => vec![Bytes::new()],
            _ => content.chunks(length).map(Bytes::copy_from_slice).collect(),
        };
        let mut entry = Entry::new(tree.blob, content.len() as u64);
        entry.top = Some(top);
        entry.pages = pages.collect();
        entry.pieces = (0..).zip(pieces).collect();
        lock(&self.entries).insert(tree.blob, entry);
        tree.blob
    }

    /// All bytes of a blob that is held whole.
    pub fn content(&self, blob: Hash) -> Option<Vec<u8>> {
        let entries = lock(&self.entries);
        let entry = entries.get(&blob).filter(|it| it.info(blob).is_whole())?;
        Some(entry.pieces.values().flat_map(|it| it.iter().copied()).collect())
    }

    fn with<T: Send + 'static>(
        &self,
        blob: Hash,
        act: impl FnOnce(&mut Entry) -> Result<T, BlobError>,
    ) -> BoxFuture<'static, Result<T, BlobError>> {
        let result = match lock(&self.entries).get_mut(&blob) {
            Some(entry) => act(entry),
            None => Err(BlobError::NotHeld { blob }),
        };
        Box::pin(std::future::ready(result))
    }
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, Result<T, BlobError>> {
    Box::pin(std::future::ready(Ok(value)))
}

fn no_file(path: String) -> BlobError {
    BlobError::BadFile { path, detail: "this world has no files".to_owned() }
}

impl Blobs for MemoryBlobs {
    fn info(&self, blob: Hash) -> BoxFuture<'static, Result<Option<BlobInfo>, BlobError>> {
        ready(lock(&self.entries).get(&blob).map(|it| it.info(blob)))
    }

    fn list(
        &self,
        after: Option<Hash>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<BlobInfo>, BlobError>> {
        let entries = lock(&self.entries);
        let found = entries.iter().filter(|(blob, _)| after.is_none_or(|after| **blob > after));
        ready(found.take(limit).map(|(blob, entry)| entry.info(*blob)).collect())
    }

    fn begin(&self, blob: Hash, size: u64) -> BoxFuture<'static, Result<BlobInfo, BlobError>> {
        lock(&self.entries).entry(blob).or_insert_with(|| Entry::new(blob, size));
        self.with(blob, |entry| match entry.size {
            known if known != size => Err(BlobError::OtherSize { blob, known, size }),
            _ => Ok(entry.info(blob)),
        })
    }

    fn held(&self, blob: Hash) -> BoxFuture<'static, Result<Bits, BlobError>> {
        self.with(blob, |entry| {
            let len = usize::try_from(pieces_of(entry.size).div_ceil(8)).unwrap_or(0);
            let mut bits = vec![0; len];
            for piece in entry.pieces.keys() {
                bits[usize::try_from(piece / 8).unwrap_or(0)] |= 1 << (piece % 8);
            }
            Ok(Bits(bits))
        })
    }

    fn top(&self, blob: Hash) -> BoxFuture<'static, Result<Option<Bytes>, BlobError>> {
        self.with(blob, |entry| Ok(entry.top.as_ref().map(|it| it.bytes().clone())))
    }

    fn page(&self, blob: Hash, group: u64) -> BoxFuture<'static, Result<Option<Bytes>, BlobError>> {
        self.with(blob, |entry| Ok(entry.pages.get(&group).cloned()))
    }

    fn put_top(&self, blob: Hash, top: Bytes) -> BoxFuture<'static, Result<(), BlobError>> {
        self.with(blob, |entry| {
            let shape = Shape::new(entry.size).ok_or(BlobError::WrongHashes { blob })?;
            let top = Top::check(blob, shape, top);
            entry.top = Some(top.map_err(|_| BlobError::WrongHashes { blob })?);
            Ok(())
        })
    }

    fn put_page(
        &self,
        blob: Hash,
        group: u64,
        page: Bytes,
    ) -> BoxFuture<'static, Result<(), BlobError>> {
        self.with(blob, |entry| {
            let wrong = BlobError::WrongHashes { blob };
            let top = entry.top.as_ref().ok_or(wrong.clone())?;
            top.page(group, page.clone()).map_err(|_| wrong)?;
            entry.pages.insert(group, page);
            Ok(())
        })
    }

    fn put_piece(
        &self,
        blob: Hash,
        piece: u64,
        bytes: Bytes,
    ) -> BoxFuture<'static, Result<(), BlobError>> {
        self.with(blob, |entry| {
            let wrong = || BlobError::WrongPiece { blob, piece };
            let group = piece / commons_port::blobs::GROUP_PIECES;
            let page = entry.pages.get(&group).cloned().unwrap_or_default();
            let top = entry.top.as_ref().ok_or_else(wrong)?;
            let page = top.page(group, page).map_err(|_| wrong())?;
            page.check_piece(piece, &bytes).map_err(|_| wrong())?;
            entry.pieces.insert(piece, bytes);
            Ok(())
        })
    }

    fn read(
        &self,
        blob: Hash,
        offset: u64,
        len: u32,
    ) -> BoxFuture<'static, Result<Bytes, BlobError>> {
        let lies_every = self.lies_every;
        self.with(blob, |entry| {
            let (piece, start) = (offset / u64::from(PIECE_LEN), offset % u64::from(PIECE_LEN));
            let bytes = entry.pieces.get(&piece).ok_or(BlobError::NotYet { blob, piece })?;
            let to = offset.saturating_add(len.into());
            let beyond = BlobError::OutOfRange { blob, size: entry.size, from: offset, to };
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            let end = start.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
            if end > bytes.len() {
                return Err(beyond);
            }
            let bytes = bytes.slice(start..end);
            if lies_every.is_some_and(|every| piece.is_multiple_of(every)) {
                return Ok(bytes.iter().map(|byte| byte ^ 1).collect());
            }
            Ok(bytes)
        })
    }

    fn find_chunks(
        &self,
        chunks: Vec<Hash>,
    ) -> BoxFuture<'static, Result<Vec<Option<Place>>, BlobError>> {
        ready(vec![None; chunks.len()])
    }

    fn index_chunks(
        &self,
        _blob: Hash,
        _recipe: Hash,
    ) -> BoxFuture<'static, Result<(), BlobError>> {
        ready(())
    }

    fn add(
        &self,
        path: String,
        _holding: Holding,
    ) -> BoxStream<'static, Result<AddEvent, BlobError>> {
        futures::stream::iter([Err(no_file(path))]).boxed()
    }

    fn receive(
        &self,
        key: String,
        _size: u64,
    ) -> BoxFuture<'static, Result<Box<dyn Receiving>, BlobError>> {
        Box::pin(std::future::ready(Err(no_file(key))))
    }

    fn pin(
        &self,
        blob: Hash,
        pin: String,
        is_on: bool,
    ) -> BoxFuture<'static, Result<(), BlobError>> {
        self.with(blob, |entry| {
            if is_on {
                entry.pins.insert(pin);
            } else {
                entry.pins.remove(&pin);
            }
            Ok(())
        })
    }

    fn remove(&self, blob: Hash) -> BoxFuture<'static, Result<(), BlobError>> {
        let pin = lock(&self.entries).get(&blob).and_then(|it| it.pins.first().cloned());
        if let Some(pin) = pin {
            return Box::pin(std::future::ready(Err(BlobError::Pinned { blob, pin })));
        }
        lock(&self.entries).remove(&blob);
        ready(())
    }

    fn collect(&self) -> BoxFuture<'static, Result<Collected, BlobError>> {
        ready(Collected::default()) // Memory has no budget here, so everything fits.
    }

    fn verify(&self, blob: Hash) -> BoxFuture<'static, Result<Vec<u64>, BlobError>> {
        self.with(blob, |_| Ok(Vec::new())) // What was kept was checked, and memory stays.
    }

    fn by_sha256(&self, _sha256: [u8; 32]) -> BoxFuture<'static, Result<Option<Hash>, BlobError>> {
        ready(None)
    }
}
