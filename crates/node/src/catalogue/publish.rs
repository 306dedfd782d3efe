//! What the owner says: releases, names, revocations, denylists, pins and rules.
//!
//! Each is signed, admitted by the same rules as what others say, made durable, and told.

use std::sync::Arc;

use commons_port::journal::{Change, Table};
use commons_record::catalogue::{
    DenyEntry, Denylist, NameBinding, Release, RepoName, Revocation, Version,
};
use commons_record::envelope::{Author, Record};
use commons_record::{Hash, OwnerId, codec};
use commons_swarm::catalogue::{Admission, NameRef, Revision};
use commons_swarm::licence::Licence;
use commons_swarm::policy::{Act, Policy, Subject};
use serde_bytes::ByteBuf;

use super::{
    Checked, Held, Item, POLICY_SIZE_MAX, gossip, pin_key, policy_key, query, subscription_key,
    turn,
};
use crate::api::catalogue::{DenylistView, PinView, PublishedView, ReleaseDraft, RevocationDraft};
use crate::api::{Refusal, RefusalCode};
use crate::identity::AsOwner as _;
use crate::ledger::LedgerError;
use crate::start::Inner;

pub(super) fn storage(error: &LedgerError) -> Refusal {
    Refusal::new(RefusalCode::StorageFailed, format!("the journal cannot be used: {error}"))
}

pub(super) fn invalid(sentence: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::InvalidRequest, sentence)
}

/// Reads `ORG/NAME[@VERSION|@COMMIT]`.
pub(super) fn name_ref(text: &str) -> Result<NameRef, Refusal> {
    text.parse().map_err(|error: commons_swarm::catalogue::ParseNameError| {
        invalid(format!("{error}: {}", error.source))
    })
}

/// A name that can be pinned or bound: a commit names its release already.
fn nameable(text: &str) -> Result<(RepoName, Option<Version>), Refusal> {
    let NameRef { name, revision } = name_ref(text)?;
    match revision {
        Revision::Current => Ok((name, None)),
        Revision::Version(version) => Ok((name, Some(version))),
        Revision::Commit(_) => {
            Err(invalid(format!("{text} names one release already; leave the commit out")))
        }
    }
}

fn display(name: &RepoName, version: Option<&Version>) -> String {
    let revision = version.map_or(Revision::Current, |it| Revision::Version(it.clone()));
    NameRef { name: name.clone(), revision }.to_string()
}

/// The signer of this node's own records, in this moment's epoch.
struct Signer {
    node: Author,
    owner: Author,
    membership: Option<ByteBuf>,
    is_authority: bool,
}

impl Signer {
    fn of(inner: &Inner) -> Self {
        let standing = inner.standing();
        let owner = standing.author.clone().owner(&inner.keys);
        let is_authority = inner.place().is_authority(&inner.keys.owner_id());
        let membership = Some(ByteBuf::from(standing.membership));
        Self { node: standing.author, owner, membership, is_authority }
    }
}

async fn sequence(inner: &Inner) -> Result<u64, Refusal> {
    let range = inner.ledger.sequences(1).await;
    Ok(range.map_err(|error| storage(&error))?.take().unwrap_or_default())
}

fn check(body: &impl Record) -> Result<(), Refusal> {
    body.check().map_err(|error| invalid(error.to_string()))
}

/// Records that the owner signed, on their way to disk and mesh.
struct Said {
    records: Vec<Checked>,
    gone: Vec<Hash>,
    changes: Vec<Change>,
}

impl Said {
    fn new() -> Self {
        Self { records: Vec::new(), gone: Vec::new(), changes: Vec::new() }
    }

    /// Admits a record by the rules that hold for everyone.
    fn admit(&mut self, held: &mut Held, checked: Checked) -> Result<(), Refusal> {
        match checked.admit(&mut held.catalogue) {
            Admission::Kept { gone } => {
                self.gone.extend(gone);
                self.records.push(checked);
                Ok(())
            }
            Admission::Known => Ok(()),
            Admission::Refused(reason) => Err(invalid(format!("it was not kept: {reason}"))),
        }
    }

    /// Makes all of it durable, then tells it.
    async fn tell(
        self,
        inner: &Arc<Inner>,
        mut held: tokio::sync::MutexGuard<'_, Held>,
        membership: Option<ByteBuf>,
    ) -> Result<(), Refusal> {
        let kept: Vec<_> = self.records.iter().map(|it| (it, membership.as_ref())).collect();
        let mut changes = held.changes(&kept, &self.gone);
        changes.extend(self.changes);
        let stored = held.commit(inner, changes).await;
        stored.map_err(|error| storage(&error.into()))?;
        drop(held);
        // What is allowed or known has changed: what was refused may be wanted.
        inner.catalogue.forget_refusals();
        for checked in &self.records {
            let record = ByteBuf::from(checked.encode());
            gossip::tell(inner, &Item { membership: membership.clone(), record }).await;
        }
        Ok(())
    }
}

