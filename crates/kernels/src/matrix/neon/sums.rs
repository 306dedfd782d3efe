//! Integer sums of 16 rows of weights times up to 4 rows of activations, with NEON.
//!
//! Bytes are multiplied to 16 bits, added there as long as that cannot overflow, and then added in
//! pairs to 32 bits.
//!
//! JUSTIFICATION: the intrinsics of an instruction set are unsafe functions. 64-bit ARM always has
//! NEON: the target of the compiler says so, and no call here asks for more. Loads take pointers:
//! each is given an array of the very size that it reads.
#![expect(unsafe_code, reason = "NEON intrinsics")]
#![allow(unused_unsafe, reason = "newer compilers know that some of these are safe")]
#![allow(clippy::inline_always, reason = "a register that crosses a call goes through memory")]

use std::arch::aarch64::*;

/// The sums of each row of activations with 16 rows of weights.
type Sums<const ROWS: usize> = [[i32; 16]; ROWS];

/// The sums over 256 columns: unsigned weights times the scale of their sub-block, which is of
/// `QUADS` lines of four columns.
///
/// No 16-bit sum overflows: eight products of at most 31 * 127, or four of at most 63 * 127.
pub(super) fn scaled<const ROWS: usize, const QUADS: usize>(
    lines: &[[u8; 64]; 64],
    scales: &[[[i16; 2]; 16]; 16],
    input: [&[[i8; 4]; 64]; ROWS],
) -> Sums<ROWS> {
    let mut all = [[0; 16]; ROWS];
    for quarter in 0..4 {
        let mut sums = [zero(); ROWS];
        for sub in 0..64 / QUADS {
            let mut partial = [Partial::new(); ROWS];
            for quad in sub * QUADS..(sub + 1) * QUADS {
                let line = load(&lines[quad], quarter);
                for row in 0..ROWS {
                    partial[row].add(line, broadcast(input[row][quad]));
                }
            }
            let scale = load_scales(&scales[sub], quarter);
            for row in 0..ROWS {
                sums[row] = multiply_add(sums[row], partial[row].rows(), scale);
            }
        }
        for row in 0..ROWS {
            all[row][4 * quarter..4 * quarter + 4].copy_from_slice(&store(sums[row]));
        }
    }
    all
}

/// The sums over 32 columns of weights of at most 31.
pub(super) fn unsigned<const ROWS: usize>(
    lines: &[[u8; 64]; 8],
    input: [&[[i8; 4]; 8]; ROWS],
) -> Sums<ROWS> {
    let mut all = [[0; 16]; ROWS];
    for quarter in 0..4 {
        let mut partial = [Partial::new(); ROWS];
        for quad in 0..8 {
            let line = load(&lines[quad], quarter);
            for row in 0..ROWS {
                partial[row].add(line, broadcast(input[row][quad]));
            }
        }
        for row in 0..ROWS {
            all[row][4 * quarter..4 * quarter + 4].copy_from_slice(&store(partial[row].rows()));
        }
    }
    all
}

/// The sums over 32 columns of signed weights.
pub(super) fn signed<const ROWS: usize>(
    lines: &[[u8; 64]; 8],
    input: [&[[i8; 4]; 8]; ROWS],
) -> Sums<ROWS> {
    let mut all = [[0; 16]; ROWS];
    for quarter in 0..4 {
        let mut sums = [zero(); ROWS];
        for quad in 0..8 {
            let line = load(&lines[quad], quarter);
            for row in 0..ROWS {
                let mut partial = Partial::new();
                partial.add(line, broadcast(input[row][quad]));
                sums[row] = add(sums[row], partial.rows());
            }
        }
        for row in 0..ROWS {
            all[row][4 * quarter..4 * quarter + 4].copy_from_slice(&store(sums[row]));
        }
    }
    all
}

/// 16-bit sums of four rows: in the lanes are four columns of row 0, then of rows 1, 2 and 3.
#[derive(Clone, Copy)]
struct Partial {
    low: int16x8_t,
    high: int16x8_t,
}

impl Partial {
    #[inline(always)]
    fn new() -> Self {
        // SAFETY: the target has NEON.
        unsafe { Self { low: vdupq_n_s16(0), high: vdupq_n_s16(0) } }
    }

    /// Adds products lane by lane.
    #[inline(always)]
    fn add(&mut self, line: int8x16_t, input: int8x16_t) {
        // SAFETY: the target has NEON.
        unsafe {
            self.low = vmlal_s8(self.low, vget_low_s8(line), vget_low_s8(input));
            self.high = vmlal_high_s8(self.high, line, input);
        }
    }

    /// The sum of each row.
    #[inline(always)]
    fn rows(self) -> int32x4_t {
        // SAFETY: the target has NEON.
        unsafe { vpaddq_s32(vpaddlq_s16(self.low), vpaddlq_s16(self.high)) }
    }
}

#[inline(always)]
fn zero() -> int32x4_t {
    // SAFETY: the target has NEON.
    unsafe { vdupq_n_s32(0) }
}

#[inline(always)]
fn add(first: int32x4_t, second: int32x4_t) -> int32x4_t {
    // SAFETY: the target has NEON.
    unsafe { vaddq_s32(first, second) }
}

#[inline(always)]
fn multiply_add(sum: int32x4_t, first: int32x4_t, second: int32x4_t) -> int32x4_t {
    // SAFETY: the target has NEON.
    unsafe { vmlaq_s32(sum, first, second) }
}

/// Four bytes of each of four rows. They are below 64, or meant to be signed.
#[inline(always)]
fn load(line: &[u8; 64], quarter: usize) -> int8x16_t {
    let bytes = &line[16 * quarter..16 * quarter + 16];
    // SAFETY: the target has NEON, and 16 bytes are read from a slice of 16.
    unsafe { vreinterpretq_s8_u8(vld1q_u8(bytes.as_ptr())) }
}

/// The scale of each of four rows, which comes twice.
#[inline(always)]
fn load_scales(scales: &[[i16; 2]; 16], quarter: usize) -> int32x4_t {
    let pairs = &scales[4 * quarter..4 * quarter + 4];
    // SAFETY: the target has NEON, and 8 numbers are read from 4 times 2.
    unsafe { vshrq_n_s32::<16>(vreinterpretq_s32_s16(vld1q_s16(pairs.as_ptr().cast()))) }
}

/// Four bytes for every row.
#[inline(always)]
fn broadcast(four: [i8; 4]) -> int8x16_t {
    let bits = i32::from_ne_bytes(four.map(|byte| byte.to_ne_bytes()[0]));
    // SAFETY: the target has NEON.
    unsafe { vreinterpretq_s8_s32(vdupq_n_s32(bits)) }
}

#[inline(always)]
fn store(sums: int32x4_t) -> [i32; 4] {
    let mut out = [0; 4];
    // SAFETY: the target has NEON, and 4 numbers are written to an array of 4.
    unsafe { vst1q_s32(out.as_mut_ptr(), sums) };
    out
}
