//! The feed-forward part of a layer: dense, or a mixture of experts.

use std::sync::Arc;

use commons_kernels::gate::{self, Activation as Gate};

use super::adapted::{Hidden, Site};
use super::experts::Experts;
use super::linear::{self, Product, Stack};
use super::load::{Loader, Slice};
use super::machine::{Input, Machine, Work};
use super::reader::Reader;
use super::{ForwardError, Last, Norms, close};
use crate::adapter::Group;
use crate::settings::{Activation, Settings};
use crate::team::Team;
use crate::weights::WeightError;

/// The feed-forward part of one layer.
#[derive(Debug)]
pub(super) enum FeedForward<M: Machine> {
    Dense(Dense<M>),
    Experts(Experts<M>),
}

/// `down(activate(gate(x)) * up(x))`, or `down(activate(up(x)))` without a gate.
#[derive(Debug)]
pub(super) struct Dense<M: Machine> {
    /// Gate and up, or up alone.
    inner: Arc<M::Stack>,
    down: Arc<M::Stack>,
    activation: Activation,
}

impl<M: Machine> FeedForward<M> {
    pub(super) fn load(
        machine: &M,
        loader: &Loader<'_>,
        settings: &Settings,
        index: usize,
    ) -> Result<Self, WeightError> {
        if let Some(experts) = &settings.experts {
            return Experts::load(machine, (loader, settings), *experts, index).map(Self::Experts);
        }
        let (width, len) = (settings.width, settings.feed_forward_len);
        let name = |part: &str| format!("blk.{index}.{part}");
        let (gate, up) = (name("ffn_gate"), name("ffn_up"));
        let gated = [Slice::all(&gate, len), Slice::all(&up, len)];
        let parts = if settings.is_gated { &gated[..] } else { &gated[1..] };
        Ok(Self::Dense(Dense {
            inner: machine.stack(loader, parts, width)?,
            down: machine.stack(loader, &[Slice::all(&name("ffn_down"), width)], len)?,
            activation: settings.activation,
        }))
    }

    /// Adds what this part makes of `rows` to them.
    pub(super) fn forward(
        &self,
        work: &mut Work<'_, M>,
        norms: &Norms<M>,
        rows: M::Rows,
        index: usize,
    ) -> Result<M::Rows, ForwardError> {
        match self {
            Self::Dense(dense) => {
                let site = Site { mix: &work.mix, layer: index, group: Group::Inner };
                let input = Input { rows: &rows, norm: norms.before.as_ref(), site: Some(site) };
                let inner = work.machine.inner(work.team, &dense.inner, input, dense.activation)?;
                let last = &Last { stack: &dense.down, layer: index, group: Group::Down };
                close(work, norms, last, inner, rows)
            }
            Self::Experts(experts) => experts.forward(work, norms, rows),
        }
    }

    /// All matrices.
    pub(super) fn stacks(&self) -> Vec<&M::Stack> {
        match self {
            Self::Dense(dense) => vec![&dense.inner, &dense.down],
            Self::Experts(experts) => experts.stacks(),
        }
    }
}

/// The kernel of an activation.
pub(super) fn kernel(activation: Activation) -> Gate {
    match activation {
        Activation::Silu => Gate::Silu,
        Activation::GeluTanh => Gate::GeluTanh,
        Activation::GeluErf => Gate::GeluErf,
    }
}

/// The numbers between the two halves: one job.
pub(super) fn inner(
    team: &mut Team,
    stack: &Arc<Stack>,
    (reader, hidden): (Reader, Option<Hidden>),
    kind: Gate,
) -> Vec<f32> {
    let (isa, stack) = (team.isa(), Arc::clone(stack));
    let len = stack.parts()[0].outputs();
    let tiles = linear::cut(reader.row_count(), &[len], team.threads());
    let reader = reader.ready(&tiles, isa);
    team.run(tiles, move |tile, values, bench| {
        let product = Product { isa, block: reader.block(&tile.rows), hidden: hidden.as_ref() };
        if stack.parts().len() < 2 {
            stack.multiply(0, product, tile, values);
            return gate::activate(isa, kind, values);
        }
        if bench.numbers.len() < 2 * values.len() {
            bench.numbers.resize(2 * values.len(), 0.0);
        }
        let (gates, ups) = bench.numbers[..2 * values.len()].split_at_mut(values.len());
        stack.multiply(0, product, tile, gates);
        stack.multiply(1, product, tile, ups);
        gate::gate(isa, kind, gates, ups, values);
    })
}
