//! From pairs in a file to packed stacks: every shape is compared with the base before its bytes are
//! read, and every number is looked at.
//!
//! # The order of rows
//!
//! Rotary positions turn pairs of rows of queries and keys: GGUF files of some families keep the two
//! of a pair side by side, Hugging Face keeps them half a head apart ([`RopeStyle`]). An adapter has
//! the order of its source and the base that of its own, so the rows of `B` and the magnitudes are
//! brought into the base's order here: for each head, row `2 i + half` of one is row
//! `half * size / 2 + i` of the other.
//!
//! Some sources fuse matrices: queries, keys and values, or gate and up. Their `A` is then shared,
//! and each part takes its rows of `B`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use commons_kernels::adapt::{Factor, RANK_MAX, RowFactors, Source};
use commons_kernels::matrix::{Matrix, ROWS_PER_GROUP};
use commons_record::Hash;
use commons_record::hash::FieldHasher;

use super::{Adapter, AdapterError, AdapterFacts, Group, Method, Part, Stack, Storage};
use crate::gguf::TensorType;
use crate::settings::{ModelKind, RopeStyle, Settings};
use crate::weights::file::SourceFile;
use crate::weights::{WeightError, Weights, check_finite, content_hash, widen};

/// What a source found: nothing of it is compared with the base yet.
pub(super) struct Listing {
    /// Where the numbers are.
    pub(super) file: SourceFile,
    pub(super) name: String,
    /// The files that name it.
    pub(super) content: Vec<PathBuf>,
    pub(super) is_folder: bool,
    pub(super) claimed_base: Option<String>,
    pub(super) pairs: BTreeMap<(usize, Kind), Pair>,
    /// The order of rows of queries and keys.
    pub(super) style: RopeStyle,
    pub(super) scale: Box<dyn Scale>,
    pub(super) is_rank_stabilised: bool,
}

/// What a pair's product is multiplied by.
pub(super) trait Scale {
    /// For the pair of this tensor, of this rank.
    fn of(&self, name: &str, rank: usize) -> Result<f64, AdapterError>;
}

/// A matrix of a layer that files adapt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Query,
    Key,
    Value,
    /// Queries, keys and values, one below the other.
    Joined,
    Output,
    Gate,
    /// Up, or gate and up one below the other.
    Up,
    Down,
}

/// Which tensor of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Down,
    Up,
    Magnitude,
}

/// One tensor of a file.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) kind: TensorType,
    pub(super) dims: Vec<u64>,
    pub(super) start: u64,
}

/// The tensors of one matrix.
#[derive(Debug, Default)]
pub(super) struct Pair {
    down: Option<Stored>,
    up: Option<Stored>,
    magnitude: Option<Stored>,
}

impl Pair {
    /// Puts a tensor in its place, which must be free.
    pub(super) fn put(&mut self, path: &Path, role: Role, it: Stored) -> Result<(), AdapterError> {
        let place = match role {
            Role::Down => &mut self.down,
            Role::Up => &mut self.up,
            Role::Magnitude => &mut self.magnitude,
        };
        match place {
            Some(first) => Err(AdapterError::Twice {
                path: path.to_owned(),
                first: first.name.clone(),
                second: it.name,
            }),
            None => {
                *place = Some(it);
                Ok(())
            }
        }
    }
}

/// The layer and the matrix of a canonical name, if files adapt such a one.
pub(super) fn locate(name: &str) -> Option<(usize, Kind)> {
    let (layer, part) = name.strip_prefix("blk.")?.strip_suffix(".weight")?.split_once('.')?;
    let number: usize = layer.parse().ok().filter(|number: &usize| number.to_string() == layer)?;
    let kind = match part {
        "attn_q" => Kind::Query,
        "attn_k" => Kind::Key,
        "attn_v" => Kind::Value,
        "attn_qkv" => Kind::Joined,
        "attn_output" => Kind::Output,
        "ffn_gate" => Kind::Gate,
        "ffn_up" => Kind::Up,
        "ffn_down" => Kind::Down,
        _ => return None,
    };
    Some((number, kind))
}

