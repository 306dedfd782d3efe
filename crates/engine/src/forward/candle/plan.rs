//! What the layers of a device look up for a batch: slots, turns, and who sees whom.
//!
//! Rows of one sequence are a tile. Tiles of like sizes are a group: one lookup of keys and values,
//! one product, with rows and positions filled up to the largest of the group. What is filled up is
//! masked, or made for nobody.
//!
//! Not here: which positions a row sees ([`Batch::span`]), and how pairs turn ([`Batch::turns`]).

use std::ops::Range;

use candle_core::{Device, Result, Tensor};
use commons_kernels::rope::Turns;

use super::super::attention::Batch;
use crate::cache::PAGE_LEN;
use crate::settings::Settings;

/// Numbers that are looked up or scored at once: 256 MiB of them. Some steps make new ones of all of
/// them, so three times as much can be in use; `room.rs` leaves it free. One row that sees more than
/// that is computed all the same: what its pages take in all layers is more, and as much is free.
const NUMBERS_MAX: usize = 1 << 26;

/// What all layers share about the rows of a batch.
#[derive(Debug)]
pub(in super::super) struct Plan {
    batch: Batch,
    /// The slot of each row.
    slots: Vec<u32>,
    /// The same, for each number of a store's row: made by the first layer.
    targets: Option<Tensor>,
    /// For each rope, cosines and sines: `[rows, pairs]`.
    turns: Vec<[Tensor; 2]>,
    /// Groups, for each window that a layer has: made by the first layer of it.
    views: Vec<(Option<usize>, View)>,
}

/// Who sees whom through one window.
#[derive(Debug)]
pub(super) struct View {
    pub(super) groups: Vec<Group>,
    /// For each row of the batch, where the groups have it; none where they have it in order.
    pub(super) order: Option<Tensor>,
}

/// Tiles that are computed together.
#[derive(Debug)]
pub(super) struct Group {
    /// `[tiles, rows, positions]`
    pub(super) shape: (usize, usize, usize),
    /// The row of the batch that each row of the group is.
    pub(super) rows: Tensor,
    /// The slot of each position of each tile.
    pub(super) slots: Tensor,
    /// Zero where a row sees a position, else minus infinity: `[1, tiles, rows, 1, positions]`.
    pub(super) mask: Tensor,
}

/// What a tile of `rows` rows that see `len` positions takes: a score for each head and row, and the
/// keys and values, for each position.
#[derive(Clone, Copy, Debug)]
struct Cost {
    heads: usize,
    kv_width: usize,
}

impl Cost {
    fn of(settings: &Settings) -> Self {
        Self { heads: settings.head_count, kv_width: settings.kv_width() }
    }

    fn numbers(self, rows: usize, len: usize) -> usize {
        len * (rows * self.heads + 2 * self.kv_width)
    }
}

/// Some rows of one sequence, and the positions that at least one of them sees.
#[derive(Clone, Debug)]
struct Tile {
    rows: Range<usize>,
    positions: Range<usize>,
}

impl Plan {
    pub(super) fn new(device: &Device, batch: Batch) -> Result<Self> {
        let slot = |&(segment, position): &(usize, usize)| slot(&batch, segment, position);
        let slots = batch.places.iter().map(slot).collect();
        let count = batch.places.len();
        let mut turns = Vec::with_capacity(batch.turns.len());
        for rope in &batch.turns {
            let table = |numbers: Vec<f32>| {
                let pairs = numbers.len() / count.max(1);
                Tensor::from_vec(numbers, (count, pairs), device)
            };
            let cosines = rope.iter().flat_map(Turns::cosines).copied().collect();
            let sines = rope.iter().flat_map(Turns::sines).copied().collect();
            turns.push([table(cosines)?, table(sines)?]);
        }
        Ok(Self { batch, slots, targets: None, turns, views: Vec::new() })
    }

    /// The cosines and sines of a rope.
    pub(super) fn turns(&self, rope: usize) -> &[Tensor; 2] {
        &self.turns[rope]
    }

    /// Where keys and values of the rows go: `[kv_heads, rows, head_size]` slots.
    pub(super) fn targets(&mut self, device: &Device, settings: &Settings) -> Result<Tensor> {
        if let Some(targets) = &self.targets {
            return Ok(targets.clone());
        }
        let (heads, count, size) = (settings.kv_head_count, self.slots.len(), settings.head_size);
        let targets = Tensor::from_slice(&self.slots, (1, count, 1), device)?;
        let targets = targets.broadcast_as((heads, count, size))?.contiguous()?;
        self.targets = Some(targets.clone());
        Ok(targets)
    }

    /// Who sees whom through a window.
    pub(super) fn view(
        &mut self,
        device: &Device,
        settings: &Settings,
        window: Option<usize>,
    ) -> Result<&View> {
        let known = self.views.iter().position(|(known, _)| *known == window);
        let index = match known {
            Some(index) => index,
            None => {
                let view = View::new(device, &self.batch, settings, window)?;
                self.views.push((window, view));
                self.views.len() - 1
            }
        };
        Ok(&self.views[index].1)
    }
}

