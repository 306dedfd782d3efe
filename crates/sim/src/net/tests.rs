//! The network alone: streams, back-pressure, ends, cuts, crashes and gossip.

use std::sync::atomic::{AtomicUsize, Ordering};

use commons_port::net::Acceptance;
use commons_record::Millis;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use proptest::prelude::*;

use super::*;
use crate::world::{NodeSpec, World};
use commons_node::Ports;

fn protocol() -> Protocol {
    Protocol::new("/test/1").expect("it is a protocol")
}

/// A world of `count` running nodes that know the first.
fn world(seed: u64, count: u32) -> (World, Vec<Ports>) {
    let world = World::new(seed);
    let ports: Vec<Ports> =
        (0..count).map(|_| world.boot(world.add(NodeSpec::default()))).collect();
    for node in 1..count {
        world.net().introduce(NodeId(node), NodeId(0));
    }
    (world, ports)
}

/// A stream from the second node to the first.
async fn stream(world: &World, ports: &[Ports]) -> (Opened, Incoming) {
    let mut accepted = ports[0].net.accept(vec![protocol()]);
    let opened = ports[1].net.open(world.peer(NodeId(0)), vec![protocol()], Path::Direct).await;
    let incoming = accepted.next().await.expect("a stream comes");
    (opened.expect("it opens"), incoming)
}

#[test]
fn bytes_arrive_in_order_and_end_where_the_writer_closed() {
    let (world, ports) = world(1, 2);
    world.run(async {
        let (mut near, mut far) = stream(&world, &ports).await;
        assert_eq!(far.peer, world.peer(NodeId(1)));
        let sent: Vec<u8> = (0..200_000_u32).map(|it| it.to_le_bytes()[0]).collect();
        let write = async {
            near.stream.write_all(&sent).await.expect("the peer reads");
            near.stream.close().await.expect("it closes");
        };
        let read = async {
            let mut got = Vec::new();
            far.stream.read_to_end(&mut got).await.expect("it ends");
            got
        };
        let ((), got) = futures::future::join(write, read).await;
        assert!(got == sent, "{} of {} bytes, or changed", got.len(), sent.len());
        // Half-closed: the other direction still carries.
        far.stream.write_all(b"thanks").await.expect("it is open");
        let mut answer = [0; 6];
        near.stream.read_exact(&mut answer).await.expect("it arrives");
        assert_eq!(&answer, b"thanks");
        let again = near.stream.write_all(b"more").await;
        assert!(again.is_err(), "a closed half takes nothing");
    });
}

#[test]
fn a_writer_is_never_further_ahead_than_the_window() {
    let (world, ports) = world(2, 2);
    world.run(async {
        let (mut near, mut far) = stream(&world, &ports).await;
        let written = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&written);
        let task = world.executor().spawn(
            None,
            "writer",
            Box::pin(async move {
                while let Ok(part) = near.stream.write(&[7; 5_000]).await {
                    count.fetch_add(part, Ordering::Relaxed);
                }
            }),
        );
        world.sleep(Millis::from_secs(60)).await;
        assert_eq!(written.load(Ordering::Relaxed), WINDOW, "nobody reads");
        let mut part = vec![0; 10_000];
        far.stream.read_exact(&mut part).await.expect("there is enough");
        world.sleep(Millis::from_secs(60)).await;
        assert_eq!(written.load(Ordering::Relaxed), WINDOW + 10_000);
        drop(task);
    });
}

#[test]
fn a_dropped_stream_is_a_reset_for_its_peer() {
    let (world, ports) = world(3, 2);
    world.run(async {
        let (near, mut far) = stream(&world, &ports).await;
        drop(near);
        let read = far.stream.read(&mut [0; 8]).await;
        assert!(read.is_err(), "{read:?}");
        assert!(far.stream.write(b"anyone?").await.is_err());
    });
}

/// How long it takes until the provider side of a stream sees that its peer crashed.
fn noticed_after(seed: u64, crash: Crash) -> Millis {
    let (world, ports) = world(seed, 2);
    world.run(async {
        let (near, mut far) = stream(&world, &ports).await;
        let _held = near;
        let began = world.now();
        world.crash(NodeId(1), crash);
        let read = far.stream.read(&mut [0; 8]).await;
        assert!(read.is_err(), "{read:?}");
        world.now().since(began)
    })
}

