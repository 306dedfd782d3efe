//! What changes logits before any draw: the logit bias and the penalties.
//!
//! Order, as in vLLM: bias, repetition, frequency, presence.

use std::collections::BTreeMap;

use commons_record::order::Sampling;

/// Biases and penalties, with the tokens that they count.
#[derive(Debug, Clone)]
pub(crate) struct Penalties {
    /// Strictly ascending by token.
    bias: Vec<(u32, f64)>,
    repetition: f64,
    presence: f64,
    frequency: f64,
    /// How often the answer holds each token; 0 for a token of the prompt alone.
    seen: BTreeMap<u32, u32>,
}

impl Penalties {
    pub(crate) fn new(sampling: &Sampling) -> Self {
        Self {
            bias: sampling.logit_bias.iter().map(|it| (it.token, it.bias.to_f64())).collect(),
            repetition: sampling.repetition_penalty.to_f64(),
            presence: sampling.presence_penalty.to_f64(),
            frequency: sampling.frequency_penalty.to_f64(),
            seen: BTreeMap::new(),
        }
    }

    /// The highest token with a bias.
    pub(crate) fn bias_token_max(&self) -> Option<u32> {
        self.bias.last().map(|it| it.0)
    }

    /// Prompts are long: where no penalty reads them they are not kept.
    pub(crate) fn observe_prompt(&mut self, tokens: &[u32]) {
        if is_neutral(self.repetition, 1.0) {
            return;
        }
        for token in tokens {
            self.seen.entry(*token).or_insert(0);
        }
    }

    pub(crate) fn observe(&mut self, token: u32) {
        let is_off = is_neutral(self.repetition, 1.0)
            && is_neutral(self.frequency, 0.0)
            && is_neutral(self.presence, 0.0);
        if is_off {
            return;
        }
        let count = self.seen.entry(token).or_insert(0);
        *count = count.saturating_add(1);
    }

    /// Changes the logits. A token that does not exist in them has nothing to change.
    pub(crate) fn apply(&self, logits: &mut [f32]) {
        let mut bias = self.bias.iter().peekable();
        for (&token, &count) in &self.seen {
            while let Some((token, bias)) = bias.next_if(|it| it.0 < token) {
                change(logits, *token, |logit| logit + bias);
            }
            let bias = bias.next_if(|it| it.0 == token).map_or(0.0, |it| it.1);
            change(logits, token, |logit| self.penalise(logit + bias, count));
        }
        for (token, bias) in bias {
            change(logits, *token, |logit| logit + bias);
        }
    }

    fn penalise(&self, logit: f64, count: u32) -> f64 {
        let repeated = if logit > 0.0 { logit / self.repetition } else { logit * self.repetition };
        let presence = if count > 0 { self.presence } else { 0.0 };
        repeated - self.frequency * f64::from(count) - presence
    }
}

/// Whether a setting is its own neutral value. Both come from integers, so equality is exact.
fn is_neutral(setting: f64, neutral: f64) -> bool {
    setting.to_bits() == neutral.to_bits()
}

/// Rounds once, and keeps what is finite finite: a logit at the edge of `f32` must not become
/// infinite by a penalty.
fn change(logits: &mut [f32], token: u32, by: impl Fn(f64) -> f64) {
    let Some(logit) = logits.get_mut(token as usize) else { return };
    if logit.is_finite() {
        let changed = by(f64::from(*logit)).clamp(f64::from(f32::MIN), f64::from(f32::MAX));
        #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
        let rounded = changed as f32;
        *logit = rounded;
    }
}
