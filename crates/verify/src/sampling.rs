//! Seed-synchronised sampling: the same logits, seed and settings always draw the same token.
//!
//! A provider draws with [`Sampler::sample`]; an auditor that has the order, the seed and its
//! own logits asks [`Sampler::margin`] how far each claimed token lay from what it would have
//! drawn. Both go through the same steps, in this order:
//!
//! ```text
//! raw logits -> logit bias -> repetition -> frequency -> presence      (penalised logits, f32)
//!            -> what is not allowed becomes minus infinity             (where a constraint is)
//!            -> top-k -> top-p -> min-p                                (a mask, on logits / T)
//!            -> argmax over the mask of  logits + T * noise(position, id)
//! ```
//!
//! The noise is Gumbel(0, 1), so the argmax is a draw from the softmax of `logits / T`. It is
//! scaled by the temperature and the logits are not divided, which keeps margins in logit units.
//!
//! # Rules
//!
//! * All sums run in `f64`, in the order that their function states, with the logarithm of `libm`
//!   and exponentials of `libm` or our own: never the platform's, whose last bits differ.
//! * Equal values are ordered by id, lowest first, in every step.
//! * A bias or penalty is computed in `f64` and rounded to `f32` once per token and step list.
//! * The repetition penalty counts the tokens of prompt and answer; frequency and presence
//!   penalties count the answer alone, as the `OpenAI` API defines them.
//! * Temperature 0 is the argmax of the penalised logits: no mask can exclude it, no noise is
//!   drawn, and a seed is not needed.
//! * A token that is not [`Allowed`] is as impossible as one whose logit is minus infinity: no
//!   bias brings it back, and top-k, top-p and min-p choose among the others. Reported
//!   log-probabilities are those of the raw logits all the same.
//!
//! Not here: where the seed comes from (`commons_record::seed`), what a margin means for a
//! provider's standing (audits), stop strings (the engine).

mod allowed;
mod mask;
mod noise;
mod penalty;
mod scan;
#[cfg(test)]
mod tests;

use commons_record::envelope::InvalidBody;
use commons_record::order::{Sampling, TOP_LOGPROBS_MAX};
use commons_record::seed::Seed32;

pub use self::allowed::Allowed;
use self::mask::{Mask, Masks};
pub use self::noise::noise;
use self::noise::{NOISE_MAX, NoiseStream, noise_bound, noise_of_word};
use self::penalty::Penalties;
use self::scan::{argmax, check, log_sum_exp};

/// Margins above this count as this: one absurd token is as bad as it gets for a mean score.
///
/// From the Token-DiFR reference implementation, in logit units.
pub const SCORE_MAX: f64 = 0.5;

/// The largest published vocabularies have 262 144 tokens; sixteen times that is no model.
pub const VOCABULARY_MAX: usize = 1 << 22;

/// A token that was drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    /// Its id.
    pub id: u32,
    /// Its log-probability in micro-nats under the raw logits, before sampling changed them.
    pub logprob_micro: i32,
    /// The likeliest tokens under the raw logits and their log-probabilities, best first. The
    /// drawn token is among them only if it is one of the likeliest.
    pub top: Vec<(u32, i32)>,
}

/// How a claimed token compares with what this sampler would have drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Replayed {
    /// What this sampler would have drawn.
    pub predicted: u32,
    /// How far the claimed token lay below it, in logit units: 0 if they are the same,
    /// infinite if the token was masked out or does not exist.
    pub margin: f64,
    /// The claimed token's log-probability in micro-nats under the raw logits.
    pub logprob_micro: i32,
}

impl Replayed {
    /// The margin, cut at [`SCORE_MAX`]: what an audit averages.
    pub fn score(&self) -> f64 {
        self.margin.min(SCORE_MAX)
    }
}

/// Why settings make no sampler.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum SamplerError {
    #[error("the sampling settings are out of range")]
    Invalid { source: InvalidBody },

    #[error("a temperature above 0 needs a seed")]
    NoSeed,

    #[error("{count} alternatives are more than the {TOP_LOGPROBS_MAX} that can be reported")]
    TooManyAlternatives { count: u8 },
}

/// Why logits cannot be sampled from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum SampleError {
    #[error("there are no logits")]
    Empty,

    #[error("{count} logits are more than the {VOCABULARY_MAX} of any vocabulary")]
    TooMany { count: usize },

    #[error("the logit of token {id} is not a number")]
    NotANumber { id: u32 },

    #[error("the logit of token {id} is infinite")]
    Infinite { id: u32 },

    #[error("every logit is minus infinity: no token is possible")]
    NothingPossible,

    #[error("no token that is allowed is possible")]
    NothingAllowed,

    #[error("the logit bias names token {token}, but the vocabulary ends before {count}")]
    UnknownBiasToken { token: u32, count: usize },
}

