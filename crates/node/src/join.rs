//! Joining a mesh with a ticket, and letting others in.
//!
//! ```text
//! joiner                                   inviter (a node of an authority)
//!   JoinRequest (signed, with proof) ---->  checks the invite, its uses and the proof
//!                                    <----  JoinAnswer: policy and membership, or a reason
//! ```
//!
//! Joining runs in the background and goes on until it succeeds or is refused: nothing local
//! waits for it (Rule N3). An owner who asks twice gets its membership again (Rule M4).

use std::sync::Arc;

use commons_port::journal::{Change, Table};
use commons_port::net::{Incoming, Path, Protocol};
use commons_record::codec;
use commons_record::envelope::{Expect, Unverified, Verified};
use commons_record::mesh::{Invite, JoinRequest, Membership, Policy};
use commons_record::ticket::Ticket;
use commons_record::{Hash, Millis, OwnerId, SecretKey};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::api::{InviteView, JoinState, JoinView, Refusal, RefusalCode};
use crate::identity::{AsOwner as _, Place, admit, author, certify};
use crate::ledger::LedgerError;
use crate::presence;
use crate::start::Inner;
use crate::tasks::{lock, within};
use crate::wire::{finish_clear, read_clear, write_clear};

/// One attempt: a connection, a request and an answer.
const ATTEMPT_MAX: Millis = Millis::from_secs(15);

/// Attempts follow each other after one second, then two, up to a minute.
const RETRY_MIN: Millis = Millis::from_secs(1);
const RETRY_MAX: Millis = Millis::from_secs(60);

/// An invite holds for a week of six-hour epochs.
const INVITE_EPOCHS: u64 = 28;

/// Two records, or a sentence.
const ANSWER_SIZE_MAX: usize = 64 * 1024;

/// The answer to a join request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum JoinAnswer {
    Admitted { policy: ByteBuf, membership: ByteBuf },
    Refused { reason: String },
}

fn admitted_key(owner: &OwnerId) -> Vec<u8> {
    [b"admitted/".as_slice(), owner.as_bytes()].concat()
}

fn uses_key(invite: &Hash) -> Vec<u8> {
    [b"invite-uses/".as_slice(), invite.as_bytes()].concat()
}

/// Makes a ticket, if this node's owner is an authority.
pub(crate) async fn invite(inner: &Arc<Inner>, uses: u32) -> Result<InviteView, Refusal> {
    let place = inner.place();
    if !place.is_authority(&inner.keys.owner_id()) {
        let sentence = "only an authority of the mesh can invite; ask the one who invited you";
        return Err(Refusal::new(RefusalCode::NotAuthority, sentence));
    }
    if !(1..=1024).contains(&uses) {
        let sentence = format!("an invite has between 1 and 1024 uses, not {uses}");
        return Err(Refusal::new(RefusalCode::InvalidRequest, sentence));
    }
    let addrs = inner.ports.net.listen_addrs().await;
    if addrs.is_empty() {
        let sentence = "this node listens on no address yet; try again in a moment";
        return Err(Refusal::new(RefusalCode::Unavailable, sentence));
    }
    let standing = inner.standing();
    let owner = standing.author.clone().owner(&inner.keys);
    let key = SecretKey::from_seed(&commons_port::time::draw(&*inner.ports.entropy));
    let last_epoch = commons_record::Epoch(owner.epoch.0.saturating_add(INVITE_EPOCHS));
    let body = Invite { key: key.public(), uses, last_epoch };
    let sequence = sequence(inner).await?;
    let invite = owner.sign(sequence, body);
    let change = commons_exchange::entry::record_change(&invite);
    inner.commit(vec![change]).await.map_err(|error| storage(&error.into()))?;
    let genesis = place.genesis().clone();
    let mesh_name = genesis.body().name.clone();
    let ticket = Ticket { genesis, invite, key, inviter: inner.peer(), addrs };
    Ok(InviteView { ticket: ticket.to_string(), uses, mesh_name })
}

async fn sequence(inner: &Arc<Inner>) -> Result<u64, Refusal> {
    let mut range = inner.ledger.sequences(1).await.map_err(|error| storage(&error))?;
    Ok(range.take().unwrap_or_default())
}

fn storage(error: &LedgerError) -> Refusal {
    Refusal::new(RefusalCode::StorageFailed, format!("the journal cannot be used: {error}"))
}

