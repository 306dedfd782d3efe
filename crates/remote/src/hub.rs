//! Places that files are taken from, behind `port::hub::Origin`: Hugging Face, Ollama registries
//! and plain addresses.
//!
//! ```text
//! list:   hugging_face | ollama | plain --client--> what there is, with sizes and digests
//! fetch:  client (Range) -> checked against the listing -> body: a stream that is pulled
//! ```
//!
//! The modules in reading order:
//!
//! * `place`: an address, and where a redirect of it may lead;
//! * `client`: one question, its redirects, and what a refusal means;
//! * `json`, `licence`: what is read of a listing;
//! * `hugging_face`, `ollama`, `plain`: the three kinds of place;
//! * `fetch`: a file's bytes.
//!
//! # Redirects
//!
//! Hubs keep large files elsewhere and redirect there. Of a redirect, five in a row at most, this
//! is followed (`docs/decisions/0016-redirects-of-hubs.md`):
//!
//! * it leads to https, or stays at the same scheme, host and port, or on this machine;
//! * it leads nowhere nearer than the place that it comes from: a public host is not believed about
//!   addresses of this machine or this network;
//! * the token goes to the host that it was set for and to no other, and not even there after a
//!   redirect has led elsewhere.
//!
//! # Invariants
//!
//! * Everything is bounded: a wait, a head, a listing, its files, a body. A file's bytes are read
//!   as fast as they are taken; 256 KiB at most are read ahead.
//! * A body has as many bytes as the listing said, or it ends in an error.
//! * What a listing named is pinned: by commit at Hugging Face, by digest elsewhere. A place that
//!   says something else later is told as `OriginError::Changed`.
//! * [`Offline`] resolves no name and opens no socket.
//!
//! Not here: when something is asked again (`swarm::outside`), and whether the bytes hash to what
//! was said (`port::blobs::Receiving::finish`).

mod client;
mod fetch;
mod hugging_face;
mod json;
mod licence;
mod ollama;
mod place;
mod plain;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use commons_port::BoxFuture;
use commons_port::hub::{Fetched, Listing, Origin, OriginError, OriginFile, Source};
use commons_port::time::Clock;
use commons_record::Millis;

use crate::address::{Address, AddressError};
use crate::config::{ConfigError, Trust};
use crate::http::TlsError;
use crate::secret::Key;

/// Where Hugging Face is.
pub const HUGGING_FACE: &str = "https://huggingface.co";

/// Where Ollama's registry is.
pub const OLLAMA: &str = "https://registry.ollama.ai";

/// Files whose last etag is remembered, so that the second half of one belongs to the first.
const ETAGS_MAX: usize = 256;

/// How long a place outside may take, and how much it may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubLimits {
    /// To resolve a name, connect and agree on keys. A packet around the world is back in 300 ms.
    pub connect: Millis,
    /// To the end of a response's head, however slowly its lines come.
    pub head: Millis,
    /// For a whole listing.
    pub listing: Millis,
    /// For [`Self::idle_bytes`] of a file, or its end. Only the time that we wait counts.
    pub idle: Millis,
    /// A place that sends less than this within [`Self::idle`] is as good as silent.
    pub idle_bytes: u64,
    /// One response of a listing. Fifty thousand files have 12 MiB of names and hashes.
    pub listing_bytes: usize,
    /// Files of a repository.
    pub files: usize,
    /// Bytes that a file may be said to have.
    pub file_bytes: u64,
    /// Redirects in a row.
    pub redirects: usize,
}

impl Default for HubLimits {
    fn default() -> Self {
        Self {
            connect: Millis::from_secs(10),
            head: Millis::from_secs(30),
            listing: Millis::from_secs(120),
            idle: Millis::from_secs(30),
            idle_bytes: 16 * 1024,
            listing_bytes: 16 << 20,
            files: 50_000,
            file_bytes: commons_port::blobs::BLOB_LEN_MAX,
            redirects: 5,
        }
    }
}

/// Which hubs are used, and how. Everything that can be checked without asking them was.
#[derive(Debug, Clone)]
pub struct HubConfig {
    hugging_face: Address,
    token: Option<Key>,
    ollama: Address,
    trust: Trust,
    limits: HubLimits,
}

impl HubConfig {
    /// The public hubs, without a token.
    pub fn new() -> Result<Self, AddressError> {
        Ok(Self {
            hugging_face: HUGGING_FACE.parse()?,
            token: None,
            ollama: OLLAMA.parse()?,
            trust: Trust::Machine,
            limits: HubLimits::default(),
        })
    }

