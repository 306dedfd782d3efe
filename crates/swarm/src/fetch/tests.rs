//! The machine alone, against made-up peers. The world checks the rules at every output.

#![expect(clippy::single_range_in_vec_init, reason = "one gap, or one stretch that is preferred")]

use proptest::prelude::*;

use super::*;

mod world;

use world::{Manner, Other, World, other, peer, spec};

const MIB: u64 = 1 << 20;
const HOUR_MS: u64 = 3_600_000;

fn world(size: u64) -> World {
    World::new(spec(size, 1), Budget::default())
}

fn honest(number: u64, near: Nearness) -> Other {
    other(number, near, Manner::Honest)
}

#[test]
fn one_peer_that_holds_all_brings_all() {
    for size in [0, 1, MIB, MIB + 1, 5 * MIB + 7, 1024 * MIB, 1025 * MIB + 3, 3000 * MIB] {
        let mut world = world(size);
        let pieces = world.pieces();
        world.add(honest(1, Nearness::Wan), 0..pieces);
        world.run_until(HOUR_MS);
        assert!(world.is_done, "{size} bytes: {:?}", world.fetch.progress());
        let bytes = world.asked.iter().filter(|it| matches!(it.1, Part::Bytes { .. })).count();
        let want = if size == 0 { 0 } else { pieces };
        assert_eq!(bytes as u64, want, "each piece is asked for once");
    }
}

#[test]
fn a_fetch_goes_on_from_what_is_held() {
    let held = Bits(vec![0xff; 15]);
    let pages = Bits(vec![1]);
    let spec = Spec { held, pages, ..spec(130 * MIB, 1) };
    let mut world = World::new(spec, Budget::default());
    world.has_page(0);
    world.add(honest(1, Nearness::Lan), 0..130);
    world.run_until(HOUR_MS);
    assert!(world.is_done);
    assert_eq!(world.asked.len(), 10);
}

#[test]
fn a_blob_that_is_held_is_done_at_once() {
    let mut budget = Budget::default();
    let spec = Spec { held: Bits(vec![0x1f]), ..spec(5 * MIB, 1) };
    let mut fetch = Fetch::new(spec, &mut budget);
    assert_eq!(fetch.step(0, Input::Tick, &mut budget), [Output::Done]);
    assert_eq!(fetch.step(1, Input::Tick, &mut budget), []);
}

/// Rule S14: a liar costs the piece that it lied about, and is asked nothing more.
#[test]
fn a_wrong_piece_costs_that_piece_and_bans_its_sender() {
    let mut world = world(200 * MIB);
    world.add(honest(1, Nearness::Wan), 0..200);
    world.add(other(2, Nearness::Wan, Manner::LiesEvery(7)), 0..200);
    world.add(other(3, Nearness::Lan, Manner::Short), 0..200);
    world.run_until(HOUR_MS);
    assert!(world.is_done);
    assert_eq!(world.banned, [peer(2), peer(3)].into());
    let bytes = world.asked.iter().filter(|it| matches!(it.1, Part::Bytes { .. })).count();
    assert!(bytes <= 200 + 40, "{bytes} asks");
    world.say(Input::PeerUp { peer: peer(2), near: Nearness::Wan });
}

#[test]
fn whoever_was_banned_or_is_ourselves_is_left_alone() {
    let mut world = world(20 * MIB);
    world.add(other(2, Nearness::Wan, Manner::LiesEvery(1)), 0..20);
    world.run_until(60_000);
    assert_eq!(world.banned, [peer(2)].into());
    let mut say = |peer| {
        let input = Input::PeerUp { peer, near: Nearness::Lan };
        world.fetch.step(world.now, input, &mut world.budget)
    };
    assert_eq!(say(peer(2)), [Output::Leave { peer: peer(2) }]);
    assert_eq!(say(peer(1 << 40)), [Output::Leave { peer: peer(1 << 40) }]);
}

#[test]
fn what_a_silent_peer_owes_goes_to_others() {
    let mut world = world(50 * MIB);
    world.add(other(1, Nearness::Lan, Manner::Silent), 0..50);
    world.run_until(100);
    world.add(honest(2, Nearness::Wan), 0..50);
    world.run_until(120_000);
    assert!(world.is_done, "{:?}", world.fetch.progress());
    assert!(world.banned.is_empty());
}

