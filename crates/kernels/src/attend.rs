//! Attention: what a query takes from the values, by how well it matches their keys.
//!
//! For each query, over the positions it sees: `softmax(scale * query . key)` weighs the values.
//! Positions are walked in splits of [`SPLIT_LEN`], at fixed positions of the sequence. A split's
//! scores, weights and weighted values are computed for all queries of the call, then joined to what
//! the splits before it gave (T. Dao et al., "`FlashAttention`", 2022; M. Milakov, N. Gimelshein,
//! "Online normalizer calculation for softmax", 2018). Keys and values are read once for a group of
//! queries that fits in registers: the heads that share them, the rows of a prompt.
//!
//! # Invariants
//!
//! * A query's result depends on its own numbers, its own span and the keys and values stored there:
//!   not on other queries of the call, on the pages that hold them or on what else pages hold.
//! * The order is fixed. A score sums its dimensions ascending; the weights of a split are summed in
//!   sixteen lanes, by position modulo sixteen, then by the tree of `lanes.rs`; a value sums the
//!   positions of a split ascending; splits are joined ascending.
//!
//! Not here: threads (the caller gives each its heads or its queries), rotary positions (`rope.rs`).

#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for its set")]

mod product;
mod split;

use std::ops::Range;

use crate::isa::Isa;
use crate::kv::{KvStore, PAGE_LEN, Pool};
use crate::lanes::run;

/// How many positions are weighed at a time. Part of what results are: see the invariants.
pub const SPLIT_LEN: usize = 256;

/// What queries attend to.
#[derive(Clone, Copy, Debug)]
pub struct Attend<'a> {
    /// The keys and values of the layer.
    pub store: &'a KvStore,
    /// The pages of the sequence: positions `32 i` to `32 i + 31` are in `pages[i]`.
    pub pages: &'a [u32],
    /// Which head of keys and values.
    pub head: usize,
    /// What scores are multiplied with: usually `1 / sqrt(key_size)`.
    pub scale: f32,
    /// A soft limit of scores: `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
}

/// Who attends.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// `[n][key_size]`. Those with like spans are best neighbours: the heads of one position first,
    /// then the next position.
    pub rows: &'a [f32],
    /// For each query the positions it sees: `0..position + 1` for causal attention, a later start
    /// for a sliding window, `0..len` where all see all.
    pub spans: &'a [Range<u32>],
}

/// Memory for intermediate results, kept between calls.
///
/// It grows to `n * (272 + 2 * value_size)` numbers for the largest `n` it was used with.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    /// For each query the scores of a split, then its weights.
    scores: Vec<f32>,
    /// What a split gives.
    part: Weighed,
    /// What the splits so far give.
    whole: Weighed,
}

/// Values with their weights.
#[derive(Clone, Debug, Default)]
struct Weighed {
    /// For each query the sum of the weighted values.
    values: Vec<f32>,
    /// For each query the rest.
    totals: Vec<Total>,
}

/// What weights add up to.
#[derive(Clone, Copy, Debug)]
struct Total {
    /// The largest score: weights are relative to it.
    largest: f32,
    /// The sum of the weights.
    sum: f32,
}

impl Weighed {
    const NOTHING: Total = Total { largest: f32::NEG_INFINITY, sum: 0.0 };

    /// Nothing yet, for so many queries.
    fn reset(&mut self, count: usize, value_stride: usize) {
        self.values.clear();
        self.values.resize(count * value_stride, 0.0);
        self.totals.clear();
        self.totals.resize(count, Self::NOTHING);
    }
}

/// Writes for each query the values it takes, `[n][value_size]`; zeros where its span is empty.
///
/// # Panics
///
/// Where a length is not that of the store's shape, a head or a page does not exist, or a span is
/// not within the pages.
pub fn attend(
    isa: Isa,
    task: &Attend<'_>,
    queries: Queries<'_>,
    out: &mut [f32],
    scratch: &mut Scratch,
) {
    check(task, queries, out.len());
    let count = queries.spans.len();
    let value_stride = task.store.layout().value_stride;
    scratch.scores.resize(count * split::SCORES_STRIDE, 0.0);
    scratch.part.reset(count, value_stride);
    scratch.whole.reset(count, value_stride);
    match task.store.pool() {
        Pool::F32(cells) => run(isa, split::Splits { task, queries, cells, out, scratch }),
        Pool::F16(cells) => run(isa, split::Splits { task, queries, cells, out, scratch }),
        Pool::Q8(cells) => run(isa, split::Splits { task, queries, cells, out, scratch }),
    }
}

fn check(task: &Attend<'_>, queries: Queries<'_>, out_len: usize) {
    let shape = task.store.shape();
    let count = queries.spans.len();
    assert!(task.head < shape.kv_heads, "head {} of {} does not exist", task.head, shape.kv_heads);
    assert_eq!(queries.rows.len(), count * shape.key_size, "each query has a row and a span");
    assert_eq!(out_len, count * shape.value_size, "each query has a result");
    for span in queries.spans {
        assert!(span.start <= span.end, "a span runs from {} to {}", span.start, span.end);
        let end = span.end as usize;
        let pages = task.pages.len();
        assert!(end.div_ceil(PAGE_LEN) <= pages, "position {end} is not in {pages} pages");
    }
    let all = split::union(queries.spans);
    for &page in &task.pages[all.start / PAGE_LEN..all.end.div_ceil(PAGE_LEN)] {
        let pages = task.store.page_count();
        assert!((page as usize) < pages, "page {page} of {pages} does not exist");
    }
}

#[cfg(test)]
mod tests;
