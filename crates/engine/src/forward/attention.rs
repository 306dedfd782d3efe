//! The attention part of a layer: several query heads share one key and value head.
//!
//! Keys are turned by their positions and stored in the pages of their sequence; queries are turned
//! where they are used. A query sees the positions of its own sequence, as far as the layer sees.

use std::ops::Range;
use std::sync::Arc;

use commons_kernels::attend::{Attend, Queries, attend};
use commons_kernels::kv::{KvStore, PAGE_LEN};
use commons_kernels::rope::{Pairing, Turns, rotate};
use commons_kernels::{Isa, norm};

use super::adapted::Site;
use super::load::{Loader, Slice};
use super::machine::{Input, Machine, Work};
use super::{ForwardError, Norms, Rows, Segment};
use crate::adapter::Group;
use crate::settings::{ModelKind, RopeSettings, RopeStyle, Settings};
use crate::team::{Bench, Team, Tiles};
use crate::weights::WeightError;

/// Query rows of one sequence that a tile holds: with the heads of a group some hundred queries
/// share each key that is loaded.
const TILE_ROWS: usize = 32;

/// What all layers share about the rows of a batch.
#[derive(Debug)]
pub(super) struct Batch {
    /// For each row: its segment and its position.
    pub(super) places: Vec<(usize, usize)>,
    /// For each segment: the pages of its sequence and how many positions they hold after this.
    pub(super) sequences: Vec<Sequence>,
    /// For each rope of the model, a turn for each row.
    pub(super) turns: Vec<Vec<Turns>>,
    /// Rows of one sequence, a tile each.
    tiles: Vec<Range<usize>>,
}

#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) pages: Vec<u32>,
    len: usize,
}

impl Batch {
    pub(super) fn new(settings: &Settings, segments: &[Segment<'_>]) -> Self {
        let (mut places, mut sequences, mut tiles) = (Vec::new(), Vec::new(), Vec::new());
        for (index, segment) in segments.iter().enumerate() {
            let (first, count) = (places.len(), segment.tokens.len());
            places.extend((0..count).map(|offset| (index, segment.start + offset)));
            let pieces = (0..count).step_by(TILE_ROWS);
            tiles.extend(pieces.map(|at| first + at..first + count.min(at + TILE_ROWS)));
            let pages = segment.pages.to_vec();
            sequences.push(Sequence { pages, len: segment.start + count });
        }
        let turn = |rope: &RopeSettings| {
            let turns = |&(segment, position): &(usize, usize)| {
                let frequencies = rope.frequencies_for(segments[segment].positions_max);
                Turns::new(frequencies, f64::from(rope.magnitude), to_u32(position))
            };
            places.iter().map(turns).collect()
        };
        let turns = settings.ropes.iter().map(turn).collect();
        Self { places, sequences, turns, tiles }
    }

    fn turn(&self, rope: Option<usize>, row: usize) -> Option<&Turns> {
        rope.map(|rope| &self.turns[rope][row])
    }

    /// The positions that a row sees.
    pub(super) fn span(&self, row: usize, window: Option<usize>, kind: ModelKind) -> Range<u32> {
        let (segment, position) = self.places[row];
        match kind {
            ModelKind::Encoder => 0..to_u32(self.sequences[segment].len),
            ModelKind::Decoder => {
                let start = window.map_or(0, |window| (position + 1).saturating_sub(window));
                to_u32(start)..to_u32(position + 1)
            }
        }
    }
}

/// The attention part of one layer.
#[derive(Debug)]
pub(super) struct Attention<M: Machine> {
    /// Queries, keys and values.
    inputs: Arc<M::Stack>,
    output: Arc<M::Stack>,
    heads: Arc<M::Heads>,
}

/// What the heads of a layer need to know besides matrices.
#[derive(Debug)]
pub(super) struct Heads {
    pub(super) settings: Arc<Settings>,
    pub(super) window: Option<usize>,
    pub(super) rope: Option<usize>,
    /// Weights of the norms of each query head and each key head.
    pub(super) head_norms: Option<[Vec<f32>; 2]>,
}

impl<M: Machine> Attention<M> {
    pub(super) fn load(
        machine: &M,
        loader: &Loader<'_>,
        settings: &Arc<Settings>,
        index: usize,
    ) -> Result<Self, WeightError> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let (outer, kv) = (settings.query_width(), settings.kv_width());
        let names = [name("attn_q"), name("attn_k"), name("attn_v"), name("attn_output")];
        let [query, key, value, output] = &names;
        let parts = [Slice::all(query, outer), Slice::all(key, kv), Slice::all(value, kv)];
        let head_norm = |part| loader.vector(&name(part), settings.head_size);
        let head_norms = settings
            .has_head_norms
            .then(|| Ok([head_norm("attn_q_norm.weight")?, head_norm("attn_k_norm.weight")?]))
            .transpose()?;
        let layer = settings.layers[index];
        let heads = Heads {
            settings: Arc::clone(settings),
            window: layer.window,
            rope: layer.rope,
            head_norms,
        };
        Ok(Self {
            inputs: machine.stack(loader, &parts, settings.width)?,
            output: machine.stack(loader, &[Slice::all(output, settings.width)], outer)?,
            heads: machine.keep_heads(heads)?,
        })
    }

    /// The matrix behind the heads.
    pub(super) fn output(&self) -> &Arc<M::Stack> {
        &self.output
    }

    /// All matrices.
    pub(super) fn stacks(&self) -> Vec<&M::Stack> {
        vec![&self.inputs, &self.output]
    }

