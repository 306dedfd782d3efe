//! The blocks, read as the format says, have the mean and the deviation that were asked for.

use super::*;

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The digits of 32 weights: 16 bytes of nibbles, and for five bits 4 bytes of high bits.
fn digits_32(nibbles: &[u8], high: Option<&[u8]>) -> Vec<f32> {
    let bit = |index: usize| high.map_or(0, |it| (it[index / 8] >> (index % 8) & 1) << 4);
    let low = nibbles.iter().map(|it| it & 15).chain(nibbles.iter().map(|it| it >> 4));
    low.enumerate().map(|(index, digit)| f32::from(digit | bit(index))).collect()
}

/// Scale and least of the run `index` of a block of `Q4_K` or `Q5_K`.
fn scale_and_least(packed: &[u8], index: usize) -> (f32, f32) {
    let (scale, least) = if index < 4 {
        (packed[index] & 63, packed[index + 4] & 63)
    } else {
        let (low, scale, least) = (packed[index + 4], packed[index - 4], packed[index]);
        (low & 15 | (scale >> 6) << 4, low >> 4 | (least >> 6) << 4)
    };
    (f32::from(scale), f32::from(least))
}

fn weights_k(block: &[u8], high: Option<&[u8]>, digits: &[u8]) -> Vec<f32> {
    let weight = |index: usize| {
        let (pair, in_run) = (index / 64, index % 32);
        let (scale, least) = scale_and_least(&block[4..16], index / 32);
        let digit = digits[pair * 32 + in_run] >> (index / 32 % 2 * 4) & 15;
        let bit = high.map_or(0, |it| (it[in_run] >> (index / 32) & 1) << 4);
        half_at(block, 0) * scale * f32::from(digit | bit) - half_at(block, 2) * least
    };
    (0..256).map(weight).collect()
}

fn weights_6k(block: &[u8]) -> Vec<f32> {
    let weight = |index: usize| {
        let (half, quarter, in_run) = (index / 128, index / 32 % 4, index % 32);
        let low = block[half * 64 + quarter % 2 * 32 + in_run] >> (quarter / 2 * 4) & 15;
        let high = block[128 + half * 32 + in_run] >> (quarter * 2) & 3;
        let scale = f32::from(block[192 + index / 16].cast_signed());
        half_at(block, 208) * scale * (f32::from(low | high << 4) - 32.0)
    };
    (0..256).map(weight).collect()
}

fn weights(kind: TensorType, block: &[u8]) -> Vec<f32> {
    let scaled = |digits: Vec<f32>, less: f32| {
        digits.into_iter().map(|it| half_at(block, 0) * (it - less)).collect()
    };
    let raised = |digits: Vec<f32>| {
        digits.into_iter().map(|it| half_at(block, 0) * it + half_at(block, 2)).collect()
    };
    match kind {
        TensorType::F32 => vec![f32::from_le_bytes(block.try_into().unwrap())],
        TensorType::F16 => vec![half_at(block, 0)],
        TensorType::BF16 => vec![bf16::from_le_bytes(block.try_into().unwrap()).to_f32()],
        TensorType::Q4_0 => scaled(digits_32(&block[2..], None), 8.0),
        TensorType::Q4_1 => raised(digits_32(&block[4..], None)),
        TensorType::Q5_0 => scaled(digits_32(&block[6..], Some(&block[2..6])), 16.0),
        TensorType::Q5_1 => raised(digits_32(&block[8..], Some(&block[4..8]))),
        TensorType::Q8_0 => {
            assert!(!block[2..].contains(&0x80));
            scaled(block[2..].iter().map(|it| f32::from(it.cast_signed())).collect(), 0.0)
        }
        TensorType::Q4K => weights_k(block, None, &block[16..]),
        TensorType::Q5K => weights_k(block, Some(&block[16..48]), &block[48..]),
        TensorType::Q6K => weights_6k(block),
    }
}

#[test]
fn weights_of_every_type_have_mean_zero_and_the_deviation_asked_for() {
    for kind in TensorType::ALL {
        let (len, size) = (kind.block_len(), usize::try_from(kind.block_size()).unwrap());
        let count = 400_000 / usize::try_from(len).unwrap();
        let mut bytes = vec![0; count * size];
        Weights::new(3, 0.02).fill(kind, &mut bytes);
        let all: Vec<f64> = bytes
            .chunks_exact(size)
            .flat_map(|block| weights(kind, block))
            .map(f64::from)
            .collect();
        let count = f64::from(u32::try_from(all.len()).unwrap());
        let mean = all.iter().sum::<f64>() / count;
        let deviation = (all.iter().map(|it| it * it).sum::<f64>() / count).sqrt();
        assert!(mean.abs() < 0.000_2, "{kind}: mean {mean}");
        assert!((deviation / 0.02 - 1.0).abs() < 0.05, "{kind}: deviation {deviation}");
    }
}

#[test]
fn pieces_of_a_tensor_differ() {
    let mut source = Weights::new(3, 0.02);
    let (mut one, mut two) = ([0; 144], [0; 144]);
    source.fill(TensorType::Q4K, &mut one);
    source.fill(TensorType::Q4K, &mut two);
    assert_ne!(one, two);
}
