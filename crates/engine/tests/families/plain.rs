//! A forward pass written for reading: one sequence, all positions, f64, no cache, no threads.
//!
//! It computes what `Settings` says from what `Weights` holds, line by line, for every family.
#![expect(clippy::cast_precision_loss, reason = "positions and sizes here are small")]

use commons_engine::settings::{
    Activation, ModelKind, Norm, NormPlaces, RopeSettings, RopeStyle, Settings,
};
use commons_engine::weights::{WeightError, Weights, check_finite};

use commons_kernels::{ActivationKind, Activations, Format, Isa};

use crate::blocks::widen;

type Row = Vec<f64>;

/// A matrix as its rows, and its bias.
struct Matrix {
    rows: Vec<Row>,
    bias: Option<Row>,
    rounding: Option<ActivationKind>,
}

/// Weight and bias of a norm.
struct NormWeights(Row, Option<Row>);

struct Layer {
    norms: [Option<NormWeights>; 4],
    heads: [Option<NormWeights>; 2],
    query: Matrix,
    key: Matrix,
    value: Matrix,
    output: Matrix,
    feed_forward: Vec<FeedForward>,
    router: Option<Matrix>,
}

struct FeedForward {
    gate: Option<Matrix>,
    up: Matrix,
    down: Matrix,
}

/// A model in plain numbers.
pub(crate) struct Plain {
    settings: Settings,
    embedding: Vec<Row>,
    positions: Option<Vec<Row>>,
    kinds: Option<Vec<Row>>,
    first_norm: Option<NormWeights>,
    layers: Vec<Layer>,
    last_norm: Option<NormWeights>,
    output: Option<Matrix>,
}

/// Takes tensors by name.
struct Taker<'a> {
    weights: &'a Weights,
    settings: &'a Settings,
    rounds: bool,
}

impl Taker<'_> {
    fn rows(&self, name: &str, count: usize, len: usize) -> Result<Vec<Row>, WeightError> {
        let facts = self.weights.matrix(name, count, len)?;
        let mut bytes = vec![0; facts.row_size() * count];
        self.weights.read_rows(name, 0..count, &mut bytes)?;
        assert_eq!(check_finite(facts.kind, len, &bytes), Ok(()), "{name}");
        Ok(widen(facts.kind, &bytes).chunks(len).map(<[f64]>::to_vec).collect())
    }

    fn vector(&self, name: &str, len: usize) -> Result<Option<Row>, WeightError> {
        let vector = self.weights.optional_vector(name, len)?;
        Ok(vector.map(|vector| vector.into_iter().map(f64::from).collect()))
    }

    fn matrix(&self, stem: &str, count: usize, len: usize) -> Result<Matrix, WeightError> {
        let rows = self.rows(&format!("{stem}.weight"), count, len)?;
        let rounding = self.rounding(&format!("{stem}.weight"));
        Ok(Matrix { rows, bias: self.vector(&format!("{stem}.bias"), count)?, rounding })
    }

    /// How rows are rounded before they are multiplied with this matrix, if they are.
    fn rounding(&self, name: &str) -> Option<ActivationKind> {
        let kind = self.weights.tensor(name)?.kind;
        let format = Format::ALL.into_iter().find(|format| format.name() == kind.name());
        let kind =
            format.expect("every type of a file is a format of the kernels").activation_kind();
        (self.rounds && kind != ActivationKind::Floats).then_some(kind)
    }

    fn norm(&self, stem: &str, len: usize) -> Result<NormWeights, WeightError> {
        let weight = self.weights.vector(&format!("{stem}.weight"), len)?;
        let weight = weight.into_iter().map(f64::from).collect();
        Ok(NormWeights(weight, self.vector(&format!("{stem}.bias"), len)?))
    }

    fn layer(&self, index: usize) -> Result<Layer, WeightError> {
        let it = self.settings;
        let name = |part: &str| format!("blk.{index}.{part}");
        let places: [&str; 4] = match it.norm_places {
            NormPlaces::Pre => ["attn_norm", "", "ffn_norm", ""],
            NormPlaces::PreAndPost => {
                ["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"]
            }
            NormPlaces::Post => ["", "attn_output_norm", "", "layer_output_norm"],
        };
        let mut norms = [None, None, None, None];
        for (norm, place) in norms.iter_mut().zip(places) {
            if !place.is_empty() {
                *norm = Some(self.norm(&name(place), it.width)?);
            }
        }
        let mut heads = [None, None];
        if it.has_head_norms {
            heads = [
                Some(self.norm(&name("attn_q_norm"), it.head_size)?),
                Some(self.norm(&name("attn_k_norm"), it.head_size)?),
            ];
        }
        let layer = Layer {
            norms,
            heads,
            query: self.matrix(&name("attn_q"), it.query_width(), it.width)?,
            key: self.matrix(&name("attn_k"), it.kv_width(), it.width)?,
            value: self.matrix(&name("attn_v"), it.kv_width(), it.width)?,
            output: self.matrix(&name("attn_output"), it.width, it.query_width())?,
            feed_forward: self.feed_forward(index)?,
            router: match it.experts {
                Some(experts) => {
                    Some(self.matrix(&name("ffn_gate_inp"), experts.count, it.width)?)
                }
                None => None,
            },
        };
        assert!(!it.has_qkv_bias || layer.query.bias.is_some(), "a bias is missing");
        Ok(layer)
    }

    fn feed_forward(&self, index: usize) -> Result<Vec<FeedForward>, WeightError> {
        let it = self.settings;
        let (width, inner) = (it.width, it.feed_forward_len);
        let Some(experts) = it.experts else {
            let matrix =
                |part: &str, rows, len| self.matrix(&format!("blk.{index}.{part}"), rows, len);
            let gate = it.is_gated.then(|| matrix("ffn_gate", inner, width)).transpose()?;
            let up = matrix("ffn_up", inner, width)?;
            return Ok(vec![FeedForward { gate, up, down: matrix("ffn_down", width, inner)? }]);
        };
        let stacked = |part: &str, rows: usize, len| -> Result<Vec<Matrix>, WeightError> {
            let name = format!("blk.{index}.{part}.weight");
            let all = self.rows(&name, experts.count * rows, len)?;
            let rounding = self.rounding(&name);
            let one = |rows: &[Row]| Matrix { rows: rows.to_vec(), bias: None, rounding };
            Ok(all.chunks(rows).map(one).collect())
        };
        let gates = stacked("ffn_gate_exps", inner, width)?;
        let ups = stacked("ffn_up_exps", inner, width)?;
        let downs = stacked("ffn_down_exps", width, inner)?;
        let all = gates.into_iter().zip(ups).zip(downs);
        Ok(all.map(|((gate, up), down)| FeedForward { gate: Some(gate), up, down }).collect())
    }
}

