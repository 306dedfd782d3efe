//! A started node with its listeners, and how it ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use commons_engine::devices;
use commons_gateway::{
    GatewayConfig, GatewayState, ServeLimits, control_router, router, serve_tcp, serve_unix,
};
use commons_mesh::{Mesh, MeshConfig};
use commons_node::api::{Counters, JoinView, NodeApi as _};
use commons_node::engines::Engines;
use commons_node::{FilePorts, Node, NodeConfig, Ports};
use commons_port::engine::Engine;
use commons_port::hub::Origin;
use commons_port::net::Net;
use commons_record::Millis;
use commons_record::mesh::Capability;
use commons_remote::hub::{Hubs, Offline};
use commons_store::adapters::AdapterFolder;
use commons_store::blobs::{BlobOptions, BlobStore};
use tokio::task::JoinSet;

use super::compute::Computing;
use super::config::Config;
use super::foreign::Foreign;
use super::kept::Keeping;
use super::open::{Keys, Opened};
use super::stop::Stop;
use super::tell::Event;
use crate::engine::Size;
use crate::machine;
use crate::offline::OfflineNet;
use crate::runtime::{OsEntropy, RealClock, Stopwatch, TokioSpawn};

/// Tells commons apart from other programs of the same network stack. Meshes are told apart by
/// the protocols and topics that the node speaks, since a node can join another while it runs.
const WIRE_SCOPE: &str = "commons";

/// How often the meter and the join are looked at: a person sees no delay.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A busy node does not fill its owner's screen.
const METER_EVERY: Duration = Duration::from_secs(5);

/// Answers in work may go on for this long after the wish to end: the longest pause that a
/// person at Ctrl-C takes for an ending and not for a hang.
const DRAIN: Millis = Millis::from_secs(3);

/// Goodbyes to peers are a courtesy.
const GOODBYE_MAX: Duration = Duration::from_secs(2);

/// A running node.
pub(super) struct Running {
    pub(super) node: Arc<Node>,
    pub(super) engine: Computing,
    keeping: Arc<Keeping>,
    foreign: Foreign,
    pub(super) capability: Capability,
    pub(super) control_path: PathBuf,
    api: std::net::SocketAddr,
    is_shared: bool,
    mesh: Option<Mesh>,
    listeners: JoinSet<()>,
    news: tokio::sync::Mutex<News>,
    /// Last: the folder stays this process's own until all else is gone.
    _opened: (Arc<commons_store::RedbJournal>, commons_store::DataDir),
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("api", &self.api).finish_non_exhaustive()
    }
}

/// What was told last.
#[derive(Debug, Default)]
struct News {
    join: Option<JoinView>,
    meter: Counters,
    meter_told: Option<Stopwatch>,
}

impl Running {
    /// Starts the node and begins to answer. Waits for no model and no peer.
    pub(super) async fn start(
        config: &Config,
        opened: Opened,
        stop: &mut Stop,
    ) -> anyhow::Result<Self> {
        let (mesh, net) = network(config, &opened.keys)?;
        let capability = machine::capability(config.engine.threads);
        log_devices(config);
        let clock = Arc::new(RealClock::new());
        let adapters = AdapterFolder::open(&opened.dir);
        let adapters = adapters.context("failed to open the adapters of the data folder")?;
        let engine = Computing::start(config, &adapters, &clock)?;
        let foreign = Foreign::start(&config.foreign, &clock)?;
        let mut engines: Vec<Arc<dyn Engine>> = vec![engine.engine()];
        engines.extend(foreign.engines());
        let keeping = Arc::new(Keeping::new(Arc::new(Engines::new(engines)), adapters));
        let files = files(config, &opened.dir, &clock)?;
        let ports = Ports {
            net,
            engine: keeping.clone(),
            journal: opened.journal.clone(),
            clock: clock.clone(),
            entropy: Arc::new(OsEntropy),
            spawn: Arc::new(TokioSpawn),
            files: Some(files),
        };
        let node_config = NodeConfig {
            owner: opened.keys.owner,
            node: opened.keys.node,
            hpke_seed: opened.keys.hpke_seed,
            mesh_name: config.mesh_name.clone(),
            capability: capability.clone(),
            share: config.share,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let node = Node::start(node_config, ports).await.context("failed to start the node")?;
        let gateway = GatewayConfig { api_key: config.api_key.clone(), ..GatewayConfig::default() };
        let state = GatewayState::new(node.clone(), clock, gateway).with_hub(node.hub());
        let api = opened.api.local_addr().context("failed to see where the API listens")?;
        let mut listeners = JoinSet::new();
        let control = control_router(state.clone(), stop.by_owner());
        listeners.spawn(serve_tcp(opened.api, router(state), limits(), stop.asked()));
        listeners.spawn(serve_unix(opened.control, control, limits(), stop.asked()));
        Ok(Self {
            node,
            engine,
            keeping,
            foreign,
            capability,
            control_path: opened.control_path,
            api,
            is_shared: config.share,
            mesh,
            listeners,
            news: tokio::sync::Mutex::default(),
            _opened: (opened.journal, opened.dir),
        })
    }

    /// Where the API answers.
    pub(super) fn api_url(&self) -> String {
        format!("http://{}", self.api)
    }

    /// Takes in again the adapters that were kept for the models that are loaded.
    pub(super) async fn restore_adapters(&self) -> anyhow::Result<()> {
        let count = self.keeping.restore().await?;
        if count > 0 {
            tracing::info!(count, "adapters are here again");
        }
        Ok(())
    }

    /// Waits until each foreign engine was looked at, or would be waited for too long.
    pub(super) async fn look_at_foreign(&self) {
        self.foreign.looked_at().await;
    }

    /// What changed of a foreign engine since it was told last.
    pub(super) fn foreign_news(&self) -> Option<Event> {
        self.foreign.news()
    }

    /// What changed of the engine process since it was told last.
    pub(super) fn process_news(&self) -> Option<Event> {
        self.engine.news()
    }

    /// The next thing that the owner should hear of.
    pub(super) async fn next_news(&self) -> Event {
        let mut told = self.news.lock().await;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Some(event) = self.process_news().or_else(|| self.foreign_news()) {
                return event;
            }
            let join = self.node.status().await.join;
            if join != told.join {
                told.join.clone_from(&join);
                if let Some(JoinView { mesh_name, state, .. }) = join {
                    return Event::Join { mesh_name, state };
                }
            }
            let is_due = told.meter_told.is_none_or(|it| it.elapsed() >= METER_EVERY);
            let meter = self.node.counters();
            let has_served = (meter.orders_served, meter.orders_refused)
                != (told.meter.orders_served, told.meter.orders_refused);
            if self.is_shared && is_due && has_served {
                told.meter = meter;
                told.meter_told = Some(Stopwatch::start());
                return Event::meter(&meter);
            }
        }
    }