/// Silent peers are nearer and more, and could take the whole budget again and again.
#[test]
fn silent_peers_do_not_take_turns_with_a_small_budget() {
    let mut world = World::new(spec(50 * MIB, 1), Budget::new(2 * MIB));
    for number in 1..10 {
        world.add(other(number, Nearness::SameHost, Manner::Silent), 0..50);
    }
    world.add(honest(10, Nearness::Wan), 0..50);
    world.run_until(120_000);
    assert!(world.is_done, "{:?}", world.fetch.progress());
}

#[test]
fn a_peer_that_refuses_holds_nobody_up_whatever_it_says() {
    for code in [
        RefuseCode::NotHeld,
        RefuseCode::NotYet,
        RefuseCode::OutOfRange,
        RefuseCode::Busy,
        RefuseCode::NotAMember,
        RefuseCode::Policy,
        RefuseCode::Broken,
        RefuseCode::ShuttingDown,
    ] {
        let mut world = world(50 * MIB);
        world.add(other(1, Nearness::Lan, Manner::Refuses(code)), 0..50);
        world.add(honest(2, Nearness::Wan), 0..50);
        world.run_until(300_000);
        assert!(world.is_done, "{code:?}: {:?}", world.fetch.progress());
        assert!(world.asked.len() < 200, "{code:?}: {} asks", world.asked.len());
    }
}

#[test]
fn an_outside_peer_is_not_asked_for_what_a_local_one_holds() {
    let mut world = world(100 * MIB);
    world.add(honest(2, Nearness::Wan), 0..100);
    world.add(honest(1, Nearness::Lan), 0..60);
    // Before the local peer was there a few pieces were asked of the other one.
    world.run_until(HOUR_MS);
    assert!(world.is_done);
    let outside = world.outside_bytes() / MIB;
    assert!((40..=44).contains(&outside), "{outside} pieces from outside");
}

#[test]
fn what_a_reader_waits_for_comes_first_and_in_order() {
    let mut world = world(1000 * MIB);
    world.prefer = vec![700..710, 3..5];
    world.say(Input::Prefer(world.prefer.clone()));
    world.add(honest(1, Nearness::Wan), 0..1000);
    world.run_until(20_000);
    let pieces: Vec<_> = world
        .asked
        .iter()
        .filter_map(|(_, part)| match part {
            Part::Bytes { offset, .. } => Some(offset / MIB),
            _ => None,
        })
        .collect();
    assert_eq!(pieces[..12], [700, 701, 702, 703, 704, 705, 706, 707, 708, 709, 3, 4]);
}

#[test]
fn the_rarest_piece_comes_first() {
    let mut world = world(64 * MIB);
    world.fetch.step(0, Input::Pause(true), &mut world.budget);
    world.add(honest(1, Nearness::Wan), 0..64);
    world.add(honest(2, Nearness::Wan), (0..64).filter(|it| *it != 40));
    world.add(honest(3, Nearness::Wan), (0..64).filter(|it| *it != 40 && *it != 41));
    world.say(Input::Pause(false));
    world.run_until(2_000);
    let first = world.asked.iter().find_map(|(id, part)| match part {
        Part::Bytes { offset, .. } if *id == peer(1) => Some(offset / MIB),
        _ => None,
    });
    assert_eq!(first, Some(40));
}

#[test]
fn all_seeders_gone_at_the_end_and_back_finishes() {
    let mut world = world(100 * MIB);
    world.add(honest(1, Nearness::Wan), 0..100);
    world.add(honest(2, Nearness::Wan), 0..99);
    while world.held.len() < 99 {
        let next = world.now + 10;
        world.run_until(next);
    }
    world.disconnect(peer(1));
    world.disconnect(peer(2));
    world.run_until(HOUR_MS);
    assert!(!world.is_done);
    assert_eq!(world.stalls.last(), Some(&Stall::NoPeers));
    assert_eq!(world.budget.used(), 0, "nothing is held while nothing happens");
    world.connect(peer(1));
    world.run_until(2 * HOUR_MS);
    assert!(world.is_done);
}

