//! Members that come, go, stall and lie, on a network that delays their words.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SIZE: u64 = 100 * 64 * 1024;

const TICK: u64 = 100;

fn peer(index: u8) -> PeerId {
    PeerId::from_bytes([index + 1; 32])
}

fn file(index: u8) -> Hash {
    Hash::from_bytes([index; 32])
}

/// What a member does when it is its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Can {
    /// So many bytes in each tick.
    Fetch(u64),
    /// Says that it fetches, and nothing comes.
    Nothing,
}

struct Node {
    turn: Turn,
    can: Can,
    is_fetching: bool,
    kept: u64,
    /// Times that it began to fetch.
    begun: u32,
}

/// Members, and words on their way: when they arrive, for whom, from whom, what they say.
struct Lan {
    now: u64,
    delay: u64,
    nodes: BTreeMap<PeerId, Node>,
    words: Vec<(u64, PeerId, Input)>,
    /// Ticks in which two fetched at once.
    doubled: u32,
}

impl Lan {
    fn new(delay: u64) -> Self {
        Self { now: 0, delay, nodes: BTreeMap::new(), words: Vec::new(), doubled: 0 }
    }

    fn join(&mut self, index: u8, can: Can) {
        let turn = Turn::new(file(1), peer(index), Timing::default());
        let node = Node { turn, can, is_fetching: false, kept: 0, begun: 0 };
        self.nodes.insert(peer(index), node);
        self.input(peer(index), Input::Want { kept: 0 });
    }

    fn crash(&mut self, index: u8) {
        self.nodes.remove(&peer(index));
    }

    fn input(&mut self, at: PeerId, input: Input) {
        let Some(node) = self.nodes.get_mut(&at) else { return };
        for output in node.turn.step(Millis(self.now), input) {
            match output {
                Output::Fetch => {
                    assert!(!node.is_fetching, "it fetches already");
                    node.is_fetching = true;
                    node.begun += 1;
                }
                Output::StandDown => {
                    assert!(node.is_fetching, "it does not fetch");
                    node.is_fetching = false;
                }
                Output::Announce { kept, is_fetching } => {
                    assert_eq!(is_fetching, node.is_fetching);
                    let said = Input::Heard { peer: at, kept, is_fetching };
                    self.words.push((self.now + self.delay, at, said));
                }
                Output::SetTimer(until) => assert!(until > Millis(self.now)),
            }
        }
        assert_eq!(node.is_fetching, node.turn.is_mine());
    }

    /// One tick: words arrive, time passes, bytes come.
    fn tick(&mut self) {
        self.now += TICK;
        let (due, later) = self.words.drain(..).partition(|(at, _, _)| *at <= self.now);
        self.words = later;
        let due: Vec<(u64, PeerId, Input)> = due;
        let peers: Vec<PeerId> = self.nodes.keys().copied().collect();
        for (_, from, word) in due {
            for to in peers.iter().filter(|it| **it != from) {
                self.input(*to, word);
            }
        }
        for peer in &peers {
            self.input(*peer, Input::TimerFired);
            let Some(node) = self.nodes.get_mut(peer) else { continue };
            if let (true, Can::Fetch(bytes)) = (node.is_fetching, node.can) {
                node.kept = (node.kept + bytes).min(SIZE);
                let len = node.kept;
                self.input(*peer, Input::Kept { len });
            }
        }
        self.doubled += u32::from(self.fetching() > 1);
    }

    fn fetching(&self) -> usize {
        self.nodes.values().filter(|it| it.is_fetching).count()
    }

    fn is_held(&self) -> bool {
        self.nodes.values().any(|it| it.kept == SIZE)
    }

    /// Bytes that came from outside, of the members that are there.
    fn fetched(&self) -> u64 {
        self.nodes.values().map(|it| it.kept).sum()
    }

    fn run(&mut self, secs: u64) {
        for _ in 0..secs * 1_000 / TICK {
            if self.is_held() {
                return;
            }
            self.tick();
        }
    }
}

const STEADY: Can = Can::Fetch(64 * 1024);

#[test]
fn one_alone_fetches_after_it_listened() {
    let mut lan = Lan::new(100);
    lan.join(0, STEADY);
    assert_eq!(lan.fetching(), 0);
    lan.run(60);
    assert!(lan.is_held());
    assert_eq!(lan.nodes[&peer(0)].begun, 1);
}

