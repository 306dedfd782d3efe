//! Random models of a real size, to measure the speed of a machine or an engine with.
//!
//! Speed depends on the shape and on the stored forms, not on what the weights say. The file is a
//! pure function of shape, mix and seed, and is made while it is written: the largest takes
//! seconds and a few hundred kilobytes of memory.
//!
//! One thing is not left to chance. Speculation pays where a text repeats itself, so this one
//! does: what scores best after a token is its successor in a ring of sixteen tokens. The row of
//! `output.weight` of the successor has the digits of the token's embedding, and embeddings are
//! so long that the layers, whose work is unchanged, do not turn them. For that the embedding is
//! stored in the form of `output.weight`, a few bits more than a mix has for it.

use std::fs::File;
use std::io;
use std::path::Path;

use super::blocks::Weights;
use super::mix::Mix;
use super::pieces::Pieces;
use crate::gguf::{Array, GgufWriter, TensorSpec, TensorType, Value};

/// The deviation of all weights: what models are initialised with. Activations stay finite
/// through any number of layers, because every layer normalises what it reads.
const DEVIATION: f32 = 0.02;

/// The deviation of embeddings: some ten times what all layers add to them.
const EMBEDDING_DEVIATION: f32 = 64.0;

/// Tokens that follow each other in a ring: the length of what repeats.
const RING: usize = 16;

/// The sizes of a decoder of the Llama family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What people type.
    pub name: &'static str,
    /// Numbers in the row of a token.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Heads that ask; `width` is a multiple.
    pub heads: usize,
    /// Heads that answer; `heads` is a multiple.
    pub kv_heads: usize,
    /// Numbers inside the feed-forward part.
    pub feed_forward: usize,
    /// Tokens of the vocabulary.
    pub tokens: usize,
    /// Positions the model is made for.
    pub context: u32,
}

/// Shapes by name: of a model to try things with, and of some that people run.
pub const SHAPES: [Shape; 5] = [
    // Small enough for ten thousand tokens in plain code, with a context for as many.
    Shape {
        name: "tiny",
        width: 256,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        feed_forward: 256,
        tokens: 512,
        context: 16_384,
    },
    Shape {
        name: "small",
        width: 256,
        layers: 4,
        heads: 8,
        kv_heads: 4,
        feed_forward: 768,
        tokens: 4_096,
        context: 2_048,
    },
    // TinyLlama.
    Shape {
        name: "1.1b",
        width: 2_048,
        layers: 22,
        heads: 32,
        kv_heads: 4,
        feed_forward: 5_632,
        tokens: 32_000,
        context: 2_048,
    },
    // Llama 3.2, with a vocabulary of SentencePiece.
    Shape {
        name: "3b",
        width: 3_072,
        layers: 28,
        heads: 24,
        kv_heads: 8,
        feed_forward: 8_192,
        tokens: 32_000,
        context: 8_192,
    },
    // Mistral.
    Shape {
        name: "7b",
        width: 4_096,
        layers: 32,
        heads: 32,
        kv_heads: 8,
        feed_forward: 14_336,
        tokens: 32_000,
        context: 8_192,
    },
];

impl Shape {
    /// The shape of this name.
    pub fn named(name: &str) -> Option<Self> {
        SHAPES.into_iter().find(|it| it.name == name)
    }

    /// Every tensor of a file of this shape, in the order it has them.
    fn tensors(self, mix: Mix) -> Vec<TensorSpec> {
        let spec =
            |name: String, dims: &[usize], kind| TensorSpec { name, dims: dims.into(), kind };
        let Self { width, feed_forward, .. } = self;
        let kv_width = width / self.heads * self.kv_heads;
        let mut tensors = Vec::new();
        for name in ["token_embd.weight", "output.weight"] {
            tensors.push(spec(name.into(), &[self.tokens, width], mix.outside("output.weight")));
        }
        tensors.push(spec("output_norm.weight".into(), &[width], TensorType::F32));
        for layer in 0..self.layers {
            for (part, rows, columns) in [
                ("attn_q", width, width),
                ("attn_k", kv_width, width),
                ("attn_v", kv_width, width),
                ("attn_output", width, width),
                ("ffn_gate", feed_forward, width),
                ("ffn_up", feed_forward, width),
                ("ffn_down", width, feed_forward),
            ] {
                let kind = mix.inside(part, layer, self.layers);
                tensors.push(spec(format!("blk.{layer}.{part}.weight"), &[rows, columns], kind));
            }
            for part in ["attn_norm", "ffn_norm"] {
                let name = format!("blk.{layer}.{part}.weight");
                tensors.push(spec(name, &[width], TensorType::F32));
            }
        }
        tensors
    }

