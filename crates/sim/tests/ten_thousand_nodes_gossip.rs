//! Presence over a sparse mesh of ten thousand.
//!
//! The nodes are light: they judge and relay as the network does, and run nothing else. What is
//! measured is that gossip reaches all, soon, and at a cost that does not grow with the mesh
//! for any one node.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use commons_port::net::Acceptance;
use commons_record::Millis;
use commons_sim::seeds::for_each_seed;
use commons_sim::world::{NodeSpec, World};
use commons_sim::{Crash, NodeId};
use futures::StreamExt as _;

const NODES: u32 = 10_000;

/// Links that each node makes when it comes; as many others make one to it.
const LINKS: usize = 3;

const TOPIC: &str = "presence";

/// A node joins by linking to some that are there already.
fn grow(world: &World) {
    let mut rng = world.rng("graph");
    for index in 0..NODES {
        let node = world.add(NodeSpec::default());
        let ports = world.boot(node);
        for _ in 0..LINKS.min(index as usize) {
            let other = u32::try_from(rng.below(u64::from(index))).unwrap_or(0);
            world.net().connect(node, NodeId(other));
        }
        drop(ports);
    }
}

/// Who has heard what. A duplicate counts once.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<BTreeSet<Delivery>>>);

/// A node and what it heard.
type Delivery = (NodeId, Vec<u8>);

impl Heard {
    fn count(&self) -> usize {
        self.0.lock().expect("one thread").len()
    }
}

/// Subscribes everyone.
fn listen(world: &World) -> Heard {
    let heard = Heard::default();
    for node in world.nodes() {
        let mut messages = world.ports(node).net.subscribe(
            TOPIC.to_owned(),
            Arc::new(|message| match message.first() {
                Some(b'p') => Acceptance::Accept,
                _ => Acceptance::Reject,
            }),
        );
        let book = heard.clone();
        let listen = async move {
            while let Some(message) = messages.next().await {
                book.0.lock().expect("one thread").insert((node, message));
            }
        };
        let task = world.executor().spawn(Some(node), "listen", Box::pin(listen));
        // It listens for as long as the node lives.
        std::mem::forget(task);
    }
    heard
}

#[test]
fn a_presence_reaches_ten_thousand_nodes_within_two_seconds() {
    for_each_seed(&[1], |seed| {
        let world = World::new(seed);
        grow(&world);
        let heard = listen(&world);
        world.run(async {
            let mut rng = world.rng("authors");
            for number in 1..=5 {
                let author = NodeId(u32::try_from(rng.below(u64::from(NODES))).unwrap_or(0));
                let began = world.now();
                let presence = format!("presence {number} of {author}").into_bytes();
                let sent = world.ports(author).net.publish(TOPIC.to_owned(), presence);
                sent.await.expect("it is sent");
                let before = heard.count();
                let all = before + NODES as usize - 1;
                let reached = || heard.count() >= all;
                world.until("everyone has heard", Millis::from_secs(2), reached).await;
                eprintln!("seed {seed}: all heard after {}", world.now().since(began));
                world.sleep(Millis::from_secs(10)).await;
            }
        });
    });
}

#[test]
fn a_fifth_of_the_nodes_can_die_and_almost_all_others_hear() {
    for_each_seed(&[1], |seed| {
        let world = World::new(seed);
        grow(&world);
        let heard = listen(&world);
        world.run(async {
            let mut rng = world.rng("deaths");
            for node in world.nodes() {
                if node != NodeId(0) && rng.chance(200) {
                    world.crash(node, Crash::Silent);
                }
            }
            // The author does not hear itself.
            let alive = world.nodes().into_iter().filter(|it| world.is_running(*it)).count() - 1;
            let sent = world.ports(NodeId(0)).net.publish(TOPIC.to_owned(), b"presence".to_vec());
            sent.await.expect("it is sent");
            world.sleep(Millis::from_secs(10)).await;
            let reached = heard.count();
            eprintln!("seed {seed}: {reached} of {alive} heard");
            assert!(reached * 1000 >= alive * 995, "{reached} of {alive} heard");
        });
    });
}

#[test]
fn what_is_not_valid_goes_one_hop() {
    for_each_seed(&[1], |seed| {
        let world = World::new(seed);
        grow(&world);
        let heard = listen(&world);
        world.run(async {
            for number in 0..50_u8 {
                let noise = world.ports(NodeId(0)).net.publish(TOPIC.to_owned(), vec![number]);
                noise.await.expect("it is sent");
            }
            world.sleep(Millis::from_secs(10)).await;
        });
        assert_eq!(heard.count(), 0);
        let rejected = world.log().of_kind("gossip.rejected").len();
        // Each neighbour listens to the first few and then no more.
        assert_eq!(rejected, world.net().neighbour_count(NodeId(0)) * 16);
    });
}
