//! What is found in the cache, what is copied, and what goes when room is needed.

use commons_schedule::{Ask, Caching, Config, PageId, PrefixKey, SequenceId, Sharing, Wants, Work};

use crate::world::{World, ask, caller, roomy, text};

/// Runs one ask to its end, then another, and says how many tokens of the other were found.
fn found(first: Ask, second: Ask) -> u64 {
    let mut world = World::new(roomy());
    world.is_talkative = true;
    world.arrive(first).unwrap();
    world.drain(100);
    world.arrive(second).unwrap();
    world.drain(100);
    world.scheduler.stats().cached_total
}

#[test]
fn the_longest_useful_prefix_is_found() {
    // Pages hold 4 positions; a copy needs 2. The model says 0 to 2, never what a text has.
    let long = text(0, 20);
    let fork = |len: usize| [&long[..len], &text(9, 6)].concat();
    let cases = [
        ("all but the last token", text(0, 20), 19),
        ("all of a longer prompt", text(0, 24), 20),
        ("whole pages", fork(8), 8),
        ("whole pages and a part of one", fork(10), 10),
        ("too small a part of a page", fork(9), 8),
        ("a part of the first page", fork(3), 3),
        ("less than a prompt that was longer", text(0, 9), 8),
        ("a part of a page, but for the last token", text(0, 12), 11),
        ("nothing", text(1, 20), 0),
        ("nothing of one token", text(0, 1), 0),
    ];
    for (name, prompt, expected) in cases {
        assert_eq!(found(ask(1, &long, 1), ask(2, &prompt, 1)), expected, "{name}");
    }
}

#[test]
fn an_answer_is_a_prefix_of_the_next_turn() {
    let mut world = World::new(roomy());
    world.is_talkative = true;
    let first = ask(1, &text(0, 7), 14);
    let turn = [first.prompt.clone(), world.answer(&first), text(1, 5)].concat();
    world.arrive(first).unwrap();
    world.drain(100);
    world.arrive(ask(2, &turn, 3)).unwrap();
    world.drain(100);
    // 7 and 14 tokens, of which the last was never computed: 20 positions, 5 pages.
    assert_eq!(world.scheduler.stats().cached_total, 20);
}

#[test]
fn prefixes_stay_where_they_belong() {
    let shared = |it: Ask| Ask { sharing: Sharing::Shared, ..it };
    let other = |it: Ask| Ask { caller: caller(2), ..it };
    let keyed = |it: Ask| Ask { prefix_key: PrefixKey([1; 32]), ..it };
    let (first, second) = (ask(1, &text(0, 16), 1), ask(2, &text(0, 16), 1));
    let cases = [
        ("one caller's own", first.clone(), second.clone(), 15),
        ("another caller's", first.clone(), other(second.clone()), 0),
        ("shared by both", shared(first.clone()), shared(other(second.clone())), 15),
        ("shared by the first", shared(first.clone()), other(second.clone()), 0),
        ("shared by the second", first.clone(), shared(other(second.clone())), 0),
        ("of another adapter", first, keyed(second), 0),
    ];
    for (name, first, second, expected) in cases {
        assert_eq!(found(first, second), expected, "{name}");
    }
}

#[test]
fn what_must_be_delivered_is_not_taken_from_the_cache() {
    let work = |work| Ask { work, ..ask(2, &text(0, 20), 1) };
    let cases = [
        (Work::Embed, 0),
        (Work::Score { from: 0 }, 0),
        (Work::Score { from: 9 }, 8),
        (Work::Score { from: 19 }, 19),
    ];
    for (it, expected) in cases {
        assert_eq!(found(ask(1, &text(0, 20), 1), work(it)), expected, "{it:?}");
    }
}

/// Sixteen callers send the same long prompt at once: it is computed once.
#[test]
fn a_prompt_that_all_send_at_once_is_computed_once() {
    let config = Config { page_count: 512, rows_max: 16, ..roomy() };
    let mut world = World::new(config);
    world.is_talkative = true;
    for id in 0..16 {
        let it = Ask { caller: caller(u8::try_from(id).unwrap()), ..ask(id, &text(0, 100), 2) };
        world.arrive(Ask { sharing: Sharing::Shared, ..it }).unwrap();
    }
    while world.known.values().any(|it| it.tokens.len() == 100) {
        world.step();
    }
    // One computes 100; the others at most the rest of a page, and answers meanwhile.
    assert!(world.computed <= 100 + 15 * 4 + 2 * 16, "{} computed", world.computed);
    world.drain(100);
}

