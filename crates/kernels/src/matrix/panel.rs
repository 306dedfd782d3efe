//! A panel: up to 256 columns of 16 rows, unpacked to one byte per number.
//!
//! What is common to all block formats after unpacking, so that one kernel serves many of them.
//! A panel of a k-quant is one block; of the others, up to eight blocks of 32.
//!
//! The functions here are plain Rust on lines of 64 bytes. They are inlined into functions that
//! are compiled for an instruction set, where they become wide instructions.
//!
//! Not here: the product (`scalar.rs` says what it is).
#![expect(clippy::inline_always, reason = "compiled for the instruction set of the caller")]

use super::format::Format;
use super::pack::GROUP;

/// Numbers of 16 rows times four columns: the four of row 0, then those of row 1, and so on.
pub(crate) type Line = [u8; 64];

/// For each of 16 rows a pair of numbers.
pub(crate) type Pairs = [[i16; 2]; GROUP];

/// The most columns that a panel holds.
pub(crate) const PANEL: usize = 256;

/// Sixteen rows of a quantised matrix, one byte per number.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Panel {
    /// The numbers as stored: unsigned, but signed for `Q8_0`.
    pub(crate) quants: [Line; PANEL / 4],
    /// For k-quants: the scale of each sub-block, twice.
    pub(crate) scales: [Pairs; PANEL / 16],
    /// What the sums of the activations are multiplied by, for two sub-blocks at once: minimums,
    /// or for a format with a zero point the scale times minus that.
    pub(crate) offsets: [Pairs; PANEL / 32],
    /// The scale of each block.
    pub(crate) scale: [[f32; GROUP]; PANEL / 32],
    /// What the sum over `offsets` is multiplied by, for a format with a minimum.
    pub(crate) minimum: [[f32; GROUP]; PANEL / 32],
}

impl Panel {
    pub(crate) fn new() -> Self {
        Self {
            quants: [[0; 64]; PANEL / 4],
            scales: [[[1; 2]; GROUP]; PANEL / 16],
            offsets: [[[1; 2]; GROUP]; PANEL / 32],
            scale: [[0.0; GROUP]; PANEL / 32],
            minimum: [[0.0; GROUP]; PANEL / 32],
        }
    }

    /// Takes in packed blocks: one of a k-quant, or up to eight of 32 numbers.
    #[inline(always)]
    pub(crate) fn unpack(&mut self, format: Format, packed: &[u8]) {
        for (index, block) in packed.chunks_exact(format.block_size() * GROUP).enumerate() {
            let heads = 2 * GROUP * format.layout().heads.len();
            let (heads, _) = block[..heads].as_chunks::<32>();
            let (lines, _) = block[2 * GROUP * format.layout().heads.len()..].as_chunks::<64>();
            self.scale[index] = widen_line(&heads[0]);
            if format.has_minimum() {
                self.minimum[index] = widen_line(&heads[1]);
            }
            match format {
                Format::Q4K => self.unpack_q4k(lines),
                Format::Q5K => self.unpack_q5k(lines),
                Format::Q6K => self.unpack_q6k(lines),
                Format::Q2K => self.unpack_q2k(lines),
                Format::Q3K => self.unpack_q3k(lines),
                _ => self.unpack_small(format, index, lines),
            }
        }
    }

    /// The numbers of one row, as the file format defines them.
    pub(crate) fn dequantise(&self, format: Format, row: usize, out: &mut [f32]) {
        let (len, per_scale) = (format.block_len(), format.sub_block_len());
        for (index, number) in out.iter_mut().enumerate() {
            let (block, sub) = (index / len, index % len / per_scale);
            let byte = self.quants[index / 4][4 * row + index % 4];
            let quant = match format {
                Format::Q8_0 => i16::from(byte.cast_signed()),
                _ => i16::from(byte) - format.zero(),
            };
            let scale = match format.block_len() {
                32 => self.scale[block][row],
                _ => self.scale[block][row] * f32::from(self.scales[sub][row][0]),
            };
            *number = scale * f32::from(quant);
            if format.has_minimum() {
                let offset = match format.block_len() {
                    32 => 1,
                    _ => self.offsets[sub / 2][row][sub % 2],
                };
                *number += self.minimum[block][row] * f32::from(offset);
            }
        }
    }

