//! Adapters of low rank: many small products in one batch, each row with its own or with none.
//!
//! ```text
//! y = W x                          the base, for all rows at once (`matrix.rs`)
//! h = A x        rank numbers      [`shrink`], for the rows of one adapter at a time
//! y = (y + scale * (B h)) * f      [`expand`]; f is there for DoRA alone
//! ```
//!
//! E. J. Hu et al., "`LoRA`: Low-Rank Adaptation of Large Language Models", 2021. Rows that share an
//! adapter are a *segment* (L. Chen et al., "Punica: Multi-Tenant `LoRA` Serving", 2023): its weights
//! are read once for all of them. Segments may have any ranks and any formats.
//!
//! # The order of operations
//!
//! One row of weights and one row of numbers make four sums from zero, over the columns whose index
//! is 0, 1, 2, 3 modulo 4, each in ascending order: `sum = sum + w * x`, where `w` is widened
//! exactly (a number of `Q8_0` is `d * q`, which is exact too). The product is
//! `(sum0 + sum2) + (sum1 + sum3)`. Four chains, because one would wait for its own additions. Then
//! `y = y + scale * product`, and where there is a row factor `y = y * f`. Every operation is
//! rounded on its own.
//!
//! # Invariants
//!
//! * The bits of a row's result depend on that row and its adapter alone: not on the other rows, the
//!   range of outputs, the thread or the instruction set, nor on which factors were stacked with it.
//! * A packed factor has no more bits than the file, rows rounded up to sixteen; factors of several
//!   formats that are stacked are widened to `F32`, which changes no result.
//!
//! Not here: threads, files, which row has which adapter (the engine).

mod dora;
mod product;
mod round;

use std::fmt;
use std::ops::Range;

use half::f16;

use crate::Isa;
use crate::lanes::{LANES, Upper};
use crate::matrix::Format;
use product::{Finish, Job};

pub use dora::RowFactors;

/// The largest rank: what published adapters have at most.
pub const RANK_MAX: usize = 256;

/// Numbers in a block of `Q8_0`.
const BLOCK: usize = 32;

/// Bytes of a block of `Q8_0`: a scale and 32 small integers.
const BLOCK_SIZE: usize = 34;

/// One matrix of an adapter, packed: `A`, of one site or of several that read the same rows, or `B`.
///
/// Sixteen rows lie side by side: the numbers of one column are one vector register's lanes.
pub struct Factor {
    rows: usize,
    columns: usize,
    numbers: Numbers,
}

/// For each group of sixteen rows, for each column, the numbers of the sixteen rows.
enum Numbers {
    F32(Vec<[f32; LANES]>),
    F16(Vec<[u16; LANES]>),
    Bf16(Vec<[Upper; LANES]>),
    /// Small integers, and for each 32 columns the scales of the sixteen rows.
    Q8 {
        quants: Vec<[i8; LANES]>,
        scales: Vec<[u16; LANES]>,
    },
}

/// Rows of a file that become a [`Factor`], or a part of one.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// How the numbers are stored: `F32`, `F16`, `BF16` or `Q8_0`.
    pub format: Format,
    /// How many rows.
    pub rows: usize,
    /// The rows, one behind the other.
    pub bytes: &'a [u8],
}

/// Why there can be no such factor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum AdaptError {
    #[error("adapters are F32, F16, BF16 or Q8_0, not {format}: convert this one")]
    Format { format: Format },

    #[error("a row of {columns} numbers cannot be split into blocks of 32 (Q8_0)")]
    PartialBlock { columns: usize },

    #[error("{rows} rows of {columns} numbers are more than this machine can address")]
    TooLarge { rows: usize, columns: usize },

    #[error("{rows} rows of {columns} numbers as {format} take {expected} bytes, not {got}")]
    WrongSize { format: Format, rows: usize, columns: usize, expected: usize, got: usize },
}

/// The rows of one segment, inside a matrix of rows of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The rows of the matrix, one behind the other.
    pub values: &'a [f32],
    /// Numbers in each of its rows.
    pub stride: usize,
    /// Where the numbers that are read begin in a row.
    pub first: usize,
    /// Which row of the batch is the first of `values`.
    pub first_row: usize,
    /// Which rows of the batch, none of them before `first_row`.
    pub rows: &'a [usize],
}

/// Where results go: a tile of a matrix of rows of a batch, row after row.
#[derive(Debug)]
pub struct Tile<'a> {
    /// The tile's numbers.
    pub values: &'a mut [f32],
    /// Numbers in each of its rows.
    pub stride: usize,
    /// Which row of the batch is its first.
    pub first_row: usize,
}

