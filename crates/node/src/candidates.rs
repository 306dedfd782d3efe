//! Who could serve a request: gathers what is known and lets `route` decide.
//!
//! A model is named by the stem of its file or by its hash. Load is asked of candidates
//! directly, and only when this node cannot serve at once itself.

use std::sync::Arc;

use commons_exchange::message::{LoadAnswer, LoadQuestion};
use commons_port::engine::{Origin, Reach};
use commons_port::journal::{Change, Table};
use commons_port::net::Path;
use commons_port::time::draw;
use commons_record::mesh::{PRESENCE_LEASE_MAX, PresentAdapter};
use commons_record::order::COMPLETION_TOKENS_MAX;
use commons_record::{Hash, Millis, PeerId, RequestId};
use commons_route::{
    Candidate, Decision, HeldModel, Load, Outcome, Place, Policy, RefuseCode, Request, Verdict,
    decide,
};
use futures::future::join_all;

use crate::api::{Ask, DecisionView, Refusal, RefusalCode};
use crate::start::Inner;
use crate::target::Target;
use crate::tasks::{lock, within};
use crate::wire::{self, Link};

/// A peer that does not say how busy it is within this is taken for idle: its measured speed
/// speaks for it.
const LOAD_MAX: Millis = Millis(400);

/// What this node's own engines have needs no announcement to be known.
const OWN_LEASE: Millis = PRESENCE_LEASE_MAX;

/// Peers that are asked how busy they are.
const PROBES_MAX: usize = 8;

/// A decision, as the request goes on with it.
pub(crate) struct Routed {
    pub(crate) outcome: Result<PeerId, Refusal>,
    pub(crate) decision: Hash,
    /// Stores the decision.
    pub(crate) changes: Vec<Change>,
}

/// Decides who serves one attempt at a request.
pub(crate) async fn route(
    inner: &Arc<Inner>,
    ask: &Ask,
    target: &Target,
    request: RequestId,
    attempt: u32,
    excluded: &[PeerId],
) -> Routed {
    let question = Request {
        request,
        attempt,
        model: target.model,
        adapter: target.adapter,
        context_needed: ask.completion_tokens_max.unwrap_or(1),
        completion_tokens_max: ask.completion_tokens_max.unwrap_or(COMPLETION_TOKENS_MAX),
        class: ask.class,
        excluded: excluded.to_vec(),
    };
    let candidates = gather(inner, &question).await;
    let now = inner.ports.clock.now();
    // Only an engine that this node's owner named lies outside the mesh: naming it was the yes.
    let is_cloud_allowed = candidates.iter().any(|it| it.place == Place::Cloud);
    let policy = Policy { is_cloud_allowed, ..Policy::DEFAULT };
    let decision = decide(&policy, now, &question, &candidates);
    let key = [request.as_bytes().as_slice(), &attempt.to_be_bytes()].concat();
    let outcome = match decision.outcome {
        Outcome::Serve { peer, .. } => Ok(peer),
        Outcome::Refuse { code } => Err(refusal(code, &target.name)),
    };
    Routed {
        outcome,
        decision: decision.hash(),
        changes: vec![Change::put(Table::Decision, key, decision.encode())],
    }
}

fn refusal(code: RefuseCode, model: &str) -> Refusal {
    let told = match code {
        RefuseCode::UnknownModel => RefusalCode::ModelNotFound,
        RefuseCode::UnknownAdapter => RefusalCode::AdapterNotFound,
        RefuseCode::ContextTooShort => RefusalCode::ContextLengthExceeded,
        RefuseCode::PrivacyClass | RefuseCode::CloudNotAllowed => RefusalCode::PrivacyClass,
        RefuseCode::Overloaded => RefusalCode::Overloaded,
        // The enum may grow; whatever else it says, nobody is available.
        _ => RefusalCode::Unavailable,
    };
    let sentence = format!("{} (model {model:?})", code.sentence());
    let mut refusal = Refusal::new(told, sentence);
    if matches!(code, RefuseCode::Overloaded | RefuseCode::CoolingDown) {
        refusal.retry_after_ms = Some(Policy::DEFAULT.cooldown_first);
    }
    refusal
}

async fn gather(inner: &Arc<Inner>, question: &Request) -> Vec<Candidate> {
    let mut candidates: Vec<_> = own(inner, question).into_iter().collect();
    let is_free = |it: &Candidate| it.load.is_none_or(Load::has_free_slot);
    let is_free = candidates.iter().any(is_free);
    let mut others = others(inner, question);
    let is_asked = |it: &Candidate| it.place.is_within(question.class);
    if !is_free {
        let asked = others.iter_mut().filter(|it| is_asked(it)).take(PROBES_MAX);
        let probes = asked.map(|candidate| async {
            candidate.load = ask_load(inner, candidate.peer, question.model).await;
        });
        join_all(probes).await;
    }
    candidates.append(&mut others);
    candidates
}

