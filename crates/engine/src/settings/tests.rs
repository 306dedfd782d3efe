//! Settings of each family from both sources, and what is refused.
#![expect(clippy::float_cmp, reason = "these numbers are exact, or copied")]

use serde_json::{Value as Json, json};

use super::{Activation, ModelKind, NormPlaces, Pooling, RopeStyle, Settings, SettingsError};
use crate::gguf::{Array, Gguf, GgufWriter, TensorType, Value};

/// A `config.json` of the smallest llama, changed by `more`; `null` removes nothing, as in files.
fn config(more: Json) -> Json {
    let mut config = json!({
        "model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 40,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 128
    });
    let Json::Object(more) = more else { panic!("an object") };
    config.as_object_mut().expect("an object").extend(more);
    config
}

fn from_config(more: Json) -> Result<Settings, SettingsError> {
    Settings::from_config(config(more).to_string().as_bytes())
}

fn read(more: Json) -> Settings {
    from_config(more).expect("is supported")
}

/// The whole chain of a refusal.
fn chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map_or(String::new(), |source| format!(": {}", chain(source)));
    format!("{error}{source}")
}

fn refuse(more: Json, wanted: &str) {
    let shown = more.to_string();
    let Err(error) = from_config(more) else { panic!("{shown} is not refused") };
    let text = chain(&error);
    assert!(text.contains(wanted), "{shown}: {text:?} does not say {wanted:?}");
}

