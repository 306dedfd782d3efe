//! Products with 128-bit registers: 4 rows of weights in a register, up to 4 rows of activations
//! at a time.
//!
//! Here are the integer sums only. What is done once for each block, and all that is done with
//! floating point numbers, is the plain code of `scalar.rs`: 64-bit ARM always has NEON, so the
//! compiler makes vector instructions of it.
//!
//! Not here: intrinsics (`neon/sums.rs`).

mod sums;

use super::drive::{Accumulator, Floats, Kernels, Tile};
use super::format::Format;
use super::pack::GROUP;
use super::panel::{self, Panel};
use super::scalar;
use crate::isa::{Isa, Kind};

/// Proof that this machine has NEON.
#[derive(Debug)]
pub(super) struct Neon(());

impl Neon {
    pub(super) fn new(isa: Isa) -> Self {
        assert!(isa.kind() == Kind::Neon, "{isa} is not NEON");
        Self(())
    }
}

impl Kernels for Neon {
    fn unpack(&self, format: Format, packed: &[u8], panel: &mut Panel) {
        panel.unpack(format, packed);
    }

    fn widen(&self, format: Format, packed: &[u8], floats: &mut Floats) {
        panel::widen_columns(format, packed, floats);
    }

    fn super_block<const ROWS: usize>(
        &self,
        format: Format,
        panel: &Panel,
        input: Tile<'_>,
        out: &mut [Accumulator; ROWS],
    ) {
        let input = input.super_block::<ROWS>();
        let quants = input.map(|input| input.quants);
        let sums = match format.sub_block_len() {
            32 => sums::scaled::<ROWS, 8>(&panel.quants, &panel.scales, quants),
            _ => sums::scaled::<ROWS, 4>(&panel.quants, &panel.scales, quants),
        };
        for row in 0..ROWS {
            scalar::finish_super_block(format, panel, &input[row], sums[row], &mut out[row]);
        }
    }

    fn small_blocks<const ROWS: usize>(
        &self,
        format: Format,
        panel: &Panel,
        input: Tile<'_>,
        out: &mut [Accumulator; ROWS],
    ) {
        let input = input.small_blocks::<ROWS>();
        for (block, lines) in panel.quants.as_chunks::<8>().0.iter().enumerate() {
            if block >= input[0].quants.len() {
                break;
            }
            let quants = input.map(|input| &input.quants[block]);
            let sums = match format {
                Format::Q8_0 => sums::signed(lines, quants),
                _ => sums::unsigned(lines, quants),
            };
            for row in 0..ROWS {
                let input = (&input[row], block);
                scalar::finish_small_block(format, panel, input, sums[row], &mut out[row]);
            }
        }
    }

    fn floats<const ROWS: usize>(
        &self,
        weights: &[[f32; GROUP]],
        input: Tile<'_>,
        out: &mut [Accumulator; ROWS],
    ) {
        scalar::floats(weights, input.floats::<ROWS>(), out);
    }
}