    fn metadata(self, mix: Mix) -> GgufWriter {
        let number = |value: usize| Value::U32(u32::try_from(value).unwrap_or(u32::MAX));
        let Pieces { texts, scores, kinds } = Pieces::generate(self.tokens);
        let name = format!("Random weights in the shape {} for measurements", self.name);
        let mut file = GgufWriter::new();
        file.set("general.architecture", Value::String("llama".into()))
            .set("general.name", Value::String(name))
            .set("general.license", Value::String("CC0-1.0".into()))
            .set("general.file_type", Value::U32(mix.file_type()))
            .set("general.quantization_version", Value::U32(2))
            .set("llama.vocab_size", number(self.tokens))
            .set("llama.context_length", Value::U32(self.context))
            .set("llama.embedding_length", number(self.width))
            .set("llama.block_count", number(self.layers))
            .set("llama.feed_forward_length", number(self.feed_forward))
            .set("llama.attention.head_count", number(self.heads))
            .set("llama.attention.head_count_kv", number(self.kv_heads))
            .set("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5))
            .set("llama.rope.dimension_count", number(self.width / self.heads))
            .set("llama.rope.freq_base", Value::F32(10_000.0))
            .set("tokenizer.ggml.model", Value::String("llama".into()))
            .set("tokenizer.ggml.tokens", Value::Array(Array::String(texts)))
            .set("tokenizer.ggml.scores", Value::Array(Array::F32(scores)))
            .set("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds)))
            .set("tokenizer.ggml.unknown_token_id", Value::U32(0))
            .set("tokenizer.ggml.bos_token_id", Value::U32(1))
            .set("tokenizer.ggml.eos_token_id", Value::U32(2))
            .set("tokenizer.ggml.add_bos_token", Value::Bool(true));
        file
    }
}

/// Writes the model of this shape, mix and seed to `path`. `progress` is told the bytes of
/// weights that are made and that there will be.
pub fn write_bench_model(
    path: &Path,
    (shape, mix): (Shape, Mix),
    seed: u64,
    mut progress: impl FnMut(u64, u64),
) -> io::Result<()> {
    let tensors = shape.tensors(mix);
    let total = tensors.iter().filter_map(TensorSpec::size).sum();
    let mut weights = Weights::new(seed, DEVIATION);
    let mut outputs = Weights::new(seed, DEVIATION);
    let mut embeddings = Weights::new(seed, EMBEDDING_DEVIATION);
    let mut done = 0;
    let mut file = File::create(path)?;
    shape.metadata(mix).stream(&tensors, &mut file, |spec, first, piece| {
        let row_size = row_size(spec);
        match spec.name.as_str() {
            "token_embd.weight" => {
                for (token, row) in (first..).zip(piece.chunks_mut(row_size)) {
                    embeddings.restart(seed ^ token as u64).fill(spec.kind, row);
                }
            }
            "output.weight" => {
                for (token, row) in (first..).zip(piece.chunks_mut(row_size)) {
                    outputs.restart(seed ^ before(token) as u64).fill(spec.kind, row);
                }
            }
            name if name.ends_with("_norm.weight") => {
                piece.as_chunks_mut().0.fill(1.0f32.to_le_bytes());
            }
            _ => weights.fill(spec.kind, piece),
        }
        done += piece.len() as u64;
        progress(done, total);
    })?;
    file.sync_all()
}

/// Bytes of a row.
fn row_size(spec: &TensorSpec) -> usize {
    let size = spec.size().and_then(|it| usize::try_from(it).ok()).unwrap_or(usize::MAX);
    (size / spec.row_count().max(1)).max(1)
}

/// The token that this one follows in its ring.
fn before(token: usize) -> usize {
    let first = token / RING * RING;
    first + (token - first + RING - 1) % RING
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Gguf;
    use crate::measure::{Plan, What};

    #[test]
    fn every_mix_of_the_small_shape_is_a_sound_file() {
        let shape = Shape::named("small").unwrap();
        let folder = tempfile::tempdir().unwrap();
        for mix in Mix::ALL {
            let path = folder.path().join(mix.name());
            let mut told = (0, 1);
            write_bench_model(&path, (shape, mix), 7, |done, total| told = (done, total)).unwrap();
            assert_eq!(told.0, told.1);
            let gguf = Gguf::parse(&std::fs::read(&path).unwrap()).unwrap();
            assert_eq!(gguf.tensors().len(), 3 + 9 * shape.layers);
            assert_eq!(gguf.unsigned("llama.vocab_size"), Ok(Some(4_096)));
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_file() {
        let shape = Shape { layers: 1, tokens: 512, ..Shape::named("small").unwrap() };
        let folder = tempfile::tempdir().unwrap();
        let file = |seed| {
            let path = folder.path().join("model.gguf");
            write_bench_model(&path, (shape, Mix::Q4KM), seed, |_, _| ()).unwrap();
            std::fs::read(path).unwrap()
        };
        assert!(file(1) == file(1));
        assert!(file(1) != file(2));
    }

    #[test]
    fn the_shape_of_1_1b_has_the_size_that_its_files_have() {
        let shape = Shape::named("1.1b").unwrap();
        let parameters: usize =
            shape.tensors(Mix::F16).iter().map(|it| it.dims.iter().product::<usize>()).sum();
        assert_eq!(parameters, 1_100_048_384);
        let size: u64 = shape.tensors(Mix::Q4KM).iter().filter_map(TensorSpec::size).sum();
        // The embedding, in 210 bytes of 256 numbers and not in 144.
        let more = 32_000 * 2_048 / 256 * (210 - 144);
        assert_eq!(size, 667_078_656 + more);
    }

    #[test]
    fn the_text_repeats_itself_so_guesses_are_right() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        for mix in [Mix::Q4KM, Mix::F16] {
            write_bench_model(&path, (Shape::named("small").unwrap(), mix), 1, |_, _| ()).unwrap();
            let report = Plan { threads: 1, tokens: 96, ..Plan::new(&path, What::Repeat) }.run();
            let report = report.unwrap();
            let (drafted, accepted) = (report.drafted.unwrap(), report.accepted.unwrap());
            assert!(accepted >= 64, "{mix}: {accepted} of {drafted}");
            assert!(accepted * 10 >= drafted * 9, "{mix}: {accepted} of {drafted}");
        }
    }
}
