//! What must hold of all disks and all users, at every moment and after any fault.
//!
//! Each is a function by the name under which a failure is told. They read what is durable, so
//! they hold in the middle of a crash as well as at the end.

use std::collections::{BTreeMap, BTreeSet};

use commons_exchange::entry::Side;
use commons_record::evidence::check_receipt;
use commons_record::mesh::Policy;
use commons_record::order::Order;
use commons_record::settlement::{Receipt, Scope, Voucher};
use commons_record::{Credits, Hash, Millis, Verified};

use crate::books::Book;
use crate::user::{Ending, Heard};
use crate::world::{Invariant, World};

/// All of them.
pub const ALL: [Invariant; 9] = [
    (
        "invariant_receipt_claims_at_most_what_was_acknowledged",
        invariant_receipt_claims_at_most_what_was_acknowledged,
    ),
    ("invariant_no_order_is_paid_twice", invariant_no_order_is_paid_twice),
    ("invariant_pair_positions_have_no_gaps", invariant_pair_positions_have_no_gaps),
    ("invariant_senders_hold_what_they_sent", invariant_senders_hold_what_they_sent),
    ("invariant_no_sequence_is_used_twice", invariant_no_sequence_is_used_twice),
    (
        "invariant_records_cover_what_was_delivered_and_no_more",
        invariant_records_cover_what_was_delivered_and_no_more,
    ),
    ("invariant_every_request_ends", invariant_every_request_ends),
    ("invariant_parties_agree_on_the_receipt", invariant_parties_agree_on_the_receipt),
    ("invariant_what_is_settled_stays_settled", invariant_what_is_settled_stays_settled),
];

/// Rule E11: every receipt on any disk holds against the order, the policy and the voucher on
/// the same disk: it claims what that voucher acknowledges.
pub fn invariant_receipt_claims_at_most_what_was_acknowledged(world: &World) -> Result<(), String> {
    for book in world.books()? {
        for receipt in book.of_type::<Receipt>() {
            let claim = receipt.body();
            let order: &Verified<Order> = book.record(&claim.order)?;
            let policy: &Verified<Policy> = book.record(&order.body().policy)?;
            let voucher: Option<&Verified<Voucher>> =
                claim.voucher.as_ref().map(|name| book.record(name)).transpose()?;
            check_receipt(order, voucher, receipt, policy)
                .map_err(|error| format!("{}: receipt {}: {error}", book.node, receipt.id()))?;
        }
    }
    Ok(())
}

/// Rule E1: there is at most one receipt for an order in the whole world.
pub fn invariant_no_order_is_paid_twice(world: &World) -> Result<(), String> {
    let mut receipts: BTreeMap<Hash, Hash> = BTreeMap::new();
    for book in world.books()? {
        for receipt in book.of_type::<Receipt>() {
            let order = receipt.body().order;
            let first = *receipts.entry(order).or_insert(receipt.id());
            if first != receipt.id() {
                return Err(format!("order {order} has receipts {first} and {}", receipt.id()));
            }
        }
    }
    Ok(())
}

