//! Bytes that begin with a cache line, on large pages where the system has them.
//!
//! A product reads all weights once, in order. On pages of 4 KiB every page costs a walk through the
//! tables of the guest and of its host: measured on a virtual machine, one row decoded a quarter
//! faster on large pages.
//!
//! JUSTIFICATION: to advise the system about memory takes its address.
#![allow(unsafe_code, reason = "see JUSTIFICATION above")]

/// The size that a processor reads from memory at once.
pub(super) const CACHE_LINE: usize = 64;

/// Bytes that do not move.
pub(super) struct Storage {
    bytes: Vec<u8>,
    /// The first that begins a cache line.
    start: usize,
    size: usize,
}

impl Storage {
    /// So many zeros. `None` where no address space holds as many.
    pub(super) fn zeroed(size: usize) -> Option<Self> {
        let whole = size.checked_add(CACHE_LINE).filter(|&size| isize::try_from(size).is_ok())?;
        let bytes = vec![0; whole];
        let start = bytes.as_ptr().align_offset(CACHE_LINE).min(CACHE_LINE);
        advise(&bytes);
        Some(Self { bytes, start, size })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.size]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.size]
    }
}

/// Asks for large pages. Whoever cannot give them gives others.
#[cfg(target_os = "linux")]
fn advise(bytes: &[u8]) {
    const PAGE: usize = 4096;
    let skipped = bytes.as_ptr().align_offset(PAGE);
    let Some(size) = bytes.len().checked_sub(skipped) else { return };
    let size = size / PAGE * PAGE;
    if size < LARGE_PAGE {
        return;
    }
    let first = bytes[skipped..].as_ptr().cast_mut().cast();
    // SAFETY: the advice is about whole pages inside of `bytes`, and changes nothing that they hold.
    let advised = unsafe { rustix::mm::madvise(first, size, rustix::mm::Advice::LinuxHugepage) };
    // A kernel without large pages refuses; the bytes are as good on small ones.
    let _ = advised;
}

/// What a page has at least to be called large.
#[cfg(target_os = "linux")]
const LARGE_PAGE: usize = 2 << 20;

#[cfg(not(target_os = "linux"))]
fn advise(_: &[u8]) {}