    #[inline(always)]
    fn unpack_small(&mut self, format: Format, index: usize, lines: &[Line]) {
        let quants = &mut self.quants[8 * index..8 * index + 8];
        match format {
            Format::Q8_0 => quants.copy_from_slice(lines),
            Format::Q5_0 | Format::Q5_1 => {
                for t in 0..4 {
                    quants[t] =
                        map2(&lines[1 + t], &lines[0], |low, high| low & 15 | (high >> t & 1) << 4);
                    quants[4 + t] = map2(&lines[1 + t], &lines[0], |low, high| {
                        low >> 4 | (high >> (4 + t) & 1) << 4
                    });
                }
            }
            _ => {
                for t in 0..4 {
                    quants[t] = map(&lines[t], |byte| byte & 15);
                    quants[4 + t] = map(&lines[t], |byte| byte >> 4);
                }
            }
        }
        let offset = if format.has_minimum() { 1 } else { -format.zero() };
        self.offsets[index] = [[offset; 2]; GROUP];
    }

    /// Sub-block `2p` is in the low nibbles of lines `8p..8p + 8`, `2p + 1` in the high ones.
    #[inline(always)]
    fn unpack_q4k(&mut self, lines: &[Line]) {
        self.unpack_scales_and_minimums(lines);
        let lines = &lines[3..35];
        for p in 0..4 {
            for t in 0..8 {
                let line = &lines[8 * p + t];
                self.quants[16 * p + t] = map(line, |byte| byte & 15);
                self.quants[16 * p + 8 + t] = map(line, |byte| byte >> 4);
            }
        }
    }

    /// As `Q4_K`, with the fifth bit of sub-block `s` in bit `s` of eight lines before.
    #[inline(always)]
    fn unpack_q5k(&mut self, lines: &[Line]) {
        self.unpack_scales_and_minimums(lines);
        let (high, low) = (&lines[3..11], &lines[11..43]);
        for p in 0..4 {
            for t in 0..8 {
                let (low, high) = (&low[8 * p + t], &high[t]);
                self.quants[16 * p + t] =
                    map2(low, high, |low, high| low & 15 | (high >> (2 * p) & 1) << 4);
                self.quants[16 * p + 8 + t] =
                    map2(low, high, |low, high| low >> 4 | (high >> (2 * p + 1) & 1) << 4);
            }
        }
    }

    /// Two halves of 128 numbers. Of each, 16 lines of low nibbles and 8 lines of high bit pairs.
    #[inline(always)]
    fn unpack_q6k(&mut self, lines: &[Line]) {
        let (low, high, scales) = (&lines[..32], &lines[32..48], &lines[48..52]);
        for half in 0..2 {
            for t in 0..8 {
                let (first, second) = (&low[16 * half + t], &low[16 * half + 8 + t]);
                let (high, at) = (&high[8 * half + t], 32 * half + t);
                self.quants[at] = map2(first, high, |low, high| low & 15 | (high & 3) << 4);
                self.quants[at + 8] =
                    map2(second, high, |low, high| low & 15 | (high >> 2 & 3) << 4);
                self.quants[at + 16] =
                    map2(first, high, |low, high| low >> 4 | (high >> 4 & 3) << 4);
                self.quants[at + 24] = map2(second, high, |low, high| low >> 4 | (high >> 6) << 4);
            }
        }
        for (index, line) in scales.iter().enumerate() {
            self.set_scales(4 * index, &map(line, |byte| byte), 32);
        }
    }

    #[inline(always)]
    fn unpack_q2k(&mut self, lines: &[Line]) {
        let (scales, low) = (&lines[..4], &lines[4..20]);
        for half in 0..2 {
            for (part, t) in (0..4).flat_map(|part| (0..8).map(move |t| (part, t))) {
                self.quants[32 * half + 8 * part + t] =
                    map(&low[8 * half + t], |byte| byte >> (2 * part) & 3);
            }
        }
        for (index, line) in scales.iter().enumerate() {
            self.set_scales(4 * index, &map(line, |byte| byte & 15), 0);
            self.set_minimums(4 * index, &map(line, |byte| byte >> 4));
        }
        negate(&mut self.minimum[0]);
    }

    #[inline(always)]
    fn unpack_q3k(&mut self, lines: &[Line]) {
        let (high, low, scales) = (&lines[..8], &lines[8..24], &lines[24..27]);
        for half in 0..2 {
            for (part, t) in (0..4).flat_map(|part| (0..8).map(move |t| (part, t))) {
                self.quants[32 * half + 8 * part + t] =
                    map2(&low[8 * half + t], &high[t], |low, high| {
                        low >> (2 * part) & 3 | (high >> (4 * half + part) & 1) << 2
                    });
            }
        }
        for index in 0..4 {
            let line = map2(&scales[index % 2], &scales[2], |low, high| {
                (low >> (4 * (index / 2)) & 15 | (high >> (2 * index) & 3) << 4).wrapping_sub(32)
            });
            self.set_scales(4 * index, &line, 4);
        }
    }