#[test]
fn a_stall_says_why_and_ends_when_someone_has_the_rest() {
    let mut world = world(10 * MIB);
    world.say(Input::Tick);
    world.add(honest(1, Nearness::Lan), 0..8);
    world.run_until(60_000);
    assert_eq!(world.stalls, [Stall::NoPeers, Stall::NobodyHas { missing: 2 }]);
    world.others.get_mut(&peer(1)).unwrap().has.extend([8, 9]);
    world.say(Input::Have { peer: peer(1), pieces: vec![8, 9] });
    world.run_until(120_000);
    assert!(world.is_done);
}

#[test]
fn a_full_disk_stops_the_fetch_until_there_is_room() {
    let mut world = world(10 * MIB);
    world.add(honest(1, Nearness::Wan), 0..10);
    world.run_until(700);
    let target = Target::Piece(99);
    world.say(Input::StoreFailed { target, message: "the disk is full".to_owned() });
    assert!(world.asks.is_empty());
    assert!(matches!(world.stalls.last(), Some(Stall::Store { .. })));
    let asked = world.asked.len();
    world.run_until(60_000);
    assert_eq!(world.asked.len(), asked);
    world.say(Input::Pause(false));
    world.run_until(120_000);
    assert!(world.is_done);
}

#[test]
fn a_cancelled_fetch_takes_everything_back() {
    let mut world = world(100 * MIB);
    world.add(honest(1, Nearness::Lan), 0..100);
    world.run_until(5);
    assert!(!world.asks.is_empty() && world.budget.used() > 0);
    world.say(Input::Cancel);
    assert!(world.asks.is_empty());
    assert_eq!(world.budget.used(), 0);
    assert_eq!(world.fetch.step(9, Input::Tick, &mut world.budget), []);
}

/// Rule S14: whoever holds another size is not asked, so it cannot prove wrong.
#[test]
fn a_peer_that_knows_another_size_is_not_asked() {
    let mut world = world(10 * MIB);
    world.say(Input::PeerUp { peer: peer(1), near: Nearness::Lan });
    world.say(Input::Holdings { peer: peer(1), size: 11 * MIB, holding: Holding::Whole });
    assert!(world.asked.is_empty());
    assert_eq!(world.stalls, [Stall::NoPeers]);
}

#[test]
fn one_peer_more_than_there_is_room_for_is_left_unless_it_is_nearer() {
    let mut world = world(10 * MIB);
    for number in 0..PEERS_MAX as u64 {
        world.say(Input::PeerUp { peer: peer(number), near: Nearness::Wan });
    }
    let mut up = |number, near| {
        world.fetch.step(0, Input::PeerUp { peer: peer(number), near }, &mut world.budget)
    };
    assert_eq!(up(100, Nearness::Wan), [Output::Leave { peer: peer(100) }]);
    assert!(matches!(up(101, Nearness::Lan)[..], [Output::Leave { peer: it }] if it != peer(101)));
    assert_eq!(world.fetch.progress().peers, PEERS_MAX as u64);
}

#[test]
fn local_bytes_are_copied_and_only_the_rest_is_asked_for() {
    let mut world = world(20 * MIB);
    for piece in 0..10 {
        world.local.insert(piece, (0..1 << 20, true));
        world.say(Input::Local { piece, is_whole: true });
    }
    for piece in 10..15 {
        world.local.insert(piece, (1_000..900_000, true));
        world.say(Input::Local { piece, is_whole: false });
    }
    world.add(honest(1, Nearness::Wan), 0..20);
    world.run_until(HOUR_MS);
    assert!(world.is_done && world.banned.is_empty() && !world.is_distrusted);
    let rest = 5 * (MIB - 899_000) + 5 * MIB;
    assert_eq!(world.outside_bytes(), rest);
}

/// Rule S8: a recipe that lies is found out, and no peer is blamed for it.
#[test]
fn a_recipe_that_leads_to_wrong_bytes_is_distrusted_and_no_peer_banned() {
    for range in [0..1 << 20, 1_000..900_000] {
        let mut world = world(20 * MIB);
        for piece in 0..20 {
            world.local.insert(piece, (range.clone(), piece % 3 != 0));
            world.say(Input::Local { piece, is_whole: range == (0..1 << 20) });
        }
        world.add(honest(1, Nearness::Wan), 0..20);
        world.add(honest(2, Nearness::Wan), 0..20);
        world.run_until(HOUR_MS);
        assert!(world.is_done && world.is_distrusted && world.banned.is_empty());
    }
}

