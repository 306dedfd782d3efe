//! Adapters in the forward pass of the processor: what rows with adapters add to a product.
//!
//! ```text
//! a job of its own:       rows behind the norm, not quantised -> hidden rows, of the adapters' ranks
//! the job of the product: a tile of outputs + what the hidden rows make of it, then the bias
//! ```
//!
//! The rows of one batch may have any adapters, or none; what a row gets depends on its own alone.
//! Not here: the arithmetic (`commons_kernels::adapt`), which row has which (`adapter/mix.rs`).

use std::sync::Arc;

use commons_kernels::Isa;

use super::linear::{self, Stack};
use super::{NormWeights, Rows};
use crate::adapter::{Group, Input, Mix};
use crate::team::{Team, Tile};

/// Matrices that adapters may change, and the adapters of the batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site<'a> {
    pub(super) mix: &'a Arc<Mix>,
    pub(super) layer: usize,
    pub(super) group: Group,
}

/// What the adapters of a batch made of the rows that a stack reads.
#[derive(Debug)]
pub(super) struct Hidden {
    mix: Arc<Mix>,
    place: (usize, Group),
    rows: Vec<f32>,
}

/// Rows as a stack reads them: behind the norm already if there are hidden rows.
#[derive(Debug)]
pub(super) struct Adapted {
    pub(super) rows: Rows,
    pub(super) norm: Option<Arc<NormWeights>>,
    pub(super) hidden: Option<Hidden>,
}

impl Adapted {
    /// Shrinks the rows that have adapters at this site: one job, or nothing to do.
    pub(super) fn new(
        team: &mut Team,
        stack: &Stack,
        (rows, norm): (&Rows, Option<&Arc<NormWeights>>),
        site: Option<Site<'_>>,
    ) -> Self {
        let shrunk = site.map(|site| (site, site.mix.width(site.layer, site.group)));
        let Some((site, hidden_width)) = shrunk.filter(|(_, width)| *width > 0) else {
            return Self { rows: Arc::clone(rows), norm: norm.cloned(), hidden: None };
        };
        let (isa, width) = (team.isa(), stack.inputs());
        let rows = match norm {
            Some(norm) => Arc::new(norm.apply_rows(isa, rows, width)),
            None => Arc::clone(rows),
        };
        let tiles = linear::cut_hidden(rows.len() / width, hidden_width, team.threads());
        let (mix, values, place) =
            (Arc::clone(site.mix), Arc::clone(&rows), (site.layer, site.group));
        let hidden = team.run(tiles, move |tile, out, _| {
            let from = &values[tile.rows.start * width..tile.rows.end * width];
            let input = Input { values: from, width, first_row: tile.rows.start };
            mix.shrink(isa, place, input, tile, out);
        });
        let hidden = Hidden { mix: Arc::clone(site.mix), place, rows: hidden };
        Self { rows, norm: None, hidden: Some(hidden) }
    }
}

impl Hidden {
    /// Adapts a tile of the outputs of one matrix of the stack. The tile's columns are the matrix's.
    pub(super) fn expand(&self, isa: Isa, part: usize, tile: &Tile, values: &mut [f32]) {
        let (layer, group) = self.place;
        self.mix.expand(isa, (layer, group, part), &self.rows, tile, values);
    }
}