/// Rows of a `B` that change one matrix of the base.
struct Target {
    group: Group,
    /// Which matrix of the group.
    part: usize,
    name: &'static str,
    rows: Range<usize>,
    /// Heads whose rows are turned in pairs.
    turned_heads: Option<usize>,
}

/// The matrices that a pair changes, and how many numbers they read; none if the base has none.
fn targets(settings: &Settings, kind: Kind, outputs: u64) -> Option<(usize, Vec<Target>)> {
    let (width, inner) = (settings.width, settings.feed_forward_len);
    let (queries, keys) = (settings.query_width(), settings.kv_width());
    let target = |group, part, name, rows| Target { group, part, name, rows, turned_heads: None };
    let query = || Target {
        turned_heads: Some(settings.head_count),
        ..target(Group::Inputs, 0, "attn_q", 0..queries)
    };
    let key = || Target {
        turned_heads: Some(settings.kv_head_count),
        ..target(Group::Inputs, 1, "attn_k", 0..keys)
    };
    let value = || target(Group::Inputs, 2, "attn_v", 0..keys);
    let below = |target: Target, first: usize| Target {
        rows: first + target.rows.start..first + target.rows.end,
        ..target
    };
    let is_dense = settings.experts.is_none();
    let up_part = usize::from(settings.is_gated);
    let gate = || target(Group::Inner, 0, "ffn_gate", 0..inner);
    let up = || target(Group::Inner, up_part, "ffn_up", 0..inner);
    Some(match kind {
        Kind::Query => (width, vec![query()]),
        Kind::Key => (width, vec![key()]),
        Kind::Value => (width, vec![value()]),
        Kind::Joined => {
            (width, vec![query(), below(key(), queries), below(value(), queries + keys)])
        }
        Kind::Output => (queries, vec![target(Group::Output, 0, "attn_output", 0..width)]),
        Kind::Gate if is_dense && settings.is_gated => (width, vec![gate()]),
        Kind::Up if is_dense && settings.is_gated && outputs == 2 * inner as u64 => {
            (width, vec![gate(), below(up(), inner)])
        }
        Kind::Up if is_dense => (width, vec![up()]),
        Kind::Down if is_dense => (inner, vec![target(Group::Down, 0, "ffn_down", 0..width)]),
        Kind::Gate | Kind::Up | Kind::Down => return None,
    })
}

/// A pair whose numbers were read.
struct Loaded {
    down: Bytes,
    scale: f32,
    parts: Vec<LoadedPart>,
}

struct LoadedPart {
    target: Target,
    /// The tensor's name, for errors.
    name: String,
    up: Bytes,
    magnitudes: Option<Vec<f32>>,
}

/// Rows of a file.
struct Bytes {
    name: String,
    kind: TensorType,
    rows: usize,
    columns: usize,
    stored: Vec<u8>,
}

impl Bytes {
    fn source(&self) -> Source<'_> {
        Source { format: self.kind.format(), rows: self.rows, bytes: &self.stored }
    }
}

/// Compares everything with the base, reads and packs it.
pub(super) fn build(
    listing: &Listing,
    base: &Weights,
    storage: Storage,
) -> Result<Adapter, AdapterError> {
    // The name of the content takes a while to compute, and somebody waits: both at once.
    let content = listing.content.clone();
    let is_folder = listing.is_folder;
    std::thread::scope(|scope| {
        let name = scope.spawn(move || hash(&content, is_folder));
        let (layers, mut facts) = pack(listing, base, storage)?;
        let name = name.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (facts.adapter, facts.file_size) = name?;
        Ok(Adapter { facts, layers })
    })
}

/// For each layer, for each of [`Group::ALL`], what is changed.
type Layers = Vec<[Option<Stack>; 4]>;

