//! Matrices, and the job that multiplies rows with several of them.

use std::ops::Range;
use std::sync::Arc;

use commons_kernels::matrix::Matrix;
use commons_kernels::{Isa, norm};

use super::Rows;
use super::adapted::Hidden;
use super::reader::{Block, Reader};
use crate::team::{Team, Tile, Tiles};

/// Rows of a batch up to which a job is cut along the outputs only: decode. Every thread then
/// streams its part of the weights once for all rows.
const DECODE_ROWS_MAX: usize = 32;

/// Rows that are multiplied at once where there are more: their activations stay in the cache of
/// one core while the weights stream by.
const BLOCK_ROWS: usize = 64;

/// Tiles for each thread: enough that a slow one leaves little behind, few enough that taking one
/// costs nothing.
const TILES_PER_THREAD: usize = 8;

/// Outputs in the smallest tile, in groups of sixteen. Below, a thread's turn is shorter than what
/// it takes to share it.
const TILE_COLUMNS_MIN: usize = 64;

/// A matrix and, in some files, what is added to its outputs.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    pub(super) matrix: Arc<Matrix>,
    pub(super) bias: Option<Arc<Vec<f32>>>,
}

/// Matrices that read the same rows. Their outputs lie side by side.
#[derive(Debug)]
pub(super) struct Stack {
    parts: Vec<Linear>,
}

/// What a tile of a product is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product<'a> {
    pub(super) isa: Isa,
    pub(super) block: &'a Block,
    pub(super) hidden: Option<&'a Hidden>,
}

impl Linear {
    /// The matrix's own output rows.
    fn multiply(&self, product: Product<'_>, outputs: Range<usize>, values: &mut [f32]) {
        self.matrix.multiply(product.isa, product.block.of(&self.matrix), outputs, values);
    }

    fn add_bias(&self, isa: Isa, outputs: &Range<usize>, values: &mut [f32]) {
        if let Some(bias) = &self.bias {
            for row in values.chunks_exact_mut(outputs.len()) {
                norm::add(isa, row, &bias[outputs.clone()]);
            }
        }
    }

    /// Numbers that come out for each row.
    pub(super) fn outputs(&self) -> usize {
        self.matrix.rows()
    }
}

impl Stack {
    pub(super) fn new(parts: Vec<Linear>) -> Self {
        Self { parts }
    }

    /// The matrices.
    pub(super) fn parts(&self) -> &[Linear] {
        &self.parts
    }

    /// Outputs of each matrix.
    pub(super) fn widths(&self) -> Vec<usize> {
        self.parts.iter().map(Linear::outputs).collect()
    }

    /// Numbers in a row that the matrices read.
    pub(super) fn inputs(&self) -> usize {
        self.parts[0].matrix.columns()
    }

    /// The matrix that makes these outputs of the stack, and which of its own they are.
    fn locate(&self, columns: &Range<usize>) -> (usize, Range<usize>) {
        let mut start = 0;
        for (index, part) in self.parts.iter().enumerate() {
            let end = start + part.outputs();
            if columns.end <= end {
                return (index, columns.start - start..columns.end - start);
            }
            start = end;
        }
        unreachable!("tiles end where a part ends");
    }

    /// A tile of one matrix: its columns are the matrix's own outputs. Each row is adapted by its
    /// adapter, if it has one, before the bias is added.
    pub(super) fn multiply(
        &self,
        part: usize,
        product: Product<'_>,
        tile: &Tile,
        values: &mut [f32],
    ) {
        let linear = &self.parts[part];
        linear.multiply(product, tile.columns.clone(), values);
        if let Some(hidden) = product.hidden {
            hidden.expand(product.isa, part, tile, values);
        }
        linear.add_bias(product.isa, &tile.columns, values);
    }

    /// Bytes of all matrices.
    pub(super) fn size_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.matrix.size_bytes()).sum()
    }
}

/// How a product of `rows` rows is cut.
pub(super) fn cut(rows: usize, parts: &[usize], threads: usize) -> Tiles {
    let row_len = if rows <= DECODE_ROWS_MAX { rows } else { BLOCK_ROWS };
    let row_pieces = rows.div_ceil(row_len.max(1)).max(1);
    let wanted = if threads == 1 { 1 } else { (threads * TILES_PER_THREAD).div_ceil(row_pieces) };
    let total: usize = parts.iter().sum();
    let column_len = total.div_ceil(wanted).max(TILE_COLUMNS_MIN).next_multiple_of(16);
    Tiles::new(rows, row_len, parts, column_len)
}

/// How hidden rows are cut: they are few and narrow.
pub(super) fn cut_hidden(rows: usize, width: usize, threads: usize) -> Tiles {
    let row_len = if rows <= DECODE_ROWS_MAX { rows } else { BLOCK_ROWS };
    let column_len = if threads == 1 || rows > row_len { width.next_multiple_of(16) } else { 16 };
    Tiles::new(rows, row_len, &[width], column_len)
}

/// `rows x stack`, with `onto` added if there is one: one job.
pub(super) fn project(
    team: &mut Team,
    stack: &Arc<Stack>,
    (reader, hidden): (Reader, Option<Hidden>),
    onto: Option<Rows>,
) -> Vec<f32> {
    let tiles = cut(reader.row_count(), &stack.widths(), team.threads());
    let (isa, stack, width) = (team.isa(), Arc::clone(stack), tiles.column_count());
    let reader = reader.ready(&tiles, isa);
    team.run(tiles, move |tile, values, _| {
        let (part, columns) = stack.locate(&tile.columns);
        let product = Product { isa, block: reader.block(&tile.rows), hidden: hidden.as_ref() };
        let own = Tile { rows: tile.rows.clone(), columns };
        stack.multiply(part, product, &own, values);
        if let Some(onto) = &onto {
            add_tile(isa, onto, width, tile, values);
        }
    })
}

/// Adds the same tile of `rows` to a tile's values.
fn add_tile(isa: Isa, rows: &[f32], width: usize, tile: &Tile, values: &mut [f32]) {
    for (row, values) in tile.rows.clone().zip(values.chunks_exact_mut(tile.columns.len())) {
        let from = &rows[row * width..][tile.columns.clone()];
        norm::add(isa, values, from);
    }
}