/// A GGUF file of the smallest llama; `more` sets or replaces keys of the architecture.
fn gguf(architecture: &str, more: &[(&str, Value)]) -> Gguf {
    let mut file = GgufWriter::new();
    file.set("general.architecture", Value::String(architecture.into()));
    let sizes: [(&str, Value); 7] = [
        ("block_count", Value::U32(4)),
        ("embedding_length", Value::U32(32)),
        ("feed_forward_length", Value::U32(40)),
        ("attention.head_count", Value::U32(4)),
        ("attention.head_count_kv", Value::U32(2)),
        ("context_length", Value::U32(128)),
        ("attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
    ];
    for (key, value) in sizes.iter().chain(more) {
        file.replace(&format!("{architecture}.{key}"), value.clone());
    }
    file.tensor("token_embd.weight", &[64, 32], TensorType::F32, vec![0; 64 * 32 * 4])
        .expect("fits");
    Gguf::parse(&file.to_bytes()).expect("is sound")
}

fn from_gguf(architecture: &str, more: &[(&str, Value)]) -> Result<Settings, SettingsError> {
    Settings::from_gguf(&gguf(architecture, more), &|_| Ok(None))
}

fn refuse_gguf(architecture: &str, more: &[(&str, Value)], wanted: &str) {
    let Err(error) = from_gguf(architecture, more) else { panic!("{more:?} is not refused") };
    let text = chain(&error);
    assert!(text.contains(wanted), "{more:?}: {text:?} does not say {wanted:?}");
}

fn windows(settings: &Settings) -> Vec<usize> {
    settings.layers.iter().map(|layer| layer.window.unwrap_or(0)).collect()
}

#[test]
fn a_plain_llama_is_read_alike_from_both_sources() {
    let folder = read(json!({"rms_norm_eps": 1e-5}));
    let mut file = from_gguf("llama", &[]).expect("is supported");
    assert_eq!(file.ropes[0].style, RopeStyle::Interleaved);
    file.ropes[0].style = RopeStyle::Split;
    assert_eq!(folder, file);
    assert_eq!((folder.head_size, folder.group_size(), folder.kv_width()), (8, 2, 16));
    assert_eq!(folder.ropes[0].frequencies, [1.0, 0.1, 0.01, 0.001]);
    assert_eq!(folder.kv_size_per_position(TensorType::F16), 4 * 2 * 2 * 8 * 2);
    assert_eq!(folder.kv_size_per_position(TensorType::Q8_0), 4 * 2 * 2 * 34);
}

#[test]
fn each_family_has_its_own_parts() {
    let qwen2 = read(json!({"model_type": "qwen2"}));
    assert!(qwen2.has_qkv_bias && !qwen2.has_head_norms);
    let qwen3 = read(json!({"model_type": "qwen3"}));
    assert!(!qwen3.has_qkv_bias && qwen3.has_head_norms);
    assert_eq!(qwen3.head_size, 128, "the family's own where the file says nothing");
    let gemma = read(json!({"model_type": "gemma", "hidden_act": "gelu"}));
    assert_eq!(gemma.activation, Activation::GeluTanh);
    assert_eq!(gemma.embedding_scale, Some(32f32.sqrt()));
    let gemma2 = read(json!({"model_type": "gemma2"}));
    assert_eq!(gemma2.norm_places, NormPlaces::PreAndPost);
    assert_eq!((gemma2.attention_softcap, gemma2.logit_softcap), (Some(50.0), Some(30.0)));
    assert_eq!(gemma2.attention_scale, 1.0 / 16.0);
    let bert = read(json!({"model_type": "bert", "hidden_act": "gelu"}));
    assert_eq!((bert.kind, bert.pooling), (ModelKind::Encoder, Some(Pooling::Mean)));
    assert!(bert.ropes.is_empty() && bert.has_learned_positions && !bert.is_gated);
    assert_eq!(bert.activation, Activation::GeluErf);
    let biased = read(json!({"attention_bias": true}));
    assert!(biased.has_qkv_bias);
}

#[test]
fn a_null_turns_a_cap_off_and_nothing_at_all_leaves_the_familys_own() {
    let none = read(json!({"model_type": "gemma2", "attn_logit_softcapping": null,
        "final_logit_softcapping": 7.5}));
    assert_eq!((none.attention_softcap, none.logit_softcap), (None, Some(7.5)));
    let file = from_gguf("gemma2", &[]).expect("is supported");
    assert_eq!((file.attention_softcap, file.logit_softcap), (Some(50.0), Some(30.0)));
}

#[test]
fn the_embedding_scale_is_rounded_as_the_weights_are() {
    let scale = |dtype| {
        let more =
            json!({"model_type": "gemma", "hidden_size": 2_560, "head_dim": 256, "dtype": dtype});
        read(more).embedding_scale
    };
    assert_eq!(scale("bfloat16"), Some(50.5));
    assert_eq!(scale("float32"), Some(2_560f32.sqrt()));
}

#[test]
fn windows_apply_to_the_layers_that_the_family_or_the_file_names() {
    let check = |more: Json, wanted: &[usize]| {
        assert_eq!(windows(&read(more.clone())), wanted, "{more}");
    };
    check(json!({"model_type": "mistral", "sliding_window": 8}), &[8, 8, 8, 8]);
    check(json!({"model_type": "mistral", "sliding_window": null}), &[0; 4]);
    check(json!({"model_type": "mistral", "sliding_window": 128}), &[0; 4]);
    check(json!({"model_type": "gemma2", "sliding_window": 8}), &[8, 0, 8, 0]);
    check(
        json!({"model_type": "gemma3_text", "sliding_window": 8, "num_hidden_layers": 7}),
        &[8, 8, 8, 8, 8, 0, 8],
    );
    check(
        json!({"model_type": "gemma3_text", "sliding_window": 8, "sliding_window_pattern": 2}),
        &[8, 0, 8, 0],
    );
    let late = json!({"model_type": "qwen2", "sliding_window": 8, "max_window_layers": 3});
    check(late.clone(), &[0; 4]);
    let mut on = late;
    on["use_sliding_window"] = json!(true);
    check(on, &[0, 0, 0, 8]);
    let types = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"];
    check(
        json!({"model_type": "gemma2", "sliding_window": 8, "layer_types": types}),
        &[0, 8, 0, 8],
    );
    let window = ("attention.sliding_window", Value::U32(8));
    let file = |architecture, more: &[(&str, Value)]| {
        windows(&from_gguf(architecture, more).expect("is supported"))
    };
    assert_eq!(file("gemma2", std::slice::from_ref(&window)), [8, 0, 8, 0]);
    let pattern = |value| ("attention.sliding_window_pattern", value);
    assert_eq!(file("gemma2", &[window.clone(), pattern(Value::U32(4))]), [8, 8, 8, 0]);
    let flags = Value::Array(Array::Bool(vec![false, true, true, false]));
    assert_eq!(file("gemma3", &[window, pattern(flags)]), [0, 8, 8, 0]);
}

#[test]
fn gemma_3_turns_local_layers_by_a_base_of_their_own() {
    let old = json!({"model_type": "gemma3", "text_config": config(json!({
        "model_type": "gemma3_text", "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "rope_theta": 1e6, "rope_local_base_freq": 1e4, "head_dim": 8, "sliding_window": 8
    }))});
    let new = json!({"model_type": "gemma3_text", "head_dim": 8, "sliding_window": 8,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}});
    let old = Settings::from_config(old.to_string().as_bytes()).expect("is supported");
    assert_eq!(old, read(new));
    assert_eq!(old.ropes[0].frequencies[0], 1.0 / 8.0);
    assert_eq!(old.ropes[1].frequencies[1], 0.1);
    assert_eq!(old.layers[0].rope, Some(1), "local");
    let keys = [
        ("rope.freq_base", Value::F32(1e6)),
        ("rope.scaling.type", Value::String("linear".into())),
        ("rope.scaling.factor", Value::F32(8.0)),
        ("attention.sliding_window", Value::U32(8)),
    ];
    assert_eq!(from_gguf("gemma3", &keys).expect("is supported").ropes, old.ropes);
}

