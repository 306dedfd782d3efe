//! Fuzz targets of what reads strangers' Hugging Face folders. `cargo test` runs each for a moment;
//! `cargo bolero test TARGET` for as long as one likes.

use std::fs;
use std::path::Path;

use commons_engine::settings::Settings;
use commons_engine::weights::Weights;

/// What settings promise whoever computes by them.
fn assert_sound(it: &Settings) {
    assert_eq!(it.layers.len(), it.layer_count);
    assert!(
        it.head_count.is_multiple_of(it.kv_head_count)
            && it.head_size > 0
            && it.head_size.is_multiple_of(2)
    );
    assert!(it.layers.iter().all(|layer| layer.rope.is_none_or(|rope| rope < it.ropes.len())));
    for rope in &it.ropes {
        assert!(rope.pairs() * 2 <= it.head_size);
        assert!(rope.frequencies.iter().all(|it| it.is_finite() && *it > 0.0));
        assert_eq!(rope.frequencies_for(usize::MAX).len(), rope.pairs());
    }
    assert!(it.attention_scale > 0.0 && it.attention_scale.is_finite());
}

/// Everything that opening a folder promises.
fn open(folder: &Path) {
    let Ok(weights) = Weights::open(folder) else { return };
    assert_sound(weights.settings());
    for (name, facts) in weights.tensors() {
        let mut row = vec![0; facts.row_size()];
        weights.read_rows(name, 0..1, &mut row).expect("lies inside the file");
        weights
            .read_rows(name, facts.rows - 1..facts.rows, &mut row)
            .expect("lies inside the file");
    }
}

fn golden(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families/llama-linear");
    fs::read(folder.join(name)).expect("reads")
}

fn change(bytes: &mut [u8], changes: &[(u16, u8)], limit: usize) {
    for &(at, byte) in changes.iter().take(32) {
        let limit = limit.min(bytes.len());
        bytes[usize::from(at) % limit] = byte;
    }
}

#[test]
fn any_bytes_as_a_config() {
    let config = golden("config.json");
    bolero::check!().with_type::<(Vec<u8>, Vec<(u16, u8)>)>().for_each(|(input, changes)| {
        let mut changed = config.clone();
        let limit = changed.len();
        change(&mut changed, changes, limit);
        for json in [input.as_slice(), &changed] {
            if let Ok(settings) = Settings::from_config(json) {
                assert_sound(&settings);
            }
        }
    });
}

#[test]
fn numbers_of_every_size_in_a_config() {
    let config: serde_json::Value = serde_json::from_slice(&golden("config.json")).expect("parses");
    let keys: Vec<String> = config.as_object().expect("an object").keys().cloned().collect();
    let kinds = [
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
        "qwen3_moe",
        "gemma",
        "gemma2",
        "gemma3",
        "phi3",
        "bert",
    ];
    bolero::check!().with_type::<(u8, Vec<(u8, i64)>)>().for_each(|(kind, changes)| {
        let mut config = config.clone();
        for (key, value) in changes {
            config[&keys[usize::from(*key) % keys.len()]] = (*value).into();
        }
        config["model_type"] = kinds[usize::from(*kind) % kinds.len()].into();
        if let Ok(settings) = Settings::from_config(config.to_string().as_bytes()) {
            assert_sound(&settings);
        }
    });
}

#[test]
fn a_folder_with_changed_bytes() {
    let (config, model) = (golden("config.json"), golden("model.safetensors"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().to_owned();
    fs::write(path.join("config.json"), config).expect("writes");
    bolero::check!().with_type::<(Vec<u8>, Vec<(u16, u8)>)>().for_each(|(input, changes)| {
        let mut changed = model.clone();
        // Only the header: the rest is numbers, of which every pattern is one.
        change(&mut changed, changes, 2_200);
        fs::write(path.join("model.safetensors"), changed).expect("writes");
        open(&path);
        let prefix = (input.len() as u64).to_le_bytes();
        let any = [prefix.as_slice(), input].concat();
        fs::write(path.join("model.safetensors"), any).expect("writes");
        open(&path);
    });
}