#[test]
fn a_killed_node_resets_its_streams_at_once_and_a_silent_one_late() {
    assert!(noticed_after(4, Crash::Killed) < Millis(200));
    assert!(noticed_after(4, Crash::Silent) >= IDLE_MAX.as_millis());
}

#[test]
fn a_short_cut_delays_and_a_long_one_ends_the_connection_until_it_is_dialled_again() {
    let (world, ports) = world(5, 2);
    world.run(async {
        let mut events = ports[0].net.peer_events();
        let (mut near, mut far) = stream(&world, &ports).await;
        assert!(matches!(events.next().await, Some(PeerEvent::Connected { .. })));

        world.net().cut(NodeId(1), NodeId(0));
        near.stream.write_all(b"late").await.expect("it is taken");
        world.sleep(Millis::from_secs(5)).await;
        world.net().heal();
        let mut got = [0; 4];
        far.stream.read_exact(&mut got).await.expect("it arrives after all");

        world.net().split(&[&[NodeId(0)], &[NodeId(1)]]);
        let error = far.stream.read(&mut got).await;
        assert!(error.is_err(), "{error:?}");
        assert!(matches!(events.next().await, Some(PeerEvent::Disconnected { .. })));
        let refused =
            ports[1].net.open(world.peer(NodeId(0)), vec![protocol()], Path::Direct).await;
        assert!(matches!(refused, Err(NetError::Unreachable { .. })), "{refused:?}");
        world.net().heal();
        assert!(matches!(events.next().await, Some(PeerEvent::Connected { .. })));
    });
}

#[test]
fn a_peer_is_not_reached_without_an_address_a_protocol_or_a_process() {
    let (world, ports) = world(6, 3);
    world.run(async {
        let open = |from: usize, to: u32| {
            ports[from].net.open(world.peer(NodeId(to)), vec![protocol()], Path::Direct)
        };
        assert!(matches!(open(1, 2).await, Err(NetError::Unreachable { .. })), "no address");
        assert!(matches!(open(1, 1).await, Err(NetError::Unreachable { .. })), "itself");
        assert!(matches!(open(1, 0).await, Err(NetError::NoCommonProtocol { .. })));
        world.crash(NodeId(0), Crash::Killed);
        assert!(matches!(open(1, 0).await, Err(NetError::Unreachable { .. })), "no process");
        assert!(matches!(open(0, 1).await, Err(NetError::Unreachable { .. } | NetError::Closed)));
    });
}

#[test]
fn the_newest_common_version_is_spoken() {
    let (world, ports) = world(7, 2);
    world.run(async {
        let newer = Protocol::new("/test/2").expect("it is a protocol");
        let mut accepted = ports[0].net.accept(vec![protocol()]);
        let offered = vec![newer, protocol()];
        let opened = ports[1].net.open(world.peer(NodeId(0)), offered, Path::Direct).await;
        assert_eq!(opened.expect("it opens").protocol, protocol());
        assert_eq!(accepted.next().await.expect("it comes").protocol, protocol());
    });
}

#[test]
fn streams_beyond_the_backlog_are_reset() {
    let (world, ports) = world(8, 2);
    world.run(async {
        let _accepted = ports[0].net.accept(vec![protocol()]);
        let mut streams = Vec::new();
        for _ in 0..65 {
            let peer = world.peer(NodeId(0));
            streams.push(
                ports[1].net.open(peer, vec![protocol()], Path::Direct).await.expect("it opens"),
            );
        }
        let last = streams.last_mut().expect("there is one").stream.read(&mut [0; 1]).await;
        assert!(last.is_err(), "{last:?}");
    });
}

#[test]
fn addresses_are_for_one_peer_and_well_formed() {
    let (world, ports) = world(9, 3);
    let addr = world.net().addr(NodeId(2));
    assert!(ports[1].net.add_addrs(world.peer(NodeId(2)), vec![addr]).is_ok());
    let bad = ports[1].net.add_addrs(world.peer(NodeId(2)), vec!["nowhere".to_owned()]);
    assert!(matches!(bad, Err(NetError::BadAddr { .. })), "{bad:?}");
    world.run(world.sleep(Millis(500)));
    assert_eq!(world.net().neighbour_count(NodeId(2)), 2);
}

