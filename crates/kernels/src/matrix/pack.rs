//! From the rows of a file to groups of 16 interleaved rows.
//!
//! The packed form of one block of 16 rows, with the parts that [`Layout`] names, is
//!
//! * per head number, 16 two-byte numbers: one of each row;
//! * per 32-bit word, a line of 64 bytes: the word of each row, row after row.
//!
//! So a line holds 16 rows times 4 consecutive bytes of the block: what a 512-bit register takes
//! at once, a 256-bit one in two halves and a 128-bit one in four quarters. The blocks of a group
//! follow each other, then comes the next group. Every bit of the file is there once, and only
//! one word is changed on the way: see [`regroup_fifth_bits`]. Rows beyond the last are zero.
//!
//! Not here: what the bytes mean (`panel.rs`).

use super::format::{Format, Layout};

/// How many rows are interleaved.
pub(crate) const GROUP: usize = 16;

/// Packs up to [`GROUP`] rows into a group whose bytes are zero.
///
/// `source` holds the rows as a file does, and their count follows from its length.
pub(super) fn pack_group(format: Format, row_size: usize, source: &[u8], group: &mut [u8]) {
    let (layout, size) = (format.layout(), format.block_size());
    for (row, bytes) in source.chunks_exact(row_size).take(GROUP).enumerate() {
        let blocks = bytes.chunks_exact(size).zip(group.chunks_exact_mut(size * GROUP));
        for (block, packed) in blocks {
            pack_block(format, layout, block, row, packed);
        }
    }
}

fn pack_block(format: Format, layout: Layout, block: &[u8], row: usize, packed: &mut [u8]) {
    let (heads, lines) = packed.split_at_mut(2 * GROUP * layout.heads.len());
    for (&at, head) in layout.heads.iter().zip(heads.chunks_exact_mut(2 * GROUP)) {
        head[2 * row..2 * row + 2].copy_from_slice(&block[at..at + 2]);
    }
    let (words, _) = block[layout.words_at..].as_chunks::<4>();
    let (lines, _) = lines.as_chunks_mut::<64>();
    for (word, line) in words.iter().zip(lines.iter_mut()) {
        line[4 * row..4 * row + 4].copy_from_slice(word);
    }
    if let (Format::Q5_0 | Format::Q5_1, Some(first)) = (format, lines.first_mut()) {
        let fifth_bits = &mut first[4 * row..4 * row + 4];
        fifth_bits.copy_from_slice(&regroup_fifth_bits(words[0]));
    }
}

/// Bit `k` of the file's word goes to byte `k % 4`, bit `k / 4`.
///
/// So the fifth bits of four consecutive numbers lie in the same bit of four bytes, as their
/// other bits do in the nibbles.
fn regroup_fifth_bits(word: [u8; 4]) -> [u8; 4] {
    let word = u32::from_le_bytes(word);
    let mut bytes = [0; 4];
    for k in 0..32 {
        bytes[k % 4] |= u8::from(word >> k & 1 == 1) << (k / 4);
    }
    bytes
}
