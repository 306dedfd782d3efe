//! Looking after a server for as long as the engine lives: what it is, whether it lives, what it
//! has. One task; what it finds stands in [`Shared`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use commons_port::engine::EngineRefusal;
use commons_port::time::{Clock, Entropy, draw};
use commons_record::{Hash, Millis};
use serde::Serialize;
use tokio::sync::{Notify, watch};

use crate::catalog::{Entry, Server, entries};
use crate::config::RemoteConfig;
use crate::fault::Fault;
use crate::health::{Health, Life, Look};
use crate::http::Http;
use crate::probe;

/// Whether a server lives, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RemoteState {
    /// It was not looked at yet.
    Starting,
    /// It lives.
    Up,
    /// It does not.
    Down {
        /// Why that is believed.
        reason: String,
    },
}

/// A server as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemoteView {
    /// Where it is.
    pub address: String,
    /// What it is, once that is known.
    pub kind: Option<String>,
    /// Its version, as it says.
    pub version: Option<String>,
    /// Whether it lives.
    #[serde(flatten)]
    pub state: RemoteState,
    /// What can be asked for.
    pub models: Vec<ListedView>,
}

/// A model or an adapter of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedView {
    /// The name that people use.
    pub name: String,
    /// Its declared identity.
    pub model: Hash,
    /// The base, by the server's own name, if it is an adapter.
    pub parent: Option<String>,
}

/// What was found last.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) life: Life,
    pub(crate) reason: String,
    pub(crate) server: Option<Server>,
    pub(crate) entries: BTreeMap<Hash, Entry>,
}

/// What the tasks of one engine share.
pub(crate) struct Shared {
    pub(crate) config: RemoteConfig,
    pub(crate) http: Http,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    state: RwLock<State>,
    /// Answers under way.
    pub(crate) running: AtomicU32,
    /// When a line of an answer was last heard, on the clock.
    heard: AtomicU64,
    /// Look at once.
    pub(crate) wake: Notify,
    /// How many looks there were.
    pub(crate) looks: watch::Sender<u64>,
}

impl Shared {
    pub(crate) fn new(
        config: RemoteConfig,
        http: Http,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let state = State {
            life: Life::Starting,
            reason: String::new(),
            server: None,
            entries: BTreeMap::new(),
        };
        Self {
            config,
            http,
            clock,
            entropy,
            state: RwLock::new(state),
            running: AtomicU32::new(0),
            heard: AtomicU64::new(0),
            wake: Notify::new(),
            looks: watch::Sender::new(0),
        }
    }

    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the server said something.
    pub(crate) fn hear(&self) {
        self.heard.store(self.clock.now().0, Ordering::Relaxed);
    }

    /// What the server is called in sentences.
    pub(crate) fn label(&self) -> String {
        let kind = self.state().server.as_ref().map_or("server", |it| it.kind.name());
        format!("{kind} at {}", self.config.address)
    }

    /// A fault as the port has it.
    pub(crate) fn refusal(&self, fault: &Fault) -> EngineRefusal {
        fault.refusal(&self.label(), self.http.key())
    }

    pub(crate) fn view(&self) -> RemoteView {
        let state = self.state();
        let models = state.entries.values().map(|it| ListedView {
            name: it.facts.name.clone(),
            model: it.facts.model,
            parent: it.parent.clone(),
        });
        RemoteView {
            address: self.config.address.to_string(),
            kind: state.server.as_ref().map(|it| it.kind.name().to_owned()),
            version: state.server.as_ref().map(|it| it.version.clone()),
            state: match state.life {
                Life::Starting => RemoteState::Starting,
                Life::Up => RemoteState::Up,
                Life::Down => RemoteState::Down { reason: state.reason.clone() },
            },
            models: models.collect(),
        }
    }

    /// A fault in words, without the key.
    fn told(&self, fault: &Fault) -> String {
        let text = fault.to_string();
        self.http.key().map_or_else(|| text.clone(), |key| key.redact(&text))
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Looks until the task is stopped.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut health = Health::new();
    loop {
        let began = shared.clock.now();
        let look = look(&shared, began, health.life).await;
        let noise = u32::from_be_bytes(draw(&*shared.entropy));
        let wait = health.step(shared.http.limits(), look.0, noise);
        settle(&shared, health.life, look.1);
        shared.looks.send_modify(|count| *count += 1);
        let until = shared.clock.now().saturating_add(wait);
        tokio::select! {
            biased;
            () = shared.wake.notified() => {}
            () = shared.clock.sleep_until(until) => {}
        }
    }
}

async fn look(shared: &Shared, began: Millis, life: Life) -> (Look, Result<probe::Found, String>) {
    // What it is was asked when it came up; another program may listen there after a fall.
    let known = shared.state().server.clone().filter(|_| life == Life::Up);
    match probe::look(&shared.http, &shared.config, known).await {
        Ok(found) => (Look::Fine, Ok(found)),
        Err(fault) if fault.is_absence() => (Look::Absent, Err(shared.told(&fault))),
        Err(fault) => {
            let is_heard = shared.heard.load(Ordering::Relaxed) >= began.0.max(1);
            (Look::Odd { is_heard }, Err(shared.told(&fault)))
        }
    }
}

/// Notes what was found, and logs what changed.
fn settle(shared: &Shared, life: Life, found: Result<probe::Found, String>) {
    let before = shared.state().life;
    let address = &shared.config.address;
    match found {
        Ok(found) => {
            let entries = entries(&shared.config, &found.server, found.declared);
            let has_changed =
                before != Life::Up || !shared.state().entries.keys().eq(entries.keys());
            if has_changed {
                let (kind, version) = (found.server.kind, &found.server.version);
                let (count, left_out) = (entries.len(), found.left_out);
                tracing::info!(%address, %kind, version, count, left_out, "a foreign engine lists models");
            }
            shared.set(|state| {
                *state = State { life, reason: String::new(), server: Some(found.server), entries };
            });
        }
        Err(reason) => {
            if life == Life::Down && before != Life::Down {
                tracing::warn!(%address, reason, "a foreign engine is not used");
            }
            shared.set(|state| {
                state.life = life;
                state.reason = reason;
                if life == Life::Down {
                    state.entries.clear();
                }
            });
        }
    }
}