/// Undoes what memory has and the disk has not, if the work that holds it ends early.
async fn changing(inner: &Inner) -> Result<tokio::sync::MutexGuard<'_, Held>, Refusal> {
    let mut held = turn(inner).await.map_err(|error| storage(&error))?;
    held.is_stale = true;
    Ok(held)
}

/// Signs a release, makes its name mean it, and tells the mesh.
pub(super) async fn release(
    inner: &Arc<Inner>,
    draft: ReleaseDraft,
) -> Result<PublishedView, Refusal> {
    let signer = Signer::of(inner);
    let (first, second, third) =
        (sequence(inner).await?, sequence(inner).await?, sequence(inner).await?);
    let mut held = turn(inner).await.map_err(|error| storage(&error))?;
    let body = body(inner, &held, draft);
    check(&body)?;
    if let Err(error) = body.licence.parse::<Licence>() {
        return Err(invalid(format!("it was not published: {error}")));
    }
    let (name, version) = (body.name.clone(), body.version.clone());
    let record = signer.node.sign(first, body);
    let id = record.id();
    {
        let blobs: Vec<Hash> = record.body().files.iter().map(|it| it.blob).collect();
        let names = [&name];
        let subject = Subject::of_release(id, record.body(), &names, &blobs);
        let judged = held.policy.judge(Act::Publish, &subject, held.catalogue.subscribed());
        judged.map_err(|denial| Refusal::new(RefusalCode::Denied, denial.to_string()))?;
    }
    held.is_stale = true;
    let mut said = Said::new();
    said.admit(&mut held, Checked::Release(record))?;
    if signer.is_authority {
        for (sequence, version) in [(second, None), (third, Some(version.clone()))] {
            let serial = held.catalogue.next_serial(&name, version.as_ref());
            let (name, release) = (name.clone(), Some(id));
            let binding = NameBinding { name, version, release, serial };
            said.admit(&mut held, Checked::Binding(signer.owner.sign(sequence, binding)))?;
        }
        // An older pin of the owner's own would hide what it said just now.
        if held.catalogue.unpin(&name, None) {
            let key = pin_key(&held.mesh, &name, None);
            said.changes.push(Change::remove(Table::State, key));
        }
    } else {
        said.changes.push(pinned(&mut held, &name, None, id)?);
    }
    said.tell(inner, held, signer.membership).await?;
    tracing::info!(%name, %version, release = %id, "published");
    let commit = Release::commit_of(&id);
    Ok(PublishedView { release: id, commit, name, version, is_bound: signer.is_authority })
}

/// What is signed: the draft in canonical order.
fn body(inner: &Inner, held: &Held, draft: ReleaseDraft) -> Release {
    let owner = inner.keys.owner_id();
    let previous = draft.previous.or_else(|| {
        let current = NameRef { name: draft.name.clone(), revision: Revision::Current };
        let current = held.catalogue.resolve(&current).ok()?.listed;
        (current.owner == owner).then_some(current.id)
    });
    let (mut files, mut tags) = (draft.files, draft.tags);
    files.sort_by(|one, next| one.path.cmp(&next.path));
    tags.sort();
    tags.dedup();
    Release {
        kind: draft.kind,
        name: draft.name,
        version: draft.version,
        files,
        licence: draft.licence,
        lineage: draft.lineage,
        author: draft.author.unwrap_or_else(|| owner.to_string()),
        description: draft.description,
        tags,
        released_unix_ms: inner.ports.clock.unix(),
        previous,
    }
}

fn pinned(
    held: &mut Held,
    name: &RepoName,
    version: Option<&Version>,
    release: Hash,
) -> Result<Change, Refusal> {
    let pinned = held.catalogue.pin(name, version, release);
    pinned.map_err(|error| Refusal::new(RefusalCode::NotFound, error.to_string()))?;
    let key = pin_key(&held.mesh, name, version);
    Ok(Change::put(Table::State, key, release.as_bytes().as_slice()))
}

/// Says what a name means here.
pub(super) async fn pin(inner: &Arc<Inner>, name: &str, release: Hash) -> Result<PinView, Refusal> {
    let (name, version) = nameable(name)?;
    let mut held = turn(inner).await.map_err(|error| storage(&error))?;
    let change = pinned(&mut held, &name, version.as_ref(), release)?;
    held.commit(inner, vec![change]).await.map_err(|error| storage(&error.into()))?;
    Ok(PinView { name: display(&name, version.as_ref()), release: Some(release) })
}

