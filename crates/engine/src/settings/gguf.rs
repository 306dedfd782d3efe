//! Settings out of GGUF metadata, where it says them in its own way.
//!
//! Not here: what both sources spell alike (`family.rs`).

use super::error::{inconsistent, unsupported};
use super::family::{CONTEXT_MAX, DIMENSION_MAX, FAMILIES, Heads, Own, key};
use super::read::{Key, Reader};
use super::rope::{RopePlan, Scaling, Yarn, long_magnitude};
use super::{Family, LayerSettings, ModelKind, NormPlaces, Pooling, RopeSettings};
use super::{Settings, SettingsError};
use crate::gguf::{Array, Gguf, Value};

/// A key that only GGUF has.
const fn own(key: &'static str) -> Key {
    (key, "")
}

/// Reads a vector of the file by its name; none if the file does not have it.
pub type ReadVector<'a> = &'a dyn Fn(&str) -> Result<Option<Vec<f32>>, SettingsError>;

impl Settings {
    /// Reads the settings of a file. Some families keep rotary factors in tensors: `vector` reads
    /// `rope_freqs.weight`, `rope_factors_short.weight` and `rope_factors_long.weight`.
    pub fn from_gguf(gguf: &Gguf, vector: ReadVector<'_>) -> Result<Self, SettingsError> {
        let family = Family::of_gguf(gguf)?;
        let reader = Reader::Gguf(gguf, family.name);
        refuse_unsupported(&reader, family)?;
        let heads = Heads::read(&reader, family)?;
        let values = reader.optional_count(own("attention.value_length"), DIMENSION_MAX)?;
        if values.is_some_and(|values| values != heads.head_size) {
            return unsupported("a value head of another size than its key head");
        }
        let own = Own {
            token_count: token_count(gguf)?,
            ropes: ropes(&reader, family, heads, vector)?,
            layers: layers(&reader, family, heads)?,
            attention_scale: attention_scale(&reader, family, heads)?,
            embedding_scale: family.scales_embedding.then(|| root(heads.width)),
            activation: family.activation,
            pooling: pooling(&reader, family)?,
            end_tokens: Vec::new(),
            has_qkv_bias: family.has_qkv_bias,
            // Every file of this family is computed so, and files do not state it.
            experts_normed_default: true,
        };
        family.settings(&reader, heads, own)
    }
}

impl Family {
    /// The family of a file, if it is a supported one.
    pub(crate) fn of_gguf(gguf: &Gguf) -> Result<&'static Self, SettingsError> {
        let key = "general.architecture";
        let name = Gguf::require(key, gguf.text(key)?)?;
        let known = FAMILIES.iter().find(|family| family.name == name);
        known.filter(|family| family.is_in_gguf()).ok_or_else(|| SettingsError::Architecture {
            name: name.to_owned(),
            supported: Self::gguf_names(),
        })
    }
}

/// What would change the numbers and is not computed is refused by name.
fn refuse_unsupported(reader: &Reader<'_>, family: &Family) -> Result<(), SettingsError> {
    let is_causal = reader.flag(own("attention.causal"))?;
    if is_causal.is_some_and(|is_causal| is_causal != (family.kind == ModelKind::Decoder)) {
        return unsupported(format!("{:?} with its mask turned round", family.name));
    }
    for key in ["attention.max_alibi_bias", "attention.clamp_kqv", "logit_scale", "residual_scale"]
    {
        if let Reader::Gguf(gguf, _) = reader
            && gguf.float(&reader.spell(own(key)))?.is_some_and(|value| value != 0.0)
        {
            return unsupported(reader.spell(own(key)));
        }
    }
    Ok(())
}

/// Rows of the embedding: the vocabulary as the model sees it.
fn token_count(gguf: &Gguf) -> Result<usize, SettingsError> {
    let name = "token_embd.weight";
    let Some(info) = gguf.tensors().get(name) else {
        let reason = "the file does not have it; it is not a complete model".to_owned();
        return Err(SettingsError::Tensor { name: name.to_owned(), reason });
    };
    match info.dims() {
        &[rows, _] => Ok(rows),
        dims => {
            let reason = format!("it has the shape {dims:?}");
            Err(SettingsError::Tensor { name: name.to_owned(), reason })
        }
    }
}

fn attention_scale(
    reader: &Reader<'_>,
    family: &Family,
    heads: Heads,
) -> Result<f64, SettingsError> {
    if let Some(scale) = reader.optional_number(own("attention.scale"))? {
        return Ok(scale);
    }
    // Two published sizes divide by the width of a head's share, not by the head size, and files
    // do not say so: Gemma 2 27B has 46 layers, Gemma 3 27B has 62. No other size has as many.
    let divisor = match (family.name, heads.layer_count) {
        ("gemma2", 46) | ("gemma3", 62) => heads.width / heads.head_count,
        _ => heads.head_size,
    };
    Ok(1.0 / f64::from(root(divisor)))
}