    /// Asks another host that speaks Hugging Face's API. A token that was set is dropped: it was
    /// another host's.
    #[must_use]
    pub fn with_hugging_face(mut self, address: Address) -> Self {
        self.hugging_face = address;
        self.token = None;
        self
    }

    /// Shows this token to the Hugging Face host that is set, and to no other.
    pub fn with_token(mut self, token: Key) -> Result<Self, ConfigError> {
        if !self.hugging_face.keeps_secrets() {
            return Err(ConfigError::KeyInTheClear { address: self.hugging_face });
        }
        self.token = Some(token);
        Ok(self)
    }

    /// Asks another registry that speaks Ollama's API.
    #[must_use]
    pub fn with_ollama(mut self, address: Address) -> Self {
        self.ollama = address;
        self
    }

    /// Believes these certificates.
    #[must_use]
    pub fn with_trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// Other bounds.
    #[must_use]
    pub fn with_limits(mut self, limits: HubLimits) -> Self {
        self.limits = limits;
        self
    }
}

/// Places outside, over HTTPS. Clones share what they remember.
#[derive(Clone)]
pub struct Hubs(Arc<Inner>);

struct Inner {
    client: client::Client,
    hugging_face: Address,
    token: Option<Key>,
    ollama: Address,
    /// The etag under which an address last sent its file.
    etags: Mutex<BTreeMap<String, String>>,
}

impl std::fmt::Debug for Hubs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hubs")
            .field("hugging_face", &self.0.hugging_face)
            .field("ollama", &self.0.ollama)
            .finish_non_exhaustive()
    }
}

impl Hubs {
    /// Sets up TLS; nothing is asked yet.
    pub fn new(config: HubConfig, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let client = client::Client::new(&config.trust, clock, config.limits)?;
        let HubConfig { hugging_face, token, ollama, .. } = config;
        let etags = Mutex::default();
        Ok(Self(Arc::new(Inner { client, hugging_face, token, ollama, etags })))
    }
}

impl Inner {
    /// The token, where this place is the one that it was set for.
    fn token_for(&self, place: &place::Place) -> Option<&Key> {
        self.token.as_ref().filter(|_| place.is_at(&self.hugging_face))
    }

    fn etag_of(&self, url: &str) -> Option<String> {
        let etags = self.etags.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        etags.get(url).cloned()
    }

    fn remember_etag(&self, url: &str, etag: Option<String>) {
        let mut etags = self.etags.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match etag {
            Some(etag) => {
                if etags.len() >= ETAGS_MAX && !etags.contains_key(url) {
                    // Which one goes does not matter: it costs a resumed file its early check.
                    etags.pop_first();
                }
                etags.insert(url.to_owned(), etag);
            }
            None => {
                etags.remove(url);
            }
        }
    }
}

impl Origin for Hubs {
    fn list(&self, source: Source) -> BoxFuture<'static, Result<Listing, OriginError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let what = source.to_string();
            let mut listing = match source {
                Source::HuggingFace { kind, repo, revision, file } => {
                    let wanted = hugging_face::Wanted { kind, repo, revision, file, what };
                    hugging_face::list(&inner, &wanted).await?
                }
                Source::Ollama { name, tag } => {
                    let wanted = ollama::Wanted { name, tag, what };
                    ollama::list(&inner, &wanted).await?
                }
                Source::Url { url, digest } => plain::list(&inner, &url, digest).await?,
            };
            listing.files.sort_by(|one, other| one.path.cmp(&other.path));
            Ok(listing)
        })
    }

    fn fetch(
        &self,
        file: OriginFile,
        offset: u64,
    ) -> BoxFuture<'static, Result<Fetched, OriginError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { fetch::fetch(&inner, file, offset).await })
    }
}

/// The origin of a node whose owner said offline: it refuses everything before any name is
/// resolved or any socket is opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Offline;

impl Origin for Offline {
    fn list(&self, _: Source) -> BoxFuture<'static, Result<Listing, OriginError>> {
        Box::pin(std::future::ready(Err(OriginError::Offline)))
    }

    fn fetch(&self, _: OriginFile, _: u64) -> BoxFuture<'static, Result<Fetched, OriginError>> {
        Box::pin(std::future::ready(Err(OriginError::Offline)))
    }
}
