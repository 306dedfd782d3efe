//! Random weights in every stored form: mean zero, a chosen deviation, from a counter.
//!
//! Quantised blocks are drawn directly, not rounded from numbers: random digits, and scales that
//! give the weights their deviation. So a gigabyte takes about a second. The digits are uniform;
//! a row's product with an activation is a sum of many of them and cannot tell them from normal.
//!
//! Where the digits of a type lean to one side (`q - 8` of 0 to 15 has the mean -1/2), the sign of
//! the scale is drawn too, which takes the mean away.

use half::{bf16, f16};

use super::Noise;
use crate::gguf::TensorType;

/// Entries of the table of normal deviates: a power of two, so that bits index it.
const DEVIATES: usize = 1 << 12;

/// Makes the weights of one file, in order.
#[derive(Debug)]
pub(super) struct Weights {
    noise: Noise,
    /// Standard normal deviates, each as likely as the next.
    deviates: Vec<f32>,
    deviation: f32,
}

impl Weights {
    /// Weights of this deviation, a pure function of the seed.
    pub(super) fn new(seed: u64, deviation: f32) -> Self {
        let mut noise = Noise(seed);
        // A sum of twelve numbers from -1/2 to 1/2 has variance one and is nearly normal. Each
        // stands in the table with either sign, so that the mean of the table is zero.
        let sums = (0..DEVIATES / 2).map(|_| (0..12).map(|_| noise.next() / 2.0).sum());
        let deviates = sums.flat_map(|it: f32| [it, -it]).collect();
        Self { noise, deviates, deviation }
    }

    /// Draws from another seed from now on. What follows depends on that seed, and for numbers
    /// that are no blocks on the first one too.
    pub(super) fn restart(&mut self, seed: u64) -> &mut Self {
        self.noise = Noise(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        self
    }

    /// Fills `bytes`, whole blocks of this type.
    pub(super) fn fill(&mut self, kind: TensorType, bytes: &mut [u8]) {
        let size = usize::try_from(kind.block_size()).unwrap_or(usize::MAX);
        match kind {
            TensorType::F32 => self.numbers(bytes, f32::to_le_bytes),
            TensorType::F16 => self.numbers(bytes, |it| f16::from_f32(it).to_le_bytes()),
            TensorType::BF16 => self.numbers(bytes, |it| bf16::from_f32(it).to_le_bytes()),
            _ => bytes.chunks_exact_mut(size).for_each(|block| self.block(kind, block)),
        }
    }

    fn numbers<const N: usize>(&mut self, bytes: &mut [u8], convert: fn(f32) -> [u8; N]) {
        let (numbers, _) = bytes.as_chunks_mut::<N>();
        for four in numbers.chunks_mut(4) {
            let mut bits = self.noise.bits();
            for number in four {
                *number = convert(self.deviates[low(bits, 12)] * self.deviation);
                bits >>= 16;
            }
        }
    }

    /// One block: digits everywhere first, then the scales over them.
    fn block(&mut self, kind: TensorType, block: &mut [u8]) {
        for eight in block.chunks_mut(8) {
            eight.copy_from_slice(&self.noise.bits().to_le_bytes()[..eight.len()]);
        }
        match kind {
            TensorType::Q4_0 => self.signed_scale(&mut block[..2], uniform_deviation(16)),
            TensorType::Q5_0 => self.signed_scale(&mut block[..2], uniform_deviation(32)),
            TensorType::Q4_1 => self.scale_and_least(block, 16),
            TensorType::Q5_1 => self.scale_and_least(block, 32),
            TensorType::Q8_0 => {
                self.signed_scale(&mut block[..2], uniform_deviation(255));
                // Rounding never makes -128, and a reader may count on it.
                block[2..].iter_mut().filter(|it| **it == 0x80).for_each(|it| *it = 0x81);
            }
            TensorType::Q4K => self.scales_k(block, 16),
            TensorType::Q5K => self.scales_k(block, 32),
            TensorType::Q6K => {
                // Sixteen scales of 8 bits, from 64 to 95 with either sign, then the factor.
                for scale in &mut block[192..208] {
                    let positive = 64 + (*scale & 31);
                    *scale = if *scale & 128 == 0 { positive } else { positive.wrapping_neg() };
                }
                let factor = self.deviation / (uniform_deviation(64) * 79.5);
                block[208..].copy_from_slice(&f16::from_f32(factor).to_le_bytes());
            }
            TensorType::F32 | TensorType::F16 | TensorType::BF16 => {}
        }
    }

    /// A scale of either sign, a quarter more or less than what gives the deviation.
    fn signed_scale(&mut self, bytes: &mut [u8], digits: f32) {
        let sign = if self.noise.next() < 0.0 { -1.0 } else { 1.0 };
        let scale = sign * self.spread() / digits;
        bytes.copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    }

    /// `Q4_1` and `Q5_1`: a weight is `scale * digit + least`.
    fn scale_and_least(&mut self, block: &mut [u8], levels: u16) {
        let scale = self.spread() / uniform_deviation(levels);
        let least = -scale * f32::from(levels - 1) / 2.0;
        block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        block[2..4].copy_from_slice(&f16::from_f32(least).to_le_bytes());
    }

    /// `Q4_K` and `Q5_K`: a weight is `d * scale * digit - dmin * least` with eight scales and
    /// eight leasts of 6 bits. Here each least equals its scale and `dmin` is `d` times the middle
    /// digit, so that every run of 32 weights has the mean zero.
    fn scales_k(&mut self, block: &mut [u8], levels: u16) {
        // Scales from 32 to 63.
        let bits = self.noise.bits().to_le_bytes().map(|it| 32 | (it & 31));
        let scales = &mut block[4..16];
        for index in 0..4 {
            let (first, second) = (bits[index], bits[index + 4]);
            let packed = first | (second >> 4) << 6;
            (scales[index], scales[index + 4]) = (packed, packed);
            scales[index + 8] = (second & 15) | (second & 15) << 4;
        }
        let factor = self.deviation / (uniform_deviation(levels) * 47.5);
        let least = factor * f32::from(levels - 1) / 2.0;
        block[..2].copy_from_slice(&f16::from_f32(factor).to_le_bytes());
        block[2..4].copy_from_slice(&f16::from_f32(least).to_le_bytes());
    }

    /// The deviation, a quarter more or less: blocks of a real file differ too.
    fn spread(&mut self) -> f32 {
        self.deviation * (1.0 + self.noise.next() / 4.0)
    }
}

/// The deviation of a whole number drawn evenly from `levels` neighbours.
fn uniform_deviation(levels: u16) -> f32 {
    let levels = f32::from(levels);
    ((levels * levels - 1.0) / 12.0).sqrt()
}

/// The lowest bits of a number, as an index.
fn low(bits: u64, count: u32) -> usize {
    usize::try_from(bits & ((1 << count) - 1)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
