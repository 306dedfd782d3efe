//! Rotary positions: which numbers of a head are turned, and how fast.
//!
//! Every scaling that families use ends as one frequency for each pair and one magnitude, so a
//! forward pass knows no scaling by name. `LongRoPE` alone has two sets: see [`LongRope`].
//!
//! Not here: turning (the forward pass), and which key says what (`gguf.rs`, `config.rs`).

use std::f64::consts::TAU;

use super::SettingsError;
use super::family::narrow;
use super::read::positive;

/// Which two numbers of a head are one pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// Pair `i` is the numbers `2 i` and `2 i + 1`: GGUF files of `llama`.
    Interleaved,
    /// Pair `i` is the numbers `i` and `i + pairs`: everything else.
    Split,
}

/// How queries and keys are turned.
///
/// At position `p`, pair `i` is turned by the angle `p * frequencies[i]` and multiplied with
/// `magnitude`. The first `2 * frequencies.len()` numbers of a head are turned, the rest stays.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSettings {
    /// Which two numbers are one pair.
    pub style: RopeStyle,
    /// Radians for each position, one for each pair.
    pub frequencies: Vec<f64>,
    /// Cosines and sines are multiplied by this.
    pub magnitude: f32,
    /// Other frequencies for sequences that may get long.
    pub long: Option<LongRope>,
}

/// The second set of `LongRoPE`. A sequence uses one set from its first token to its last: keys that
/// were turned by one are worthless beside keys turned by the other. So the set is chosen when a
/// sequence starts, from the most positions that it may reach, and a cached prefix belongs to one.
#[derive(Clone, Debug, PartialEq)]
pub struct LongRope {
    /// Sequences of more positions than this use these frequencies.
    pub beyond: usize,
    /// Radians for each position, one for each pair.
    pub frequencies: Vec<f64>,
}

impl RopeSettings {
    /// How many pairs of numbers are turned.
    pub fn pairs(&self) -> usize {
        self.frequencies.len()
    }

    /// The frequencies for a sequence that may reach `positions_max` positions.
    pub fn frequencies_for(&self, positions_max: usize) -> &[f64] {
        match &self.long {
            Some(long) if positions_max > long.beyond => &long.frequencies,
            _ => &self.frequencies,
        }
    }
}

/// How one source describes rotary positions, before it is resolved.
#[derive(Clone, Debug)]
pub(super) struct RopePlan {
    pub(super) style: RopeStyle,
    /// Base of the frequencies: pair `i` of `n` turns by `base^(-i/n)`.
    pub(super) base: f64,
    pub(super) pairs: usize,
    pub(super) scaling: Scaling,
}

/// How frequencies are stretched for contexts longer than those of training.
#[derive(Clone, Debug)]
pub(super) enum Scaling {
    None,
    /// Every frequency is divided by one factor.
    Linear(f64),
    /// Every frequency is divided by a factor of its own: how GGUF stores what Llama 3 does.
    Factors(Vec<f64>),
    /// Llama 3: slow pairs are divided, fast ones are not, those between are mixed.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
    Yarn(Yarn),
    LongRope {
        short: Vec<f64>,
        long: Vec<f64>,
        original: usize,
        magnitude: f64,
    },
}

/// `YaRN` (Peng et al. 2023, arXiv 2309.00071): pairs that turn often within the context of training
/// stay, pairs that turn rarely are divided, and those between are mixed along a ramp.
#[derive(Clone, Copy, Debug)]
pub(super) struct Yarn {
    pub(super) factor: f64,
    pub(super) original: f64,
    /// Turns above which a pair stays.
    pub(super) fast: f64,
    /// Turns below which a pair is divided.
    pub(super) slow: f64,
    /// Whether the ends of the ramp are whole pairs.
    pub(super) truncates: bool,
    pub(super) magnitude: f64,
}

