//! Fuzz targets of what reads strangers' adapters. `cargo test` runs each for a moment;
//! `cargo bolero test TARGET` for as long as one likes.

use std::fs;
use std::path::Path;

use commons_engine::adapter::{Adapter, CONFIG_NAME, WEIGHTS_NAME};
use commons_engine::gguf::{GgufWriter, Value};
use commons_engine::noise::write_noise_model;
use commons_engine::weights::Weights;

const CONFIG: &[u8] = br#"{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": false,
    "alpha_pattern": {"q_proj": 8}, "rank_pattern": {}, "bias": "none", "modules_to_save": null}"#;

fn base() -> Weights {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("noise.gguf");
    write_noise_model(&path, 7).expect("writes");
    // The file stays open after its folder is gone.
    Weights::open(&path).expect("opens")
}

/// Everything that loading promises.
fn load(path: &Path, base: &Weights) {
    let Ok(adapter) = Adapter::load(path, base) else { return };
    let facts = adapter.facts();
    assert!((1..=256).contains(&facts.rank_max) && facts.site_count > 0, "{facts:?}");
    assert!(facts.size_bytes > 0 && facts.parameter_count > 0, "{facts:?}");
}

fn change(bytes: &mut [u8], changes: &[(u16, u8)], limit: usize) {
    for &(at, byte) in changes.iter().take(32) {
        let limit = limit.min(bytes.len());
        bytes[usize::from(at) % limit] = byte;
    }
}

/// A pair of queries of layer 0, of rank 2, all zero.
fn safetensors() -> Vec<u8> {
    let name = "base_model.model.model.layers.0.self_attn.q_proj";
    let json = format!(
        r#"{{"{name}.lora_A.weight": {{"dtype": "F32", "shape": [2, 64], "data_offsets": [0, 512]}},
        "{name}.lora_B.weight": {{"dtype": "F32", "shape": [64, 2], "data_offsets": [512, 1024]}}}}"#
    );
    [&(json.len() as u64).to_le_bytes(), json.as_bytes(), &[0; 1024]].concat()
}

#[test]
fn any_bytes_as_a_configuration_or_as_weights() {
    let (base, folder) = (base(), tempfile::tempdir().expect("a temporary folder"));
    let (config, weights) = (folder.path().join(CONFIG_NAME), folder.path().join(WEIGHTS_NAME));
    fs::write(&config, CONFIG).expect("writes");
    fs::write(&weights, safetensors()).expect("writes");
    Adapter::load(folder.path(), &base).expect("is sound without changes");
    bolero::check!().with_type::<(Vec<u8>, Vec<(u16, u8)>)>().for_each(|(input, changes)| {
        let mut changed = CONFIG.to_vec();
        change(&mut changed, changes, usize::MAX);
        fs::write(&weights, safetensors()).expect("writes");
        for bytes in [input.as_slice(), &changed] {
            fs::write(&config, bytes).expect("writes");
            load(folder.path(), &base);
        }
        fs::write(&config, CONFIG).expect("writes");
        let mut changed = safetensors();
        change(&mut changed, changes, usize::MAX);
        let any = [&(input.len() as u64).to_le_bytes(), input.as_slice()].concat();
        for bytes in [any, changed] {
            fs::write(&weights, bytes).expect("writes");
            load(folder.path(), &base);
        }
    });
}

#[test]
fn any_bytes_as_a_gguf_adapter() {
    let mut file = GgufWriter::new();
    file.set("general.architecture", Value::String("llama".into()))
        .set("general.type", Value::String("adapter".into()))
        .set("adapter.type", Value::String("lora".into()))
        .set("adapter.lora.alpha", Value::F32(16.0));
    file.tensor_f32("blk.0.attn_q.weight.lora_a", &[2, 64], &[0.0; 128]).expect("fits");
    file.tensor_f32("blk.0.attn_q.weight.lora_b", &[64, 2], &[0.0; 128]).expect("fits");
    let (base, folder) = (base(), tempfile::tempdir().expect("a temporary folder"));
    let path = folder.path().join("adapter.gguf");
    fs::write(&path, file.to_bytes()).expect("writes");
    Adapter::load(&path, &base).expect("is sound without changes");
    bolero::check!().with_type::<(Vec<u8>, Vec<(u16, u8)>)>().for_each(|(input, changes)| {
        let mut changed = file.to_bytes();
        change(&mut changed, changes, 400);
        for bytes in [[b"GGUF".as_slice(), input].concat(), changed] {
            fs::write(&path, bytes).expect("writes");
            load(&path, &base);
        }
    });
}
