//! Settings out of a Hugging Face `config.json`, in the spellings of transformers 4 and 5.
//!
//! Not here: what both sources spell alike (`family.rs`); other files of the folder.

use serde_json::{Map, Value};

use super::error::{inconsistent, unsupported};
use super::family::{CONTEXT_MAX, DIMENSION_MAX, FAMILIES, Heads, Own, Windows, key};
use super::gguf::root;
use super::read::{Key, Reader, positive, typed};
use super::rope::{RopePlan, Scaling, Yarn, long_magnitude};
use super::{Activation, Family, LayerSettings, ModelKind, NormPlaces, Pooling};
use super::{RopeSettings, RopeStyle, Settings, SettingsError};

/// Rotary factors in a list. One is needed for each pair of numbers in a head.
const FACTORS_MAX: usize = 1 << 16;

/// Tokens that end an answer. Published models name up to five.
const END_TOKENS_MAX: usize = 64;

type Object = Map<String, Value>;

/// A key that only `config.json` has.
const fn own(key: &'static str) -> Key {
    ("", key)
}

/// A `config.json`, parsed, and whose family is known.
#[derive(Debug)]
pub(crate) struct Config {
    root: Object,
    pub(crate) family: &'static Family,
}

impl Settings {
    /// Reads the settings of a Hugging Face model.
    pub fn from_config(json: &[u8]) -> Result<Self, SettingsError> {
        Config::parse(json)?.settings()
    }
}

impl Config {
    /// Parses the text and finds the family.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, SettingsError> {
        let mut root: Object =
            serde_json::from_slice(json).map_err(|source| SettingsError::Config { source })?;
        // The spelling of transformers 5.
        if let Some(count) = root.remove("num_local_experts") {
            root.entry("num_experts").or_insert(count);
        }
        let Some(name) = Reader::Config(&root).text(own("model_type"))? else {
            return Err(SettingsError::Missing { key: "model_type".to_owned() });
        };
        let is_it = |family: &&Family| family.config_names.contains(&name);
        match FAMILIES.iter().find(is_it) {
            Some(family) => Ok(Self { root, family }),
            None => Err(SettingsError::Architecture {
                name: name.to_owned(),
                supported: Family::config_names(),
            }),
        }
    }

    /// Whether the output matrix is the embedding, if the file says.
    pub(crate) fn is_tied(&self) -> Result<Option<bool>, SettingsError> {
        let key = "tie_word_embeddings";
        let own = typed(self.text()?, key, "true or false", Value::as_bool)?;
        Ok(own.or(typed(&self.root, key, "true or false", Value::as_bool)?))
    }

    /// Reads the settings.
    pub(crate) fn settings(&self) -> Result<Settings, SettingsError> {
        let (family, object) = (self.family, self.text()?);
        let reader = Reader::Config(object);
        refuse_unsupported(&self.root, object, family)?;
        let heads = Heads::read(&reader, family)?;
        let default_tokens = if family.name == "gemma3" { Some(262_208) } else { None };
        let token_count = match default_tokens {
            Some(default) => {
                reader.optional_count(own("vocab_size"), DIMENSION_MAX)?.unwrap_or(default)
            }
            None => reader.count(own("vocab_size"), DIMENSION_MAX)?,
        };
        let has_bias = reader.flag(own("attention_bias"))?.unwrap_or(false);
        let own = Own {
            token_count,
            ropes: ropes(object, family, heads)?,
            layers: layers(&reader, object, family, heads)?,
            attention_scale: attention_scale(&reader, family, heads)?,
            embedding_scale: self.embedding_scale(heads)?,
            activation: activation(&reader, family)?,
            pooling: (family.kind == ModelKind::Encoder).then_some(Pooling::Mean),
            end_tokens: end_tokens(object)?.or(end_tokens(&self.root)?).unwrap_or_default(),
            has_qkv_bias: family.has_qkv_bias || has_bias,
            experts_normed_default: false,
        };
        family.settings(&reader, heads, own)
    }

    /// The object that describes the text model: models that also see have it inside.
    fn text(&self) -> Result<&Object, SettingsError> {
        let inner = typed(&self.root, "text_config", "an object", Value::as_object)?;
        Ok(inner.unwrap_or(&self.root))
    }

    /// The root of the width, rounded to the type of the weights: so the model was trained.
    fn embedding_scale(&self, heads: Heads) -> Result<Option<f32>, SettingsError> {
        if !self.family.scales_embedding {
            return Ok(None);
        }
        let scale = root(heads.width);
        let dtype = |object| -> Result<Option<&str>, SettingsError> {
            let new = typed(object, "dtype", "a text", Value::as_str)?;
            Ok(new.or(typed(object, "torch_dtype", "a text", Value::as_str)?))
        };
        Ok(Some(match dtype(self.text()?)?.or(dtype(&self.root)?) {
            Some("bfloat16") => half::bf16::from_f32(scale).to_f32(),
            Some("float16") => half::f16::from_f32(scale).to_f32(),
            _ => scale,
        }))
    }
}

