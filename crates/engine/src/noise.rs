//! A small model of random weights, for demonstrations and tests: its text is noise.
//!
//! The file is a complete `llama` model with a SentencePiece vocabulary: three control tokens, the
//! 256 byte tokens, and a few hundred pieces. It is a pure function of the seed, so everybody who
//! writes it gets the same bytes and the same hash. [`mod@bench`] writes larger ones of the same kind,
//! in the shapes and stored forms of models that people run.
//!
//! [`adapter`] writes adapters for either.
//!
//! Not here: any claim that the text means something. `general.name` says that it does not.

pub mod adapter;
pub mod bench;
mod blocks;
mod mix;
mod pieces;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::gguf::{Array, GgufWriter, Value, WriteError};

pub use mix::{Mix, UnknownMix};

/// What `general.name` says.
pub const NOISE_MODEL_NAME: &str = "Commons noise model: random weights, its text is random noise";

/// The syllables whose pairs are the vocabulary's words: pronounceable, and in no language.
const SYLLABLES: [&str; 20] = [
    "ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "ri", "so", "tu", "va",
    "we", "xi", "yo", "zu",
];

/// Numbers in the row of a token.
const WIDTH: usize = 64;
const LAYERS: usize = 4;
const HEADS: usize = 8;
const KV_HEADS: usize = 4;
const FEED_FORWARD: usize = 176;
const CONTEXT: u32 = 2_048;

/// Why the model was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum NoiseError {
    #[error("failed to put the model together")]
    Build(#[from] WriteError),

    #[error("failed to write the model file")]
    Write(#[from] io::Error),
}

/// Writes the model of this seed to `path`.
pub fn write_noise_model(path: &Path, seed: u64) -> Result<(), NoiseError> {
    let bytes = noise_model(seed)?.to_bytes();
    let mut file = File::create(path)?;
    file.write_all(&bytes)?;
    Ok(file.sync_all()?)
}

/// The model of this seed, before it is written.
pub fn noise_model(seed: u64) -> Result<GgufWriter, NoiseError> {
    let mut model = GgufWriter::new();
    let (tokens, scores, kinds) = vocabulary();
    let token_count = tokens.len();
    let number = |value: usize| Value::U32(u32::try_from(value).unwrap_or(u32::MAX));
    model
        .set("general.architecture", Value::String("llama".into()))
        .set("general.name", Value::String(NOISE_MODEL_NAME.into()))
        .set("general.license", Value::String("CC0-1.0".into()))
        .set("llama.context_length", Value::U32(CONTEXT))
        .set("llama.embedding_length", number(WIDTH))
        .set("llama.block_count", number(LAYERS))
        .set("llama.feed_forward_length", number(FEED_FORWARD))
        .set("llama.attention.head_count", number(HEADS))
        .set("llama.attention.head_count_kv", number(KV_HEADS))
        .set("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5))
        .set("llama.rope.dimension_count", number(WIDTH / HEADS))
        .set("tokenizer.ggml.model", Value::String("llama".into()))
        .set("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)))
        .set("tokenizer.ggml.scores", Value::Array(Array::F32(scores)))
        .set("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds)))
        .set("tokenizer.ggml.unknown_token_id", Value::U32(0))
        .set("tokenizer.ggml.bos_token_id", Value::U32(1))
        .set("tokenizer.ggml.eos_token_id", Value::U32(2));

    let mut noise = Noise(seed);
    let kv_width = WIDTH / HEADS * KV_HEADS;
    let mut matrix =
        |model: &mut GgufWriter, name: &str, rows: usize, columns: usize, gain: f32| {
            // Scaled by the row length, so that activations neither die out nor grow with depth.
            #[expect(clippy::cast_precision_loss, reason = "a row has at most 176 numbers")]
            let scale = gain / (columns as f32).sqrt();
            let values: Vec<f32> = (0..rows * columns).map(|_| noise.next() * scale).collect();
            model.tensor_f32(name, &[rows, columns], &values).map(|_| ())
        };
    // Wide logits: a distribution with favourites looks more like text than a flat one.
    matrix(&mut model, "token_embd.weight", token_count, WIDTH, 8.0)?;
    for layer in 0..LAYERS {
        for (part, rows, columns) in [
            ("attn_q", WIDTH, WIDTH),
            ("attn_k", kv_width, WIDTH),
            ("attn_v", kv_width, WIDTH),
            ("attn_output", WIDTH, WIDTH),
            ("ffn_gate", FEED_FORWARD, WIDTH),
            ("ffn_up", FEED_FORWARD, WIDTH),
            ("ffn_down", WIDTH, FEED_FORWARD),
        ] {
            matrix(&mut model, &format!("blk.{layer}.{part}.weight"), rows, columns, 2.0)?;
        }
        for part in ["attn_norm", "ffn_norm"] {
            model.tensor_f32(format!("blk.{layer}.{part}.weight"), &[WIDTH], &[1.0; WIDTH])?;
        }
    }
    matrix(&mut model, "output.weight", token_count, WIDTH, 4.0)?;
    model.tensor_f32("output_norm.weight", &[WIDTH], &[1.0; WIDTH])?;
    Ok(model)
}

/// Texts, scores and kinds. Longer pieces score better, so that encoding prefers them.
fn vocabulary() -> (Vec<String>, Vec<f32>, Vec<i32>) {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).to_vec();
    let mut kinds = vec![2, 3, 3];
    for byte in 0..=255 {
        tokens.push(format!("<0x{byte:02X}>"));
        kinds.push(6);
    }
    let mut scores = vec![0.0; tokens.len()];
    let mut push = |text: String, score: f32| {
        tokens.push(text);
        kinds.push(1);
        scores.push(score);
    };
    push("▁".into(), -1000.0);
    (' '..='~').skip(1).for_each(|c| push(c.into(), -1000.0));
    // A piece is reached by merging two others, so every prefix of a piece is a piece.
    for syllable in SYLLABLES {
        push(syllable.into(), -500.0);
        push(format!("▁{syllable}"), -400.0);
    }
    for (index, first) in SYLLABLES.iter().enumerate() {
        for (step, score) in [(1, -299.0), (3, -297.0), (7, -293.0), (11, -289.0)] {
            let second = SYLLABLES[(index + step) % SYLLABLES.len()];
            push(format!("▁{first}{second}"), score);
        }
    }
    (tokens, scores, kinds)
}

/// `SplitMix64`: enough randomness for weights that mean nothing.
#[derive(Debug)]
struct Noise(u64);

impl Noise {
    /// A number from -1 to 1.
    fn next(&mut self) -> f32 {
        #[expect(clippy::cast_precision_loss, reason = "24 bits are exact in f32")]
        let unit = (self.bits() >> 40) as f32 / 16_777_216.0;
        unit * 2.0 - 1.0
    }

    /// 64 random bits.
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
