//! Adapters that tests write.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::{CONFIG_NAME, GgufWriter, TensorType, Value, WEIGHTS_NAME, Weights, write_noise_model};

/// Modules of the noise model: outputs and inputs.
const MODULES: [(&str, usize, usize); 7] = [
    ("self_attn.q_proj", 64, 64),
    ("self_attn.k_proj", 32, 64),
    ("self_attn.v_proj", 32, 64),
    ("self_attn.o_proj", 64, 64),
    ("mlp.gate_proj", 176, 64),
    ("mlp.up_proj", 176, 64),
    ("mlp.down_proj", 64, 176),
];

const LAYERS: usize = 4;

/// The noise model, opened.
pub(super) fn base() -> Weights {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("noise.gguf");
    write_noise_model(&path, 7).expect("writes");
    // The file stays open after its folder is gone.
    Weights::open(&path).expect("opens")
}

/// Numbers between -1 and 1, the same every time.
pub(super) fn numbers(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from(u16::try_from(state >> 16).expect("sixteen bits are left")) / 32_768.0 - 1.0
    };
    (0..count).map(next).collect()
}

/// A PEFT folder before it is written.
pub(super) struct Files {
    config: Map<String, Json>,
    /// Tensors by name, without the prefix of all: shape and numbers.
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    /// Stored as a type of two bytes, all zero, under this name.
    pub(super) dtype: Option<&'static str>,
}

impl Files {
    /// A `LoRA` of every site of the noise model.
    pub(super) fn all_sites(rank: usize) -> Self {
        let modules: Vec<_> = MODULES.iter().map(|(name, ..)| *name).collect();
        Self::only(rank, &modules, 1)
    }

    /// A `LoRA` of some modules.
    pub(super) fn only(rank: usize, modules: &[&str], seed: u32) -> Self {
        let config = json!({
            "peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "bias": "none",
            "base_model_name_or_path": "somebody/base", "target_modules": modules,
            "modules_to_save": null, "fan_in_fan_out": false,
        });
        let Json::Object(config) = config else { unreachable!("an object") };
        let mut files = Self { config, tensors: BTreeMap::new(), dtype: None };
        for layer in 0..LAYERS {
            for (index, &(name, outputs, inputs)) in MODULES.iter().enumerate() {
                if !modules.contains(&name) {
                    continue;
                }
                let seed = seed * 1_000 + u32::try_from(layer * 20 + 2 * index).expect("small");
                let at = format!("layers.{layer}.{name}");
                files.set(
                    &format!("{at}.lora_A.weight"),
                    &[rank, inputs],
                    numbers(seed, rank * inputs),
                );
                let up = numbers(seed + 1, rank * outputs);
                files.set(&format!("{at}.lora_B.weight"), &[outputs, rank], up);
            }
        }
        files
    }

    /// Gives each site magnitudes.
    pub(super) fn make_dora(&mut self) {
        self.change(json!({"use_dora": true}));
        let ups: Vec<_> = self
            .tensors
            .iter()
            .filter_map(|(name, (shape, _))| {
                Some((name.strip_suffix(".lora_B.weight")?.to_owned(), shape[0]))
            })
            .collect();
        for (module, outputs) in ups {
            let magnitudes = numbers(9, outputs).into_iter().map(|it| it + 2.0).collect();
            self.set(&format!("{module}.lora_magnitude_vector"), &[outputs], magnitudes);
        }
    }

    pub(super) fn change(&mut self, config: Json) {
        let Json::Object(changes) = config else { unreachable!("an object") };
        self.config.extend(changes);
    }

    pub(super) fn set(&mut self, name: &str, shape: &[usize], values: Vec<f32>) {
        self.tensors.insert(name.to_owned(), (shape.to_vec(), values));
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.tensors.remove(name).expect("was there");
    }

    pub(super) fn numbers(&self, name: &str) -> &[f32] {
        &self.tensors[name].1
    }

    pub(super) fn numbers_mut(&mut self, name: &str) -> &mut [f32] {
        &mut self.tensors.get_mut(name).expect("is there").1
    }

    pub(super) fn clear(&mut self) {
        self.tensors.clear();
    }

    /// Writes both files.
    pub(super) fn write(&self) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = sorted(&self.config);
        std::fs::write(folder.path().join(CONFIG_NAME), config).expect("writes");
        std::fs::write(folder.path().join(WEIGHTS_NAME), self.safetensors()).expect("writes");
        folder
    }

    fn safetensors(&self) -> Vec<u8> {
        let (mut header, mut data) = (Map::new(), Vec::new());
        for (name, (shape, values)) in &self.tensors {
            let begin = data.len();
            match self.dtype {
                Some(_) => data.resize(begin + 2 * values.len(), 0),
                None => data.extend(values.iter().flat_map(|it| it.to_le_bytes())),
            }
            let dtype = self.dtype.unwrap_or("F32");
            let entry =
                json!({"data_offsets": [begin, data.len()], "dtype": dtype, "shape": shape});
            let is_whole = name.starts_with("base_model.");
            let name =
                if is_whole { name.clone() } else { format!("base_model.model.model.{name}") };
            header.insert(name, entry);
        }
        let json = sorted(&header);
        [&(json.len() as u64).to_le_bytes(), json.as_bytes(), &data].concat()
    }
}

/// A GGUF adapter of the queries of layer 0 in these types, before it is written.
pub(super) fn gguf_of(down: TensorType, up: TensorType, rank: usize) -> GgufWriter {
    let mut file = GgufWriter::new();
    file.set("general.architecture", Value::String("llama".into()))
        .set("general.type", Value::String("adapter".into()))
        .set("adapter.type", Value::String("lora".into()))
        .set("adapter.lora.alpha", Value::F32(16.0));
    let zeros = |kind: TensorType, count: usize| {
        let size = count as u64 / kind.block_len() * kind.block_size();
        vec![0; usize::try_from(size).expect("small")]
    };
    file.tensor("blk.0.attn_q.weight.lora_a", &[rank, 64], down, zeros(down, rank * 64))
        .expect("fits");
    file.tensor("blk.0.attn_q.weight.lora_b", &[64, rank], up, zeros(up, rank * 64)).expect("fits");
    file
}

/// An object with its keys in order, whatever order maps have in this build.
fn sorted(object: &Map<String, Json>) -> String {
    let sorted: BTreeMap<_, _> = object.iter().collect();
    serde_json::to_string(&sorted).expect("is JSON")
}