impl Plain {
    /// The numbers as they are in the file, and exact products.
    pub(crate) fn load(weights: &Weights) -> Result<Self, WeightError> {
        Self::take(&Taker { weights, settings: weights.settings(), rounds: false })
    }

    /// The same, but that rows are rounded as the file's formats ask before each product.
    pub(crate) fn load_rounding(weights: &Weights) -> Result<Self, WeightError> {
        Self::take(&Taker { weights, settings: weights.settings(), rounds: true })
    }

    fn take(take: &Taker<'_>) -> Result<Self, WeightError> {
        let (weights, it) = (take.weights, take.settings);
        let is_decoder = it.kind == ModelKind::Decoder;
        let table = |name: &str, count: usize| -> Result<Option<Vec<Row>>, WeightError> {
            (!is_decoder).then(|| take.rows(name, count, it.width)).transpose()
        };
        let kinds = weights.tensor("token_types.weight").map_or(0, |facts| facts.rows);
        let has_output = weights.tensor("output.weight").is_some();
        Ok(Self {
            embedding: take.rows("token_embd.weight", it.token_count, it.width)?,
            positions: table("position_embd.weight", it.context_len)?,
            kinds: table("token_types.weight", kinds)?,
            first_norm: (!is_decoder)
                .then(|| take.norm("token_embd_norm", it.width))
                .transpose()?,
            layers: (0..it.layer_count).map(|index| take.layer(index)).collect::<Result<_, _>>()?,
            last_norm: is_decoder.then(|| take.norm("output_norm", it.width)).transpose()?,
            // A file without an output matrix uses the embedding for both.
            output: match (is_decoder, has_output) {
                (false, _) => None,
                (true, true) => Some(take.matrix("output", it.token_count, it.width)?),
                (true, false) => Some(take.matrix("token_embd", it.token_count, it.width)?),
            },
            settings: it.clone(),
        })
    }

