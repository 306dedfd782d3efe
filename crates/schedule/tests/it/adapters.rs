//! Which adapters are in memory: what always holds, and how much is read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use commons_schedule::{
    AdapterCommand, AdapterConfig, AdapterConfigError, AdapterId, AdapterRefusal, Adapters,
};
use proptest::prelude::*;

const CONFIG: AdapterConfig = AdapterConfig {
    room_bytes: 16,
    resident_max: 64,
    loads_max: 2,
    ahead_max: 4,
    waiting_max: 64,
    patience: 8,
};

fn id(number: u8) -> AdapterId {
    AdapterId([number; 32])
}

/// A machine, and what an engine knows of it.
struct World {
    machine: Adapters,
    config: AdapterConfig,
    sizes: BTreeMap<AdapterId, u64>,
    resident: BTreeSet<AdapterId>,
    loading: VecDeque<AdapterId>,
    wanted: BTreeMap<AdapterId, u32>,
    pins: BTreeMap<AdapterId, u32>,
    loads: u64,
    starts: u64,
    /// Requests that ended without a start: they left, or could not be loaded.
    left: u64,
}

impl World {
    fn new(config: AdapterConfig) -> Self {
        Self {
            machine: Adapters::new(config).unwrap(),
            config,
            sizes: BTreeMap::new(),
            resident: BTreeSet::new(),
            loading: VecDeque::new(),
            wanted: BTreeMap::new(),
            pins: BTreeMap::new(),
            loads: 0,
            starts: 0,
            left: 0,
        }
    }

    fn want(&mut self, id: AdapterId, size: u64) {
        let size = *self.sizes.entry(id).or_insert(size);
        match self.machine.want(id, size) {
            Ok(()) => *self.wanted.entry(id).or_default() += 1,
            Err(AdapterRefusal::TooLarge { .. }) => assert!(size > self.config.room_bytes),
            Err(refusal) => {
                assert!(
                    self.machine.stats().waiting >= self.config.waiting_max as usize,
                    "{refusal}"
                );
            }
        }
        self.check();
    }

    fn leave(&mut self, id: AdapterId) {
        if let Some(count) = self.wanted.get_mut(&id).filter(|count| **count > 0) {
            *count -= 1;
            self.left += 1;
            self.machine.leave(id);
        }
        self.check();
    }

    fn start(&mut self, id: AdapterId) -> bool {
        let is_ready = self.machine.is_ready(id);
        assert_eq!(self.machine.start(id), is_ready);
        if is_ready {
            assert!(self.resident.contains(&id), "what starts is in memory");
            *self.wanted.get_mut(&id).unwrap() -= 1;
            *self.pins.entry(id).or_default() += 1;
            self.starts += 1;
        }
        self.check();
        is_ready
    }

    fn end(&mut self, id: AdapterId) {
        if let Some(count) = self.pins.get_mut(&id).filter(|count| **count > 0) {
            *count -= 1;
            self.machine.end(id);
        }
        self.check();
    }

    fn finish_load(&mut self, is_sound: bool) {
        let Some(id) = self.loading.pop_front() else { return };
        if is_sound {
            self.machine.loaded(id);
            self.resident.insert(id);
        } else {
            let refused = self.machine.failed(id);
            assert_eq!(refused, self.wanted.remove(&id).unwrap_or(0), "all that wait are told");
            self.left += u64::from(refused);
        }
        self.check();
    }

    fn step(&mut self) {
        for command in self.machine.step() {
            match command {
                AdapterCommand::Evict(id) => {
                    assert!(self.resident.remove(&id), "what is evicted is in memory");
                    assert_eq!(self.pins.get(&id).copied().unwrap_or(0), 0, "and not pinned");
                }
                AdapterCommand::Load(id) => {
                    assert!(!self.resident.contains(&id) && !self.loading.contains(&id));
                    self.loading.push_back(id);
                    self.loads += 1;
                }
            }
            // The bound holds between two commands too: they are carried out in order.
            let held = self.resident.iter().chain(&self.loading);
            let used: u64 = held.map(|id| self.sizes[id]).sum();
            assert!(used <= self.config.room_bytes, "{used} of {}", self.config.room_bytes);
        }
        self.check();
    }

    fn check(&self) {
        self.machine.audit().unwrap();
        // Rule 2: each load was for a request that started or left.
        let open = self.resident.len() + self.loading.len();
        assert!(self.loads <= self.starts + self.left + open as u64, "a load was wasted");
    }

    /// Requests that wait.
    fn waiting(&self) -> Vec<AdapterId> {
        self.wanted.iter().filter(|(_, count)| **count > 0).map(|(&id, _)| id).collect()
    }

