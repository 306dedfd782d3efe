//! What is refused, and that the refusal says what and why.

use super::*;

fn text(error: &AdapterError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The refusal of a folder after one change.
fn check(change: impl FnOnce(&mut Files), wanted: &str) {
    let mut files = Files::all_sites(4);
    change(&mut files);
    let folder = files.write();
    let error = Adapter::load(folder.path(), &base()).map(drop).expect_err("is refused");
    let text = text(&error);
    assert!(text.contains(wanted), "{text:?} does not say {wanted:?}");
}

const QUERY: &str = "layers.0.self_attn.q_proj";

fn down() -> String {
    format!("{QUERY}.lora_A.weight")
}

fn up() -> String {
    format!("{QUERY}.lora_B.weight")
}

#[test]
fn a_configuration_that_means_something_else_is_refused_by_its_key() {
    let config = |change: Json, wanted: &str| check(|files| files.change(change), wanted);
    config(json!({"peft_type": "IA3"}), "`peft_type` is \"IA3\"; supported is LORA");
    config(json!({"peft_type": null}), "`peft_type` is null");
    config(json!({"bias": "all"}), "`bias` is \"all\"; biases are not adapted");
    config(json!({"modules_to_save": ["lm_head"]}), "`modules_to_save` is [\"lm_head\"]");
    config(json!({"fan_in_fan_out": true}), "`fan_in_fan_out` is true");
    config(json!({"layer_replication": [[0, 4]]}), "`layer_replication`");
    config(json!({"alora_invocation_tokens": [1]}), "`alora_invocation_tokens`");
    config(json!({"lora_bias": true}), "`lora_bias` is true");
    config(json!({"init_lora_weights": "pissa_niter_4"}), "needs another base");
    config(json!({"r": "four"}), "`r` is missing or not a number");
    config(json!({"lora_alpha": null}), "`lora_alpha` is missing or not a number");
    config(json!({"use_rslora": 1}), "`use_rslora` is 1, not true or false");
    config(json!({"r": 8}), "has the rank 4, the configuration says 8");
    config(json!({"rank_pattern": {"q_proj": 2}}), "has the rank 4, the configuration says 2");
    config(json!({"alpha_pattern": {"q.*": 2}}), "the pattern \"q.*\" of `alpha_pattern`");
    let two = json!({"alpha_pattern": {"q_proj": 2, "self_attn.q_proj": 3}});
    config(two, "agrees with another that says otherwise");
    config(json!({"alpha_pattern": {"q_proj": "much"}}), "has what is no number");
    let twice = r#"{"peft_type": "LORA", "r": 4, "r": 8, "lora_alpha": 8}"#;
    let error = peft::parse_config(twice).expect_err("is refused");
    assert!(text(&error).contains("\"r\" appears twice"), "{}", text(&error));
}

#[test]
fn tensors_that_do_not_fit_the_base_are_refused_by_name() {
    check(|files| files.set(&down(), &[4, 65], vec![0.0; 260]), "has the shape [4, 65]");
    check(|files| files.set(&up(), &[63, 4], vec![0.0; 252]), "the base needs [64, 4]");
    check(|files| files.set(&up(), &[64, 5], vec![0.0; 320]), "has the shape [64, 5]");
    check(|files| files.set(&up(), &[256], vec![0.0; 256]), "has the shape [256]");
    check(|files| files.set(&down(), &[0, 64], vec![]), "has the rank 0; accepted are 1 to 256");
    let bomb = |files: &mut Files| files.set(&down(), &[4096, 64], vec![0.0; 4096 * 64]);
    check(bomb, "has the rank 4096; accepted are 1 to 256");
    check(|files| files.remove(&up()), "lora_A.weight\" in ");
    check(|files| files.remove(&up()), "has no B beside it");
    check(|files| files.remove(&down()), "has no A beside it");
    check(Files::clear, "has no tensor of an adapter");
    check(|files| files.numbers_mut(&down())[65] = f32::NAN, "is not finite in row 1");
    check(|files| files.numbers_mut(&up())[0] = f32::INFINITY, "is not finite in row 0");
    check(|files| files.dtype = Some("I16"), "is of type I16");
    let deep = "layers.4.self_attn.q_proj";
    let add = |files: &mut Files| {
        files.set(&format!("{deep}.lora_A.weight"), &[4, 64], vec![0.0; 256]);
        files.set(&format!("{deep}.lora_B.weight"), &[64, 4], vec![0.0; 256]);
    };
    check(add, "is of layer 4, and the base has 4");
    for name in [
        "embed_tokens.lora_embedding_A",
        "layers.0.self_attn.q_proj.base_layer.weight",
        "layers.0.self_attn.rotary.lora_A.weight",
        "layers.0.mlp.experts.0.up_proj.lora_A.weight",
        "layers.00.mlp.up_proj.lora_A.weight",
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.modules_to_save.weight",
    ] {
        check(|files| files.set(name, &[4, 64], vec![0.0; 256]), "belongs to no site");
    }
    let again = format!("base_model.model.language_model.model.{}", down());
    let same = |files: &mut Files| files.set(&again, &[4, 64], vec![0.0; 256]);
    check(same, "are the same; one is too many");
    let vector = format!("{QUERY}.lora_magnitude_vector");
    check(|files| files.set(&vector, &[63], vec![1.0; 63]), "has the shape [63]");
    check(|files| files.set(&vector, &[64], vec![f32::NAN; 64]), "is not finite");
}

#[test]
fn files_that_are_missing_or_run_code_are_refused_by_name() {
    let load = |path: &Path| text(&Adapter::load(path, &base()).map(drop).expect_err("is refused"));
    let folder = Files::all_sites(4).write();
    std::fs::remove_file(folder.path().join(CONFIG_NAME)).unwrap();
    assert!(load(folder.path()).contains("has no adapter_config.json"));
    let folder = Files::all_sites(4).write();
    std::fs::remove_file(folder.path().join(WEIGHTS_NAME)).unwrap();
    assert!(load(folder.path()).contains("has no adapter_model.safetensors"));
    // No such file is ever opened: this one cannot be.
    std::os::unix::fs::symlink("/nowhere", folder.path().join("adapter_model.pt")).unwrap();
    std::fs::write(folder.path().join("adapter_model.bin"), b"a pickle").unwrap();
    let text = load(folder.path());
    assert!(text.contains("adapter_model.bin is a pickle file, which runs code"), "{text}");
    assert!(load(Path::new("/nowhere/adapter.PT")).contains("was not opened"));
    assert!(load(Path::new("/nowhere/adapter.gguf")).contains("failed to open /nowhere"));
}

/// The refusal of a GGUF adapter.
fn check_gguf(file: &GgufWriter, wanted: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapter.gguf");
    std::fs::write(&path, file.to_bytes()).unwrap();
    let text = text(&Adapter::load(&path, &base()).map(drop).expect_err("is refused"));
    assert!(text.contains(wanted), "{text:?} does not say {wanted:?}");
}

#[test]
fn a_gguf_file_that_is_no_adapter_of_this_base_is_refused() {
    let with = |key: &str, value: Value| {
        let mut file = gguf_of(TensorType::F32, TensorType::F32, 4);
        file.replace(key, value);
        file
    };
    let word = |text: &str| Value::String(text.into());
    check_gguf(&with("general.type", word("model")), "`general.type` is \"model\"");
    check_gguf(&with("adapter.type", word("control_vector")), "`adapter.type` is control_vector");
    check_gguf(&with("general.architecture", word("qwen2")), "made for \"qwen2\"");
    check_gguf(&with("general.architecture", word("mamba")), "made for \"mamba\"");
    check_gguf(&with("adapter.lora.alpha", Value::F32(f32::NAN)), "scale NaN");
    check_gguf(&with("adapter.lora.alpha", Value::U32(1)), "adapter.lora.alpha");
    check_gguf(&with("adapter.alora.invocation_tokens", Value::U32(1)), "`adapter.alora");
    check_gguf(&gguf_of(TensorType::Q4_0, TensorType::F32, 4), "is of type Q4_0");
    let mut more = gguf_of(TensorType::F32, TensorType::F32, 4);
    more.tensor_f32("token_embd.weight.lora_a", &[4, 64], &[0.0; 256]).unwrap();
    check_gguf(&more, "belongs to no site");
}

#[test]
fn a_gguf_adapter_keeps_the_precision_of_each_tensor() {
    let check = |down, up, rank, wanted: &str, scale: f32| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter.gguf");
        let mut file = gguf_of(down, up, rank);
        if rank == 1 {
            file.replace("adapter.lora.alpha", Value::F32(0.0));
        }
        std::fs::write(&path, file.to_bytes()).unwrap();
        let adapter = Adapter::load(&path, &base()).unwrap();
        assert_eq!(adapter.facts().precision, wanted);
        assert_eq!(adapter.facts().adapter, Hash::of_content(&file.to_bytes()));
        let stack = adapter.stack(0, Group::Inputs).expect("is adapted");
        let part = stack.parts[0].as_ref().expect("is adapted");
        assert!((part.scale - scale).abs() < 1e-6, "{}", part.scale);
        assert!(stack.parts[1].is_none() && adapter.stack(1, Group::Inputs).is_none());
    };
    check(TensorType::F32, TensorType::F32, 4, "F32", 4.0);
    check(TensorType::Q8_0, TensorType::F16, 8, "F16+Q8_0", 2.0);
    check(TensorType::Q8_0, TensorType::Q8_0, 32, "Q8_0", 0.5);
    check(TensorType::BF16, TensorType::BF16, 1, "BF16", 1.0);
}
