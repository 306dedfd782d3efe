//! The keys and values of one layer, in pages.
//!
//! A page holds [`PAGE_LEN`] positions of one sequence, for every head: first the keys, transposed
//! (`[dimension][position]`, so that scores of neighbouring positions are neighbouring lanes), then
//! the values (`[position][dimension]`, rows padded with zeros to whole lanes). Which page belongs
//! to which sequence is the caller's to know.
//!
//! # Invariants
//!
//! * What is stored widens exactly, so all instruction sets read the same numbers.
//! * A position's numbers depend on what was written there alone: each has its own scale.
//! * Memory comes zeroed from the system; pages that were never written cost none.
//!
//! Not here: sequences, prefixes, eviction (the engine).

#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for its set")]

mod cells;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::lanes::{Element, LANES};
pub(crate) use cells::{Cells, HeadCells};

/// How many positions a page holds.
pub const PAGE_LEN: usize = 32;

/// How numbers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvFormat {
    /// 32 bits: as they were computed.
    F32,
    /// 16 bits, rounded to nearest: eleven significant bits. Beyond 65504 is infinite.
    #[default]
    F16,
    /// 8 bits and one 32-bit scale for a position of a head, `max / 127`: the numbers are rounded
    /// to whole multiples. A position with a number that is not finite reads as NaN.
    Q8,
}

/// What a store holds for each position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvShape {
    /// How many heads of keys and values.
    pub kv_heads: usize,
    /// How many numbers the key of a head has.
    pub key_size: usize,
    /// How many numbers the value of a head has.
    pub value_size: usize,
    /// How they are stored.
    pub format: KvFormat,
}

/// Why there is no store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum KvError {
    #[error("{shape:?} has a size of zero; heads, keys and values must have numbers")]
    Empty { shape: KvShape },

    #[error("{pages} pages of {shape:?} are more than an address can reach; ask for fewer")]
    TooLarge { shape: KvShape, pages: usize },

    #[error("{bytes} bytes for keys and values cannot be had; ask for fewer pages")]
    Memory { bytes: usize },
}

impl KvShape {
    /// How many bytes one page takes.
    pub fn page_bytes(&self) -> Result<usize, KvError> {
        let layout = Layout::of(self)?;
        let too_large = || KvError::TooLarge { shape: *self, pages: 1 };
        let cells = layout.page_cells.checked_mul(self.cell_bytes()).ok_or_else(too_large)?;
        let scales = layout.page_scales.checked_mul(size_of::<f32>()).ok_or_else(too_large)?;
        cells.checked_add(scales).ok_or_else(too_large)
    }

    fn cell_bytes(&self) -> usize {
        match self.format {
            KvFormat::F32 => 4,
            KvFormat::F16 => 2,
            KvFormat::Q8 => 1,
        }
    }
}

/// Where numbers lie in a page, counted in cells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// From one head to the next: its keys, then its values.
    head_cells: usize,
    /// Of those the keys.
    key_cells: usize,
    /// From one position's values to the next: `value_size`, padded to whole lanes.
    pub(crate) value_stride: usize,
    page_cells: usize,
    /// A page's scales: for each head those of the keys, then those of the values.
    page_scales: usize,
}

impl Layout {
    fn of(shape: &KvShape) -> Result<Self, KvError> {
        if shape.kv_heads == 0 || shape.key_size == 0 || shape.value_size == 0 {
            return Err(KvError::Empty { shape: *shape });
        }
        Self::checked(shape).ok_or(KvError::TooLarge { shape: *shape, pages: 1 })
    }

    fn checked(shape: &KvShape) -> Option<Self> {
        let value_stride = shape.value_size.checked_next_multiple_of(LANES)?;
        let key_cells = shape.key_size.checked_mul(PAGE_LEN)?;
        let head_cells = value_stride.checked_mul(PAGE_LEN)?.checked_add(key_cells)?;
        let page_cells = head_cells.checked_mul(shape.kv_heads)?;
        let page_scales = match shape.format {
            KvFormat::F32 | KvFormat::F16 => 0,
            KvFormat::Q8 => shape.kv_heads.checked_mul(2 * PAGE_LEN)?,
        };
        Some(Self { head_cells, key_cells, value_stride, page_cells, page_scales })
    }
}

/// The pages of one layer.
#[derive(Clone, Debug)]
pub struct KvStore {
    shape: KvShape,
    layout: Layout,
    page_count: usize,
    pool: Pool,
    scales: Vec<f32>,
}

/// The cells of all pages.
#[derive(Clone, Debug)]
pub(crate) enum Pool {
    F32(Cells<f32>),
    F16(Cells<u16>),
    Q8(Cells<i8>),
}

/// The place of one position.
#[derive(Clone, Copy)]
struct Place {
    page: usize,
    head: usize,
    slot: usize,
}

