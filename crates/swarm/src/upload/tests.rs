//! Shares, caps and bounds of the serving side, over made-up peers.

use proptest::prelude::*;

use super::*;

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes([number; 32])
}

fn job(number: u8, ask: u32, len: u32) -> Job {
    Job { peer: peer(number), stream: 0, ask: AskId(ask), len }
}

/// Serves all that may be served for a while; every answer is sent at once. Bytes for each peer.
struct World {
    upload: Upload,
    now: u64,
    sent: BTreeMap<PeerId, u64>,
    order: Vec<(PeerId, AskId)>,
    wake: Option<u64>,
    refused: usize,
}

impl World {
    fn new(cap: Option<u64>) -> Self {
        let mut upload = Upload::new();
        assert!(upload.step(0, Input::Cap(cap)).is_empty());
        let (sent, order) = (BTreeMap::new(), Vec::new());
        Self { upload, now: 0, sent, order, wake: None, refused: 0 }
    }

    fn say(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for output in self.upload.step(self.now, input) {
                match output {
                    Output::Serve(job) => {
                        *self.sent.entry(job.peer).or_default() += u64::from(job.len);
                        self.order.push((job.peer, job.ask));
                        inputs.push_back(Input::Served { peer: job.peer });
                    }
                    Output::Refuse(_) => self.refused += 1,
                    Output::Wake(at) => {
                        assert!(at > self.now);
                        self.wake = Some(at);
                    }
                }
            }
            assert!(self.upload.serving() <= SERVING_MAX);
        }
    }

    fn run_until(&mut self, end: u64) {
        while let Some(at) = self.wake.filter(|at| *at <= end) {
            self.wake = None;
            self.now = at;
            self.say(Input::Tick);
        }
        self.now = end;
    }
}

#[test]
fn without_a_cap_everything_is_served_at_once_and_in_order() {
    let mut world = World::new(None);
    for ask in 0..5 {
        world.say(Input::Asked(job(1, ask, PIECE_LEN)));
    }
    assert_eq!(world.order, (0..5).map(|ask| (peer(1), AskId(ask))).collect::<Vec<_>>());
    assert_eq!((world.upload.waiting(), world.upload.serving()), (0, 0));
    assert!(world.upload.queues.is_empty() && world.upload.turns.is_empty());
}

#[test]
fn the_top_of_the_largest_blob_is_served_too() {
    let mut world = World::new(None);
    world.say(Input::Asked(job(1, 0, crate::wire::RAW_LEN_MAX)));
    assert_eq!(world.order.len(), 1);
}

/// Rule S16: whoever asks more gets no more.
#[test]
fn a_greedy_peer_and_a_modest_one_get_the_same_while_both_ask() {
    let mut world = World::new(Some(10 << 20));
    world.say(Input::Asked(job(9, 0, PIECE_LEN)));
    for ask in 0..60 {
        world.say(Input::Asked(job(1, ask, PIECE_LEN)));
    }
    for ask in 0..60 {
        world.say(Input::Asked(job(2, ask, PIECE_LEN / 4)));
    }
    world.run_until(2_000);
    let (one, two) = (world.sent[&peer(1)], world.sent[&peer(2)]);
    assert!(one.abs_diff(two) <= 2 * QUANTUM, "{one} and {two}");
    assert!(one + two > 15 << 20, "{one} and {two}");
}

/// Rule S17.
#[test]
fn a_cap_holds_over_any_time_and_is_used_to_its_end() {
    let cap = 3_000_000;
    let mut world = World::new(Some(cap));
    for second in 1..=20_u64 {
        for ask in 0..8 {
            world.say(Input::Asked(job(1, ask, PIECE_LEN)));
        }
        world.run_until(second * 1000);
        let sent: u64 = world.sent.values().sum();
        let most = cap * second + cap / 4 + u64::from(PIECE_LEN);
        assert!(sent <= most, "{sent} after {second} s");
        assert!(sent + 2 * u64::from(PIECE_LEN) >= cap * second, "{sent} after {second} s");
    }
}

#[test]
fn what_is_saved_up_while_nobody_asks_is_a_quarter_of_a_second() {
    let cap = 64 << 20;
    let mut world = World::new(Some(cap));
    world.run_until(1_000_000);
    for ask in 0..60 {
        world.say(Input::Asked(job(1, ask, PIECE_LEN)));
    }
    let sent = world.sent[&peer(1)];
    assert!((16 << 20..=17 << 20).contains(&sent), "{sent}");
}

