//! Arriving, waiting, ending: what each message does.

use commons_schedule::{
    Ask, Caching, CallerId, Config, ConfigError, DoneError, EndReason, Outcome, Priority,
    RefuseCode, Scheduler, SequenceId, Status, Wants, Work,
};

use crate::world::{World, ask, caller, roomy, text};

const ID: SequenceId = SequenceId(1);

#[test]
fn what_can_never_fit_is_refused_at_once() {
    // 64 pages of 4: 256 positions.
    let of = |work| Ask { work, ..ask(1, &text(0, 10), 1) };
    let context = |max, output| Ask { context_len_max: max, ..ask(1, &text(0, 10), output) };
    let cases = [
        (ask(1, &[], 4), "Invalid: the prompt is empty: send at least one token"),
        (
            ask(1, &[1], 0),
            "Invalid: no output is asked for: ask for at least one token, or for scores",
        ),
        (
            of(Work::Score { from: 10 }),
            "Invalid: scores are asked for from position 10, but the prompt has 10 tokens",
        ),
        (
            context(15, 6),
            "TooLong: 10 tokens of prompt and 6 of output exceed the context of 15: shorten one",
        ),
        (
            ask(1, &text(0, 10), 248),
            "TooLong: 10 tokens of prompt and 248 of output need 65 pages, but there are 64: \
             shorten one",
        ),
        (
            Ask { context_len_max: u32::MAX, ..ask(1, &text(0, 10), u32::MAX - 20) },
            "TooLong: 10 tokens of prompt and 4294967275 of output need 1073741821 pages, but \
             there are 64: shorten one",
        ),
        (context(15, 5), "taken"),
        (ask(1, &text(0, 10), 247), "taken"),
        (of(Work::Score { from: 9 }), "taken"),
        (of(Work::Embed), "taken"),
    ];
    for (ask, expected) in cases {
        let mut world = World::new(roomy());
        let said = match world.arrive(ask) {
            Ok(()) => "taken".to_owned(),
            Err(refusal) => format!("{:?}: {refusal}", refusal.code()),
        };
        assert_eq!(said, expected);
        world.drain(300);
    }
}

#[test]
fn a_full_queue_refuses_and_a_name_is_used_once() {
    let config = Config { queue_len_max: 3, queue_len_per_caller_max: 2, ..roomy() };
    let mut scheduler = Scheduler::new(config).unwrap();
    let mut arrive = |id, number| {
        let ask = Ask { caller: caller(number), ..ask(id, &[1, 2], 1) };
        scheduler.arrive(ask).map_err(|it| (it.code(), it.to_string()))
    };
    assert_eq!(arrive(1, 1), Ok(()));
    let duplicate = "sequence 1 is here already: choose another id".to_owned();
    assert_eq!(arrive(1, 2), Err((RefuseCode::Invalid, duplicate)));
    assert_eq!(arrive(2, 1), Ok(()));
    let full = "2 sequences of this caller wait and 2 may: try again later".to_owned();
    assert_eq!(arrive(3, 1), Err((RefuseCode::Busy, full)));
    assert_eq!(arrive(4, 2), Ok(()));
    let full = "3 sequences wait and 3 may: try again later".to_owned();
    assert_eq!(arrive(5, 3), Err((RefuseCode::Busy, full)));
    assert_eq!(scheduler.stats().refused_total, 3);
}

#[test]
fn limits_that_do_not_go_together_are_refused() {
    let cases = [
        (Config { page_len: 0, ..roomy() }, ConfigError::Zero { name: "page_len" }),
        (Config { rows_max: 40, ..roomy() }, ConfigError::BatchTooSmall { tokens: 32, rows: 40 }),
        (
            Config { page_len: 1 << 16, page_count: 1 << 20, ..roomy() },
            ConfigError::TooLarge { name: "page_count", got: 1 << 20, max: 1 << 15 },
        ),
    ];
    for (config, expected) in cases {
        assert_eq!(Scheduler::new(config).err(), Some(expected));
    }
}

#[test]
fn a_sequence_goes_from_its_prompt_to_its_end() {
    let mut world = World::new(Config { chunk_len_max: 6, ..roomy() });
    world.is_talkative = true;
    world.arrive(ask(1, &text(0, 10), 3)).unwrap();
    let mut rows = Vec::new();
    while !world.scheduler.is_empty() {
        world.plan();
        let row = world.batch.rows[0].clone();
        rows.push((row.start, world.batch.tokens_of(&row).len(), row.wants));
        world.finish();
    }
    let expected = [(0, 6, Wants::Nothing), (6, 4, Wants::Last)];
    let answers = [(10, 1, Wants::Last), (11, 1, Wants::Last)];
    assert_eq!(rows, [expected, answers].concat());
    assert_eq!(world.ended[&ID].0, EndReason::Length);
    assert_eq!(world.step(), 0, "nothing is left to do");
}

#[test]
fn scores_come_from_the_position_that_was_named() {
    let cases = [
        (Work::Score { from: 0 }, vec![Wants::From(0), Wants::From(0)]),
        (Work::Score { from: 2 }, vec![Wants::From(2), Wants::From(0)]),
        (Work::Score { from: 7 }, vec![Wants::Nothing, Wants::From(1)]),
        (Work::Embed, vec![Wants::From(0), Wants::From(0)]),
    ];
    for (work, expected) in cases {
        let mut world = World::new(Config { chunk_len_max: 6, ..roomy() });
        world.arrive(Ask { work, ..ask(1, &text(0, 10), 0) }).unwrap();
        let mut wants = Vec::new();
        while !world.scheduler.is_empty() {
            world.plan();
            wants.push(world.batch.rows[0].wants);
            world.finish();
        }
        assert_eq!(wants, expected, "{work:?}");
        assert_eq!(world.ended[&ID].0, EndReason::Computed);
    }
}

