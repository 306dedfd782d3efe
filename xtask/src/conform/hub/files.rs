//! The files that are served to clients: a model with folders and odd names, a data set, a folder
//! of more files than a page holds, and a file that is cut whenever it is read.

use std::{fs, path::Path};

use anyhow::{Context, Result};

/// More than clients keep in memory.
const LARGE_SIZE: usize = 1_600_000;

/// More than twice what is sent before a read breaks off.
const CUT_SIZE: usize = 32 * 1024 * 1024;

/// More than the entries of a page.
const MANY: usize = 1_500;

/// Writes everything anew. The folder `model` and the file `gguf` are copied, where they are there.
pub(super) fn write(folder: &Path, model: &Path, gguf: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).context("failed to remove the files of the last run")?;
    }
    let put = |path: &str, bytes: &[u8]| put(&folder.join(path), bytes);
    put("commons/plain/config.json", b"{\"model_type\": \"llama\"}")?;
    put("commons/plain/README.md", "A model of noise, named Ü.\n".as_bytes())?;
    put("commons/plain/weights/model.safetensors", &noise(1, LARGE_SIZE))?;
    put("commons/plain/sub dir/deep/\u{fc} 100% + &.txt", b"an odd name")?;
    put("commons/plain/tokenizer.txt", &noise(2, 5_000))?;
    put("datasets/commons/words/train.jsonl", b"{\"text\": \"once\"}\n")?;
    put("cut/large/large.bin", &noise(3, CUT_SIZE))?;
    for index in 0..MANY {
        put(&format!("commons/many/{index:05}.txt"), b"one of many")?;
    }
    if gguf.is_file() {
        let bytes = fs::read(gguf).context("failed to read the GGUF file")?;
        put("commons/gguf/model-Q8_0.gguf", &bytes)?;
    }
    if model.is_dir() {
        for entry in fs::read_dir(model).context("failed to read the model's folder")? {
            let entry = entry.context("failed to read the model's folder")?;
            let bytes = fs::read(entry.path()).context("failed to read a file of the model")?;
            put(&format!("commons/stories/{}", entry.file_name().to_string_lossy()), &bytes)?;
        }
    }
    Ok(())
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().context("a file lies in a folder")?;
    fs::create_dir_all(folder).context("failed to make a folder")?;
    fs::write(path, bytes).with_context(|| format!("failed to write {}", path.display()))
}

/// Bytes that nothing compresses, the same each time: the generator of Knuth's MMIX.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(size).collect()
}
