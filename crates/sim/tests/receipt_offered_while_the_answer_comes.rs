//! The provider has long finished while its tokens still crawl to the requester.
//!
//! It waits for the last voucher in vain, claims the one that it has, and offers that receipt on
//! a stream of its own, where it overtakes the answer. The requester's exchange is still under
//! way then, and writes its entry again afterwards: it must not forget the receipt.

use commons_record::Millis;
use commons_sim::clock::Micros;
use commons_sim::engine::SimModel;
use commons_sim::net::Link;
use commons_sim::seeds::for_each_seed;
use commons_sim::user::{Ending, question};
use commons_sim::world::NodeSpec;
use commons_sim::{Cluster, NodeId};

const PROVIDER: NodeId = NodeId(0);
const REQUESTER: NodeId = NodeId(1);

/// A quarter of a second for each token, which takes twenty milliseconds to compute.
const CRAWL: Link = Link { latency: Micros(50_000), bytes_per_s: 1_000, ..Link::ROOM };

#[test]
fn a_receipt_that_overtakes_its_answer_is_kept() {
    for_each_seed(&[1, 2, 3, 4], |seed| {
        let model = SimModel { stops_after: 110, ..SimModel::named("story") };
        let specs = vec![NodeSpec::with_model(model), NodeSpec::default()];
        Cluster::play(seed, specs, async |cluster| {
            // So that the time at which records are offered falls into the answer.
            cluster.sleep(Millis::from_secs(15)).await;
            cluster.net().set_link(PROVIDER, REQUESTER, CRAWL);
            let heard = cluster.ask(REQUESTER, question("story", 200)).ended().await;
            assert!(matches!(heard.ending, Some(Ending::Done(_))), "{:?}", heard.ending);
            assert_eq!(heard.tokens.len(), 110);
            cluster.settles(Millis::from_secs(240)).await;
        });
    });
}
