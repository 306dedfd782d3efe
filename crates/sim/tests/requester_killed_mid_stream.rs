//! The requester dies while it is being answered.
//!
//! The provider stops within its stall time and claims the last voucher, unacknowledged. When
//! the requester is back, it takes that receipt; if it had signed more, it offers that first.

use commons_node::api::NodeApi as _;
use commons_record::Millis;
use commons_record::settlement::Receipt;
use commons_sim::engine::SimModel;
use commons_sim::seeds::for_each_seed;
use commons_sim::user::{Ending, question};
use commons_sim::world::NodeSpec;
use commons_sim::{Cluster, Crash, NodeId};

const PROVIDER: NodeId = NodeId(0);
const REQUESTER: NodeId = NodeId(1);

const SEEDS: [u64; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

fn specs() -> Vec<NodeSpec> {
    let model = SimModel { stops_after: 400, ..SimModel::named("story") };
    vec![NodeSpec::with_model(model), NodeSpec::default()]
}

fn receipts(cluster: &Cluster) -> Vec<Receipt> {
    let book = cluster.book(PROVIDER).expect("it is readable");
    book.of_type::<Receipt>().map(|receipt| receipt.body().clone()).collect()
}

#[test]
fn the_provider_stops_and_claims_the_last_voucher() {
    for_each_seed(&SEEDS, |seed| {
        Cluster::play(seed, specs(), async |cluster| {
            let mut rng = cluster.rng("crash");
            let user = cluster.ask(REQUESTER, question("story", 400));
            user.tokens(rng.index(200) + 40).await;
            let crash = if rng.chance(500) { Crash::Killed } else { Crash::Silent };
            cluster.kill(REQUESTER, crash);
            assert!(matches!(user.ended().await.ending, Some(Ending::Lost)));

            let is_written = || !receipts(cluster).is_empty();
            cluster.until("the receipt is written", Millis::from_secs(40), is_written).await;
            let receipt = receipts(cluster).remove(0);
            // The voucher that was on its way is lost; what arrived covers whole steps.
            let claimed = receipt.usage.completion_tokens;
            assert!(!receipt.acknowledged && claimed.is_multiple_of(32), "{receipt:?}");
            let computed = cluster.node(PROVIDER).counters().tokens_computed;
            cluster.sleep(Millis::from_secs(30)).await;
            assert_eq!(cluster.node(PROVIDER).counters().tokens_computed, computed, "it stopped");

            cluster.start(REQUESTER).await;
            cluster.settles(Millis::from_secs(240)).await;
        });
    });
}

#[test]
fn whenever_the_requester_dies_the_exchange_settles() {
    for_each_seed(&SEEDS, |seed| {
        Cluster::play(seed, specs(), async |cluster| {
            let mut rng = cluster.rng("crash");
            let user = cluster.ask(REQUESTER, question("story", 40));
            cluster.sleep(Millis(rng.below(2_500))).await;
            cluster.kill(REQUESTER, Crash::Killed);
            drop(user);
            cluster.sleep(Millis(rng.below(60_000))).await;
            cluster.start(REQUESTER).await;
            cluster.settles(Millis::from_secs(240)).await;
        });
    });
}

#[test]
fn a_user_who_hangs_up_pays_for_what_came_and_no_more_is_computed() {
    for_each_seed(&SEEDS, |seed| {
        Cluster::play(seed, specs(), async |cluster| {
            let user = cluster.ask(REQUESTER, question("story", 400));
            user.tokens(cluster.rng("hang up").index(100) + 1).await;
            drop(user);
            cluster.settles(Millis::from_secs(60)).await;
            let computed = cluster.node(PROVIDER).counters().tokens_computed;
            let claimed = receipts(cluster).remove(0).usage.completion_tokens;
            assert!(u64::from(claimed) <= computed && computed < 400, "{claimed} of {computed}");
        });
    });
}
