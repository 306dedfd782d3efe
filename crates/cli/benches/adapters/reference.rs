//! The same adapters' shapes in llama.cpp, through llama-cpp-python.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use commons_engine::gguf::{GgufWriter, TensorType, Value};
use commons_engine::weights::Weights;

use crate::lab::Lab;
use crate::{COMPARED, RANK, median};

/// What it did, in tokens per second.
pub(crate) struct Theirs {
    pub(crate) engine: String,
    pub(crate) repacked: f64,
    pub(crate) plain: f64,
}

pub(crate) fn measure(
    python: &Path,
    model: &Path,
    lab: &Lab,
    (threads, tokens, rounds): (usize, usize, usize),
) -> anyhow::Result<Theirs> {
    let folder = lab.folder().join("gguf");
    std::fs::create_dir(&folder)?;
    let base = Weights::open(model)?;
    for index in 0..COMPARED {
        write(&base, &folder.join(format!("{index}.gguf")), index)?;
    }
    let mut theirs = Theirs { engine: String::new(), repacked: 0.0, plain: 0.0 };
    for (repack, to) in [("on", &mut theirs.repacked), ("off", &mut theirs.plain)] {
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../xtask/src/bench/reference.py");
        let mut command = Command::new(python);
        command.arg(script).arg(model).args(["--json", "--only", "adapters", "--repack", repack]);
        command.args(["--threads", &threads.to_string(), "--tokens", &tokens.to_string()]);
        command.args(["--rounds", &rounds.to_string(), "--adapters"]).arg(&folder);
        let output = command.stderr(Stdio::inherit()).output();
        let output = output.with_context(|| format!("failed to start {}", python.display()))?;
        ensure!(output.status.success(), "the reference could not measure");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let timed = report["tokens_timed"].as_f64().context("no count of tokens")?;
        let seconds = report["seconds"].as_array().context("no seconds")?;
        let speeds: Vec<f64> = seconds.iter().filter_map(|it| Some(timed / it.as_f64()?)).collect();
        *to = median(&speeds);
        report["engine"].as_str().unwrap_or("llama.cpp").clone_into(&mut theirs.engine);
    }
    Ok(theirs)
}

/// An adapter of the same shapes and form. Its numbers are small and mean nothing.
fn write(base: &Weights, path: &Path, index: usize) -> anyhow::Result<()> {
    let settings = base.settings();
    let [width, queries, keys, inner] =
        [settings.width, settings.query_width(), settings.kv_width(), settings.feed_forward_len];
    let mut file = GgufWriter::new();
    file.set("general.architecture", Value::String(settings.architecture.clone()))
        .set("general.type", Value::String("adapter".into()))
        .set("adapter.type", Value::String("lora".into()))
        .set("adapter.lora.alpha", Value::F32(16.0));
    for layer in 0..settings.layer_count {
        for (name, inputs, outputs) in [
            ("attn_q", width, queries),
            ("attn_k", width, keys),
            ("attn_v", width, keys),
            ("attn_output", queries, width),
            ("ffn_gate", width, inner),
            ("ffn_up", width, inner),
            ("ffn_down", inner, width),
        ] {
            let name = format!("blk.{layer}.{name}.weight");
            // Two bytes a number: 0x1400 and a little is about a thousandth.
            let numbers = |count: usize| -> Vec<u8> {
                (0..count).flat_map(|at| [((at * 7 + index) % 251) as u8, 0x14]).collect()
            };
            let down = numbers(RANK * inputs);
            file.tensor(format!("{name}.lora_a"), &[RANK, inputs], TensorType::F16, down)?;
            let up = numbers(RANK * outputs);
            file.tensor(format!("{name}.lora_b"), &[outputs, RANK], TensorType::F16, up)?;
        }
    }
    std::fs::write(path, file.to_bytes())?;
    Ok(())
}