#[test]
fn both_spellings_of_rotary_settings_mean_the_same() {
    let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 16});
    let mut new = scaling.clone();
    new["rope_theta"] = json!(5e5);
    let old = read(json!({"rope_scaling": scaling, "rope_theta": 5e5}));
    let new = read(json!({"rope_parameters": new}));
    assert_eq!(old, new);
    // The fastest pair makes 16 / 2 pi = 2.546 turns in training, between 1 and 4: it is mixed.
    let share = (16.0 / std::f64::consts::TAU - 1.0) / 3.0;
    let frequencies = &old.ropes[0].frequencies;
    assert!((frequencies[0] - ((1.0 - share) / 8.0 + share)).abs() < 1e-12, "{frequencies:?}");
    assert!((frequencies[3] - 5e5f64.powf(-0.75) / 8.0).abs() < 1e-12, "the slowest is divided");
}

#[test]
fn factors_in_a_file_divide_the_frequencies_one_by_one() {
    let factors = |name: &str| Ok((name == "rope_freqs.weight").then(|| vec![1.0, 2.0, 4.0, 8.0]));
    let settings = Settings::from_gguf(&gguf("llama", &[]), &factors).expect("is supported");
    assert_eq!(settings.ropes[0].frequencies, [1.0, 0.05, 0.0025, 0.000_125]);
    for bad in [vec![1.0; 3], vec![1.0, 0.0, 1.0, 1.0], vec![1.0, f32::NAN, 1.0, 1.0]] {
        let factors = |name: &str| Ok((name == "rope_freqs.weight").then(|| bad.clone()));
        Settings::from_gguf(&gguf("llama", &[]), &factors).expect_err("is refused");
    }
}

#[test]
fn a_long_rope_has_two_sets_and_a_sequence_uses_one() {
    let settings = read(json!({"model_type": "phi3", "original_max_position_embeddings": 32,
        "rope_scaling": {"type": "su", "short_factor": [1.0, 1.0, 1.0, 1.0],
            "long_factor": [2.0, 2.0, 2.0, 2.0]}}));
    let rope = &settings.ropes[0];
    assert_eq!(rope.frequencies_for(32)[0], 1.0);
    assert_eq!(rope.frequencies_for(33)[0], 0.5);
    let wanted = (1.0 + 4f64.ln() / 32f64.ln()).sqrt();
    assert!((f64::from(rope.magnitude) - wanted).abs() < 1e-6);
}

#[test]
fn tokens_that_end_an_answer_are_one_or_several() {
    assert_eq!(read(json!({"eos_token_id": 2})).end_tokens, [2]);
    assert_eq!(read(json!({"eos_token_id": [2, 7]})).end_tokens, [2, 7]);
    assert_eq!(read(json!({"eos_token_id": null})).end_tokens, [0u32; 0]);
    refuse(json!({"eos_token_id": -1}), "\"eos_token_id\" should be a token");
    refuse(json!({"eos_token_id": vec![1; 65]}), "a short list");
}

#[test]
fn experts_are_read_in_both_spellings() {
    let more = |key: &str| {
        let mut more = json!({"model_type": "qwen3_moe", "num_experts_per_tok": 2,
            "moe_intermediate_size": 12});
        more[key] = json!(5);
        more
    };
    let experts = read(more("num_experts")).experts.expect("has some");
    assert_eq!((experts.count, experts.used, experts.is_normed), (5, 2, false));
    assert_eq!(read(more("num_local_experts")).experts, Some(experts));
    let keys = [
        ("expert_count", Value::U32(5)),
        ("expert_used_count", Value::U32(2)),
        ("expert_feed_forward_length", Value::U32(12)),
    ];
    let file = from_gguf("qwen3moe", &keys).expect("is supported");
    assert!(file.experts.expect("has some").is_normed, "files do not say it");
    let mut many = more("num_experts");
    many["num_experts_per_tok"] = json!(6);
    refuse(many, "6 used of 5");
    let mut partly = more("num_experts");
    partly["mlp_only_layers"] = json!([0]);
    refuse(partly, "in some layers and not in others");
}