/// What would change the numbers and is not computed is refused by name.
fn refuse_unsupported(
    root: &Object,
    object: &Object,
    family: &Family,
) -> Result<(), SettingsError> {
    for object in [root, object] {
        let quantised = typed(object, "quantization_config", "an object", Value::as_object)?;
        if let Some(quantised) = quantised {
            let method = quantised.get("quant_method").and_then(Value::as_str).unwrap_or("?");
            return unsupported(format!("quantisation {method:?} in a Hugging Face folder"));
        }
    }
    for key in ["is_decoder", "add_cross_attention", "use_bidirectional_attention"] {
        if typed(object, key, "true or false", Value::as_bool)? == Some(true) {
            return unsupported(format!("{key} in {:?}", family.name));
        }
    }
    let positions = typed(object, "position_embedding_type", "a text", Value::as_str)?;
    match positions {
        Some(other) if other != "absolute" => unsupported(format!("positions of type {other:?}")),
        _ => refuse_partial_experts(object, family),
    }
}

/// Mixtures in some layers and not in others.
fn refuse_partial_experts(object: &Object, family: &Family) -> Result<(), SettingsError> {
    if !family.has_experts {
        return Ok(());
    }
    let step = Reader::Config(object).whole(own("decoder_sparse_step"))?;
    let dense = typed(object, "mlp_only_layers", "an array", Value::as_array)?;
    if step.is_some_and(|step| step != 1) || dense.is_some_and(|dense| !dense.is_empty()) {
        return unsupported("a mixture of experts in some layers and not in others");
    }
    Ok(())
}

fn activation(reader: &Reader<'_>, family: &Family) -> Result<Activation, SettingsError> {
    let name = reader.text(own("hidden_activation"))?;
    let name = name.or(reader.text(own("hidden_act"))?);
    match name {
        None => Ok(family.activation),
        Some("silu" | "swish") => Ok(Activation::Silu),
        Some("gelu_pytorch_tanh" | "gelu_new" | "gelu_fast") => Ok(Activation::GeluTanh),
        // The first configurations of Gemma say "gelu"; the model was trained with the other.
        Some("gelu") if family.activation == Activation::GeluTanh => Ok(Activation::GeluTanh),
        Some("gelu") => Ok(Activation::GeluErf),
        Some(other) => unsupported(format!("activation {other:?}")),
    }
}

fn attention_scale(
    reader: &Reader<'_>,
    family: &Family,
    heads: Heads,
) -> Result<f64, SettingsError> {
    let Some(default) = family.defaults.query_scalar else {
        return Ok(1.0 / f64::from(root(heads.head_size)));
    };
    let scalar = reader.optional_number(own("query_pre_attn_scalar"))?.unwrap_or(default);
    Ok(1.0 / scalar.sqrt())
}

fn layers(
    reader: &Reader<'_>,
    object: &Object,
    family: &Family,
    heads: Heads,
) -> Result<Vec<LayerSettings>, SettingsError> {
    let stated = reader.optional_count(key::WINDOW, CONTEXT_MAX)?;
    let default = family.defaults.window.filter(|_| reader.implies(key::WINDOW));
    let mut window = stated.or(default);
    if family.windows == Windows::Late && !reader.flag(own("use_sliding_window"))?.unwrap_or(false)
    {
        window = None;
    }
    if window.is_some() && family.has_experts {
        return unsupported(format!("a sliding window in {:?}", family.name));
    }
    if let Some(types) = typed(object, "layer_types", "an array", Value::as_array)? {
        let local = local_layers(types, heads.layer_count)?;
        return Ok(heads.layers(family, window, |index| local[index]));
    }
    let first_late = reader.whole(own("max_window_layers"))?.unwrap_or(28);
    let first_late = usize::try_from(first_late).unwrap_or(usize::MAX);
    match reader.optional_count(own("sliding_window_pattern"), heads.layer_count.max(64) as u64)? {
        Some(every) => Ok(heads.layers(family, window, |index| !(index + 1).is_multiple_of(every))),
        None => Ok(heads.layers(family, window, |index| family.is_local(index, first_late))),
    }
}

