//! Announcing this node, and learning of others.
//!
//! A node tells its presence to whoever it connects to (hello) and to the whole mesh (gossip):
//! at the start, when its models change, and often enough that its lease never ends while it
//! lives. A presence counts only if its owner's membership does (Rules M2 and N4).

use std::sync::Arc;

use commons_exchange::Standing;
use commons_port::journal::{Change, Table};
use commons_port::net::{Acceptance, Incoming, Path, PeerEvent, Validator};
use commons_record::envelope::{Expect, Unverified, Verified};
use commons_record::mesh::{
    PRESENCE_ADAPTERS_MAX, PRESENCE_ADDRS_MAX, PRESENCE_LEASE_MAX, PRESENCE_MODELS_MAX, Presence,
    PresentAdapter, PresentModel,
};
use commons_record::{Millis, PeerId};
use futures::StreamExt as _;
use serde_bytes::ByteBuf;

use crate::start::Inner;
use crate::tasks::{lock, within};
use crate::wire::{WireError, finish_clear, read_clear, write_clear};
use crate::{catalogue, settle};

/// Three announcements in a lease: two may be lost.
const ANNOUNCE_EVERY: Millis = Millis(PRESENCE_LEASE_MAX.0 / 3);

/// How often the engine is asked whether its models or adapters changed.
const LOOK_EVERY: Millis = Millis::from_secs(1);

/// A hello is one record each way.
const HELLO_MAX: Millis = Millis::from_secs(10);

/// Peers that are told directly when something changed; gossip tells the rest.
const TELL_MAX: usize = 32;

/// Members of the last run that are looked for at the start.
const REMEMBERED_MAX: usize = 256;

const PEER_PREFIX: &[u8] = b"peer/";

/// Announces and learns until the task is stopped.
pub(crate) async fn run(inner: Arc<Inner>) {
    let place = inner.place();
    let validator = validator(&inner);
    let mut gossip = inner.ports.net.subscribe(place.presence_topic(), validator);
    let mut events = inner.ports.net.peer_events();
    find_again(&inner).await;
    let (mut models, mut announce_at) = (None, Millis(0));
    loop {
        let now = inner.ports.clock.now();
        let engine = &inner.ports.engine;
        let held = Some((engine.models().len(), engine.adapters().len()));
        if models != held || now >= announce_at {
            models = held;
            announce_at = now.saturating_add(ANNOUNCE_EVERY);
            announce(&inner).await;
        }
        lock(&inner.roster).expire(now);
        let look = inner.ports.clock.sleep_until(now.saturating_add(LOOK_EVERY));
        tokio::select! {
            biased;
            () = look => {}
            Some(message) = gossip.next() => learn(&inner, &message),
            Some(event) = events.next() => heard_of(&inner, event),
        }
    }
}

/// Only what a member signed for its own lease travels on.
fn validator(inner: &Arc<Inner>) -> Validator {
    let inner = Arc::downgrade(inner);
    Arc::new(move |message: &[u8]| {
        let Some(inner) = inner.upgrade() else { return Acceptance::Ignore };
        match verify(&inner.standing(), message) {
            Some(_) => Acceptance::Accept,
            None => Acceptance::Reject,
        }
    })
}

fn verify(standing: &Standing, message: &[u8]) -> Option<Verified<Presence>> {
    let expect = Expect::arriving(standing.mesh(), standing.author.epoch);
    let record = Unverified::<Presence>::decode(message).ok()?.verify(&expect).ok()?;
    standing.check_membership(&record.body().membership, record.owner()).ok()?;
    Some(record)
}

fn learn(inner: &Arc<Inner>, message: &[u8]) {
    let Some(record) = verify(&inner.standing(), message) else { return };
    let peer = record.node();
    if peer == inner.peer() {
        return;
    }
    let (now, unix) = (inner.ports.clock.now(), inner.ports.clock.unix());
    let (is_new, has_moved) = {
        let mut roster = lock(&inner.roster);
        let known = roster.member(now, &peer).map(|member| &member.presence.addrs);
        let has_moved = known != Some(&record.body().addrs);
        (roster.learn(now, unix, &record), has_moved)
    };
    if !is_new {
        return;
    }
    if has_moved {
        inner.tasks.start("remember peer", Box::pin(remember(inner.clone(), record.clone())));
    }
    tracing::debug!(%peer, models = record.body().models.len(), "a member is present");
    let addrs = record.body().addrs.clone();
    if let Err(error) = inner.ports.net.add_addrs(peer, addrs) {
        tracing::debug!(%peer, %error, "a member's addresses are not usable");
    }
}

/// Keeps where a member is, so that two nodes find each other again after a restart.
async fn remember(inner: Arc<Inner>, record: Verified<Presence>) {
    let change = Change::put(Table::State, peer_key(&record.node()), record.encode());
    // If it fails, the peer is found by gossip or by its own dialling.
    let _ = inner.commit(vec![change]).await;
}

fn peer_key(peer: &PeerId) -> Vec<u8> {
    [PEER_PREFIX, peer.as_bytes()].concat()
}

/// Looks for the members of the last run where they were then. Their leases have ended: they
/// count again once they say hello.
async fn find_again(inner: &Arc<Inner>) {
    let stored =
        inner.ports.journal.scan(Table::State, PEER_PREFIX.to_vec(), None, REMEMBERED_MAX).await;
    let expect = Expect::mesh(inner.place().mesh());
    for (_, bytes) in stored.unwrap_or_default() {
        let record = Unverified::<Presence>::decode(&bytes).and_then(|it| it.verify(&expect));
        let Ok(record) = record else { continue }; // Of another mesh, or of another version.
        if let Err(error) = inner.ports.net.add_addrs(record.node(), record.body().addrs.clone()) {
            tracing::debug!(%error, "a remembered address is not usable");
        }
    }
}

