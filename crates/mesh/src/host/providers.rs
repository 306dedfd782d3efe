//! Who says to have what: records of providers, kept by members for each other.
//!
//! kad finds the members that are nearest to a key; they keep the record. A record says that a
//! peer has something and is no proof: whoever asks it finds out.
//!
//! # Invariants
//!
//! * A record names the peer that brought it (kad checks that), and only peers that we remember
//!   may bring any: members, or those that a ticket names. Addresses in it are thrown away.
//! * A peer brings at most [`PER_PEER_MAX`] records in [`WINDOW`], so that none fills the table.

use std::collections::{BTreeMap, HashMap};

use commons_port::net::{NetError, PROVIDERS_MAX};
use commons_record::{Hash, Millis, PeerId};
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig, RecordStore as _};
use libp2p::kad::{
    self, GetProvidersOk, InboundRequest, ProviderRecord, QueryId, QueryResult, RecordKey,
};
use tokio::sync::mpsc;

use super::identity;

/// Keys in the table, our own included. With [`PER_KEY_MAX`] peers each, and some 200 bytes of a
/// record, the table has 26 MiB at most.
const KEYS_MAX: usize = 8_192;

/// Peers of one key: more than anyone fetches from at once.
const PER_KEY_MAX: usize = 16;

/// Records that one peer may bring in a [`WINDOW`].
const PER_PEER_MAX: u32 = 2_048;

/// Searches of ours at once; more end at once, with nothing found.
const SEARCHES_MAX: usize = 64;

/// How long a record counts, unless it is said again; kad says ours again in half that time.
const WINDOW: std::time::Duration = std::time::Duration::from_hours(2);

/// What a table may hold.
pub(crate) fn store_config() -> MemoryStoreConfig {
    MemoryStoreConfig {
        // Values are not stored: presence and records have channels of their own.
        max_records: 0,
        max_value_bytes: 0,
        max_providers_per_key: PER_KEY_MAX,
        max_provided_keys: KEYS_MAX,
    }
}

/// How long records count, and how often ours are said.
pub(crate) fn set_times(config: &mut kad::Config) {
    config.set_provider_record_ttl(Some(WINDOW));
    config.set_provider_publication_interval(Some(WINDOW / 2));
}

/// The searches that run, and how much each peer has brought.
#[derive(Debug, Default)]
pub(super) struct Providers {
    searches: HashMap<QueryId, Search>,
    brought: BTreeMap<PeerId, u32>,
    window_end: Millis,
}

#[derive(Debug)]
struct Search {
    found: Vec<PeerId>,
    deliver: mpsc::Sender<PeerId>,
}

impl Providers {
    /// Says that this node has what `key` names, or no longer says it.
    pub(super) fn provide(
        kad: &mut kad::Behaviour<MemoryStore>,
        key: Hash,
        is_on: bool,
    ) -> Result<(), NetError> {
        let key = RecordKey::new(key.as_bytes());
        if !is_on {
            kad.stop_providing(&key);
            return Ok(());
        }
        kad.start_providing(key).map(|_| ()).map_err(|_| NetError::TooMany { max: KEYS_MAX })
    }

    /// Asks who has what `key` names. Peers are delivered as they are found.
    pub(super) fn search(
        &mut self,
        kad: &mut kad::Behaviour<MemoryStore>,
        key: Hash,
        deliver: mpsc::Sender<PeerId>,
    ) {
        // Those that nobody waits for any more make room.
        self.searches.retain(|id, search| {
            let is_wanted = !search.deliver.is_closed();
            if !is_wanted && let Some(mut query) = kad.query_mut(id) {
                query.finish();
            }
            is_wanted
        });
        if self.searches.len() < SEARCHES_MAX {
            let id = kad.get_providers(RecordKey::new(key.as_bytes()));
            self.searches.insert(id, Search { found: Vec::new(), deliver });
        }
    }

    /// Takes what kad found, and what peers bring. `is_known` says whom we remember.
    pub(super) fn on_event(
        &mut self,
        kad: &mut kad::Behaviour<MemoryStore>,
        now: Millis,
        is_known: impl Fn(PeerId) -> bool,
        event: kad::Event,
    ) {
        match event {
            kad::Event::OutboundQueryProgressed {
                id,
                result: QueryResult::GetProviders(result),
                step,
                ..
            } => {
                let Some(search) = self.searches.get_mut(&id) else { return };
                if let Ok(GetProvidersOk::FoundProviders { providers, .. }) = result {
                    search.tell(providers.iter().filter_map(identity::from_libp2p));
                }
                if step.last {
                    self.searches.remove(&id);
                }
            }
            kad::Event::InboundRequest {
                request: InboundRequest::AddProvider { record: Some(record) },
            } => self.keep(kad, now, is_known, record),
            // Progress that changes nothing here.
            _ => {}
        }
    }

    fn keep(
        &mut self,
        kad: &mut kad::Behaviour<MemoryStore>,
        now: Millis,
        is_known: impl Fn(PeerId) -> bool,
        record: ProviderRecord,
    ) {
        let peer = identity::from_libp2p(&record.provider).filter(|peer| is_known(*peer));
        let Some(peer) = peer.filter(|_| record.key.as_ref().len() == size_of::<Hash>()) else {
            return;
        };
        if now >= self.window_end {
            self.brought.clear();
            let window = u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX);
            self.window_end = Millis(now.0.saturating_add(window));
        }
        let brought = self.brought.entry(peer).or_default();
        if *brought >= PER_PEER_MAX {
            return;
        }
        *brought += 1;
        // Addresses count only in signed presence records.
        let record = ProviderRecord { addresses: Vec::new(), ..record };
        if let Err(error) = kad.store_mut().add_provider(record) {
            tracing::debug!(%peer, %error, "a record of a provider was not kept");
        }
    }
}

impl Search {
    /// Each peer once, a bounded number, and none that nobody takes.
    fn tell(&mut self, peers: impl Iterator<Item = PeerId>) {
        for peer in peers {
            if self.found.len() < PROVIDERS_MAX && !self.found.contains(&peer) {
                self.found.push(peer);
                // The channel has room for as many; whoever asked may have gone.
                let _ = self.deliver.try_send(peer);
            }
        }
    }
}
