//! Questions about what is published.

use commons_record::Hash;
use commons_swarm::catalogue::{
    By, Catalogue, Listed, NameRef, NotKept, Parent, ResolveError, Resolved,
};
use commons_swarm::policy::{Act, Denial, Policy, Subject};

use super::publish::{name_ref, storage};
use super::{Held, turn};
use crate::api::catalogue::{
    DenylistView, Judged, LineageParent, LineageStep, LineageView, NamedBy, PinView, ReleaseView,
    Search,
};
use crate::api::{Refusal, RefusalCode};
use crate::start::Inner;

/// Releases that a search returns if nobody says how many.
const FOUND_DEFAULT: usize = 50;

/// Releases that a search returns at most.
const FOUND_MAX: usize = 500;

async fn held(inner: &Inner) -> Result<tokio::sync::MutexGuard<'_, Held>, Refusal> {
    turn(inner).await.map_err(|error| storage(&error))
}

pub(super) async fn search(inner: &Inner, search: &Search) -> Result<Vec<ReleaseView>, Refusal> {
    let held = held(inner).await?;
    let limit = search.limit.unwrap_or(FOUND_DEFAULT).min(FOUND_MAX);
    let found = held.catalogue.search(&search.words, search.kind, limit);
    Ok(found.into_iter().map(|it| view(&held.catalogue, it, None)).collect())
}

pub(super) async fn resolve(inner: &Inner, name: &str) -> Result<ReleaseView, Refusal> {
    let name = name_ref(name)?;
    let held = held(inner).await?;
    let Resolved { listed, by } = held.catalogue.resolve(&name).map_err(|it| unresolved(&it))?;
    Ok(view(&held.catalogue, listed, Some(by)))
}

pub(super) async fn show(inner: &Inner, what: &str) -> Result<ReleaseView, Refusal> {
    let held = held(inner).await?;
    let (listed, by) = find(&held.catalogue, what)?;
    Ok(view(&held.catalogue, listed, by))
}

/// A release by its record id, or by a name that means it.
fn find<'a>(catalogue: &'a Catalogue, what: &str) -> Result<(&'a Listed, Option<By>), Refusal> {
    if let Ok(id) = what.parse::<Hash>() {
        let listed = catalogue.release(&id).ok_or_else(|| unknown(&id))?;
        return Ok((listed, None));
    }
    let name: NameRef = name_ref(what)?;
    let Resolved { listed, by } = catalogue.resolve(&name).map_err(|it| unresolved(&it))?;
    Ok((listed, Some(by)))
}

fn unknown(id: &Hash) -> Refusal {
    let sentence = format!("release {id} is not known here; `commons search` lists what is");
    Refusal::new(RefusalCode::NotFound, sentence)
}

fn unresolved(error: &ResolveError) -> Refusal {
    let code = match error {
        ResolveError::NotHere { .. } => RefusalCode::Unavailable,
        _ => RefusalCode::NotFound,
    };
    Refusal::new(code, error.to_string())
}

fn view(catalogue: &Catalogue, listed: &Listed, by: Option<By>) -> ReleaseView {
    ReleaseView {
        release: listed.id,
        commit: listed.commit(),
        owner: listed.owner,
        node: listed.node,
        is_named: catalogue.is_named(&listed.id),
        by: by.map(|by| match by {
            By::Pin => NamedBy::Pin,
            By::Authority(owner) => NamedBy::Authority(owner),
            By::Predecessor(of) => NamedBy::Predecessor(of),
            By::Commit => NamedBy::Commit,
        }),
        revoked: catalogue.revoked(listed).as_ref().map(NotKept::to_string),
        size: listed.release.size().unwrap_or(u64::MAX),
        body: listed.release.clone(),
    }
}

pub(super) async fn lineage(inner: &Inner, what: &str) -> Result<LineageView, Refusal> {
    let held = held(inner).await?;
    let catalogue = &held.catalogue;
    let (root, by) = find(catalogue, what)?;
    let lineage = catalogue.lineage(&root.id).ok_or_else(|| unknown(&root.id))?;
    let parent = |it: &Listed| LineageParent {
        release: it.id,
        name: it.release.name.clone(),
        version: it.release.version.clone(),
        owner: it.owner,
        licence: it.release.licence.clone(),
    };
    let steps = lineage.steps.iter().map(|step| LineageStep {
        depth: step.depth,
        child: step.child.id,
        by: step.by(),
        derivation: step.derivation.clone(),
        parent: match step.parent {
            Parent::Known(it) | Parent::Again(it) => Some(parent(it)),
            Parent::Unknown => None,
        },
        is_again: matches!(step.parent, Parent::Again(_)),
    });
    let steps = steps.collect();
    Ok(LineageView { root: view(catalogue, root, by), steps, is_cut: lineage.is_cut })
}

pub(super) async fn pins(inner: &Inner) -> Result<Vec<PinView>, Refusal> {
    let held = held(inner).await?;
    let pins = held.catalogue.pins().map(|(name, version, release)| {
        let name = match version {
            Some(version) => format!("{name}@{version}"),
            None => name.to_string(),
        };
        PinView { name, release: Some(release) }
    });
    Ok(pins.collect())
}

pub(super) async fn denylists(inner: &Inner) -> Result<Vec<DenylistView>, Refusal> {
    let held = held(inner).await?;
    let lists = held.catalogue.denylists().map(|(author, list, is_subscribed)| DenylistView {
        author,
        title: list.title.clone(),
        serial: list.serial,
        entry_count: list.entries.len(),
        is_subscribed,
    });
    Ok(lists.collect())
}

pub(super) async fn policy(inner: &Inner) -> Result<Policy, Refusal> {
    Ok(held(inner).await?.policy.clone())
}

pub(super) async fn may(inner: &Inner, act: Act, what: Judged) -> Result<(), Refusal> {
    let held = held(inner).await?;
    let judged = match what {
        Judged::Release(id) => {
            let listed = held.catalogue.release(&id).ok_or_else(|| unknown(&id))?;
            judge(&held, act, listed, None)
        }
        Judged::Blob { blob, size } => judge_blob(&held, act, blob, size),
    };
    judged.map_err(|denial| Refusal::new(RefusalCode::Denied, denial.to_string()))
}

/// Judges a release under its own name and the one that it was asked for by.
pub(super) fn judge(
    held: &Held,
    act: Act,
    listed: &Listed,
    asked: Option<&NameRef>,
) -> Result<(), Denial> {
    let blobs: Vec<Hash> = listed.release.files.iter().map(|it| it.blob).collect();
    let own = &listed.release.name;
    let names = [own, asked.map_or(own, |it| &it.name)];
    let subject = Subject::of_release(listed.id, &listed.release, &names, &blobs);
    held.policy.judge(act, &subject, held.catalogue.subscribed())
}

/// A file is allowed if a release that counts and holds it is.
pub(crate) fn judge_blob(held: &Held, act: Act, blob: Hash, size: u64) -> Result<(), Denial> {
    let catalogue = &held.catalogue;
    let mut first = None;
    for listed in catalogue.holders(blob) {
        if catalogue.revoked(listed).is_some() {
            continue;
        }
        match judge(held, act, listed, None) {
            Ok(()) => return Ok(()),
            Err(denial) => first = first.or(Some(denial)),
        }
    }
    if let Some(denial) = first {
        return Err(denial);
    }
    let blobs = [blob];
    let subject = Subject {
        names: &[],
        release: None,
        kind: commons_record::catalogue::ReleaseKind::Other,
        licence: None,
        size: Some(size),
        blobs: &blobs,
    };
    held.policy.judge(act, &subject, catalogue.subscribed())
}