impl KvStore {
    /// So many pages, all zero.
    pub fn new(shape: KvShape, page_count: usize) -> Result<Self, KvError> {
        let layout = Layout::of(&shape)?;
        let bytes = shape.page_bytes()?.checked_mul(page_count);
        let bytes = bytes.filter(|&bytes| isize::try_from(bytes).is_ok());
        let bytes = bytes.ok_or(KvError::TooLarge { shape, pages: page_count })?;
        let refused = KvError::Memory { bytes };
        let cells = layout.page_cells * page_count;
        let pool = match shape.format {
            KvFormat::F32 => Cells::zeroed(cells).map(Pool::F32),
            KvFormat::F16 => Cells::zeroed(cells).map(Pool::F16),
            KvFormat::Q8 => Cells::zeroed(cells).map(Pool::Q8),
        };
        let pool = pool.ok_or(refused)?;
        let scales = vec![0.0; layout.page_scales * page_count];
        Ok(Self { shape, layout, page_count, pool, scales })
    }

    /// What it holds for each position.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// How many pages it has.
    pub fn page_count(&self) -> usize {
        self.page_count
    }

    /// Stores the keys and values of all heads at a position of a page.
    ///
    /// `keys` is `[kv_heads][key_size]`, `values` is `[kv_heads][value_size]`.
    ///
    /// # Panics
    ///
    /// Where the page or the slot does not exist, or a length is not the shape's.
    pub fn write(&mut self, page: u32, slot: usize, keys: &[f32], values: &[f32]) {
        let page = self.checked(page, slot);
        let KvShape { kv_heads, key_size, value_size, .. } = self.shape;
        assert_eq!(keys.len(), kv_heads * key_size, "keys are those of all heads");
        assert_eq!(values.len(), kv_heads * value_size, "values are those of all heads");
        let rows = keys.chunks_exact(key_size).zip(values.chunks_exact(value_size));
        for (head, (keys, values)) in rows.enumerate() {
            self.write_head(Place { page, head, slot }, keys, values);
        }
    }

    /// Reads what [`write`](Self::write) stored, widened, in the same shapes.
    ///
    /// # Panics
    ///
    /// As `write` does.
    pub fn read(&self, page: u32, slot: usize, keys: &mut [f32], values: &mut [f32]) {
        let page = self.checked(page, slot);
        let KvShape { kv_heads, key_size, value_size, .. } = self.shape;
        assert_eq!(keys.len(), kv_heads * key_size, "keys are those of all heads");
        assert_eq!(values.len(), kv_heads * value_size, "values are those of all heads");
        let rows = keys.chunks_exact_mut(key_size).zip(values.chunks_exact_mut(value_size));
        for (head, (keys, values)) in rows.enumerate() {
            let place = Place { page, head, slot };
            let start = self.head_start(page, head);
            match &self.pool {
                Pool::F32(cells) => self.read_head(cells, start, slot, (keys, values), |x| x),
                Pool::F16(cells) => self
                    .read_head(cells, start, slot, (keys, values), |x| f16::from_bits(x).to_f32()),
                Pool::Q8(cells) => {
                    let rows = (&mut *keys, &mut *values);
                    self.read_head(cells, start, slot, rows, f32::from);
                    let scales = self.scale_indexes(place);
                    for key in keys {
                        *key *= self.scales[scales[0]];
                    }
                    for value in values {
                        *value *= self.scales[scales[1]];
                    }
                }
            }
        }
    }

