//! A foreign server behind the port.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use commons_port::BoxFuture;
use commons_port::engine::{
    AddAdapter, Engine, EngineLoad, EngineRefusal, EngineRefusalCode, EngineRequest, LoadedAdapter,
    LoadedModel, Origin, Priority, Sequence,
};
use commons_port::time::{Clock, Entropy, Spawn, TaskHandle};
use commons_record::order::PromptInput;
use commons_record::{Hash, Millis};
use serde_json::json;
use tokio::sync::mpsc;

use crate::answer::Asked;
use crate::ask::{Addressee, ask};
use crate::catalog::{Entry, UNDECLARED};
use crate::config::{Adapters, RemoteConfig};
use crate::fault::Fault;
use crate::health::Life;
use crate::http::Http;
use crate::sequence::{EVENTS_MAX, Place, RemoteSequence, Work};
use crate::watch::{self, RemoteView, Shared};

pub use crate::http::TlsError;

/// A name or a path of an adapter.
const ADAPTER_LEN_MAX: usize = 1024;

/// What the engine is built on.
#[derive(Clone)]
pub struct RemotePorts {
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Unpredictable bytes.
    pub entropy: Arc<dyn Entropy>,
    /// Tasks, on a tokio runtime.
    pub spawn: Arc<dyn Spawn>,
}

impl std::fmt::Debug for RemotePorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RemotePorts")
    }
}

/// Why an adapter was not loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum AdapterError {
    #[error("adapters may not be loaded into {server}; say `adapters=on` where it is named")]
    NotAllowed { server: String },

    #[error("{server} loads no adapters while it runs")]
    Unsupported { server: String },

    #[error("an adapter's name and path are one line of up to {ADAPTER_LEN_MAX} bytes each")]
    Name,

    #[error("{refusal}")]
    Failed { refusal: EngineRefusal },
}

impl From<AdapterError> for EngineRefusal {
    fn from(error: AdapterError) -> Self {
        let code = match &error {
            AdapterError::NotAllowed { .. } | AdapterError::Unsupported { .. } => {
                EngineRefusalCode::Unsupported
            }
            AdapterError::Name => EngineRefusalCode::InvalidAdapter,
            AdapterError::Failed { refusal } => match refusal.code {
                // The route takes an adapter alone: what is wrong with the request is wrong with it.
                EngineRefusalCode::InvalidPrompt => EngineRefusalCode::InvalidAdapter,
                // A server that was not started with adapters has no such route.
                EngineRefusalCode::UnknownModel => EngineRefusalCode::Unsupported,
                code => code,
            },
        };
        Self { code, message: error.to_string() }
    }
}

/// A foreign server. Dropping it stops looking after the server; answers under way go on.
pub struct RemoteEngine {
    shared: Arc<Shared>,
    spawn: Arc<dyn Spawn>,
    _watch: TaskHandle,
}

impl std::fmt::Debug for RemoteEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteEngine")
            .field("address", &self.shared.config.address)
            .finish_non_exhaustive()
    }
}

impl RemoteEngine {
    /// Begins to look after a server. Waits for nothing: it may come up later.
    pub fn start(config: RemoteConfig, ports: RemotePorts) -> Result<Self, TlsError> {
        let RemotePorts { clock, entropy, spawn } = ports;
        let (address, key, limits) = (config.address.clone(), config.key.clone(), config.limits);
        let http = Http::new(address, key, &config.trust, Arc::clone(&clock), limits)?;
        let shared = Arc::new(Shared::new(config, http, clock, entropy));
        let watch = spawn.spawn("foreign engine", Box::pin(watch::run(Arc::clone(&shared))));
        Ok(Self { shared, spawn, _watch: watch })
    }

    /// The server as its owner sees it.
    pub fn view(&self) -> RemoteView {
        self.shared.view()
    }

    /// Waits until the server was looked at once, and no longer than this.
    pub async fn looked_at(&self, max: Millis) {
        let deadline = self.shared.clock.now().saturating_add(max);
        let mut looks = self.shared.looks.subscribe();
        tokio::select! {
            biased;
            _ = looks.wait_for(|count| *count > 0) => {}
            () = self.shared.clock.sleep_until(deadline) => {}
        }
    }

