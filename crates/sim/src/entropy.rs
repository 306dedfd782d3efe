//! Chance: small seeded generators, one for each purpose, and the [`Entropy`] port over one.
//!
//! A generator is made from the world's seed and a label, so drawing more of one kind (delays,
//! say) does not shift what another kind (keys) draws.
//!
//! Not here: anything secret. The bytes are predictable by design.

use std::sync::Mutex;

use commons_port::time::Entropy;
use commons_record::Hash;

use crate::lock;

/// A generator (splitmix64): tiny, and good enough to choose among schedules.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The generator of one purpose in the world of that seed.
    pub fn new(seed: u64, purpose: &str, index: u64) -> Self {
        let fields = [purpose.as_bytes(), &seed.to_be_bytes(), &index.to_be_bytes()];
        let hash = Hash::of_fields("sim/rng", &fields);
        Self(hash.as_bytes().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`. The bias is below 2^-32 for what is drawn here.
    ///
    /// # Panics
    ///
    /// If `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "nothing is below 0");
        self.next_u64() % end
    }

    /// An index into something of that length, which is not empty.
    pub fn index(&mut self, len: usize) -> usize {
        let index = self.below(len as u64);
        usize::try_from(index).unwrap_or(0)
    }

    /// A number from `low` to `high`, both included.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True `per_mille` times in a thousand.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.below(1000) < u64::from(per_mille)
    }

    /// Fills a buffer.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for part in buffer.chunks_mut(8) {
            let bytes = self.next_u64().to_le_bytes();
            part.copy_from_slice(&bytes[..part.len()]);
        }
    }

    /// A fixed number of bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }
}

/// The randomness of one run of one node.
#[derive(Debug)]
pub struct SimEntropy(Mutex<Rng>);

impl SimEntropy {
    /// Draws from `rng`.
    pub fn new(rng: Rng) -> Self {
        Self(Mutex::new(rng))
    }
}

impl Entropy for SimEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        lock(&self.0).fill(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_and_indices_draw_differently_and_the_same_again() {
        let first = |purpose, index| Rng::new(7, purpose, index).next_u64();
        assert_eq!(first("net", 0), first("net", 0));
        assert_ne!(first("net", 0), first("net", 1));
        assert_ne!(first("net", 0), first("disk", 0));
        assert_ne!(first("net", 0), Rng::new(8, "net", 0).next_u64());
    }

    #[test]
    fn ranges_hold_and_are_used_to_their_ends() {
        let mut rng = Rng::new(1, "test", 0);
        let drawn: Vec<u64> = (0..200).map(|_| rng.within(3, 5)).collect();
        assert!((3..=5).all(|number| drawn.contains(&number)), "{drawn:?}");
        assert!(drawn.iter().all(|number| (3..=5).contains(number)), "{drawn:?}");
        assert!(!rng.chance(0) && rng.chance(1000));
    }
}