fn local_layers(types: &[Value], layer_count: usize) -> Result<Vec<bool>, SettingsError> {
    if types.len() != layer_count {
        let (key, found) = ("layer_types".to_owned(), types.len());
        return Err(SettingsError::Length { key, found, wanted: layer_count });
    }
    let is_local = |kind: &Value| match kind.as_str() {
        Some("sliding_attention") => Ok(true),
        Some("full_attention") => Ok(false),
        _ => unsupported(format!("a layer of type {kind}")),
    };
    types.iter().map(is_local).collect()
}

fn ropes(
    object: &Object,
    family: &Family,
    heads: Heads,
) -> Result<Vec<RopeSettings>, SettingsError> {
    if family.norm_places == NormPlaces::Post {
        return Ok(Vec::new());
    }
    let empty = Object::new();
    let new = typed(object, "rope_parameters", "an object", Value::as_object)?;
    let old = typed(object, "rope_scaling", "an object", Value::as_object)?;
    let rope = new.or(old).unwrap_or(&empty);
    let of_layers =
        |kind| typed(rope, kind, "an object", Value::as_object).map(|it| it.unwrap_or(&empty));
    let is_nested = rope.contains_key("full_attention") || rope.contains_key("sliding_attention");
    if !family.has_local_rope {
        if is_nested {
            return unsupported(format!("rotary positions by layer type in {:?}", family.name));
        }
        return Ok(vec![RopeReader { object, rope, family, heads }.read("rope_theta", None)?]);
    }
    let (global, local) = if is_nested {
        (of_layers("full_attention")?, of_layers("sliding_attention")?)
    } else {
        (rope, &empty)
    };
    let global = RopeReader { object, rope: global, family, heads }.read("rope_theta", None)?;
    let local = RopeReader { object, rope: local, family, heads };
    Ok(vec![global, local.read("rope_local_base_freq", Some(10_000.0))?])
}

/// Reads one set of rotary parameters; what it leaves out stands beside it.
struct RopeReader<'a> {
    object: &'a Object,
    rope: &'a Object,
    family: &'a Family,
    heads: Heads,
}

