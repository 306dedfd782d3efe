//! What families have in common, and what sets each apart: one table.
//!
//! Not here: how a value is spelled in a source (`gguf.rs`, `config.rs`).

use super::error::{inconsistent, unsupported};
use super::read::{Key, Reader};
use super::{
    Activation, Experts, LayerSettings, ModelKind, Norm, NormPlaces, Pooling, RopeSettings,
    RopeStyle, Settings, SettingsError,
};

/// A dimension above this is not a model's. The widest published layer has 53 248.
pub(super) const DIMENSION_MAX: u64 = 1 << 20;

/// Numbers in a head. The widest published head has 576.
const HEAD_SIZE_MAX: u64 = 1 << 14;

/// Layers. The deepest published dense model has 126.
const LAYERS_MAX: u64 = 1_024;

/// Positions. The longest published context has 10 Mi.
pub(super) const CONTEXT_MAX: u64 = 16 << 20;

/// Experts of one layer. The most published are 512.
const EXPERTS_MAX: u64 = 4_096;

/// Numbers in the row of all heads of a token, and in that of all experts' halves: a product of
/// two dimensions, far above every model, that keeps later products inside 64 bits.
const ROW_MAX: usize = 1 << 24;

/// What sets one family apart. Where a source says otherwise, the source is right.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and read apart")]
pub(crate) struct Family {
    /// The name that GGUF files use.
    pub(crate) name: &'static str,
    /// The names that `config.json` uses.
    pub(crate) config_names: &'static [&'static str],
    pub(super) kind: ModelKind,
    pub(super) norm: Norm,
    pub(super) norm_places: NormPlaces,
    pub(super) has_head_norms: bool,
    pub(super) has_qkv_bias: bool,
    pub(super) activation: Activation,
    pub(super) is_gated: bool,
    pub(super) has_experts: bool,
    /// Whether rows of the embedding are multiplied by the root of their length.
    pub(super) scales_embedding: bool,
    /// Whether Hugging Face stores norm weights less one. GGUF stores them whole.
    pub(crate) adds_one: bool,
    /// Which numbers are a pair in GGUF files; Hugging Face always splits.
    pub(super) gguf_style: RopeStyle,
    /// Which layers a window applies to.
    pub(super) windows: Windows,
    /// Whether layers with a window turn by a base of their own.
    pub(super) has_local_rope: bool,
    /// What a `config.json` of this family may leave out.
    pub(super) defaults: Defaults,
}

/// Which layers a window applies to, where the source does not list them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Windows {
    /// To every layer, if there is a window.
    All,
    /// To all but every n-th layer.
    AllButEvery(usize),
    /// To layers from a stated one on, if `use_sliding_window` says so.
    Late,
}

/// Values that `config.json` leaves out where they are the family's own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults {
    pub(super) head_count: Option<usize>,
    pub(super) kv_head_count: Option<usize>,
    pub(super) head_size: Option<usize>,
    pub(super) context_len: Option<usize>,
    pub(super) window: Option<usize>,
    /// Scores are divided by the root of this, if not by that of the head size.
    pub(super) query_scalar: Option<f64>,
    pub(super) attention_softcap: Option<f64>,
    pub(super) logit_softcap: Option<f64>,
    pub(super) rope_base: f64,
    pub(super) epsilon: f64,
}

const PLAIN_DEFAULTS: Defaults = Defaults {
    head_count: None,
    kv_head_count: None,
    head_size: None,
    context_len: None,
    window: None,
    query_scalar: None,
    attention_softcap: None,
    logit_softcap: None,
    rope_base: 10_000.0,
    epsilon: 1e-6,
};

/// The llama family, of which most others differ in little.
const LLAMA: Family = Family {
    name: "llama",
    config_names: &["llama"],
    kind: ModelKind::Decoder,
    norm: Norm::Rms,
    norm_places: NormPlaces::Pre,
    has_head_norms: false,
    has_qkv_bias: false,
    activation: Activation::Silu,
    is_gated: true,
    has_experts: false,
    scales_embedding: false,
    adds_one: false,
    gguf_style: RopeStyle::Interleaved,
    windows: Windows::All,
    has_local_rope: false,
    defaults: PLAIN_DEFAULTS,
};

const QWEN2: Family = Family {
    name: "qwen2",
    config_names: &["qwen2"],
    has_qkv_bias: true,
    gguf_style: RopeStyle::Split,
    windows: Windows::Late,
    ..LLAMA
};