fn layers(
    reader: &Reader<'_>,
    family: &Family,
    heads: Heads,
) -> Result<Vec<LayerSettings>, SettingsError> {
    let window = reader.optional_count(key::WINDOW, CONTEXT_MAX)?.or(family.defaults.window);
    let pattern = own("attention.sliding_window_pattern");
    let Reader::Gguf(gguf, _) = reader else { return Ok(Vec::new()) };
    match gguf.get(&reader.spell(pattern)) {
        Some(Value::Array(Array::Bool(flags))) => {
            if flags.len() != heads.layer_count {
                let (found, wanted) = (flags.len(), heads.layer_count);
                return Err(SettingsError::Length { key: reader.spell(pattern), found, wanted });
            }
            Ok(heads.layers(family, window, |index| flags[index]))
        }
        Some(_) => {
            let every = reader.count(pattern, heads.layer_count.max(1) as u64)?;
            Ok(heads.layers(family, window, |index| !(index + 1).is_multiple_of(every)))
        }
        // Files that know windows on late layers only do not exist: published ones turn them off.
        None => Ok(heads.layers(family, window, |index| family.is_local(index, usize::MAX))),
    }
}

fn ropes(
    reader: &Reader<'_>,
    family: &Family,
    heads: Heads,
    vector: ReadVector<'_>,
) -> Result<Vec<RopeSettings>, SettingsError> {
    if family.norm_places == NormPlaces::Post {
        return Ok(Vec::new());
    }
    let turned = reader.optional_count(own("rope.dimension_count"), DIMENSION_MAX)?;
    let turned = turned.unwrap_or(heads.head_size);
    if turned > heads.head_size || !turned.is_multiple_of(2) {
        let detail = format!("turning {turned} of {} numbers", heads.head_size);
        return inconsistent("rotary positions and head size", detail);
    }
    let base = reader.optional_number(own("rope.freq_base"))?.unwrap_or(10_000.0);
    let (style, pairs) = (family.gguf_style, turned / 2);
    let scaling = scaling(reader, heads, vector)?;
    let mut ropes = vec![RopePlan { style, base, pairs, scaling }.resolve()?];
    if family.has_local_rope {
        let base = reader.optional_number(own("rope.freq_base_swa"))?.unwrap_or(10_000.0);
        ropes.push(RopePlan { style, base, pairs, scaling: Scaling::None }.resolve()?);
    }
    Ok(ropes)
}

fn scaling(
    reader: &Reader<'_>,
    heads: Heads,
    vector: ReadVector<'_>,
) -> Result<Scaling, SettingsError> {
    let kind = reader.text(own("rope.scaling.type"))?;
    let factor = reader.optional_number(own("rope.scaling.factor"))?;
    let factor = factor.or(reader.optional_number(own("rope.scale_linear"))?).unwrap_or(1.0);
    let original = original_len(reader, heads)?;
    let magnitude = reader.optional_number(own("rope.scaling.attn_factor"))?;
    let wide = |factors: Vec<f32>| factors.into_iter().map(f64::from).collect::<Vec<_>>();
    let short = vector("rope_factors_short.weight")?.map(wide);
    let long = vector("rope_factors_long.weight")?.map(wide);
    if let (Some(short), Some(long)) = (short, long) {
        #[expect(clippy::cast_precision_loss, reason = "positions are at most 2^24")]
        let (stretch, start) = (heads.context_len as f64 / original as f64, original as f64);
        let magnitude = magnitude.unwrap_or_else(|| long_magnitude(stretch, start));
        return Ok(Scaling::LongRope { short, long, original, magnitude });
    }
    let factors = vector("rope_freqs.weight")?.map(wide);
    match kind {
        // No word about it means linear, by a factor of 1 where there is none.
        None | Some("linear") => Ok(match factors {
            Some(factors) => Scaling::Factors(factors.iter().map(|it| it * factor).collect()),
            None => Scaling::Linear(factor),
        }),
        Some("none") => Ok(factors.map_or(Scaling::None, Scaling::Factors)),
        Some("yarn") if factors.is_none() => {
            let turns = |key, default: f64| -> Result<f64, SettingsError> {
                Ok(reader.optional_number(own(key))?.unwrap_or(default))
            };
            Ok(Scaling::Yarn(Yarn {
                factor,
                #[expect(clippy::cast_precision_loss, reason = "positions are at most 2^24")]
                original: original as f64,
                fast: turns("rope.scaling.yarn_beta_fast", 32.0)?,
                slow: turns("rope.scaling.yarn_beta_slow", 1.0)?,
                truncates: true,
                magnitude: magnitude.unwrap_or(1.0) * Yarn::magnitude_for(factor),
            }))
        }
        Some(other) => unsupported(format!("rotary scaling {other:?}")),
    }
}

/// Positions that the model was trained with, before its context was stretched.
fn original_len(reader: &Reader<'_>, heads: Heads) -> Result<usize, SettingsError> {
    let original = own("rope.scaling.original_context_length");
    Ok(reader.optional_count(original, CONTEXT_MAX)?.unwrap_or(heads.context_len))
}

fn pooling(reader: &Reader<'_>, family: &Family) -> Result<Option<Pooling>, SettingsError> {
    if family.kind == ModelKind::Decoder {
        return Ok(None);
    }
    match reader.whole(own("pooling_type"))? {
        // None stated: what the authors of sentence embedders recommend.
        None | Some(0 | 1) => Ok(Some(Pooling::Mean)),
        Some(2) => Ok(Some(Pooling::Cls)),
        Some(3) => Ok(Some(Pooling::Last)),
        Some(other) => unsupported(format!("pooling of type {other}")),
    }
}

/// The root of a size, in the precision that arithmetic has.
#[expect(clippy::cast_precision_loss, reason = "sizes are at most 2^20, exact in f32")]
pub(super) fn root(size: usize) -> f32 {
    (size as f32).sqrt()
}