/// `B` of one site, and what its outputs are multiplied by.
#[derive(Clone, Copy, Debug)]
pub struct Up<'a> {
    /// `B`: a row for each output, a column for each rank.
    pub factor: &'a Factor,
    /// What the product is multiplied by: `alpha / rank` or `alpha / sqrt(rank)`.
    pub scale: f32,
    /// For `DoRA`, what each output is multiplied by at the end: see [`RowFactors`].
    pub row_factors: Option<&'a [f32]>,
}

/// Writes `A x` for the rows of a segment: those rows of `A` that `outputs` names, to the tile's
/// columns from 0 on. `outputs` starts at a multiple of 16.
///
/// # Panics
///
/// If shapes do not fit.
pub fn shrink(isa: Isa, down: &Factor, input: Rows<'_>, outputs: Range<usize>, out: Tile<'_>) {
    run(isa, Job { factor: down, input, outputs, out, finish: Finish::Store });
}

/// Adds `scale * (B h)` to the rows of a segment, for the outputs `outputs`, which lie in the tile's
/// columns from 0 on; then multiplies by the row factors. `outputs` starts at a multiple of 16.
///
/// # Panics
///
/// If shapes do not fit.
pub fn expand(isa: Isa, up: Up<'_>, hidden: Rows<'_>, outputs: Range<usize>, out: Tile<'_>) {
    if let Some(factors) = up.row_factors {
        assert_eq!(factors.len(), up.factor.rows, "a row factor for each output");
    }
    let finish = Finish::Add { scale: up.scale, row_factors: up.row_factors };
    run(isa, Job { factor: up.factor, input: hidden, outputs, out, finish });
}

fn run(isa: Isa, job: Job<'_>) {
    let (outputs, columns) = (&job.outputs, job.factor.columns);
    assert!(outputs.start.is_multiple_of(LANES), "outputs start at {}", outputs.start);
    let is_inside = outputs.start <= outputs.end && outputs.end <= job.factor.rows;
    assert!(is_inside, "{outputs:?} of {}", job.factor.rows);
    assert!(outputs.len() <= job.out.stride, "{outputs:?} in rows of {}", job.out.stride);
    assert!(
        job.input.first + columns <= job.input.stride,
        "{columns} numbers from {} in rows of {}",
        job.input.first,
        job.input.stride
    );
    product::run(isa, job);
}

impl Factor {
    /// Packs the rows of a file.
    pub fn pack(source: Source<'_>, columns: usize) -> Result<Self, AdaptError> {
        Self::stack(&[source], columns)
    }

    /// Packs rows of several matrices that read the same numbers, one below the other: `A` of
    /// queries, keys and values, of gate and up. So small ranks fill the lanes together.
    pub fn stack(parts: &[Source<'_>], columns: usize) -> Result<Self, AdaptError> {
        for part in parts {
            part.check(columns)?;
        }
        let rows = parts.iter().try_fold(0, |rows: usize, part| rows.checked_add(part.rows));
        let lines = rows.and_then(|rows| {
            let lines = rows.div_ceil(LANES).checked_mul(columns)?;
            lines.checked_mul(LANES * 4).filter(|&size| isize::try_from(size).is_ok())?;
            Some(lines)
        });
        let (Some(rows), Some(lines)) = (rows, lines) else {
            return Err(AdaptError::TooLarge { rows: rows.unwrap_or(usize::MAX), columns });
        };
        let format = parts.first().map_or(Format::F32, |part| part.format);
        let is_one = parts.iter().all(|part| part.format == format);
        let mut numbers = Numbers::zeroed(if is_one { format } else { Format::F32 }, lines);
        let sources = parts.iter().flat_map(|part| {
            let size = part.bytes.len() / part.rows.max(1);
            part.bytes.chunks_exact(size.max(1)).map(|bytes| (part.format, bytes))
        });
        if columns > 0 {
            for (row, (format, bytes)) in sources.enumerate() {
                numbers.set_row((row / LANES * columns, row % LANES), format, bytes);
            }
        }
        Ok(Self { rows, columns, numbers })
    }

    /// How many rows it has: how many numbers come out of a product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many numbers a row has.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How its numbers are stored.
    pub fn format(&self) -> Format {
        match self.numbers {
            Numbers::F32(_) => Format::F32,
            Numbers::F16(_) => Format::F16,
            Numbers::Bf16(_) => Format::Bf16,
            Numbers::Q8 { .. } => Format::Q8_0,
        }
    }

    /// How many bytes the packed rows take.
    pub fn size_bytes(&self) -> usize {
        match &self.numbers {
            Numbers::F32(lines) => size_of_val(lines.as_slice()),
            Numbers::F16(lines) => size_of_val(lines.as_slice()),
            Numbers::Bf16(lines) => size_of_val(lines.as_slice()),
            Numbers::Q8 { quants, scales } => {
                size_of_val(quants.as_slice()) + size_of_val(scales.as_slice())
            }
        }
    }

    /// The numbers of one row, exactly.
    ///
    /// # Panics
    ///
    /// If there is no such row.
    pub fn dequantise_row(&self, row: usize) -> Vec<f32> {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        let (first, lane) = (row / LANES * self.columns, row % LANES);
        let at = first..first + self.columns;
        match &self.numbers {
            Numbers::F32(lines) => lines[at].iter().map(|line| line[lane]).collect(),
            Numbers::F16(lines) => lines[at].iter().map(|line| widen_f16(line[lane])).collect(),
            Numbers::Bf16(lines) => lines[at].iter().map(|line| widen_bf16(line[lane].0)).collect(),
            Numbers::Q8 { quants, scales } => at
                .map(|at| widen_f16(scales[at / BLOCK][lane]) * f32::from(quants[at][lane]))
                .collect(),
        }
    }
}

impl fmt::Debug for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Factor({} rows of {} as {})", self.rows, self.columns, self.format())
    }
}