const QWEN3: Family = Family {
    name: "qwen3",
    config_names: &["qwen3"],
    has_qkv_bias: false,
    has_head_norms: true,
    defaults: Defaults { head_size: Some(128), ..PLAIN_DEFAULTS },
    ..QWEN2
};

const GEMMA: Family = Family {
    name: "gemma",
    config_names: &["gemma"],
    activation: Activation::GeluTanh,
    scales_embedding: true,
    adds_one: true,
    gguf_style: RopeStyle::Split,
    defaults: Defaults { head_size: Some(256), ..PLAIN_DEFAULTS },
    ..LLAMA
};

const GEMMA2: Family = Family {
    name: "gemma2",
    config_names: &["gemma2"],
    norm_places: NormPlaces::PreAndPost,
    windows: Windows::AllButEvery(2),
    defaults: Defaults {
        window: Some(4_096),
        query_scalar: Some(256.0),
        attention_softcap: Some(50.0),
        logit_softcap: Some(30.0),
        ..GEMMA.defaults
    },
    ..GEMMA
};

const GEMMA3: Family = Family {
    name: "gemma3",
    config_names: &["gemma3_text", "gemma3"],
    has_head_norms: true,
    windows: Windows::AllButEvery(6),
    has_local_rope: true,
    defaults: Defaults {
        head_count: Some(8),
        kv_head_count: Some(4),
        context_len: Some(131_072),
        rope_base: 1e6,
        attention_softcap: None,
        logit_softcap: None,
        ..GEMMA2.defaults
    },
    ..GEMMA2
};

const BERT: Family = Family {
    name: "bert",
    config_names: &["bert"],
    kind: ModelKind::Encoder,
    norm: Norm::Layer,
    norm_places: NormPlaces::Post,
    has_qkv_bias: true,
    activation: Activation::GeluErf,
    is_gated: false,
    defaults: Defaults { epsilon: 1e-12, ..PLAIN_DEFAULTS },
    ..LLAMA
};

/// Every supported family.
pub(super) const FAMILIES: [Family; 10] = [
    LLAMA,
    Family { name: "mistral", config_names: &["mistral"], ..LLAMA },
    QWEN2,
    QWEN3,
    Family { name: "qwen3moe", config_names: &["qwen3_moe"], has_experts: true, ..QWEN3 },
    GEMMA,
    GEMMA2,
    GEMMA3,
    Family { name: "phi3", config_names: &["phi3"], gguf_style: RopeStyle::Split, ..LLAMA },
    BERT,
];

/// The keys that both sources have.
pub(super) mod key {
    use super::Key;

    pub(crate) const LAYERS: Key = ("block_count", "num_hidden_layers");
    pub(crate) const WIDTH: Key = ("embedding_length", "hidden_size");
    pub(crate) const HEADS: Key = ("attention.head_count", "num_attention_heads");
    pub(crate) const KV_HEADS: Key = ("attention.head_count_kv", "num_key_value_heads");
    pub(crate) const HEAD_SIZE: Key = ("attention.key_length", "head_dim");
    pub(crate) const FEED_FORWARD: Key = ("feed_forward_length", "intermediate_size");
    pub(crate) const CONTEXT: Key = ("context_length", "max_position_embeddings");
    pub(crate) const RMS_EPSILON: Key = ("attention.layer_norm_rms_epsilon", "rms_norm_eps");
    pub(crate) const EPSILON: Key = ("attention.layer_norm_epsilon", "layer_norm_eps");
    pub(crate) const WINDOW: Key = ("attention.sliding_window", "sliding_window");
    pub(crate) const ATTENTION_CAP: Key = ("attn_logit_softcapping", "attn_logit_softcapping");
    pub(crate) const LOGIT_CAP: Key = ("final_logit_softcapping", "final_logit_softcapping");
    pub(crate) const EXPERTS: Key = ("expert_count", "num_experts");
    pub(crate) const EXPERTS_USED: Key = ("expert_used_count", "num_experts_per_tok");
    pub(crate) const EXPERT_LEN: Key = ("expert_feed_forward_length", "moe_intermediate_size");
    pub(crate) const EXPERTS_NORMED: Key = ("expert_weights_norm", "norm_topk_prob");
}

/// Sizes of the attention part: what ropes and layers are made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads {
    pub(super) layer_count: usize,
    pub(super) width: usize,
    pub(super) head_count: usize,
    pub(super) kv_head_count: usize,
    pub(super) head_size: usize,
    pub(super) context_len: usize,
}