#[test]
fn of_many_one_fetches_and_all_agree_who() {
    let mut lan = Lan::new(300);
    for index in 0..20 {
        lan.join(index, STEADY);
    }
    lan.run(60);
    assert!(lan.is_held());
    assert_eq!(lan.fetched(), SIZE, "one copy");
    assert_eq!(lan.doubled, 0);
    let first = order(&file(1), (0..20).map(peer))[0];
    assert_eq!(lan.nodes[&first].kept, SIZE);
}

#[test]
fn one_that_is_stuck_loses_its_turn() {
    let mut lan = Lan::new(100);
    let order = order(&file(1), (0..4).map(peer));
    for index in 0..4 {
        let is_stuck = peer(index) == order[0] || peer(index) == order[1];
        lan.join(index, if is_stuck { Can::Nothing } else { STEADY });
    }
    lan.run(120);
    assert_eq!(lan.nodes[&order[2]].kept, SIZE);
    assert_eq!(lan.fetched(), SIZE);
    assert_eq!(lan.doubled, 0);
}

#[test]
fn one_that_vanishes_is_replaced_and_its_bytes_are_fetched_again() {
    let mut lan = Lan::new(100);
    let order = order(&file(1), (0..3).map(peer));
    for index in 0..3 {
        lan.join(index, STEADY);
    }
    lan.run(5);
    let first = (0..3).find(|it| peer(*it) == order[0]).expect("is one of them");
    assert!(lan.nodes[&order[0]].kept > 0);
    lan.crash(first);
    lan.run(120);
    assert_eq!(lan.nodes[&order[1]].kept, SIZE);
    assert_eq!(lan.nodes[&order[2]].kept, 0);
}

#[test]
fn who_comes_late_does_not_take_over() {
    let mut lan = Lan::new(100);
    let order = order(&file(1), (0..10).map(peer));
    let index = |it: PeerId| (0..10).find(|index| peer(*index) == it).expect("is one of them");
    lan.join(index(order[9]), STEADY);
    lan.run(3);
    for it in &order[..9] {
        lan.join(index(*it), STEADY);
    }
    lan.run(60);
    assert_eq!(lan.nodes[&order[9]].kept, SIZE);
    assert_eq!(lan.fetched(), SIZE);
}

#[test]
fn who_does_not_say_that_it_fetches_is_not_waited_for_long() {
    let mut turn = Turn::new(file(1), peer(0), Timing::default());
    let ahead = (1..250).map(peer).find(|it| order(&file(1), [peer(0), *it])[0] == *it);
    let ahead = ahead.expect("somebody is ahead");
    turn.step(Millis(0), Input::Want { kept: 0 });
    turn.step(Millis(0), Input::Heard { peer: ahead, kept: 0, is_fetching: false });
    assert!(!turn.step(Millis(1_000), Input::TimerFired).contains(&Output::Fetch));
    assert!(!turn.step(Millis(30_999), Input::TimerFired).contains(&Output::Fetch));
    assert!(turn.step(Millis(31_000), Input::TimerFired).contains(&Output::Fetch));
    // It makes progress after all, and is ahead: one of the two goes on.
    let word = Input::Heard { peer: ahead, kept: 1 << 20, is_fetching: true };
    let outputs = turn.step(Millis(32_000), word);
    assert!(outputs.contains(&Output::StandDown), "{outputs:?}");
}

#[test]
fn a_lie_about_progress_ends() {
    let mut turn = Turn::new(file(1), peer(0), Timing::default());
    let ahead = (1..250).map(peer).find(|it| order(&file(1), [peer(0), *it])[0] == *it);
    let ahead = ahead.expect("somebody is ahead");
    turn.step(Millis(0), Input::Want { kept: 0 });
    let (mut now, mut kept) = (0, 0);
    // It goes up to the size and begins anew, again and again.
    while !turn.is_mine() {
        now += 10_000;
        kept = (kept + 64 * 1024) % SIZE;
        turn.step(Millis(now), Input::Heard { peer: ahead, kept, is_fetching: true });
        turn.step(Millis(now), Input::TimerFired);
        assert!(now < 10_000 * 110, "it never ends");
    }
}