/// All but the name and the size of the content.
fn pack(
    listing: &Listing,
    base: &Weights,
    storage: Storage,
) -> Result<(Layers, AdapterFacts), AdapterError> {
    let settings = base.settings();
    let builder = Builder { listing, base, settings, storage };
    let first = listing.pairs.first_key_value().map(|(_, pair)| pair);
    let Some(first) = first else {
        return Err(AdapterError::Empty { path: listing.file.path().to_owned() });
    };
    if settings.kind == ModelKind::Encoder {
        let any = [&first.down, &first.up, &first.magnitude].into_iter().flatten().next();
        return Err(builder.no_site(any.map_or("", |it| &it.name)));
    }
    let mut layers = Layers::new();
    layers.resize_with(settings.layer_count, Default::default);
    let mut kinds = BTreeSet::new();
    let mut tally = Tally::default();
    for (layer, stacks) in layers.iter_mut().enumerate() {
        let mut loaded = Vec::new();
        for (&(_, kind), pair) in listing.pairs.range((layer, Kind::Query)..=(layer, Kind::Down)) {
            let pair = builder.load(kind, pair)?;
            kinds.extend(
                std::iter::once(pair.down.kind).chain(pair.parts.iter().map(|it| it.up.kind)),
            );
            tally.add(&pair);
            loaded.push(pair);
        }
        for group in Group::ALL {
            stacks[group.index()] = builder.stack(layer, group, &loaded)?;
        }
    }
    if let Some((&(layer, _), pair)) =
        listing.pairs.range((settings.layer_count, Kind::Query)..).next()
    {
        let any = [&pair.down, &pair.up, &pair.magnitude].into_iter().flatten().next();
        let name = any.map_or_else(String::new, |it| it.name.clone());
        let (path, count) = (listing.file.path().to_owned(), settings.layer_count);
        return Err(AdapterError::Layer { path, name, layer, count });
    }
    let precision = kinds.into_iter().map(TensorType::name).collect::<Vec<_>>().join("+");
    let facts = AdapterFacts {
        adapter: Hash::of_content(&[]),
        file_size: 0,
        name: listing.name.clone(),
        precision,
        rank_max: tally.rank_max,
        site_count: tally.site_count,
        parameter_count: tally.parameter_count,
        size_bytes: layers.iter().flatten().flatten().map(Stack::size_bytes).sum(),
        method: match listing.is_rank_stabilised {
            _ if tally.is_dora => Method::Dora,
            true => Method::RsLora,
            false => Method::Lora,
        },
        claimed_base: listing.claimed_base.clone(),
    };
    Ok((layers, facts))
}

/// What is counted on the way.
#[derive(Default)]
struct Tally {
    rank_max: usize,
    site_count: usize,
    parameter_count: u64,
    is_dora: bool,
}

impl Tally {
    fn add(&mut self, pair: &Loaded) {
        let numbers = |bytes: &Bytes| bytes.rows as u64 * bytes.columns as u64;
        self.rank_max = self.rank_max.max(pair.down.rows);
        self.parameter_count += numbers(&pair.down);
        for part in &pair.parts {
            self.site_count += 1;
            self.parameter_count += numbers(&part.up);
            self.parameter_count += part.magnitudes.as_ref().map_or(0, |it| it.len() as u64);
            self.is_dora |= part.magnitudes.is_some();
        }
    }
}

impl Stack {
    fn size_bytes(&self) -> u64 {
        let part = |part: &Part| {
            part.up.size_bytes() + part.row_factors.as_ref().map_or(0, |it| 4 * it.len())
        };
        let parts: usize = self.parts.iter().flatten().map(part).sum();
        (self.down.size_bytes() + parts) as u64
    }
}

/// What building needs to know all the time.
struct Builder<'a> {
    listing: &'a Listing,
    base: &'a Weights,
    settings: &'a Settings,
    storage: Storage,
}

