//! Logits against a recorded reference, and every tensor type against its own numbers widened.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use commons_engine::Model;
use commons_engine::gguf::{Array, GgufWriter, TensorType, Value};
use serde::Deserialize;

use crate::support::fixture;

/// What sets one small model apart.
struct Shape {
    width: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    inner: usize,
    tokens: usize,
    rope_base: f32,
    epsilon: f32,
}

/// A file with this model's settings and a vocabulary of byte tokens, without weights.
fn settings(shape: &Shape) -> GgufWriter {
    let number = |value: usize| Value::U32(u32::try_from(value).expect("small"));
    let texts = (0..shape.tokens).map(|id| format!("<0x{id:02X}>")).collect();
    let mut kinds = vec![6; shape.tokens];
    kinds[0] = 2;
    let mut writer = GgufWriter::new();
    writer
        .set("general.architecture", Value::String("llama".into()))
        .set("llama.context_length", Value::U32(64))
        .set("llama.embedding_length", number(shape.width))
        .set("llama.block_count", number(shape.layers))
        .set("llama.feed_forward_length", number(shape.inner))
        .set("llama.attention.head_count", number(shape.heads))
        .set("llama.attention.head_count_kv", number(shape.kv_heads))
        .set("llama.attention.layer_norm_rms_epsilon", Value::F32(shape.epsilon))
        .set("llama.rope.freq_base", Value::F32(shape.rope_base))
        .set("tokenizer.ggml.model", Value::String("llama".into()))
        .set("tokenizer.ggml.tokens", Value::Array(Array::String(texts)))
        .set("tokenizer.ggml.scores", Value::Array(Array::F32(vec![0.0; shape.tokens])))
        .set("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds)));
    writer
}

fn load(writer: &GgufWriter) -> Model {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, writer.to_bytes()).expect("writes");
    Model::load(&path).expect("loads")
}

/// The logits behind every token.
fn logits(model: &Model, ids: &[u32]) -> Vec<f32> {
    let mut cache = model.llama().new_cache();
    let rows = model.llama().forward(ids, &mut cache).expect("computes");
    let logits = model.llama().logits(&rows).expect("computes");
    logits.flatten_all().and_then(|it| it.to_vec1()).expect("numbers")
}

fn worst_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[derive(Deserialize)]
struct Golden {
    cases: HashMap<String, GoldenCase>,
}

#[derive(Deserialize)]
struct GoldenCase {
    input_ids: Vec<Vec<u32>>,
    logits: Vec<f32>,
}

/// The checkpoint's tensors under the names, and with the order of rows, that GGUF files have.
fn tiny_llama(folder: &Path, shape: &Shape) -> GgufWriter {
    let path = folder.join("model.safetensors");
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).expect("a checkpoint");
    let mut writer = settings(shape);
    for (name, tensor) in &tensors {
        let name = name.trim_start_matches("model.");
        let heads = match name {
            name if name.contains("q_proj") => Some(shape.heads),
            name if name.contains("k_proj") => Some(shape.kv_heads),
            _ => None,
        };
        let tensor = heads.map_or_else(|| tensor.clone(), |heads| pair_up(tensor, heads));
        let name = [
            ("embed_tokens", "token_embd"),
            ("layers.", "blk."),
            ("input_layernorm", "attn_norm"),
            ("post_attention_layernorm", "ffn_norm"),
            ("self_attn.o_proj", "attn_output"),
            ("self_attn.q_proj", "attn_q"),
            ("self_attn.k_proj", "attn_k"),
            ("self_attn.v_proj", "attn_v"),
            ("mlp.down_proj", "ffn_down"),
            ("mlp.gate_proj", "ffn_gate"),
            ("mlp.up_proj", "ffn_up"),
        ]
        .iter()
        .fold(name.to_owned(), |name, (from, to)| name.replace(from, to));
        let name = if name == "norm.weight" { "output_norm.weight".to_owned() } else { name };
        let values: Vec<f32> = tensor.flatten_all().and_then(|it| it.to_vec1()).expect("numbers");
        writer.tensor_f32(name, tensor.dims(), &values).expect("fits");
    }
    let factors = llama3_factors(shape);
    writer.tensor_f32("rope_freqs.weight", &[factors.len()], &factors).expect("fits");
    writer
}

