//! Rows on their way into matrices: normed, and as a matrix multiplies.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use commons_kernels::Isa;
use commons_kernels::activations::{ActivationKind, Activations};
use commons_kernels::matrix::Matrix;

use super::linear::Stack;
use super::{NormWeights, Rows};
use crate::team::Tiles;

/// Rows that some matrices will read.
#[derive(Debug)]
pub(super) struct Reader {
    rows: Rows,
    width: usize,
    norm: Option<Arc<NormWeights>>,
    /// The kinds that the matrices multiply: nearly always one.
    kinds: Vec<ActivationKind>,
}

/// A reader that prepares each block of rows once, when the first tile asks for it.
#[derive(Debug)]
pub(super) struct ReadyReader {
    reader: Reader,
    isa: Isa,
    block_len: usize,
    blocks: Vec<OnceLock<Block>>,
}

/// Rows in every kind that is asked for.
#[derive(Debug)]
pub(super) struct Block(Vec<(ActivationKind, Activations)>);

impl Block {
    /// The rows as this matrix multiplies.
    pub(super) fn of(&self, matrix: &Matrix) -> &Activations {
        let kind = matrix.format().activation_kind();
        let found = self.0.iter().find(|(known, _)| *known == kind);
        // The kinds are those of the stack that is read for.
        &found.unwrap_or(&self.0[0]).1
    }
}

impl Reader {
    /// Reads `rows` for a stack, behind a norm if there is one.
    pub(super) fn new(rows: &Rows, norm: Option<&Arc<NormWeights>>, stack: &Stack) -> Self {
        let mut kinds: Vec<ActivationKind> = Vec::with_capacity(1);
        let mut width = 0;
        for part in stack.parts() {
            let kind = part.matrix.format().activation_kind();
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
            width = part.matrix.columns();
        }
        Self { rows: Arc::clone(rows), width, norm: norm.cloned(), kinds }
    }

    /// How many rows there are.
    pub(super) fn row_count(&self) -> usize {
        self.rows.len() / self.width
    }

    /// Gets ready for these tiles. A single block is prepared at once: others would wait for whoever
    /// does it.
    pub(super) fn ready(self, tiles: &Tiles, isa: Isa) -> ReadyReader {
        let (block_len, count) = (tiles.row_len(), tiles.row_pieces());
        let blocks: Vec<OnceLock<Block>> = (0..count).map(|_| OnceLock::new()).collect();
        let ready = ReadyReader { reader: self, isa, block_len, blocks };
        if count == 1 {
            ready.block(&(0..ready.reader.row_count()));
        }
        ready
    }

    fn prepare(&self, isa: Isa, rows: &Range<usize>) -> Block {
        let rows = &self.rows[rows.start * self.width..rows.end * self.width];
        let normed = self.norm.as_ref().map(|norm| {
            let mut normed = vec![0.0; rows.len()];
            let pairs = rows.chunks_exact(self.width).zip(normed.chunks_exact_mut(self.width));
            pairs.for_each(|(row, out)| norm.apply(isa, row, out));
            normed
        });
        let rows = normed.as_deref().unwrap_or(rows);
        let in_kind = |&kind| {
            let activations = Activations::new(kind, self.width).and_then(|mut activations| {
                activations.set(isa, rows)?;
                Ok(activations)
            });
            (kind, activations.expect("matrices were packed with whole blocks"))
        };
        Block(self.kinds.iter().map(in_kind).collect())
    }
}

impl ReadyReader {
    /// The block of these rows, as a tile has them.
    pub(super) fn block(&self, rows: &Range<usize>) -> &Block {
        let block = &self.blocks[rows.start / self.block_len.max(1)];
        block.get_or_init(|| self.reader.prepare(self.isa, rows))
    }
}
