//! A served model, its adapters in files, and requests to it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use commons_engine::adapter::Method;
use commons_engine::noise::adapter::NoiseAdapter;
use commons_engine::weights::Weights;
use commons_engine::worker::Worker;
use commons_engine::{Model, WorkerConfig};
use commons_port::engine::{
    AddAdapter, Caller, EngineEvent, EngineRequest, LoadedAdapter, Priority, Sequence,
};
use commons_record::Micro;
use commons_record::key::SecretKey;
use commons_record::order::{LogitBias, PromptInput, Sampling};
use commons_record::seed::Seed32;
use futures::executor::block_on;
use futures::future::join_all;

use crate::RANK;

/// Adapters from here on are rounded.
pub(crate) const ROUNDED_FROM: usize = 64;

/// Tokens of each prompt, and of each answer before the stopwatch starts.
const PROMPT_LEN: usize = 16;
const WARM_TOKENS: usize = 4;

/// How much adapters may take.
pub(crate) enum Room {
    All,
    /// So many of those that the lab writes.
    For(u64),
}

/// The adapters of a lab.
pub(crate) struct Lab {
    pub(crate) worker: Worker,
    folder: tempfile::TempDir,
    adapters: Vec<LoadedAdapter>,
    endless: Vec<LogitBias>,
    next_prompt: AtomicUsize,
}

impl Lab {
    /// Loads the model, and writes and registers 64 adapters, and 64 others that are rounded.
    pub(crate) fn new(path: &Path, threads: usize, room: &Room) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("failed to make a folder for adapters")?;
        let weights = Weights::open(path)?;
        let size = size_of_one(&weights, folder.path())?;
        let model = Model::load(path)?;
        let low = Micro::from_millionths(-100_000_000).unwrap_or_default();
        let bias = |&token: &u32| LogitBias { token, bias: low };
        let endless = model.tokenizer().ends().iter().map(bias).collect();
        let slots = match *room {
            Room::All => 64,
            Room::For(_) => 16,
        };
        let config = WorkerConfig {
            slots,
            queue_len_max: 1_000,
            threads,
            context_len_max: 128,
            adapter_size_max: Some(match *room {
                Room::All => size * 256,
                Room::For(count) => size * count,
            }),
            caches_prefixes: false,
            draft_len_max: 0,
            ..WorkerConfig::default()
        };
        let worker = Worker::spawn(model, config)?;
        let next_prompt = AtomicUsize::new(0);
        let mut lab = Self { worker, folder, adapters: Vec::new(), endless, next_prompt };
        let count = if matches!(room, Room::All) { 2 * ROUNDED_FROM } else { ROUNDED_FROM };
        for index in 0..count {
            let path = lab.write(&weights, index)?;
            let added = lab.add(path, index >= ROUNDED_FROM)?;
            lab.adapters.push(added);
        }
        Ok(lab)
    }

    fn write(&self, base: &Weights, index: usize) -> anyhow::Result<PathBuf> {
        let path = self.folder.path().join(format!("adapter-{index}"));
        write(base, &path, RANK, index)?;
        Ok(path)
    }

    fn add(&self, path: PathBuf, is_rounded: bool) -> anyhow::Result<LoadedAdapter> {
        Ok(self.worker.add_adapter(AddAdapter { model: None, path, name: None, is_rounded })?)
    }

    /// Bytes of an adapter's file.
    pub(crate) fn file_size(&self) -> anyhow::Result<u64> {
        let path = self.folder.path().join("adapter-0").join("adapter_model.safetensors");
        Ok(path.metadata()?.len())
    }

    /// A folder for what else is to be written.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Registers one that was never asked for, and has the system forget its bytes.
    pub(crate) fn add_cold(&self, index: usize) -> anyhow::Result<LoadedAdapter> {
        let base = self.folder.path().join("adapter-0");
        let path = self.folder.path().join(format!("cold-{index}"));
        std::fs::create_dir(&path)?;
        let (config, weights) = ("adapter_config.json", "adapter_model.safetensors");
        // Another name of the folder is no other adapter; another configuration is.
        let text = std::fs::read_to_string(base.join(config))?;
        std::fs::write(path.join(config), text + &"\n".repeat(index + 1))?;
        std::fs::copy(base.join(weights), path.join(weights))?;
        let added = self.add(path.clone(), false)?;
        let file = File::open(path.join(weights))?;
        file.sync_all()?;
        #[cfg(target_os = "linux")]
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(added)
    }

    pub(crate) fn start(
        &self,
        adapter: Option<&LoadedAdapter>,
        (prompt, tokens): (Vec<u32>, usize),
        seed: Option<Seed32>,
    ) -> anyhow::Result<Box<dyn Sequence>> {
        let request = EngineRequest {
            model: self.worker.facts().model,
            adapter: adapter.map(|it| it.adapter),
            caller: Caller {
                key: SecretKey::from_seed(&[0; 32]).public(),
                priority: Priority::Owner,
                shares_prefixes: false,
            },
            input: PromptInput::Tokens(prompt),
            stop: Vec::new(),
            constraint: None,
            tools: None,
            sampling: Sampling { logit_bias: self.endless.clone(), ..Sampling::greedy() },
            seed,
            prompt_tokens_max: u32::MAX,
            completion_tokens_max: u32::try_from(tokens)?,
            top_logprobs: 0,
        };
        Ok(self.worker.start(request)?)
    }

    /// One of the lab's adapters.
    pub(crate) fn adapter(&self, index: usize) -> &LoadedAdapter {
        &self.adapters[index]
    }

    /// A prompt that nobody had before.
    pub(crate) fn prompt(&self, len: usize) -> Vec<u32> {
        let mut state = self.next_prompt.fetch_add(1, Ordering::Relaxed) + 1;
        let mut next = || {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345) % (1 << 31);
            300 + u32::try_from((state >> 8) % 20_000).unwrap_or(0)
        };
        (0..len).map(|_| next()).collect()
    }

    /// How long a batch takes for so many tokens of each row, all of them under way.
    pub(crate) fn decode(
        &self,
        rows: usize,
        tokens: usize,
        owner: fn(usize) -> Option<usize>,
    ) -> anyhow::Result<Duration> {
        let start = |row: usize| {
            let adapter = owner(row).map(|index| &self.adapters[index]);
            self.start(adapter, (self.prompt(PROMPT_LEN), WARM_TOKENS + tokens), None)
        };
        let mut sequences: Vec<_> = (0..rows).map(start).collect::<anyhow::Result<_>>()?;
        // All begin to answer together: nobody before every prompt is read.
        for sequence in &mut sequences {
            block_on(sequence.next()).context("a prompt was not read")?;
        }
        for sequence in &mut sequences {
            sequence.reveal([0; 32]);
        }
        let each = sequences.iter_mut().map(|it| self::tokens(&mut **it, WARM_TOKENS));
        block_on(join_all(each)).into_iter().collect::<anyhow::Result<Vec<()>>>()?;
        let started = now();
        let each = sequences.iter_mut().map(|it| self::tokens(&mut **it, tokens));
        block_on(join_all(each)).into_iter().collect::<anyhow::Result<Vec<()>>>()?;
        Ok(started.elapsed())
    }

    /// From a request with a prompt of one token to its first.
    pub(crate) fn first_token(
        &self,
        adapter: &LoadedAdapter,
        prompt: usize,
    ) -> anyhow::Result<Duration> {
        let started = now();
        let prompt = vec![300 + u32::try_from(prompt)?];
        let mut sequence = self.start(Some(adapter), (prompt, 1), Some([0; 32]))?;
        block_on(tokens(&mut *sequence, 1))?;
        Ok(started.elapsed())
    }
}

