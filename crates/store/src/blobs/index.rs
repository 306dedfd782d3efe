//! What is known of the blobs: a redb database of its own, beside the files.
//!
//! ```text
//! blob    hash -> kind, size, last use, number      number   number -> hash
//! pin     hash + name                               chunk    half a hash -> number, offset, length
//! sha256  SHA-256 -> hash                           facts    hash -> SHA-256, recipe
//! place   hash -> mtime, path                       path     path -> hash
//! arrival key -> size, last use
//! ```
//!
//! Which pieces are held is not here but in the files; see `entry.rs`. Every change can be made
//! twice. redb latches itself shut on the first I/O error, so the file is opened again then.
//!
//! A chunk is known by half its hash: a hit is a hint, and what it leads to is checked.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use commons_port::blobs::Place;
use commons_record::Hash;
use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase as _, ReadableTable as _,
    TableDefinition as Table, WriteTransaction,
};

use crate::data_dir::private_file;

/// The format of the file: the tables above, in these types.
pub(super) const FORMAT: u64 = 1;

/// The upper levels of a few trees; most of a chunk index stays on the disk.
const CACHE_SIZE: usize = 8 << 20;

const META: Table<&str, u64> = Table::new("meta");
const BLOB: Table<&[u8; 32], (u8, u64, u64, u64)> = Table::new("blob");
const NUMBER: Table<u64, &[u8; 32]> = Table::new("number");
const PIN: Table<&[u8], ()> = Table::new("pin");
const SHA256: Table<&[u8; 32], &[u8; 32]> = Table::new("sha256");
const FACTS: Table<&[u8; 32], (&[u8; 32], &[u8; 32])> = Table::new("facts");
const PLACE: Table<&[u8; 32], (u128, &str)> = Table::new("place");
const PATH: Table<&str, &[u8; 32]> = Table::new("path");
const CHUNK: Table<&[u8; 16], (u64, u64, u32)> = Table::new("chunk");
const ARRIVAL: Table<&[u8; 32], (u64, u64)> = Table::new("arrival");

/// Where the bytes of a blob are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// In the data folder, some of them.
    Partial,
    /// In the data folder, all of them.
    Whole,
    /// In a file elsewhere on this machine.
    InPlace,
    /// Whole, and on the way to their place: without a file this entry is none.
    Moving,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) used: u64,
    pub(super) number: u64,
}

/// Where a file that is held in place lies, and when it was last changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InPlace {
    pub(super) path: String,
    /// Nanoseconds of Unix time.
    pub(super) modified: u128,
}

/// What was computed of a whole blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) sha256: [u8; 32],
    pub(super) recipe: Hash,
}

type Result<T> = std::result::Result<T, redb::Error>;

#[derive(Debug)]
pub(super) struct Index {
    path: PathBuf,
    database: RwLock<Option<Database>>,
}

impl Index {
    /// Opens the file, or makes it. The format that was found, and whether the file is new.
    pub(super) fn open(path: &Path) -> Result<(Self, u64, bool)> {
        let index = Self { path: path.to_owned(), database: RwLock::new(None) };
        index.reopen()?;
        let found = index.write(|tx| {
            let mut meta = tx.open_table(META)?;
            let found = meta.get("format")?.map(|it| it.value());
            if found.is_none() {
                meta.insert("format", FORMAT)?;
                tx.open_table(BLOB)?;
                tx.open_table(NUMBER)?;
                tx.open_table(PIN)?;
                tx.open_table(SHA256)?;
                tx.open_table(FACTS)?;
                tx.open_table(PLACE)?;
                tx.open_table(PATH)?;
                tx.open_table(CHUNK)?;
                tx.open_table(ARRIVAL)?;
            }
            Ok(found)
        })?;
        Ok((index, found.unwrap_or(FORMAT), found.is_none()))
    }