#[test]
fn words_of_strangers_fill_no_memory() {
    let mut turn = Turn::new(file(1), peer(0), Timing::default());
    turn.step(Millis(0), Input::Want { kept: 0 });
    for index in 0..2_000_u16 {
        let mut bytes = [0xee; 32];
        bytes[..2].copy_from_slice(&index.to_be_bytes());
        let peer = PeerId::from_bytes(bytes);
        turn.step(Millis(1), Input::Heard { peer, kept: 0, is_fetching: false });
    }
    assert_eq!(turn.members.len(), MEMBERS_MAX);
}

#[test]
fn after_the_end_nothing_comes() {
    for end in [Input::Have, Input::GaveUp] {
        let mut turn = Turn::new(file(1), peer(0), Timing::default());
        turn.step(Millis(0), Input::Want { kept: 0 });
        assert!(turn.step(Millis(1_000), Input::TimerFired).contains(&Output::Fetch));
        let outputs = turn.step(Millis(2_000), end);
        assert_eq!(outputs, [Output::StandDown, Output::Announce { kept: 0, is_fetching: false }]);
        assert_eq!(turn.step(Millis(90_000), Input::TimerFired), []);
    }
}

/// What befalls a network.
#[derive(Debug, Clone, Copy)]
enum Event {
    Join(u8, Can),
    Crash(u8),
    Becomes(u8, Can),
    /// Some time passes.
    Wait(u64),
}

fn any_can() -> impl Strategy<Value = Can> {
    prop_oneof![2 => Just(STEADY), 1 => Just(Can::Nothing)]
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..12_u8, any_can()).prop_map(|(index, can)| Event::Join(index, can)),
        (0..12_u8).prop_map(Event::Crash),
        (0..12_u8, any_can()).prop_map(|(index, can)| Event::Becomes(index, can)),
        (0..20_u64).prop_map(Event::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// O1: however many there are and whatever the order of their files, one copy is fetched.
    #[test]
    fn a_calm_network_fetches_one_copy(count in 1..40_u8, delay in 0..500_u64) {
        let mut lan = Lan::new(delay);
        for index in 0..count {
            lan.join(index, STEADY);
        }
        lan.run(120);
        prop_assert!(lan.is_held());
        prop_assert_eq!(lan.fetched(), SIZE);
        prop_assert_eq!(lan.doubled, 0);
    }

    /// O2 and O3: whatever befalls, the file is fetched as long as somebody can, and no
    /// two fetch at once for longer than a file takes after each event.
    #[test]
    fn a_network_that_suffers_still_fetches(
        events in prop::collection::vec(any_event(), 0..24),
        delay in 0..500_u64,
    ) {
        let mut lan = Lan::new(delay);
        let mut upsets = 1;
        for event in events {
            match event {
                Event::Join(index, can) if !lan.nodes.contains_key(&peer(index)) => {
                    lan.join(index, can);
                }
                Event::Crash(index) => lan.crash(index),
                Event::Becomes(index, can) => {
                    if let Some(node) = lan.nodes.get_mut(&peer(index)) {
                        node.can = can;
                    }
                }
                Event::Join(..) => {}
                Event::Wait(secs) => lan.run(secs),
            }
            upsets += 1;
        }
        lan.join(50, STEADY);
        let members = lan.nodes.len() as u64;
        // Each of the others may hold it up for a takeover, and the file itself takes 10 s.
        lan.run((members + 2) * 31 * 2 + 60);
        prop_assert!(lan.is_held(), "{} members", members);
        // One that was away counts as making progress only beyond what it had: until then, a file
        // at most, another may fetch beside it.
        prop_assert!(lan.doubled <= upsets * 120, "{} ticks", lan.doubled);
    }

    /// Who goes moves only what it was first for.
    #[test]
    fn the_order_moves_only_what_it_must(files in prop::collection::vec(any::<u8>(), 1..20), gone in 0..16_u8) {
        for it in files {
            let all = order(&file(it), (0..16).map(peer));
            let rest = order(&file(it), (0..16).filter(|it| *it != gone).map(peer));
            let without: Vec<PeerId> = all.into_iter().filter(|it| *it != peer(gone)).collect();
            prop_assert_eq!(rest, without);
        }
    }
}