/// Rule E9: a provider's receipts for one requester are numbered from 1 without gaps, and each
/// sum is the last one and its own amount.
pub fn invariant_pair_positions_have_no_gaps(world: &World) -> Result<(), String> {
    for book in world.books()? {
        let mut pairs: BTreeMap<_, Vec<(u64, Credits, Credits)>> = BTreeMap::new();
        for receipt in book.of_type::<Receipt>() {
            if receipt.node() != book.peer {
                continue; // Of others' receipts this node holds its own part only.
            }
            let order: &Verified<Order> = book.record(&receipt.body().order)?;
            let (pair, amount) = (receipt.body().pair, receipt.body().amount);
            let of_pair = pairs.entry(order.author()).or_default();
            of_pair.push((pair.sequence, pair.cumulative, amount));
        }
        for (requester, mut positions) in pairs {
            positions.sort_unstable();
            let (mut expected, mut sum) = (0, Credits::ZERO);
            for (sequence, cumulative, amount) in positions {
                expected += 1;
                sum = sum.checked_add(amount).ok_or("the sum of a pair overflows")?;
                if sequence != expected || cumulative != sum {
                    let node = book.node;
                    return Err(format!(
                        "{node} and {requester}: {sequence}, {cumulative} where {expected}, {sum} follows"
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Rule E3: whoever signed a record that another holds has it on its own disk. Mocks keep none.
pub fn invariant_senders_hold_what_they_sent(world: &World) -> Result<(), String> {
    let books = world.books()?;
    let honest = books.iter().filter(|book| !world.is_mock(book.node));
    let by_author: BTreeMap<[u8; 32], &Book> =
        honest.map(|book| (*book.peer.as_bytes(), &**book)).collect();
    for book in &books {
        for (name, row) in &book.records {
            let envelope = &row.envelope;
            let Some(author) = by_author.get(envelope.author.as_bytes()) else { continue };
            if !author.records.contains_key(name) {
                let (holder, author, kind) = (book.node, author.node, &envelope.kind);
                return Err(format!("{holder} holds {kind} {name} of {author}, which has it not"));
            }
        }
    }
    Ok(())
}

/// Rule R8: no author uses a sequence number for two records of a mesh.
pub fn invariant_no_sequence_is_used_twice(world: &World) -> Result<(), String> {
    let mut used: BTreeMap<_, (Hash, String)> = BTreeMap::new();
    for book in world.books()? {
        let stored = book.records.iter().map(|(name, row)| (*name, &row.envelope));
        let others = book.credentials.iter().map(|envelope| (envelope.id(), envelope));
        for (name, envelope) in stored.chain(others) {
            let key = (envelope.mesh, envelope.author, envelope.sequence);
            let (first, kind) = used.entry(key).or_insert_with(|| (name, envelope.kind.clone()));
            if *first != name {
                let (author, sequence) = (envelope.author, envelope.sequence);
                return Err(format!("{author} numbered {kind} and {} {sequence}", envelope.kind));
            }
        }
    }
    Ok(())
}

/// Rule E4: when an answer has ended for the user, the requester's furthest voucher covers
/// exactly the tokens that the user heard. Where the disk was full or the user hung up, it
/// covers no more than what the provider had sent, which E11 checks.
pub fn invariant_records_cover_what_was_delivered_and_no_more(world: &World) -> Result<(), String> {
    for heard in world.heard().all() {
        let is_ended = matches!(heard.ending, Some(Ending::Done(_) | Ending::Failed(_)));
        let Some(head) = heard.head.as_ref().filter(|_| is_ended) else { continue };
        if world.disk(heard.node).refusals() > 0 {
            continue;
        }
        let book = world.book(heard.node)?;
        let mut entries = book.side(Side::Requester);
        let entry = entries.find(|it| it.request == head.request && it.counterparty == head.peer);
        let entry = entry.ok_or_else(|| format!("request {} left no trace", head.request))?;
        let covered = book.vouched.get(&entry.order).copied().unwrap_or(0);
        let delivered = heard.tokens.len();
        if usize::try_from(covered) != Ok(delivered) {
            let request = head.request;
            return Err(format!("request {request}: {delivered} tokens heard, {covered} vouched"));
        }
        let stored = entry.opening.as_ref().map_or(&[][..], |it| it.tokens.as_slice());
        if covered > 0 && !heard.tokens.starts_with(stored) {
            return Err(format!("request {}: other tokens are stored than heard", head.request));
        }
    }
    Ok(())
}

/// An answer that was accepted is heard of within this, as long as the asked node lives: the
/// issue's five seconds.
const SILENCE_MAX: Millis = Millis::from_secs(5);

/// Three attempts, each with a dial and a wait for an acceptance.
const ACCEPTANCE_MAX: Millis = Millis::from_secs(60);

/// Rule E13: no user waits in silence.
pub fn invariant_every_request_ends(world: &World) -> Result<(), String> {
    world.heard().all().iter().try_for_each(|heard| is_heard_in_time(world, heard))
}

fn is_heard_in_time(world: &World, heard: &Heard) -> Result<(), String> {
    let is_open = heard.ending.is_none() && world.is_running(heard.node);
    let limit = if heard.head.is_some() { SILENCE_MAX } else { ACCEPTANCE_MAX };
    let silent = world.now().since(heard.last_at);
    if is_open && silent > limit {
        return Err(format!("{} hears nothing for {silent}", describe(heard)));
    }
    Ok(())
}

fn describe(heard: &Heard) -> String {
    let request = heard.head.as_ref().map(|head| head.request.to_string());
    format!("the user of {} who asked at {} ({request:?})", heard.node, heard.asked_at)
}

/// Rule E14: if both parties call an exchange settled, they hold the same receipt; and what one
/// node served itself is marked local.
pub fn invariant_parties_agree_on_the_receipt(world: &World) -> Result<(), String> {
    let mut settled: BTreeMap<Hash, BTreeSet<Hash>> = BTreeMap::new();
    for book in world.books()? {
        for entry in &book.entries {
            let Some(name) = entry.receipt else { continue };
            settled.entry(entry.order).or_default().insert(name);
            let receipt: &Verified<Receipt> = book.record(&name)?;
            let is_own = entry.counterparty == book.peer;
            if is_own != (receipt.body().scope == Scope::Local) {
                return Err(format!("{}: receipt {name} is of the wrong scope", book.node));
            }
        }
    }
    let torn = settled.iter().find(|(_, receipts)| receipts.len() > 1);
    torn.map_or(Ok(()), |(order, receipts)| Err(format!("order {order}: receipts {receipts:?}")))
}

/// Rule E14: a receipt and the entry that it settles are written together, and no later write
/// of the entry forgets it.
pub fn invariant_what_is_settled_stays_settled(world: &World) -> Result<(), String> {
    for book in world.books()? {
        for receipt in book.of_type::<Receipt>() {
            let order = receipt.body().order;
            let is_ours = receipt.node() == book.peer;
            let side = if is_ours { Side::Provider } else { Side::Requester };
            let entry = book.side(side).find(|entry| entry.order == order);
            if entry.and_then(|entry| entry.receipt) != Some(receipt.id()) {
                let node = book.node;
                return Err(format!("{node} holds a receipt for order {order}, and calls it open"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
