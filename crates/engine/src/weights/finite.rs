//! Whether stored numbers are numbers.
//!
//! A damaged or hostile file may hold infinities or not-a-number: one of them turns every logit of
//! every sequence into nothing. The check reads only the bits that decide: the exponents of floats,
//! and the 16-bit scales of quantised blocks (every pattern of the packed integers is a number).
//!
//! Not here: when it is asked (vectors when they are read, matrices when they are packed).

use half::{bf16, f16};

use crate::gguf::TensorType;

/// Checks whole rows of `columns` numbers each; the error is the index of the first bad row.
///
/// Bytes that are no whole block, at the end, are not looked at.
pub fn check_finite(kind: TensorType, columns: usize, bytes: &[u8]) -> Result<(), usize> {
    if is_sound(kind, bytes) { Ok(()) } else { Err(find(kind, columns, bytes)) }
}

fn is_sound(kind: TensorType, bytes: &[u8]) -> bool {
    match kind {
        TensorType::F32 => all(bytes, |it: [u8; 4]| is_finite32(u32::from_le_bytes(it))),
        TensorType::BF16 => {
            all(bytes, |it: [u8; 2]| is_finite32(u32::from(u16::from_le_bytes(it)) << 16))
        }
        TensorType::F16 => all(bytes, is_finite16),
        _ => scales(kind, bytes).all(is_finite16),
    }
}

/// Goes through all the bytes without a branch, so that the compiler can do many at a time.
fn all<const N: usize>(bytes: &[u8], is_sound: impl Fn([u8; N]) -> bool) -> bool {
    let (numbers, _) = bytes.as_chunks::<N>();
    numbers.iter().fold(true, |sound, &number| sound & is_sound(number))
}

fn is_finite32(bits: u32) -> bool {
    bits & 0x7f80_0000 != 0x7f80_0000
}

fn is_finite16(bytes: [u8; 2]) -> bool {
    u16::from_le_bytes(bytes) & 0x7c00 != 0x7c00
}

/// The 16-bit scales of quantised blocks.
fn scales(kind: TensorType, bytes: &[u8]) -> impl Iterator<Item = [u8; 2]> + '_ {
    let (first, second): (usize, Option<usize>) = match kind {
        TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4K | TensorType::Q5K => (0, Some(2)),
        TensorType::Q6K => (208, None),
        _ => (0, None),
    };
    let blocks = bytes.chunks_exact(block_size(kind));
    blocks.flat_map(move |block| {
        let scale = |at: usize| [block[at], block[at + 1]];
        std::iter::once(scale(first)).chain(second.map(scale))
    })
}

/// Where the first bad row is: looked for only when there is one.
fn find(kind: TensorType, columns: usize, bytes: &[u8]) -> usize {
    let block_len = usize::try_from(kind.block_len()).unwrap_or(1);
    let row_size = (columns / block_len).max(1) * block_size(kind);
    bytes.chunks(row_size).position(|row| !is_sound(kind, row)).unwrap_or(0)
}

fn block_size(kind: TensorType) -> usize {
    usize::try_from(kind.block_size()).unwrap_or(1)
}

/// Floating-point numbers as f32; `None` for quantised blocks.
pub(crate) fn widen(kind: TensorType, bytes: &[u8]) -> Option<Vec<f32>> {
    let (pairs, _) = bytes.as_chunks::<2>();
    Some(match kind {
        TensorType::F32 => {
            let (words, _) = bytes.as_chunks::<4>();
            words.iter().map(|&word| f32::from_le_bytes(word)).collect()
        }
        TensorType::F16 => pairs.iter().map(|&pair| f16::from_le_bytes(pair).to_f32()).collect(),
        TensorType::BF16 => pairs.iter().map(|&pair| bf16::from_le_bytes(pair).to_f32()).collect(),
        _ => return None,
    })
}