/// Writes an adapter of random numbers.
pub(crate) fn write(base: &Weights, path: &Path, rank: usize, index: usize) -> anyhow::Result<()> {
    let seed = u64::try_from(index)?;
    let adapter = NoiseAdapter { rank, method: Method::Lora, seed };
    adapter.write(path, base.settings()).context("failed to write an adapter")
}

/// What an adapter takes in memory: a little more than on the disk.
fn size_of_one(base: &Weights, folder: &Path) -> anyhow::Result<u64> {
    let path = folder.join("sample");
    write(base, &path, RANK, usize::MAX >> 1)?;
    let size = commons_engine::adapter::Adapter::load(&path, base)?.facts().size_bytes;
    std::fs::remove_dir_all(path)?;
    Ok(size)
}

/// Waits for so many tokens.
pub(crate) async fn tokens(sequence: &mut dyn Sequence, count: usize) -> anyhow::Result<()> {
    let mut left = count;
    while left > 0 {
        match sequence.next().await {
            Some(EngineEvent::Token(_)) => left -= 1,
            Some(EngineEvent::Prefilled { .. }) => {}
            Some(EngineEvent::Failed(refusal)) => return Err(anyhow!(refusal)),
            Some(EngineEvent::Finished { .. }) | None => bail!("{left} tokens are missing"),
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "this is a measurement")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