    /// Looks again now, and waits for it.
    async fn look_again(&self) {
        let mut looks = self.shared.looks.subscribe();
        // A look that is under way may have begun before; the one after it has not.
        let seen = *looks.borrow_and_update();
        self.shared.wake.notify_one();
        let deadline = self.shared.clock.now().saturating_add(self.shared.http.limits().check);
        tokio::select! {
            biased;
            _ = looks.wait_for(|count| *count > seen) => {}
            () = self.shared.clock.sleep_until(deadline) => {}
        }
    }

    /// Loads an adapter into the server, by a path that the *server* can read, and lists it.
    pub async fn load_adapter(&self, name: &str, path: &str) -> Result<(), AdapterError> {
        let server = self.shared.label();
        if self.shared.config.adapters != Adapters::Loaded {
            return Err(AdapterError::NotAllowed { server });
        }
        let is_line = |it: &str| {
            (1..=ADAPTER_LEN_MAX).contains(&it.len()) && !it.chars().any(char::is_control)
        };
        if !is_line(name) || !is_line(path) {
            return Err(AdapterError::Name);
        }
        let kind = self.shared.state().server.as_ref().map(|it| it.kind);
        let Some(route) = kind.and_then(crate::kind::Kind::adapter_route) else {
            return Err(AdapterError::Unsupported { server });
        };
        let body = json!({ "lora_name": name, "lora_path": path }).to_string().into_bytes();
        let loaded = self.shared.http.post(route, body).await;
        loaded.map_err(|fault| AdapterError::Failed { refusal: self.shared.refusal(&fault) })?;
        self.look_again().await;
        Ok(())
    }

    async fn add(&self, add: AddAdapter) -> Result<LoadedAdapter, EngineRefusal> {
        if add.is_rounded {
            let message = format!(
                "{} stores an adapter's numbers as it likes; leave the rounding out",
                self.shared.label()
            );
            return Err(refuse(EngineRefusalCode::Unsupported, message));
        }
        let path = add.path.to_str().ok_or(AdapterError::Name)?;
        let stem = add.path.file_stem().and_then(|it| it.to_str());
        let name = add.name.as_deref().or(stem).ok_or(AdapterError::Name)?;
        self.load_adapter(name, path).await?;
        let is_it =
            |it: &LoadedAdapter| it.name == name && add.model.is_none_or(|model| it.model == model);
        self.adapters().into_iter().find(is_it).ok_or_else(|| {
            let message = format!(
                "{} took in the adapter {name} and does not list it for that model",
                self.shared.label()
            );
            refuse(EngineRefusalCode::Failed, message)
        })
    }

    /// The model that a request is for: a base, an adapter by its own hash, or both by theirs.
    fn find(&self, request: &EngineRequest) -> Result<Entry, EngineRefusal> {
        let state = self.shared.state();
        let base = state.entries.get(&request.model).ok_or_else(|| {
            let reason = if state.reason.is_empty() { "" } else { ": it " };
            let message = format!(
                "the foreign engine at {} does not have model {} now{reason}{}",
                self.shared.config.address, request.model, state.reason
            );
            // Its models come back with it.
            let code = match state.life {
                Life::Up => EngineRefusalCode::UnknownModel,
                Life::Starting | Life::Down => EngineRefusalCode::Unavailable,
            };
            EngineRefusal { code, message }
        })?;
        let Some(adapter) = request.adapter else { return Ok(base.clone()) };
        let found = state.entries.get(&adapter);
        let found = found.filter(|it| it.parent.as_ref() == Some(&base.facts.file_name));
        found.cloned().ok_or_else(|| EngineRefusal {
            code: EngineRefusalCode::UnknownAdapter,
            message: format!("adapter {adapter} of model {} is not loaded there", base.facts.name),
        })
    }
}

fn refuse(code: EngineRefusalCode, message: String) -> EngineRefusal {
    EngineRefusal { code, message }
}

impl Engine for RemoteEngine {
    fn models(&self) -> Vec<LoadedModel> {
        self.shared.state().entries.values().map(|it| it.facts.clone()).collect()
    }

