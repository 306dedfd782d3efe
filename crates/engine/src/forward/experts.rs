//! A mixture of feed-forward parts: each token is computed by the few that a router chooses.

use std::sync::Arc;

use commons_kernels::softmax;

use super::load::{Loader, Slice};
use super::machine::{Input, Machine, Work};
use super::{ForwardError, Norms};
use crate::settings::{self, Activation, Settings};
use crate::team::Team;
use crate::weights::WeightError;

/// The experts of one layer.
#[derive(Debug)]
pub(super) struct Experts<M: Machine> {
    shape: settings::Experts,
    width: usize,
    activation: Activation,
    router: Arc<M::Stack>,
    parts: Vec<Expert<M>>,
}

#[derive(Debug)]
struct Expert<M: Machine> {
    /// Gate and up.
    inner: Arc<M::Stack>,
    down: Arc<M::Stack>,
}

/// A row that an expert computes, and how much of the result counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) row: usize,
    pub(super) weight: f32,
}

impl<M: Machine> Experts<M> {
    pub(super) fn load(
        machine: &M,
        (loader, settings): (&Loader<'_>, &Settings),
        shape: settings::Experts,
        index: usize,
    ) -> Result<Self, WeightError> {
        let (width, len, count) = (settings.width, shape.feed_forward_len, shape.count);
        let name = |part: &str| format!("blk.{index}.{part}");
        let [gates, ups, downs] = ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"].map(name);
        let expert = |expert: usize| {
            let slice = |name, outputs: usize| {
                let rows = expert * outputs..(expert + 1) * outputs;
                Slice { name, rows, rows_all: count * outputs }
            };
            let inner = machine.stack(loader, &[slice(&gates, len), slice(&ups, len)], width)?;
            let down = machine.stack(loader, &[slice(&downs, width)], len)?;
            Ok(Expert { inner, down })
        };
        Ok(Self {
            shape,
            width,
            activation: settings.activation,
            router: machine.stack(loader, &[Slice::all(&name("ffn_gate_inp"), count)], width)?,
            parts: (0..count).map(expert).collect::<Result<_, WeightError>>()?,
        })
    }

    /// All matrices.
    pub(super) fn stacks(&self) -> Vec<&M::Stack> {
        let experts = self.parts.iter().flat_map(|it| [&*it.inner, &*it.down]);
        std::iter::once(&*self.router).chain(experts).collect()
    }

    /// Adds to `rows` what the chosen experts make of them, in the order of the experts.
    pub(super) fn forward(
        &self,
        work: &mut Work<'_, M>,
        norms: &Norms<M>,
        rows: M::Rows,
    ) -> Result<M::Rows, ForwardError> {
        let (machine, width) = (work.machine, self.width);
        let team = &mut *work.team;
        let normed = match &norms.before {
            Some(norm) => machine.norm(team, norm, &rows)?,
            None => rows.clone(),
        };
        let input = Input { rows: &normed, norm: None, site: None };
        let scores = machine.project(team, &self.router, input, None)?;
        let mut scores = machine.download_all(scores)?;
        let shares = self.choose(team, &mut scores);
        let mut sums = rows;
        for (expert, shares) in self.parts.iter().zip(&shares) {
            if shares.is_empty() {
                continue;
            }
            let chosen = machine.pick(&normed, shares, width)?;
            let input = Input { rows: &chosen, norm: None, site: None };
            let between = machine.inner(team, &expert.inner, input, self.activation)?;
            let input = Input { rows: &between, norm: None, site: None };
            let made = machine.project(team, &expert.down, input, None)?;
            sums = machine.add_shares(sums, &made, shares, width)?;
        }
        Ok(sums)
    }

    /// For each expert, the rows that it computes. Of equal scores the first expert wins.
    fn choose(&self, team: &Team, scores: &mut [f32]) -> Vec<Vec<Share>> {
        let mut shares = vec![Vec::new(); self.shape.count];
        for (row, scores) in scores.chunks_exact_mut(self.shape.count).enumerate() {
            softmax::softmax(team.isa(), scores);
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
            order.truncate(self.shape.used);
            let total: f32 = order.iter().map(|&expert| scores[expert]).sum();
            for expert in order {
                let weight = scores[expert];
                let weight = if self.shape.is_normed { weight / total } else { weight };
                shares[expert].push(Share { row, weight });
            }
        }
        shares
    }
}