/// Begins to join in the background.
pub(crate) async fn join(inner: &Arc<Inner>, ticket: &str) -> Result<JoinView, Refusal> {
    let invalid = |sentence: String| Refusal::new(RefusalCode::InvalidRequest, sentence);
    let ticket: Ticket = ticket.parse().map_err(|error| invalid(format!("{error}")))?;
    let mesh = ticket.genesis.id();
    let mesh_name = ticket.genesis.body().name.clone();
    let view = |state| JoinView { mesh, mesh_name: mesh_name.clone(), state };
    if inner.place().mesh() == mesh {
        return Ok(view(JoinState::Joined));
    }
    let others = inner.ports.journal.scan(Table::State, b"admitted/".to_vec(), None, 1).await;
    let has_others = !others.map_err(|error| storage(&error.into()))?.is_empty();
    let is_founder = inner.place().is_authority(&inner.keys.owner_id());
    if has_others || !is_founder {
        // Rule M6.
        return Err(invalid(format!(
            "this data folder belongs to mesh {:?}; join from another one with --data-dir",
            inner.place().genesis().body().name
        )));
    }
    let trying = view(JoinState::Trying { trouble: None });
    *lock(&inner.join) = Some(trying.clone());
    let task = keep_joining(inner.clone(), ticket);
    inner.tasks.start("join", Box::pin(task));
    Ok(trying)
}

async fn keep_joining(inner: Arc<Inner>, ticket: Ticket) {
    let mut pause = RETRY_MIN;
    loop {
        let state = match within(&*inner.ports.clock, ATTEMPT_MAX, attempt(&inner, &ticket)).await {
            Some(Ok(())) => JoinState::Joined,
            Some(Err(Trouble::Refused(reason))) => JoinState::Refused { reason },
            Some(Err(Trouble::Passing(trouble))) => JoinState::Trying { trouble: Some(trouble) },
            None => JoinState::Trying { trouble: Some("the inviter did not answer".to_owned()) },
        };
        let (is_over, is_in) =
            (!matches!(state, JoinState::Trying { .. }), matches!(state, JoinState::Joined));
        let (mesh, mesh_name) = (ticket.genesis.id(), ticket.genesis.body().name.clone());
        *lock(&inner.join) = Some(JoinView { mesh, mesh_name, state });
        if is_in {
            // The tasks of the new mesh are up: say hello to the one node that is known.
            presence::hello(inner.clone(), ticket.inviter).await;
        }
        if is_over {
            return;
        }
        let at = inner.ports.clock.now().saturating_add(pause);
        inner.ports.clock.sleep_until(at).await;
        pause = Millis(pause.0.saturating_mul(2).min(RETRY_MAX.0));
    }
}

/// Why an attempt failed: for now, or for good.
enum Trouble {
    Passing(String),
    Refused(String),
}

async fn attempt(inner: &Arc<Inner>, ticket: &Ticket) -> Result<(), Trouble> {
    let passing = |error: String| Trouble::Passing(error);
    let net = &inner.ports.net;
    net.add_addrs(ticket.inviter, ticket.addrs.clone())
        .map_err(|error| Trouble::Refused(error.to_string()))?;
    let protocol = join_protocol(&ticket.genesis.id());
    let opened = net.open(ticket.inviter, protocol, Path::Direct).await;
    let mut stream = opened.map_err(|error| passing(error.to_string()))?.stream;
    let request = request(inner, ticket).await.map_err(|error| passing(error.to_string()))?;
    write_clear(&mut stream, &request).await.map_err(|error| passing(error.to_string()))?;
    let answer = read_clear(&mut stream).await.map_err(|error| passing(error.to_string()))?;
    let answer = codec::decode("join answer", &answer, ANSWER_SIZE_MAX)
        .map_err(|error| passing(error.to_string()))?;
    match answer {
        JoinAnswer::Refused { reason } => {
            let printable = reason.chars().filter(|it| !it.is_control());
            Err(Trouble::Refused(printable.take(300).collect()))
        }
        JoinAnswer::Admitted { policy, membership } => {
            enter(inner, ticket, &policy, &membership).await
        }
    }
}

fn join_protocol(mesh: &Hash) -> Vec<Protocol> {
    Protocol::new(format!("/commons/{}/join/1", &mesh.to_string()[..16])).into_iter().collect()
}

async fn request(inner: &Arc<Inner>, ticket: &Ticket) -> Result<Vec<u8>, LedgerError> {
    let (mesh, invite) = (ticket.genesis.id(), ticket.invite.id());
    let epoch = ticket.genesis.body().epoch_at(inner.ports.clock.unix());
    let mut sequences = inner.ledger.sequences(2).await?;
    let certificate = certify(&inner.keys, mesh, epoch, sequences.take().unwrap_or_default());
    let mut node = author(&inner.keys, mesh, Some(&certificate));
    node.epoch = epoch;
    let message = JoinRequest::proof_message(&invite, &inner.keys.owner_id());
    let proof = ticket.key.sign(message.as_bytes());
    let sequence = sequences.take().unwrap_or_default();
    Ok(node.sign(sequence, JoinRequest { invite, proof }).encode())
}

