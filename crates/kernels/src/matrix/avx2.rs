//! Products with 256-bit registers: 8 rows of weights in a register, 16 and up to 4 rows of
//! activations at a time.
//!
//! JUSTIFICATION: an instruction set that is found at run time can only be used through functions
//! compiled for it. [`Avx2`] is proof that the machine has it.
#![expect(unsafe_code, reason = "calls functions that are compiled for AVX2")]

mod finish;
#[cfg(free_order)]
mod free;
mod packed;
mod registers;
mod small;
mod unpacked;

use super::drive::{Accumulator, Floats, Kernels, Rows, Tile};
use super::format::Format;
use super::pack::GROUP;
use super::panel::{self, Panel};
use crate::isa::{Isa, Kind};

/// Proof that this machine has AVX2.
#[derive(Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn new(isa: Isa) -> Self {
        assert!(matches!(isa.kind(), Kind::Avx2 | Kind::Avx512), "{isa} is not AVX2");
        Self(())
    }
}

impl Kernels for Avx2 {
    fn unpack(&self, format: Format, packed: &[u8], panel: &mut Panel) {
        // SAFETY: `self` is proof of AVX2.
        unsafe { unpack(format, packed, panel) }
    }

    fn widen(&self, format: Format, packed: &[u8], floats: &mut Floats) {
        // SAFETY: `self` is proof of AVX2.
        unsafe { widen(format, packed, floats) }
    }

    fn packed<const ROWS: usize>(
        &self,
        format: Format,
        group: &[u8],
        input: Rows<'_>,
        out: &mut [Accumulator; ROWS],
    ) -> bool {
        // Numbers of five bits take steps to put together, and registers: for more than two rows
        // it is faster to do that once (measured: 1.0 instead of 2.0 ms for four rows of `Q5_K`).
        // SAFETY: `self` is proof of AVX2 and F16C.
        unsafe {
            match format {
                Format::F32 => packed::f32(group, input, out),
                Format::F16 => packed::f16(group, input, out),
                Format::Bf16 => packed::bf16(group, input, out),
                Format::Q8_0 => packed::q8_0(group, input, out),
                Format::Q4_0 => packed::q4_0(group, input, out),
                Format::Q4_1 => small::q4_1(group, input, out),
                Format::Q5_0 if ROWS <= 2 => small::q5_0(group, input, out),
                Format::Q5_1 if ROWS <= 2 => small::q5_1(group, input, out),
                Format::Q4K => packed::q4k(group, input, out),
                Format::Q5K if ROWS <= 2 => packed::q5k(group, input, out),
                Format::Q6K => packed::q6k(group, input, out),
                _ => return false,
            }
        }
        true
    }

    fn super_block<const ROWS: usize>(
        &self,
        format: Format,
        panel: &Panel,
        input: Tile<'_>,
        out: &mut [Accumulator; ROWS],
    ) {
        // The largest sums: 2 * 127 * RUN times 15, 31, 3, 7 and 63.
        // SAFETY: `self` is proof of AVX2.
        unsafe {
            match format {
                Format::Q4K => unpacked::super_block::<ROWS, 8, 8>(format, panel, input, out),
                Format::Q5K => unpacked::super_block::<ROWS, 4, 8>(format, panel, input, out),
                Format::Q2K | Format::Q3K => {
                    unpacked::super_block::<ROWS, 4, 4>(format, panel, input, out);
                }
                _ => unpacked::super_block::<ROWS, 2, 4>(format, panel, input, out),
            }
        }
    }

    fn small_blocks<const ROWS: usize>(
        &self,
        format: Format,
        panel: &Panel,
        input: Tile<'_>,
        out: &mut [Accumulator; ROWS],
    ) {
        // SAFETY: `self` is proof of AVX2.
        unsafe {
            match format {
                Format::Q8_0 => unpacked::signed_blocks(panel, input, out),
                Format::Q4_0 | Format::Q4_1 => {
                    unpacked::small_blocks::<ROWS, 8>(format, panel, input, out);
                }
                _ => unpacked::small_blocks::<ROWS, 4>(format, panel, input, out),
            }
        }
    }

    fn floats<const ROWS: usize>(
        &self,
        weights: &[[f32; GROUP]],
        input: Tile<'_>,
        out: &mut [Accumulator; ROWS],
    ) {
        // SAFETY: `self` is proof of AVX2.
        unsafe { unpacked::floats(weights, input, out) }
    }
}

#[target_feature(enable = "avx2,f16c")]
fn unpack(format: Format, packed: &[u8], panel: &mut Panel) {
    panel.unpack(format, packed);
}

#[target_feature(enable = "avx2,f16c")]
fn widen(format: Format, packed: &[u8], floats: &mut Floats) {
    panel::widen_columns(format, packed, floats);
}
