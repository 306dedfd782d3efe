//! Asking a peer for what was missed.
//!
//! ```text
//! asker                                  peer
//!   Digest                        ---->
//!                                 <----  the hash of all its ids: if it is ours, that is all
//!   Ids { hash of each bucket }   ---->
//!                                 <----  its ids in the buckets that differ, some at a time
//!   Records { ids }               ---->
//!                                 <----  each record, or that it is gone
//! ```
//!
//! Ids fall into 256 buckets by their first byte. Both sides ask when they meet, and again with
//! every hello. Everything is counted: ids in an answer, records in a question, questions on a
//! stream, and time.

use std::collections::BTreeSet;
use std::sync::Arc;

use commons_port::journal::Table;
use commons_port::net::{BoxDuplex, Incoming, Path};
use commons_record::catalogue::BODY_SIZE_MAX;
use commons_record::codec;
use commons_record::envelope::Envelope;
use commons_record::{Hash, Millis, PeerId};
use commons_swarm::catalogue::{Admission, Catalogue};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{Item, ReceiveError, receive, record_key, turn};
use crate::ledger::LedgerError;
use crate::start::Inner;
use crate::tasks::{lock, within};
use crate::wire::{WireError, read_clear, write_clear};

/// One conversation. What is left comes with the next one.
const SYNC_MAX: Millis = Millis::from_secs(60);

/// Peers that are asked at once.
const PEERS_MAX: usize = 8;

/// Ids in one answer: 68 KiB.
const IDS_MAX: usize = 2_048;

/// Answers with ids in one conversation: more than a full catalogue has.
const ROUNDS_MAX: usize = 32;

/// Records in one question.
const RECORDS_MAX: usize = 32;

/// Questions on one stream: a full catalogue of small records.
const ASKS_MAX: usize = 4_096;

const BUCKETS: usize = 256;

/// A message is an item, or ids.
const MESSAGE_SIZE_MAX: usize = 128 * 1024;

/// How long a peer may be unknown that says hello at the same moment.
const MEET_MAX: Millis = Millis::from_secs(5);

const MEET_EVERY: Millis = Millis(100);

