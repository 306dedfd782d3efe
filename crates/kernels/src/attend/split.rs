//! The splits of a call, one after the other.

use std::ops::Range;

use super::product::{Product, add_product, add_single, group};
use super::{Attend, Queries, SPLIT_LEN, Scratch, Total};
use crate::exp::{Cap, exponential};
use crate::kv::{Cells, HeadCells, PAGE_LEN};
use crate::lanes::{Element, Function, Kernel, LANES, Simd};
use crate::softmax::{exponentials, larger, largest};

/// From one query's scores to the next: a split, and a cache line more, or rows a power of two
/// apart would compete for the same few lines of a cache.
pub(super) const SCORES_STRIDE: usize = SPLIT_LEN + LANES;

/// A call of `attend`, checked.
pub(super) struct Splits<'a, E> {
    pub(super) task: &'a Attend<'a>,
    pub(super) queries: Queries<'a>,
    pub(super) cells: &'a Cells<E>,
    pub(super) out: &'a mut [f32],
    pub(super) scratch: &'a mut Scratch,
}

/// From the first position that a span sees to the last.
pub(super) fn union(spans: &[Range<u32>]) -> Range<usize> {
    let seen = spans.iter().filter(|span| !span.is_empty());
    let ends = seen.fold(None, |ends: Option<(u32, u32)>, span| {
        let (start, end) = ends.unwrap_or((span.start, span.end));
        Some((start.min(span.start), end.max(span.end)))
    });
    ends.map_or(0..0, |(start, end)| start as usize..end as usize)
}

/// The part of a range that is within another; empty, and between its ends, where there is none.
#[inline(always)]
fn within(range: &Range<usize>, bounds: &Range<usize>) -> Range<usize> {
    let start = range.start.clamp(bounds.start, bounds.end);
    start..range.end.clamp(start, bounds.end)
}

impl<E: Element> Kernel for Splits<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let all = union(self.queries.spans);
        for first in (all.start / SPLIT_LEN * SPLIT_LEN..all.end).step_by(SPLIT_LEN) {
            let split = within(&all, &(first..first + SPLIT_LEN));
            self.score(simd, &split);
            for query in 0..self.queries.spans.len() {
                self.weigh(simd, &split, query);
            }
            self.scratch.part.values.fill(0.0);
            self.gather(simd, &split);
            for query in 0..self.queries.spans.len() {
                self.join(simd, &split, query);
            }
        }
        self.finish();
    }
}

/// The pages of a split, each with its positions.
#[inline(always)]
fn pages(split: &Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    let split = split.clone();
    (split.start / PAGE_LEN..split.end.div_ceil(PAGE_LEN))
        .map(move |page| (page, page * PAGE_LEN..(page + 1) * PAGE_LEN))
}

impl<'a, E: Element> Splits<'a, E> {
    /// Which of these positions a query sees.
    #[inline(always)]
    fn visible(&self, query: usize, bounds: &Range<usize>) -> Range<usize> {
        let span = &self.queries.spans[query];
        within(&(span.start as usize..span.end as usize), bounds)
    }

