//! A disk fills up at the worst moments.
//!
//! The answer reaches the user if it can, nothing is claimed that is not stored, and when there
//! is room again the two sides settle without being started anew.

use commons_node::api::RefusalCode;
use commons_port::journal::{Change, Table};
use commons_record::envelope::{Envelope, Record};
use commons_record::order::Order;
use commons_record::settlement::{Receipt, Voucher};
use commons_record::{Millis, Verified};
use commons_sim::engine::SimModel;
use commons_sim::seeds::for_each_seed;
use commons_sim::user::{Ending, question};
use commons_sim::world::NodeSpec;
use commons_sim::{Cluster, NodeId};

const PROVIDER: NodeId = NodeId(0);
const REQUESTER: NodeId = NodeId(1);

const SEEDS: [u64; 4] = [1, 2, 3, 4];

fn specs() -> Vec<NodeSpec> {
    vec![NodeSpec::with_model(SimModel::named("story")), NodeSpec::default()]
}

/// Fills a node's disk at the first record of that type, and makes room again after a while.
async fn full_at<T: Record>(cluster: &Cluster, node: NodeId, full_for: Millis) {
    let is_it = |change: &Change| {
        let envelope = change.value.as_deref().map(Envelope::decode);
        change.table == Table::Record
            && matches!(envelope, Some(Ok(envelope)) if envelope.kind == T::TYPE)
    };
    let disk = cluster.disk(node);
    disk.set_full_when(move |changes| changes.iter().any(is_it));
    cluster.until("the disk is full", Millis::from_secs(20), || disk.is_full()).await;
    cluster.sleep(full_for).await;
    disk.set_full(false);
}

/// How long the disk stays full: shorter and longer than it takes until records are offered.
const DURATIONS: [Millis; 2] = [Millis::from_secs(1), Millis::from_secs(95)];

/// One answer with a disk that fills up; then everything settles. The user's ending.
fn answer<T: Record>(node: NodeId, check: impl Fn(&Ending)) {
    for full_for in DURATIONS {
        for_each_seed(&SEEDS, |seed| {
            Cluster::play(seed, specs(), async |cluster| {
                let user = cluster.ask(REQUESTER, question("story", 50));
                full_at::<T>(cluster, node, full_for).await;
                let heard = user.ended().await;
                check(heard.ending.as_ref().expect("it has ended"));
                cluster.settles(Millis::from_secs(240)).await;
            });
        });
    }
}

fn is_done(ending: &Ending) {
    assert!(matches!(ending, Ending::Done(_)), "{ending:?}");
}

fn is_told(ending: &Ending) {
    let refusal = match ending {
        Ending::Refused(refusal) | Ending::Failed(refusal) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal.code, RefusalCode::StorageFailed, "{refusal}");
}

#[test]
fn a_provider_that_cannot_store_a_receipt_has_answered_and_settles_later() {
    answer::<Receipt>(PROVIDER, is_done);
}

#[test]
fn a_requester_that_cannot_store_a_receipt_has_its_answer_and_settles_later() {
    answer::<Receipt>(REQUESTER, is_done);
}

#[test]
fn a_provider_that_cannot_store_a_voucher_says_so_or_has_said_everything() {
    answer::<Voucher>(PROVIDER, |ending| match ending {
        // The voucher arrived when the last token was already on its way.
        Ending::Done(end) => assert_eq!(end.proof.receipt, None),
        other => is_told(other),
    });
}

#[test]
fn a_requester_that_cannot_store_a_voucher_says_so() {
    answer::<Voucher>(REQUESTER, is_told);
}

#[test]
fn a_requester_that_cannot_store_its_order_does_not_send_it() {
    let is_refused = |ending: &Ending| {
        is_told(ending);
        assert!(matches!(ending, Ending::Refused(_)), "{ending:?}");
    };
    answer::<Order>(REQUESTER, is_refused);
}

#[test]
fn a_provider_that_cannot_store_an_order_refuses_it() {
    for_each_seed(&SEEDS, |seed| {
        Cluster::play(seed, specs(), async |cluster| {
            cluster.disk(PROVIDER).set_full(true);
            let heard = cluster.ask(REQUESTER, question("story", 50)).ended().await;
            assert!(matches!(heard.ending, Some(Ending::Refused(_))), "{:?}", heard.ending);
            assert_eq!(heard.tokens.len(), 0);
            let book = cluster.book(PROVIDER).expect("it is readable");
            assert_eq!(book.of_type::<Order>().map(Verified::id).count(), 0);
            cluster.disk(PROVIDER).set_full(false);
            cluster.settles(Millis::from_secs(240)).await;
        });
    });
}
