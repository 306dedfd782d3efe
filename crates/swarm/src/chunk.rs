//! Where a file is cut into chunks, by what it contains: an insertion moves few cuts.
//!
//! A gear hash rolls over the bytes; a chunk ends where it falls below a bound (`FastCDC` with
//! normalised chunking: W. Xia et al., USENIX ATC 2016, and IEEE TPDS 31(9), 2020).
//!
//! ```text
//! bytes of a chunk   0 .. MIN         MIN .. NORMAL      NORMAL .. MAX      MAX
//! what happens       skipped          a cut is rare      a cut is likely    cut
//! ```
//!
//! # Invariants
//!
//! * Cuts depend on the content alone, not on how it was fed (Rule S6).
//! * A chunk has [`CHUNK_LEN_MIN`] to [`CHUNK_LEN_MAX`] bytes; only the last one may be shorter.
//! * Whether a byte may end a chunk depends on it and the 63 before it, and on the chunk's length.
//!
//! Not here: what is done with equal chunks (`dedupe.rs`), how they are listed (`recipe.rs`).

use std::sync::LazyLock;

use commons_record::Hash;

/// Bytes of the shortest chunk, the last of a file aside.
pub const CHUNK_LEN_MIN: u32 = 16 * 1024;

/// Bytes of the longest chunk.
pub const CHUNK_LEN_MAX: u32 = 256 * 1024;

/// Bytes of a chunk on average, over content without long repetitions.
pub const CHUNK_LEN_MEAN: u32 = 64 * 1024;

/// From here on a cut is likely. With the two bounds below the mean length is
/// [`CHUNK_LEN_MEAN`]: 13 of 100 chunks end before, at 34 KiB; the others 16 KiB after, at 68 KiB.
const NORMAL_LEN: u32 = 52 * 1024;

/// The hash falls below this at one byte of 2^18.
const RARE_BELOW: u64 = 1 << (64 - 18);

/// The hash falls below this at one byte of 2^14.
const LIKELY_BELOW: u64 = 1 << (64 - 14);

/// Bytes that the hash looks back: each moves one bit up at every byte, out of 64.
const WINDOW_LEN: u32 = 64;

/// What the gear table is made of.
const GEAR_DOMAIN: &str = "commons/chunk/gear/1";

/// A random number for each byte: the extended output of BLAKE3 over [`GEAR_DOMAIN`], 256 numbers
/// of 64 bits, little-endian (Rule S6).
static GEAR: LazyLock<[u64; 256]> = LazyLock::new(|| {
    let mut hasher = blake3::Hasher::new();
    hasher.update(GEAR_DOMAIN.as_bytes());
    let mut reader = hasher.finalize_xof();
    std::array::from_fn(|_| {
        let mut bytes = [0; 8];
        reader.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    })
});

/// Finds the cuts of one file. Feed it the bytes in order.
#[derive(Debug, Clone)]
pub struct Chunker {
    gear: &'static [u64; 256],
    /// The rolling hash.
    hash: u64,
    /// Bytes of the chunk so far, less than [`CHUNK_LEN_MAX`].
    len: u32,
}

impl Default for Chunker {
    fn default() -> Self {
        Self { gear: &GEAR, hash: 0, len: 0 }
    }
}

impl Chunker {
    /// At the beginning of a file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of the chunk that has not ended yet.
    pub fn pending(&self) -> u32 {
        self.len
    }

    /// Takes bytes until a chunk ends: `Some(taken)` if one ended after so many of them, and the
    /// rest must be fed again; `None` if all were taken and the chunk goes on.
    pub fn cut(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut taken = self.skip(bytes);
        for (end, below) in
            [(CHUNK_LEN_MIN - 1, 0), (NORMAL_LEN, RARE_BELOW), (CHUNK_LEN_MAX, LIKELY_BELOW)]
        {
            let stretch = stretch(&bytes[taken..], end.saturating_sub(self.len));
            let (looked, is_cut) = self.roll(stretch, below);
            taken += looked;
            self.len += u32::try_from(looked).unwrap_or(CHUNK_LEN_MAX);
            if is_cut {
                self.end();
                return Some(taken);
            }
        }
        if self.len >= CHUNK_LEN_MAX {
            self.end();
            return Some(taken);
        }
        None
    }