    #[inline(always)]
    fn head_cells(&self, page: usize) -> HeadCells<'a, E> {
        self.task.store.head_cells(self.cells, self.task.pages[page], self.task.head)
    }

    /// The products of queries and keys, wherever one of a group sees.
    #[inline(always)]
    fn score<S: Simd>(&mut self, simd: S, split: &Range<usize>) {
        let key_size = self.task.store.shape().key_size;
        let count = self.queries.spans.len();
        for (page, positions) in pages(split) {
            let keys = self.head_cells(page).keys;
            let mut first = 0;
            while first < count {
                let size = group::<S>(count - first);
                let seen = union(&self.queries.spans[first..first + size]);
                let seen = within(&seen, &positions);
                if !seen.is_empty() {
                    let start = (seen.start - positions.start) / LANES * LANES;
                    let end = (seen.end - positions.start).next_multiple_of(LANES);
                    let offset = first * SCORES_STRIDE + positions.start % SPLIT_LEN;
                    let sums = &mut self.scratch.scores[offset..];
                    for row in 0..size {
                        sums[row * SCORES_STRIDE..][start..end].fill(0.0);
                    }
                    add_product(
                        simd,
                        Product {
                            coefficients: &self.queries.rows[first * key_size..],
                            coefficient_stride: key_size,
                            rows: keys,
                            row_stride: PAGE_LEN,
                            sums,
                            sum_stride: SCORES_STRIDE,
                            count: size,
                            depth: key_size,
                            columns: start..end,
                        },
                    );
                }
                first += size;
            }
        }
    }

    /// Turns the scores of one query to weights, relative to the largest.
    #[inline(always)]
    fn weigh<S: Simd>(&mut self, simd: S, split: &Range<usize>, query: usize) {
        let seen = self.visible(query, split);
        self.scratch.part.totals[query] = super::Weighed::NOTHING;
        if seen.is_empty() {
            return;
        }
        let lanes = seen.start / LANES * LANES..seen.end.next_multiple_of(LANES);
        let origin = seen.start / SPLIT_LEN * SPLIT_LEN;
        let row = query * SCORES_STRIDE;
        for start in lanes.clone().step_by(LANES) {
            let at = row + start - origin;
            let key_scales = self.scales(start, 0);
            let block = block(&mut self.scratch.scores, at);
            let mut scores = simd.load(block);
            if let Some(scales) = key_scales {
                scores = simd.mul(scores, simd.load(scales));
            }
            scores = simd.mul(scores, simd.splat(self.task.scale));
            if let Some(cap) = self.task.softcap {
                scores = Cap(cap).apply(simd, scores);
            }
            simd.store(scores, block);
        }
        let scores = &mut self.scratch.scores[row + lanes.start - origin..row + lanes.end - origin];
        scores[..seen.start - lanes.start].fill(f32::NEG_INFINITY);
        scores[seen.end - lanes.start..].fill(f32::NEG_INFINITY);
        let (blocks, _) = scores.as_chunks_mut();
        let largest = largest(simd, blocks);
        let sum = simd.sum(exponentials(simd, blocks, largest));
        self.scratch.part.totals[query] = Total { largest, sum };
        for start in lanes.step_by(LANES) {
            if let Some(scales) = self.scales(start, 1) {
                let block = block(&mut self.scratch.scores, row + start - origin);
                let weights = simd.mul(simd.load(block), simd.load(scales));
                simd.store(weights, block);
            }
        }
    }

    /// The scales of sixteen positions: those of keys are the first, those of values the second.
    #[inline(always)]
    fn scales(&self, start: usize, which: usize) -> Option<&'a [f32; LANES]> {
        let scales = self.head_cells(start / PAGE_LEN).scales?[which];
        scales[start % PAGE_LEN..].first_chunk()
    }

    /// The sums of the weighted values: in groups where all of a group see, each alone elsewhere.
    #[inline(always)]
    fn gather<S: Simd>(&mut self, simd: S, split: &Range<usize>) {
        let count = self.queries.spans.len();
        for (page, positions) in pages(split) {
            let mut first = 0;
            while first < count {
                let size = group::<S>(count - first);
                let queries = first..first + size;
                let mut shared = positions.clone();
                for query in queries.clone() {
                    shared = within(&self.visible(query, &positions), &shared);
                }
                // Ascending for each query: what it sees before the others, with them, after them.
                self.gather_alone(simd, page, queries.clone(), &(0..shared.start));
                if !shared.is_empty() {
                    add_product(simd, self.weighted(page, queries.clone(), &shared));
                }
                self.gather_alone(simd, page, queries, &(shared.end..usize::MAX));
                first += size;
            }
        }
    }

    /// Adds what each of these queries sees of a page within these bounds.
    #[inline(always)]
    fn gather_alone<S: Simd>(
        &mut self,
        simd: S,
        page: usize,
        queries: Range<usize>,
        bounds: &Range<usize>,
    ) {
        let positions = page * PAGE_LEN..(page + 1) * PAGE_LEN;
        for query in queries {
            let seen = within(&self.visible(query, &positions), bounds);
            if !seen.is_empty() {
                add_single(simd, self.weighted(page, query..query + 1, &seen));
            }
        }
    }

    /// The weighted values of these positions of a page for these queries.
    #[inline(always)]
    fn weighted(
        &mut self,
        page: usize,
        queries: Range<usize>,
        seen: &Range<usize>,
    ) -> Product<'_, E> {
        let value_stride = self.task.store.layout().value_stride;
        let values = self.head_cells(page).values;
        let weights = queries.start * SCORES_STRIDE + seen.start % SPLIT_LEN;
        Product {
            coefficients: &self.scratch.scores[weights..],
            coefficient_stride: SCORES_STRIDE,
            rows: &values[seen.start % PAGE_LEN * value_stride..],
            row_stride: value_stride,
            sums: &mut self.scratch.part.values[queries.start * value_stride..],
            sum_stride: value_stride,
            count: queries.len(),
            depth: seen.len(),
            columns: 0..value_stride,
        }
    }

    /// Joins a split to those before it: both are brought to the larger of their largest scores.
    #[inline(always)]
    fn join<S: Simd>(&mut self, simd: S, split: &Range<usize>, query: usize) {
        if self.visible(query, split).is_empty() {
            return;
        }
        let Scratch { part, whole, .. } = &mut *self.scratch;
        let (new, old) = (part.totals[query], whole.totals[query]);
        let largest = larger(new.largest, old.largest);
        let old_factor = factor(simd, old.largest, largest);
        let new_factor = factor(simd, new.largest, largest);
        let sum = old.sum * old_factor + new.sum * new_factor;
        whole.totals[query] = Total { largest, sum };
        let value_stride = self.task.store.layout().value_stride;
        let columns = query * value_stride..(query + 1) * value_stride;
        let values = part.values[columns.clone()].iter().zip(&mut whole.values[columns]);
        for (new, old) in values {
            *old = *old * old_factor + new * new_factor;
        }
    }

    /// Divides by the sums of the weights.
    #[inline(always)]
    fn finish(self) {
        let value_size = self.task.store.shape().value_size;
        let value_stride = self.task.store.layout().value_stride;
        let whole = &self.scratch.whole;
        let rows = self.out.chunks_exact_mut(value_size);
        let wholes = whole.values.chunks_exact(value_stride).zip(&whole.totals);
        let rows = rows.zip(wholes).zip(self.queries.spans);
        for ((out, (values, total)), span) in rows {
            if span.is_empty() {
                out.fill(0.0);
                continue;
            }
            for (out, value) in out.iter_mut().zip(values) {
                *out = value / total.sum;
            }
        }
    }
}

/// What a weight that is relative to `from` becomes relative to `to`.
#[inline(always)]
fn factor<S: Simd>(simd: S, from: f32, to: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    simd.store(exponential(simd, simd.splat(from - to)), &mut lanes);
    lanes[0]
}

/// The sixteen scores that start here.
#[inline(always)]
fn block(scores: &mut [f32], start: usize) -> &mut [f32; LANES] {
    match scores[start..].first_chunk_mut() {
        Some(block) => block,
        None => unreachable!("scores are whole lanes"),
    }
}