/// Checkpoints keep the two numbers that turn together half a head apart, GGUF files side by side.
fn pair_up(tensor: &Tensor, heads: usize) -> Tensor {
    let (rows, columns) = tensor.dims2().expect("a matrix");
    let half = rows / heads / 2;
    let paired = tensor.reshape((heads, 2, half, columns)).and_then(|it| it.transpose(1, 2));
    paired.and_then(|it| it.reshape((rows, columns))).expect("the same numbers")
}

/// The `llama3` stretch of `config.json`: factor 8, low 1, high 4, trained on 16 positions.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "small numbers")]
fn llama3_factors(shape: &Shape) -> Vec<f32> {
    let size = shape.width / shape.heads;
    let factors = (0..size / 2).map(|pair| {
        let frequency = f64::from(shape.rope_base).powf(-2.0 * pair as f64 / size as f64);
        let turns = 16.0 * frequency / std::f64::consts::TAU;
        match turns {
            turns if turns > 4.0 => 1.0,
            turns if turns < 1.0 => 8.0,
            turns => {
                let smooth = (turns - 1.0) / (4.0 - 1.0);
                1.0 / ((1.0 - smooth) / 8.0 + smooth)
            }
        }
    });
    factors.map(|factor| factor as f32).collect()
}

#[test]
fn logits_of_a_tiny_llama_equal_those_of_transformers() {
    let Some(folder) = fixture("models/tiny/tiny_llama") else { return };
    let shape = Shape {
        width: 32,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        inner: 48,
        tokens: 32,
        rope_base: 500_000.0,
        epsilon: 1e-6,
    };
    let model = load(&tiny_llama(&folder, &shape));
    let golden = std::fs::read_to_string(folder.join("golden.json")).expect("readable");
    let golden: Golden = serde_json::from_str(&golden).expect("JSON");
    for (name, case) in golden.cases {
        let ours: Vec<f32> = case.input_ids.iter().flat_map(|ids| logits(&model, ids)).collect();
        let worst = worst_difference(&ours, &case.logits);
        eprintln!("tiny_llama {name}: {} logits, largest difference {worst:e}", ours.len());
        assert!(worst < 1e-4, "{name}: {worst}");
    }
}

/// Reading a prompt in pieces, or token by token, is reading it at once.
#[test]
fn logits_do_not_depend_on_how_a_prompt_is_cut() {
    let Some(path) = fixture("models/stories260K.gguf") else { return };
    let model = Model::load(&path).expect("loads");
    let ids: Vec<u32> = (0..300).map(|index| 3 + index * 7 % 500).collect();
    let whole = {
        let mut cache = model.llama().new_cache();
        model.llama().next_logits(&ids, &mut cache).expect("computes")
    };
    for size in [1, 7, 128] {
        let mut cache = model.llama().new_cache();
        let last = ids.chunks(size).map(|ids| model.llama().next_logits(ids, &mut cache)).last();
        let last = last.expect("some").expect("computes");
        let worst = worst_difference(&last, &whole);
        assert!(worst < 1e-4, "in pieces of {size}: {worst}");
    }
}

const TYPES: [(TensorType, GgmlDType); 11] = [
    (TensorType::F32, GgmlDType::F32),
    (TensorType::F16, GgmlDType::F16),
    (TensorType::BF16, GgmlDType::BF16),
    (TensorType::Q4_0, GgmlDType::Q4_0),
    (TensorType::Q4_1, GgmlDType::Q4_1),
    (TensorType::Q5_0, GgmlDType::Q5_0),
    (TensorType::Q5_1, GgmlDType::Q5_1),
    (TensorType::Q8_0, GgmlDType::Q8_0),
    (TensorType::Q4K, GgmlDType::Q4K),
    (TensorType::Q5K, GgmlDType::Q5K),
    (TensorType::Q6K, GgmlDType::Q6K),
];

