//! Blocks of quantised numbers, one number at a time, as the format describes them.

use commons_engine::gguf::TensorType;
use half::{bf16, f16};

/// All numbers of whole blocks.
pub(crate) fn widen(kind: TensorType, bytes: &[u8]) -> Vec<f64> {
    let size = usize::try_from(kind.block_size()).expect("is small");
    let len = usize::try_from(kind.block_len()).expect("is small");
    let blocks = bytes.chunks_exact(size);
    blocks.flat_map(|block| (0..len).map(move |index| number(kind, block, index))).collect()
}

fn half(block: &[u8], at: usize) -> f64 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f64()
}

/// Four bits: the first half of the numbers in the low ones.
fn nibble(bytes: &[u8], index: usize, half: usize) -> f64 {
    let byte = bytes[index % half];
    f64::from(if index < half { byte & 15 } else { byte >> 4 })
}

fn bit(bytes: &[u8], index: usize) -> f64 {
    f64::from(bytes[index / 8] >> (index % 8) & 1)
}

fn number(kind: TensorType, block: &[u8], index: usize) -> f64 {
    match kind {
        TensorType::F32 => f64::from(f32::from_le_bytes(block.try_into().expect("is four bytes"))),
        TensorType::F16 => half(block, 0),
        TensorType::BF16 => bf16::from_le_bytes([block[0], block[1]]).to_f64(),
        TensorType::Q4_0 => half(block, 0) * (nibble(&block[2..], index, 16) - 8.0),
        TensorType::Q4_1 => half(block, 0) * nibble(&block[4..], index, 16) + half(block, 2),
        TensorType::Q5_0 => {
            let five = nibble(&block[6..], index, 16) + 16.0 * bit(&block[2..6], index);
            half(block, 0) * (five - 16.0)
        }
        TensorType::Q5_1 => {
            let five = nibble(&block[8..], index, 16) + 16.0 * bit(&block[4..8], index);
            half(block, 0) * five + half(block, 2)
        }
        TensorType::Q8_0 => half(block, 0) * f64::from(i8::from_le_bytes([block[2 + index]])),
        TensorType::Q4K => {
            let (scale, least) = scales(block, index / 32);
            let (pair, rest) = (index / 64, index % 64);
            scale * nibble(&block[16 + 32 * pair..], rest, 32) - least
        }
        TensorType::Q5K => {
            let (scale, least) = scales(block, index / 32);
            let (pair, rest) = (index / 64, index % 64);
            let high = block[16 + index % 32] >> (index / 32) & 1;
            let five = nibble(&block[48 + 32 * pair..], rest, 32) + 16.0 * f64::from(high);
            scale * five - least
        }
        TensorType::Q6K => {
            let (side, rest) = (index / 128, index % 128);
            let low = nibble(&block[64 * side..], rest, 64);
            let high = block[128 + 32 * side + rest % 32] >> (2 * (rest / 32)) & 3;
            let scale = i8::from_le_bytes([block[192 + index / 16]]);
            half(block, 208) * f64::from(scale) * (low + 16.0 * f64::from(high) - 32.0)
        }
    }
}

/// Scale and least value of one of the eight parts of a block: six bits each, in twelve bytes.
fn scales(block: &[u8], part: usize) -> (f64, f64) {
    let six = &block[4..16];
    let (scale, least) = match part {
        0..4 => (six[part] & 63, six[part + 4] & 63),
        _ => {
            (six[part + 4] & 15 | six[part - 4] >> 6 << 4, six[part + 4] >> 4 | six[part] >> 6 << 4)
        }
    };
    (half(block, 0) * f64::from(scale), half(block, 2) * f64::from(least))
}
