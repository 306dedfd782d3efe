//! What `commons up` does: a running node, from its data folder to its end.
//!
//! ```text
//! folder locked -> API and control socket bound -> node started -> serving
//!   -> models loaded -> mesh joined in the background -> ready line -> stop asked -> drained
//! ```
//!
//! The API answers from "serving" on: it waits neither for a model nor for the mesh (Rule N3).
//!
//! * `config`: what was typed, as what it means;
//! * `open`: the folder, its keys and its sockets; `serve`: the node and its listeners;
//! * `compute`: where models are computed, in a process of their own or in this one;
//! * `models`: loading with progress; `kept`: adapters that outlive the node; `foreign`: engines of others, by address; `tell`: lines for people and events for programs;
//! * `stop`: what ends a node; `environment`: logs.

mod compute;
mod config;
mod environment;
mod foreign;
mod kept;
mod models;
mod open;
mod serve;
mod stop;
mod tell;

use std::pin::pin;

use anyhow::Context as _;
use commons_node::api::NodeApi as _;

pub(crate) use config::Config;
pub(crate) use environment::log_to_stderr;

use crate::output::Output;
use open::Opened;
use serve::Running;
use stop::Stop;
use tell::{Event, Teller};

/// Runs a node until it is told to end.
pub(crate) async fn run(config: Config, out: &mut Output<'_>) -> anyhow::Result<()> {
    let mut stop = Stop::listen(config.until_stdin_ends)?;
    let mut teller = Teller::new(out);
    let opened = Opened::open(&config).await?;
    let running = Running::start(&config, opened, &mut stop).await?;
    let result = live(&config, &running, &stop, &mut teller).await;
    // Whatever happened: what was begun is ended in order.
    running.end(&stop).await;
    result?;
    teller.tell(&Event::Stopped)
}

/// From the first listener to the wish to end.
async fn live(
    config: &Config,
    running: &Running,
    stop: &Stop,
    teller: &mut Teller<'_, '_>,
) -> anyhow::Result<()> {
    teller.tell(&Event::Listening { api: running.api_url() })?;
    let mut asked_to_stop = pin!(stop.asked());
    tokio::select! {
        biased;
        () = &mut asked_to_stop => return Ok(()),
        result = bring_up(config, running, teller) => result?,
    }
    loop {
        tokio::select! {
            biased;
            () = &mut asked_to_stop => return Ok(()),
            event = running.next_news() => teller.tell(&event)?,
        }
    }
}

/// Loads the models and begins to join; then the node is ready.
async fn bring_up(
    config: &Config,
    running: &Running,
    teller: &mut Teller<'_, '_>,
) -> anyhow::Result<()> {
    models::load_all(&config.models, &running.engine, teller).await?;
    running.restore_adapters().await?;
    if let Some(event) = running.process_news() {
        teller.tell(&event)?;
    }
    running.look_at_foreign().await;
    while let Some(event) = running.foreign_news() {
        teller.tell(&event)?;
    }
    if let Some(ticket) = &config.join {
        let join = running.node.join(ticket.to_string()).await;
        let view = join.context("failed to begin to join the mesh")?;
        teller.tell(&Event::Joining { mesh: view.mesh, mesh_name: view.mesh_name })?;
    }
    let status = running.node.status().await;
    if config.share {
        teller.tell(&Event::Sharing {
            mesh_name: status.mesh_name.clone(),
            threads: running.capability.threads,
        })?;
    }
    teller.tell(&Event::Ready(Box::new(tell::Ready {
        api: running.api_url(),
        control: running.control_path.clone(),
        data_dir: config.data_dir.clone(),
        process: std::process::id(),
        peer: status.peer,
        mesh: status.mesh,
        mesh_name: status.mesh_name,
        addrs: status.addrs,
        models: running.node.models().await.into_iter().map(|model| model.name).collect(),
        share: config.share,
    })))
}