#[test]
fn a_node_that_cannot_be_dialled_is_reached_over_its_own_connection() {
    let (world, ports) = world(10, 3);
    world.net().set_dialable(NodeId(1), false);
    world.run(async {
        let addrs = vec![world.net().addr(NodeId(1))];
        ports[2].net.add_addrs(world.peer(NodeId(1)), addrs).expect("it is an address");
        world.sleep(Millis(500)).await;
        let _accepted = ports[1].net.accept(vec![protocol()]);
        let open = |from: usize| {
            ports[from].net.open(world.peer(NodeId(1)), vec![protocol()], Path::Direct)
        };
        assert!(open(0).await.is_ok(), "it had dialled this one");
        assert!(open(2).await.is_err(), "nobody can dial it");
    });
}

fn subscribe(ports: &Ports, verdict: Acceptance) -> BoxStream<'static, Vec<u8>> {
    ports.net.subscribe("topic".to_owned(), Arc::new(move |_| verdict))
}

#[test]
fn gossip_reaches_all_over_several_hops_and_the_author_not() {
    let (world, ports) = world(11, 6);
    world.net().set_default_link(Link::ROOM);
    world.run(async {
        world.sleep(Millis(500)).await;
        let mut heard: Vec<_> = ports.iter().map(|it| subscribe(it, Acceptance::Accept)).collect();
        let message = ports[3].net.publish("topic".to_owned(), b"hello".to_vec());
        message.await.expect("it is sent");
        for listener in heard.iter_mut().enumerate().filter(|(index, _)| *index != 3) {
            assert_eq!(listener.1.next().await.as_deref(), Some(b"hello".as_slice()));
        }
        let large = ports[3].net.publish("topic".to_owned(), vec![0; GOSSIP_TOO_LARGE]).await;
        assert!(matches!(large, Err(NetError::TooLarge { .. })));
    });
    assert_eq!(
        world
            .log()
            .of_kind("gossip.delivered")
            .iter()
            .filter(|it| it.node == Some(NodeId(3)))
            .count(),
        0
    );
}

const GOSSIP_TOO_LARGE: usize = commons_port::net::GOSSIP_SIZE_MAX + 1;

#[test]
fn what_a_hub_does_not_accept_does_not_travel_on() {
    for verdict in [Acceptance::Ignore, Acceptance::Reject] {
        let (world, ports) = world(12, 3);
        world.net().set_default_link(Link::ROOM);
        world.run(async {
            world.sleep(Millis(500)).await;
            let _hub = subscribe(&ports[0], verdict);
            let _leaf = subscribe(&ports[2], Acceptance::Accept);
            let sent = ports[1].net.publish("topic".to_owned(), b"hello".to_vec()).await;
            assert!(sent.is_ok());
            world.sleep(Millis::from_secs(5)).await;
        });
        assert!(world.log().of_kind("gossip.delivered").is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is written in whatever parts over whatever link, the same bytes arrive, up to
    /// the point where the writer was killed and not beyond.
    #[test]
    fn what_arrives_is_a_first_part_of_what_was_written(
        seed: u64,
        parts in prop::collection::vec(1_usize..30_000, 1..12),
        killed_after_ms in prop::option::of(0_u64..3_000),
    ) {
        let (world, ports) = world(seed, 2);
        let sent: Vec<u8> = (0..parts.iter().sum()).map(|it| it.to_le_bytes()[0]).collect();
        let (got, ended) = world.run(async {
            let (mut near, mut far) = stream(&world, &ports).await;
            let (bytes, parts) = (sent.clone(), parts.clone());
            let task = world.executor().spawn(Some(NodeId(1)), "writer", Box::pin(async move {
                let mut rest = bytes.as_slice();
                for part in parts {
                    let (now, later) = rest.split_at(part);
                    rest = later;
                    if near.stream.write_all(now).await.is_err() {
                        return;
                    }
                }
                let _ = near.stream.close().await;
                std::future::pending::<()>().await;
            }));
            let executor = world.executor().clone();
            let kill = async {
                if let Some(after) = killed_after_ms {
                    executor.sleep(Micros::from_millis(after)).await;
                    world.crash(NodeId(1), Crash::Killed);
                }
            };
            let read = async {
                let mut got = Vec::new();
                let ended = far.stream.read_to_end(&mut got).await.is_ok();
                (got, ended)
            };
            let ((), result) = futures::future::join(kill, read).await;
            drop(task);
            result
        });
        prop_assert!(sent.starts_with(&got), "other bytes arrived than were written");
        prop_assert!(!ended || got == sent, "the end came before the bytes");
        prop_assert!(killed_after_ms.is_some() || ended, "nobody was killed");
    }
}
