//! Two nodes, one model, no faults: the answer, the records, and the same story twice.

use commons_node::api::{NodeApi as _, Opening};
use commons_record::Hash;
use commons_record::evidence::Evidence;
use commons_sim::engine::SimModel;
use commons_sim::seeds::for_each_seed;
use commons_sim::user::question;
use commons_sim::world::NodeSpec;
use commons_sim::{Cluster, NodeId};

const PROVIDER: NodeId = NodeId(0);
const REQUESTER: NodeId = NodeId(1);

fn specs() -> Vec<NodeSpec> {
    vec![NodeSpec::with_model(SimModel::named("story")), NodeSpec::default()]
}

#[test]
fn an_answer_comes_over_the_mesh_and_both_copies_of_its_receipt_hold() {
    for_each_seed(&[1, 2, 3], |seed| {
        Cluster::play(seed, specs(), async |cluster| {
            let heard = cluster.ask(REQUESTER, question("story", 50)).ended().await;
            let end = heard.done().expect("it is complete");
            let seed32 = end.proof.seed.expect("it is known").seed32(&end.proof.request);
            let expected = SimModel::named("story").answer(&heard.ask.prompt.input, &seed32, 50);
            let expected: Vec<u32> = expected.tokens.iter().map(|token| token.id).collect();
            assert_eq!(heard.tokens, expected, "the tokens follow from the seed");
            assert_eq!(end.proof.peer, cluster.peer(PROVIDER));

            let receipt = end.proof.receipt.expect("it came in time").to_string();
            for node in [PROVIDER, REQUESTER] {
                let file = cluster.node(node).evidence(receipt.clone(), Opening::Include).await;
                let file = Evidence::decode(&file.expect("it is held")).expect("it is evidence");
                assert!(file.verify().expect("it holds").is_two_sided());
            }
        });
    });
}

#[test]
fn one_seed_is_one_story_of_real_nodes() {
    let story = |seed| -> (Hash, u64) {
        let cluster = Cluster::new(seed, specs());
        cluster.run(async {
            cluster.meet().await;
            let _heard = cluster.ask(REQUESTER, question("story", 40)).ended().await;
        });
        (cluster.log().digest(), cluster.log().count())
    };
    for_each_seed(&[1, 2], |seed| {
        assert_eq!(story(seed), story(seed));
        assert_ne!(story(seed), story(seed + 1));
    });
}