#[test]
fn what_does_not_fit_is_refused_at_once() {
    let mut upload = Upload::new();
    let mut said = Vec::new();
    for ask in 0..100 {
        said.extend(upload.step(0, Input::Asked(job(1, ask, PIECE_LEN))));
    }
    let refused = said.iter().filter(|it| matches!(it, Output::Refuse(_))).count();
    assert_eq!((upload.serving(), upload.waiting()), (SERVING_EACH_MAX, QUEUE_MAX));
    assert_eq!(refused, 100 - QUEUE_MAX - SERVING_EACH_MAX);
    for number in 2..=255 {
        said.extend(upload.step(0, Input::Asked(job(number, 0, PIECE_LEN))));
    }
    assert_eq!(upload.serving(), SERVING_MAX);
    upload.step(0, Input::Asked(job(0, 0, PIECE_LEN)));
    let mut key = [7; 32];
    key[0] = 1;
    let stranger = Job { peer: PeerId::from_bytes(key), ..job(0, 0, PIECE_LEN) };
    let answer = upload.step(0, Input::Asked(stranger));
    assert_eq!(answer, [Output::Refuse(stranger)], "one peer more than there may be");
}

#[test]
fn cancelled_asks_and_those_of_lost_streams_are_not_served() {
    let mut world = World::new(Some(1 << 20));
    for ask in 0..4 {
        world.say(Input::Asked(job(1, ask, PIECE_LEN)));
        world.say(Input::Asked(Job { stream: 1, ..job(1, ask, PIECE_LEN) }));
    }
    world.say(Input::Cancelled { peer: peer(1), stream: 0, ask: AskId(2) });
    world.say(Input::Gone { peer: peer(1), stream: 1 });
    world.say(Input::Gone { peer: peer(2), stream: 1 });
    world.say(Input::Served { peer: peer(2) });
    world.run_until(60_000);
    assert!(!world.order[1..].contains(&(peer(1), AskId(2))));
    assert_eq!(world.order.len(), 3);
    assert!(world.upload.queues.is_empty() && world.upload.turns.is_empty());
}

/// A peer that reads slowly holds its own two answers up and nobody else's.
#[test]
fn a_peer_that_does_not_read_does_not_hold_others_up() {
    let mut upload = Upload::new();
    for ask in 0..10 {
        upload.step(0, Input::Asked(job(1, ask, PIECE_LEN)));
    }
    let served = upload.step(0, Input::Asked(job(2, 0, PIECE_LEN)));
    assert_eq!(served, [Output::Serve(job(2, 0, PIECE_LEN))]);
}

#[derive(Debug, Clone)]
enum Act {
    Ask(u8, u32),
    Cancel(u8, u32),
    Gone(u8),
    Wait(u16),
    Serve(u8),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0_u8..6, 0_u32..=PIECE_LEN).prop_map(|(peer, len)| Act::Ask(peer, len)),
        1 => (0_u8..6, 0_u32..300).prop_map(|(peer, ask)| Act::Cancel(peer, ask)),
        1 => (0_u8..6).prop_map(Act::Gone),
        2 => (0_u16..2_000).prop_map(Act::Wait),
        4 => (0_u8..6).prop_map(Act::Serve),
    ];
    proptest::collection::vec(act, 0..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Rules S16 and S17 and every bound, whatever happens in whatever order.
    #[test]
    fn nothing_is_lost_served_twice_or_beyond_the_bounds(
        acts in acts(),
        cap in proptest::option::of(1_000_u64..50_000_000),
    ) {
        let mut upload = Upload::new();
        upload.step(0, Input::Cap(cap));
        let (mut now, mut total, mut next) = (0_u64, 0_u64, 0_u32);
        let mut waits = std::collections::BTreeSet::new();
        let mut serving: BTreeMap<PeerId, usize> = BTreeMap::new();
        for act in acts {
            let input = match act {
                Act::Ask(number, len) => {
                    next += 1;
                    waits.insert((peer(number), next));
                    Input::Asked(job(number, next, len))
                }
                Act::Cancel(number, ask) => {
                    waits.remove(&(peer(number), ask));
                    Input::Cancelled { peer: peer(number), stream: 0, ask: AskId(ask) }
                }
                Act::Gone(number) => {
                    waits.retain(|it| it.0 != peer(number));
                    Input::Gone { peer: peer(number), stream: 0 }
                }
                Act::Wait(ms) => {
                    now += u64::from(ms);
                    Input::Tick
                }
                Act::Serve(number) => {
                    let count = serving.entry(peer(number)).or_default();
                    *count = count.saturating_sub(1);
                    Input::Served { peer: peer(number) }
                }
            };
            for output in upload.step(now, input) {
                match output {
                    Output::Serve(job) => {
                        prop_assert!(waits.remove(&(job.peer, job.ask.0)), "it was not asked");
                        total += u64::from(job.len);
                        let count = serving.entry(job.peer).or_default();
                        *count += 1;
                        prop_assert!(*count <= SERVING_EACH_MAX);
                    }
                    Output::Refuse(job) => {
                        prop_assert!(waits.remove(&(job.peer, job.ask.0)));
                    }
                    Output::Wake(at) => prop_assert!(at > now),
                }
            }
            prop_assert_eq!(upload.waiting(), waits.len());
            prop_assert_eq!(upload.serving(), serving.values().sum::<usize>());
            if let Some(cap) = cap {
                let most = cap * (now + BURST_MS) / 1000 + u64::from(PIECE_LEN);
                prop_assert!(total <= most, "{} of {}", total, most);
            }
        }
    }
}
