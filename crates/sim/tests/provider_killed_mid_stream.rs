//! The provider dies while it answers.
//!
//! The user is told within five seconds, the records cover what was delivered and no more (an
//! invariant of every run), and when the provider is back both sides come to the same receipt.

use commons_record::Millis;
use commons_sim::engine::SimModel;
use commons_sim::seeds::for_each_seed;
use commons_sim::user::{Ending, question};
use commons_sim::world::NodeSpec;
use commons_sim::{Cluster, Crash, NodeId};

const PROVIDER: NodeId = NodeId(0);
const REQUESTER: NodeId = NodeId(1);

const SEEDS: [u64; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

fn specs() -> Vec<NodeSpec> {
    vec![NodeSpec::with_model(SimModel::named("story")), NodeSpec::default()]
}

#[test]
fn the_user_is_told_within_five_seconds_and_the_records_settle_later() {
    for_each_seed(&SEEDS, |seed| {
        Cluster::play(seed, specs(), async |cluster| {
            let mut rng = cluster.rng("crash");
            let user = cluster.ask(REQUESTER, question("story", 60));
            user.tokens(rng.index(55) + 1).await;
            let crash = if rng.chance(500) { Crash::Killed } else { Crash::Silent };
            let crashed_at = cluster.now();
            cluster.kill(PROVIDER, crash);
            let heard = user.ended().await;
            // The last tokens may have been on their way: then only the receipt is missing.
            let is_whole = heard.done().is_some_and(|end| end.proof.receipt.is_none());
            let is_told = matches!(heard.ending, Some(Ending::Failed(_)));
            assert!(is_told || is_whole && heard.tokens.len() == 60, "{:?}", heard.ending);
            let told_after = cluster.now().since(crashed_at);
            assert!(told_after <= Millis::from_secs(5), "told after {told_after}");

            cluster.sleep(Millis(rng.below(20_000))).await;
            cluster.start(PROVIDER).await;
            cluster.settles(Millis::from_secs(240)).await;
        });
    });
}

#[test]
fn whenever_the_provider_dies_the_request_ends_and_settles() {
    for_each_seed(&SEEDS, |seed| {
        Cluster::play(seed, specs(), async |cluster| {
            let mut rng = cluster.rng("crash");
            let user = cluster.ask(REQUESTER, question("story", 40));
            cluster.sleep(Millis(rng.below(2_500))).await;
            cluster.kill(PROVIDER, Crash::Killed);
            cluster.sleep(Millis(rng.below(8_000))).await;
            cluster.start(PROVIDER).await;
            let _heard = user.ended().await;
            cluster.settles(Millis::from_secs(240)).await;
        });
    });
}
