//! What Hugging Face calls a tensor, and what GGUF calls it.
//!
//! Not here: which tensors a family needs, and their shapes (who takes them says so).

use crate::settings::{Family, ModelKind, NormPlaces, Settings};

/// What one stored tensor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// This canonical tensor.
    Tensor(String),
    /// One expert of this canonical tensor.
    Expert(String, usize),
    /// Known, and not needed to compute.
    Skip,
    /// Nothing that is known here; it is kept under its own name, and refused if nobody takes it.
    Unknown,
}

/// Parts of a decoder's layer that are called the same in every family.
const DECODER_PARTS: [(&str, &str); 17] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.gate", "ffn_gate_inp"),
    ("input_layernorm", "attn_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
    ("self_attn.rotary_emb.inv_freq", ""),
    ("self_attn.bias", ""),
];

/// Parts of an encoder's layer.
const ENCODER_PARTS: [(&str, &str); 8] = [
    ("attention.self.query", "attn_q"),
    ("attention.self.key", "attn_k"),
    ("attention.self.value", "attn_v"),
    ("attention.output.dense", "attn_output"),
    ("attention.output.LayerNorm", "attn_output_norm"),
    ("intermediate.dense", "ffn_up"),
    ("output.dense", "ffn_down"),
    ("output.LayerNorm", "layer_output_norm"),
];

/// Finds what a tensor of a Hugging Face model is.
pub(crate) fn target(name: &str, family: &Family, settings: &Settings) -> Target {
    match settings.kind {
        ModelKind::Decoder => decoder(name, family, settings),
        ModelKind::Encoder => encoder(name),
    }
}

fn decoder(name: &str, family: &Family, settings: &Settings) -> Target {
    // Models that also see keep the language model beside what sees, which text does not need.
    let sees = ["vision_tower.", "multi_modal_projector."];
    let bare = name.strip_prefix("model.").unwrap_or(name);
    if family.name == "gemma3" && sees.iter().any(|part| bare.starts_with(part)) {
        return Target::Skip;
    }
    if matches!(name, "lm_head.weight" | "language_model.lm_head.weight") {
        return Target::Tensor("output.weight".to_owned());
    }
    let prefixes = ["language_model.model.", "model.language_model.", "model."];
    let Some(rest) = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)) else {
        return Target::Unknown;
    };
    match rest {
        "embed_tokens.weight" => return Target::Tensor("token_embd.weight".to_owned()),
        "norm.weight" => return Target::Tensor("output_norm.weight".to_owned()),
        // Computed from the settings; old checkpoints stored it all the same.
        "rotary_emb.inv_freq" => return Target::Skip,
        _ => {}
    }
    let Some((layer, part)) = rest.strip_prefix("layers.").and_then(numbered) else {
        return Target::Unknown;
    };
    if let Some(expert) = part.strip_prefix("mlp.experts.").and_then(numbered) {
        return expert_part(layer, expert);
    }
    let after_attention = match settings.norm_places {
        NormPlaces::PreAndPost => "post_attention_norm",
        _ => "ffn_norm",
    };
    let (stem, end) = ended(part);
    if stem == "post_attention_layernorm" {
        return Target::Tensor(format!("blk.{layer}.{after_attention}.{end}"));
    }
    match DECODER_PARTS.iter().find(|(theirs, _)| *theirs == stem || *theirs == part) {
        Some((_, "")) => Target::Skip,
        Some((_, ours)) => Target::Tensor(format!("blk.{layer}.{ours}.{end}")),
        None => Target::Unknown,
    }
}

fn expert_part(layer: usize, (expert, part): (usize, &str)) -> Target {
    let ours = match part {
        "gate_proj.weight" => "ffn_gate_exps",
        "up_proj.weight" => "ffn_up_exps",
        "down_proj.weight" => "ffn_down_exps",
        _ => return Target::Unknown,
    };
    Target::Expert(format!("blk.{layer}.{ours}.weight"), expert)
}

fn encoder(name: &str) -> Target {
    let rest = name.strip_prefix("bert.").unwrap_or(name);
    // What turns the first row into a class, and what guesses masked words: not for embeddings.
    let unneeded = ["pooler.", "cls."];
    if unneeded.iter().any(|part| rest.starts_with(part)) || rest == "embeddings.position_ids" {
        return Target::Skip;
    }
    let (stem, end) = ended(rest);
    let table = match stem {
        "embeddings.word_embeddings" => Some("token_embd"),
        "embeddings.position_embeddings" => Some("position_embd"),
        "embeddings.token_type_embeddings" => Some("token_types"),
        "embeddings.LayerNorm" => Some("token_embd_norm"),
        _ => None,
    };
    if let Some(ours) = table {
        return Target::Tensor(format!("{ours}.{end}"));
    }
    let Some((layer, part)) = rest.strip_prefix("encoder.layer.").and_then(numbered) else {
        return Target::Unknown;
    };
    let (stem, end) = ended(part);
    match ENCODER_PARTS.iter().find(|(theirs, _)| *theirs == stem) {
        Some((_, ours)) => Target::Tensor(format!("blk.{layer}.{ours}.{end}")),
        None => Target::Unknown,
    }
}

/// `12.rest` as a number and the rest. A number is written in one way only.
fn numbered(text: &str) -> Option<(usize, &str)> {
    let (number, rest) = text.split_once('.')?;
    let parsed: usize = number.parse().ok()?;
    (parsed.to_string() == number).then_some((parsed, rest))
}

/// The name without its last part, and that part as GGUF writes it.
fn ended(name: &str) -> (&str, &str) {
    match name.rsplit_once('.') {
        // Old checkpoints of BERT call the two vectors of a norm so.
        Some((stem, "gamma")) => (stem, "weight"),
        Some((stem, "beta")) => (stem, "bias"),
        Some((stem, end)) => (stem, end),
        None => (name, ""),
    }
}
