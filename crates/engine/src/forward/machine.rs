//! What a forward pass asks of whatever computes it.
//!
//! The flow through a model (`forward.rs`, `feed.rs`, `experts.rs`) is written once, in these
//! steps. A machine says how its numbers lie in memory and computes the steps: [`Cpu`] on the
//! threads of a [`Team`] with our own kernels, `Candle` on a device.
//!
//! ```text
//! load:    stack, keep_norm, keep_heads
//! a batch: plan, upload | project, attend, inner, norm, add, pick, add_shares | download
//! ```
//!
//! Not here: what differs between families. A step knows its operands and nothing else of a model.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use commons_kernels::norm;

use super::adapted::{Adapted, Hidden, Site};
use super::attention::{Batch, Heads};
use super::experts::Share;
use super::linear::{self, Linear, Stack};
use super::load::{Loader, Slice};
use super::reader::Reader;
use super::{ForwardError, NormWeights, Rows, feed};
use crate::adapter::Mix;
use crate::cache::HostPages;
use crate::settings::Activation;
use crate::team::Team;
use crate::weights::WeightError;

/// Computes the steps of a forward pass.
pub(super) trait Machine: Debug + Sized {
    /// Whether rows may have adapters here.
    fn adapts(&self) -> bool;
    /// Rows of numbers, one for each token of a batch. A clone is the same rows.
    type Rows: Clone;
    /// Matrices that read the same rows. Their outputs lie side by side.
    type Stack: Debug;
    /// The weights of a norm.
    type Norm: Debug;
    /// What the attention of a layer needs besides matrices.
    type Heads: Debug;
    /// The keys and values of all sequences.
    type Pages;
    /// What all layers share about the rows of a batch.
    type Plan;

    /// Takes matrices that read rows of `inputs` numbers out of the file.
    fn stack(
        &self,
        loader: &Loader<'_>,
        parts: &[Slice<'_>],
        inputs: usize,
    ) -> Result<Arc<Self::Stack>, WeightError>;

    /// The table of the embedding, as a matrix.
    fn tied(
        &self,
        loader: &Loader<'_>,
        table: &Linear,
        name: &str,
    ) -> Result<Arc<Self::Stack>, WeightError>;

    /// Bytes of all matrices, without those that the embedding has.
    fn size_bytes(&self, stack: &Self::Stack, table: &Linear) -> usize;

    /// Puts the weights of a norm where rows are.
    fn keep_norm(&self, norm: NormWeights) -> Result<Arc<Self::Norm>, WeightError>;

    /// The same for what attention needs.
    fn keep_heads(&self, heads: Heads) -> Result<Arc<Self::Heads>, WeightError>;

    /// Gets ready for a batch.
    fn plan(&self, batch: Batch) -> Result<Self::Plan, ForwardError>;

    /// Takes rows of `width` numbers.
    fn upload(&self, rows: Vec<f32>, width: usize) -> Result<Self::Rows, ForwardError>;

    /// Gives some rows back, each of `width` numbers.
    fn download(
        &self,
        team: &mut Team,
        rows: Self::Rows,
        chosen: &[Range<usize>],
        width: usize,
    ) -> Result<Vec<f32>, ForwardError>;

    /// Gives all rows back.
    fn download_all(&self, rows: Self::Rows) -> Result<Vec<f32>, ForwardError>;

    /// `input x stack`, with `onto` added if there is one.
    fn project(
        &self,
        team: &mut Team,
        stack: &Arc<Self::Stack>,
        input: Input<'_, Self>,
        onto: Option<&Self::Rows>,
    ) -> Result<Self::Rows, ForwardError>;

    /// Between the halves of a feed-forward part: `kind(first) * second`, or `kind(first)` alone.
    fn inner(
        &self,
        team: &mut Team,
        stack: &Arc<Self::Stack>,
        input: Input<'_, Self>,
        kind: Activation,
    ) -> Result<Self::Rows, ForwardError>;

    /// Prepares heads of queries and keys, stores keys and values in a layer's pages, and weighs
    /// the values that each query sees. `joined` holds queries, keys and values side by side.
    fn attend(
        work: &mut Work<'_, Self>,
        heads: &Arc<Self::Heads>,
        joined: Self::Rows,
        layer: usize,
    ) -> Result<Self::Rows, ForwardError>;

    /// Norms rows.
    fn norm(
        &self,
        team: &mut Team,
        norm: &Self::Norm,
        rows: &Self::Rows,
    ) -> Result<Self::Rows, ForwardError>;

    /// Adds rows to rows.
    fn add(
        &self,
        team: &mut Team,
        to: Self::Rows,
        what: &Self::Rows,
    ) -> Result<Self::Rows, ForwardError>;

    /// The rows that these shares name, of `width` numbers each.
    fn pick(
        &self,
        rows: &Self::Rows,
        shares: &[Share],
        width: usize,
    ) -> Result<Self::Rows, ForwardError>;

    /// Adds to `sums`, for each share, its weight times its row of `made`.
    fn add_shares(
        &self,
        sums: Self::Rows,
        made: &Self::Rows,
        shares: &[Share],
        width: usize,
    ) -> Result<Self::Rows, ForwardError>;

    /// Nobody reads these rows any more.
    fn reuse(&self, team: &mut Team, rows: Self::Rows);
}

/// What matrices read: rows, behind a norm if there is one.
#[derive(Debug)]
pub(super) struct Input<'a, M: Machine> {
    pub(super) rows: &'a M::Rows,
    pub(super) norm: Option<&'a Arc<M::Norm>>,
    /// Where the matrices are, if adapters may change them.
    pub(super) site: Option<Site<'a>>,
}