/// Rules S8 and S14: who sent a wrong part of a mixed piece is found by comparing.
#[test]
fn a_liar_around_local_bytes_is_found_and_the_recipe_kept() {
    let mut world = world(20 * MIB);
    for piece in 0..20 {
        world.local.insert(piece, (1_000..900_000, true));
        world.say(Input::Local { piece, is_whole: false });
    }
    world.add(other(1, Nearness::Lan, Manner::LiesEvery(3)), 0..20);
    world.add(honest(2, Nearness::Wan), 0..20);
    world.run_until(HOUR_MS);
    assert!(world.is_done && !world.is_distrusted);
    assert_eq!(world.banned, [peer(1)].into());
}

/// Rule S12: the last pieces do not wait for the slowest peer.
#[test]
fn the_end_does_not_wait_for_a_slow_peer() {
    let mut world = world(40 * MIB);
    let slow = Other { rate: 20, ..honest(1, Nearness::Wan) };
    world.add(slow, 0..40);
    world.add(honest(2, Nearness::Wan), 0..40);
    world.run_until(25_000);
    assert!(world.is_done, "{:?} at {}", world.fetch.progress(), world.now);
}

/// Rule S13.
#[test]
fn fetches_that_share_a_budget_all_finish() {
    let mut budget = Budget::new(4 * MIB);
    let mut fetches: Vec<_> =
        (0..10).map(|seed| Fetch::new(spec(5 * MIB, seed), &mut budget)).collect();
    let mut done = 0;
    let mut now = 0;
    let mut inputs: Vec<Vec<Input>> = fetches
        .iter()
        .map(|_| {
            let peer = peer(1);
            let holding = Holding::Whole;
            vec![
                Input::PeerUp { peer, near: Nearness::Lan },
                Input::Holdings { peer, size: 5 * MIB, holding },
            ]
        })
        .collect();
    while done < 10 {
        now += 100;
        assert!(now < 1_000_000, "{done} are done");
        for (fetch, inputs) in fetches.iter_mut().zip(&mut inputs) {
            inputs.push(Input::Tick);
            for input in std::mem::take(inputs) {
                for output in fetch.step(now, input, &mut budget) {
                    match output {
                        Output::Ask { peer, ask, part } => {
                            let len = match part {
                                Part::Bytes { len, .. } => len,
                                _ => 5 * 32,
                            };
                            inputs.push(Input::Data { peer, ask, len });
                        }
                        Output::Put(target) => {
                            inputs.push(Input::Checked { target, is_right: true });
                        }
                        Output::Done => done += 1,
                        _ => {}
                    }
                }
                assert!(budget.used() <= budget.total());
            }
        }
    }
    assert_eq!(budget.used(), 0);
}

/// A blob of 10 TB: the memory is a few bits for each piece, and a choice does not take long.
#[test]
fn ten_million_pieces_are_no_trouble() {
    let size = 10_000_000 * MIB;
    let mut budget = Budget::default();
    let pages = Bits(vec![0xff; 2_000]);
    let spec = Spec { has_top: true, pages, ..spec(size, 5) };
    let mut fetch = Fetch::new(spec, &mut budget);
    let mut now = 0;
    let mut say = |fetch: &mut Fetch, input| {
        now += 1;
        fetch.step(now, input, &mut budget)
    };
    let mut asked = Vec::new();
    for number in 0..20 {
        let id = peer(number);
        say(&mut fetch, Input::PeerUp { peer: id, near: Nearness::Wan });
        say(&mut fetch, Input::Holdings { peer: id, size, holding: Holding::Fetching });
        for stretch in 0..39 {
            let bits = vec![0x11 << (number % 4); 32 * 1024];
            asked.extend(say(&mut fetch, Input::Held { peer: id, stretch, bits }));
        }
    }
    let maps = fetch.peers.iter().filter(|it| !it.holds.is_nothing()).count();
    assert_eq!(maps, 13, "maps of 1.25 MB within 16 MiB");
    let asks = asked.iter().filter(|it| matches!(it, Output::Ask { .. })).count();
    assert_eq!(asks, 2 * 13, "each is asked");
}

