//! Questions about a running node: the implementation of its contract.

use std::collections::BTreeMap;
use std::sync::Arc;

use commons_exchange::entry::{Entry, Side};
use commons_exchange::settle::Held;
use commons_port::BoxFuture;
use commons_port::engine::Origin;
use commons_port::journal::Table;
use commons_record::mesh::{MeshGenesis, NO_MESH};
use commons_record::settlement::Scope;
use commons_record::{Hash, Millis, RequestId};
use commons_route::Decision;

use crate::api::blobs::BlobsApi;
use crate::api::catalogue::CatalogueApi;
use crate::api::{
    AdapterToAdd, AdapterView, Answer, Ask, Counters, InviteView, JoinView, ModelView, NodeApi,
    Opening, PeerView, ReceiptView, Refusal, RefusalCode, Role, StatusView, WhyView,
};
use crate::ledger::LedgerError;
use crate::start::{Inner, Node};
use crate::tasks::lock;
use crate::{adapters, ask, candidates, catalogue, join, stock, target};

/// Receipts that one question returns at most.
const RECEIPTS_MAX: usize = 1_000;

/// Attempts and orders of one request.
const ATTEMPTS_MAX: usize = 16;

impl NodeApi for Node {
    fn ask(&self, request: Ask) -> BoxFuture<'static, Result<Answer, Refusal>> {
        Box::pin(ask::ask(self.inner.clone(), request))
    }

    fn models(&self) -> BoxFuture<'static, Vec<ModelView>> {
        let inner = self.inner.clone();
        Box::pin(async move { models(&inner) })
    }

    fn adapters(&self) -> BoxFuture<'static, Vec<AdapterView>> {
        let inner = self.inner.clone();
        Box::pin(async move { adapters::list(&inner) })
    }

    fn add_adapter(&self, add: AdapterToAdd) -> BoxFuture<'static, Result<AdapterView, Refusal>> {
        let inner = self.inner.clone();
        Box::pin(async move { adapters::add(&inner, add).await })
    }

    fn remove_adapter(&self, id: String) -> BoxFuture<'static, Result<AdapterView, Refusal>> {
        let inner = self.inner.clone();
        Box::pin(async move { adapters::remove(&inner, &id) })
    }

    fn catalogue(&self) -> Arc<dyn CatalogueApi> {
        Arc::new(catalogue::Handle::new(self.inner.clone()))
    }

    fn blobs(&self) -> Option<Arc<dyn BlobsApi>> {
        let stock = self.inner.stock.clone()?;
        Some(Arc::new(stock::Handle::new(self.inner.clone(), stock)))
    }

    fn status(&self) -> BoxFuture<'static, StatusView> {
        let inner = self.inner.clone();
        Box::pin(async move { status(&inner).await })
    }

    fn peers(&self) -> BoxFuture<'static, Vec<PeerView>> {
        let inner = self.inner.clone();
        Box::pin(async move { peers(&inner) })
    }

    fn invite(&self, uses: u32) -> BoxFuture<'static, Result<InviteView, Refusal>> {
        let inner = self.inner.clone();
        Box::pin(async move { join::invite(&inner, uses).await })
    }

    fn join(&self, ticket: String) -> BoxFuture<'static, Result<JoinView, Refusal>> {
        let inner = self.inner.clone();
        Box::pin(async move { join::join(&inner, &ticket).await })
    }

    fn receipts(&self, limit: usize) -> BoxFuture<'static, Result<Vec<ReceiptView>, Refusal>> {
        let inner = self.inner.clone();
        Box::pin(async move { receipts(&inner, limit.min(RECEIPTS_MAX)).await })
    }

    fn evidence(
        &self,
        id: String,
        opening: Opening,
    ) -> BoxFuture<'static, Result<Vec<u8>, Refusal>> {
        let inner = self.inner.clone();
        Box::pin(async move { evidence(&inner, &id, opening).await })
    }

    fn why(&self, id: String) -> BoxFuture<'static, Result<WhyView, Refusal>> {
        let inner = self.inner.clone();
        Box::pin(async move { why(&inner, &id).await })
    }

    fn counters(&self) -> Counters {
        let now = self.inner.ports.clock.now();
        let peers = lock(&self.inner.roster).members(now).count();
        self.inner.counters.snapshot(peers as u64)
    }
}