/// A machine at work on a batch.
pub(super) struct Work<'a, M: Machine> {
    pub(super) machine: &'a M,
    pub(super) team: &'a mut Team,
    pub(super) pages: &'a mut M::Pages,
    pub(super) plan: M::Plan,
    /// The adapters of the batch.
    pub(super) mix: Arc<Mix>,
}

/// Rows as the stack multiplies them, and what their adapters made of them.
fn read(team: &mut Team, stack: &Stack, input: &Input<'_, Cpu>) -> (Reader, Option<Hidden>) {
    let adapted = Adapted::new(team, stack, (input.rows, input.norm), input.site);
    (Reader::new(&adapted.rows, adapted.norm.as_ref(), stack), adapted.hidden)
}

/// The processor, with our own kernels: the same bits on every one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cpu;

impl Machine for Cpu {
    fn adapts(&self) -> bool {
        true
    }

    type Rows = Rows;
    type Stack = Stack;
    type Norm = NormWeights;
    type Heads = Heads;
    type Pages = HostPages;
    type Plan = Arc<Batch>;

    fn stack(
        &self,
        loader: &Loader<'_>,
        parts: &[Slice<'_>],
        inputs: usize,
    ) -> Result<Arc<Stack>, WeightError> {
        let parts = parts.iter().map(|part| loader.part(part, inputs)).collect::<Result<_, _>>()?;
        Ok(Arc::new(Stack::new(parts)))
    }

    fn tied(&self, _: &Loader<'_>, table: &Linear, _: &str) -> Result<Arc<Stack>, WeightError> {
        Ok(Arc::new(Stack::new(vec![table.clone()])))
    }

    fn size_bytes(&self, stack: &Stack, table: &Linear) -> usize {
        let is_table = Arc::ptr_eq(&stack.parts()[0].matrix, &table.matrix);
        if is_table { 0 } else { stack.size_bytes() }
    }

    fn keep_norm(&self, norm: NormWeights) -> Result<Arc<NormWeights>, WeightError> {
        Ok(Arc::new(norm))
    }

    fn keep_heads(&self, heads: Heads) -> Result<Arc<Heads>, WeightError> {
        Ok(Arc::new(heads))
    }

    fn plan(&self, batch: Batch) -> Result<Arc<Batch>, ForwardError> {
        Ok(Arc::new(batch))
    }

    fn upload(&self, rows: Vec<f32>, _: usize) -> Result<Rows, ForwardError> {
        Ok(Arc::new(rows))
    }

    fn download(
        &self,
        team: &mut Team,
        rows: Rows,
        chosen: &[Range<usize>],
        width: usize,
    ) -> Result<Vec<f32>, ForwardError> {
        let mut found = Vec::new();
        for chosen in chosen {
            found.extend_from_slice(&rows[chosen.start * width..chosen.end * width]);
        }
        team.reuse(rows);
        Ok(found)
    }

    fn download_all(&self, rows: Rows) -> Result<Vec<f32>, ForwardError> {
        Ok(Arc::unwrap_or_clone(rows))
    }

    fn project(
        &self,
        team: &mut Team,
        stack: &Arc<Stack>,
        input: Input<'_, Self>,
        onto: Option<&Rows>,
    ) -> Result<Rows, ForwardError> {
        let read = read(team, stack, &input);
        Ok(Arc::new(linear::project(team, stack, read, onto.cloned())))
    }

    fn inner(
        &self,
        team: &mut Team,
        stack: &Arc<Stack>,
        input: Input<'_, Self>,
        kind: Activation,
    ) -> Result<Rows, ForwardError> {
        let read = read(team, stack, &input);
        Ok(Arc::new(feed::inner(team, stack, read, feed::kernel(kind))))
    }

    fn attend(
        work: &mut Work<'_, Self>,
        heads: &Arc<Heads>,
        joined: Rows,
        layer: usize,
    ) -> Result<Rows, ForwardError> {
        let (team, plan) = (&mut *work.team, &work.plan);
        let mut joined = Arc::unwrap_or_clone(joined);
        heads.store(team.isa(), work.pages.layer_mut(layer), plan, &mut joined);
        let joined = Arc::new(joined);
        let mixed = heads.attend(team, work.pages.layer(layer), plan, &joined);
        team.reuse(joined);
        Ok(Arc::new(mixed))
    }

    fn norm(&self, team: &mut Team, norm: &NormWeights, rows: &Rows) -> Result<Rows, ForwardError> {
        Ok(Arc::new(norm.apply_rows(team.isa(), rows, norm.width())))
    }

    fn add(&self, team: &mut Team, to: Rows, what: &Rows) -> Result<Rows, ForwardError> {
        let mut sums = Arc::unwrap_or_clone(to);
        norm::add(team.isa(), &mut sums, what);
        Ok(Arc::new(sums))
    }

    fn pick(&self, rows: &Rows, shares: &[Share], width: usize) -> Result<Rows, ForwardError> {
        let chosen = shares.iter().flat_map(|it| &rows[it.row * width..][..width]).copied();
        Ok(Arc::new(chosen.collect()))
    }

    fn add_shares(
        &self,
        sums: Rows,
        made: &Rows,
        shares: &[Share],
        width: usize,
    ) -> Result<Rows, ForwardError> {
        let mut sums = Arc::unwrap_or_clone(sums);
        for (share, made) in shares.iter().zip(made.chunks_exact(width)) {
            let sum = &mut sums[share.row * width..][..width];
            sum.iter_mut().zip(made).for_each(|(sum, made)| *sum += made * share.weight);
        }
        Ok(Arc::new(sums))
    }

    fn reuse(&self, team: &mut Team, rows: Rows) {
        team.reuse(rows);
    }
}
