//! Which tokens may be drawn: top-k, then top-p, then min-p, on `logits / T`.
//!
//! The likeliest token is in every mask.

use commons_record::order::Sampling;

/// The settings that exclude tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Masks {
    /// 0 keeps all.
    top_k: u32,
    /// 1 keeps all.
    top_p: f64,
    /// 0 keeps all.
    min_p: f64,
}

/// The tokens that may be drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mask {
    /// Every token that is possible at all.
    All,
    /// These, in ascending order.
    Ids(Vec<u32>),
}

/// A candidate as one integer: a larger logit is a larger key, and of equal logits the lower id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key(u64);

impl Key {
    fn new(id: u32, logit: f32) -> Self {
        // Adding zero makes the two zeros one. IEEE order: flip all bits of a negative number,
        // and the sign of a positive one.
        let bits = (logit + 0.0).to_bits();
        let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        Self(u64::from(ordered) << 32 | u64::from(!id))
    }

    fn id(self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is the id")]
        let low = self.0 as u32;
        !low
    }
}

/// Top-p sorts this many of the likeliest at first: most nuclei are smaller.
const NUCLEUS_FIRST: usize = 128;

impl Masks {
    pub(crate) fn new(sampling: &Sampling) -> Self {
        Self {
            top_k: sampling.top_k,
            top_p: sampling.top_p.to_f64(),
            min_p: sampling.min_p.to_f64(),
        }
    }

    /// The mask over penalised logits, of which at least one is possible and none is NaN.
    pub(crate) fn of(&self, logits: &[f32], temperature: f64) -> Mask {
        let top_k = usize::try_from(self.top_k).unwrap_or(usize::MAX);
        let is_top_k = (1..logits.len()).contains(&top_k);
        if !is_top_k && self.top_p >= 1.0 && self.min_p <= 0.0 {
            return Mask::All;
        }
        let mut keys = possible(logits);
        if is_top_k && top_k < keys.len() {
            keys.select_nth_unstable_by(top_k - 1, |a, b| b.cmp(a));
            keys.truncate(top_k);
            keys.sort_unstable_by_key(|it| it.id());
        }
        let max = keys.iter().max().map_or(0.0, |it| f64::from(logits[it.id() as usize]));
        if self.top_p < 1.0 {
            let weight =
                |key: &Key| libm::exp((f64::from(logits[key.id() as usize]) - max) / temperature);
            self.keep_nucleus(&mut keys, weight);
        }
        if self.min_p > 0.0 {
            // A probability of at least `min_p` times the largest, as a bound on the logit.
            let least = max + temperature * libm::log(self.min_p);
            keys.retain(|it| f64::from(logits[it.id() as usize]) >= least);
        }
        let mut ids = keys.into_iter().map(Key::id).collect::<Vec<_>>();
        ids.sort_unstable();
        Mask::Ids(ids)
    }

    /// Keeps the likeliest whose weights first reach `top_p` of the total. The total is summed
    /// in ascending order of id, the part from the likeliest down.
    fn keep_nucleus(&self, keys: &mut Vec<Key>, weight: impl Fn(&Key) -> f64) {
        let enough = self.top_p * keys.iter().map(&weight).sum::<f64>();
        let (mut sum, mut sorted, mut next) = (0.0, 0, NUCLEUS_FIRST);
        while sorted < keys.len() {
            let end = next.min(keys.len());
            let rest = &mut keys[sorted..];
            if end - sorted < rest.len() {
                rest.select_nth_unstable_by(end - sorted, |a, b| b.cmp(a));
            }
            keys[sorted..end].sort_unstable_by(|a, b| b.cmp(a));
            for index in sorted..end {
                sum += weight(&keys[index]);
                if sum >= enough {
                    keys.truncate(index + 1);
                    return;
                }
            }
            (sorted, next) = (end, next.saturating_mul(8));
        }
    }
}

/// The tokens that are possible at all, in ascending order of id.
fn possible(logits: &[f32]) -> Vec<Key> {
    let ids = (0_u32..).zip(logits).filter(|it| *it.1 > f32::NEG_INFINITY);
    ids.map(|(id, logit)| Key::new(id, *logit)).collect()
}

impl Mask {
    /// How many ids will be visited without a gap, from 0.
    pub(crate) fn dense_count(&self, logits: &[f32]) -> usize {
        match self {
            Self::All => logits.len(),
            Self::Ids(_) => 0,
        }
    }

    pub(crate) fn contains(&self, id: u32) -> bool {
        match self {
            Self::All => true,
            Self::Ids(ids) => ids.binary_search(&id).is_ok(),
        }
    }

    /// Visits the tokens in ascending order of id.
    pub(crate) fn for_each(&self, logits: &[f32], mut visit: impl FnMut(u32, f32)) {
        match self {
            Self::All => (0_u32..).zip(logits).for_each(|(id, logit)| visit(id, *logit)),
            Self::Ids(ids) => ids.iter().for_each(|id| visit(*id, logits[*id as usize])),
        }
    }
}
