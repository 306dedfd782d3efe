//! Which stored form each tensor of a file has: the mixes that people know by name.
//!
//! A mix gives the tensors that matter more to the answer more bits. The rules are llama.cpp's
//! (`llama_tensor_get_type`), for the plain decoder that we write and without a measured
//! importance of the weights.

use std::{fmt, str::FromStr};

use crate::gguf::TensorType;

/// A mix of stored forms, by the name that a file of it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those that files carry")]
pub enum Mix {
    F32,
    F16,
    BF16,
    Q8_0,
    Q6K,
    Q5KM,
    Q4KM,
    Q4_0,
    /// Every form that a file may have, one tensor after the other: nobody runs this, and a check
    /// of it checks them all.
    Every,
}

/// No mix has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no mix {name:?}; there is: {}", Mix::ALL.map(Mix::name).join(", "))]
pub struct UnknownMix {
    /// What was asked for.
    pub name: String,
}

impl Mix {
    /// Every mix.
    pub const ALL: [Self; 9] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q8_0,
        Self::Q6K,
        Self::Q5KM,
        Self::Q4KM,
        Self::Q4_0,
        Self::Every,
    ];

    /// The name that files carry.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q6K => "Q6_K",
            Self::Q5KM => "Q5_K_M",
            Self::Q4KM => "Q4_K_M",
            Self::Q4_0 => "Q4_0",
            Self::Every => "EVERY",
        }
    }

    /// The number of the mix in `general.file_type`.
    pub(super) fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Q4KM => 15,
            Self::Q5KM => 17,
            Self::Q6K => 18,
            Self::BF16 => 32,
            // What the format calls a guess.
            Self::Every => 1024,
        }
    }

    /// The form of a tensor outside the layers: `output.weight`, or the embedding.
    pub(super) fn outside(self, name: &str) -> TensorType {
        match self {
            // Every bit of the last row reaches the logits: blocks would round some away.
            Self::Every if name == "output.weight" => TensorType::F32,
            Self::Q4_0 | Self::Q4KM | Self::Q5KM if name == "output.weight" => TensorType::Q6K,
            _ => self.plain(),
        }
    }

    /// The form of a part of one of `layers` layers, such as `ffn_down`.
    pub(super) fn inside(self, part: &str, layer: usize, layers: usize) -> TensorType {
        let matters = matches!(part, "attn_v" | "ffn_down") && has_more_bits(layer, layers);
        match self {
            Self::Q4KM | Self::Q5KM if matters => TensorType::Q6K,
            Self::Every => {
                let place = PARTS.iter().position(|it| *it == part).unwrap_or(0);
                TensorType::ALL[(layer * PARTS.len() + place) % TensorType::ALL.len()]
            }
            _ => self.plain(),
        }
    }

    fn plain(self) -> TensorType {
        match self {
            Self::F32 => TensorType::F32,
            Self::F16 => TensorType::F16,
            Self::BF16 => TensorType::BF16,
            Self::Q8_0 => TensorType::Q8_0,
            Self::Q6K => TensorType::Q6K,
            Self::Q5KM => TensorType::Q5K,
            Self::Q4KM => TensorType::Q4K,
            Self::Q4_0 | Self::Every => TensorType::Q4_0,
        }
    }
}

/// The matrices of a layer, in the order of the file.
const PARTS: [&str; 7] =
    ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

/// The first eighth of the layers, the last, and every third in between.
fn has_more_bits(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

impl FromStr for Mix {
    type Err = UnknownMix;

    fn from_str(text: &str) -> Result<Self, UnknownMix> {
        let found = Self::ALL.into_iter().find(|it| it.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| UnknownMix { name: text.to_owned() })
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_in_any_case() {
        for mix in Mix::ALL {
            assert_eq!(mix.to_string().to_lowercase().parse(), Ok(mix));
        }
        let told = "Q3_K".parse::<Mix>().unwrap_err().to_string();
        assert!(told.contains("Q4_K_M"), "{told}");
    }

    #[test]
    fn two_layers_have_every_form_where_all_are_wanted() {
        let kinds = |layer| PARTS.map(|part| Mix::Every.inside(part, layer, 2));
        let all = [kinds(0), kinds(1)].concat();
        assert!(TensorType::ALL.iter().all(|kind| all.contains(kind)), "{all:?}");
    }

    #[test]
    fn half_of_the_layers_of_a_k_mix_have_more_bits_where_it_matters() {
        let kinds = |part| (0..22).map(move |layer| Mix::Q4KM.inside(part, layer, 22));
        let more: Vec<usize> =
            (0..22).filter(|&it| Mix::Q4KM.inside("ffn_down", it, 22) == TensorType::Q6K).collect();
        assert_eq!(more, [0, 1, 4, 7, 10, 13, 16, 19, 20, 21]);
        assert!(kinds("attn_v").eq(kinds("ffn_down")));
        assert!(kinds("ffn_up").all(|it| it == TensorType::Q4K));
        assert_eq!(Mix::Q4KM.outside("output.weight"), TensorType::Q6K);
        assert_eq!(Mix::Q4KM.outside("token_embd.weight"), TensorType::Q4K);
        assert_eq!(Mix::Q8_0.outside("output.weight"), TensorType::Q8_0);
    }
}
