//! The list of a blob's chunks, as a file: a blob of its own, named by its hash.
//!
//! ```text
//! "commons/recipe/1" | blob 32 | size u64 | chunks u64     64 bytes, numbers little-endian
//! hash of a chunk 32 | the byte after its end u64          40 bytes for each, in order
//! ```
//!
//! Entries have one width, so any stretch of a recipe is found and read by itself; a reader holds
//! one entry at a time.
//!
//! # Invariants
//!
//! * A recipe has one encoding, and every byte string that is none is refused (Rule S7).
//! * Its length follows from its header; nothing is reserved before it fits the blob's size.
//! * It is a hint (Rule S8): what it leads to is believed when the blob's own tree says so.
//!
//! Not here: where chunks are held (`port::blobs`), and what is copied (`dedupe.rs`).

use std::ops::Range;

use commons_port::blobs::BLOB_LEN_MAX;
use commons_record::Hash;

use crate::chunk::{CHUNK_LEN_MAX, CHUNK_LEN_MIN, Chunk};

/// What a recipe of this version begins with.
const MAGIC: &[u8; 16] = b"commons/recipe/1";

/// Bytes of the header.
pub const HEADER_LEN: usize = 64;

/// Bytes of an entry.
pub const ENTRY_LEN: usize = 40;

/// Why bytes are not a recipe, or not this blob's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum RecipeError {
    #[error("{len} bytes are no recipe: a header has {HEADER_LEN}")]
    Short { len: usize },

    #[error("not a recipe of version 1")]
    Magic,

    #[error("a recipe for {size} bytes; a blob has {max} at most")]
    TooLarge { size: u64, max: u64 },

    #[error("a recipe of {size} bytes cannot have {chunks} chunks")]
    Count { size: u64, chunks: u64 },

    #[error("a recipe of {chunks} chunks has {want} bytes, not {len}")]
    Length { chunks: u64, want: u64, len: u64 },

    #[error("the recipe is of {got} and not of {want}")]
    OtherBlob { got: Hash, want: Hash },

    #[error("the recipe says {got} bytes; the blob has {want}")]
    OtherSize { got: u64, want: u64 },

    #[error("chunk {index} cannot end at byte {end}: the one before ends at {start} of {size}")]
    End { index: u64, start: u64, end: u64, size: u64 },

    #[error("the recipe ends after {index} of {chunks} chunks")]
    Cut { index: u64, chunks: u64 },

    #[error("entry {index} of a recipe that has {chunks}")]
    Beyond { index: u64, chunks: u64 },
}

/// What a recipe says of its blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    blob: Hash,
    size: u64,
    chunks: u64,
}

impl Header {
    /// The header of a blob's recipe.
    pub fn new(blob: Hash, size: u64, chunks: u64) -> Result<Self, RecipeError> {
        if size > BLOB_LEN_MAX {
            return Err(RecipeError::TooLarge { size, max: BLOB_LEN_MAX });
        }
        // All but the last are no shorter than the shortest, and none longer than the longest.
        let fewest = size.div_ceil(u64::from(CHUNK_LEN_MAX));
        let most = size.div_ceil(u64::from(CHUNK_LEN_MIN));
        if !(fewest..=most).contains(&chunks) {
            return Err(RecipeError::Count { size, chunks });
        }
        Ok(Self { blob, size, chunks })
    }

    /// Reads the first [`HEADER_LEN`] bytes; more may follow.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecipeError> {
        let short = RecipeError::Short { len: bytes.len() };
        let (magic, rest) = bytes.split_first_chunk::<16>().ok_or(short.clone())?;
        let (blob, rest) = rest.split_first_chunk::<32>().ok_or(short.clone())?;
        let (size, rest) = rest.split_first_chunk::<8>().ok_or(short.clone())?;
        let (chunks, _) = rest.split_first_chunk::<8>().ok_or(short)?;
        if magic != MAGIC {
            return Err(RecipeError::Magic);
        }
        let blob = Hash::from_bytes(*blob);
        Self::new(blob, u64::from_le_bytes(*size), u64::from_le_bytes(*chunks))
    }

    /// The bytes of the header.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..16].copy_from_slice(MAGIC);
        bytes[16..48].copy_from_slice(self.blob.as_bytes());
        bytes[48..56].copy_from_slice(&self.size.to_le_bytes());
        bytes[56..].copy_from_slice(&self.chunks.to_le_bytes());
        bytes
    }

    /// Refuses a recipe of another blob, or a file of another length than this header's.
    pub fn expect(&self, blob: Hash, size: u64, recipe_len: u64) -> Result<(), RecipeError> {
        if self.blob != blob {
            return Err(RecipeError::OtherBlob { got: self.blob, want: blob });
        }
        if self.size != size {
            return Err(RecipeError::OtherSize { got: self.size, want: size });
        }
        if self.recipe_len() != recipe_len {
            let (chunks, want) = (self.chunks, self.recipe_len());
            return Err(RecipeError::Length { chunks, want, len: recipe_len });
        }
        Ok(())
    }

    /// The blob that is made of these chunks.
    pub const fn blob(&self) -> Hash {
        self.blob
    }

    /// Bytes of the blob.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// How many chunks it has; an empty blob has none.
    pub const fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Bytes of the whole recipe.
    pub const fn recipe_len(&self) -> u64 {
        HEADER_LEN as u64 + self.chunks * ENTRY_LEN as u64
    }

    /// Where entries stand in the recipe, as bytes; what is beyond the last one is left out.
    pub fn entries(&self, entries: Range<u64>) -> Range<u64> {
        let at = |index: u64| HEADER_LEN as u64 + index.min(self.chunks) * ENTRY_LEN as u64;
        at(entries.start)..at(entries.end.max(entries.start))
    }
}