#[test]
fn before_it_is_revealed_all_but_the_last_token_is_computed() {
    for prompt_len in [1, 2, 9] {
        let mut world = World::new(roomy());
        let hidden = Ask { is_revealed: false, ..ask(1, &text(0, prompt_len), 2) };
        world.arrive(hidden).unwrap();
        world.drain(10);
        assert_eq!(world.computed, prompt_len as usize - 1);
        world.reveal(ID);
        world.plan();
        let row = &world.batch.rows[0];
        assert_eq!((row.start, row.wants), (prompt_len - 1, Wants::Last));
    }
}

#[test]
fn who_is_not_read_rests_and_keeps_its_pages_until_somebody_needs_them() {
    // 8 pages: the one that rests has 4, and the other needs 6.
    let config = Config { page_count: 8, caching: Caching::Off, ..roomy() };
    let mut world = World::new(config);
    world.is_talkative = true;
    world.arrive(ask(1, &text(0, 14), 6)).unwrap();
    world.step();
    world.stall(ID, true);
    assert_eq!(world.step(), 0);
    assert_eq!(world.scheduler.stats().pages_in_use, 4);
    world.arrive(Ask { caller: caller(2), ..ask(2, &text(1, 24), 2) }).unwrap();
    assert_eq!(world.step(), 1);
    assert_eq!((world.scheduler.stats().parked_total, world.scheduler.stats().waiting), (1, 1));
    world.drain(10);
    assert!(world.scheduler.contains(ID), "it waits for its reader");
    world.stall(ID, false);
    world.drain(20);
    assert_eq!(world.ended.len(), 2);
}

#[test]
fn a_cancelled_sequence_frees_its_pages_at_once() {
    for caching in [Caching::Off, roomy().caching] {
        let mut world = World::new(Config { caching, ..roomy() });
        world.arrive(ask(1, &text(0, 14), 6)).unwrap();
        world.step();
        world.plan();
        world.cancel(ID);
        let stats = world.scheduler.stats();
        assert_eq!((stats.pages_in_use, stats.running, stats.waiting), (0, 0, 0));
        assert!(!world.scheduler.cancel(ID), "it was cancelled before");
        // Its name is taken again before the batch that it was in is done.
        world.arrive(ask(1, &text(1, 3), 2)).unwrap();
        let outcome = Outcome { id: ID, drawn: &[5], status: Status::Continues };
        assert_eq!(world.scheduler.done(&[outcome]), Ok(Vec::new()));
        world.drain(10);
        assert_eq!(world.ended.len(), 1);
    }
}

/// Two that need more pages together than there are: the newer is parked, and says the same.
#[test]
fn when_pages_run_out_the_newest_is_parked_and_says_the_same() {
    for caching in [Caching::Off, Caching::On { copy_len_min: 2 }] {
        let mut world = World::new(Config { page_count: 8, caching, ..roomy() });
        world.is_talkative = true;
        let asks = [ask(1, &text(0, 6), 20), ask(2, &text(1, 6), 20)];
        for ask in &asks {
            world.arrive(ask.clone()).unwrap();
        }
        let mut order = Vec::new();
        while !world.scheduler.is_empty() {
            world.plan();
            order.extend(world.finish().iter().map(|it| it.id.0));
        }
        assert_eq!(order, [1, 2]);
        assert!(world.scheduler.stats().parked_total >= 1);
        for ask in &asks {
            assert_eq!(world.ended[&ask.id].1, world.answer(ask));
        }
    }
}

#[test]
fn an_outcome_that_does_not_follow_is_refused_and_changes_nothing() {
    let mut world = World::new(roomy());
    world.is_talkative = true;
    let outside = commons_schedule::Drafting::Outside;
    world.arrive(Ask { drafting: outside, ..ask(1, &text(0, 5), 9) }).unwrap();
    world.step();
    world.scheduler.propose(ID, &[4, 5]);
    world.plan();
    let status = Status::Continues;
    let outcome = |drawn: &'static [u32]| Outcome { id: ID, drawn, status };
    let stranger = Outcome { id: SequenceId(9), ..outcome(&[1]) };
    let count = |got| DoneError::DrawnCount { id: ID, min: 1, max: 3, got };
    let cases: [(&[Outcome<'_>], DoneError); 5] = [
        (&[], DoneError::RowCount { rows: 1, got: 0 }),
        (&[stranger], DoneError::WrongRow { index: 0, expected: ID, got: SequenceId(9) }),
        (&[outcome(&[])], count(0)),
        (&[outcome(&[4, 5, 6, 7])], count(4)),
        (&[outcome(&[4, 6, 7])], DoneError::NotDrafted { id: ID, index: 2 }),
    ];
    for (outcomes, expected) in cases {
        assert_eq!(world.scheduler.done(outcomes), Err(expected));
        world.audit();
    }
    assert_eq!(world.scheduler.done(&[outcome(&[4, 6])]), Ok(Vec::new()));
}

#[test]
fn messages_about_nobody_say_so() {
    let mut scheduler = Scheduler::new(roomy()).unwrap();
    assert!(!scheduler.cancel(ID) && !scheduler.reveal(ID));
    assert!(!scheduler.stall(ID) && !scheduler.resume(ID));
    assert_eq!((scheduler.proposal_len(ID), scheduler.service_of(CallerId([0; 32]))), (0, None));
    assert_eq!(Priority::ALL.len(), 3);
}
