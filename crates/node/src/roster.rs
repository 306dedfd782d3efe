//! The members that this node knows, by their own signed presence.
//!
//! A presence holds for its lease from the moment it arrived, by this node's clock: what other
//! clocks say does not matter (Rule R7). Speed is what was measured here, never what was claimed.
//!
//! Not here: I/O, and any clock.

use std::collections::{BTreeMap, BTreeSet};

use commons_record::envelope::Verified;
use commons_record::mesh::Presence;
use commons_record::{Hash, HpkeKey, Millis, OwnerId, PeerId};
use commons_route::Measured;

/// Members that are remembered. A larger mesh is searched, not listed.
const MEMBERS_MAX: usize = 4_096;

/// Speeds that are remembered: each member with a few models.
const SPEEDS_MAX: usize = 16_384;

/// A member with a presence that holds.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) peer: PeerId,
    pub(crate) owner: OwnerId,
    pub(crate) hpke: HpkeKey,
    pub(crate) presence: Presence,
    pub(crate) epoch_sequence: (u64, u64),
    pub(crate) until: Millis,
    pub(crate) since_unix: Millis,
}

/// The members that this node knows.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    members: BTreeMap<PeerId, Member>,
    connected: BTreeMap<PeerId, String>,
    speeds: BTreeMap<(PeerId, Hash), Measured>,
}

impl Roster {
    /// Takes a verified presence. False if it is older than the one that is known, or there is
    /// no room.
    pub(crate) fn learn(&mut self, now: Millis, unix: Millis, record: &Verified<Presence>) -> bool {
        let peer = record.node();
        let Some(hpke) = record.hpke_key() else { return false };
        let order = (record.epoch().0, record.sequence());
        let known = self.members.get(&peer);
        if known.is_some_and(|known| known.epoch_sequence >= order && known.until > now) {
            return false;
        }
        let since_unix = known.map_or(unix, |known| known.since_unix);
        if known.is_none() && self.members.len() >= MEMBERS_MAX {
            self.expire(now);
            if self.members.len() >= MEMBERS_MAX {
                return false;
            }
        }
        let presence = record.body().clone();
        let until = now.saturating_add(presence.lease_ms);
        let owner = record.owner();
        let member =
            Member { peer, owner, hpke, presence, epoch_sequence: order, until, since_unix };
        self.members.insert(peer, member);
        true
    }

    /// Forgets everyone whose lease has ended.
    pub(crate) fn expire(&mut self, now: Millis) {
        self.members.retain(|_, member| member.until > now);
    }

    /// Forgets everyone: the mesh changed.
    pub(crate) fn clear(&mut self) {
        self.members.clear();
        self.speeds.clear();
    }

    /// A member whose presence holds.
    pub(crate) fn member(&self, now: Millis, peer: &PeerId) -> Option<&Member> {
        self.members.get(peer).filter(|member| member.until > now)
    }

    /// All members whose presence holds, by key.
    pub(crate) fn members(&self, now: Millis) -> impl Iterator<Item = &Member> {
        self.members.values().filter(move |member| member.until > now)
    }

    pub(crate) fn connected(&mut self, peer: PeerId, addr: String) {
        self.connected.insert(peer, addr);
    }

    pub(crate) fn disconnected(&mut self, peer: &PeerId) {
        self.connected.remove(peer);
    }

    pub(crate) fn is_connected(&self, peer: &PeerId) -> bool {
        self.connected.contains_key(peer)
    }

    /// Peers with a connection, members or not.
    pub(crate) fn connections(&self) -> BTreeSet<PeerId> {
        self.connected.keys().copied().collect()
    }

    /// Whether the peer's connection comes from this machine's own network.
    pub(crate) fn is_near(&self, peer: &PeerId) -> bool {
        self.connected.get(peer).is_some_and(|addr| is_near(addr))
    }

    /// What was measured of a peer with a model.
    pub(crate) fn speed(&self, peer: &PeerId, model: &Hash) -> Option<Measured> {
        self.speeds.get(&(*peer, *model)).copied()
    }

    /// Learns from an answer, or from a failure: then the peer is left alone for a while, even
    /// if it is the only one.
    pub(crate) fn learn_speed(
        &mut self,
        peer: PeerId,
        model: Hash,
        update: impl FnOnce(Measured) -> Measured,
    ) {
        if self.speeds.len() >= SPEEDS_MAX && !self.speeds.contains_key(&(peer, model)) {
            return;
        }
        let speed = self.speeds.entry((peer, model)).or_default();
        *speed = update(*speed);
    }
}

/// Whether a multiaddress lies in a private, link-local or loopback range.
fn is_near(addr: &str) -> bool {
    let mut parts = addr.split('/').skip(1);
    let (Some(kind), Some(ip)) = (parts.next(), parts.next()) else { return false };
    match kind {
        "ip4" => ip
            .parse::<std::net::Ipv4Addr>()
            .is_ok_and(|ip| ip.is_loopback() || ip.is_private() || ip.is_link_local()),
        "ip6" => ip
            .parse::<std::net::Ipv6Addr>()
            .is_ok_and(|ip| ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