fn own(inner: &Inner, question: &Request) -> Option<Candidate> {
    let engine = &inner.ports.engine;
    let model = engine.models().into_iter().find(|it| it.model == question.model)?;
    let load = engine.load(&model.model);
    let peer = inner.peer();
    let place = match engine.origin(&model.model) {
        Origin::Node | Origin::Foreign { reach: Reach::Machine, .. } => Place::Local,
        Origin::Foreign { reach: Reach::Lan, .. } => Place::Lan,
        Origin::Foreign { reach: Reach::Internet, .. } => Place::Cloud,
    };
    Some(Candidate {
        place,
        peer,
        holds: Some(HeldModel {
            model: model.model,
            adapter: question.adapter.filter(|it| engine.adapter(&model.model, it).is_some()),
            quantisation: model.quantisation,
            context_len: model.context_len,
        }),
        lease_left: if place.has_lease() { OWN_LEASE } else { Millis(0) },
        load: load.map(|it| Load { running: it.running, queued: it.queued, slots: it.slots }),
        measured: lock(&inner.roster).speed(&peer, &question.model),
    })
}

fn others(inner: &Inner, question: &Request) -> Vec<Candidate> {
    let now = inner.ports.clock.now();
    let roster = lock(&inner.roster);
    let has = |held: &[PresentAdapter], it: &Hash| held.iter().any(|held| held.adapter == *it);
    let candidate = |member: &crate::roster::Member| {
        let held = member.presence.models.iter().find(|it| it.model == question.model)?;
        Some(Candidate {
            place: if roster.is_near(&member.peer) { Place::Lan } else { Place::Mesh },
            peer: member.peer,
            holds: Some(HeldModel {
                model: held.model,
                adapter: question.adapter.filter(|it| has(&held.adapters, it)),
                quantisation: held.quantisation.clone(),
                context_len: held.context_len,
            }),
            lease_left: member.until.since(now),
            load: None,
            measured: roster.speed(&member.peer, &question.model),
        })
    };
    roster.members(now).filter_map(candidate).collect()
}

async fn ask_load(inner: &Arc<Inner>, peer: PeerId, model: Hash) -> Option<Load> {
    let asking = async {
        let now = inner.ports.clock.now();
        let hpke = lock(&inner.roster).member(now, &peer).map(|member| member.hpke)?;
        let place = inner.place();
        let protocols = place.protocol("load/1");
        let opened = inner.ports.net.open(peer, protocols, Path::Direct).await.ok()?;
        let entropy = draw(&*inner.ports.entropy);
        let link: Link<LoadQuestion, LoadAnswer> =
            wire::connect(&inner.tasks, opened.stream, entropy, &place.mesh(), &hpke).await.ok()?;
        let Link { tx, mut rx, .. } = link;
        tx.send(LoadQuestion { model }).await.ok()?;
        rx.recv().await?.ok()?.load
    };
    let load = within(&*inner.ports.clock, LOAD_MAX, asking).await.flatten()?;
    Some(Load { running: load.running, queued: load.queued, slots: load.slots })
}

/// A decision in words, and whether a replay reproduces it (Rule P3).
pub(crate) fn view(decision: &Decision) -> DecisionView {
    let outcome = match decision.outcome {
        Outcome::Serve { peer, place } => {
            format!("{} serves it ({})", peer, place_name(place))
        }
        Outcome::Refuse { code } => format!("refused, {}: {}", code.code(), code.sentence()),
    };
    let verdict = |verdict: &Verdict| match verdict {
        Verdict::Rejected { peer, reason } => {
            format!("{peer} was ruled out, {}: {}", reason.code(), reason.sentence())
        }
        Verdict::Scored { peer, cost } => {
            format!("{peer} could serve within an estimated {}", cost.total())
        }
    };
    DecisionView {
        decision: decision.hash(),
        attempt: decision.request.attempt,
        is_reproduced: decision.replay().is_ok(),
        outcome,
        candidates: decision.verdicts.iter().map(verdict).collect(),
    }
}

fn place_name(place: Place) -> &'static str {
    match place {
        Place::Local => "this node",
        Place::Lan => "on the local network",
        Place::Mesh => "in the mesh",
        Place::Cloud => "outside the mesh",
    }
}
