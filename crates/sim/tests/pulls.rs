//! The node's own shells around the machines: real streams of the simulated network, real bytes.

use std::sync::{Arc, Mutex};

use commons_node::blobs::{
    Pull, PullEvent, PullPorts, PullSpec, Rules, SeedPorts, Seeding, Source, protocol, pull,
};
use commons_port::blobs::Blobs as _;
use commons_record::{Hash, Millis, PeerId};
use commons_sim::blobs::MemoryBlobs;
use commons_sim::seeds::for_each_seed;
use commons_sim::world::{NodeSpec, World};
use commons_sim::{Crash, NodeId};
use commons_swarm::fetch::{Budget, Nearness, Stall};
use commons_swarm::wire::{Refusal, RefuseCode};
use futures::StreamExt as _;

const MESH: Hash = Hash::from_bytes([7; 32]);

/// Everyone is a member, and one blob may be kept back.
struct Open {
    kept: Option<Hash>,
}

impl Rules for Open {
    fn admits(&self, _peer: &PeerId) -> bool {
        true
    }

    fn gives(&self, _peer: &PeerId, blob: &Hash) -> Result<(), Refusal> {
        match self.kept {
            Some(kept) if kept == *blob => {
                Err(Refusal::new(RefuseCode::Policy, "rule: licences = permissive"))
            }
            _ => Ok(()),
        }
    }

    fn is_pulling(&self, _blob: &Hash) -> bool {
        true
    }
}

