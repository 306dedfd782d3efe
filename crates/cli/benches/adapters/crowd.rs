//! A thousand adapters that nobody asks for.

use std::path::Path;

use anyhow::Context as _;
use commons_engine::adapter::{Shelf, Storage};
use commons_engine::weights::Weights;
use commons_record::Hash;

use crate::lab;

/// The smallest, so that they fit any disk: what is kept of one does not depend on its size.
const SMALL_RANK: usize = 1;

pub(crate) fn measure(model: &Path, count: usize) -> anyhow::Result<String> {
    if count == 0 {
        return Ok(String::new());
    }
    eprintln!("{count} adapters");
    let folder = tempfile::tempdir().context("failed to make a folder for adapters")?;
    let weights = Weights::open(model)?;
    let first = folder.path().join("first");
    lab::write(&weights, &first, SMALL_RANK, 0)?;
    let config = std::fs::read_to_string(first.join("adapter_config.json"))?;
    let shelf = Shelf::new(Hash::of_content(b"a base"), weights);
    // What reading takes for the first time is not the list's.
    shelf.add(first.clone(), None, Storage::AsFile)?;
    let before = resident()?;
    let started = lab::now();
    for index in 1..=count {
        let path = folder.path().join(format!("adapter-{index}"));
        std::fs::create_dir(&path)?;
        // The numbers are the same file; the configuration makes each another adapter.
        std::fs::write(path.join("adapter_config.json"), format!("{config}{}", " ".repeat(index)))?;
        let weights = "adapter_model.safetensors";
        std::fs::hard_link(first.join(weights), path.join(weights))?;
        shelf.add(path, None, Storage::AsFile)?;
    }
    let (elapsed, grown) = (started.elapsed(), resident()?.saturating_sub(before));
    Ok(format!(
        "## {count} adapters that nobody asks for\n\n\
         Each is read once, checked and let go.\n\n| resident memory grows by | of it for each | \
         to register one (rank {SMALL_RANK}) |\n|---:|---:|---:|\n| {:.1} MiB | {} bytes | {:.1} ms |\n",
        grown as f64 / 1_048_576.0,
        grown / count as u64,
        elapsed.as_secs_f64() * 1e3 / count as f64,
    ))
}

/// Bytes that this process holds.
fn resident() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("there is no /proc here")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|it| it.split_whitespace().next()).context("no VmRSS")?;
    Ok(kib.parse::<u64>()? * 1024)
}
