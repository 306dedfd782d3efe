//! What a model says about itself, checked before a weight is read: one struct for every family.
//!
//! ```text
//! GGUF metadata  --+
//!                  +--> Reader (one question, two spellings) --> family defaults --> Settings
//! config.json    --+
//! ```
//!
//! A forward pass reads [`Settings`] and nothing else: no branch on a family's name. What differs
//! between families is a field here (where norms stand, which gate, which layers see how far).
//!
//! # Invariants
//!
//! * Every count is at least one and at most a named limit; sizes that follow from them fit `usize`.
//! * Query heads are a multiple of key heads; a head has an even number of numbers; each layer's
//!   rope index is in [`Settings::ropes`]; each frequency is finite and positive.
//! * What would change the numbers and is not computed here is refused by name.
//!
//! Not here: which tensors there are and what they hold (`weights.rs`), the vocabulary and its
//! control tokens (`tokenizer.rs`).

mod config;
mod error;
mod estimate;
mod family;
mod gguf;
mod read;
mod rope;

#[cfg(test)]
mod tests;

pub(crate) use config::{Config, end_tokens};
pub use error::SettingsError;
pub(crate) use family::Family;
pub use gguf::ReadVector;
pub use rope::{LongRope, RopeSettings, RopeStyle};

/// What a model says about itself.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and read apart")]
pub struct Settings {
    /// The architecture, by the name that GGUF files use: `llama`, `gemma2`.
    pub architecture: String,
    /// Whether it continues text or turns text into one vector.
    pub kind: ModelKind,
    /// How many layers there are.
    pub layer_count: usize,
    /// Numbers in the row of a token.
    pub width: usize,
    /// Query heads.
    pub head_count: usize,
    /// Key and value heads; each serves as many query heads as any other.
    pub kv_head_count: usize,
    /// Numbers in the row of a head: the same for queries, keys and values.
    pub head_size: usize,
    /// Numbers in the row between the two halves of the feed-forward part.
    pub feed_forward_len: usize,
    /// Positions that the model was made for.
    pub context_len: usize,
    /// Rows of the embedding. A vocabulary may have fewer tokens: the rest is padding, and must
    /// never be drawn.
    pub token_count: usize,
    /// Which norm.
    pub norm: Norm,
    /// Keeps the norm from dividing by zero.
    pub epsilon: f32,
    /// Where norms stand in a layer.
    pub norm_places: NormPlaces,
    /// Whether each query head and each key head is normed (RMS, `head_size` weights) before it is
    /// turned: `attn_q_norm`, `attn_k_norm`.
    pub has_head_norms: bool,
    /// Whether queries, keys and values have biases; where false, a bias in the file is still used.
    pub has_qkv_bias: bool,
    /// Rotary positions: most models have one, those with local and global layers may have two.
    pub ropes: Vec<RopeSettings>,
    /// Whether positions are learned rows added to the embedding (`position_embd`), not rotations.
    pub has_learned_positions: bool,
    /// One entry for each layer.
    pub layers: Vec<LayerSettings>,
    /// Scores (query times key) are multiplied by this.
    pub attention_scale: f32,
    /// Scores become `cap * tanh(score / cap)`, before the mask.
    pub attention_softcap: Option<f32>,
    /// Logits become `cap * tanh(logit / cap)`.
    pub logit_softcap: Option<f32>,
    /// The function between the two halves of the feed-forward part.
    pub activation: Activation,
    /// Whether the activated half is multiplied with a second one (`ffn_gate` and `ffn_up`).
    /// Without, there is `ffn_up` alone, and it is activated.
    pub is_gated: bool,
    /// Rows of the embedding are multiplied by this.
    pub embedding_scale: Option<f32>,
    /// How an encoder makes one vector of many rows.
    pub pooling: Option<Pooling>,
    /// Several feed-forward parts of which each token uses some.
    pub experts: Option<Experts>,
    /// Tokens that end an answer, as a `config.json` names them; empty for GGUF, where the
    /// vocabulary says it.
    pub end_tokens: Vec<u32>,
}

/// What comes out of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// Logits behind each token; a token sees those before it.
    Decoder,
    /// One vector of the whole text; every token sees every other.
    Encoder,
}

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// `x / sqrt(mean(x^2) + epsilon) * weight`
    Rms,
    /// `(x - mean) / sqrt(variance + epsilon) * weight + bias`
    Layer,
}

/// Where norms stand in a layer, and which tensors they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlaces {
    /// `x + f(norm(x))`: `attn_norm` and `ffn_norm`; behind the layers `output_norm`.
    Pre,
    /// `x + post(f(norm(x)))`: also `post_attention_norm` and `post_ffw_norm`.
    PreAndPost,
    /// `norm(x + f(x))`: `attn_output_norm` and `layer_output_norm`; before the layers
    /// `token_embd_norm`; behind them nothing.
    Post,
}

/// How far one layer sees, and how it knows positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerSettings {
    /// A token sees itself and at most `window - 1` tokens before it; none means all.
    pub window: Option<usize>,
    /// Which of [`Settings::ropes`]; none means that queries and keys are not turned.
    pub rope: Option<usize>,
}

/// The function between the two halves of a feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`
    Silu,
    /// `0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`
    GeluTanh,
    /// `0.5 x (1 + erf(x / sqrt(2)))`
    GeluErf,
}

/// How an encoder makes one vector of many rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of all rows.
    Mean,
    /// The first row.
    Cls,
    /// The last row.
    Last,
}

/// A mixture of feed-forward parts: `ffn_gate_inp` chooses (softmax over all, the best `used`),
/// `ffn_gate_exps`, `ffn_up_exps` and `ffn_down_exps` compute. Every layer has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    /// How many there are.
    pub count: usize,
    /// How many compute each token.
    pub used: usize,
    /// Numbers between the two halves of one expert.
    pub feed_forward_len: usize,
    /// Whether the weights of the chosen are divided by their sum.
    pub is_normed: bool,
}

impl Settings {
    /// Query heads that share one key and value head.
    pub fn group_size(&self) -> usize {
        self.head_count / self.kv_head_count
    }

    /// Numbers in the row of all query heads.
    pub fn query_width(&self) -> usize {
        self.head_count * self.head_size
    }

    /// Numbers in the row of all key heads, and in that of all value heads.
    pub fn kv_width(&self) -> usize {
        self.kv_head_count * self.head_size
    }
}