/// The bytes of an entry.
pub fn encode_entry(hash: &Hash, end: u64) -> [u8; ENTRY_LEN] {
    let mut bytes = [0; ENTRY_LEN];
    bytes[..32].copy_from_slice(hash.as_bytes());
    bytes[32..].copy_from_slice(&end.to_le_bytes());
    bytes
}

/// Reads the entries of a recipe in order, and checks each against the one before.
#[derive(Debug, Clone)]
pub struct Reader {
    header: Header,
    /// Entries that were read.
    index: u64,
    /// Where the next chunk begins.
    start: u64,
}

impl Reader {
    /// From the first entry.
    pub const fn new(header: Header) -> Self {
        Self { header, index: 0, start: 0 }
    }

    /// From entry `index`, which begins where the entry before it ends.
    pub fn at(header: Header, index: u64, start: u64) -> Result<Self, RecipeError> {
        let chunks = header.chunks;
        if index > chunks {
            return Err(RecipeError::Beyond { index, chunks });
        }
        Ok(Self { header, index, start })
    }

    /// What the recipe's header says.
    pub const fn header(&self) -> Header {
        self.header
    }

    /// The index of the entry that comes next.
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// Reads the next entry.
    pub fn read(&mut self, entry: &[u8; ENTRY_LEN]) -> Result<Chunk, RecipeError> {
        let Header { size, chunks, .. } = self.header;
        let (index, start) = (self.index, self.start);
        if index >= chunks {
            return Err(RecipeError::Beyond { index, chunks });
        }
        let mut hash = [0; 32];
        let mut end = [0; 8];
        hash.copy_from_slice(&entry[..32]);
        end.copy_from_slice(&entry[32..]);
        let end = u64::from_le_bytes(end);
        let wrong = RecipeError::End { index, start, end, size };
        let len = end.checked_sub(start).and_then(|len| u32::try_from(len).ok());
        let len = len.filter(|len| (1..=CHUNK_LEN_MAX).contains(len)).ok_or(wrong.clone())?;
        let is_last = index + 1 == chunks;
        if is_last != (end == size) || (!is_last && len < CHUNK_LEN_MIN) || end > size {
            return Err(wrong);
        }
        (self.index, self.start) = (index + 1, end);
        Ok(Chunk { hash: Hash::from_bytes(hash), end, len })
    }

    /// Reads as many whole entries as `bytes` has; how many bytes of it they were.
    pub fn read_all(
        &mut self,
        bytes: &[u8],
        mut found: impl FnMut(Chunk),
    ) -> Result<usize, RecipeError> {
        let (entries, _) = bytes.as_chunks::<ENTRY_LEN>();
        for entry in entries {
            found(self.read(entry)?);
        }
        Ok(entries.len() * ENTRY_LEN)
    }

    /// Ends the reading: an error unless every entry was read.
    pub fn finish(&self) -> Result<(), RecipeError> {
        let (index, chunks) = (self.index, self.header.chunks);
        if index == chunks { Ok(()) } else { Err(RecipeError::Cut { index, chunks }) }
    }
}

/// Reads a recipe that is held whole, for small ones.
pub fn decode(bytes: &[u8]) -> Result<(Header, Vec<Chunk>), RecipeError> {
    let header = Header::decode(bytes)?;
    header.expect(header.blob, header.size, bytes.len() as u64)?;
    let mut reader = Reader::new(header);
    let mut chunks = Vec::with_capacity(bytes.len() / ENTRY_LEN);
    reader.read_all(&bytes[HEADER_LEN..], |chunk| chunks.push(chunk))?;
    reader.finish()?;
    Ok((header, chunks))
}

/// Writes a recipe at once, for small ones.
pub fn encode(blob: Hash, chunks: &[Chunk]) -> Result<Vec<u8>, RecipeError> {
    let size = chunks.last().map_or(0, |last| last.end);
    let header = Header::new(blob, size, chunks.len() as u64)?;
    let mut bytes = Vec::with_capacity(HEADER_LEN + chunks.len() * ENTRY_LEN);
    bytes.extend(header.encode());
    for chunk in chunks {
        bytes.extend(encode_entry(&chunk.hash, chunk.end));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