/// What each source says in a way of its own.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) token_count: usize,
    pub(super) ropes: Vec<RopeSettings>,
    pub(super) layers: Vec<LayerSettings>,
    pub(super) attention_scale: f64,
    pub(super) embedding_scale: Option<f32>,
    pub(super) activation: Activation,
    pub(super) pooling: Option<Pooling>,
    pub(super) end_tokens: Vec<u32>,
    pub(super) has_qkv_bias: bool,
    pub(super) experts_normed_default: bool,
}

impl Heads {
    /// Reads and checks what both sources spell alike.
    pub(super) fn read(reader: &Reader<'_>, family: &Family) -> Result<Self, SettingsError> {
        let defaults = match reader {
            Reader::Gguf(..) => PLAIN_DEFAULTS,
            Reader::Config(_) => family.defaults,
        };
        let or = |default: Option<usize>, key: Key, limit: u64| match default {
            Some(default) => Ok(reader.optional_count(key, limit)?.unwrap_or(default)),
            None => reader.count(key, limit),
        };
        let width = reader.count(key::WIDTH, DIMENSION_MAX)?;
        let head_count = or(defaults.head_count, key::HEADS, DIMENSION_MAX)?;
        let kv_default = defaults.kv_head_count.unwrap_or(head_count);
        let head_default = defaults.head_size.unwrap_or(width / head_count);
        let kv_heads = reader.optional_count(key::KV_HEADS, DIMENSION_MAX)?;
        let head_size = reader.optional_count(key::HEAD_SIZE, HEAD_SIZE_MAX)?;
        let heads = Self {
            layer_count: reader.count(key::LAYERS, LAYERS_MAX)?,
            width,
            head_count,
            kv_head_count: kv_heads.unwrap_or(kv_default),
            head_size: head_size.unwrap_or(head_default),
            context_len: or(defaults.context_len, key::CONTEXT, CONTEXT_MAX)?,
        };
        heads.check()?;
        Ok(heads)
    }

    fn check(&self) -> Result<(), SettingsError> {
        let Self { head_count, kv_head_count, head_size, .. } = *self;
        let is_sound = head_count.is_multiple_of(kv_head_count)
            && head_size > 0
            && head_size.is_multiple_of(2)
            && head_count.checked_mul(head_size).is_some_and(|row| row <= ROW_MAX);
        if is_sound {
            return Ok(());
        }
        let detail = format!(
            "{head_count} heads must be a multiple of {kv_head_count} key heads, the head size \
             {head_size} must be even and positive, and their product at most {ROW_MAX}"
        );
        inconsistent("heads, key heads and head size", detail)
    }

    /// One entry for each layer: the window where `is_local` says so, and its rope.
    pub(super) fn layers(
        &self,
        family: &Family,
        window: Option<usize>,
        is_local: impl Fn(usize) -> bool,
    ) -> Vec<LayerSettings> {
        // A window that no sequence outgrows is none.
        let window = window.filter(|&window| window < self.context_len);
        let layer = |index: usize| LayerSettings {
            window: window.filter(|_| is_local(index)),
            rope: match family.norm_places {
                NormPlaces::Post => None,
                _ => Some(usize::from(family.has_local_rope && is_local(index))),
            },
        };
        (0..self.layer_count).map(layer).collect()
    }
}

