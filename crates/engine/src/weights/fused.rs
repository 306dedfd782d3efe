//! Fused tensors, shown as the parts that they are made of.
//!
//! Some files keep queries, keys and values one behind the other in `attn_qkv`, and the two halves
//! of a gated feed-forward part in a double `ffn_up`, the gate first. A part is a range of rows, so
//! showing it costs nothing.

use std::collections::BTreeMap;

use super::{Part, Tensor, TensorFacts, WeightError};
use crate::settings::Settings;

/// Replaces fused tensors by their parts.
pub(super) fn split(
    tensors: &mut BTreeMap<String, Tensor>,
    settings: &Settings,
) -> Result<(), WeightError> {
    let (queries, keys, inner) =
        (settings.query_width(), settings.kv_width(), settings.feed_forward_len);
    for layer in 0..settings.layer_count {
        let name = |part: &str, end: &str| format!("blk.{layer}.{part}.{end}");
        for end in ["weight", "bias"] {
            let parts = [("attn_q", queries), ("attn_k", keys), ("attn_v", keys)];
            let parts = parts.map(|(part, len)| (name(part, end), len));
            divide(tensors, &name("attn_qkv", end), &parts)?;
        }
        let up = name("ffn_up", "weight");
        let is_double = tensors.get(&up).is_some_and(|up| up.facts.rows == 2 * inner);
        if is_double && settings.is_gated && !tensors.contains_key(&name("ffn_gate", "weight")) {
            divide(tensors, &up, &[(name("ffn_gate", "weight"), inner), (up.clone(), inner)])?;
        }
    }
    Ok(())
}

/// Replaces one tensor by its parts: ranges of rows, or of columns if it is a vector.
fn divide(
    tensors: &mut BTreeMap<String, Tensor>,
    name: &str,
    parts: &[(String, usize)],
) -> Result<(), WeightError> {
    let Some(whole) = tensors.remove(name) else { return Ok(()) };
    let facts = whole.facts;
    let is_vector = facts.rows == 1;
    let found = if is_vector { facts.columns } else { facts.rows };
    let wanted = parts.iter().map(|(_, len)| len).sum();
    if found != wanted || whole.parts.len() != 1 || (is_vector && facts.kind.block_len() != 1) {
        let (name, found) = (name.to_owned(), [facts.rows, facts.columns]);
        let wanted = if is_vector { [1, wanted] } else { [wanted, facts.columns] };
        return Err(WeightError::Shape { name, found, wanted });
    }
    let Part { file, mut start, .. } = whole.parts[0];
    for (part, len) in parts {
        let (rows, columns) = if is_vector { (1, *len) } else { (*len, facts.columns) };
        let facts = TensorFacts { kind: facts.kind, rows, columns };
        let parts = vec![Part { file, start, rows }];
        start += facts.size();
        let tensor = Tensor { facts, parts, adds_one: whole.adds_one };
        if tensors.insert(part.clone(), tensor).is_some() {
            return Err(WeightError::Twice { first: name.to_owned(), second: part.clone() });
        }
    }
    Ok(())
}