impl Builder<'_> {
    fn path(&self) -> PathBuf {
        self.listing.file.path().to_owned()
    }

    fn no_site(&self, name: &str) -> AdapterError {
        AdapterError::Site { path: self.path(), name: name.to_owned() }
    }

    /// Checks a pair and reads it.
    fn load(&self, kind: Kind, pair: &Pair) -> Result<Loaded, AdapterError> {
        let half = |name: &str, wanted| AdapterError::Half {
            path: self.path(),
            name: name.to_owned(),
            wanted,
        };
        let (down, up) = match (&pair.down, &pair.up, &pair.magnitude) {
            (Some(down), Some(up), _) => (down, up),
            (Some(down), None, _) => return Err(half(&down.name, "B")),
            (None, Some(up), _) => return Err(half(&up.name, "A")),
            (None, None, magnitude) => {
                let name = magnitude.as_ref().map_or("", |it| &it.name);
                return Err(half(name, "A and no B"));
            }
        };
        let outputs = up.dims.first().copied().unwrap_or(0);
        let found = targets(self.settings, kind, outputs);
        let (inputs, targets) = found.ok_or_else(|| self.no_site(&up.name))?;
        let outputs: usize = targets.iter().map(|it| it.rows.len()).sum();
        let rank = usize::try_from(down.dims.first().copied().unwrap_or(0)).unwrap_or(usize::MAX);
        if rank == 0 || rank > RANK_MAX {
            let (path, name) = (self.path(), down.name.clone());
            return Err(AdapterError::Rank { path, name, rank, max: RANK_MAX });
        }
        self.expect_shape(down, &[rank, inputs])?;
        self.expect_shape(up, &[outputs, rank])?;
        let scale = self.listing.scale.of(&down.name, rank)?;
        #[expect(clippy::cast_possible_truncation, reason = "the nearest f32 is what is wanted")]
        let narrow = scale as f32;
        if !narrow.is_finite() {
            let (path, name) = (self.path(), down.name.clone());
            return Err(AdapterError::Scale { path, name, scale });
        }
        let magnitudes =
            pair.magnitude.as_ref().map(|it| self.magnitudes(it, outputs)).transpose()?;
        let down = self.read_factor(down, [rank, inputs])?;
        let up = self.read_factor(up, [outputs, rank])?;
        let parts = targets.into_iter().map(|target| {
            self.part(target, &up, pair.magnitude.as_ref().zip(magnitudes.as_deref()))
        });
        Ok(Loaded { down, scale: narrow, parts: parts.collect() })
    }

    /// The rows of one matrix, in the order of the base.
    fn part(
        &self,
        target: Target,
        up: &Bytes,
        magnitudes: Option<(&Stored, &[f32])>,
    ) -> LoadedPart {
        let base = self.settings.ropes.first().map_or(self.listing.style, |rope| rope.style);
        let order: Vec<usize> = match target.turned_heads {
            Some(heads) if base != self.listing.style => {
                reorder(heads, self.settings.head_size, base)
                    .map(|row| target.rows.start + row)
                    .collect()
            }
            _ => target.rows.clone().collect(),
        };
        let row_size = up.stored.len() / up.rows.max(1);
        let bytes = order.iter().flat_map(|row| &up.stored[row * row_size..(row + 1) * row_size]);
        let mine = Bytes {
            name: up.name.clone(),
            kind: up.kind,
            rows: order.len(),
            columns: up.columns,
            stored: bytes.copied().collect(),
        };
        let name = magnitudes.map_or_else(String::new, |(stored, _)| stored.name.clone());
        let magnitudes = magnitudes.map(|(_, all)| order.iter().map(|&row| all[row]).collect());
        LoadedPart { target, name, up: mine, magnitudes }
    }

    fn expect_shape(&self, stored: &Stored, wanted: &[usize]) -> Result<(), AdapterError> {
        let is_so = stored.dims.len() == wanted.len()
            && stored.dims.iter().zip(wanted).all(|(&found, &wanted)| found == wanted as u64);
        if is_so {
            return Ok(());
        }
        let (path, name, found) = (self.path(), stored.name.clone(), stored.dims.clone());
        Err(AdapterError::Shape { path, name, found, wanted: wanted.to_vec() })
    }

    /// Reads a tensor whose shape was checked; its numbers are finite.
    fn read(&self, it: &Stored, [rows, columns]: [usize; 2]) -> Result<Bytes, AdapterError> {
        let kinds = [TensorType::F32, TensorType::F16, TensorType::BF16, TensorType::Q8_0];
        if !kinds.contains(&it.kind) {
            let (path, name, found) = (self.path(), it.name.clone(), it.kind.to_string());
            return Err(AdapterError::Dtype { path, name, found });
        }
        // The source checked that so many bytes lie inside the file.
        let blocks = (rows * columns) as u64 / it.kind.block_len();
        let size = usize::try_from(blocks * it.kind.block_size()).unwrap_or(usize::MAX);
        let mut bytes = vec![0; size];
        self.listing.file.read_at(it.start, &mut bytes).map_err(|source| AdapterError::Read {
            path: self.path(),
            name: it.name.clone(),
            source,
        })?;
        check_finite(it.kind, columns, &bytes).map_err(|row| AdapterError::NotFinite {
            path: self.path(),
            name: it.name.clone(),
            row,
        })?;
        Ok(Bytes { name: it.name.clone(), kind: it.kind, rows, columns, stored: bytes })
    }

    /// The same, rounded if it was asked for and rows are whole blocks.
    fn read_factor(&self, it: &Stored, shape: [usize; 2]) -> Result<Bytes, AdapterError> {
        let bytes = self.read(it, shape)?;
        let are_whole = (shape[1] as u64).is_multiple_of(TensorType::Q8_0.block_len());
        if self.storage == Storage::AsFile || !are_whole || shape[1] == 0 {
            return Ok(bytes);
        }
        let rounded = bytes.source().to_q8_0(shape[1]);
        let stored =
            rounded.map_err(|source| AdapterError::Pack { name: bytes.name.clone(), source })?;
        Ok(Bytes { kind: TensorType::Q8_0, stored, ..bytes })
    }

    /// One number for each output. Some writers keep a second dimension of one.
    fn magnitudes(&self, stored: &Stored, outputs: usize) -> Result<Vec<f32>, AdapterError> {
        let long: Vec<u64> = stored.dims.iter().copied().filter(|&dim| dim != 1).collect();
        if long != [outputs as u64] && !(outputs == 1 && long.is_empty()) {
            self.expect_shape(stored, &[outputs])?;
        }
        let bytes = self.read(stored, [1, outputs])?;
        widen(bytes.kind, &bytes.stored).ok_or_else(|| AdapterError::Dtype {
            path: self.path(),
            name: stored.name.clone(),
            found: stored.kind.to_string(),
        })
    }

    /// Packs what the pairs of a layer change in one group.
    fn stack(
        &self,
        layer: usize,
        group: Group,
        pairs: &[Loaded],
    ) -> Result<Option<Stack>, AdapterError> {
        let is_here = |pair: &&Loaded| pair.parts.iter().any(|part| part.target.group == group);
        let here: Vec<&Loaded> = pairs.iter().filter(is_here).collect();
        let Some(first) = here.first() else { return Ok(None) };
        let sources: Vec<_> = here.iter().map(|pair| pair.down.source()).collect();
        let pack = |name: &str, source| AdapterError::Pack { name: name.to_owned(), source };
        let down = Factor::stack(&sources, first.down.columns)
            .map_err(|source| pack(&first.down.name, source))?;
        let count = match group {
            Group::Inputs => 3,
            Group::Inner => 1 + usize::from(self.settings.is_gated),
            Group::Output | Group::Down => 1,
        };
        let mut parts: Vec<Option<Part>> = Vec::new();
        parts.resize_with(count, || None);
        let mut start = 0;
        for pair in here {
            for part in pair.parts.iter().filter(|part| part.target.group == group) {
                let up = Factor::pack(part.up.source(), part.up.columns)
                    .map_err(|source| pack(&part.up.name, source))?;
                let mut packed = Part { first: start, up, scale: pair.scale, row_factors: None };
                if let Some(magnitudes) = &part.magnitudes {
                    let factors = self.row_factors(layer, (&packed, part), &down, magnitudes)?;
                    packed.row_factors = Some(factors);
                }
                if parts[part.target.part].replace(packed).is_some() {
                    let (first, second) =
                        (format!("blk.{layer}.{}", part.target.name), part.up.name.clone());
                    return Err(AdapterError::Twice { path: self.path(), first, second });
                }
            }
            start += pair.down.rows;
        }
        Ok(Some(Stack { down, parts }))
    }

    /// What the outputs of a `DoRA` are multiplied by: reads the matrix of the base once.
    fn row_factors(
        &self,
        layer: usize,
        (packed, part): (&Part, &LoadedPart),
        down: &Factor,
        magnitudes: &[f32],
    ) -> Result<Vec<f32>, AdapterError> {
        let name = format!("blk.{layer}.{}.weight", part.target.name);
        let rank = packed.up.columns();
        let rows =
            (packed.first..packed.first + rank).map(|row| down.dequantise_row(row)).collect();
        let mut factors = RowFactors::new(&packed.up, rows, packed.scale);
        let mut out = Vec::with_capacity(magnitudes.len());
        let mut row = vec![0.0; down.columns()];
        for (index, of_group) in magnitudes.chunks(ROWS_PER_GROUP).enumerate() {
            let first = index * ROWS_PER_GROUP;
            let group = base_rows(self.base, &name, first..first + of_group.len(), row.len());
            let group = group.map_err(|source| AdapterError::Base {
                name: name.clone(),
                source: Box::new(source),
            })?;
            for (offset, &magnitude) in of_group.iter().enumerate() {
                group.dequantise_row(offset, &mut row);
                let factor = factors.factor(first + offset, &row, magnitude);
                out.push(factor.ok_or_else(|| AdapterError::Magnitude {
                    name: part.name.clone(),
                    output: first + offset,
                })?);
            }
        }
        Ok(out)
    }
}

