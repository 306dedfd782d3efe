//! Which pieces of a partial blob are held, as a file beside it.
//!
//! ```text
//! magic 16 | boot id 16 | zeros 32 | written: a bit for each piece | synced: likewise
//! ```
//!
//! A piece's bit in `written` is set when its bytes were written, its bit in `synced` after a sync
//! of them. A process that is killed loses neither. After a loss of power the boot id is another
//! one: then a bit that stands in `written` alone is believed only if the bytes are right.
//!
//! # Invariants
//!
//! * A bit in `synced` is written after the bytes were synced, so whatever part of this file
//!   reaches the disk is true.
//! * What is unsynced is at most [`UNSYNCED_MAX`] bytes and what is under way.

use std::fs::File;
use std::io;
use std::path::Path;

use commons_port::blobs::Bits;

use super::file;

const MAGIC: &[u8; 16] = b"commons/held/1\n\0";
const HEADER_LEN: usize = 64;

/// A sync is due after so many bytes: few enough to check again after a loss of power in a blink,
/// many enough that a sync each does not slow a disk down.
pub(super) const UNSYNCED_MAX: u64 = 64 << 20;

#[derive(Debug)]
pub(super) struct Held {
    file: File,
    pieces: u64,
    written: Vec<u8>,
    synced: Vec<u8>,
    count: u64,
    unsynced: u64,
}

impl Held {
    /// Opens the file of a blob of so many pieces. `is_right` reads a piece and checks it.
    pub(super) fn open(
        path: &Path,
        pieces: u64,
        boot: Option<[u8; 16]>,
        is_right: impl Fn(u64) -> bool,
    ) -> io::Result<Self> {
        let file = file::create(path)?;
        let len = usize::try_from(pieces.div_ceil(8)).map_err(io::Error::other)?;
        let mut bytes = vec![0; HEADER_LEN + 2 * len];
        let there = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let there = there.min(bytes.len());
        file::read_at(&file, &mut bytes[..there], 0)?;
        let synced = bytes.split_off(HEADER_LEN + len);
        let written = bytes.split_off(HEADER_LEN);
        let is_ours = bytes.starts_with(MAGIC);
        let is_same_boot = boot.is_some_and(|boot| bytes[16..32] == boot);
        let mut held = Self { file, pieces, written, synced, count: 0, unsynced: 0 };
        if !is_ours {
            held.written.fill(0);
            held.synced.fill(0);
        }
        if !is_ours || !is_same_boot {
            held.settle(boot, is_right)?;
        }
        for (written, synced) in held.written.iter_mut().zip(&held.synced) {
            *written |= synced;
        }
        // Bits beyond the last piece are nobody's.
        if let (Some(last), rest @ 1..) = (held.written.last_mut(), pieces % 8) {
            *last &= (1 << rest) - 1;
        }
        held.count = held.written.iter().map(|byte| u64::from(byte.count_ones())).sum();
        Ok(held)
    }

    /// Another run of the machine wrote the file: what it had not synced is checked, and then the
    /// file is this run's.
    fn settle(&mut self, boot: Option<[u8; 16]>, is_right: impl Fn(u64) -> bool) -> io::Result<()> {
        for piece in 0..self.pieces {
            let (at, bit) = place(piece);
            let is_in_doubt = self.written[at] & !self.synced[at] & bit != 0;
            if is_in_doubt && !is_right(piece) {
                self.written[at] &= !bit;
            }
        }
        self.write_bits()?;
        file::sync(&self.file)?;
        let mut header = [0; HEADER_LEN];
        header[..16].copy_from_slice(MAGIC);
        header[16..32].copy_from_slice(&boot.unwrap_or_default());
        file::write_at(&self.file, &header, 0)
    }

    pub(super) fn has(&self, piece: u64) -> bool {
        let (at, bit) = place(piece);
        self.written.get(at).is_some_and(|byte| byte & bit != 0)
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn bits(&self) -> Bits {
        Bits(self.written.clone())
    }

    /// Whether so much is unsynced that a sync is due.
    pub(super) fn is_due(&self) -> bool {
        self.unsynced >= UNSYNCED_MAX
    }

    /// The bytes of a piece were written. Whether it was not held before.
    pub(super) fn set(&mut self, piece: u64, len: u64) -> io::Result<bool> {
        if self.has(piece) {
            return Ok(false);
        }
        let (at, bit) = place(piece);
        let byte = self.written[at] | bit;
        file::write_at(&self.file, &[byte], (HEADER_LEN + at) as u64)?;
        self.written[at] = byte;
        self.count += 1;
        self.unsynced += len;
        Ok(true)
    }

    /// A sync begins: what is written now is synced when it ends.
    pub(super) fn begin_sync(&mut self) -> Bits {
        self.unsynced = 0;
        self.bits()
    }

    /// The sync that began with these bits has ended well.
    pub(super) fn end_sync(&mut self, bits: &Bits) -> io::Result<()> {
        for ((synced, bits), written) in self.synced.iter_mut().zip(&bits.0).zip(&self.written) {
            *synced |= bits & written;
        }
        file::write_at(&self.file, &self.synced, (HEADER_LEN + self.written.len()) as u64)?;
        file::sync(&self.file)
    }

    /// A sync failed: nobody knows what of the last pieces is on the disk, so they are not held.
    pub(super) fn forget_unsynced(&mut self) -> io::Result<()> {
        self.written.clone_from(&self.synced);
        self.count = self.written.iter().map(|byte| u64::from(byte.count_ones())).sum();
        self.unsynced = 0;
        self.write_bits()
    }

    /// Pieces that turned out to be wrong are no longer held.
    pub(super) fn clear(&mut self, pieces: &[u64]) -> io::Result<()> {
        for &piece in pieces {
            let (at, bit) = place(piece);
            self.count -= u64::from(self.has(piece));
            for bytes in [&mut self.written, &mut self.synced] {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte &= !bit;
                }
            }
        }
        self.write_bits()?;
        file::sync(&self.file)
    }

    /// All pieces are held and synced.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        self.written.fill(u8::MAX);
        if let (Some(last), rest @ 1..) = (self.written.last_mut(), self.pieces % 8) {
            *last = (1 << rest) - 1;
        }
        self.synced.clone_from(&self.written);
        self.count = self.pieces;
        self.write_bits()?;
        file::sync(&self.file)
    }

    fn write_bits(&self) -> io::Result<()> {
        let bits = [&self.written[..], &self.synced].concat();
        file::write_at(&self.file, &bits, HEADER_LEN as u64)
    }
}

/// The byte of a piece's bit, and the bit.
fn place(piece: u64) -> (usize, u8) {
    (usize::try_from(piece / 8).unwrap_or(usize::MAX), 1 << (piece % 8))
}