    /// The row behind each token, before the last norm.
    pub(crate) fn forward(&self, tokens: &[u32]) -> Vec<Row> {
        let it = &self.settings;
        let scale = it.embedding_scale.map_or(1.0, f64::from);
        let mut rows: Vec<Row> = Vec::new();
        for (at, &token) in tokens.iter().enumerate() {
            let mut row: Row = self.embedding[token as usize].iter().map(|x| x * scale).collect();
            for table in
                [self.positions.as_ref().map(|it| &it[at]), self.kinds.as_ref().map(|it| &it[0])]
            {
                row = table.map_or(row.clone(), |more| add(&row, more));
            }
            rows.push(self.norm(self.first_norm.as_ref(), &row));
        }
        for (index, layer) in self.layers.iter().enumerate() {
            let attended = self.attention(layer, index, &rows);
            rows = self.join(layer, 0, &rows, attended);
            let inner = rows
                .iter()
                .map(|row| self.feed_forward(layer, &self.norm(layer.norms[2].as_ref(), row)));
            let inner = inner.collect();
            rows = self.join(layer, 2, &rows, inner);
        }
        rows
    }

    /// The logits behind a row.
    pub(crate) fn logits(&self, row: &[f64]) -> Row {
        let row = self.norm(self.last_norm.as_ref(), row);
        let logits = self.output.as_ref().map(|output| output.multiply(&row)).unwrap_or_default();
        logits.into_iter().map(|logit| cap(logit, self.settings.logit_softcap)).collect()
    }

    /// `x + post(f)`, or `post(x + f)`.
    fn join(&self, layer: &Layer, place: usize, rows: &[Row], inner: Vec<Row>) -> Vec<Row> {
        let post = layer.norms[place + 1].as_ref();
        let is_last = self.settings.norm_places == NormPlaces::Post;
        let join = |(row, inner): (&Row, Row)| {
            if is_last {
                self.norm(post, &add(row, &inner))
            } else {
                add(row, &self.norm(post, &inner))
            }
        };
        rows.iter().zip(inner).map(join).collect()
    }

    fn norm(&self, norm: Option<&NormWeights>, row: &[f64]) -> Row {
        let Some(NormWeights(weight, bias)) = norm else { return row.to_vec() };
        let count = row.len() as f64;
        let mean = match self.settings.norm {
            Norm::Rms => 0.0,
            Norm::Layer => row.iter().sum::<f64>() / count,
        };
        let square = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
        let scale = 1.0 / (square + f64::from(self.settings.epsilon)).sqrt();
        let normed: Row = row.iter().zip(weight).map(|(x, w)| (x - mean) * scale * w).collect();
        bias.as_ref().map_or(normed.clone(), |bias| add(&normed, bias))
    }

    fn attention(&self, layer: &Layer, index: usize, rows: &[Row]) -> Vec<Row> {
        let it = &self.settings;
        let here = it.layers[index];
        let rope = here.rope.map(|rope| &it.ropes[rope]);
        let heads = |matrix: &Matrix, norm: Option<&NormWeights>, rope: Option<&RopeSettings>| {
            let turn = |(at, row): (usize, &Row)| -> Vec<Row> {
                let row = matrix.multiply(&self.norm(layer.norms[0].as_ref(), row));
                let heads = row.chunks(it.head_size).map(|head| self.norm(norm, head));
                heads.map(|head| turned(&head, at, rows.len(), rope)).collect()
            };
            rows.iter().enumerate().map(turn).collect::<Vec<_>>()
        };
        let queries = heads(&layer.query, layer.heads[0].as_ref(), rope);
        let keys = heads(&layer.key, layer.heads[1].as_ref(), rope);
        let values = heads(&layer.value, None, None);
        let sees = |at: usize, other: usize| match it.kind {
            ModelKind::Encoder => true,
            ModelKind::Decoder => {
                other <= at && here.window.is_none_or(|window| at - other < window)
            }
        };
        let attend = |(at, query): (usize, &Vec<Row>)| {
            let one = |(head, query): (usize, &Row)| {
                let group = head / it.group_size();
                let others: Vec<usize> = (0..rows.len()).filter(|&other| sees(at, other)).collect();
                let scores = others.iter().map(|&other| {
                    let score = dot(query, &keys[other][group]) * f64::from(it.attention_scale);
                    cap(score, it.attention_softcap)
                });
                let shares = softmax(&scores.collect::<Row>());
                let mut sum = vec![0.0; it.head_size];
                for (&other, share) in others.iter().zip(shares) {
                    let value = &values[other][group];
                    sum.iter_mut().zip(value).for_each(|(sum, value)| *sum += share * value);
                }
                sum
            };
            layer.output.multiply(&query.iter().enumerate().flat_map(one).collect::<Row>())
        };
        queries.iter().enumerate().map(attend).collect()
    }