    /// What a fair engine does: loads are done, rows end, what may start does.
    fn go_on(&mut self) {
        self.step();
        self.finish_load(true);
        for id in self.pins.clone().into_keys() {
            self.end(id);
        }
        for id in self.waiting() {
            self.start(id);
        }
    }
}

#[derive(Clone, Debug)]
enum Action {
    Want(u8, u64),
    Leave(u8),
    Start(u8),
    End(u8),
    Loaded,
    Failed,
    Step,
}

fn action() -> impl Strategy<Value = Action> {
    let name = || 0_u8..12;
    prop_oneof![
        4 => (name(), 0_u64..18).prop_map(|(id, size)| Action::Want(id, size)),
        1 => name().prop_map(Action::Leave),
        4 => name().prop_map(Action::Start),
        3 => name().prop_map(Action::End),
        3 => Just(Action::Loaded),
        1 => Just(Action::Failed),
        4 => Just(Action::Step),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// In any history: the bound holds, nothing pinned goes, no load is wasted; and whoever waits
    /// at the end gets its adapter.
    #[test]
    fn no_history_breaks_a_bound_and_everybody_who_waits_is_served(
        actions in proptest::collection::vec(action(), 0..200),
        loads_max in 1_u32..4, ahead_max in 1_u32..6, resident_max in 1_u32..6, patience in 1_u32..20, waiting_max in 2_u32..20,
    ) {
        let config = AdapterConfig { loads_max, ahead_max, resident_max, patience, waiting_max, ..CONFIG };
        let mut world = World::new(config);
        for action in actions {
            match action {
                Action::Want(number, size) => world.want(id(number), size),
                Action::Leave(number) => world.leave(id(number)),
                Action::Start(number) => drop(world.start(id(number))),
                Action::End(number) => world.end(id(number)),
                Action::Loaded => world.finish_load(true),
                Action::Failed => world.finish_load(false),
                Action::Step => world.step(),
            }
        }
        let mut left = 1_000;
        while !world.waiting().is_empty() {
            world.go_on();
            left -= 1;
            prop_assert!(left > 0, "{:?} wait for ever: {:?}", world.waiting(), world.machine);
        }
    }

    /// A crowd that never stops asking for adapters that fill the room does not keep others out.
    #[test]
    fn a_rare_adapter_is_loaded_while_others_are_always_wanted(
        hot in 1_u8..8, size in 1_u64..17, row_len in 1_usize..20, patience in 1_u32..40,
    ) {
        let config = AdapterConfig { patience, ..CONFIG };
        let mut world = World::new(config);
        let rare = id(100);
        let mut rows: VecDeque<AdapterId> = VecDeque::new();
        let mut asked_at = None;
        for turn in 0_usize..4_000 {
            for number in 0..hot {
                while world.wanted.get(&id(number)).copied().unwrap_or(0) < 2 {
                    world.want(id(number), 16 / u64::from(hot));
                }
            }
            if turn == 100 {
                world.want(rare, size);
                asked_at = Some(world.starts);
            }
            world.step();
            world.finish_load(true);
            let first = turn % usize::from(hot);
            let order = (0..hot).cycle().skip(first).take(usize::from(hot)).map(id);
            let mut order = std::iter::once(rare).chain(order);
            let ready = order.find(|&id| world.machine.is_ready(id));
            // A row ends when another begins, or when none can.
            if (rows.len() >= row_len || ready.is_none())
                && let Some(oldest) = rows.pop_front()
            {
                world.end(oldest);
            }
            if let Some(ready) = ready {
                world.start(ready);
                rows.push_back(ready);
                if ready == rare {
                    let waited = world.starts - asked_at.unwrap();
                    // Its turn in the line of the hot ones, and for each the patience and the rows.
                    let each = u64::from(patience) + row_len as u64 + u64::from(hot) + 4;
                    prop_assert!(waited <= each * (u64::from(hot) + 2), "{waited} starts");
                    return Ok(());
                }
            }
        }
        prop_assert!(false, "it never started: {:?}", world.machine);
    }
}

/// Loads that a machine makes on a trace: `outstanding` requests wait or run at once, the first of
/// the trace first, and `rows` of them run, each for `rows` turns.
fn loads_of(trace: &[u8], outstanding: usize, rows: usize) -> u64 {
    let config = AdapterConfig { resident_max: 16, loads_max: 2, ..CONFIG };
    let mut world = World::new(config);
    let mut next = trace.iter().map(|&number| id(number));
    let (mut waiting, mut running): (Vec<AdapterId>, VecDeque<AdapterId>) = Default::default();
    loop {
        while waiting.len() + running.len() < outstanding
            && let Some(id) = next.next()
        {
            world.want(id, 1);
            waiting.push(id);
        }
        if waiting.is_empty() {
            return world.loads;
        }
        world.step();
        world.finish_load(true);
        if running.len() >= rows
            && let Some(done) = running.pop_front()
        {
            world.end(done);
        }
        // Whoever may start and came first does.
        let ready = waiting.iter().position(|&id| world.machine.is_ready(id));
        match ready {
            Some(at) => {
                let id = waiting.remove(at);
                world.start(id);
                running.push_back(id);
            }
            None => {
                if let Some(done) = running.pop_front() {
                    world.end(done);
                }
            }
        }
    }
}

/// Loads of L. A. Belady's optimum, which knows what comes: it evicts what is used last.
///
/// It may batch as the machine may: the trace is cut into windows of `window` requests, and in a
/// window each adapter counts once. Room is 16 adapters of one size.
fn optimum_of(trace: &[u8], window: usize) -> u64 {
    let mut visits: Vec<u8> = Vec::new();
    for window in trace.chunks(window) {
        visits.extend(window.iter().copied().collect::<BTreeSet<_>>());
    }
    let (mut held, mut loads) = (BTreeSet::new(), 0);
    for (at, &visit) in visits.iter().enumerate() {
        if held.contains(&visit) {
            continue;
        }
        if held.len() == 16 {
            let next =
                |it: u8| visits[at..].iter().position(|&other| other == it).unwrap_or(usize::MAX);
            let last = held.iter().copied().max_by_key(|&it| next(it)).unwrap();
            held.remove(&last);
        }
        held.insert(visit);
        loads += 1;
    }
    loads
}

/// Compared are loads of adapters of one size with room for 16, 32 requests outstanding and 8 rows
/// running: the machine's, which knows nothing of what comes, against [`optimum_of`] the same trace
/// in windows of those 32.
#[test]
fn little_more_is_read_than_by_who_knows_the_future() {
    let mut state = 1_u64;
    let mut random = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let rotation: Vec<u8> = (0..64).cycle().take(6_400).collect();
    let uniform: Vec<u8> = (0..6_400).map(|_| u8::try_from(random() % 64).unwrap()).collect();
    // One in three asks goes to one of four, the next third to one of sixteen, the rest to any.
    let skewed: Vec<u8> = (0..6_400)
        .map(|_| {
            let of = [4, 16, 64][usize::try_from(random() % 3).unwrap()];
            u8::try_from(random() % of).unwrap()
        })
        .collect();
    // In hundredths of the optimum. Measured: 131, 139 and 152.
    for (name, trace, bound) in
        [("rotation", rotation, 150), ("uniform", uniform, 150), ("skewed", skewed, 160)]
    {
        let (ours, optimum) = (loads_of(&trace, 32, 8), optimum_of(&trace, 32));
        println!("{name}: {ours} loads, optimum {optimum}");
        assert!(100 * ours <= bound * optimum, "{name}: {ours} loads, {optimum} are possible");
    }
}

#[test]
fn a_large_adapter_does_not_flush_small_ones_of_another_class() {
    let mut world = World::new(CONFIG);
    // Two of 4 and eight of 1; then another of 4 comes.
    for number in 0..10 {
        world.want(id(number), if number < 2 { 4 } else { 1 });
    }
    for _ in 0..12 {
        world.go_on();
    }
    assert_eq!(world.resident.len(), 10);
    world.want(id(20), 4);
    for _ in 0..3 {
        world.go_on();
    }
    assert!(world.resident.contains(&id(20)));
    assert!((2..10).all(|number| world.resident.contains(&id(number))), "{:?}", world.resident);
}

#[test]
fn what_makes_no_sense_or_finds_no_place_is_refused() {
    let zero = Adapters::new(AdapterConfig { patience: 0, ..CONFIG });
    assert_eq!(zero.err(), Some(AdapterConfigError { name: "patience" }));
    let mut machine = Adapters::new(AdapterConfig { waiting_max: 1, ..CONFIG }).unwrap();
    let refusal = machine.want(id(1), 17).unwrap_err();
    assert!(
        refusal.to_string().ends_with("takes 17 bytes, and adapters have 16: give them more room")
    );
    machine.want(id(1), 16).unwrap();
    machine.want(id(1), 16).unwrap();
    assert_eq!(machine.want(id(2), 1), Err(AdapterRefusal::Busy { waiting: 1, max: 1 }));
    assert!(!machine.start(id(1)) && !machine.start(id(2)), "neither is in memory");
}
