//! Addresses of peers: which ones we can dial, and the book of those that we were told.
//!
//! An address is an IP address, then TCP or QUIC, then perhaps a relay, then perhaps the peer:
//!
//! ```text
//! /ip4|ip6/.. (/tcp/N | /udp/N/quic-v1) [/p2p/RELAY/p2p-circuit] [/p2p/PEER]
//! ```
//!
//! The book is the one thing that a handle and the host share under a lock, since
//! `Net::add_addrs` has no way to wait for a message to be taken. It is held for map operations
//! only, and what changed is taken by the host in one piece.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use commons_port::net::NetError;
use commons_record::PeerId;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol as Part;
use tokio::sync::Notify;

use crate::identity;

/// Addresses remembered of one peer: as many as a presence record may name.
pub(crate) const ADDRS_PER_PEER_MAX: usize = 16;

/// The longest sensible address, IPv6 by way of a relay with both keys, has some 190 characters.
const ADDR_LEN_MAX: usize = 256;

/// What an address is to us.
#[derive(Debug, PartialEq, Eq)]
enum Usable {
    /// It can be dialled; this is its form without the peer.
    Yes(Multiaddr),
    /// Sound, but of a kind that we have no transport for.
    Not(&'static str),
}

/// Reads the addresses of `peer`.
///
/// What is unreadable, contradicts the peer or is beyond the bounds refuses all of them. What is
/// sound and of a kind that we cannot dial is left out, since later versions will announce more
/// kinds; if nothing is left, that is an error too.
pub(crate) fn read(peer: PeerId, addrs: &[String]) -> Result<Vec<Multiaddr>, NetError> {
    let bad = |detail: String| NetError::BadAddr { detail };
    if addrs.len() > ADDRS_PER_PEER_MAX {
        return Err(bad(format!("{} are more than {ADDRS_PER_PEER_MAX}", addrs.len())));
    }
    let key = identity::to_libp2p(peer).ok_or_else(|| bad("the peer's key is no key".into()))?;
    let (mut read, mut unusable) = (Vec::new(), None);
    for text in addrs {
        let shown = || text.chars().take(80).collect::<String>();
        match read_one(key, text).map_err(|why| bad(format!("{:?}: {why}", shown())))? {
            Usable::Yes(addr) if !read.contains(&addr) => read.push(addr),
            Usable::Yes(_) => {}
            Usable::Not(why) => unusable = Some(format!("{:?}: {why}", shown())),
        }
    }
    match unusable {
        Some(detail) if read.is_empty() => Err(bad(detail)),
        _ => Ok(read),
    }
}

fn read_one(peer: libp2p::PeerId, text: &str) -> Result<Usable, &'static str> {
    if text.len() > ADDR_LEN_MAX {
        return Err("is too long");
    }
    let mut addr: Multiaddr = text.parse().map_err(|_| "is not a multiaddress")?;
    if let Some(Part::P2p(named)) = addr.iter().last() {
        if named != peer {
            return Err("names another peer");
        }
        addr.pop();
    }
    let parts: Vec<Part<'_>> = addr.iter().collect();
    let Some((host, rest)) = parts.split_first() else { return Err("is empty") };
    match host {
        Part::Ip4(ip) if ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() => {
            return Err("is not the address of one machine");
        }
        Part::Ip6(ip) if ip.is_unspecified() || ip.is_multicast() => {
            return Err("is not the address of one machine");
        }
        Part::Ip4(_) | Part::Ip6(_) => {}
        Part::Dns(_) | Part::Dns4(_) | Part::Dns6(_) | Part::Dnsaddr(_) => {
            return Ok(Usable::Not("names are not looked up: give an IP address"));
        }
        _ => return Ok(Usable::Not("has no IP address")),
    }
    match rest {
        [Part::Tcp(0) | Part::Udp(0), ..] => Err("has no port"),
        [Part::Tcp(_)] | [Part::Udp(_), Part::QuicV1] => Ok(Usable::Yes(addr)),
        [Part::Tcp(_), relay @ ..] | [Part::Udp(_), Part::QuicV1, relay @ ..] => match relay {
            [Part::P2p(relay), Part::P2pCircuit] if *relay == peer => Err("relays to itself"),
            [Part::P2p(_), Part::P2pCircuit] => Ok(Usable::Yes(addr)),
            _ => Ok(Usable::Not("is neither plain TCP, QUIC nor one relay")),
        },
        _ => Ok(Usable::Not("is neither plain TCP nor QUIC")),
    }
}

/// What peers, tickets and people told us about where peers are.
#[derive(Debug)]
pub(crate) struct Book {
    state: Mutex<BookState>,
    changed: Notify,
    peers_max: usize,
}

#[derive(Debug, Default)]
struct BookState {
    entries: BTreeMap<PeerId, Entry>,
    /// Counts additions: the entry with the lowest count was unheard of for longest.
    clock: u64,
    /// Entries that the host has not seen yet.
    fresh: BTreeSet<PeerId>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Newest first.
    addrs: Vec<Multiaddr>,
    heard: u64,
}

impl Book {
    /// An empty book of at most so many peers.
    pub(crate) fn new(peers_max: usize) -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), peers_max: peers_max.max(1) }
    }

    /// Remembers a peer and its newest addresses, before those that it had.
    pub(crate) fn add(&self, peer: PeerId, newest: Vec<Multiaddr>) {
        let mut state = self.lock();
        state.clock += 1;
        let heard = state.clock;
        let entry = state.entries.entry(peer).or_default();
        let is_news = entry.heard == 0 || newest.iter().any(|addr| !entry.addrs.contains(addr));
        let older = std::mem::take(&mut entry.addrs);
        entry.addrs = newest;
        for addr in older {
            if entry.addrs.len() < ADDRS_PER_PEER_MAX && !entry.addrs.contains(&addr) {
                entry.addrs.push(addr);
            }
        }
        entry.heard = heard;
        if state.entries.len() > self.peers_max {
            state.forget_oldest();
        }
        if is_news {
            state.fresh.insert(peer);
            self.changed.notify_one();
        }
    }

    /// Completes when [`Book::take_fresh`] may have something to say.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The peers that are new or have new addresses since the last call.
    pub(crate) fn take_fresh(&self) -> BTreeSet<PeerId> {
        std::mem::take(&mut self.lock().fresh)
    }

    /// Where a peer may be, newest first; `None` for one that is not in the book.
    pub(crate) fn addrs(&self, peer: PeerId) -> Option<Vec<Multiaddr>> {
        self.lock().entries.get(&peer).map(|entry| entry.addrs.clone())
    }

    /// Somebody else answered at an address. It is forgotten, unless it is the last one: then a
    /// later try may still find the peer there. Whether it was forgotten, so that a next try
    /// reaches another.
    pub(crate) fn discredit(&self, peer: PeerId, addr: &Multiaddr) -> bool {
        let mut bare = addr.clone();
        if let Some(Part::P2p(_)) = bare.iter().last() {
            bare.pop();
        }
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(&peer) else { return false };
        let count = entry.addrs.len();
        if count > 1 {
            entry.addrs.retain(|addr| *addr != bare);
        }
        entry.addrs.len() < count
    }

    /// The map is never left half-changed, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, BookState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BookState {
    fn forget_oldest(&mut self) {
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.heard);
        if let Some(peer) = oldest.map(|(peer, _)| *peer) {
            self.entries.remove(&peer);
            self.fresh.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests;