    /// Ends the file: the length of its last chunk, if that has any bytes.
    pub fn finish(&mut self) -> Option<u32> {
        let len = self.len;
        self.end();
        (len > 0).then_some(len)
    }

    /// No cut can be near: the bytes that no later hash sees are not looked at.
    fn skip(&mut self, bytes: &[u8]) -> usize {
        let skipped = stretch(bytes, (CHUNK_LEN_MIN - WINDOW_LEN).saturating_sub(self.len)).len();
        self.len += u32::try_from(skipped).unwrap_or(0);
        skipped
    }

    /// Rolls over the bytes until the hash falls below the bound. How many were looked at, and
    /// whether it did.
    #[inline]
    fn roll(&mut self, bytes: &[u8], below: u64) -> (usize, bool) {
        let mut hash = self.hash;
        let mut looked = 0;
        // Eight at a time: the loop itself then costs next to nothing, and each byte one load of
        // the table, one shift and addition, one comparison.
        let (eights, rest) = bytes.as_chunks::<8>();
        for eight in eights {
            for &byte in eight {
                hash = (hash << 1).wrapping_add(self.gear[usize::from(byte)]);
                looked += 1;
                if hash < below {
                    self.hash = hash;
                    return (looked, true);
                }
            }
        }
        for &byte in rest {
            hash = (hash << 1).wrapping_add(self.gear[usize::from(byte)]);
            looked += 1;
            if hash < below {
                self.hash = hash;
                return (looked, true);
            }
        }
        self.hash = hash;
        (looked, false)
    }

    fn end(&mut self) {
        (self.hash, self.len) = (0, 0);
    }
}

/// The first `len` bytes, or all if there are fewer.
fn stretch(bytes: &[u8], len: u32) -> &[u8] {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    bytes.get(..len).unwrap_or(bytes)
}

/// A chunk of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Plain BLAKE3 of its bytes.
    pub hash: Hash,
    /// The byte after its last one, counted from the file's beginning.
    pub end: u64,
    /// Its bytes, [`CHUNK_LEN_MAX`] at most.
    pub len: u32,
}

impl Chunk {
    /// Its first byte.
    pub const fn start(&self) -> u64 {
        self.end.saturating_sub(self.len as u64)
    }
}

/// Cuts a file and hashes its chunks, as the bytes pass by.
#[derive(Debug, Clone, Default)]
pub struct Chunks {
    chunker: Chunker,
    hasher: blake3::Hasher,
    end: u64,
}

impl Chunks {
    /// At the beginning of a file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes; `found` is called for each chunk that ends in them, in order.
    /// Large slices are hashed faster: 256 KiB and more at once.
    pub fn update(&mut self, mut bytes: &[u8], mut found: impl FnMut(Chunk)) {
        loop {
            let before = self.chunker.pending();
            let Some(taken) = self.chunker.cut(bytes) else { break };
            let (last, rest) = bytes.split_at(taken);
            self.hasher.update(last);
            found(self.end_chunk(before + u32::try_from(taken).unwrap_or(0)));
            bytes = rest;
        }
        self.hasher.update(bytes);
    }

    /// Ends the file: its last chunk, unless it is empty or ended with the one before.
    pub fn finish(&mut self) -> Option<Chunk> {
        let len = self.chunker.finish()?;
        Some(self.end_chunk(len))
    }

    fn end_chunk(&mut self, len: u32) -> Chunk {
        self.end += u64::from(len);
        let hash = Hash::from_bytes(*self.hasher.finalize().as_bytes());
        self.hasher.reset();
        Chunk { hash, end: self.end, len }
    }
}

#[cfg(test)]
mod tests;