    /// What the heads make of `rows`, before the output matrix. Stores keys and values on the way.
    pub(super) fn forward(
        &self,
        work: &mut Work<'_, M>,
        norms: &Norms<M>,
        rows: &M::Rows,
        index: usize,
    ) -> Result<M::Rows, ForwardError> {
        let site = Site { mix: &work.mix, layer: index, group: Group::Inputs };
        let input = Input { rows, norm: norms.before.as_ref(), site: Some(site) };
        let joined = work.machine.project(work.team, &self.inputs, input, None)?;
        M::attend(work, &self.heads, joined, index)
    }
}

impl Heads {
    /// Norms and turns keys, in place, and stores them with their values.
    pub(super) fn store(&self, isa: Isa, store: &mut KvStore, batch: &Batch, joined: &mut [f32]) {
        let settings = &self.settings;
        let (outer, kv) = (settings.query_width(), settings.kv_width());
        for (row, joined) in joined.chunks_exact_mut(outer + 2 * kv).enumerate() {
            let (keys, values) = joined[outer..].split_at_mut(kv);
            for head in keys.chunks_exact_mut(settings.head_size) {
                self.prepare(isa, head, 1, batch.turn(self.rope, row));
            }
            let (segment, position) = batch.places[row];
            let page = batch.sequences[segment].pages[position / PAGE_LEN];
            store.write(page, position % PAGE_LEN, keys, values);
        }
    }

    /// One job: each tile is some rows of one sequence and some groups of heads.
    pub(super) fn attend(
        self: &Arc<Self>,
        team: &mut Team,
        store: &Arc<KvStore>,
        batch: &Arc<Batch>,
        joined: &Rows,
    ) -> Vec<f32> {
        let settings = &self.settings;
        let group_width = settings.group_size() * settings.head_size;
        // With many tiles of rows, each takes all heads.
        let is_fine = batch.tiles.len() < 4 * team.threads() && team.threads() > 1;
        let groups = if is_fine { 1 } else { settings.kv_head_count };
        let outer = settings.query_width();
        let starts = (0..outer).step_by(groups * group_width);
        let columns = starts.map(|at| at..outer.min(at + groups * group_width)).collect();
        let tiles = Tiles::of(batch.tiles.clone(), columns);
        let (isa, heads, batch) = (team.isa(), Arc::clone(self), Arc::clone(batch));
        let (store, joined) = (Arc::clone(store), Arc::clone(joined));
        team.run(tiles, move |tile, values, bench| {
            let first = tile.columns.start / group_width;
            for offset in 0..tile.columns.len() / group_width {
                let view =
                    View { isa, batch: &batch, store: &store, joined: &joined, rows: &tile.rows };
                let place = Place { offset: offset * group_width, stride: tile.columns.len() };
                heads.attend_group(&view, first + offset, place, (&mut *values, &mut *bench));
            }
        })
    }
}

/// What a tile reads.
struct View<'a> {
    isa: Isa,
    batch: &'a Batch,
    store: &'a KvStore,
    joined: &'a [f32],
    rows: &'a Range<usize>,
}

/// Where a group of heads goes in the values of a tile.
#[derive(Clone, Copy)]
struct Place {
    offset: usize,
    stride: usize,
}

impl Heads {
    /// Norms a head and turns it.
    fn prepare(&self, isa: Isa, head: &mut [f32], which: usize, turn: Option<&Turns>) {
        if let Some(norms) = &self.head_norms {
            norm::rms_norm_heads(isa, head, &norms[which], self.settings.epsilon);
        }
        if let (Some(turn), Some(rope)) = (turn, self.rope) {
            let pairing = match self.settings.ropes[rope].style {
                RopeStyle::Interleaved => Pairing::Interleaved,
                RopeStyle::Split => Pairing::Split,
            };
            rotate(isa, head, turn, pairing);
        }
    }

    /// What the query heads of one key head make of some rows of one sequence.
    fn attend_group(
        &self,
        view: &View<'_>,
        group: usize,
        place: Place,
        out: (&mut [f32], &mut Bench),
    ) {
        let (values, bench) = out;
        let settings = &*self.settings;
        let (size, heads) = (settings.head_size, settings.group_size());
        let (outer, width) = (settings.query_width(), heads * size);
        let joined_width = outer + 2 * settings.kv_width();
        let count = view.rows.len() * heads;
        if bench.numbers.len() < count * size * 2 {
            bench.numbers.resize(count * size * 2, 0.0);
        }
        let (queries, mixed) = bench.numbers[..count * size * 2].split_at_mut(count * size);
        let mut spans = Vec::with_capacity(count);
        for (row, queries) in view.rows.clone().zip(queries.chunks_exact_mut(width)) {
            queries.copy_from_slice(&view.joined[row * joined_width + group * width..][..width]);
            for head in queries.chunks_exact_mut(size) {
                self.prepare(view.isa, head, 0, view.batch.turn(self.rope, row));
                spans.push(view.batch.span(row, self.window, settings.kind));
            }
        }
        let (segment, _) = view.batch.places[view.rows.start];
        let task = Attend {
            store: view.store,
            pages: &view.batch.sequences[segment].pages,
            head: group,
            scale: settings.attention_scale,
            softcap: settings.attention_softcap,
        };
        let queries = Queries { rows: queries, spans: &spans };
        attend(view.isa, &task, queries, mixed, &mut bench.attend);
        for (index, mixed) in mixed.chunks_exact(width).enumerate() {
            values[index * place.stride + place.offset..][..width].copy_from_slice(mixed);
        }
    }
}

/// Positions lie in a context, which is far shorter.
fn to_u32(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}