/// Checks what the inviter gave, makes it durable and moves over.
async fn enter(
    inner: &Arc<Inner>,
    ticket: &Ticket,
    policy: &[u8],
    membership: &[u8],
) -> Result<(), Trouble> {
    let refused = |error: String| Trouble::Refused(error);
    let expect = Expect::mesh(ticket.genesis.id());
    let policy: Verified<Policy> = Unverified::decode(policy)
        .and_then(|it| it.verify(&expect))
        .map_err(|error| refused(format!("the policy: {error}")))?;
    let membership: Verified<Membership> = Unverified::decode(membership)
        .and_then(|it| it.verify(&expect))
        .map_err(|error| refused(format!("the membership: {error}")))?;
    let authorities = &ticket.genesis.body().authorities;
    let is_signed =
        authorities.contains(&policy.owner()) && authorities.contains(&membership.owner());
    if !is_signed || membership.body().owner != inner.keys.owner_id() {
        return Err(refused("the inviter answered with records of no authority".to_owned()));
    }
    let sequences = inner.ledger.sequences(1).await;
    let mut sequences = sequences.map_err(|error| Trouble::Passing(error.to_string()))?;
    let sequence = sequences.take().unwrap_or_default();
    let genesis = ticket.genesis.clone();
    let (place, changes) = Place::enter(&inner.keys, genesis, policy, &membership, sequence);
    inner.commit(changes).await.map_err(|error| Trouble::Passing(error.to_string()))?;
    inner.move_to(place);
    Ok(())
}

/// Answers join requests until the task is stopped.
pub(crate) async fn accept_joins(inner: Arc<Inner>) {
    let mut incoming = inner.ports.net.accept(join_protocol(&inner.place().mesh()));
    while let Some(incoming) = incoming.next().await {
        let task = answer_join(inner.clone(), incoming);
        inner.tasks.start("join request", Box::pin(task));
    }
}

async fn answer_join(inner: Arc<Inner>, incoming: Incoming) {
    let (peer, mut stream) = (incoming.peer, incoming.stream);
    let Some(_slot) = inner.talks.take(peer) else { return };
    let answering = async {
        let request = read_clear(&mut stream).await.ok()?;
        let answer = match consider(&inner, &request).await {
            Ok(membership) => JoinAnswer::Admitted {
                policy: ByteBuf::from(inner.standing().policy.encode()),
                membership: ByteBuf::from(membership),
            },
            Err(reason) => {
                tracing::info!(%peer, %reason, "a join request was refused");
                JoinAnswer::Refused { reason }
            }
        };
        finish_clear(&mut stream, &codec::encode(&answer)).await.ok()
    };
    if within(&*inner.ports.clock, ATTEMPT_MAX, answering).await.flatten().is_none() {
        tracing::debug!(%peer, "a join request broke off");
    }
}

/// Rules M3 and M4.
async fn consider(inner: &Arc<Inner>, request: &[u8]) -> Result<Vec<u8>, String> {
    let standing = inner.standing();
    let expect = Expect::arriving(standing.mesh(), standing.author.epoch);
    let request = Unverified::<JoinRequest>::decode(request)
        .and_then(|it| it.verify(&expect))
        .map_err(|error| format!("the join request is not valid: {error}"))?;
    let (owner, body) = (request.owner(), request.body());
    let unknown = || "the invite is not known to this node".to_owned();
    let failed = |error: LedgerError| {
        tracing::error!(%error, "the journal failed");
        "the inviter cannot use its journal now".to_owned()
    };
    let invite = inner.ledger.record::<Invite>(standing.mesh(), &body.invite).await;
    let invite = invite.map_err(failed)?.ok_or_else(unknown)?;
    let message = JoinRequest::proof_message(&body.invite, &owner);
    if !invite.body().key.has_signed(message.as_bytes(), &body.proof) {
        return Err("the proof is not by the invite's key".to_owned());
    }
    // One request at a time, so that an invite is not used beyond its count.
    let _turn = inner.joins.lock().await;
    let known = inner.ports.journal.get(Table::State, admitted_key(&owner)).await;
    if let Some(membership) = known.map_err(|error| failed(error.into()))? {
        return Ok(membership);
    }
    if standing.author.epoch > invite.body().last_epoch {
        return Err("the invite has ended; ask for a new ticket".to_owned());
    }
    let key = uses_key(&invite.id());
    let stored = inner.ports.journal.get(Table::State, key.clone()).await;
    let stored = stored.map_err(|error| failed(error.into()))?;
    let taken = stored.and_then(|it| it.try_into().ok()).map_or(0, u32::from_be_bytes);
    if taken >= invite.body().uses {
        return Err("the invite is used up; ask for a new ticket".to_owned());
    }
    let authority = standing.author.clone().owner(&inner.keys);
    let sequence = inner.ledger.sequences(1).await.map_err(failed)?.take().unwrap_or_default();
    let membership = admit(&authority, sequence, owner, Some(invite.id())).encode();
    let changes = vec![
        Change::put(Table::State, key, (taken + 1).to_be_bytes()),
        Change::put(Table::State, admitted_key(&owner), membership.clone()),
    ];
    inner.commit(changes).await.map_err(|error| failed(error.into()))?;
    tracing::info!(%owner, "a member was admitted");
    Ok(membership)
}