// An item has to fit into a message whatever is in it.
const _: () = assert!(BODY_SIZE_MAX < MESSAGE_SIZE_MAX / 2);

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Ask {
    Digest,
    Ids { buckets: Vec<Hash>, after: Option<Hash> },
    Records { ids: Vec<Hash> },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Answer {
    Digest(Hash),
    Ids { ids: Vec<Hash>, is_all: bool },
    Item(Item),
    Gone,
}

/// Why a conversation ended early.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error(transparent)]
    Wire(#[from] WireError),

    #[error(transparent)]
    Decode(#[from] codec::DecodeError),

    #[error(transparent)]
    Storage(#[from] LedgerError),

    #[error("the peer broke the protocol: {what}")]
    Broken { what: &'static str },
}

/// A hash for each bucket of ids.
fn buckets(catalogue: &Catalogue) -> Vec<Hash> {
    let mut fields: Vec<Vec<&[u8]>> = vec![Vec::new(); BUCKETS];
    for id in catalogue.ids() {
        fields[usize::from(id.as_bytes()[0])].push(id.as_bytes());
    }
    fields.iter().map(|ids| Hash::of_fields("commons/catalogue-bucket/1", ids)).collect()
}

fn digest(buckets: &[Hash]) -> Hash {
    let fields: Vec<&[u8]> = buckets.iter().map(|it| it.as_bytes().as_slice()).collect();
    Hash::of_fields("commons/catalogue/1", &fields)
}

/// Asks a peer what it has, unless it is being asked.
pub(crate) async fn ask(inner: Arc<Inner>, peer: PeerId) {
    let Some(_turn) = Syncing::begin(&inner, peer) else { return };
    let protocols = inner.place().protocol("catalogue/1");
    let talk = async {
        let opened = inner.ports.net.open(peer, protocols, Path::Direct).await;
        let Ok(opened) = opened else { return Ok(0) }; // An older version, or gone already.
        catch_up(&inner, opened.stream).await
    };
    match within(&*inner.ports.clock, SYNC_MAX, talk).await {
        Some(Ok(0)) => {}
        Some(Ok(count)) => tracing::info!(%peer, count, "caught up with the catalogue"),
        Some(Err(error)) => tracing::debug!(%peer, %error, "catching up broke off"),
        None => tracing::debug!(%peer, "catching up took too long and goes on later"),
    }
}

/// One conversation with a peer; gone when it is dropped.
struct Syncing<'a> {
    inner: &'a Inner,
    peer: PeerId,
}

impl<'a> Syncing<'a> {
    fn begin(inner: &'a Inner, peer: PeerId) -> Option<Self> {
        let mut syncing = lock(&inner.catalogue.syncing);
        let is_free = syncing.len() < PEERS_MAX && syncing.insert(peer);
        // Lazily: one that is made and dropped would take the other's place away, and the lock.
        is_free.then(|| Self { inner, peer })
    }
}

impl Drop for Syncing<'_> {
    fn drop(&mut self) {
        lock(&self.inner.catalogue.syncing).remove(&self.peer);
    }
}

/// Fetches what the peer has and this node has not; how many records came in.
async fn catch_up(inner: &Arc<Inner>, mut stream: BoxDuplex) -> Result<usize, SyncError> {
    let own = buckets(&turn(inner).await?.catalogue);
    let Answer::Digest(theirs) = talk(&mut stream, &Ask::Digest).await? else {
        return Err(SyncError::Broken { what: "it answered something else than a digest" });
    };
    let (mut count, mut after) = (0, None);
    if theirs == digest(&own) {
        return Ok(count);
    }
    for _ in 0..ROUNDS_MAX {
        let ask = Ask::Ids { buckets: own.clone(), after };
        let Answer::Ids { ids, is_all } = talk(&mut stream, &ask).await? else {
            return Err(SyncError::Broken { what: "it answered something else than ids" });
        };
        let is_ordered = ids.is_sorted_by(|one, next| one < next)
            && ids.first().is_none_or(|first| after.is_none_or(|after| after < *first));
        if ids.len() > IDS_MAX || !is_ordered {
            return Err(SyncError::Broken { what: "its ids are too many or out of order" });
        }
        after = ids.last().copied().or(after);
        let is_last = is_all || ids.is_empty();
        let wanted = {
            let held = turn(inner).await?;
            let is_new =
                |id: &Hash| !held.catalogue.contains(id) && !inner.catalogue.is_refused(id);
            ids.into_iter().filter(is_new).collect::<Vec<_>>()
        };
        for ids in wanted.chunks(RECORDS_MAX) {
            count += fetch(inner, &mut stream, ids).await?;
        }
        if is_last {
            break;
        }
    }
    Ok(count)
}

/// Fetches some records; how many came in.
async fn fetch(
    inner: &Arc<Inner>,
    stream: &mut BoxDuplex,
    ids: &[Hash],
) -> Result<usize, SyncError> {
    let mut items = Vec::with_capacity(ids.len());
    let mut answer = talk(stream, &Ask::Records { ids: ids.to_vec() }).await?;
    for (at, id) in ids.iter().enumerate() {
        if at > 0 {
            answer = hear(stream).await?;
        }
        match std::mem::replace(&mut answer, Answer::Gone) {
            Answer::Gone => {}
            Answer::Item(item) => {
                // Rule C9: it is what was asked for, or it is nothing.
                let found = Envelope::decode(&item.record)?.id();
                if found != *id {
                    return Err(SyncError::Broken { what: "it sent another record" });
                }
                items.push((*id, item));
            }
            Answer::Digest(_) | Answer::Ids { .. } => {
                return Err(SyncError::Broken { what: "it answered something else than records" });
            }
        }
    }
    let mut count = 0;
    for (id, item) in items {
        match receive(inner, &item).await {
            Ok(Admission::Kept { .. }) => count += 1,
            Ok(Admission::Known) => {}
            Ok(Admission::Refused(reason)) => {
                tracing::debug!(%id, %reason, "a record is not kept");
                inner.catalogue.refuse(id);
            }
            Err(ReceiveError::Unwanted(error)) => {
                tracing::debug!(%id, %error, "a record is not wanted");
                inner.catalogue.refuse(id);
            }
            Err(ReceiveError::Storage(error)) => return Err(error.into()),
        }
    }
    Ok(count)
}

async fn talk(stream: &mut BoxDuplex, ask: &Ask) -> Result<Answer, SyncError> {
    write_clear(stream, &codec::encode(ask)).await?;
    hear(stream).await
}

async fn hear(stream: &mut BoxDuplex) -> Result<Answer, SyncError> {
    let bytes = read_clear(stream).await?;
    Ok(codec::decode("catalogue answer", &bytes, MESSAGE_SIZE_MAX)?)
}

/// Answers peers until the task is stopped.
pub(crate) async fn accept(inner: Arc<Inner>) {
    let protocols = inner.place().protocol("catalogue/1");
    let mut incoming = inner.ports.net.accept(protocols);
    while let Some(incoming) = incoming.next().await {
        let task = answer(inner.clone(), incoming);
        inner.tasks.start("catalogue answers", Box::pin(task));
    }
}

async fn answer(inner: Arc<Inner>, incoming: Incoming) {
    let (peer, mut stream) = (incoming.peer, incoming.stream);
    let Some(_slot) = inner.talks.take(peer) else { return };
    let talk = async {
        if !is_member_soon(&inner, &peer).await {
            tracing::debug!(%peer, "who is no member is not told what there is");
            return Ok(());
        }
        for _ in 0..ASKS_MAX {
            let Ok(bytes) = read_clear(&mut stream).await else { break }; // It has all it wants.
            let ask = codec::decode("catalogue question", &bytes, MESSAGE_SIZE_MAX)?;
            answer_one(&inner, &mut stream, ask).await?;
        }
        Ok::<_, SyncError>(())
    };
    match within(&*inner.ports.clock, SYNC_MAX, talk).await {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%peer, %error, "answers about the catalogue ended"),
        None => tracing::debug!(%peer, "answers about the catalogue took too long"),
    }
}

/// The catalogue of a mesh is for its members. One that says hello may ask before it is heard.
async fn is_member_soon(inner: &Inner, peer: &PeerId) -> bool {
    let clock = &inner.ports.clock;
    let end = clock.now().saturating_add(MEET_MAX);
    loop {
        let now = clock.now();
        if lock(&inner.roster).member(now, peer).is_some() {
            return true;
        }
        if now >= end {
            return false;
        }
        clock.sleep_until(now.saturating_add(MEET_EVERY)).await;
    }
}

async fn answer_one(inner: &Inner, stream: &mut BoxDuplex, ask: Ask) -> Result<(), SyncError> {
    match ask {
        Ask::Digest => {
            let digest = digest(&buckets(&turn(inner).await?.catalogue));
            Ok(write_clear(stream, &codec::encode(&Answer::Digest(digest))).await?)
        }
        Ask::Ids { buckets: theirs, after } => {
            if theirs.len() != BUCKETS {
                return Err(SyncError::Broken { what: "it sent another number of buckets" });
            }
            let answer = different(&turn(inner).await?.catalogue, &theirs, after);
            Ok(write_clear(stream, &codec::encode(&answer)).await?)
        }
        Ask::Records { ids } => {
            if ids.len() > RECORDS_MAX {
                return Err(SyncError::Broken { what: "it asked for too many records at once" });
            }
            for id in ids {
                let answer = stored(inner, &id).await?.map_or(Answer::Gone, Answer::Item);
                write_clear(stream, &codec::encode(&answer)).await?;
            }
            Ok(())
        }
    }
}

/// Ids in buckets that differ, in order.
fn different(catalogue: &Catalogue, theirs: &[Hash], after: Option<Hash>) -> Answer {
    let own = buckets(catalogue);
    let differ: BTreeSet<usize> = (0..BUCKETS).filter(|at| own[*at] != theirs[*at]).collect();
    let is_next = |id: &&Hash| {
        let bucket = usize::from(id.as_bytes()[0]);
        differ.contains(&bucket) && after.is_none_or(|after| after < **id)
    };
    let mut ids: Vec<Hash> = catalogue.ids().filter(is_next).take(IDS_MAX + 1).copied().collect();
    let is_all = ids.len() <= IDS_MAX;
    ids.truncate(IDS_MAX);
    Answer::Ids { ids, is_all }
}

/// A record of the catalogue with its author's membership.
async fn stored(inner: &Inner, id: &Hash) -> Result<Option<Item>, SyncError> {
    let mesh = {
        let held = turn(inner).await?;
        if !held.catalogue.contains(id) {
            return Ok(None);
        }
        held.mesh
    };
    let journal = &inner.ports.journal;
    let record = journal.get(Table::Record, id.as_bytes().to_vec()).await;
    let membership = journal.get(Table::State, record_key(&mesh, id)).await;
    let (record, membership) =
        (record.map_err(LedgerError::from)?, membership.map_err(LedgerError::from)?);
    let item = |record| Item {
        membership: membership.filter(|it| !it.is_empty()).map(ByteBuf::from),
        record: ByteBuf::from(record),
    };
    Ok(record.map(item))
}