    /// Ends in order: no new work, answers in work for a while, goodbyes, then the disk.
    pub(super) async fn end(mut self, stop: &Stop) {
        stop.ask();
        while let Some(ended) = self.listeners.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a listener failed");
            }
        }
        self.node.stop();
        self.engine.shutdown().await;
        if let Some(mesh) = &self.mesh
            && tokio::time::timeout(GOODBYE_MAX, mesh.shutdown()).await.is_err()
        {
            tracing::debug!("left without goodbye");
        }
        if let Err(error) = std::fs::remove_file(&self.control_path) {
            tracing::debug!(%error, "the control socket's file stays; the next start replaces it");
        }
    }
}

fn limits() -> ServeLimits {
    ServeLimits { drain_ms: DRAIN, ..ServeLimits::default() }
}

/// Says once what computes, and of each accelerator why it does not.
fn log_devices(config: &Config) {
    let seen: Vec<_> = devices::find().iter().map(ToString::to_string).collect();
    let accelerators = if seen.is_empty() { "none seen".to_owned() } else { seen.join("; ") };
    let (isa, threads) = (config.engine.isa, config.engine.threads);
    tracing::info!(%isa, threads, accelerators, "models are computed on the processor");
}

/// Opens the network. Addresses that the owner named must be usable; without them, a machine
/// that has no network still serves its owner.
fn network(config: &Config, keys: &Keys) -> anyhow::Result<(Option<Mesh>, Arc<dyn Net>)> {
    let mut mesh_config = MeshConfig::new(keys.node.clone(), WIRE_SCOPE);
    if !config.listen.is_empty() {
        mesh_config.listen.clone_from(&config.listen);
    }
    match Mesh::start(mesh_config) {
        Ok(mesh) => Ok((Some(mesh.clone()), Arc::new(mesh))),
        Err(error) if config.listen.is_empty() => {
            let reason = format!("{:#}", anyhow::Error::from(error));
            tracing::warn!(reason, "there is no network: this node serves its owner alone");
            Ok((None, Arc::new(OfflineNet::new(keys.peer(), &reason))))
        }
        Err(error) => Err(error).context(
            "failed to open the network; choose other addresses with `--listen`, or leave it out",
        ),
    }
}

/// The files of the data folder, and where more of them come from.
fn files(
    config: &Config,
    dir: &commons_store::DataDir,
    clock: &Arc<RealClock>,
) -> anyhow::Result<FilePorts> {
    let budget = config.files.size_max.map(Size::bytes);
    let blobs = BlobStore::open(dir, BlobOptions { budget, ..BlobOptions::default() });
    let blobs = blobs.context("failed to open the files of the data folder")?;
    let origin: Arc<dyn Origin> = match &config.files.origin {
        None => Arc::new(Offline),
        Some(hubs) => {
            let hubs = Hubs::new(hubs.clone(), clock.clone());
            Arc::new(hubs.context("failed to prepare for hubs outside")?)
        }
    };
    Ok(FilePorts { blobs: Arc::new(blobs), origin })
}
