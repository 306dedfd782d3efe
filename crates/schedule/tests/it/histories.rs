//! Whatever callers, readers and the engine do, in whatever order: the invariants hold, everybody
//! gets what they would have got alone, and nothing is left behind.

use commons_schedule::{
    Ask, Caching, Config, Drafting, EndReason, PrefixKey, Priority, Scheduler, SequenceId, Sharing,
    Work,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::world::{World, caller};

/// One thing that can happen.
#[derive(Clone, Debug)]
enum Action {
    Arrive(Ask),
    Cancel(Index),
    Reveal(Index),
    Stall(Index),
    Resume(Index),
    Propose(Index, Vec<u32>),
    /// A step, and what happens between its plan and its end.
    Step(Vec<Action>),
    /// A plan that is never computed.
    Drop,
}

/// Prompts that begin alike, so that prefixes are found, split and missed.
fn any_prompt() -> impl Strategy<Value = Vec<u32>> {
    (0..3_u32, 0..20_usize, vec(0..2_u32, 1..8)).prop_map(|(family, len, tail)| {
        let head = (0..20).map(|at| 10 + family * (at / 6));
        head.take(len).chain(tail).collect()
    })
}

fn any_ask() -> impl Strategy<Value = Ask> {
    let work = prop_oneof![
        6 => (1..14_u32).prop_map(|output_len_max| Work::Generate { output_len_max }),
        1 => (0..9_u32).prop_map(|from| Work::Score { from }),
        1 => Just(Work::Embed),
    ];
    let drafting = select(&[Drafting::Off, Drafting::Ngram, Drafting::Outside, Drafting::Both]);
    let sharing = select(&[Sharing::Private, Sharing::Shared]);
    let who = (0..3_u8, select(&Priority::ALL), 0..2_u8);
    (any_prompt(), work, drafting, sharing, who, prop::bool::weighted(0.7)).prop_map(
        |(prompt, work, drafting, sharing, (from, priority, key), is_revealed)| Ask {
            id: SequenceId(0),
            caller: caller(from),
            priority,
            prompt,
            work,
            context_len_max: 60,
            prefix_key: PrefixKey([key; 32]),
            sharing,
            drafting,
            is_revealed,
        },
    )
}

fn any_message() -> impl Strategy<Value = Action> {
    prop_oneof![
        5 => any_ask().prop_map(Action::Arrive),
        1 => any::<Index>().prop_map(Action::Cancel),
        2 => any::<Index>().prop_map(Action::Reveal),
        1 => any::<Index>().prop_map(Action::Stall),
        2 => any::<Index>().prop_map(Action::Resume),
        2 => (any::<Index>(), vec(0..3_u32, 0..6)).prop_map(|(at, it)| Action::Propose(at, it)),
    ]
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => any_message(),
        8 => Just(Action::Step(Vec::new())),
        2 => vec(any_message(), 1..4).prop_map(Action::Step),
        1 => Just(Action::Drop),
    ]
}

/// Tiny pools and narrow batches: everything runs out.
fn any_config() -> impl Strategy<Value = Config> {
    let caching = prop_oneof![
        1 => Just(Caching::Off),
        5 => (1..4_u32).prop_map(|copy_len_min| Caching::On { copy_len_min }),
    ];
    let sizes = (1..6_u32, 6..24_u32, 1..6_u32, 0..12_u32, 1..10_u32);
    (sizes, caching, 0..5_u32, 0..6_u32, 1..20_u32).prop_map(
        |((page_len, page_count, rows_max, more, chunk_len_max), caching, draft, drafts, age)| {
            Config {
                page_len,
                page_count,
                rows_max,
                batch_tokens_max: rows_max + more,
                chunk_len_max,
                queue_len_max: 12,
                queue_len_per_caller_max: 6,
                caching,
                draft_len_max: draft,
                draft_tokens_max: drafts,
                age_steps_max: age,
            }
        },
    )
}

/// A history in progress: the world, and every ask it took.
struct History {
    world: World,
    taken: Vec<Ask>,
    next_id: u64,
}

