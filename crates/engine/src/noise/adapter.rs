//! An adapter of random weights, for demonstrations, tests and measurements.
//!
//! A PEFT folder: `adapter_config.json` and `adapter_model.safetensors`, a pure function of the
//! base's shape and the options. It changes all seven sites of every layer, and what it adds to a
//! product is of the size of the product, so that a wrong adapter is a visible mistake.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use half::f16;
use serde::Serialize;

use super::Noise;
use crate::adapter::{CONFIG_NAME, Method, WEIGHTS_NAME};
use crate::settings::Settings;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoiseAdapter {
    /// Its rank.
    pub rank: usize,
    /// What it is.
    pub method: Method,
    /// Which one.
    pub seed: u64,
}

/// The configuration. Its fields stand in this order in the file, and so in its hash.
#[derive(Serialize)]
struct Config<'a> {
    bias: &'a str,
    lora_alpha: usize,
    peft_type: &'a str,
    r: usize,
    target_modules: [&'a str; 7],
    use_dora: bool,
    use_rslora: bool,
}

/// A tensor of the file.
#[derive(Serialize)]
struct Entry<'a> {
    data_offsets: [usize; 2],
    dtype: &'a str,
    shape: Vec<usize>,
}

/// A module, how many numbers it reads and how many it makes.
type Module = (&'static str, usize, usize);

impl NoiseAdapter {
    /// Writes the folder for a dense base of the Llama kind; it is made if it is not there.
    pub fn write(&self, folder: &Path, base: &Settings) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join(CONFIG_NAME), self.config()?)?;
        std::fs::write(folder.join(WEIGHTS_NAME), self.weights(base)?)
    }

    fn config(&self) -> io::Result<String> {
        let config = Config {
            bias: "none",
            lora_alpha: self.rank,
            peft_type: "LORA",
            r: self.rank,
            target_modules: modules_of([0, 0, 0, 0]).map(|(name, ..)| leaf(name)),
            use_dora: self.method == Method::Dora,
            use_rslora: self.method == Method::RsLora,
        };
        Ok(serde_json::to_string_pretty(&config)? + "\n")
    }

    fn weights(&self, base: &Settings) -> io::Result<Vec<u8>> {
        let sizes = [base.width, base.query_width(), base.kv_width(), base.feed_forward_len];
        let (mut header, mut data) = (BTreeMap::new(), Vec::new());
        let mut noise = Noise(self.seed.wrapping_mul(0x9e37_79b9).wrapping_add(1));
        for layer in 0..base.layer_count {
            for (module, inputs, outputs) in modules_of(sizes) {
                let name = format!("base_model.model.model.layers.{layer}.{module}");
                let parts = [("lora_A", self.rank, inputs), ("lora_B", outputs, self.rank)];
                for (part, rows, columns) in parts {
                    #[expect(clippy::cast_precision_loss, reason = "rows are short")]
                    let scale = (3.0 / columns as f32).sqrt();
                    let start = data.len();
                    for _ in 0..rows * columns {
                        data.extend_from_slice(&f16::from_f32(noise.next() * scale).to_le_bytes());
                    }
                    let shape = vec![rows, columns];
                    let entry = Entry { data_offsets: [start, data.len()], dtype: "F16", shape };
                    header.insert(format!("{name}.{part}.weight"), entry);
                }
                if self.method == Method::Dora {
                    let start = data.len();
                    for _ in 0..outputs {
                        data.extend_from_slice(&(1.5 + noise.next()).to_le_bytes());
                    }
                    let shape = vec![outputs];
                    let entry = Entry { data_offsets: [start, data.len()], dtype: "F32", shape };
                    header.insert(format!("{name}.lora_magnitude_vector"), entry);
                }
            }
        }
        let json = serde_json::to_string(&header)?;
        Ok([&(json.len() as u64).to_le_bytes(), json.as_bytes(), &data].concat())
    }
}

/// All seven, by the numbers in a row of the layer, of queries, of keys and between the halves of
/// the feed-forward part.
fn modules_of([width, queries, keys, inner]: [usize; 4]) -> [Module; 7] {
    [
        ("self_attn.q_proj", width, queries),
        ("self_attn.k_proj", width, keys),
        ("self_attn.v_proj", width, keys),
        ("self_attn.o_proj", queries, width),
        ("mlp.gate_proj", width, inner),
        ("mlp.up_proj", width, inner),
        ("mlp.down_proj", inner, width),
    ]
}

fn leaf(module: &str) -> &str {
    module.rsplit('.').next().unwrap_or(module)
}