fn content(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

struct Place {
    node: NodeId,
    blobs: Arc<MemoryBlobs>,
    seeding: Arc<Seeding>,
}

fn seeder(world: &World, blobs: Arc<MemoryBlobs>, kept: Option<Hash>) -> Place {
    let node = world.add(NodeSpec::default());
    let ports = world.boot(node);
    let seeds = SeedPorts {
        net: ports.net.clone(),
        blobs: blobs.clone(),
        clock: ports.clock.clone(),
        spawn: ports.spawn.clone(),
    };
    let seeding = Seeding::start(seeds, Arc::new(Open { kept }), protocol(&MESH));
    Place { node, blobs, seeding }
}

fn begin(world: &World, at: &Place, blob: Hash, size: u64, from: &[&Place]) -> Pull {
    let ports = world.ports(at.node);
    let ports = PullPorts {
        net: ports.net.clone(),
        blobs: at.blobs.clone(),
        clock: ports.clock.clone(),
        spawn: ports.spawn.clone(),
        budget: Arc::new(Mutex::new(Budget::default())),
    };
    let near = Nearness::Wan;
    let sources: Vec<_> =
        from.iter().map(|it| Source { peer: world.peer(it.node), near }).collect();
    // They are found again and again, as a directory is asked again.
    let sources = futures::stream::iter(sources.repeat(3)).boxed();
    pull(ports, PullSpec { blob, size, seed: 3, sources, protocols: protocol(&MESH) })
}

/// Meets everyone with everyone, so that streams find their way.
fn introduce(world: &World) {
    for one in world.nodes() {
        for other in world.nodes().into_iter().filter(|it| *it != one) {
            world.net().introduce(one, other);
        }
    }
}

async fn finish(at: &Place, mut pull: Pull) -> Vec<PullEvent> {
    let mut events = Vec::new();
    while let Some(event) = pull.next().await {
        events.push(event);
    }
    assert!(events.contains(&PullEvent::Done), "{:?} at {}", events.last(), at.node);
    events
}

#[test]
fn a_blob_comes_whole_from_three_seeders_of_whom_one_lies() {
    for_each_seed(&[1, 2], |seed| {
        let world = World::new(seed);
        let bytes = content((9 << 20) + 17);
        let liar = seeder(&world, MemoryBlobs::lying(1), None);
        let others = [MemoryBlobs::new(), MemoryBlobs::new()].map(|it| seeder(&world, it, None));
        let blob = liar.blobs.take_in(&bytes);
        for other in &others {
            assert_eq!(other.blobs.take_in(&bytes), blob);
        }
        let at = seeder(&world, MemoryBlobs::new(), None);
        introduce(&world);
        world.run(async {
            let from = [&liar, &others[0], &others[1]];
            let pull = begin(&world, &at, blob, bytes.len() as u64, &from);
            let events = finish(&at, pull).await;
            let banned: Vec<_> = events
                .iter()
                .filter_map(|it| match it {
                    PullEvent::Banned { peer, .. } => Some(*peer),
                    _ => None,
                })
                .collect();
            assert_eq!(banned, [world.peer(liar.node)]);
            assert_eq!(at.blobs.content(blob), Some(bytes.clone()));
        });
    });
}

#[test]
fn whoever_pulls_gives_what_it_holds_while_it_pulls() {
    for_each_seed(&[1], |seed| {
        let world = World::new(seed);
        let bytes = content(12 << 20);
        let source = seeder(&world, MemoryBlobs::new(), None);
        let blob = source.blobs.take_in(&bytes);
        let [one, two] = [(); 2].map(|()| seeder(&world, MemoryBlobs::new(), None));
        introduce(&world);
        world.run(async {
            source.seeding.cap(Some(2 << 20));
            let mut first = begin(&world, &one, blob, bytes.len() as u64, &[&source]);
            // `two` knows only `one`, which holds nothing yet.
            world.sleep(Millis(500)).await;
            let second = begin(&world, &two, blob, bytes.len() as u64, &[&one]);
            let relay = async {
                while let Some(event) = first.next().await {
                    if let PullEvent::Held { piece, .. } = event {
                        one.seeding.have(blob, piece);
                    }
                }
                // The last piece is told by the end.
                (0..12).for_each(|piece| one.seeding.have(blob, piece));
            };
            futures::join!(relay, finish(&two, second));
            assert_eq!(two.blobs.content(blob), Some(bytes.clone()));
        });
    });
}

#[test]
fn a_pull_goes_on_when_its_seeder_comes_back() {
    for_each_seed(&[1], |seed| {
        let world = World::new(seed);
        let bytes = content(6 << 20);
        let source = seeder(&world, MemoryBlobs::new(), None);
        let blob = source.blobs.take_in(&bytes);
        let at = seeder(&world, MemoryBlobs::new(), None);
        introduce(&world);
        world.run(async {
            source.seeding.cap(Some(1 << 20));
            let mut pull = begin(&world, &at, blob, bytes.len() as u64, &[&source]);
            while !matches!(pull.next().await, Some(PullEvent::Held { .. })) {}
            world.crash(source.node, Crash::Killed);
            while !matches!(pull.next().await, Some(PullEvent::Stalled(Stall::NoPeers))) {}
            drop(pull);
            let back = seeder(&world, source.blobs.clone(), None);
            introduce(&world);
            let held = at.blobs.info(blob).await.unwrap().unwrap().pieces_held;
            assert!(held > 0, "what came is kept");
            let pull = begin(&world, &at, blob, bytes.len() as u64, &[&back]);
            let events = finish(&at, pull).await;
            let came = events.iter().filter(|it| matches!(it, PullEvent::Held { .. })).count();
            assert!((came as u64) < 6 - held + 1, "{came} came again after {held}");
            assert_eq!(at.blobs.content(blob), Some(bytes.clone()));
        });
    });
}

/// Rule N1: a blob that policy keeps back looks like one that is not held, and nobody is banned.
#[test]
fn a_blob_that_is_kept_back_is_not_given() {
    for_each_seed(&[1], |seed| {
        let world = World::new(seed);
        let bytes = content(2 << 20);
        let blobs = MemoryBlobs::new();
        let blob = blobs.take_in(&bytes);
        let source = seeder(&world, blobs, Some(blob));
        let at = seeder(&world, MemoryBlobs::new(), None);
        introduce(&world);
        world.run(async {
            let mut pull = begin(&world, &at, blob, bytes.len() as u64, &[&source]);
            let event = pull.next().await;
            assert_eq!(event, Some(PullEvent::Stalled(Stall::NoPeers)));
            world.sleep(Millis::from_secs(60)).await;
            assert_eq!(at.blobs.info(blob).await.unwrap().unwrap().pieces_held, 0);
        });
    });
}
