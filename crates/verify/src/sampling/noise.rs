//! Gumbel noise by counter: any position and token id on its own, in any order.
//!
//! Source: `algorithms.md` 1.2. The random word of a token is one 32-bit word of a `ChaCha20`
//! key stream (RFC 8439): key = seed, nonce = LE64(position) || LE32(0), block = id / 16, word
//! = id % 16. Then `u = ((word >> 8) + 0.5) * 2^-24` and `noise = -ln(-ln u)`.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use commons_record::seed::Seed32;

/// Words in a block, so ids in a block.
const BLOCK_WORDS: u32 = 16;

/// Bytes in a block.
const BLOCK_SIZE: usize = 64;

/// Most blocks that are made at once: enough for the cipher to use its widest registers, and
/// one page of memory.
const BLOCKS_AHEAD_MAX: usize = 64;

/// No noise is larger: the largest `u` is `1 - 2^-25`, whose noise is 17.3287.
pub(crate) const NOISE_MAX: f64 = 17.33;

/// The Gumbel(0, 1) noise of one token at one position.
pub fn noise(seed: &Seed32, position: u64, id: u32) -> f64 {
    noise_of_word(NoiseStream::new(seed, position, 0).word(id))
}

/// The noise that a random word stands for.
pub(crate) fn noise_of_word(word: u32) -> f64 {
    let uniform = (f64::from(word >> 8) + 0.5) / f64::from(1_u32 << 24);
    -libm::log(-libm::log(uniform))
}

/// No less than the noise of `word`, without a logarithm.
///
/// As `-ln u > 1 - u`, the noise is below `-ln(1 - u)`; and `n` leading zeros in the 24 bits of
/// `1 - u` mean that it is at least `2^-(n + 1)`. The last term outweighs any rounding.
pub(crate) fn noise_bound(word: u32) -> f64 {
    let zeros = (!word >> 8).leading_zeros() - 8;
    f64::from(zeros + 1) * std::f64::consts::LN_2 + 1e-9
}

/// The random words of one position. Ids that ascend cost each block once.
pub(crate) struct NoiseStream {
    cipher: ChaCha20,
    /// The first block in `bytes`; none before the first word.
    first: Option<u32>,
    /// The key stream of some blocks in a row.
    bytes: Vec<u8>,
}

impl NoiseStream {
    /// Where all of the first `count` ids will be asked for in ascending order, blocks are made
    /// many at a time; a count of 0 makes them one by one. The words are the same.
    pub(crate) fn new(seed: &Seed32, position: u64, count: usize) -> Self {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&position.to_le_bytes());
        let cipher = ChaCha20::new(seed.into(), &nonce.into());
        let ahead = count.div_ceil(BLOCK_WORDS as usize).clamp(1, BLOCKS_AHEAD_MAX);
        Self { cipher, first: None, bytes: vec![0; ahead * BLOCK_SIZE] }
    }

    /// The random word of a token.
    pub(crate) fn word(&mut self, id: u32) -> u32 {
        let block = id / BLOCK_WORDS;
        let at = self.offset(block).unwrap_or_else(|| self.make(block));
        let at = at + (id % BLOCK_WORDS) as usize * 4;
        let bytes = &self.bytes[at..at + 4];
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// Where a block lies in `bytes`, if it is there.
    fn offset(&self, block: u32) -> Option<usize> {
        let at = block.checked_sub(self.first?)? as usize * BLOCK_SIZE;
        (at < self.bytes.len()).then_some(at)
    }

    /// Makes the key stream from `block` on; that block then lies at the start.
    fn make(&mut self, block: u32) -> usize {
        self.bytes.fill(0);
        // Ids are 32 bits, so blocks stay below 2^28 + 64 and the 32-bit counter cannot end.
        self.cipher.seek(u64::from(block) * BLOCK_SIZE as u64);
        self.cipher.apply_keystream(&mut self.bytes);
        self.first = Some(block);
        0
    }
}