/// Takes a pin back.
pub(super) async fn unpin(inner: &Arc<Inner>, name: &str) -> Result<PinView, Refusal> {
    let (name, version) = nameable(name)?;
    let mut held = turn(inner).await.map_err(|error| storage(&error))?;
    let shown = display(&name, version.as_ref());
    if !held.catalogue.unpin(&name, version.as_ref()) {
        let sentence = format!("{shown} is not pinned here");
        return Err(Refusal::new(RefusalCode::NotFound, sentence));
    }
    let change = Change::remove(Table::State, pin_key(&held.mesh, &name, version.as_ref()));
    held.commit(inner, vec![change]).await.map_err(|error| storage(&error.into()))?;
    Ok(PinView { name: shown, release: None })
}

fn only_authorities(signer: &Signer, what: &str) -> Result<(), Refusal> {
    if signer.is_authority {
        return Ok(());
    }
    let sentence = format!("only an authority of the mesh {what}");
    Err(Refusal::new(RefusalCode::NotAuthority, sentence))
}

/// Says what a name means in the whole mesh.
pub(super) async fn bind(
    inner: &Arc<Inner>,
    name: &str,
    release: Option<Hash>,
) -> Result<Hash, Refusal> {
    let (name, version) = nameable(name)?;
    let signer = Signer::of(inner);
    only_authorities(&signer, "binds names; you can pin one for yourself with `commons pin`")?;
    let sequence = sequence(inner).await?;
    let mut held = changing(inner).await?;
    let serial = held.catalogue.next_serial(&name, version.as_ref());
    let record = signer.owner.sign(sequence, NameBinding { name, version, release, serial });
    let id = record.id();
    let mut said = Said::new();
    said.admit(&mut held, Checked::Binding(record))?;
    said.tell(inner, held, signer.membership).await?;
    Ok(id)
}

/// Takes back the word of a key.
pub(super) async fn revoke(inner: &Arc<Inner>, draft: RevocationDraft) -> Result<Hash, Refusal> {
    let signer = Signer::of(inner);
    let RevocationDraft { key, from, mut kept, reason } = draft;
    kept.sort();
    kept.dedup();
    let body = Revocation { key, from, kept, reason };
    check(&body)?;
    let sequence = sequence(inner).await?;
    let mut held = changing(inner).await?;
    let record = signer.owner.sign(sequence, body);
    let id = record.id();
    let mut said = Said::new();
    said.admit(&mut held, Checked::Revocation(record))?;
    said.tell(inner, held, signer.membership).await?;
    tracing::info!(%key, "the word of a key was taken back");
    Ok(id)
}

/// Signs a denylist. Its serial is above that of the one it replaces.
pub(super) async fn denylist(
    inner: &Arc<Inner>,
    title: String,
    entries: Vec<DenyEntry>,
) -> Result<Hash, Refusal> {
    let signer = Signer::of(inner);
    let own = inner.keys.owner_id();
    let sequence = sequence(inner).await?;
    let mut held = changing(inner).await?;
    let known =
        held.catalogue.denylists().find(|(author, it, _)| *author == own && it.title == title);
    let serial = known.map_or(1, |(_, it, _)| it.serial.saturating_add(1));
    let body = Denylist { title, serial, entries };
    check(&body)?;
    let record = signer.owner.sign(sequence, body);
    let id = record.id();
    let mut said = Said::new();
    said.admit(&mut held, Checked::Denylist(record))?;
    said.tell(inner, held, signer.membership).await?;
    Ok(id)
}

/// Listens to an author's denylists, or stops listening.
pub(super) async fn subscribe(
    inner: &Arc<Inner>,
    author: OwnerId,
    is_on: bool,
) -> Result<Vec<DenylistView>, Refusal> {
    let mut held = turn(inner).await.map_err(|error| storage(&error))?;
    held.catalogue.subscribe(author, is_on);
    let key = subscription_key(&held.mesh, &author);
    let change = if is_on {
        Change::put(Table::State, key, Vec::new())
    } else {
        Change::remove(Table::State, key)
    };
    held.commit(inner, vec![change]).await.map_err(|error| storage(&error.into()))?;
    drop(held);
    inner.catalogue.forget_refusals();
    query::denylists(inner).await
}

/// Sets the owner's rules.
pub(super) async fn set_policy(inner: &Arc<Inner>, policy: Policy) -> Result<(), Refusal> {
    let bytes = codec::encode(&policy);
    if bytes.len() > POLICY_SIZE_MAX {
        return Err(invalid("the rules are larger than 1 MiB"));
    }
    let mut held = turn(inner).await.map_err(|error| storage(&error))?;
    held.policy = policy;
    let change = Change::put(Table::State, policy_key(&held.mesh), bytes);
    held.commit(inner, vec![change]).await.map_err(|error| storage(&error.into()))
}