fn models(inner: &Inner) -> Vec<ModelView> {
    let (now, unix) = (inner.ports.clock.now(), inner.ports.clock.unix());
    let started = Millis(unix.0.saturating_sub(now.since(inner.started).0));
    let mut views = BTreeMap::new();
    for model in inner.ports.engine.models() {
        let view = ModelView {
            name: model.name,
            model: model.model,
            quantisation: model.quantisation,
            context_len: model.context_len,
            is_local: true,
            engine: match inner.ports.engine.origin(&model.model) {
                Origin::Node => None,
                Origin::Foreign { engine, .. } => Some(engine),
            },
            adapter: None,
            peers: Vec::new(),
            since_unix_ms: started,
        };
        views.insert((model.model, None), view);
    }
    for adapter in inner.ports.engine.adapters() {
        let Some(base) = views.get(&(adapter.model, None)) else { continue };
        let name = target::joined(&base.name, &adapter.name);
        let view = ModelView { name, adapter: Some(adapter.adapter), ..base.clone() };
        views.insert((adapter.model, Some(adapter.adapter)), view);
    }
    for member in lock(&inner.roster).members(now) {
        for model in &member.presence.models {
            let adapters = model.adapters.iter().map(Some);
            for adapter in std::iter::once(None).chain(adapters) {
                let hash = adapter.map(|it| it.adapter);
                let view = views.entry((model.model, hash)).or_insert_with(|| ModelView {
                    name: adapter.map_or_else(
                        || model.name.clone(),
                        |it| target::joined(&model.name, &it.name),
                    ),
                    model: model.model,
                    quantisation: model.quantisation.clone(),
                    context_len: model.context_len,
                    is_local: false,
                    engine: None,
                    adapter: hash,
                    peers: Vec::new(),
                    since_unix_ms: member.since_unix,
                });
                view.peers.push(member.peer);
            }
        }
    }
    let mut views: Vec<_> = views.into_values().collect();
    views.sort_by(|a, b| (&a.name, a.model, a.adapter).cmp(&(&b.name, b.model, b.adapter)));
    views
}

async fn status(inner: &Arc<Inner>) -> StatusView {
    let addrs = inner.ports.net.listen_addrs().await;
    let (place, now) = (inner.place(), inner.ports.clock.now());
    let owner = inner.keys.owner_id();
    StatusView {
        peer: inner.peer(),
        owner,
        version: inner.config.version.clone(),
        mesh: place.mesh(),
        mesh_name: place.genesis().body().name.clone(),
        is_authority: place.is_authority(&owner),
        addrs,
        join: lock(&inner.join).clone(),
        peer_count: lock(&inner.roster).members(now).count(),
        model_count: inner.ports.engine.models().len(),
        uptime_ms: now.since(inner.started),
    }
}

fn peers(inner: &Inner) -> Vec<PeerView> {
    let now = inner.ports.clock.now();
    let roster = lock(&inner.roster);
    let view = |member: &crate::roster::Member| {
        let mut models = member.presence.models.iter();
        let speed = models.find_map(|it| roster.speed(&member.peer, &it.model));
        let speed = speed.filter(|speed| speed.samples > 0);
        PeerView {
            peer: member.peer,
            owner: member.owner,
            is_connected: roster.is_connected(&member.peer),
            models: member.presence.models.iter().map(|it| it.name.clone()).collect(),
            lease_left_ms: member.until.since(now),
            first_token_ms: speed.map(|speed| speed.first_token),
            micro_tokens_per_s: speed.map(|speed| speed.micro_tokens_per_s),
        }
    };
    roster.members(now).map(view).collect()
}

fn failed(error: &LedgerError) -> Refusal {
    Refusal::new(RefusalCode::StorageFailed, format!("the records cannot be read: {error}"))
}

async fn receipts(inner: &Inner, limit: usize) -> Result<Vec<ReceiptView>, Refusal> {
    let settled = inner.ledger.entries(&[], |entry| entry.receipt.is_some()).await;
    let mut settled = settled.map_err(|error| failed(&error))?;
    settled.sort_by_key(|entry| std::cmp::Reverse((entry.opened_unix_ms, entry.order)));
    // A node that served itself has both sides; one line is enough.
    settled.dedup_by_key(|entry| entry.order);
    let mut views = Vec::new();
    for entry in settled.into_iter().take(limit) {
        let held = inner.ledger.held(entry.side, &entry.order).await;
        let held = held.map_err(|error| failed(&error))?;
        views.extend(held.as_ref().and_then(receipt_view));
    }
    Ok(views)
}

fn receipt_view(held: &Held) -> Option<ReceiptView> {
    let receipt = held.receipt.as_ref()?;
    let (entry, claim) = (&held.entry, receipt.body());
    let role = match (entry.scope, entry.side) {
        (Scope::Local, _) => Role::Both,
        (Scope::Mesh, Side::Requester) => Role::Requester,
        (Scope::Mesh, Side::Provider) => Role::Provider,
    };
    Some(ReceiptView {
        receipt: receipt.id(),
        order: entry.order,
        request: entry.request,
        role,
        counterparty: entry.counterparty,
        scope: entry.scope,
        model: claim.ran.model,
        usage: claim.usage,
        amount: claim.amount,
        acknowledged: claim.acknowledged,
        end: claim.end,
        stored_unix_ms: entry.opened_unix_ms,
    })
}