    /// Copies the first `count` positions of a page to another: a private copy of a shared,
    /// partly filled page.
    ///
    /// # Panics
    ///
    /// Where a page does not exist or has fewer positions.
    pub fn copy_slots(&mut self, from: u32, to: u32, count: usize) {
        assert!(count <= PAGE_LEN, "{count} positions are more than a page of {PAGE_LEN}");
        let (from, to) = (self.checked(from, 0), self.checked(to, 0));
        for head in 0..self.shape.kv_heads {
            let starts = (self.head_start(from, head), self.head_start(to, head));
            match &mut self.pool {
                Pool::F32(cells) => copy_head(&self.layout, cells, starts, count),
                Pool::F16(cells) => copy_head(&self.layout, cells, starts, count),
                Pool::Q8(cells) => {
                    copy_head(&self.layout, cells, starts, count);
                    let from = self.scale_indexes(Place { page: from, head, slot: 0 });
                    let to = self.scale_indexes(Place { page: to, head, slot: 0 });
                    for (from, to) in from.into_iter().zip(to) {
                        self.scales.copy_within(from..from + count, to);
                    }
                }
            }
        }
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The cells of one head of one page.
    #[inline(always)]
    pub(crate) fn head_cells<'a, E: Element>(
        &'a self,
        cells: &'a Cells<E>,
        page: u32,
        head: usize,
    ) -> HeadCells<'a, E> {
        let page = page as usize;
        let start = self.head_start(page, head);
        let all = &cells[start..start + self.layout.head_cells];
        let (keys, values) = all.split_at(self.layout.key_cells);
        let scales = if self.layout.page_scales == 0 {
            None
        } else {
            let [keys, values] = self.scale_indexes(Place { page, head, slot: 0 });
            Some([&self.scales[keys..keys + PAGE_LEN], &self.scales[values..values + PAGE_LEN]])
        };
        HeadCells { keys, values, scales }
    }

    fn checked(&self, page: u32, slot: usize) -> usize {
        let page = page as usize;
        assert!(page < self.page_count, "page {page} of {} does not exist", self.page_count);
        assert!(slot < PAGE_LEN, "slot {slot} of {PAGE_LEN} does not exist");
        page
    }

    #[inline(always)]
    fn head_start(&self, page: usize, head: usize) -> usize {
        page * self.layout.page_cells + head * self.layout.head_cells
    }

    /// Where the scales of a key and of a value lie.
    #[inline(always)]
    fn scale_indexes(&self, place: Place) -> [usize; 2] {
        let head = place.page * self.layout.page_scales + place.head * 2 * PAGE_LEN;
        [head + place.slot, head + PAGE_LEN + place.slot]
    }

    fn write_head(&mut self, place: Place, keys: &[f32], values: &[f32]) {
        let Layout { value_stride, key_cells, .. } = self.layout;
        let start = self.head_start(place.page, place.head);
        let key = start + place.slot;
        let value = start + key_cells + place.slot * value_stride;
        let scales = self.scale_indexes(place);
        match &mut self.pool {
            Pool::F32(cells) => {
                scatter(&mut cells[key..], keys, |x| x);
                cells[value..value + values.len()].copy_from_slice(values);
            }
            Pool::F16(cells) => {
                narrow(keys, |index, bits| cells[key + index * PAGE_LEN] = bits);
                narrow(values, |index, bits| cells[value + index] = bits);
            }
            Pool::Q8(cells) => {
                let (scale, inverse) = scale_of(keys);
                self.scales[scales[0]] = scale;
                scatter(&mut cells[key..], keys, |x| quantized(x, inverse));
                let (scale, inverse) = scale_of(values);
                self.scales[scales[1]] = scale;
                for (cell, &x) in cells[value..value + values.len()].iter_mut().zip(values) {
                    *cell = quantized(x, inverse);
                }
            }
        }
    }

    fn read_head<E: Element>(
        &self,
        cells: &Cells<E>,
        start: usize,
        slot: usize,
        (keys, values): (&mut [f32], &mut [f32]),
        widen: impl Fn(E) -> f32,
    ) {
        let Layout { value_stride, key_cells, .. } = self.layout;
        for (index, key) in keys.iter_mut().enumerate() {
            *key = widen(cells[start + index * PAGE_LEN + slot]);
        }
        let value_cells = &cells[start + key_cells + slot * value_stride..];
        for (value, &cell) in values.iter_mut().zip(value_cells) {
            *value = widen(cell);
        }
    }
}

/// Copies the first positions of a head from one page to another.
fn copy_head<E: Element>(
    layout: &Layout,
    cells: &mut Cells<E>,
    (from, to): (usize, usize),
    count: usize,
) {
    for row in (0..layout.key_cells).step_by(PAGE_LEN) {
        cells.copy_within(from + row..from + row + count, to + row);
    }
    let values = from + layout.key_cells;
    cells.copy_within(values..values + count * layout.value_stride, to + layout.key_cells);
}

/// Writes a key down its column.
fn scatter<E>(cells: &mut [E], keys: &[f32], narrow: impl Fn(f32) -> E) {
    for (cell, &key) in cells.iter_mut().step_by(PAGE_LEN).zip(keys) {
        *cell = narrow(key);
    }
}

/// Rounds to half precision, a few at a time.
fn narrow(numbers: &[f32], mut put: impl FnMut(usize, u16)) {
    let mut halves = [f16::ZERO; 64];
    for (block, numbers) in numbers.chunks(64).enumerate() {
        let halves = &mut halves[..numbers.len()];
        halves.convert_from_f32_slice(numbers);
        for (index, half) in halves.iter().enumerate() {
            put(block * 64 + index, half.to_bits());
        }
    }
}

/// What a step of eight bits is worth, and how many steps one is; NaN where a number is not finite.
fn scale_of(numbers: &[f32]) -> (f32, f32) {
    if !numbers.iter().all(|number| number.is_finite()) {
        return (f32::NAN, 0.0);
    }
    let largest = numbers.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
    let scale = largest / 127.0;
    // Numbers so small that their scale has no inverse are zero.
    if scale < f32::MIN_POSITIVE { (0.0, 0.0) } else { (scale, 1.0 / scale) }
}

#[expect(clippy::cast_possible_truncation, reason = "at most 127 by the scale, and saturating")]
fn quantized(number: f32, inverse: f32) -> i8 {
    (number * inverse).round_ties_even() as i8
}

#[cfg(test)]
mod tests;
