//! Products with 512-bit registers: 16 rows of weights in a register, up to 4 rows of activations
//! at a time.
//!
//! One instruction (VNNI) adds four products of an unsigned and a signed byte to 32 bits, exactly.
//! Signed weights (`Q8_0`) become unsigned by adding 128, which is taken off through the sum of
//! the activations.
//!
//! JUSTIFICATION: an instruction set that is found at run time can only be used through functions
//! compiled for it. [`Avx512`] is proof that the machine has it.
#![expect(unsafe_code, reason = "calls functions that are compiled for AVX-512")]
#![cfg_attr(
    emulated_avx512,
    allow(
        unused_unsafe,
        clippy::redundant_closure,
        clippy::used_underscore_items,
        reason = "what is emulated is safe, and names with underscores are the processor's"
    )
)]

mod packed;
mod registers;
mod small;
mod unpacked;

use super::drive::{Accumulator, Floats, Kernels, Rows, Tile};
use super::format::Format;
use super::pack::GROUP;
use super::panel::{self, Panel};
use crate::isa::{Isa, Kind};

/// Proof that this machine has AVX-512 F, BW, VL and VNNI.
#[derive(Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn new(isa: Isa) -> Self {
        assert!(isa.kind() == Kind::Avx512, "{isa} is not AVX-512");
        Self(())
    }
}

impl Kernels for Avx512 {
    fn unpack(&self, format: Format, packed: &[u8], panel: &mut Panel) {
        // SAFETY: `self` is proof of AVX-512.
        unsafe { unpack(format, packed, panel) }
    }

    fn widen(&self, format: Format, packed: &[u8], floats: &mut Floats) {
        // SAFETY: `self` is proof of AVX-512.
        unsafe { widen(format, packed, floats) }
    }

    fn packed<const ROWS: usize>(
        &self,
        format: Format,
        group: &[u8],
        input: Rows<'_>,
        out: &mut [Accumulator; ROWS],
    ) -> bool {
        // SAFETY: `self` is proof of AVX-512.
        unsafe {
            match format {
                Format::F32 => packed::f32(group, input, out),
                Format::F16 => packed::f16(group, input, out),
                Format::Bf16 => packed::bf16(group, input, out),
                Format::Q8_0 => packed::q8_0(group, input, out),
                Format::Q4_0 => small::q4_0(group, input, out),
                Format::Q4_1 => small::q4_1(group, input, out),
                Format::Q5_0 => small::q5_0(group, input, out),
                Format::Q5_1 => small::q5_1(group, input, out),
                Format::Q4K => packed::q4k(group, input, out),
                Format::Q5K => packed::q5k(group, input, out),
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
        // SAFETY: `self` is proof of AVX-512.
        unsafe {
            match format.sub_block_len() {
                32 => unpacked::super_block::<ROWS, 8>(format, panel, input, out),
                _ => unpacked::super_block::<ROWS, 4>(format, panel, input, out),
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
        // SAFETY: `self` is proof of AVX-512.
        unsafe { unpacked::small_blocks(format, panel, input, out) }
    }

    fn floats<const ROWS: usize>(
        &self,
        weights: &[[f32; GROUP]],
        input: Tile<'_>,
        out: &mut [Accumulator; ROWS],
    ) {
        // SAFETY: `self` is proof of AVX-512.
        unsafe { unpacked::floats(weights, input, out) }
    }
}

#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw,avx512vl"))]
fn unpack(format: Format, packed: &[u8], panel: &mut Panel) {
    panel.unpack(format, packed);
}

#[cfg_attr(not(emulated_avx512), target_feature(enable = "avx512f,avx512bw,avx512vl"))]
fn widen(format: Format, packed: &[u8], floats: &mut Floats) {
    panel::widen_columns(format, packed, floats);
}