#[test]
fn a_copy_is_made_before_the_row_and_again_if_the_batch_is_dropped() {
    let mut world = World::new(roomy());
    world.is_talkative = true;
    world.arrive(ask(1, &text(0, 12), 1)).unwrap();
    world.drain(100);
    let forked = [&text(0, 12)[..6], &text(1, 3)].concat();
    world.arrive(ask(2, &forked, 2)).unwrap();
    world.plan();
    let copies = world.batch.copies.clone();
    assert_eq!((copies.len(), copies[0].len), (1, 2));
    assert_eq!(world.batch.rows[0].start, 6);
    world.plan();
    assert_eq!(world.batch.copies, copies, "the batch was not computed");
    world.finish();
    world.plan();
    assert!(world.batch.copies.is_empty());
}

#[test]
fn the_prefix_used_longest_ago_goes_first() {
    // 8 pages of 4: three prompts of two pages are cached, and the first is used again.
    let mut world = World::new(Config { page_count: 8, ..roomy() });
    world.is_talkative = true;
    let one = |world: &mut World, id, seed, len| {
        let before = world.scheduler.stats().cached_total;
        world.arrive(ask(id, &text(seed, len), 1)).unwrap();
        world.drain(100);
        world.scheduler.stats().cached_total - before
    };
    for seed in 0..3 {
        assert_eq!(one(&mut world, u64::from(seed), seed, 8), 0);
    }
    assert_eq!(one(&mut world, 10, 0, 8), 7);
    assert_eq!(one(&mut world, 11, 5, 16), 0, "takes the two free pages, and two more");
    assert_eq!(one(&mut world, 12, 0, 8), 7, "still there");
    assert_eq!(one(&mut world, 13, 1, 8), 0, "gone");
}

#[test]
fn a_failed_row_leaves_nothing_in_the_cache() {
    let mut world = World::new(roomy());
    world.is_talkative = true;
    world.arrive(ask(1, &text(0, 12), 4)).unwrap();
    world.scheduler.plan(&mut world.batch);
    let failed = commons_schedule::Outcome {
        id: SequenceId(1),
        drawn: &[],
        status: commons_schedule::Status::Failed,
    };
    let ended = world.scheduler.done(&[failed]).unwrap();
    assert_eq!(ended[0].reason, commons_schedule::EndReason::Failed);
    let stats = world.scheduler.stats();
    assert_eq!((stats.pages_free, stats.pages_cached), (64, 0));
}

/// A tree of one token a page, as deep as the prompt is long, and as wide as an adversary likes.
#[test]
fn deep_and_wide_trees_cost_no_stack() {
    let deep = 100_000;
    let config = Config {
        page_len: 1,
        page_count: deep + 8,
        batch_tokens_max: deep,
        chunk_len_max: deep,
        caching: Caching::On { copy_len_min: 1 },
        ..roomy()
    };
    let mut scheduler = commons_schedule::Scheduler::new(config).unwrap();
    let mut batch = commons_schedule::Batch::default();
    let mut run = |id: u64, prompt: &[u32]| {
        scheduler.arrive(ask(id, prompt, 1)).unwrap();
        scheduler.plan(&mut batch);
        let row = &batch.rows[0];
        assert_eq!(row.wants, Wants::Last);
        let pages: Vec<PageId> = batch.pages_of(row).to_vec();
        let status = commons_schedule::Status::Continues;
        let outcome = commons_schedule::Outcome { id: SequenceId(id), drawn: &[0], status };
        scheduler.done(&[outcome]).unwrap();
        (pages.len(), scheduler.stats().cached_total)
    };
    assert_eq!(run(1, &text(0, deep)), (deep as usize, 0));
    assert_eq!(run(2, &text(0, deep)), (deep as usize, u64::from(deep) - 1));
    for id in 0..1000 {
        let prompt = [u32::try_from(id).unwrap(), 5];
        run(10 + id, &prompt);
    }
    assert_eq!(scheduler.stats().pages_in_use, 0);
}