impl History {
    fn perform(&mut self, action: Action) {
        match action {
            Action::Arrive(mut ask) => {
                ask.id = SequenceId(self.next_id);
                self.next_id += 1;
                let is_taken = self.world.arrive(ask.clone()).is_ok();
                self.invariant_what_is_taken_fits(&ask, is_taken);
                if is_taken {
                    self.taken.push(ask);
                }
            }
            Action::Cancel(at) => self.with(at, World::cancel),
            Action::Reveal(at) => self.with(at, World::reveal),
            Action::Stall(at) => self.with(at, |world, id| world.stall(id, true)),
            Action::Resume(at) => self.with(at, |world, id| world.stall(id, false)),
            Action::Propose(at, tokens) => self.with(at, |world, id| {
                let drafting = world.known[&id].ask.drafting;
                let was_taken = world.scheduler.propose(id, &tokens);
                assert!(matches!(drafting, Drafting::Outside | Drafting::Both) || !was_taken);
            }),
            Action::Drop => self.world.plan(),
            Action::Step(between) => {
                self.invariant_the_engine_is_asked_for_what_can_be_used();
                self.world.plan();
                for action in between {
                    self.perform(action);
                }
                self.world.finish();
            }
        }
        self.world.audit();
    }

    fn with(&mut self, at: Index, act: impl FnOnce(&mut World, SequenceId)) {
        let ids: Vec<_> = self.world.known.keys().copied().collect();
        if !ids.is_empty() {
            act(&mut self.world, ids[at.index(ids.len())]);
        }
    }

    /// Nothing is taken that could not finish alone in an empty machine.
    fn invariant_what_is_taken_fits(&self, ask: &Ask, is_taken: bool) {
        let config = *self.world.scheduler.config();
        let mut alone = World::new(config);
        alone.vocabulary = self.world.vocabulary;
        let would_be = alone.arrive(ask.clone()).is_ok();
        assert!(would_be || !is_taken);
        let positions = ask.prompt.len() + alone.answer(ask).len();
        let pages = (config.page_count * config.page_len) as usize;
        assert!(!is_taken || positions <= pages + 1);
    }

    /// Proposals are asked for those who may draw, and no more than a step takes.
    fn invariant_the_engine_is_asked_for_what_can_be_used(&mut self) {
        let asked = self.world.scheduler.proposals();
        let config = *self.world.scheduler.config();
        let total: usize = asked.iter().map(|it| it.1).sum();
        assert!(total <= config.draft_tokens_max as usize);
        for (id, len) in asked {
            assert!((1..=self.world.scheduler.proposal_len(id)).contains(&len));
            let known = &self.world.known[&id];
            assert!(known.ask.is_revealed && !known.is_stalled);
            assert_eq!(self.world.scheduler.tokens(id), Some(&*known.tokens));
        }
    }

    /// Everybody is read and revealed from now on, and everything ends, as it would have alone.
    fn finish(mut self) {
        let ids: Vec<_> = self.world.known.keys().copied().collect();
        for id in ids {
            self.world.reveal(id);
            self.world.stall(id, false);
        }
        // The first in rank gains a token a step, and nobody in front of it arrives any more.
        let lengths = self.world.known.values();
        let lengths = lengths.map(|it| it.ask.prompt.len() + 14).sum::<usize>();
        self.world.drain((self.world.known.len() + 1) * (lengths + 20) + 1);
        assert!(self.world.scheduler.is_empty(), "{:?}", self.world.known);
        let stats = self.world.scheduler.stats();
        assert_eq!((stats.pages_in_use, stats.running, stats.waiting), (0, 0, 0));
        for ask in &self.taken {
            let Some((reason, said)) = self.world.ended.get(&ask.id) else { continue };
            assert_eq!(*said, self.world.answer(ask), "parking and guessing change no answer");
            let draws = matches!(ask.work, Work::Generate { .. });
            assert_eq!(draws, *reason != EndReason::Computed);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn whatever_happens_the_invariants_hold_and_everybody_gets_their_answer(
        config in any_config(),
        vocabulary in 1..4_u64,
        actions in vec(any_action(), 1..60),
    ) {
        let mut history = History { world: World::new(config), taken: Vec::new(), next_id: 0 };
        history.world.vocabulary = vocabulary;
        for action in actions {
            history.perform(action);
        }
        history.finish();
    }

    /// One step of one machine is a function of its history alone.
    #[test]
    fn equal_histories_give_equal_batches(
        config in any_config(),
        actions in vec(any_action(), 1..20),
    ) {
        let mut histories = [(); 2].map(|()| History {
            world: World::new(config),
            taken: Vec::new(),
            next_id: 0,
        });
        for action in actions {
            for history in &mut histories {
                history.perform(action.clone());
            }
            let [left, right] = &histories;
            prop_assert_eq!(&left.world.batch, &right.world.batch);
        }
        let machine: &Scheduler = &histories[0].world.scheduler;
        prop_assert_eq!(machine.stats(), histories[1].world.scheduler.stats());
    }
}