impl View {
    fn new(
        device: &Device,
        batch: &Batch,
        settings: &Settings,
        window: Option<usize>,
    ) -> Result<Self> {
        let span = |row: usize| {
            let span = batch.span(row, window, settings.kind);
            span.start as usize..span.end as usize
        };
        let cost = Cost::of(settings);
        let piles = piles(tiles(batch, cost, &span), cost);
        let mut order = vec![0; batch.places.len()];
        let (mut at, mut groups) = (0, Vec::with_capacity(piles.len()));
        for pile in piles {
            let group = Group::new(device, batch, &pile, &span)?;
            for (index, tile) in pile.iter().enumerate() {
                for (offset, row) in tile.rows.clone().enumerate() {
                    order[row] = to_u32(at + index * group.shape.1 + offset);
                }
            }
            at += group.shape.0 * group.shape.1;
            groups.push(group);
        }
        let is_in_order = at == order.len() && order.is_sorted();
        let count = order.len();
        let order = (!is_in_order).then(|| Tensor::from_vec(order, count, device)).transpose()?;
        Ok(Self { groups, order })
    }
}

impl Group {
    fn new(
        device: &Device,
        batch: &Batch,
        tiles: &[Tile],
        span: &dyn Fn(usize) -> Range<usize>,
    ) -> Result<Self> {
        let row_count = tiles.iter().map(|tile| tile.rows.len()).max().unwrap_or(1);
        let len = tiles.iter().map(|tile| tile.positions.len()).max().unwrap_or(1);
        let (mut rows, mut slots) = (Vec::new(), Vec::new());
        let mut mask = vec![f32::NEG_INFINITY; tiles.len() * row_count * len];
        let mut masks = mask.chunks_exact_mut(len);
        for tile in tiles {
            let (segment, _) = batch.places[tile.rows.start];
            let start = tile.positions.start;
            for index in 0..row_count {
                // A row that nobody has is the last one again.
                let row = (tile.rows.start + index).min(tile.rows.end - 1);
                rows.push(to_u32(row));
                let span = span(row);
                if let Some(mask) = masks.next() {
                    mask[span.start - start..span.end - start].fill(0.0);
                }
            }
            // Positions that nobody sees are read, too: they must be the sequence's own.
            let positions = (start..start + len).map(|it| it.min(tile.positions.end - 1));
            slots.extend(positions.map(|position| slot(batch, segment, position)));
        }
        let shape = (tiles.len(), row_count, len);
        Ok(Self {
            shape,
            rows: Tensor::from_vec(rows, tiles.len() * row_count, device)?,
            slots: Tensor::from_vec(slots, tiles.len() * len, device)?,
            mask: Tensor::from_vec(mask, (1, tiles.len(), row_count, 1, len), device)?,
        })
    }
}

/// Cuts a batch into rows of one sequence, few enough that their scores have room.
fn tiles(batch: &Batch, cost: Cost, span: &dyn Fn(usize) -> Range<usize>) -> Vec<Tile> {
    let mut tiles: Vec<Tile> = Vec::new();
    let mut last = None;
    for (row, &(segment, _)) in batch.places.iter().enumerate() {
        let seen = span(row);
        if let Some(tile) = tiles.last_mut().filter(|_| last == Some(segment)) {
            let (start, end) =
                (tile.positions.start.min(seen.start), tile.positions.end.max(seen.end));
            if cost.numbers(tile.rows.len() + 1, end - start) <= NUMBERS_MAX {
                tile.rows.end = row + 1;
                tile.positions = start..end;
                continue;
            }
        }
        tiles.push(Tile { rows: row..row + 1, positions: seen });
        last = Some(segment);
    }
    tiles
}

/// Puts tiles of like sizes together: at most half of a group is filled up in either direction, and
/// what it takes has room.
fn piles(mut tiles: Vec<Tile>, cost: Cost) -> Vec<Vec<Tile>> {
    let class = |tile: &Tile| tile.rows.len().next_power_of_two();
    let len = |tile: &Tile| tile.positions.len();
    tiles.sort_by_key(|tile| (class(tile), std::cmp::Reverse(len(tile)), tile.rows.start));
    let mut piles: Vec<Vec<Tile>> = Vec::new();
    for tile in tiles {
        let fits = |pile: &Vec<Tile>| {
            let numbers = (pile.len() + 1) * cost.numbers(class(&tile), len(&pile[0]));
            class(&pile[0]) == class(&tile)
                && 2 * len(&tile) >= len(&pile[0])
                && numbers <= NUMBERS_MAX
        };
        match piles.last_mut().filter(|pile| fits(pile)) {
            Some(pile) => pile.push(tile),
            None => piles.push(vec![tile]),
        }
    }
    piles
}

/// Where a position of a sequence is stored.
fn slot(batch: &Batch, segment: usize, position: usize) -> u32 {
    let page = batch.sequences[segment].pages[position / PAGE_LEN];
    page * to_u32(PAGE_LEN) + to_u32(position % PAGE_LEN)
}

/// Rows and slots of a batch: pages are numbered with 24 bits.
fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
