//! Rotary positions: each pair of neighbouring numbers in a head is turned by an angle that grows
//! with the position. GGUF stores the llama family so that a pair is two neighbours.

use candle_core::{Device, Result, Tensor};

use super::Settings;

/// The angles of one model.
#[derive(Debug)]
pub(super) struct Rope {
    /// Radians per position, one for each pair of numbers in a head.
    frequencies: Vec<f64>,
}

impl Rope {
    /// `factors` divide the frequencies one by one: how Llama 3.1 files stretch the context.
    pub(super) fn new(settings: &Settings, factors: Option<Tensor>) -> Result<Self> {
        let pairs = settings.head_size / 2;
        let factors = match factors {
            Some(factors) => factors.to_vec1::<f32>()?,
            None => vec![1.0; pairs],
        };
        if let Some(factor) = factors.iter().find(|factor| !factor.is_normal()) {
            candle_core::bail!("a factor is {factor}, which is no divisor");
        }
        #[expect(clippy::cast_precision_loss, reason = "a head has at most 2^20 numbers")]
        let exponents = (0..pairs).map(|pair| -2.0 * pair as f64 / settings.head_size as f64);
        let frequencies = exponents
            .zip(factors)
            .map(|(it, factor)| {
                settings.rope_base.powf(it) / f64::from(factor) / settings.rope_scale
            })
            .collect();
        Ok(Self { frequencies })
    }

    /// Cosines and sines for `count` positions from `start` on, each `[count, pairs]`.
    pub(super) fn tables(&self, start: usize, count: usize) -> Result<(Tensor, Tensor)> {
        let shape = (count, self.frequencies.len());
        let mut cosines = Vec::with_capacity(count * self.frequencies.len());
        let mut sines = Vec::with_capacity(count * self.frequencies.len());
        for position in start..start + count {
            for frequency in &self.frequencies {
                #[expect(clippy::cast_precision_loss, reason = "a position is at most 2^24")]
                let (sine, cosine) = (position as f64 * frequency).sin_cos();
                #[expect(clippy::cast_possible_truncation, reason = "candle turns in f32")]
                {
                    cosines.push(cosine as f32);
                    sines.push(sine as f32);
                }
            }
        }
        let cosines = Tensor::from_vec(cosines, shape, &Device::Cpu)?;
        Ok((cosines, Tensor::from_vec(sines, shape, &Device::Cpu)?))
    }
}
