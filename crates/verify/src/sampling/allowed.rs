//! The tokens that a constraint allows at one position: a bit for each.
//!
//! Not here: what allows them (the engine's grammars).

/// A set of token ids, as words of 32 bits: token `id` is bit `id % 32` of word `id / 32`. What
/// lies behind the last word is not in the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed<'a>(&'a [u32]);

impl<'a> Allowed<'a> {
    /// The set that these words hold.
    pub fn new(words: &'a [u32]) -> Self {
        Self(words)
    }

    /// Whether a token is in the set.
    pub fn contains(self, id: u32) -> bool {
        let word = self.0.get(id as usize / 32).copied().unwrap_or(0);
        word >> (id % 32) & 1 == 1
    }

    /// Makes every other token impossible. Whether any is left that is possible.
    pub(super) fn apply(self, logits: &mut [f32]) -> bool {
        let mut is_any = false;
        let mut words = self.0.iter();
        for chunk in logits.chunks_mut(32) {
            match words.next().copied().unwrap_or(0) {
                0 => chunk.fill(f32::NEG_INFINITY),
                word => {
                    for (bit, logit) in chunk.iter_mut().enumerate() {
                        if word >> bit & 1 == 0 {
                            *logit = f32::NEG_INFINITY;
                        }
                        is_any |= *logit > f32::NEG_INFINITY;
                    }
                }
            }
        }
        is_any
    }
}