/// Draws the tokens of one answer. It remembers them for the penalties.
#[derive(Debug, Clone)]
pub struct Sampler {
    temperature: f64,
    masks: Masks,
    penalties: Penalties,
    seed: Option<Seed32>,
    top_count: usize,
    /// The penalised logits of the current position; kept to spare an allocation per token.
    penalised: Vec<f32>,
}

impl Sampler {
    /// A sampler at the start of an answer. A seed is needed if and only if the temperature is
    /// above 0; at temperature 0 a given seed changes nothing.
    pub fn new(sampling: &Sampling, seed: Option<Seed32>) -> Result<Self, SamplerError> {
        sampling.check().map_err(|source| SamplerError::Invalid { source })?;
        let temperature = sampling.temperature.to_f64();
        if temperature > 0.0 && seed.is_none() {
            return Err(SamplerError::NoSeed);
        }
        Ok(Self {
            temperature,
            masks: Masks::new(sampling),
            penalties: Penalties::new(sampling),
            seed,
            top_count: 0,
            penalised: Vec::new(),
        })
    }

    /// The same sampler, which also reports this many of the likeliest tokens.
    pub fn with_top(mut self, count: u8) -> Result<Self, SamplerError> {
        if count > TOP_LOGPROBS_MAX {
            return Err(SamplerError::TooManyAlternatives { count });
        }
        self.top_count = usize::from(count);
        Ok(self)
    }