fn not_found(id: &str) -> Refusal {
    let id: String = id.chars().take(80).collect();
    let sentence = format!("no receipt, order or request {id:?} is known to this node");
    Refusal::new(RefusalCode::NotFound, sentence)
}

/// The entry that an id names: the requester's side if this node was both.
async fn find(inner: &Inner, id: &str) -> Result<Entry, Refusal> {
    let order = match id.parse::<RequestId>() {
        Ok(request) => last_order(inner, &request).await?,
        Err(_) => {
            let hash: Hash = id.parse().map_err(|_| not_found(id))?;
            order_of(inner, hash).await?
        }
    };
    let order = order.ok_or_else(|| not_found(id))?;
    let mut found = None;
    for side in [Side::Requester, Side::Provider] {
        let entry = inner.ledger.entry(side, &order).await.map_err(|error| failed(&error))?;
        // After a crash only one side of a local exchange may be settled: that one has the answer.
        if found.as_ref().is_none_or(|known: &Entry| known.receipt.is_none()) {
            found = entry.or(found);
        }
    }
    found.ok_or_else(|| not_found(id))
}

async fn last_order(inner: &Inner, request: &RequestId) -> Result<Option<Hash>, Refusal> {
    let prefix = request.as_bytes().to_vec();
    let rows = inner.ports.journal.scan(Table::Request, prefix, None, ATTEMPTS_MAX).await;
    let rows = rows.map_err(|error| failed(&error.into()))?;
    let last = rows.last().and_then(|(_, order)| order.as_slice().try_into().ok());
    Ok(last.map(Hash::from_bytes))
}

/// The order that a receipt is about; any other hash is taken for an order.
async fn order_of(inner: &Inner, id: Hash) -> Result<Option<Hash>, Refusal> {
    use commons_record::settlement::Receipt;
    use commons_record::{Record as _, Unverified};
    let envelope = inner.ledger.envelope(&id).await.map_err(|error| failed(&error))?;
    let Some(envelope) = envelope else { return Ok(None) };
    if envelope.kind != Receipt::TYPE {
        return Ok(Some(id));
    }
    let receipt = Unverified::<Receipt>::from_envelope(envelope);
    Ok(receipt.ok().map(|receipt| receipt.claimed().order))
}

async fn evidence(inner: &Inner, id: &str, opening: Opening) -> Result<Vec<u8>, Refusal> {
    let entry = find(inner, id).await?;
    let held = inner.ledger.held(entry.side, &entry.order).await;
    let held = held.map_err(|error| failed(&error))?.ok_or_else(|| not_found(id))?;
    let open = || {
        let sentence = "the exchange has no receipt yet; it will when the two nodes meet again";
        Refusal::new(RefusalCode::NotFound, sentence)
    };
    let mesh = held.order.mesh();
    let genesis = inner.ledger.record::<MeshGenesis>(NO_MESH, &mesh).await;
    let genesis = genesis.map_err(|error| failed(&error))?.ok_or_else(|| not_found(id))?;
    let evidence = held.evidence(&genesis, opening == Opening::Include);
    Ok(evidence.ok_or_else(open)?.encode())
}

async fn why(inner: &Inner, id: &str) -> Result<WhyView, Refusal> {
    let (request, receipt, counterparty) = match id.parse::<RequestId>() {
        // A request that was refused has a decision and no entry.
        Ok(request) => match find(inner, id).await {
            Ok(entry) => (request, entry.receipt, Some(entry.counterparty)),
            Err(refusal) if refusal.code == RefusalCode::NotFound => (request, None, None),
            Err(refusal) => return Err(refusal),
        },
        Err(_) => {
            let entry = find(inner, id).await?;
            (entry.request, entry.receipt, Some(entry.counterparty))
        }
    };
    let prefix = request.as_bytes().to_vec();
    let rows = inner.ports.journal.scan(Table::Decision, prefix, None, ATTEMPTS_MAX).await;
    let rows = rows.map_err(|error| failed(&error.into()))?;
    let decisions = rows.iter().filter_map(|(_, bytes)| Decision::decode(bytes).ok());
    let decisions: Vec<_> = decisions.map(|decision| candidates::view(&decision)).collect();
    let summary = match (decisions.last(), counterparty) {
        (None, None) => return Err(not_found(id)),
        (Some(last), _) => last.outcome.clone(),
        (None, Some(peer)) => format!("this node served the request for {peer}"),
    };
    Ok(WhyView { request, summary, decisions, receipt })
}
