//! Everything that one connection carries, and the swarm that it runs in.
//!
//! * streams (ours) and gossip: what `Net` offers;
//! * kad: a routing table of members, gated. Nothing enters it but what `Net::add_addrs` was
//!   told, and of what peers want to store only who provides what (`host/providers.rs`);
//! * identify, autonat v2 (the server by the owner's word), dcutr and relay (both sides): how nodes behind address
//!   translators find each other, with any node as the relay;
//! * ping, and limits on connections.
//!
//! Protocol names of gossip, kad and identify hold the host's scope, so that networks of other scopes
//! do not mix. Meshes are told apart above: the node names its streams and topics after its mesh.

use std::sync::Arc;
use std::time::Duration;

use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::kad::store::MemoryStore;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{
    StreamProtocol, Swarm, SwarmBuilder, autonat, dcutr, identify, identity, kad, noise, ping,
    quic, relay, tcp, yamux,
};

use crate::config::{Limits, MeshConfig, StartError};
use crate::gossip::{self, Gossipsub};
use crate::host::providers;
use crate::identity::keypair;
use crate::streams::{Accepting, Streams};

/// What one QUIC stream may have in flight towards us: at 100 ms, a stream of 640 Mbit/s.
const QUIC_STREAM_WINDOW: u32 = 8 << 20;

/// What one QUIC connection may make us buffer when nobody reads: two streams at full speed.
/// With 256 connections the worst case is 4 GiB; 64 MiB each would make it 16 for no gain on the
/// token path. A room that moves weights measures first.
const QUIC_CONNECTION_WINDOW: u32 = 16 << 20;

/// A peer that is silent for this long is gone: three keep-alives in a row were lost. A killed
/// process sends no goodbye over UDP, so this is how soon we notice.
const QUIC_IDLE_TIMEOUT: Duration = Duration::from_secs(6);

/// Also keeps address translators' mappings open: the strictest forget UDP after 30 s.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(2);

/// Streams of a connection, each way. A Yamux stream holds at least a 256 KiB window, so this
/// also bounds a connection to 64 MiB unless its streams are being read.
const STREAMS_PER_CONNECTION_MAX: u32 = 256;

/// A handshake that takes longer than this will not be worth having.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that nothing uses, with a peer that we do not remember: long enough for it to
/// be admitted and remembered, short enough to make room.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A relayed connection may carry a long conversation, until a direct one takes its place. The
/// default of 2 minutes cuts answers off.
const CIRCUIT_TIME_MAX: Duration = Duration::from_hours(1);

/// Enough for a day of tokens with their probabilities, and too little for weights. The default
/// of 128 KiB is one long answer.
const CIRCUIT_BYTES_MAX: u64 = 64 << 20;

/// At most 2 GiB an hour that we carry for others.
const CIRCUITS_MAX: usize = 32;

/// Tells a peer that hangs from one that is idle. TCP alone would notice after minutes.
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// Addresses that peers give themselves count only in signed presence records.
const IDENTIFY_CACHE: usize = 0;

/// All behaviours of a node.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    // First: what they refuse is not set up anywhere else.
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) streams: Streams,
    pub(crate) gossip: Gossipsub,
    pub(crate) kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    relay: relay::Behaviour,
    relay_client: relay::client::Behaviour,
    dcutr: dcutr::Behaviour,
    autonat_server: Toggle<autonat::v2::server::Behaviour>,
    autonat_client: autonat::v2::client::Behaviour,
}

/// A swarm that listens nowhere yet. Must be called within a tokio runtime.
pub(crate) fn swarm(
    config: &MeshConfig,
    accepting: Arc<Accepting>,
) -> Result<Swarm<Behaviour>, StartError> {
    let stack = |detail: String| StartError::Stack { detail };
    let key = keypair(&config.key).ok_or_else(|| stack("the key was refused".to_owned()))?;
    let swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::new().nodelay(true), noise::Config::new, yamux_config)
        .map_err(|error| stack(error.to_string()))?
        .with_quic_config(quic_config)
        .with_relay_client(noise::Config::new, yamux_config)
        .map_err(|error| stack(error.to_string()))?
        .with_behaviour(|key, relay_client| behaviour(config, accepting, key, relay_client))
        .map_err(|error| stack(error.to_string()))?
        .with_swarm_config(|swarm| {
            // QUIC is tried first, TCP a moment later: fewer sockets, and no head-of-line wait.
            swarm.with_idle_connection_timeout(IDLE_TIMEOUT).with_smart_dial()
        })
        .with_connection_timeout(HANDSHAKE_TIMEOUT)
        .build();
    Ok(swarm)
}

fn yamux_config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(STREAMS_PER_CONNECTION_MAX as usize);
    config
}

fn quic_config(mut config: quic::Config) -> quic::Config {
    config.max_stream_data = QUIC_STREAM_WINDOW;
    config.max_connection_data = QUIC_CONNECTION_WINDOW;
    config.max_concurrent_stream_limit = STREAMS_PER_CONNECTION_MAX;
    config.max_idle_timeout = u32::try_from(QUIC_IDLE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    config.keep_alive_interval = QUIC_KEEP_ALIVE;
    config
}

fn behaviour(
    config: &MeshConfig,
    accepting: Arc<Accepting>,
    key: &identity::Keypair,
    relay_client: relay::client::Behaviour,
) -> Result<Behaviour, Box<dyn std::error::Error + Send + Sync>> {
    let local = key.public().to_peer_id();
    let identify = identify::Config::new(name(config, "identify/1"), key.public())
        .with_agent_version(concat!("commons/", env!("CARGO_PKG_VERSION")).to_owned())
        .with_push_listen_addr_updates(true)
        .with_cache_size(IDENTIFY_CACHE);
    Ok(Behaviour {
        limits: connection_limits::Behaviour::new(limits(&config.limits)),
        streams: Streams::new(accepting),
        gossip: gossip::behaviour(name(config, "gossip/1"))?,
        kad: kad(local, StreamProtocol::try_from_owned(name(config, "kad/1"))?),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL)),
        relay: relay::Behaviour::new(local, relay_config()),
        relay_client,
        dcutr: dcutr::Behaviour::new(local),
        autonat_server: config
            .probes_for_others
            .then(autonat::v2::server::Behaviour::default)
            .into(),
        autonat_client: autonat::v2::client::Behaviour::default(),
    })
}

fn name(config: &MeshConfig, part: &str) -> String {
    format!("/commons/{}/{part}", config.scope)
}

fn limits(limits: &Limits) -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_established(Some(limits.connections))
        .with_max_established_incoming(Some(limits.connections_incoming))
        .with_max_established_per_peer(Some(limits.connections_per_peer))
        .with_max_pending_incoming(Some(limits.connections_pending))
        .with_max_pending_outgoing(Some(limits.connections_pending))
}

fn kad(local: libp2p::PeerId, protocol: StreamProtocol) -> kad::Behaviour<MemoryStore> {
    let store = providers::store_config();
    let mut config = kad::Config::new(protocol);
    config
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_periodic_bootstrap_interval(None);
    providers::set_times(&mut config);
    let mut kad =
        kad::Behaviour::with_config(local, MemoryStore::with_config(local, store), config);
    kad.set_mode(Some(kad::Mode::Server));
    kad
}

fn relay_config() -> relay::Config {
    relay::Config {
        max_circuit_duration: CIRCUIT_TIME_MAX,
        max_circuit_bytes: CIRCUIT_BYTES_MAX,
        max_circuits: CIRCUITS_MAX,
        ..relay::Config::default()
    }
}
