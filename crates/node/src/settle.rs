//! Settling what a crash or a lost connection left open.
//!
//! What a peer has not acknowledged waits in the outbox, is offered when the two meet and then
//! now and again (Rule E14). At the start a provider's open exchanges are closed after a grace
//! time, and a requester's last vouchers go into the outbox.

use std::sync::Arc;

use commons_exchange::entry::{Entry, Side, outbox_put, outbox_remove};
use commons_exchange::message::{Offer, OfferAnswer, WireCode, WireRefusal};
use commons_exchange::settle::{Held, RECOVERY_GRACE};
use commons_port::journal::Table;
use commons_port::net::{Incoming, Path};
use commons_port::time::draw;
use commons_record::settlement::{Scope, Voucher};
use commons_record::{Hash, Millis, PeerId};
use futures::StreamExt as _;
use serde_bytes::ByteBuf;

use crate::ledger::LedgerError;
use crate::start::Inner;
use crate::tasks::{lock, within};
use crate::wire::{self, Link};

/// How often waiting records are offered to peers that are connected anyway.
const OFFER_EVERY: Millis = Millis::from_secs(30);

/// One offer and its answer: a write on the other side.
const OFFER_MAX: Millis = Millis::from_secs(10);

/// Records that wait for one peer and are offered in one stream.
const OFFERS_MAX: usize = 1_024;

/// An offer about an exchange that is still being served waits for its end.
const LIVE_MAX: Millis = Millis::from_secs(10);
const LIVE_STEP: Millis = Millis(50);

/// Offers what waits, now and again, until the task is stopped.
pub(crate) async fn run(inner: Arc<Inner>) {
    loop {
        let at = inner.ports.clock.now().saturating_add(OFFER_EVERY);
        inner.ports.clock.sleep_until(at).await;
        close_unsettled(&inner).await;
        let connected = lock(&inner.roster).connections();
        for peer in connected {
            offer_all(&inner, peer).await;
        }
    }
}

/// Writes receipts that could not be stored when they were due.
async fn close_unsettled(inner: &Arc<Inner>) {
    let orders = lock(&inner.unsettled).clone();
    for order in orders {
        match close(inner, &order).await {
            Ok(()) => {
                lock(&inner.unsettled).remove(&order);
            }
            Err(error) => {
                tracing::warn!(%order, %error, "a receipt still cannot be stored");
                return;
            }
        }
    }
}

/// Looks through what a previous run left, before anything new begins.
pub(crate) async fn recover(inner: &Arc<Inner>) -> Result<(), LedgerError> {
    let open = inner.ledger.entries(&[], |entry| entry.receipt.is_none()).await?;
    let mut changes = Vec::new();
    let mut to_close = Vec::new();
    for entry in open {
        match entry.side {
            Side::Provider => to_close.push(entry),
            Side::Requester => changes.extend(owed(&entry)),
        }
    }
    if !changes.is_empty() {
        inner.commit(changes).await?;
    }
    if !to_close.is_empty() {
        let task = close_later(inner.clone(), to_close);
        inner.tasks.start("recovery", Box::pin(task));
    }
    Ok(())
}

/// The last voucher of an exchange that broke off is offered again.
fn owed(entry: &Entry) -> Option<commons_port::journal::Change> {
    let voucher = entry.voucher.filter(|_| entry.scope == Scope::Mesh)?;
    Some(outbox_put(&entry.counterparty, &voucher))
}

async fn close_later(inner: Arc<Inner>, entries: Vec<Entry>) {
    // With oneself there is nobody to wait for.
    let (local, mesh): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| entry.scope == Scope::Local);
    close_all(&inner, local).await;
    let at = inner.ports.clock.now().saturating_add(RECOVERY_GRACE);
    inner.ports.clock.sleep_until(at).await;
    close_all(&inner, mesh).await;
}

async fn close_all(inner: &Arc<Inner>, entries: Vec<Entry>) {
    for entry in entries {
        if let Err(error) = close(inner, &entry.order).await {
            tracing::error!(order = %entry.order, %error, "an exchange could not be closed");
        }
    }
}

/// Writes the receipt of an exchange that a crash left open; nothing if it is settled.
async fn close(inner: &Arc<Inner>, order: &Hash) -> Result<(), LedgerError> {
    let peer = inner.peer();
    let Some(entry) = inner.ledger.entry(Side::Provider, order).await? else { return Ok(()) };
    let (_turn, last) = inner.ledger.pair_turn(&peer, &entry.counterparty).await?;
    // Read under the turn: another task may have settled it meanwhile.
    let Some(mut held) = inner.ledger.held(Side::Provider, order).await? else { return Ok(()) };
    let amount = held.voucher.as_ref().map(|it| it.body().amount).unwrap_or_default();
    let Some(pair) = last.next(amount) else { return Ok(()) };
    let mut sequences = inner.ledger.sequences(1).await?;
    let standing = inner.standing();
    if let Some((receipt, changes)) = held.close(&standing, &mut sequences, pair) {
        inner.commit(changes).await?;
        tracing::info!(receipt = %receipt.id(), "an exchange that was left open is settled");
    }
    Ok(())
}

/// Offers everything that waits for a peer.
pub(crate) async fn offer_all(inner: &Arc<Inner>, peer: PeerId) {
    let prefix = peer.as_bytes().to_vec();
    let waiting = inner.ports.journal.scan(Table::Outbox, prefix, None, OFFERS_MAX).await;
    let waiting = match waiting {
        Ok(waiting) if waiting.is_empty() => return,
        Ok(waiting) => waiting,
        Err(error) => {
            tracing::error!(%error, "the outbox could not be read");
            return;
        }
    };
    let now = inner.ports.clock.now();
    let Some(hpke) = lock(&inner.roster).member(now, &peer).map(|member| member.hpke) else {
        return; // It will say hello when it is back.
    };
    for (key, _) in waiting {
        let id = key.get(32..).and_then(|id| id.try_into().ok()).map(Hash::from_bytes);
        let Some(id) = id else { continue };
        let offering = offer(inner, peer, &hpke, &id);
        match within(&*inner.ports.clock, OFFER_MAX, offering).await.flatten() {
            Some(answer) => acknowledged(inner, peer, &id, &answer).await,
            None => return, // Not now; it goes on waiting.
        }
    }
}