    fn feed_forward(&self, layer: &Layer, row: &[f64]) -> Row {
        let (Some(router), Some(experts)) = (&layer.router, self.settings.experts) else {
            return self.expert(&layer.feed_forward[0], row);
        };
        let shares = softmax(&router.multiply(row));
        let mut order: Vec<usize> = (0..shares.len()).collect();
        order.sort_by(|&a, &b| shares[b].total_cmp(&shares[a]));
        order.truncate(experts.used);
        let sum: f64 = order.iter().map(|&expert| shares[expert]).sum();
        let divisor = if experts.is_normed { sum } else { 1.0 };
        let mut out = vec![0.0; row.len()];
        for expert in order {
            let inner = self.expert(&layer.feed_forward[expert], row);
            let share = shares[expert] / divisor;
            out.iter_mut().zip(inner).for_each(|(out, inner)| *out += share * inner);
        }
        out
    }

    fn expert(&self, part: &FeedForward, row: &[f64]) -> Row {
        let up = part.up.multiply(row);
        let active = |row: Row| row.into_iter().map(|x| activate(self.settings.activation, x));
        let inner: Row = match &part.gate {
            Some(gate) => active(gate.multiply(row)).zip(up).map(|(gate, up)| gate * up).collect(),
            None => active(up).collect(),
        };
        part.down.multiply(&inner)
    }
}

impl Matrix {
    fn multiply(&self, row: &[f64]) -> Row {
        let row = &*self.rounding.map_or(row.to_vec(), |kind| rounded(kind, row));
        let product: Row = self.rows.iter().map(|column| dot(column, row)).collect();
        self.bias.as_ref().map_or(product.clone(), |bias| add(&product, bias))
    }
}

/// A row as a product with quantised weights has it: 8 bits, by blocks.
fn rounded(kind: ActivationKind, row: &[f64]) -> Row {
    #[expect(clippy::cast_possible_truncation, reason = "the engine's rows are of f32")]
    let narrow: Vec<f32> = row.iter().map(|&number| number as f32).collect();
    let mut rounded = Activations::new(kind, row.len()).expect("whole blocks");
    rounded.set(Isa::SCALAR, &narrow).expect("a whole row");
    rounded.dequantise_row(0).into_iter().map(f64::from).collect()
}

fn turned(head: &[f64], at: usize, count: usize, rope: Option<&RopeSettings>) -> Row {
    let mut head = head.to_vec();
    let Some(rope) = rope else { return head };
    for (pair, frequency) in rope.frequencies_for(count).iter().enumerate() {
        let (first, second) = match rope.style {
            RopeStyle::Interleaved => (2 * pair, 2 * pair + 1),
            RopeStyle::Split => (pair, pair + rope.pairs()),
        };
        let (sine, cosine) = (at as f64 * frequency).sin_cos();
        let (x, y) = (head[first], head[second]);
        head[first] = f64::from(rope.magnitude) * (x * cosine - y * sine);
        head[second] = f64::from(rope.magnitude) * (x * sine + y * cosine);
    }
    head
}

/// The mean of all rows.
pub(crate) fn mean(rows: &[Row]) -> Row {
    let mut sum = vec![0.0; rows[0].len()];
    for row in rows {
        sum = add(&sum, row);
    }
    sum.into_iter().map(|sum| sum / rows.len() as f64).collect()
}

fn softmax(row: &[f64]) -> Row {
    let most = row.iter().fold(f64::NEG_INFINITY, |most, &x| most.max(x));
    let powers: Row = row.iter().map(|x| (x - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

fn cap(value: f64, cap: Option<f32>) -> f64 {
    cap.map_or(value, |cap| f64::from(cap) * (value / f64::from(cap)).tanh())
}

fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let root = (2.0 / std::f64::consts::PI).sqrt();
            0.5 * x * (1.0 + (root * (x + 0.044_715 * x.powi(3))).tanh())
        }
        Activation::GeluErf => 0.5 * x * (1.0 + error_function(x / 2f64.sqrt())),
    }
}

/// The integral by Simpson's rule: slow, and exact to twelve digits.
fn error_function(x: f64) -> f64 {
    let steps = 400;
    let step = x / f64::from(steps);
    let bell = |index: i32| (-(f64::from(index) * step).powi(2)).exp();
    let inner = |index: i32| if index % 2 == 1 { 4.0 } else { 2.0 } * bell(index);
    let sum = bell(0) + bell(steps) + (1..steps).map(inner).sum::<f64>();
    sum * step / 3.0 * 2.0 / std::f64::consts::PI.sqrt()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(a: &[f64], b: &[f64]) -> Row {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}
