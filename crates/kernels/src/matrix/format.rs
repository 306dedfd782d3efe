//! How the numbers of a weight matrix are stored: the block layouts of GGUF files.
//!
//! A row is a sequence of blocks. A block holds 16-bit head numbers (its scale, and for some its
//! minimum) and 32-bit words. The packed form of 16 rows keeps exactly these: see `pack.rs`.
//!
//! Not here: what the words mean (`panel.rs`).

use std::fmt;

use crate::activations::ActivationKind;

/// How the numbers of a matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are those of the file format")]
pub enum Format {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

/// Where the parts of one block lie in a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Byte offsets of the 16-bit head numbers.
    pub(crate) heads: &'static [usize],
    /// Byte offset of the first 32-bit word.
    pub(crate) words_at: usize,
    /// How many words there are.
    pub(crate) words: usize,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 13] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q8_0,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// The name people know the format by.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// How many numbers one block holds.
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// How many bytes one block takes.
    pub fn block_size(self) -> usize {
        let layout = self.layout();
        2 * layout.heads.len() + 4 * layout.words
    }

    /// The form that the other operand of a product must have.
    pub fn activation_kind(self) -> ActivationKind {
        match self.block_len() {
            1 => ActivationKind::Floats,
            32 => ActivationKind::Blocks32,
            _ => ActivationKind::Blocks256,
        }
    }

    pub(crate) fn layout(self) -> Layout {
        let (heads, words_at, words): (&[usize], _, _) = match self {
            Self::F32 => (&[], 0, 1),
            Self::F16 | Self::Bf16 => (&[0], 2, 0),
            Self::Q8_0 => (&[0], 2, 8),
            Self::Q4_0 => (&[0], 2, 4),
            Self::Q4_1 => (&[0, 2], 4, 4),
            Self::Q5_0 => (&[0], 2, 5),
            Self::Q5_1 => (&[0, 2], 4, 5),
            Self::Q2K => (&[80, 82], 0, 20),
            Self::Q3K => (&[108], 0, 27),
            Self::Q4K => (&[0, 2], 4, 35),
            Self::Q5K => (&[0, 2], 4, 43),
            Self::Q6K => (&[208], 0, 52),
        };
        Layout { heads, words_at, words }
    }

    /// How many numbers share an integer scale.
    pub(crate) fn sub_block_len(self) -> usize {
        match self {
            Self::Q2K | Self::Q3K | Self::Q6K => 16,
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            _ => 32,
        }
    }

    /// What is subtracted from a stored number before it is scaled.
    pub(crate) fn zero(self) -> i16 {
        match self {
            Self::Q3K => 4,
            Self::Q4_0 => 8,
            Self::Q5_0 => 16,
            Self::Q6K => 32,
            _ => 0,
        }
    }

    /// Whether a block adds a minimum of its own to each number.
    pub(crate) fn has_minimum(self) -> bool {
        matches!(self, Self::Q4_1 | Self::Q5_1 | Self::Q2K | Self::Q4K | Self::Q5K)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