async fn offer(
    inner: &Arc<Inner>,
    peer: PeerId,
    hpke: &commons_record::HpkeKey,
    id: &Hash,
) -> Option<OfferAnswer> {
    let envelope = inner.ledger.envelope(id).await.ok()??;
    let place = inner.place();
    let opened = inner.ports.net.open(peer, place.protocol("settle/1"), Path::Direct).await.ok()?;
    let entropy = draw(&*inner.ports.entropy);
    let link: Link<Offer, OfferAnswer> =
        wire::connect(&inner.tasks, opened.stream, entropy, &place.mesh(), hpke).await.ok()?;
    let Link { tx, mut rx, .. } = link;
    tx.send(Offer { record: ByteBuf::from(envelope.encode()) }).await.ok()?;
    rx.recv().await?.ok()
}

async fn acknowledged(inner: &Arc<Inner>, peer: PeerId, id: &Hash, answer: &OfferAnswer) {
    if let OfferAnswer::Refused(refusal) = answer {
        if matches!(refusal.code, WireCode::StorageFailed | WireCode::Overloaded) {
            return; // Not now: it goes on waiting.
        }
        // The record stays in the journal; only the offering ends.
        tracing::warn!(%peer, record = %id, reason = %refusal.message, "an offer was refused");
    }
    // If this fails, the record is offered once more, which does no harm.
    let _ = inner.commit(vec![outbox_remove(&peer, id)]).await;
}

/// Takes offers until the task is stopped.
pub(crate) async fn accept_offers(inner: Arc<Inner>) {
    let protocols = inner.place().protocol("settle/1");
    let mut incoming = inner.ports.net.accept(protocols);
    while let Some(incoming) = incoming.next().await {
        let task = answer_offer(inner.clone(), incoming);
        inner.tasks.start("offer", Box::pin(task));
    }
}

async fn answer_offer(inner: Arc<Inner>, incoming: Incoming) {
    let peer = incoming.peer;
    let Some(_slot) = inner.talks.take(peer) else { return };
    let mesh = inner.place().mesh();
    let answering = Box::pin(async {
        let link: Link<OfferAnswer, Offer> =
            wire::accept(&inner.tasks, incoming.stream, &inner.keys.hpke, &mesh).await.ok()?;
        let Link { tx, mut rx, flushed } = link;
        let offer = rx.recv().await?.ok()?;
        let answer = match take(&inner, peer, &offer.record).await {
            Ok(()) => OfferAnswer::Stored,
            Err(refusal) => OfferAnswer::Refused(refusal),
        };
        tx.send(answer).await.ok()?;
        drop(tx);
        flushed.await.ok()
    });
    let limit = LIVE_MAX.saturating_add(OFFER_MAX);
    if within(&*inner.ports.clock, limit, answering).await.flatten().is_none() {
        tracing::debug!(%peer, "an offer was not answered");
    }
}

fn failed(error: &LedgerError) -> WireRefusal {
    tracing::error!(%error, "the journal failed");
    WireRefusal::new(WireCode::StorageFailed, "this node cannot use its journal now")
}

async fn take(inner: &Arc<Inner>, peer: PeerId, record: &[u8]) -> Result<(), WireRefusal> {
    let (side, order) = Held::order_of(record)?;
    if !is_idle(inner, side, &order).await {
        let sentence = "the exchange is still under way; offer it again later";
        return Err(WireRefusal::new(WireCode::Overloaded, sentence));
    }
    let unknown = || WireRefusal::new(WireCode::InvalidOrder, "no such exchange with you is known");
    let held = inner.ledger.held(side, &order).await.map_err(|error| failed(&error))?;
    let mut held = held.filter(|held| held.entry.counterparty == peer).ok_or_else(unknown)?;
    let mesh = held.order.mesh();
    let changes = match side {
        Side::Provider => held.take_voucher(mesh, record)?,
        Side::Requester => {
            let named = match Held::voucher_named_by(record) {
                Some(id) => inner.ledger.record::<Voucher>(mesh, &id).await,
                None => Ok(None),
            };
            let named = named.map_err(|error| failed(&error))?;
            held.take_receipt(mesh, record, named.as_ref())?
        }
    };
    if !changes.is_empty() {
        inner.commit(changes).await.map_err(|error| failed(&error.into()))?;
    }
    if side == Side::Provider && held.is_open() {
        close(inner, &order).await.map_err(|error| failed(&error))?;
        let next = offer_soon(inner.clone(), peer);
        inner.tasks.start("offer receipt", Box::pin(next));
    }
    Ok(())
}

/// The new receipt goes back at once.
async fn offer_soon(inner: Arc<Inner>, peer: PeerId) {
    offer_all(&inner, peer).await;
}

/// Waits for an exchange that is under way to end; false if it takes too long.
async fn is_idle(inner: &Arc<Inner>, side: Side, order: &Hash) -> bool {
    let limit = inner.ports.clock.now().saturating_add(LIVE_MAX);
    while inner.live.contains(side, order) {
        let at = inner.ports.clock.now().saturating_add(LIVE_STEP);
        if at > limit {
            return false;
        }
        inner.ports.clock.sleep_until(at).await;
    }
    true
}
