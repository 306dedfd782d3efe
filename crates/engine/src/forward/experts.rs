//! A mixture of feed-forward parts: each token is computed by the few that a router chooses.

use std::sync::Arc;

use commons_kernels::gate::Activation as Gate;
use commons_kernels::softmax;

use super::feed::{inner, kernel};
use super::linear::{self, Linear, Stack};
use super::load::Loader;
use super::reader::Reader;
use super::{NormWeights, Norms, Rows};
use crate::settings::{self, Settings};
use crate::team::Team;
use crate::weights::WeightError;

/// The experts of one layer.
#[derive(Debug)]
pub(super) struct Experts {
    shape: settings::Experts,
    gate: Gate,
    router: Arc<Stack>,
    parts: Vec<Expert>,
}

#[derive(Debug)]
struct Expert {
    /// Gate and up.
    inner: Arc<Stack>,
    down: Arc<Stack>,
}

/// A row that an expert computes, and how much of the result counts.
#[derive(Clone, Copy, Debug)]
struct Share {
    row: usize,
    weight: f32,
}

impl Experts {
    pub(super) fn load(
        loader: &Loader<'_>,
        settings: &Settings,
        shape: settings::Experts,
        index: usize,
    ) -> Result<Self, WeightError> {
        let (width, len, count) = (settings.width, shape.feed_forward_len, shape.count);
        let name = |part: &str| format!("blk.{index}.{part}");
        let slice = |part: &str, expert: usize, outputs: usize, inputs: usize| {
            let rows = expert * outputs..(expert + 1) * outputs;
            let name = name(&format!("{part}.weight"));
            let matrix = loader.matrix(&name, rows, count * outputs, inputs)?;
            Ok::<_, WeightError>(Linear { matrix: Arc::new(matrix), bias: None })
        };
        let expert = |expert| {
            let gate = slice("ffn_gate_exps", expert, len, width)?;
            let up = slice("ffn_up_exps", expert, len, width)?;
            let down = slice("ffn_down_exps", expert, width, len)?;
            let (inner, down) = (Stack::new(vec![gate, up]), Stack::new(vec![down]));
            Ok(Expert { inner: Arc::new(inner), down: Arc::new(down) })
        };
        Ok(Self {
            shape,
            gate: kernel(settings.activation),
            router: loader.stack(&[(&name("ffn_gate_inp"), count)], width)?,
            parts: (0..count).map(expert).collect::<Result<_, WeightError>>()?,
        })
    }

    /// Bytes of all matrices.
    pub(super) fn size_bytes(&self) -> usize {
        let expert = |expert: &Expert| expert.inner.size_bytes() + expert.down.size_bytes();
        self.router.size_bytes() + self.parts.iter().map(expert).sum::<usize>()
    }

    /// Adds to `rows` what the chosen experts make of them, in the order of the experts.
    pub(super) fn forward(&self, team: &mut Team, norms: &Norms, rows: &Rows) -> Rows {
        let width = self.parts[0].inner.parts()[0].matrix.columns();
        let normed = Arc::new(norm_rows(team, norms.before.as_ref(), rows, width));
        let reader = Reader::new(&normed, None, &self.router);
        let mut scores = linear::project(team, &self.router, reader, None);
        let shares = self.choose(team, &mut scores);
        let mut sums = (**rows).clone();
        for (expert, shares) in self.parts.iter().zip(&shares) {
            if shares.is_empty() {
                continue;
            }
            let chosen = shares.iter().flat_map(|it| &normed[it.row * width..][..width]).copied();
            let chosen = Arc::new(chosen.collect::<Vec<_>>());
            let reader = Reader::new(&chosen, None, &expert.inner);
            let between = Arc::new(inner(team, &expert.inner, reader, self.gate));
            let reader = Reader::new(&between, None, &expert.down);
            let made = linear::project(team, &expert.down, reader, None);
            for (share, made) in shares.iter().zip(made.chunks_exact(width)) {
                let sum = &mut sums[share.row * width..][..width];
                sum.iter_mut().zip(made).for_each(|(sum, made)| *sum += made * share.weight);
            }
        }
        Arc::new(sums)
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

fn norm_rows(team: &Team, norm: Option<&Arc<NormWeights>>, rows: &[f32], width: usize) -> Vec<f32> {
    let mut normed = rows.to_vec();
    if let Some(norm) = norm {
        let pairs = rows.chunks_exact(width).zip(normed.chunks_exact_mut(width));
        pairs.for_each(|(row, out)| norm.apply(team.isa(), row, out));
    }
    normed
}