    /// The eight 6-bit scales and minimums of a row in three words, as the file has them.
    #[inline(always)]
    fn unpack_scales_and_minimums(&mut self, lines: &[Line]) {
        let (first, second, rest) = (&lines[0], &lines[1], &lines[2]);
        let high = |low: u8, high: u8| low & 15 | high >> 2 & 0x30;
        self.set_scales(0, &map(first, |byte| byte & 63), 0);
        self.set_scales(4, &map2(rest, first, high), 0);
        self.set_minimums(0, &map(second, |byte| byte & 63));
        self.set_minimums(4, &map2(rest, second, |low, byte| high(low >> 4, byte)));
        negate(&mut self.minimum[0]);
    }

    /// Sets the signed scales of four sub-blocks, and the offsets that a zero point asks for.
    #[inline(always)]
    fn set_scales(&mut self, first: usize, line: &Line, zero: i16) {
        for index in 0..4 {
            let sub = first + index;
            for row in 0..GROUP {
                let scale = i16::from(line[4 * row + index].cast_signed());
                self.scales[sub][row] = [scale; 2];
                if zero != 0 {
                    self.offsets[sub / 2][row][sub % 2] = -zero * scale;
                }
            }
        }
    }

    #[inline(always)]
    fn set_minimums(&mut self, first: usize, line: &Line) {
        for index in 0..4 {
            let sub = first + index;
            for row in 0..GROUP {
                self.offsets[sub / 2][row][sub % 2] = i16::from(line[4 * row + index]);
            }
        }
    }
}

/// The exact value of a 16-bit floating point number; a signalling NaN may turn quiet or not.
#[inline(always)]
pub(crate) fn widen_f16(bits: u16) -> f32 {
    // The exponents differ in their bias by 112. A subnormal number is its offset from the
    // smallest normal one: the difference is exact, and no operand of it is subnormal.
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let special = if bits & 0x7c00 == 0x7c00 { 112 << 23 } else { 0 };
    let smallest = 113 << 23;
    let subnormal = f32::from_bits(magnitude + smallest) - f32::from_bits(smallest);
    let normal = magnitude + (112 << 23) + special;
    let widened = if bits & 0x7c00 == 0 { subnormal.to_bits() } else { normal };
    f32::from_bits(widened | u32::from(bits & 0x8000) << 16)
}

/// The exact value of the upper half of a 32-bit floating point number.
#[inline(always)]
pub(crate) fn widen_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// One of the 16 numbers of a packed column of floating point numbers.
#[inline(always)]
pub(crate) fn widen(format: Format, column: &[u8], row: usize) -> f32 {
    match format {
        Format::F32 => f32::from_le_bytes(column.as_chunks().0[row]),
        Format::Bf16 => widen_bf16(u16::from_le_bytes(column.as_chunks().0[row])),
        _ => widen_f16(u16::from_le_bytes(column.as_chunks().0[row])),
    }
}

/// Columns of 16 packed floating point numbers.
#[inline(always)]
pub(crate) fn widen_columns(format: Format, packed: &[u8], floats: &mut [[f32; GROUP]]) {
    match format {
        Format::F32 => {
            for (column, out) in packed.as_chunks::<64>().0.iter().zip(floats) {
                let numbers = column.as_chunks::<4>().0;
                for (out, &number) in out.iter_mut().zip(numbers) {
                    *out = f32::from_le_bytes(number);
                }
            }
        }
        Format::Bf16 => {
            for (column, out) in packed.as_chunks::<32>().0.iter().zip(floats) {
                let numbers = column.as_chunks::<2>().0;
                for (out, &number) in out.iter_mut().zip(numbers) {
                    *out = widen_bf16(u16::from_le_bytes(number));
                }
            }
        }
        _ => {
            for (column, out) in packed.as_chunks::<32>().0.iter().zip(floats) {
                *out = widen_line(column);
            }
        }
    }
}

#[inline(always)]
fn widen_line(head: &[u8; 32]) -> [f32; GROUP] {
    let (numbers, _) = head.as_chunks::<2>();
    let mut out = [0.0; GROUP];
    for (out, &number) in out.iter_mut().zip(numbers) {
        *out = widen_f16(u16::from_le_bytes(number));
    }
    out
}

#[inline(always)]
fn negate(numbers: &mut [f32; GROUP]) {
    for number in numbers {
        *number = -*number;
    }
}

#[inline(always)]
fn map(line: &Line, function: impl Fn(u8) -> u8) -> Line {
    let mut out = [0; 64];
    for (out, &byte) in out.iter_mut().zip(line) {
        *out = function(byte);
    }
    out
}

#[inline(always)]
fn map2(first: &Line, second: &Line, function: impl Fn(u8, u8) -> u8) -> Line {
    let mut out = [0; 64];
    for ((out, &first), &second) in out.iter_mut().zip(first).zip(second) {
        *out = function(first, second);
    }
    out
}