    fn load(&self, model: &Hash) -> Option<EngineLoad> {
        self.shared.state().entries.get(model)?;
        let running = self.shared.running.load(Ordering::Relaxed);
        Some(EngineLoad { running, queued: 0, slots: self.shared.http.limits().answers_max })
    }

    /// Those that the server lists below one of its models.
    fn adapters(&self) -> Vec<LoadedAdapter> {
        let state = self.shared.state();
        let adapter = |entry: &Entry| {
            let base = entry.parent.as_ref()?;
            let is_base = |it: &&Entry| it.parent.is_none() && it.facts.file_name == *base;
            let base = state.entries.values().find(is_base)?;
            Some(LoadedAdapter {
                adapter: entry.facts.model,
                model: base.facts.model,
                name: entry.facts.file_name.clone(),
                file_size: 0,
                method: UNDECLARED.to_owned(),
                rank: 0,
                format: UNDECLARED.to_owned(),
            })
        };
        state.entries.values().filter_map(adapter).collect()
    }

    fn add_adapter(&self, add: AddAdapter) -> BoxFuture<'_, Result<LoadedAdapter, EngineRefusal>> {
        Box::pin(self.add(add))
    }

    fn remove_adapter(&self, _model: Hash, _adapter: Hash) -> Result<(), EngineRefusal> {
        let server = self.shared.label();
        let message = format!("{server} keeps what it has loaded; unload the adapter there");
        Err(refuse(EngineRefusalCode::Unsupported, message))
    }

    fn origin(&self, _model: &Hash) -> Origin {
        let reach = self.shared.config.address.reach();
        Origin::Foreign { reach, engine: self.shared.label() }
    }

    fn start(&self, request: EngineRequest) -> Result<Box<dyn Sequence>, EngineRefusal> {
        // Rule E15. A peer's order asks for tokens that a seed of both has drawn.
        if request.caller.priority != Priority::Owner {
            let message = "a foreign engine computes this model, and its sampling cannot be \
                           checked: it serves its owner alone; ask another node";
            return Err(refuse(EngineRefusalCode::Unsupported, message.to_owned()));
        }
        let entry = self.find(&request)?;
        let kind = self.shared.state().server.as_ref().map(|it| it.kind);
        let Some(kind) = kind else {
            let fault = Fault::Unreachable { reason: "it was not looked at yet".to_owned() };
            return Err(self.shared.refusal(&fault));
        };
        let to = Addressee {
            kind,
            model: &entry.asked_as,
            context_len: entry.facts.context_len,
            weighed: &entry.weighed,
        };
        let ask = ask(to, &request)?;
        let asked = asked(&entry, &request);
        if let Some(prompt) = &asked.prompt
            && prompt.len() > request.prompt_tokens_max as usize
        {
            let (count, max) = (prompt.len(), request.prompt_tokens_max);
            return Err(self.shared.refusal(&Fault::PromptTooLong { count, max }));
        }
        let place = Place::take(&self.shared).ok_or_else(|| {
            let max = self.shared.http.limits().answers_max;
            let message = format!("{max} answers of {} are under way already", self.shared.label());
            refuse(EngineRefusalCode::Overloaded, message)
        })?;
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let work = Work { place, ask, asked, events };
        let task = self.spawn.spawn("foreign answer", Box::pin(work.run()));
        Ok(Box::new(RemoteSequence::new(receiver, task)))
    }
}

fn asked(entry: &Entry, request: &EngineRequest) -> Asked {
    let (prompt_size, prompt) = match &request.input {
        PromptInput::Chat(messages) => {
            // A template puts a few tokens around each message.
            let size = |it: &commons_record::order::Message| it.role.len() + it.content.len() + 64;
            (messages.iter().map(size).sum(), None)
        }
        PromptInput::Text(text) => (text.len(), None),
        PromptInput::Tokens(tokens) => (tokens.len(), Some(tokens.clone())),
    };
    Asked {
        model: entry.asked_as.clone(),
        prompt_size,
        prompt,
        prompt_tokens_max: request.prompt_tokens_max,
        completion_tokens_max: request.completion_tokens_max,
        top_logprobs: request.top_logprobs,
    }
}
