//! Calendars that are wrong, by up to an hour, and that jump.
//!
//! Lifetimes count from arrival and epochs tolerate a step (Rule R7), so a wrong calendar
//! changes nothing that matters.

use commons_record::Millis;
use commons_sim::engine::SimModel;
use commons_sim::seeds::for_each_seed;
use commons_sim::user::{Ending, question};
use commons_sim::world::NodeSpec;
use commons_sim::{Cluster, NodeId};

const REQUESTER: NodeId = NodeId(1);

const SEEDS: [u64; 3] = [1, 2, 3];

const HOUR_MS: i64 = 3_600_000;

/// How far the provider's and the requester's calendars are off.
const SKEWS: [(i64, i64); 4] =
    [(0, HOUR_MS), (HOUR_MS, 0), (HOUR_MS / 2, -HOUR_MS / 2), (-HOUR_MS / 2, HOUR_MS / 2)];

fn specs((provider, requester): (i64, i64)) -> Vec<NodeSpec> {
    let first = NodeSpec { skew_ms: provider, ..NodeSpec::with_model(SimModel::named("story")) };
    vec![first, NodeSpec { skew_ms: requester, ..NodeSpec::default() }]
}

async fn is_served(cluster: &Cluster) {
    let heard = cluster.ask(REQUESTER, question("story", 40)).ended().await;
    assert!(matches!(heard.ending, Some(Ending::Done(_))), "{:?}", heard.ending);
    cluster.settles(Millis::from_secs(60)).await;
}

#[test]
fn nodes_an_hour_apart_join_ask_and_settle() {
    for skews in SKEWS {
        for_each_seed(&SEEDS, |seed| {
            Cluster::play(seed, specs(skews), async |cluster| is_served(cluster).await);
        });
    }
}

#[test]
fn nodes_an_hour_apart_stay_together_across_an_epoch() {
    // An epoch is six hours; they are looked at around its end.
    for skews in [SKEWS[1], SKEWS[3]] {
        for_each_seed(&SEEDS[..1], |seed| {
            Cluster::play(seed, specs(skews), async |cluster| {
                cluster.set_end(Millis::from_secs(10 * 3_600));
                cluster.sleep(Millis::from_secs(4 * 3_600 + 1_800)).await;
                for _ in 0..12 {
                    is_served(cluster).await;
                    cluster.sleep(Millis::from_secs(900)).await;
                }
            });
        });
    }
}

#[test]
fn a_calendar_that_jumps_within_an_hour_loses_nobody() {
    for_each_seed(&SEEDS, |seed| {
        Cluster::play(seed, specs((0, 0)), async |cluster| {
            let mut rng = cluster.rng("jumps");
            for _ in 0..8 {
                for node in cluster.nodes() {
                    let skew = i64::try_from(rng.below(3_600_000)).unwrap_or(0) - HOUR_MS / 2;
                    cluster.set_skew(node, skew);
                }
                is_served(cluster).await;
                cluster.sleep(Millis::from_secs(rng.below(600))).await;
            }
        });
    });
}
