//! Which rows of a batch have which adapter, and what a tile of the forward pass makes of it.
//!
//! ```text
//! a batch:   Mix::new(one adapter or none for each row)
//! a group:   a job of `width` columns whose tiles call `shrink`        -> hidden rows
//!            the job of the product; its tiles call `expand` behind    -> adapted outputs
//! ```
//!
//! # Invariants
//!
//! * A row without an adapter, and a matrix that no adapter changes, are not touched.

use std::ops::Range;
use std::sync::Arc;

use commons_kernels::Isa;
use commons_kernels::adapt::{self, Rows};

use super::{Adapter, Group, Stack};
use crate::team::Tile;

/// The adapters of a batch.
#[derive(Debug, Default)]
pub struct Mix {
    segments: Vec<Segment>,
}

/// The rows of one adapter, in ascending order.
#[derive(Debug)]
struct Segment {
    adapter: Arc<Adapter>,
    rows: Vec<usize>,
}

impl Segment {
    fn rows_in(&self, rows: &Range<usize>) -> &[usize] {
        let start = self.rows.partition_point(|&row| row < rows.start);
        let end = self.rows.partition_point(|&row| row < rows.end);
        &self.rows[start..end]
    }
}

/// Rows that are read, beginning with one of the batch.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The rows.
    pub values: &'a [f32],
    /// Numbers in each.
    pub width: usize,
    /// Which row of the batch is the first.
    pub first_row: usize,
}

impl Mix {
    /// The adapters of a batch: one or none for each row.
    pub fn new(owners: impl IntoIterator<Item = Option<Arc<Adapter>>>) -> Self {
        let mut segments: Vec<Segment> = Vec::new();
        let mut last = 0;
        for (row, owner) in owners.into_iter().enumerate() {
            let Some(adapter) = owner else { continue };
            let is_same = |segment: &Segment| Arc::ptr_eq(&segment.adapter, &adapter);
            // Rows of one sequence follow each other.
            let found = match segments.get(last) {
                Some(segment) if is_same(segment) => Some(last),
                _ => segments.iter().position(is_same),
            };
            last = found.unwrap_or(segments.len());
            match found {
                Some(index) => segments[index].rows.push(row),
                None => segments.push(Segment { adapter, rows: vec![row] }),
            }
        }
        Self { segments }
    }

    /// Whether no row has an adapter.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Numbers in a hidden row of a group: the columns of the job that shrinks. 0 where no adapter
    /// of the batch changes the group: then there is nothing to do.
    pub fn width(&self, layer: usize, group: Group) -> usize {
        let stacks = self.segments.iter().filter_map(|it| it.adapter.stack(layer, group));
        stacks.map(|stack| stack.down.rows()).max().unwrap_or(0)
    }

    /// Computes a tile of the hidden rows of a group from what its matrices read: rows behind the
    /// norm, not quantised. The tile's columns begin at a multiple of 16. Numbers that no adapter has
    /// are left as they are, and never read.
    ///
    /// # Panics
    ///
    /// If `input` does not have the tile's rows, or not the width of the base.
    pub fn shrink(
        &self,
        isa: Isa,
        (layer, group): (usize, Group),
        input: Input<'_>,
        tile: &Tile,
        values: &mut [f32],
    ) {
        for (segment, stack) in self.stacks(layer, group) {
            let rows = segment.rows_in(&tile.rows);
            let outputs = tile.columns.start..tile.columns.end.min(stack.down.rows());
            if rows.is_empty() || outputs.is_empty() {
                continue;
            }
            let Input { values: from, width: stride, first_row } = input;
            let input = Rows { values: from, stride, first: 0, first_row, rows };
            let (stride, first_row) = (tile.columns.len(), tile.rows.start);
            let out = adapt::Tile { values: &mut *values, stride, first_row };
            adapt::shrink(isa, &stack.down, input, outputs, out);
        }
    }

    /// Adapts a tile of the outputs of one matrix of a group: between the product and its bias.
    /// `hidden` has [`Self::width`] numbers for each row of the batch; the tile's columns are
    /// outputs of this matrix and begin at a multiple of 16.
    ///
    /// # Panics
    ///
    /// If `hidden` does not have the tile's rows, or the columns are not the matrix's.
    pub fn expand(
        &self,
        isa: Isa,
        (layer, group, part): (usize, Group, usize),
        hidden: &[f32],
        tile: &Tile,
        values: &mut [f32],
    ) {
        let stride = self.width(layer, group);
        for (segment, stack) in self.stacks(layer, group) {
            let Some(Some(part)) = stack.parts.get(part) else { continue };
            let rows = segment.rows_in(&tile.rows);
            if rows.is_empty() {
                continue;
            }
            let input = Rows { values: hidden, stride, first: part.first, first_row: 0, rows };
            let (stride, first_row) = (tile.columns.len(), tile.rows.start);
            let out = adapt::Tile { values: &mut *values, stride, first_row };
            adapt::expand(isa, part.up(), input, tile.columns.clone(), out);
        }
    }

    fn stacks(&self, layer: usize, group: Group) -> impl Iterator<Item = (&Segment, &Stack)> {
        self.segments.iter().filter_map(move |it| Some((it, it.adapter.stack(layer, group)?)))
    }
}
