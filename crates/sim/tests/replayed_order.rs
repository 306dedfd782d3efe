//! An order that was served once, sent again: Rule E1.

use commons_exchange::message::{ToRequester, WireCode};
use commons_record::Millis;
use commons_record::settlement::Receipt;
use commons_sim::engine::SimModel;
use commons_sim::mocks::peer::RawPeer;
use commons_sim::mocks::replayer;
use commons_sim::seeds::for_each_seed;
use commons_sim::world::NodeSpec;
use commons_sim::{Cluster, Crash, NodeId};

const PROVIDER: NodeId = NodeId(0);
const OTHER: NodeId = NodeId(1);
const MOCK: NodeId = NodeId(2);

const SEEDS: [u64; 4] = [1, 2, 3, 4];

fn specs() -> Vec<NodeSpec> {
    let model = NodeSpec::with_model(SimModel::named("story"));
    vec![model.clone(), model, NodeSpec::default()]
}

fn is_replay(said: &Result<ToRequester, String>) -> bool {
    matches!(said, Ok(ToRequester::Refused(refusal)) if refusal.code == WireCode::ReplayedOrder)
}

#[test]
fn an_order_is_served_once_even_across_a_restart() {
    for_each_seed(&SEEDS, |seed| {
        Cluster::play(seed, specs(), async |cluster| {
            let model = SimModel::named("story").loaded.model;
            let mock = RawPeer::take_over(cluster, MOCK);
            cluster.sleep(Millis::from_secs(3)).await;
            let (recording, _receipt) =
                replayer::record(&mock, PROVIDER, model).await.expect("it is served once");
            let said = replayer::replay(&mock, PROVIDER, &recording).await;
            assert!(is_replay(&said), "{said:?}");

            cluster.kill(PROVIDER, Crash::Killed);
            cluster.start(PROVIDER).await;
            cluster.sleep(Millis::from_secs(5)).await;
            let said = replayer::replay(&mock, PROVIDER, &recording).await;
            assert!(is_replay(&said), "after a restart: {said:?}");

            let said = replayer::replay(&mock, OTHER, &recording).await;
            let is_wrong = matches!(&said, Ok(ToRequester::Refused(refusal))
                if refusal.code == WireCode::WrongParty);
            assert!(is_wrong, "by another provider: {said:?}");

            let book = cluster.book(PROVIDER).expect("it is readable");
            assert_eq!(book.of_type::<Receipt>().count(), 1);
        });
    });
}

#[test]
fn an_order_that_is_sent_twice_at_once_is_served_once() {
    for_each_seed(&SEEDS, |seed| {
        Cluster::play(seed, specs(), async |cluster| {
            let model = SimModel::named("story").loaded.model;
            let mock = RawPeer::take_over(cluster, MOCK);
            cluster.sleep(Millis::from_secs(3)).await;
            let order = replayer::unsent(&mock, PROVIDER, model);
            let first = replayer::replay(&mock, PROVIDER, &order);
            let second = replayer::replay(&mock, PROVIDER, &order);
            let (first, second) = futures::future::join(first, second).await;
            let accepted = [&first, &second]
                .iter()
                .filter(|it| matches!(it, Ok(ToRequester::Accepted { .. })))
                .count();
            assert_eq!(accepted, 1, "{first:?}, {second:?}");
            assert!(is_replay(&first) || is_replay(&second), "{first:?}, {second:?}");
        });
    });
}

#[test]
fn another_member_cannot_send_an_order_that_it_saw() {
    for_each_seed(&SEEDS, |seed| {
        Cluster::play(seed, specs(), async |cluster| {
            let model = SimModel::named("story").loaded.model;
            let mock = RawPeer::take_over(cluster, MOCK);
            cluster.sleep(Millis::from_secs(3)).await;
            let order = replayer::unsent(&mock, PROVIDER, model);
            let thief = RawPeer::take_over(cluster, OTHER);
            cluster.sleep(Millis::from_secs(3)).await;
            let said = replayer::replay(&thief, PROVIDER, &order).await;
            let is_wrong = matches!(&said, Ok(ToRequester::Refused(refusal))
                if refusal.code == WireCode::WrongParty);
            assert!(is_wrong, "{said:?}");
        });
    });
}