/// One draw of the world's dice.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let hash = blake3::hash(&self.0.to_le_bytes());
        u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap()) % end
    }
}

/// A random history of peers that come, go, lie and fall silent, with one or two honest ones at
/// the end. The world checks the rules on the way.
fn play(seed: u64) -> World {
    let mut dice = Dice(seed);
    let most = [1, 5, 70, 300, 2_100][usize::try_from(dice.below(5)).unwrap()];
    let pieces = 1 + dice.below(most);
    let size = (pieces - 1) * MIB + 1 + dice.below(MIB);
    let budget = Budget::new((2 + dice.below(31)) * MIB);
    let mut world = World::new(spec(size, dice.below(99)), budget);
    for _ in 0..dice.below(20) {
        let (piece, start) = (dice.below(pieces), dice.below(1000));
        let len = world.fetch.piece_len(piece);
        let range = match dice.below(3) {
            0 => 0..len,
            _ => u32::try_from(start).unwrap().min(len - 1)..len,
        };
        let is_right = !seed.is_multiple_of(3) || dice.below(4) > 0;
        world.local.insert(piece, (range.clone(), is_right));
        world.say(Input::Local { piece, is_whole: range == (0..len) });
    }
    for number in 0..=dice.below(10) {
        let near = [Nearness::SameHost, Nearness::Lan, Nearness::Wan, Nearness::Relayed];
        let near = near[usize::try_from(dice.below(4)).unwrap()];
        let manner = match dice.below(10) {
            0 => Manner::LiesEvery(7),
            1 => Manner::LiesEvery(1),
            2 => Manner::Silent,
            3 => Manner::Refuses(RefuseCode::Busy),
            4 => Manner::Refuses(RefuseCode::NotYet),
            5 => Manner::Short,
            _ => Manner::Honest,
        };
        let part = 1 + dice.below(4);
        let has: Vec<_> = (0..pieces).filter(|_| dice.below(4) < part).collect();
        world.add(Other { rate: 50 + dice.below(5_000), ..other(number, near, manner) }, has);
    }
    for _ in 0..dice.below(15) {
        let now = world.now;
        world.run_until(now + dice.below(20_000));
        if world.is_done {
            return world;
        }
        let up: Vec<_> = world.others.values().filter(|it| it.is_up).map(|it| it.id).collect();
        let down = world.others.values().find(|it| !it.is_up && !world.banned.contains(&it.id));
        let down = down.map(|it| it.id);
        match (dice.below(4), down) {
            (0, Some(id)) => world.connect(id),
            (1 | 2, _) if !up.is_empty() => {
                let id = up[usize::try_from(dice.below(up.len() as u64)).unwrap()];
                if !world.banned.contains(&id) {
                    world.disconnect(id);
                }
            }
            (3, _) => {
                let from = dice.below(pieces);
                world.prefer = vec![from..(from + 5).min(pieces)];
                world.say(Input::Prefer(world.prefer.clone()));
            }
            _ => {}
        }
    }
    if seed.is_multiple_of(2) {
        let split = dice.below(pieces);
        world.add(Other { rate: 5_000, ..honest(50, Nearness::Wan) }, 0..split);
        world.add(Other { rate: 5_000, ..honest(51, Nearness::Wan) }, split..pieces);
    }
    let now = world.now;
    world.run_until(now + 10 * HOUR_MS);
    world
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    /// Rules S11 to S14 at every output; and every piece that an honest peer has is held at last.
    #[test]
    fn whatever_peers_do_what_an_honest_one_holds_arrives(seed in any::<u64>()) {
        let world = play(seed);
        prop_assert_eq!(world.missing(), Vec::<u64>::new(), "{:?}", world.stalls);
        prop_assert_eq!(world.is_done, world.held.len() as u64 == world.pieces());
        if seed.is_multiple_of(2) {
            prop_assert!(world.is_done);
        }
    }

}

/// Rule S15.
#[test]
fn one_seed_plays_one_history() {
    let trace = |seed| play(seed).trace.finalize();
    for seed in [2, 3, 8] {
        assert_eq!(trace(seed), trace(seed));
    }
    assert_ne!(trace(2), trace(4));
}