/// Some rows of a matrix of the base, as they are computed with.
fn base_rows(
    base: &Weights,
    name: &str,
    rows: Range<usize>,
    columns: usize,
) -> Result<Matrix, WeightError> {
    let missing = || WeightError::Missing { name: name.to_owned() };
    let facts = base.tensor(name).ok_or_else(missing)?;
    if facts.columns != columns {
        let (name, found) = (name.to_owned(), [facts.rows, facts.columns]);
        return Err(WeightError::Shape { name, found, wanted: [facts.rows, columns] });
    }
    let mut bytes = vec![0; rows.len() * facts.row_size()];
    base.read_rows(name, rows.clone(), &mut bytes)?;
    Matrix::pack(facts.kind.format(), rows.len(), columns, &bytes)
        .map_err(|source| WeightError::Pack { name: name.to_owned(), source })
}

/// For each row in the order of `to`, which row of the other order it is.
pub(super) fn reorder(
    heads: usize,
    head_size: usize,
    to: RopeStyle,
) -> impl Iterator<Item = usize> {
    let pairs = head_size / 2;
    (0..heads * head_size).map(move |row| {
        let (head, at) = (row / head_size, row % head_size);
        let from = match to {
            RopeStyle::Interleaved => at % 2 * pairs + at / 2,
            RopeStyle::Split => at % pairs * 2 + at / pairs,
        };
        head * head_size + from
    })
}

/// The name of the adapter's content, and how long that is.
fn hash(content: &[PathBuf], is_folder: bool) -> Result<(Hash, u64), AdapterError> {
    let failed = |source| AdapterError::File(Box::new(source));
    let mut parts = BTreeMap::new();
    for path in content {
        let open = |source| AdapterError::Open { path: path.clone(), source };
        let file = SourceFile::open(path).map_err(open)?;
        let digest = content_hash(&file).map_err(failed)?;
        if !is_folder {
            return Ok((digest, file.len()));
        }
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| AdapterError::Name { path: path.clone() })?;
        parts.insert(name.to_owned(), (file.len(), digest));
    }
    let mut hasher = FieldHasher::new("commons/adapter-folder/1");
    for (name, (len, content)) in &parts {
        hasher.field(name.as_bytes());
        hasher.field(&len.to_le_bytes());
        hasher.field(content.as_bytes());
    }
    Ok((hasher.finish(), parts.values().map(|(len, _)| len).sum()))
}
