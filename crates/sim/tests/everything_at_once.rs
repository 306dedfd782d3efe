//! Ten minutes of users and faults, all drawn from the seed; then peace, and everything settles.

use commons_record::Millis;
use commons_sim::engine::{Mishap, SimModel};
use commons_sim::entropy::Rng;
use commons_sim::net::Link;
use commons_sim::seeds::for_each_seed;
use commons_sim::user::{User, question};
use commons_sim::world::NodeSpec;
use commons_sim::{Cluster, Crash, NodeId};

const NODES: u32 = 4;

fn specs(seed: u64) -> Vec<NodeSpec> {
    let mut rng = Rng::new(seed, "specs", 0);
    let skew = |rng: &mut Rng| i64::try_from(rng.below(3_600_000)).unwrap_or(0) - 1_800_000;
    let mut specs: Vec<NodeSpec> =
        (0..NODES).map(|_| NodeSpec { skew_ms: skew(&mut rng), ..NodeSpec::default() }).collect();
    specs[0].models = vec![SimModel::named("story")];
    specs[1].models = vec![SimModel::named("story"), SimModel::named("verse")];
    specs
}

async fn misfortune(cluster: &Cluster, rng: &mut Rng) {
    let nodes = cluster.nodes();
    let (one, other) = (nodes[rng.index(nodes.len())], nodes[rng.index(nodes.len())]);
    match rng.below(12) {
        0 if cluster.is_running(one) => cluster.kill(one, Crash::Killed),
        1 if cluster.is_running(one) => cluster.kill(one, Crash::Silent),
        0..=3 if !cluster.is_running(one) => cluster.start(one).await,
        4 => cluster.net().cut(one, other),
        5 => cluster.net().split(&[&[one]]),
        6 | 7 => cluster.net().heal(),
        8 => cluster.net().set_link(one, other, Link::SLOW),
        9 => cluster.net().set_link(one, other, Link::ROOM),
        10 => cluster.engine(one).plan(Mishap::StallAfter(5)),
        11 => cluster.engine(one).plan(Mishap::FailAfter(7)),
        _ => {}
    }
}

fn someone_asks(cluster: &Cluster, rng: &mut Rng) -> Option<User> {
    let node = NodeId(u32::try_from(rng.below(u64::from(NODES))).unwrap_or(0));
    let model = if rng.chance(700) { "story" } else { "verse" };
    let tokens = u32::try_from(rng.within(1, 90)).unwrap_or(1);
    cluster.is_running(node).then(|| cluster.ask(node, question(model, tokens)))
}

#[test]
fn whatever_happens_for_ten_minutes_everything_settles_in_peace() {
    for_each_seed(&[1, 2], |seed| {
        Cluster::play(seed, specs(seed), async |cluster| {
            let mut rng = cluster.rng("fate");
            let mut users = Vec::new();
            while cluster.now() < Millis::from_secs(600) {
                cluster.sleep(Millis(rng.below(4_000))).await;
                users.extend(someone_asks(cluster, &mut rng));
                if rng.chance(400) {
                    misfortune(cluster, &mut rng).await;
                }
                if rng.chance(100) && !users.is_empty() {
                    drop(users.swap_remove(rng.index(users.len())));
                }
            }
            cluster.net().heal();
            for node in cluster.nodes() {
                if !cluster.is_running(node) {
                    cluster.start(node).await;
                }
            }
            for user in &users {
                let _heard = user.ended().await;
            }
            cluster.settles(Millis::from_secs(900)).await;
        });
    });
}