#[test]
fn what_would_change_the_numbers_is_refused_by_name() {
    refuse(
        json!({"model_type": "mamba"}),
        "architecture \"mamba\" is not supported; supported: llama",
    );
    refuse(json!({"model_type": null}), "no value for \"model_type\"");
    refuse(json!({"quantization_config": {"quant_method": "gptq"}}), "quantisation \"gptq\"");
    refuse(
        json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
        "rotary scaling \"dynamic\"",
    );
    refuse(json!({"rope_scaling": {"type": "linear"}}), "no value for \"factor\"");
    refuse(json!({"hidden_act": "relu"}), "activation \"relu\"");
    refuse(json!({"num_experts": 8}), "a mixture of 8 experts in \"llama\"");
    refuse(
        json!({"layer_types": vec!["linear_attention"; 4]}),
        "a layer of type \"linear_attention\"",
    );
    refuse(
        json!({"model_type": "bert", "position_embedding_type": "relative_key"}),
        "relative_key",
    );
    refuse(json!({"model_type": "bert", "is_decoder": true}), "is_decoder");
    refuse(
        json!({"model_type": "gemma3_text", "use_bidirectional_attention": true}),
        "use_bidirectional_attention",
    );
    refuse_gguf("mamba", &[], "architecture \"mamba\" is not supported; supported: llama, qwen2");
    refuse_gguf("llama", &[("expert_count", Value::U32(8))], "a mixture of 8 experts");
    let text = |text: &str| Value::String(text.into());
    refuse_gguf("llama", &[("rope.scaling.type", text("dynamic"))], "rotary scaling \"dynamic\"");
    refuse_gguf("llama", &[("attention.causal", Value::Bool(false))], "its mask turned round");
    refuse_gguf("llama", &[("attention.value_length", Value::U32(16))], "a value head of another");
    refuse_gguf("llama", &[("attention.clamp_kqv", Value::F32(8.0))], "llama.attention.clamp_kqv");
}

#[test]
fn sizes_that_cannot_be_are_refused_with_key_value_and_range() {
    for (key, value, wanted) in [
        ("num_hidden_layers", json!(0), "\"num_hidden_layers\" is 0, accepted are 1 to 1024"),
        ("num_hidden_layers", json!(u64::MAX), "accepted are 1 to 1024"),
        ("hidden_size", json!(1 << 30), "accepted are 1 to 1048576"),
        ("hidden_size", json!("wide"), "should be a non-negative whole number and is a text"),
        ("hidden_size", json!(32.5), "should be a non-negative whole number"),
        ("hidden_size", json!(null), "no value for \"hidden_size\""),
        ("num_attention_heads", json!(0), "\"num_attention_heads\" is 0"),
        ("num_key_value_heads", json!(3), "do not fit together"),
        ("head_dim", json!(7), "do not fit together"),
        ("head_dim", json!(1 << 20), "\"head_dim\" is 1048576, accepted are 1 to 16384"),
        ("rms_norm_eps", json!(0), "\"rms_norm_eps\" is 0, which is not a positive finite number"),
        ("rope_theta", json!(-1.0), "\"rope_theta\" is -1"),
        ("partial_rotary_factor", json!(2.0), "do not fit together"),
        ("partial_rotary_factor", json!(0.01), "turning 0 of 8 numbers"),
        ("layer_types", json!([]), "\"layer_types\" has 0 entries, 4 are needed"),
    ] {
        let mut more = json!({});
        more[key] = value;
        refuse(more, wanted);
    }
    refuse_gguf("llama", &[("block_count", Value::U32(0))], "\"llama.block_count\" is 0, accepted");
    refuse_gguf(
        "llama",
        &[("context_length", Value::String("long".into()))],
        "should be a non-neg",
    );
    refuse_gguf("llama", &[("rope.dimension_count", Value::U32(10))], "turning 10 of 8 numbers");
    refuse_gguf(
        "llama",
        &[("attention.layer_norm_rms_epsilon", Value::F32(f32::NAN))],
        "not a positive finite number",
    );
    let short = Value::Array(Array::Bool(vec![true]));
    refuse_gguf(
        "gemma2",
        &[("attention.sliding_window_pattern", short)],
        "1 entries, 4 are needed",
    );
}

#[test]
fn text_that_is_no_json_object_is_refused() {
    for text in ["", "{", "[]", "null", "{\"model_type\": \"llama\"", &"[".repeat(10_000)] {
        let error = Settings::from_config(text.as_bytes()).expect_err("is refused");
        assert!(chain(&error).starts_with("config.json is not readable"), "{error}");
    }
}