impl Family {
    /// The family of this name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        FAMILIES.iter().find(|family| family.name == name)
    }

    /// Which rows of queries and keys are one pair in GGUF files.
    pub(crate) fn gguf_style(&self) -> RopeStyle {
        self.gguf_style
    }

    /// Whether a window applies to this layer, where the source lists nothing.
    pub(super) fn is_local(&self, layer: usize, first_late: usize) -> bool {
        match self.windows {
            Windows::All => true,
            Windows::AllButEvery(n) => !(layer + 1).is_multiple_of(n),
            Windows::Late => layer >= first_late,
        }
    }

    /// Whether GGUF files of this name exist: they call Mistral `llama`.
    pub(super) fn is_in_gguf(&self) -> bool {
        self.name != "mistral"
    }

    /// The names of all families in GGUF files, for a refusal.
    pub(super) fn gguf_names() -> String {
        let names = FAMILIES.iter().filter(|family| family.is_in_gguf()).map(|family| family.name);
        names.collect::<Vec<_>>().join(", ")
    }

    /// The names of all families in `config.json`, for a refusal.
    pub(super) fn config_names() -> String {
        let names = FAMILIES.iter().flat_map(|family| family.config_names);
        names.copied().collect::<Vec<_>>().join(", ")
    }

    /// Puts the settings together from what is common and what is the source's own.
    pub(super) fn settings(
        &self,
        reader: &Reader<'_>,
        heads: Heads,
        own: Own,
    ) -> Result<Settings, SettingsError> {
        let experts = self.experts(reader, own.experts_normed_default)?;
        let cap = |key: Key, default: Option<f64>| -> Result<Option<f32>, SettingsError> {
            Ok(reader.optional_number(key)?.or(default.filter(|_| reader.implies(key))).map(narrow))
        };
        let feed_forward_len = match experts {
            // Files of mixtures may state a dense length that no layer has.
            Some(experts) => experts.feed_forward_len,
            None => reader.count(key::FEED_FORWARD, DIMENSION_MAX)?,
        };
        let settings = Settings {
            architecture: self.name.to_owned(),
            kind: self.kind,
            layer_count: heads.layer_count,
            width: heads.width,
            head_count: heads.head_count,
            kv_head_count: heads.kv_head_count,
            head_size: heads.head_size,
            feed_forward_len,
            context_len: heads.context_len,
            token_count: own.token_count,
            norm: self.norm,
            epsilon: self.epsilon(reader)?,
            norm_places: self.norm_places,
            has_head_norms: self.has_head_norms,
            has_qkv_bias: own.has_qkv_bias,
            ropes: own.ropes,
            has_learned_positions: self.norm_places == NormPlaces::Post,
            layers: own.layers,
            attention_scale: narrow(own.attention_scale),
            attention_softcap: cap(key::ATTENTION_CAP, self.defaults.attention_softcap)?,
            logit_softcap: cap(key::LOGIT_CAP, self.defaults.logit_softcap)?,
            activation: own.activation,
            is_gated: self.is_gated,
            embedding_scale: own.embedding_scale,
            pooling: own.pooling,
            experts,
            end_tokens: own.end_tokens,
        };
        settings.check()?;
        Ok(settings)
    }

    fn epsilon(&self, reader: &Reader<'_>) -> Result<f32, SettingsError> {
        let key = match self.norm {
            Norm::Rms => key::RMS_EPSILON,
            Norm::Layer => key::EPSILON,
        };
        match reader {
            Reader::Gguf(..) => Ok(narrow(reader.number(key)?)),
            Reader::Config(_) => {
                Ok(narrow(reader.optional_number(key)?.unwrap_or(self.defaults.epsilon)))
            }
        }
    }

    fn experts(
        &self,
        reader: &Reader<'_>,
        normed_default: bool,
    ) -> Result<Option<Experts>, SettingsError> {
        if !self.has_experts {
            return match reader.whole(key::EXPERTS)?.unwrap_or(0) {
                0 => Ok(None),
                count => unsupported(format!("a mixture of {count} experts in {:?}", self.name)),
            };
        }
        let experts = Experts {
            count: reader.count(key::EXPERTS, EXPERTS_MAX)?,
            used: reader.count(key::EXPERTS_USED, EXPERTS_MAX)?,
            feed_forward_len: reader.count(key::EXPERT_LEN, DIMENSION_MAX)?,
            is_normed: reader.flag(key::EXPERTS_NORMED)?.unwrap_or(normed_default),
        };
        if experts.used > experts.count {
            let detail = format!("{} used of {}", experts.used, experts.count);
            return inconsistent("the experts", detail);
        }
        Ok(Some(experts))
    }
}

impl Settings {
    /// What neither source promises by its form.
    fn check(&self) -> Result<(), SettingsError> {
        let ropes = self.layers.iter().filter_map(|layer| layer.rope);
        if let Some(rope) = ropes.into_iter().find(|&rope| rope >= self.ropes.len()) {
            let detail = format!("rope {rope} of {}", self.ropes.len());
            return inconsistent("layers and rotary positions", detail);
        }
        let rows = self.experts.map_or(1, |experts| experts.count);
        let row = self.feed_forward_len.max(self.width);
        if rows.checked_mul(row).is_none_or(|all| all > ROW_MAX) {
            let detail = format!("{rows} of {row} rows, at most {ROW_MAX} are accepted");
            return inconsistent("the experts", detail);
        }
        Ok(())
    }
}

/// Sources write these as f32 or as short decimals; arithmetic is f32.
#[expect(clippy::cast_possible_truncation, reason = "the nearest f32 is what is wanted")]
pub(super) fn narrow(value: f64) -> f32 {
    value as f32
}