fn heard_of(inner: &Arc<Inner>, event: PeerEvent) {
    match event {
        PeerEvent::Connected { peer, addr } => {
            let now = inner.ports.clock.now();
            let is_known = {
                let mut roster = lock(&inner.roster);
                roster.connected(peer, addr);
                roster.member(now, &peer).is_some()
            };
            // One side begins, so that the two do not talk past each other. Whoever knows nothing
            // of the other begins as well: after a restart the other side may still hold the
            // dead connection, and see no new one.
            if inner.peer() < peer || !is_known {
                let task = hello(inner.clone(), peer);
                inner.tasks.start("hello", Box::pin(task));
            }
        }
        PeerEvent::Disconnected { peer } => lock(&inner.roster).disconnected(&peer),
    }
}

/// Tells everyone: neighbours directly, the rest by gossip.
async fn announce(inner: &Arc<Inner>) {
    let Some(record) = own_presence(inner).await else { return };
    let topic = inner.place().presence_topic();
    if let Err(error) = inner.ports.net.publish(topic, record).await {
        // Alone, or not yet meshed: hellos reach whoever is connected.
        tracing::debug!(%error, "the presence was not gossiped");
    }
    let connected = lock(&inner.roster).connections();
    for peer in connected.into_iter().take(TELL_MAX) {
        inner.tasks.start("hello", Box::pin(hello(inner.clone(), peer)));
    }
}

async fn own_presence(inner: &Arc<Inner>) -> Option<Vec<u8>> {
    let addrs = inner.ports.net.listen_addrs().await;
    let models = inner.ports.engine.models().into_iter().filter(|_| inner.config.share);
    let models = models.filter(|it| !it.class.is_foreign()); // Rule E15.
    let mut room = PRESENCE_ADAPTERS_MAX;
    let adapters = inner.ports.engine.adapters();
    let models = models.map(|model| PresentModel {
        adapters: {
            let own = adapters.iter().filter(|it| it.model == model.model).take(room);
            let own = own.map(|it| PresentAdapter { adapter: it.adapter, name: it.name.clone() });
            let own: Vec<_> = own.collect();
            room -= own.len();
            own
        },
        model: model.model,
        name: model.name,
        quantisation: model.quantisation,
        context_len: model.context_len,
    });
    let standing = inner.standing();
    let body = Presence {
        addrs: addrs.into_iter().take(PRESENCE_ADDRS_MAX).collect(),
        models: models.take(PRESENCE_MODELS_MAX).collect(),
        capability: inner.config.capability.clone(),
        lease_ms: PRESENCE_LEASE_MAX,
        membership: ByteBuf::from(standing.membership.clone()),
    };
    let sequence = match inner.ledger.sequences(1).await {
        Ok(mut range) => range.take()?,
        Err(error) => {
            tracing::error!(%error, "no sequence number for a presence");
            return None;
        }
    };
    Some(standing.author.sign(sequence, body).encode())
}

/// Exchanges presences with a peer, and settles what is owed between the two.
pub(crate) async fn hello(inner: Arc<Inner>, peer: PeerId) {
    let Some(own) = own_presence(&inner).await else { return };
    let protocols = inner.place().protocol("hello/1");
    let talk = async {
        let opened = inner.ports.net.open(peer, protocols, Path::Direct).await.ok()?;
        let mut stream = opened.stream;
        write_clear(&mut stream, &own).await.ok()?;
        read_clear(&mut stream).await.ok()
    };
    if let Some(theirs) = within(&*inner.ports.clock, HELLO_MAX, talk).await.flatten() {
        greeted(&inner, peer, &theirs).await;
    } else {
        // It may be no member of this mesh, which is its right.
        tracing::debug!(%peer, "no presence was exchanged");
    }
}

/// Answers hellos until the task is stopped.
pub(crate) async fn accept_hellos(inner: Arc<Inner>) {
    let protocols = inner.place().protocol("hello/1");
    let mut incoming = inner.ports.net.accept(protocols);
    while let Some(incoming) = incoming.next().await {
        let task = answer_hello(inner.clone(), incoming);
        inner.tasks.start("hello", Box::pin(task));
    }
}

async fn answer_hello(inner: Arc<Inner>, incoming: Incoming) {
    let (peer, mut stream) = (incoming.peer, incoming.stream);
    let Some(_slot) = inner.talks.take(peer) else { return };
    let talk = async {
        let theirs = read_clear(&mut stream).await?;
        if let Some(own) = own_presence(&inner).await {
            finish_clear(&mut stream, &own).await?;
        }
        Ok::<_, WireError>(theirs)
    };
    match within(&*inner.ports.clock, HELLO_MAX, talk).await {
        Some(Ok(theirs)) => greeted(&inner, peer, &theirs).await,
        Some(Err(error)) => tracing::debug!(%peer, %error, "a hello broke off"),
        None => tracing::debug!(%peer, "a hello took too long"),
    }
}

async fn greeted(inner: &Arc<Inner>, peer: PeerId, theirs: &[u8]) {
    learn(inner, theirs);
    let now = inner.ports.clock.now();
    let is_member = lock(&inner.roster).member(now, &peer).is_some();
    if is_member {
        let task = catalogue::sync::ask(inner.clone(), peer);
        inner.tasks.start("catalogue sync", Box::pin(task));
        settle::offer_all(inner, peer).await;
    }
}
