//! The block layouts once more, number by number from the definition of the file format.
//!
//! Nothing is shared with the code under test: neither tables nor helpers.

use half::{bf16, f16};

use super::Format;

/// The numbers of one row of a file.
pub(super) fn row(format: Format, bytes: &[u8]) -> Vec<f32> {
    let size = match format {
        Format::F32 => 4,
        Format::F16 | Format::Bf16 => 2,
        Format::Q8_0 => 34,
        Format::Q4_0 => 18,
        Format::Q4_1 => 20,
        Format::Q5_0 => 22,
        Format::Q5_1 => 24,
        Format::Q2K => 84,
        Format::Q3K => 110,
        Format::Q4K => 144,
        Format::Q5K => 176,
        Format::Q6K => 210,
    };
    bytes.chunks(size).flat_map(|block| numbers(format, block)).collect()
}

fn numbers(format: Format, block: &[u8]) -> Vec<f32> {
    match format {
        Format::F32 => vec![f32::from_le_bytes(block.try_into().unwrap())],
        Format::F16 => vec![half(block, 0)],
        Format::Bf16 => vec![bf16::from_le_bytes([block[0], block[1]]).to_f32()],
        Format::Q8_0 => (0..32).map(|k| half(block, 0) * signed(block[2 + k])).collect(),
        Format::Q4_0 => (0..32).map(|k| half(block, 0) * (nibble(&block[2..], k) - 8.0)).collect(),
        Format::Q4_1 => {
            (0..32).map(|k| half(block, 0) * nibble(&block[4..], k) + half(block, 2)).collect()
        }
        Format::Q5_0 => (0..32)
            .map(|k| half(block, 0) * (nibble(&block[6..], k) + bit(&block[2..], k) * 16.0 - 16.0))
            .collect(),
        Format::Q5_1 => (0..32)
            .map(|k| {
                half(block, 0) * (nibble(&block[8..], k) + bit(&block[4..], k) * 16.0)
                    + half(block, 2)
            })
            .collect(),
        Format::Q2K => (0..256).map(|k| q2k(block, k)).collect(),
        Format::Q3K => (0..256).map(|k| q3k(block, k)).collect(),
        Format::Q4K => (0..256).map(|k| q4k(block, k)).collect(),
        Format::Q5K => (0..256).map(|k| q5k(block, k)).collect(),
        Format::Q6K => (0..256).map(|k| q6k(block, k)).collect(),
    }
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn signed(byte: u8) -> f32 {
    f32::from(byte.cast_signed())
}

/// Number `k` of 32: the low nibbles hold the first half, the high ones the second.
fn nibble(bytes: &[u8], k: usize) -> f32 {
    f32::from(if k < 16 { bytes[k] & 15 } else { bytes[k - 16] >> 4 })
}

/// Bit `k` of a little-endian word.
fn bit(bytes: &[u8], k: usize) -> f32 {
    f32::from(bytes[k / 8] >> (k % 8) & 1)
}

/// `scales[16]`, `qs[64]`, `d`, `dmin`: 2 bits a number, 16 numbers share a scale and a minimum.
fn q2k(block: &[u8], k: usize) -> f32 {
    let (half_index, shift, l) = (k / 128, k % 128 / 32 * 2, k % 32);
    let quant = block[16 + 32 * half_index + l] >> shift & 3;
    let scale = block[k / 16];
    half(block, 80) * f32::from(scale & 15) * f32::from(quant)
        - half(block, 82) * f32::from(scale >> 4)
}

/// `hmask[32]`, `qs[64]`, `scales[12]`, `d`: 3 bits a number, the third inverted.
fn q3k(block: &[u8], k: usize) -> f32 {
    let (half_index, part, l) = (k / 128, k % 128 / 32, k % 32);
    let low = block[32 + 32 * half_index + l] >> (2 * part) & 3;
    let is_high = block[l] >> (4 * half_index + part) & 1 == 1;
    let quant = f32::from(low) - if is_high { 0.0 } else { 4.0 };
    let (scales, index) = (&block[96..108], k / 16);
    let low = if index < 8 { scales[index] & 15 } else { scales[index - 8] >> 4 };
    let high = scales[8 + index % 4] >> (2 * (index / 4)) & 3;
    half(block, 108) * (f32::from(low | high << 4) - 32.0) * quant
}

/// The 6-bit scale and minimum of sub-block `index` of eight.
fn scale_and_minimum(scales: &[u8], index: usize) -> (f32, f32) {
    let (scale, minimum) = if index < 4 {
        (scales[index] & 63, scales[index + 4] & 63)
    } else {
        (
            scales[index + 4] & 15 | scales[index - 4] >> 6 << 4,
            scales[index + 4] >> 4 | scales[index] >> 6 << 4,
        )
    };
    (f32::from(scale), f32::from(minimum))
}

/// `d`, `dmin`, `scales[12]`, `qs[128]`.
fn q4k(block: &[u8], k: usize) -> f32 {
    let (scale, minimum) = scale_and_minimum(&block[4..16], k / 32);
    let byte = block[16 + k / 64 * 32 + k % 32];
    let quant = if k % 64 < 32 { byte & 15 } else { byte >> 4 };
    half(block, 0) * scale * f32::from(quant) - half(block, 2) * minimum
}

/// `d`, `dmin`, `scales[12]`, `qh[32]`, `qs[128]`.
fn q5k(block: &[u8], k: usize) -> f32 {
    let (scale, minimum) = scale_and_minimum(&block[4..16], k / 32);
    let byte = block[48 + k / 64 * 32 + k % 32];
    let low = if k % 64 < 32 { byte & 15 } else { byte >> 4 };
    let high = block[16 + k % 32] >> (k / 32) & 1;
    half(block, 0) * scale * f32::from(low | high << 4) - half(block, 2) * minimum
}

/// `ql[128]`, `qh[64]`, `scales[16]`, `d`.
fn q6k(block: &[u8], k: usize) -> f32 {
    let (half_index, part, l) = (k / 128, k % 128 / 32, k % 32);
    let byte = block[64 * half_index + 32 * (part % 2) + l];
    let low = if part < 2 { byte & 15 } else { byte >> 4 };
    let high = block[128 + 32 * half_index + l] >> (2 * part) & 3;
    half(block, 208) * signed(block[192 + k / 16]) * (f32::from(low | high << 4) - 32.0)
}