impl Source<'_> {
    fn check(&self, columns: usize) -> Result<(), AdaptError> {
        let Self { format, rows, bytes } = *self;
        let row_size = match format {
            Format::F32 => columns.checked_mul(4),
            Format::F16 | Format::Bf16 => columns.checked_mul(2),
            Format::Q8_0 if !columns.is_multiple_of(BLOCK) => {
                return Err(AdaptError::PartialBlock { columns });
            }
            Format::Q8_0 => (columns / BLOCK).checked_mul(BLOCK_SIZE),
            _ => return Err(AdaptError::Format { format }),
        };
        let Some(expected) = row_size.and_then(|size| size.checked_mul(rows)) else {
            return Err(AdaptError::TooLarge { rows, columns });
        };
        let got = bytes.len();
        if got == expected {
            return Ok(());
        }
        Err(AdaptError::WrongSize { format, rows, columns, expected, got })
    }
}

impl Numbers {
    fn zeroed(format: Format, lines: usize) -> Self {
        match format {
            Format::F16 => Self::F16(vec![[0; LANES]; lines]),
            Format::Bf16 => Self::Bf16(vec![[Upper(0); LANES]; lines]),
            Format::Q8_0 => Self::Q8 {
                quants: vec![[0; LANES]; lines],
                scales: vec![[0; LANES]; lines / BLOCK],
            },
            _ => Self::F32(vec![[0.0; LANES]; lines]),
        }
    }

    /// Sets one lane of the lines from `first` on. The format is this one, or this is `F32`.
    fn set_row(&mut self, (first, lane): (usize, usize), format: Format, bytes: &[u8]) {
        let (pairs, _) = bytes.as_chunks::<2>();
        let halves = pairs.iter().map(|&pair| u16::from_le_bytes(pair));
        match self {
            Self::F16(lines) => halves.zip(&mut lines[first..]).for_each(|(x, to)| to[lane] = x),
            Self::Bf16(lines) => {
                halves.zip(&mut lines[first..]).for_each(|(x, to)| to[lane] = Upper(x));
            }
            Self::Q8 { quants, scales } => {
                let blocks = bytes.chunks_exact(BLOCK_SIZE).zip(&mut scales[first / BLOCK..]);
                for (index, (block, scale)) in blocks.enumerate() {
                    scale[lane] = u16::from_le_bytes([block[0], block[1]]);
                    let lines = &mut quants[first + index * BLOCK..];
                    let small = block[2..].iter().map(|byte| byte.cast_signed());
                    small.zip(lines).for_each(|(x, to)| to[lane] = x);
                }
            }
            Self::F32(lines) => {
                let lines = &mut lines[first..];
                widen_row(format, bytes).zip(lines).for_each(|(x, to)| to[lane] = x);
            }
        }
    }
}

/// The numbers of a row of a file, exactly.
fn widen_row(format: Format, bytes: &[u8]) -> Box<dyn Iterator<Item = f32> + '_> {
    let (words, _) = bytes.as_chunks::<4>();
    let (pairs, _) = bytes.as_chunks::<2>();
    let halves = pairs.iter().map(|&pair| u16::from_le_bytes(pair));
    match format {
        Format::F16 => Box::new(halves.map(widen_f16)),
        Format::Bf16 => Box::new(halves.map(widen_bf16)),
        Format::Q8_0 => Box::new(bytes.chunks_exact(BLOCK_SIZE).flat_map(|block| {
            let scale = widen_f16(u16::from_le_bytes([block[0], block[1]]));
            block[2..].iter().map(move |byte| scale * f32::from(byte.cast_signed()))
        })),
        _ => Box::new(words.iter().map(|&word| f32::from_le_bytes(word))),
    }
}

fn widen_f16(bits: u16) -> f32 {
    f16::from_bits(bits).to_f32()
}

fn widen_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests;
