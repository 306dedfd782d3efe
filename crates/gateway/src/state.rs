//! What all routes share: the node, a clock, settings and counters.

use std::fmt;
use std::sync::Arc;

use axum::extract::FromRef;
use commons_node::api::NodeApi;
use commons_port::hub::Hub;
use commons_port::time::Clock;
use commons_record::Millis;
use tokio::sync::Semaphore;

use crate::hub::HubState;
use crate::metrics::Metrics;

/// How the public routes behave.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Whoever holds it may use the API. None: only this machine may, see [`crate::check_bind`].
    pub api_key: Option<ApiKey>,
    /// A request's body may be this large: a prompt of 1 MiB, escaped, with room.
    pub body_size_max: usize,
    /// A body has arrived within this time. The limit moves over a slow phone line in it.
    pub body_timeout_ms: Millis,
    /// Answers at once; one more is told to come back. Each costs a channel and a scheduler slot.
    pub answers_max: usize,
    /// Files of the hub that are read at once; one more waits a moment and is told to come back.
    /// Each holds one chunk: 32 of 1 MiB are 32 MiB at worst.
    pub hub_reads_max: usize,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            api_key: None,
            body_size_max: 2 * 1024 * 1024,
            body_timeout_ms: Millis::from_secs(30),
            answers_max: 64,
            hub_reads_max: 32,
        }
    }
}

/// What all routes share. Clones share it, so one state serves TCP and the control socket.
#[derive(Clone)]
pub struct GatewayState {
    pub(crate) node: Arc<dyn NodeApi>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: Arc<GatewayConfig>,
    pub(crate) metrics: Arc<Metrics>,
    /// One permit for each answer that may be in work.
    pub(crate) answers: Arc<Semaphore>,
    pub(crate) hub: HubState,
}

impl GatewayState {
    /// The state of a gateway in front of `node`.
    pub fn new(node: Arc<dyn NodeApi>, clock: Arc<dyn Clock>, config: GatewayConfig) -> Self {
        let metrics = Arc::new(Metrics::new(Arc::clone(&node)));
        let answers = Arc::new(Semaphore::new(config.answers_max));
        let config = Arc::new(config);
        let hub = HubState::new(Arc::clone(&config));
        Self { node, clock, config, metrics, answers, hub }
    }

    /// The same, with repositories for tools that know how to speak to a hub.
    #[must_use]
    pub fn with_hub(mut self, hub: Arc<dyn Hub>) -> Self {
        self.hub.hub = Some(hub);
        self
    }
}

impl FromRef<GatewayState> for HubState {
    fn from_ref(state: &GatewayState) -> Self {
        state.hub.clone()
    }
}

impl fmt::Debug for GatewayState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayState").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The key of the API. Only its hash is kept, so no log and no core file can leak it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(blake3::Hash);

/// Why a text is no API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum ApiKeyError {
    #[error("an api key needs at least {min} characters, and this has {len}")]
    TooShort { len: usize, min: usize },

    #[error("an api key is printable ascii without spaces")]
    NotPrintable,
}

impl ApiKey {
    /// 16 characters of base64 are 96 bits: nobody guesses that over a network.
    pub const LEN_MIN: usize = 16;

    /// Takes a key as its owner wrote it.
    pub fn new(text: &str) -> Result<Self, ApiKeyError> {
        if text.len() < Self::LEN_MIN {
            return Err(ApiKeyError::TooShort { len: text.len(), min: Self::LEN_MIN });
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ApiKeyError::NotPrintable);
        }
        Ok(Self(blake3::hash(text.as_bytes())))
    }

    /// Whether `text` is this key. Takes the same time whichever byte differs: `blake3::Hash`
    /// compares in constant time.
    pub(crate) fn is(&self, text: &str) -> bool {
        self.0 == blake3::hash(text.as_bytes())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey")
    }
}