impl RopePlan {
    /// Turns the description into frequencies.
    pub(super) fn resolve(self) -> Result<RopeSettings, SettingsError> {
        let plain = self.plain();
        let divided = |factors: &[f64]| -> Result<Vec<f64>, SettingsError> {
            if factors.len() != self.pairs {
                let (found, wanted) = (factors.len(), self.pairs);
                let key = "rotary factors".to_owned();
                return Err(SettingsError::Length { key, found, wanted });
            }
            let factors = factors.iter().map(|&factor| positive("rotary factors", factor));
            plain.iter().zip(factors).map(|(plain, factor)| Ok(plain / factor?)).collect()
        };
        let (mut magnitude, mut long) = (1.0, None);
        let frequencies = match &self.scaling {
            Scaling::None => plain.clone(),
            Scaling::Linear(factor) => plain.iter().map(|it| it / factor).collect(),
            Scaling::Factors(factors) => divided(factors)?,
            Scaling::Llama3 { factor, low, high, original } => {
                plain.iter().map(|&it| llama3(it, *factor, (*low, *high), *original)).collect()
            }
            Scaling::Yarn(yarn) => {
                magnitude = yarn.magnitude;
                yarn.frequencies(&plain, self.base)
            }
            Scaling::LongRope { short, long: factors, original, magnitude: stated } => {
                magnitude = *stated;
                long = Some(LongRope { beyond: *original, frequencies: divided(factors)? });
                divided(short)?
            }
        };
        let all = frequencies.iter().chain(long.iter().flat_map(|long| &long.frequencies));
        for &frequency in all {
            positive("a rotary frequency", frequency)?;
        }
        positive("the rotary magnitude", magnitude)?;
        Ok(RopeSettings { style: self.style, frequencies, magnitude: narrow(magnitude), long })
    }

    #[expect(clippy::cast_precision_loss, reason = "a head has at most 2^20 numbers")]
    fn plain(&self) -> Vec<f64> {
        let exponents = (0..self.pairs).map(|pair| pair as f64 / self.pairs as f64);
        exponents.map(|exponent| 1.0 / libm::pow(self.base, exponent)).collect()
    }
}

fn llama3(frequency: f64, factor: f64, (low, high): (f64, f64), original: f64) -> f64 {
    let turns = original * frequency / TAU;
    if turns < low {
        return frequency / factor;
    }
    if turns > high {
        return frequency;
    }
    let share = (turns - low) / (high - low);
    (1.0 - share) * frequency / factor + share * frequency
}

impl Yarn {
    /// What attention gains to make up for the longer context, where the source states nothing.
    pub(super) fn magnitude_for(factor: f64) -> f64 {
        if factor <= 1.0 { 1.0 } else { 0.1 * libm::log(factor) + 1.0 }
    }

    #[expect(clippy::cast_precision_loss, reason = "a head has at most 2^20 numbers")]
    fn frequencies(&self, plain: &[f64], base: f64) -> Vec<f64> {
        let size = 2.0 * plain.len() as f64;
        // The pair that makes so many turns in the context of training.
        let pair =
            |turns: f64| size * libm::log(self.original / (turns * TAU)) / (2.0 * libm::log(base));
        let (mut low, mut high) = (pair(self.fast), pair(self.slow));
        if self.truncates {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, high) = (low.max(0.0), high.min(size - 1.0));
        let span = if high - low == 0.0 { 0.001 } else { high - low };
        let mix = |(index, &frequency): (usize, &f64)| {
            let stretched = ((index as f64 - low) / span).clamp(0.0, 1.0);
            frequency / self.factor * stretched + frequency * (1.0 - stretched)
        };
        plain.iter().enumerate().map(mix).collect()
    }
}

/// What `LongRoPE` multiplies cosines and sines with, where the source states nothing.
pub(super) fn long_magnitude(factor: f64, original: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { (1.0 + libm::log(factor) / libm::log(original)).sqrt() }
}