    /// Checks that every token of the logit bias exists, before any work is done. Sampling
    /// checks it again.
    pub fn check_vocabulary(&self, count: usize) -> Result<(), SampleError> {
        match self.penalties.bias_token_max() {
            Some(token) if token as usize >= count => {
                Err(SampleError::UnknownBiasToken { token, count })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Counts the tokens of the prompt, which the repetition penalty reduces too.
    pub fn observe_prompt(&mut self, tokens: &[u32]) {
        self.penalties.observe_prompt(tokens);
    }

    /// Counts a token of the answer that was not drawn here, as when an answer is resumed.
    pub fn observe(&mut self, token: u32) {
        self.penalties.observe(token);
    }

    /// Draws the token at `position` and counts it as part of the answer.
    ///
    /// The position is the token's index in the answer, from 0, counted through resumes. A
    /// refusal leaves the sampler as it was.
    pub fn sample(&mut self, position: u64, logits: &[f32]) -> Result<Drawn, SampleError> {
        self.sample_within(position, logits, None)
    }

    /// Draws as [`Self::sample`] does, and no other token than these.
    pub fn sample_within(
        &mut self,
        position: u64,
        logits: &[f32],
        allowed: Option<Allowed<'_>>,
    ) -> Result<Drawn, SampleError> {
        let raw = self.prepare(logits, allowed)?;
        let (mask, top) = (self.mask(), raw.top(logits, self.top_count));
        let (id, _) = self.best(position, &mask);
        self.penalties.observe(id);
        Ok(Drawn { id, logprob_micro: raw.logprob_micro(logits, id), top })
    }

    /// Draws as [`Self::sample`] does, and reports no log-probability: for guesses at what that
    /// will draw from other logits. It costs a pass over the vocabulary less.
    pub fn pick(&mut self, position: u64, logits: &[f32]) -> Result<u32, SampleError> {
        check(logits)?;
        self.penalise(logits, None)?;
        let (id, _) = self.best(position, &self.mask());
        self.penalties.observe(id);
        Ok(id)
    }

    /// Judges the token that a provider claims to have drawn at `position`, and counts it as
    /// part of the answer: the following positions are judged as if it had been drawn here.
    pub fn margin(
        &mut self,
        position: u64,
        logits: &[f32],
        token: u32,
    ) -> Result<Replayed, SampleError> {
        self.judge(position, logits, token).map(|(replayed, _)| replayed)
    }

    /// As [`Self::margin`], and reports the likeliest tokens, as [`Drawn::top`] does.
    pub fn judge(
        &mut self,
        position: u64,
        logits: &[f32],
        token: u32,
    ) -> Result<(Replayed, Vec<(u32, i32)>), SampleError> {
        self.judge_within(position, logits, token, None)
    }

    /// As [`Self::judge`], of a token that was drawn among these: any other has an infinite margin.
    pub fn judge_within(
        &mut self,
        position: u64,
        logits: &[f32],
        token: u32,
        allowed: Option<Allowed<'_>>,
    ) -> Result<(Replayed, Vec<(u32, i32)>), SampleError> {
        let raw = self.prepare(logits, allowed)?;
        let mask = self.mask();
        let (predicted, best) = self.best(position, &mask);
        let margin = self.perturbed(position, &mask, token).map_or(f64::INFINITY, |z| best - z);
        let top = raw.top(logits, self.top_count);
        self.penalties.observe(token);
        let logprob_micro = raw.logprob_micro(logits, token);
        Ok((Replayed { predicted, margin, logprob_micro }, top))
    }

    /// Checks the logits and writes their penalised form to `self.penalised`.
    fn prepare(
        &mut self,
        logits: &[f32],
        allowed: Option<Allowed<'_>>,
    ) -> Result<Raw, SampleError> {
        let raw = Raw::new(logits)?;
        self.penalise(logits, allowed)?;
        Ok(raw)
    }

    fn penalise(
        &mut self,
        logits: &[f32],
        allowed: Option<Allowed<'_>>,
    ) -> Result<(), SampleError> {
        self.check_vocabulary(logits.len())?;
        self.penalised.clear();
        self.penalised.extend_from_slice(logits);
        self.penalties.apply(&mut self.penalised);
        match allowed {
            Some(allowed) if !allowed.apply(&mut self.penalised) => {
                Err(SampleError::NothingAllowed)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn mask(&self) -> Mask {
        if self.temperature > 0.0 {
            self.masks.of(&self.penalised, self.temperature)
        } else {
            Mask::All
        }
    }

    /// The token with the highest perturbed logit in the mask, and that logit.
    ///
    /// Noise is bounded: [`NOISE_MAX`] for any token, [`noise_bound`] from its random word. A
    /// token whose bound cannot reach the best so far is skipped before its logarithms, and
    /// often before its random word. Rounding is monotonic, so the result is that of the full
    /// evaluation.
    fn best(&self, position: u64, mask: &Mask) -> (u32, f64) {
        let logit = |id: u32| f64::from(self.penalised[id as usize]);
        let greedy = argmax(&self.penalised);
        let Some(seed) = self.seed.as_ref().filter(|_| self.temperature > 0.0) else {
            return (greedy, logit(greedy));
        };
        let scale = self.temperature;
        let mut best = (greedy, logit(greedy) + scale * noise(seed, position, greedy));
        let mut stream = NoiseStream::new(seed, position, mask.dense_count(&self.penalised));
        mask.for_each(&self.penalised, |id, logit| {
            let logit = f64::from(logit);
            if logit + scale * NOISE_MAX < best.1 {
                return;
            }
            let word = stream.word(id);
            if logit + scale * noise_bound(word) < best.1 {
                return;
            }
            let z = logit + scale * noise_of_word(word);
            if z > best.1 || (z >= best.1 && id < best.0) {
                best = (id, z);
            }
        });
        best
    }

    /// The perturbed logit of one token; none if it cannot be drawn.
    fn perturbed(&self, position: u64, mask: &Mask, token: u32) -> Option<f64> {
        let logit = f64::from(*self.penalised.get(token as usize)?);
        if logit.is_infinite() || !mask.contains(token) {
            return None;
        }
        match self.seed.as_ref().filter(|_| self.temperature > 0.0) {
            Some(seed) => Some(logit + self.temperature * noise(seed, position, token)),
            None => Some(logit),
        }
    }
}

/// The raw distribution: what log-probabilities are taken from.
struct Raw {
    /// The logarithm of the sum of the exponentials of all logits.
    log_sum: f64,
}

impl Raw {
    /// Checks the logits and sums.
    fn new(logits: &[f32]) -> Result<Self, SampleError> {
        let max = check(logits)?;
        Ok(Self { log_sum: log_sum_exp(logits, max) })
    }

    /// A token's log-probability in micro-nats, rounded half away from zero, within an `i32`.
    fn logprob_micro(&self, logits: &[f32], id: u32) -> i32 {
        let logit = logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
        let micro = libm::round((f64::from(logit) - self.log_sum) * 1e6);
        #[expect(clippy::cast_possible_truncation, reason = "clamped to the range of an i32")]
        let clamped = micro.clamp(f64::from(i32::MIN), 0.0) as i32;
        clamped
    }

    /// The `count` likeliest tokens that are possible at all, best first.
    fn top(&self, logits: &[f32], count: usize) -> Vec<(u32, i32)> {
        let mut top: Vec<(u32, f32)> = Vec::with_capacity(count + 1);
        for (id, &logit) in (0_u32..).zip(logits) {
            let is_full = top.len() == count;
            let worst = if is_full { top.last().map(|it| it.1) } else { None };
            if logit == f32::NEG_INFINITY || count == 0 || worst.is_some_and(|it| logit <= it) {
                continue;
            }
            // Equal logits keep the order of their ids: the new one goes behind them.
            top.insert(top.partition_point(|it| it.1 >= logit), (id, logit));
            top.truncate(count);
        }
        top.into_iter().map(|(id, _)| (id, self.logprob_micro(logits, id))).collect()
    }
}
