//! A cursor over bytes that refuses to pass the end, or to believe a count.

use super::GgufError;

/// Reads little-endian values and remembers where it is, for the error text.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were read.
    pub(super) fn position(&self) -> u64 {
        self.at as u64
    }

    fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// The next `size` bytes.
    pub(super) fn take(&mut self, what: &'static str, size: u64) -> Result<&'a [u8], GgufError> {
        let end = usize::try_from(size).ok().and_then(|size| self.at.checked_add(size));
        let Some(taken) = end.and_then(|end| self.bytes.get(self.at..end)) else {
            let (at, left) = (self.position(), self.left());
            return Err(GgufError::Truncated { what, at, needed: size, left });
        };
        self.at += taken.len();
        Ok(taken)
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], GgufError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(what, N as u64)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A declared count, believed only if that many things of at least `size_min` bytes can follow.
    pub(super) fn count(
        &mut self,
        what: &'static str,
        limit: u64,
        size_min: u64,
    ) -> Result<usize, GgufError> {
        let at = self.position();
        let count = self.u64(what)?;
        self.believe(what, at, count, limit, size_min)
    }

    fn believe(
        &self,
        what: &'static str,
        at: u64,
        count: u64,
        limit: u64,
        size_min: u64,
    ) -> Result<usize, GgufError> {
        if count > limit {
            return Err(GgufError::TooMany { what, at, count, limit });
        }
        let needed = count.saturating_mul(size_min);
        let left = self.left();
        match usize::try_from(count) {
            Ok(count) if needed <= left => Ok(count),
            _ => Err(GgufError::Truncated { what, at, needed, left }),
        }
    }

    /// A text with its length before it.
    pub(super) fn string(&mut self, what: &'static str, limit: u64) -> Result<String, GgufError> {
        let at = self.position();
        let size = self.u64(what)?;
        if size > limit {
            return Err(GgufError::TooLong { what, at, size, limit });
        }
        let bytes = self.take(what, size)?;
        let text = std::str::from_utf8(bytes).map_err(|_| GgufError::NotUtf8 { what, at })?;
        Ok(text.to_owned())
    }
}
