//! Where a node's models are computed: in a jailed process of their own, or inside the node.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use commons_engine::{AddOptions, LocalEngine};
use commons_node::supervisor::{EngineState, Supervisor, SupervisorPorts};
use commons_port::engine::Engine;
use commons_port::process::{AddModel, AddedModel};
use commons_sandbox::spawn::ProgramSpawner;
use commons_store::adapters::AdapterFolder;

use super::config::Config;
use super::tell::Event;
use crate::command::up::EngineProcess;
use crate::engine::Size;
use crate::model_path::Named;
use crate::runtime::{RealClock, TokioSpawn};

/// What an engine process is told through its environment, where the node was: what to log, which
/// devices there are and where their libraries lie. It has no other variable, and no secret.
const ENVIRONMENT: &[&str] =
    &["COMMONS_LOG", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "RUST_BACKTRACE"];

/// How models are computed, as it was typed.
#[derive(Debug, Clone)]
pub(super) struct ComputeConfig {
    pub(super) process: EngineProcess,
    /// The flags of the engine.
    pub(super) args: Vec<String>,
    pub(super) memory_max: Option<Size>,
}

/// What computes.
#[derive(Debug)]
pub(super) enum Computing {
    Inline(Arc<LocalEngine>),
    Child { supervisor: Arc<Supervisor>, told: Mutex<Option<EngineState>> },
}

impl Computing {
    /// Makes ready. A process is started for the first model.
    pub(super) fn start(
        config: &Config,
        adapters: &AdapterFolder,
        clock: &Arc<RealClock>,
    ) -> anyhow::Result<Self> {
        if config.compute.process == EngineProcess::Inline {
            return Ok(Self::Inline(Arc::new(LocalEngine::new(config.engine))));
        }
        let ports = SupervisorPorts {
            spawner: Arc::new(ProgramSpawner::new(
                program()?,
                arguments(&config.compute),
                environment(),
            )),
            clock: clock.clone(),
            spawn: Arc::new(TokioSpawn),
        };
        let supervisor = Supervisor::start(ports, readable(config, adapters)?);
        Ok(Self::Child { supervisor, told: Mutex::default() })
    }

    /// As the node takes it.
    pub(super) fn engine(&self) -> Arc<dyn Engine> {
        match self {
            Self::Inline(engine) => engine.clone(),
            Self::Child { supervisor, .. } => supervisor.clone(),
        }
    }

    /// Loads a model.
    pub(super) async fn add(&self, named: &Named) -> anyhow::Result<AddedModel> {
        match self {
            Self::Inline(engine) => {
                let (engine, path) = (Arc::clone(engine), named.path.clone());
                let options = AddOptions { device: named.device, ..AddOptions::default() };
                let loading = tokio::task::spawn_blocking(move || {
                    let facts = engine.add_with(&path, &options)?;
                    let placement = engine.placement(&facts.model);
                    let placement = placement.map_or_else(|| "cpu".to_owned(), |it| it.to_string());
                    let slots = engine.load(&facts.model).map_or(0, |it| it.slots);
                    anyhow::Ok(AddedModel { facts, placement, slots })
                });
                loading.await.context("the thread that loaded the model failed")?
            }
            Self::Child { supervisor, .. } => {
                let path = absolute(&named.path)?;
                let device = named.device.map(|it| it.to_string());
                let model = AddModel { path, device, draft: None, draft_kv_size_max: None };
                Ok(supervisor.add(model).await?)
            }
        }
    }

    /// What changed of the process since it was told last.
    pub(super) fn news(&self) -> Option<Event> {
        let Self::Child { supervisor, told } = self else { return None };
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        let state = supervisor.state();
        if told.as_ref() == Some(&state) {
            return None;
        }
        *told = Some(state.clone());
        match state {
            EngineState::Up { process, jail } => {
                Some(Event::Process { process: Some(process), jail: Some(jail), reason: None })
            }
            EngineState::Away { reason } => {
                Some(Event::Process { process: None, jail: None, reason: Some(reason) })
            }
            EngineState::Idle | EngineState::Starting | EngineState::Stopped => None,
        }
    }

    /// Ends the process in order.
    pub(super) async fn shutdown(&self) {
        if let Self::Child { supervisor, .. } = self {
            supervisor.shutdown().await;
        }
    }
}

/// This program, whatever became of its file since: an update replaces the file of a running node.
fn program() -> anyhow::Result<PathBuf> {
    if cfg!(target_os = "linux") {
        return Ok(PathBuf::from("/proc/self/exe"));
    }
    std::env::current_exe().context("failed to find this program's own file")
}

fn arguments(config: &ComputeConfig) -> Vec<String> {
    let mut args = vec!["engine".to_owned()];
    args.extend(config.args.iter().cloned());
    if let Some(size) = config.memory_max {
        args.extend(["--memory".to_owned(), size.to_string()]);
    }
    args
}

#[expect(clippy::disallowed_methods, reason = "settings are read here, where the program starts")]
fn environment() -> Vec<(String, String)> {
    let of = |name: &&str| Some(((*name).to_owned(), std::env::var(name).ok()?));
    ENVIRONMENT.iter().filter_map(of).collect()
}

/// What the process may read: the models that were named, and the node's adapters.
/// Both are there before the jail closes: what is not there cannot be named.
fn readable(config: &Config, adapters: &AdapterFolder) -> anyhow::Result<Vec<PathBuf>> {
    let models = config.models.iter().map(|it| it.path.as_path());
    models.chain([adapters.path()]).map(absolute).collect()
}

/// The process runs in another folder.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("failed to find {}", path.display()))
}