impl RopeReader<'_> {
    fn read(
        &self,
        base_key: &'static str,
        base_default: Option<f64>,
    ) -> Result<RopeSettings, SettingsError> {
        let rope = Reader::Config(self.rope);
        let object = Reader::Config(self.object);
        let base = rope.optional_number(own("rope_theta"))?;
        let base = base.or(object.optional_number(own(base_key))?);
        let part = own("partial_rotary_factor");
        let part = rope.optional_number(part)?.or(object.optional_number(part)?).unwrap_or(1.0);
        if part > 1.0 {
            let detail = format!("partial_rotary_factor is {part}");
            return inconsistent("rotary positions and head size", detail);
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a part of a head of at most 2^20 numbers, cut as the source cuts it"
        )]
        let turned = (self.heads.head_size as f64 * part) as usize;
        if turned < 2 || !turned.is_multiple_of(2) {
            let detail = format!("turning {turned} of {} numbers", self.heads.head_size);
            return inconsistent("rotary positions and head size", detail);
        }
        let plan = RopePlan {
            style: RopeStyle::Split,
            base: base.or(base_default).unwrap_or(self.family.defaults.rope_base),
            pairs: turned / 2,
            scaling: self.scaling(&rope)?,
        };
        plan.resolve()
    }

    fn scaling(&self, rope: &Reader<'_>) -> Result<Scaling, SettingsError> {
        let kind = rope.text(own("rope_type"))?.or(rope.text(own("type"))?);
        match (kind, self.family.name) {
            (None | Some("default"), _) => Ok(Scaling::None),
            // Early configurations of Phi-3 call it so.
            (Some("longrope"), _) | (Some("su" | "yarn"), "phi3") => self.long_rope(rope),
            (Some("linear"), _) => Ok(Scaling::Linear(rope.number(own("factor"))?)),
            (Some("llama3"), _) => Ok(Scaling::Llama3 {
                factor: rope.number(own("factor"))?,
                low: rope.number(own("low_freq_factor"))?,
                high: rope.number(own("high_freq_factor"))?,
                original: self.original(rope)?,
            }),
            (Some("yarn"), _) => self.yarn(rope),
            (Some(other), _) => unsupported(format!("rotary scaling {other:?}")),
        }
    }

    fn yarn(&self, rope: &Reader<'_>) -> Result<Scaling, SettingsError> {
        let original = self.original(rope)?;
        let factor = rope.optional_number(own("factor"))?;
        let factor = factor.unwrap_or_else(|| self.context_len() / original);
        let scale = rope.optional_number(own("mscale"))?;
        let scale_all = rope.optional_number(own("mscale_all_dim"))?;
        let by =
            |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * libm::log(factor) + 1.0 };
        let magnitude = match (rope.optional_number(own("attention_factor"))?, scale, scale_all) {
            (Some(stated), ..) => stated,
            (None, Some(scale), Some(all)) => by(scale) / by(all),
            _ => Yarn::magnitude_for(factor),
        };
        Ok(Scaling::Yarn(Yarn {
            factor,
            original,
            fast: rope.optional_number(own("beta_fast"))?.unwrap_or(32.0),
            slow: rope.optional_number(own("beta_slow"))?.unwrap_or(1.0),
            truncates: rope.flag(own("truncate"))?.unwrap_or(true),
            magnitude,
        }))
    }

    fn long_rope(&self, rope: &Reader<'_>) -> Result<Scaling, SettingsError> {
        let original = self.original(rope)?;
        let factor = rope.optional_number(own("factor"))?;
        let factor = factor.unwrap_or_else(|| self.context_len() / original);
        let magnitude = rope.optional_number(own("attention_factor"))?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number of positions, at most 2^24"
        )]
        let beyond = original as usize;
        Ok(Scaling::LongRope {
            short: self.factors("short_factor")?,
            long: self.factors("long_factor")?,
            original: beyond,
            magnitude: magnitude.unwrap_or_else(|| long_magnitude(factor, original)),
        })
    }

    fn factors(&self, key: &'static str) -> Result<Vec<f64>, SettingsError> {
        let missing = || SettingsError::Missing { key: key.to_owned() };
        let list = typed(self.rope, key, "an array", Value::as_array)?.ok_or_else(missing)?;
        if list.len() > FACTORS_MAX {
            let (key, found, wanted) = (key.to_owned(), list.len(), self.heads.head_size / 2);
            return Err(SettingsError::Length { key, found, wanted });
        }
        let number = |value: &Value| positive(key, value.as_f64().unwrap_or(f64::NAN));
        list.iter().map(number).collect()
    }

    /// Positions of training: beside the parameters in Phi-3, inside them elsewhere.
    #[expect(clippy::cast_precision_loss, reason = "positions are at most 2^24")]
    fn original(&self, rope: &Reader<'_>) -> Result<f64, SettingsError> {
        let key = own("original_max_position_embeddings");
        let outer = Reader::Config(self.object).optional_count(key, CONTEXT_MAX)?;
        let original = outer.or(rope.optional_count(key, CONTEXT_MAX)?);
        Ok(original.unwrap_or(self.heads.context_len) as f64)
    }

    #[expect(clippy::cast_precision_loss, reason = "positions are at most 2^24")]
    fn context_len(&self) -> f64 {
        self.heads.context_len as f64
    }
}

/// One token or a list of them.
pub(crate) fn end_tokens(object: &Object) -> Result<Option<Vec<u32>>, SettingsError> {
    let key = "eos_token_id";
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let wanted = "a token or a short list of tokens";
    typed(object, key, wanted, |value| match value {
        Value::Array(list) if list.len() <= END_TOKENS_MAX => list.iter().map(id).collect(),
        one => Some(vec![id(one)?]),
    })
}
