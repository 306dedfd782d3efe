//! Each invariant notices what it is there for: honest disks are changed behind their nodes'
//! backs, and the right ones speak up.

use commons_exchange::entry::record_change;
use commons_port::journal::{Change, Table};
use commons_record::envelope::{Author, Certified, Expect, Record, Unverified};
use commons_record::mesh::NodeCertificate;
use commons_record::settlement::PairPosition;

use super::*;
use crate::cluster::Cluster;
use crate::engine::SimModel;
use crate::life::NodeId;
use crate::user::question;
use crate::world::NodeSpec;

const PROVIDER: NodeId = NodeId(0);
const REQUESTER: NodeId = NodeId(1);

/// The invariants that break when the disks after one honest answer are changed.
fn broken_by(tamper: impl FnOnce(&Cluster)) -> Vec<&'static str> {
    let specs = vec![NodeSpec::with_model(SimModel::named("story")), NodeSpec::default()];
    let cluster = Cluster::new(1, specs);
    cluster.run(async {
        cluster.meet().await;
        let heard = cluster.ask(REQUESTER, question("story", 40)).ended().await;
        assert!(heard.done().is_some(), "{:?}", heard.ending);
    });
    tamper(&cluster);
    let broken = ALL.iter().filter(|(_, holds)| holds(&cluster).is_err());
    broken.map(|(name, _)| *name).collect()
}

/// The provider signs its receipt once more, with something changed.
fn resigned(cluster: &Cluster, sequence: Option<u64>, change: impl FnOnce(&mut Receipt)) -> Change {
    let book = cluster.book(PROVIDER).expect("it is readable");
    let receipt = book.of_type::<Receipt>().next().expect("there is one");
    let envelope = &book.records[&receipt.id()].envelope;
    let certificate = envelope.certificate.as_ref().expect("a node signed it");
    let certificate = Unverified::<NodeCertificate>::decode(certificate)
        .and_then(|it| it.verify(&Expect::default()))
        .expect("it is valid");
    let author = Author {
        key: cluster.secret(PROVIDER),
        mesh: receipt.mesh(),
        epoch: receipt.epoch(),
        certificate: Some(Certified::from_verified(&certificate)),
    };
    let mut body = receipt.body().clone();
    change(&mut body);
    record_change(&author.sign(sequence.unwrap_or(receipt.sequence()), body))
}

fn record_names<T: Record>(cluster: &Cluster, node: NodeId) -> Vec<Vec<u8>> {
    let book = cluster.book(node).expect("it is readable");
    let of_type = book.records.iter().filter(|(_, row)| row.envelope.kind == T::TYPE);
    of_type.map(|(name, _)| name.as_bytes().to_vec()).collect()
}

#[test]
fn honest_disks_break_nothing() {
    assert_eq!(broken_by(|_| {}), Vec::<&str>::new());
}

#[test]
fn a_second_receipt_for_an_order_is_noticed() {
    let broken = broken_by(|cluster| {
        let next = |receipt: &mut Receipt| {
            receipt.pair = receipt.pair.next(receipt.amount).expect("it is representable");
        };
        cluster.disk(PROVIDER).tamper(vec![resigned(cluster, Some(1 << 50), next)]);
    });
    assert!(broken.contains(&"invariant_no_order_is_paid_twice"), "{broken:?}");
}

#[test]
fn a_receipt_over_more_than_the_voucher_is_noticed() {
    let broken = broken_by(|cluster| {
        let more = |receipt: &mut Receipt| {
            receipt.usage.completion_tokens += 1;
            receipt.range.end += 1;
        };
        cluster.disk(PROVIDER).tamper(vec![resigned(cluster, Some(1 << 50), more)]);
    });
    assert!(
        broken.contains(&"invariant_receipt_claims_at_most_what_was_acknowledged"),
        "{broken:?}"
    );
}

#[test]
fn a_gap_between_two_parties_is_noticed() {
    let broken = broken_by(|cluster| {
        let skip = |receipt: &mut Receipt| {
            receipt.pair = PairPosition { sequence: 7, cumulative: receipt.pair.cumulative };
        };
        cluster.disk(PROVIDER).tamper(vec![resigned(cluster, Some(1 << 50), skip)]);
    });
    assert!(broken.contains(&"invariant_pair_positions_have_no_gaps"), "{broken:?}");
}

#[test]
fn a_number_that_is_used_twice_is_noticed() {
    let broken = broken_by(|cluster| {
        let next = |receipt: &mut Receipt| {
            receipt.pair = receipt.pair.next(receipt.amount).expect("it is representable");
        };
        cluster.disk(PROVIDER).tamper(vec![resigned(cluster, None, next)]);
    });
    assert!(broken.contains(&"invariant_no_sequence_is_used_twice"), "{broken:?}");
}

#[test]
fn a_voucher_that_its_author_has_lost_is_noticed() {
    let broken = broken_by(|cluster| {
        let vouchers = record_names::<Voucher>(cluster, REQUESTER);
        let lost = vouchers.into_iter().map(|name| Change::remove(Table::Record, name)).collect();
        cluster.disk(REQUESTER).tamper(lost);
    });
    assert!(broken.contains(&"invariant_senders_hold_what_they_sent"), "{broken:?}");
    assert!(
        broken.contains(&"invariant_records_cover_what_was_delivered_and_no_more"),
        "{broken:?}"
    );
}

#[test]
fn an_entry_that_forgets_its_receipt_is_noticed() {
    let broken = broken_by(|cluster| {
        let book = cluster.book(REQUESTER).expect("it is readable");
        let mut entry = (*book.entries[0]).clone();
        entry.receipt = None;
        cluster.disk(REQUESTER).tamper(vec![entry.change()]);
    });
    assert_eq!(broken, ["invariant_what_is_settled_stays_settled"]);
}

#[test]
fn a_user_who_waits_in_silence_is_noticed() {
    let specs = vec![NodeSpec::with_model(SimModel::named("story")), NodeSpec::default()];
    let cluster = Cluster::new(1, specs);
    let late = cluster.run(async {
        cluster.meet().await;
        cluster.sleep(Millis::from_secs(10)).await;
        let user = cluster.ask(REQUESTER, question("story", 60));
        user.tokens(5).await;
        let mut heard = user.heard();
        heard.last_at = Millis(0);
        is_heard_in_time(&cluster, &heard)
    });
    assert!(late.is_err());
}
