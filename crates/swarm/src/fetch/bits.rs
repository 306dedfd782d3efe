//! A set of indices below a known end, one bit each.

/// The set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bitmap {
    words: Vec<u64>,
    len: u64,
    ones: u64,
}

impl Bitmap {
    /// No index below `len`.
    pub(super) fn empty(len: u64) -> Self {
        let words = usize::try_from(len.div_ceil(64)).unwrap_or(usize::MAX);
        Self { words: vec![0; words], len, ones: 0 }
    }

    /// Every index below `len`.
    pub(super) fn full(len: u64) -> Self {
        let mut all = Self::empty(len);
        all.words.fill(u64::MAX);
        if let (Some(last), rest @ 1..) = (all.words.last_mut(), len % 64) {
            *last = (1 << rest) - 1;
        }
        all.ones = len;
        all
    }

    /// The indices whose bits are set, bit `i % 8` of byte `i / 8`; what is beyond the end is not.
    pub(super) fn from_bytes(bytes: &[u8], len: u64) -> Self {
        let mut bits = Self::empty(len);
        bits.set_bytes(0, bytes);
        bits
    }

    /// Adds the indices whose bits are set, counted from `first`.
    pub(super) fn set_bytes(&mut self, first: u64, bytes: &[u8]) {
        for (byte, at) in bytes.iter().zip((first..).step_by(8)) {
            for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
                self.set(at + bit);
            }
        }
    }

    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// How many indices are in it.
    pub(super) const fn ones(&self) -> u64 {
        self.ones
    }

    pub(super) const fn is_full(&self) -> bool {
        self.ones == self.len
    }

    pub(super) fn has(&self, index: u64) -> bool {
        self.word(index / 64) & (1 << (index % 64)) != 0
    }

    /// The 64 indices from `64 * at`; none beyond the end.
    pub(super) fn word(&self, at: u64) -> u64 {
        usize::try_from(at).ok().and_then(|at| self.words.get(at)).copied().unwrap_or(0)
    }

    /// How many words there are.
    pub(super) const fn words(&self) -> u64 {
        self.words.len() as u64
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.ones == 0
    }

    /// Bytes that it takes.
    pub(super) const fn size(len: u64) -> u64 {
        len.div_ceil(64) * 8
    }

    /// Adds an index; whether it was not in it. Beyond the end there is nothing to add.
    pub(super) fn set(&mut self, index: u64) -> bool {
        let is_new = index < self.len && !self.has(index);
        if is_new {
            self.flip(index);
            self.ones += 1;
        }
        is_new
    }

    /// Takes an index away; whether it was in it.
    pub(super) fn clear(&mut self, index: u64) -> bool {
        let is_there = self.has(index);
        if is_there {
            self.flip(index);
            self.ones -= 1;
        }
        is_there
    }

    fn flip(&mut self, index: u64) {
        let at = usize::try_from(index / 64).unwrap_or(usize::MAX);
        if let Some(word) = self.words.get_mut(at) {
            *word ^= 1 << (index % 64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_keeps_what_is_added_and_counts_it() {
        let mut bits = Bitmap::empty(70);
        assert!(bits.set(0) && bits.set(69) && !bits.set(69) && !bits.set(70));
        assert_eq!((bits.ones(), bits.words(), bits.word(1)), (2, 2, 32));
        assert!(bits.clear(0) && !bits.clear(0) && !bits.has(0) && bits.has(69));
        assert_eq!(
            Bitmap::full(70).ones(),
            (0..99).filter(|it| Bitmap::full(70).has(*it)).count() as u64
        );
        assert!(Bitmap::full(64).is_full() && Bitmap::full(64).word(0) == u64::MAX);
        let read = Bitmap::from_bytes(&[0x05, 0xff], 10);
        assert_eq!((0..20).filter(|it| read.has(*it)).collect::<Vec<_>>(), [0, 2, 8, 9]);
        assert_eq!(read.ones(), 4);
    }
}
