//! The network splits while an answer is under way, and heals.

use commons_record::Millis;
use commons_sim::engine::SimModel;
use commons_sim::net::Link;
use commons_sim::seeds::for_each_seed;
use commons_sim::user::{Ending, question};
use commons_sim::world::NodeSpec;
use commons_sim::{Cluster, NodeId};

const PROVIDER: NodeId = NodeId(0);
const REQUESTER: NodeId = NodeId(1);

const SEEDS: [u64; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

fn specs() -> Vec<NodeSpec> {
    vec![NodeSpec::with_model(SimModel::named("story")), NodeSpec::default()]
}

#[test]
fn a_partition_ends_the_answer_and_the_receipts_settle_after_it() {
    for_each_seed(&SEEDS, |seed| {
        Cluster::play(seed, specs(), async |cluster| {
            let mut rng = cluster.rng("partition");
            let user = cluster.ask(REQUESTER, question("story", 60));
            user.tokens(rng.index(58) + 1).await;
            match rng.below(3) {
                0 => cluster.net().split(&[&[PROVIDER], &[REQUESTER]]),
                1 => cluster.net().cut(PROVIDER, REQUESTER),
                _ => cluster.net().cut(REQUESTER, PROVIDER),
            }
            let heard = user.ended().await;
            // The last tokens may have been on their way.
            let is_over = matches!(heard.ending, Some(Ending::Failed(_) | Ending::Done(_)));
            assert!(is_over, "{:?}", heard.ending);
            cluster.sleep(Millis(rng.within(1_000, 90_000))).await;
            cluster.net().heal();
            cluster.settles(Millis::from_secs(240)).await;
        });
    });
}

#[test]
fn a_short_partition_is_survived_or_told() {
    for_each_seed(&SEEDS, |seed| {
        Cluster::play(seed, specs(), async |cluster| {
            let mut rng = cluster.rng("partition");
            let user = cluster.ask(REQUESTER, question("story", 60));
            user.tokens(rng.index(40) + 1).await;
            cluster.net().split(&[&[PROVIDER], &[REQUESTER]]);
            cluster.sleep(Millis(rng.within(100, 3_000))).await;
            cluster.net().heal();
            let heard = user.ended().await;
            assert!(matches!(heard.ending, Some(Ending::Done(_))), "{:?}", heard.ending);
            cluster.settles(Millis::from_secs(240)).await;
        });
    });
}

#[test]
fn a_slow_link_slows_the_answer_and_breaks_nothing() {
    for_each_seed(&SEEDS, |seed| {
        Cluster::play(seed, specs(), async |cluster| {
            cluster.net().set_link(PROVIDER, REQUESTER, Link::SLOW);
            cluster.net().set_link(REQUESTER, PROVIDER, Link::SLOW);
            let heard = cluster.ask(REQUESTER, question("story", 60)).ended().await;
            assert!(matches!(heard.ending, Some(Ending::Done(_))), "{:?}", heard.ending);
            cluster.settles(Millis::from_secs(240)).await;
        });
    });
}