    fn reopen(&self) -> Result<()> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Closed before it is opened: redb locks its file.
        *database = None;
        let mut options = private_file();
        let file = options.read(true).write(true).create(true).truncate(false).open(&self.path)?;
        *database = Some(Database::builder().set_cache_size(CACHE_SIZE).create_file(file)?);
        Ok(())
    }

    /// Does it, and once more on a file that was opened again if redb had latched itself shut.
    fn with<T>(&self, work: impl Fn(&Database) -> Result<T>) -> Result<T> {
        for has_reopened in [false, true] {
            let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
            let result = match database.as_ref() {
                Some(database) => work(database),
                None => Err(redb::Error::DatabaseClosed),
            };
            drop(database);
            match result {
                Err(redb::Error::PreviousIo | redb::Error::DatabaseClosed) if !has_reopened => {
                    self.reopen()?;
                }
                result => return result,
            }
        }
        Err(redb::Error::DatabaseClosed)
    }

    fn read<T>(&self, work: impl Fn(&ReadTransaction) -> Result<T>) -> Result<T> {
        self.with(|database| work(&database.begin_read()?))
    }

    fn write<T>(&self, work: impl Fn(&WriteTransaction) -> Result<T>) -> Result<T> {
        self.with(|database| {
            let tx = database.begin_write()?;
            let answer = work(&tx)?;
            tx.commit()?;
            Ok(answer)
        })
    }

    pub(super) fn meta(&self, blob: Hash) -> Result<Option<Meta>> {
        self.read(|tx| {
            let found = tx.open_table(BLOB)?.get(blob.as_bytes())?;
            Ok(found.map(|it| meta_of(it.value())))
        })
    }

    /// Blobs in the order of their hashes.
    pub(super) fn metas(&self, after: Option<Hash>, limit: usize) -> Result<Vec<(Hash, Meta)>> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.read(|tx| {
            let table = tx.open_table(BLOB)?;
            let after = after.as_ref().map_or(Unbounded, |after| Excluded(after.as_bytes()));
            let mut found = Vec::new();
            for entry in table.range::<&[u8; 32]>((after, Unbounded))?.take(limit) {
                let (hash, meta) = entry?;
                found.push((Hash::from_bytes(*hash.value()), meta_of(meta.value())));
            }
            Ok(found)
        })
    }

    /// Enters a blob, or what changed of it. One that is new is given a number.
    pub(super) fn put(&self, blob: Hash, kind: Kind, size: u64, used: u64) -> Result<Meta> {
        self.write(|tx| {
            let mut blobs = tx.open_table(BLOB)?;
            let known = blobs.get(blob.as_bytes())?.map(|it| meta_of(it.value()).number);
            let number = match known {
                Some(number) => number,
                None => {
                    let mut numbers = tx.open_table(NUMBER)?;
                    let mut meta = tx.open_table(META)?;
                    let number = meta.get("next")?.map_or(1, |it| it.value());
                    meta.insert("next", number + 1)?;
                    numbers.insert(number, blob.as_bytes())?;
                    number
                }
            };
            let meta = Meta { kind, size, used, number };
            blobs.insert(blob.as_bytes(), values_of(meta))?;
            Ok(meta)
        })
    }

    /// Notes when blobs were used. Nothing is lost but their order if this does not reach the disk.
    pub(super) fn touch(&self, used: &[(Hash, u64)], durability: Durability) -> Result<()> {
        self.with(|database| {
            let mut tx = database.begin_write()?;
            tx.set_durability(durability)
                .map_err(|error| redb::Error::Io(std::io::Error::other(error.to_string())))?;
            {
                let mut blobs = tx.open_table(BLOB)?;
                for (blob, used) in used {
                    let known = blobs.get(blob.as_bytes())?.map(|it| meta_of(it.value()));
                    if let Some(meta) = known {
                        let meta = Meta { used: *used, ..meta };
                        blobs.insert(blob.as_bytes(), values_of(meta))?;
                    }
                }
            }
            tx.commit()?;
            Ok(())
        })
    }

    /// Forgets blobs. Their pins, and what was computed of them, stay.
    pub(super) fn forget(&self, blobs: &[Hash]) -> Result<()> {
        self.write(|tx| {
            let mut table = tx.open_table(BLOB)?;
            let mut numbers = tx.open_table(NUMBER)?;
            let (mut places, mut paths) = (tx.open_table(PLACE)?, tx.open_table(PATH)?);
            for blob in blobs {
                if let Some(meta) = table.remove(blob.as_bytes())? {
                    numbers.remove(meta_of(meta.value()).number)?;
                }
                if let Some(place) = places.remove(blob.as_bytes())? {
                    paths.remove(place.value().1)?;
                }
            }
            tx.open_table(META)?.insert("stale", 1)?;
            Ok(())
        })
    }

    pub(super) fn in_place(&self, blob: Hash) -> Result<Option<InPlace>> {
        self.read(|tx| {
            let found = tx.open_table(PLACE)?.get(blob.as_bytes())?;
            Ok(found.map(|it| {
                let (modified, path) = it.value();
                InPlace { path: path.to_owned(), modified }
            }))
        })
    }

    /// Which blob a file was when it was last taken in where it lies.
    pub(super) fn at_path(&self, path: &str) -> Result<Option<Hash>> {
        self.read(|tx| {
            let found = tx.open_table(PATH)?.get(path)?;
            Ok(found.map(|it| Hash::from_bytes(*it.value())))
        })
    }

    /// Notes where a blob lies. A path has one blob: the last.
    pub(super) fn put_place(&self, blob: Hash, place: &InPlace) -> Result<()> {
        self.write(|tx| {
            let (mut places, mut paths) = (tx.open_table(PLACE)?, tx.open_table(PATH)?);
            if let Some(old) = places.insert(blob.as_bytes(), (place.modified, &*place.path))? {
                paths.remove(old.value().1)?;
            }
            paths.insert(&*place.path, blob.as_bytes())?;
            Ok(())
        })
    }

    pub(super) fn pins(&self, blob: Hash) -> Result<Vec<String>> {
        self.read(|tx| {
            let table = tx.open_table(PIN)?;
            let mut pins = Vec::new();
            for pin in table.range::<&[u8]>(&blob.as_bytes()[..]..)? {
                let (key, _) = pin?;
                let Some(name) = key.value().strip_prefix(blob.as_bytes()) else { break };
                pins.push(String::from_utf8_lossy(name).into_owned());
            }
            Ok(pins)
        })
    }

    pub(super) fn pin(&self, blob: Hash, name: &str, is_on: bool) -> Result<()> {
        let key = [&blob.as_bytes()[..], name.as_bytes()].concat();
        self.write(|tx| {
            let mut table = tx.open_table(PIN)?;
            if is_on {
                table.insert(&*key, ())?;
            } else {
                table.remove(&*key)?;
            }
            Ok(())
        })
    }

    pub(super) fn facts(&self, blob: Hash) -> Result<Option<Facts>> {
        self.read(|tx| {
            let found = tx.open_table(FACTS)?.get(blob.as_bytes())?;
            Ok(found.map(|it| {
                let (sha256, recipe) = it.value();
                Facts { sha256: *sha256, recipe: Hash::from_bytes(*recipe) }
            }))
        })
    }

    pub(super) fn put_facts(&self, blob: Hash, facts: Facts) -> Result<()> {
        self.write(|tx| {
            let values = (&facts.sha256, facts.recipe.as_bytes());
            tx.open_table(FACTS)?.insert(blob.as_bytes(), values)?;
            tx.open_table(SHA256)?.insert(&facts.sha256, blob.as_bytes())?;
            Ok(())
        })
    }

    /// Notes which blob has a SHA-256.
    pub(super) fn put_sha256(&self, sha256: [u8; 32], blob: Hash) -> Result<()> {
        self.write(|tx| {
            tx.open_table(SHA256)?.insert(&sha256, blob.as_bytes())?;
            Ok(())
        })
    }

    pub(super) fn by_sha256(&self, sha256: [u8; 32]) -> Result<Option<Hash>> {
        self.read(|tx| {
            let found = tx.open_table(SHA256)?.get(&sha256)?;
            Ok(found.map(|it| Hash::from_bytes(*it.value())))
        })
    }

    /// Enters where chunks are. A place that still stands is left as it is.
    pub(super) fn put_chunks(&self, number: u64, chunks: &[(Hash, u64, u32)]) -> Result<()> {
        self.write(|tx| {
            let (mut table, numbers) = (tx.open_table(CHUNK)?, tx.open_table(NUMBER)?);
            for (hash, offset, len) in chunks {
                let key = half(hash);
                let known = table.get(&key)?.map(|it| it.value().0);
                let stands = match known {
                    Some(known) => numbers.get(known)?.is_some(),
                    None => false,
                };
                if !stands {
                    table.insert(&key, (number, *offset, *len))?;
                }
            }
            Ok(())
        })
    }

    pub(super) fn find_chunks(&self, chunks: &[Hash]) -> Result<Vec<Option<Place>>> {
        self.read(|tx| {
            let (table, numbers) = (tx.open_table(CHUNK)?, tx.open_table(NUMBER)?);
            let mut found = Vec::with_capacity(chunks.len());
            for chunk in chunks {
                let place = table.get(&half(chunk))?.map(|it| it.value());
                found.push(match place {
                    Some((number, offset, len)) => numbers.get(number)?.map(|blob| Place {
                        blob: Hash::from_bytes(*blob.value()),
                        offset,
                        len,
                    }),
                    None => None,
                });
            }
            Ok(found)
        })
    }

    /// Removes the chunks of blobs that are forgotten.
    pub(super) fn sweep_chunks(&self) -> Result<()> {
        let is_stale = self.read(|tx| Ok(tx.open_table(META)?.get("stale")?.is_some()))?;
        if !is_stale {
            return Ok(());
        }
        self.write(|tx| {
            let numbers = tx.open_table(NUMBER)?;
            let stands = |number| numbers.get(number).is_ok_and(|it| it.is_some());
            tx.open_table(CHUNK)?.retain(|_, (number, _, _)| stands(number))?;
            tx.open_table(META)?.remove("stale")?;
            Ok(())
        })
    }

    pub(super) fn arrivals(&self) -> Result<Vec<(Hash, u64, u64)>> {
        self.read(|tx| {
            let table = tx.open_table(ARRIVAL)?;
            let mut found = Vec::new();
            for entry in table.iter()? {
                let (key, value) = entry?;
                let (size, used) = value.value();
                found.push((Hash::from_bytes(*key.value()), size, used));
            }
            Ok(found)
        })
    }

    pub(super) fn put_arrival(&self, key: Hash, size: u64, used: u64) -> Result<()> {
        self.write(|tx| {
            tx.open_table(ARRIVAL)?.insert(key.as_bytes(), (size, used))?;
            Ok(())
        })
    }

    pub(super) fn forget_arrival(&self, key: Hash) -> Result<()> {
        self.write(|tx| {
            tx.open_table(ARRIVAL)?.remove(key.as_bytes())?;
            Ok(())
        })
    }
}

fn half(hash: &Hash) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash.as_bytes()[..16]);
    half
}

fn meta_of((kind, size, used, number): (u8, u64, u64, u64)) -> Meta {
    let kind = match kind {
        1 => Kind::Whole,
        2 => Kind::InPlace,
        3 => Kind::Moving,
        _ => Kind::Partial, // The careful reading: nothing is believed to be held.
    };
    Meta { kind, size, used, number }
}

fn values_of(meta: Meta) -> (u8, u64, u64, u64) {
    let kind = match meta.kind {
        Kind::Partial => 0,
        Kind::Whole => 1,
        Kind::InPlace => 2,
        Kind::Moving => 3,
    };
    (kind, meta.size, meta.used, meta.number)
}