/// A model whose matrices have the type, and the same one with its numbers widened to F32.
fn pair_of(kind: TensorType, quantised: GgmlDType) -> (GgufWriter, GgufWriter) {
    let shape = Shape {
        width: 256,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        inner: 512,
        tokens: 64,
        rope_base: 10_000.0,
        epsilon: 1e-5,
    };
    let (width, kv_width, inner) = (shape.width, shape.width / 2, shape.inner);
    let (mut narrow, mut wide) = (settings(&shape), settings(&shape));
    let mut matrices = vec![("token_embd".to_owned(), shape.tokens, width)];
    let mut vectors = vec!["output_norm".to_owned()];
    for layer in 0..shape.layers {
        let parts = [
            ("attn_q", width, width),
            ("attn_k", kv_width, width),
            ("attn_v", kv_width, width),
            ("attn_output", width, width),
            ("ffn_gate", inner, width),
            ("ffn_up", inner, width),
            ("ffn_down", width, inner),
        ];
        let named = |(part, rows, columns)| (format!("blk.{layer}.{part}"), rows, columns);
        matrices.extend(parts.map(named));
        vectors.extend(["attn_norm", "ffn_norm"].map(|part| format!("blk.{layer}.{part}")));
    }
    for (seed, (name, rows, columns)) in matrices.into_iter().enumerate() {
        let name = format!("{name}.weight");
        let dims = [rows, columns];
        let values = noise(seed, rows * columns);
        let tensor = Tensor::from_vec(values, &dims[..], &Device::Cpu).expect("a matrix");
        let blocks = QTensor::quantize(&tensor, quantised).expect("quantises");
        let data: Cow<'_, [u8]> = blocks.data().expect("bytes");
        narrow.tensor(&name, &dims, kind, data.into_owned()).expect("fits");
        let values = blocks.dequantize(&Device::Cpu).and_then(|it| it.flatten_all()?.to_vec1());
        wide.tensor_f32(&name, &dims, &values.expect("numbers")).expect("fits");
    }
    for name in vectors {
        for writer in [&mut narrow, &mut wide] {
            writer.tensor_f32(format!("{name}.weight"), &[width], &vec![1.0; width]).expect("fits");
        }
    }
    (narrow, wide)
}

/// Numbers around zero that repeat.
#[expect(clippy::cast_precision_loss, reason = "24 bits are exact in f32")]
fn noise(seed: usize, count: usize) -> Vec<f32> {
    let mut state = 0x2545_f491_4f6c_dd1du64.wrapping_mul(seed as u64 + 1);
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32 / 16_777_216.0 - 0.5) * 0.2
    };
    (0..count).map(next).collect()
}

#[test]
fn every_tensor_type_computes_what_its_numbers_widened_to_f32_do() {
    let ids: Vec<u32> = (0..40).map(|index| index * 11 % 64).collect();
    for (kind, quantised) in TYPES {
        let (narrow, wide) = pair_of(kind, quantised);
        let (narrow, wide) = (load(&narrow), load(&wide));
        assert_eq!(narrow.facts().quantisation, kind.name());
        let wanted = logits(&wide, &ids);
        let largest = wanted.iter().fold(0f32, |largest, logit| largest.max(logit.abs()));
        // Activations rounded to 8 bits move these logits by 2 to 3 % of the largest; a block that
        // is read wrong moves them by about 100 %. Floats are widened exactly.
        let is_float = matches!(kind, TensorType::F32 | TensorType::F16 | TensorType::BF16);
        let tolerance = if is_float { 0.0 } else { 0.05 * largest };
        let at_once = worst_difference(&logits(&narrow, &ids), &wanted);
        eprintln!("{kind}: largest logit {largest:.3}, largest difference {at_once:.5}");
        assert!(at_once <= tolerance, "{kind}: {at_once} of {largest}");
        // One row goes through other kernels than many.
        let mut cache = narrow.llama().new_cache();
        let single = ids.iter().map(|&id| narrow.llama().next_logits(&[id], &mut cache)).last();
        let single = single.expect("some").expect("computes");
        let worst = worst_difference(&single, &wanted[wanted.len() - single.len()..]);
        assert!(worst <= tolerance.max(1e-4), "{kind}, row by row: {worst} of {largest}");
    }
}
