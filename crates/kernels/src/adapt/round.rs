//! Numbers of an adapter, rounded to 8 bits where its owner asks for it.

use half::f16;

use super::{AdaptError, BLOCK, BLOCK_SIZE, Source, widen_row};

impl Source<'_> {
    /// The rows as `Q8_0`, as a file of that format has them: blocks of 32 with the scale
    /// `absmax / 127` in 16 bits, each number rounded to the nearest multiple of the scale, halves
    /// away from zero. About a quarter of the size of `F32`, and another product.
    pub fn to_q8_0(&self, columns: usize) -> Result<Vec<u8>, AdaptError> {
        self.check(columns)?;
        if columns == 0 || !columns.is_multiple_of(BLOCK) {
            return Err(AdaptError::PartialBlock { columns });
        }
        let values: Vec<f32> = widen_row(self.format, self.bytes).collect();
        let mut bytes = Vec::with_capacity(values.len() / BLOCK * BLOCK_SIZE);
        for block in values.as_chunks::<BLOCK>().0 {
            round_block(block, &mut bytes);
        }
        Ok(bytes)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounded, and clamped to what fits")]
fn round_block(block: &[f32; BLOCK], bytes: &mut Vec<u8>) {
    let most = block.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let scale = f16::from_f32(most / 127.0);
    bytes.extend_from_slice(&scale.to_le_bytes());
    let scale = scale.to_f32();
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    for value in block {
        let rounded = (value * inverse).round().clamp(-127.0, 127.0);
        bytes.extend_from_slice(&(rounded as i8).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::Factor;
    use super::*;
    use crate::matrix::Format;

    #[test]
    fn a_rounded_number_is_within_half_a_step_of_its_block() {
        let values: Vec<f32> = (0..128_i16).map(|at| f32::from(at * 7 % 61 - 30) * 0.03).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let source = Source { format: Format::F32, rows: 2, bytes: &bytes };
        let rounded = source.to_q8_0(64).unwrap();
        assert_eq!(rounded.len(), 4 * BLOCK_SIZE);
        let source = Source { format: Format::Q8_0, rows: 2, bytes: &rounded };
        let factor = Factor::pack(source, 64).unwrap();
        let back = [factor.dequantise_row(0), factor.dequantise_row(1)].concat();
        for (block, back) in values.chunks(BLOCK).zip(back.chunks(BLOCK)) {
            let most = block.iter().fold(0.0_f32, |most, it| most.max(it.abs()));
            for (value, back) in block.iter().zip(back) {
                // Half a step, and what 16 bits lose of the scale.
                assert!((value - back).abs() <= most / 127.0 * 0.56, "{value} became {back}");
            }
        }
    }

    #[test]
    fn what_is_rounded_already_stays_as_it_is() {
        let values: Vec<f32> = (0..32_i16).map(|at| f32::from(at * 8 - 127)).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let once = Source { format: Format::F32, rows: 1, bytes: &bytes }.to_q8_0(32).unwrap();
        let twice = Source { format: Format::Q8_0, rows: 1, bytes: &once }.to_q8_0(32).unwrap();
        assert_eq!(once, twice);
        let zeros = Source { format: Format::F32, rows: 1, bytes: &[0; 128] }.to_q8_0(32).unwrap();
        assert_eq!(zeros, [0; BLOCK_SIZE]);
        let short = Source { format: Format::F32, rows: 1, bytes: &[0; 64] }.to_q8_0(16);
        assert_eq!(short, Err(AdaptError::PartialBlock { columns: 16 }));
    }
}
