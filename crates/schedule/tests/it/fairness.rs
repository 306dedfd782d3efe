//! Who gets how much, and how long anybody waits.

use commons_schedule::{Ask, Config, DECODE_WEIGHT, Priority, SequenceId, Work};

use crate::world::{World, ask, caller, roomy, text};

fn from(number: u8, ask: Ask) -> Ask {
    Ask { caller: caller(number), ..ask }
}

fn at(priority: Priority, ask: Ask) -> Ask {
    Ask { priority, ..ask }
}

/// A world whose model never says stop: the texts of these tests do not meet it by chance.
fn world(config: Config) -> World {
    let mut world = World::new(config);
    world.is_talkative = true;
    world
}

/// Two callers that always have work waiting.
#[test]
fn two_backlogged_callers_get_equal_service() {
    // (prompt, output) of one and of the other.
    let cases = [
        ((40, 2), (4, 20)),
        ((40, 2), (40, 2)),
        ((4, 20), (4, 20)),
        ((1, 30), (60, 1)),
        ((8, 8), (8, 1)),
    ];
    let config = roomy();
    for (left, right) in cases {
        let mut world = world(config);
        let pool = u64::from(config.page_len * config.page_count);
        let bound = 2 * u64::from(left.0.max(right.0)).max(DECODE_WEIGHT * pool);
        let (mut next_id, mut worst) = (0, 0);
        for _ in 0..1500 {
            for (number, (prompt, output)) in [(1, left), (2, right)] {
                let here = world.known.values().filter(|it| it.ask.caller == caller(number));
                for _ in here.count()..16 {
                    let text = text(u32::try_from(next_id).unwrap(), prompt);
                    world.arrive(from(number, ask(next_id, &text, output))).unwrap();
                    next_id += 1;
                }
            }
            world.step();
            let [left, right] = [1, 2].map(|it| world.scheduler.service_of(caller(it)).unwrap());
            worst = worst.max(left.abs_diff(right));
        }
        let total = world.scheduler.service_of(caller(1)).unwrap();
        assert!(worst <= bound, "{left:?} against {right:?}: {worst} apart, {bound} allowed");
        assert!(total > 4 * worst, "the run is long enough to tell: {total}, {worst} apart");
    }
}

#[test]
fn a_flood_of_one_caller_does_not_delay_another() {
    let mut world = world(Config { rows_max: 2, ..roomy() });
    for id in 0..30 {
        world.arrive(from(1, ask(id, &text(0, 8), 4))).unwrap();
    }
    for _ in 0..10 {
        world.step();
    }
    world.arrive(from(2, ask(100, &text(1, 8), 4))).unwrap();
    let ended_before = world.ended.len();
    while world.scheduler.contains(SequenceId(100)) {
        world.step();
    }
    assert!(world.ended.len() - ended_before <= 4, "only those that ran come before");
}

#[test]
fn idleness_is_no_credit() {
    let mut world = world(roomy());
    for id in 0..20 {
        world.arrive(from(1, ask(id, &text(0, 16), 8))).unwrap();
    }
    for _ in 0..12 {
        world.step();
    }
    let before = world.scheduler.service_of(caller(1)).unwrap();
    assert!(before > 0);
    world.arrive(from(2, ask(100, &text(1, 16), 8))).unwrap();
    assert_eq!(world.scheduler.service_of(caller(2)), Some(before));
}

#[test]
fn who_leaves_and_comes_back_finds_its_debt() {
    let mut world = world(roomy());
    world.arrive(from(1, ask(1, &text(0, 4), 30))).unwrap();
    world.stall(SequenceId(1), true);
    world.arrive(from(2, ask(2, &text(1, 60), 30))).unwrap();
    world.stall(SequenceId(1), false);
    for _ in 0..20 {
        world.step();
    }
    let owed = world.scheduler.service_of(caller(2)).unwrap();
    assert!(owed > world.scheduler.service_of(caller(1)).unwrap());
    world.cancel(SequenceId(2));
    world.arrive(from(2, ask(3, &text(1, 4), 1))).unwrap();
    assert_eq!(world.scheduler.service_of(caller(2)), Some(owed));
}

#[test]
fn within_a_caller_the_first_comes_first() {
    let mut world = world(Config { rows_max: 1, ..roomy() });
    for id in 0..6 {
        world.arrive(ask(id, &text(0, 5), 3)).unwrap();
    }
    for expected in 0..6 {
        let first = loop {
            world.plan();
            if let Some(ended) = world.finish().first() {
                break ended.id;
            }
        };
        assert_eq!(first, SequenceId(expected));
    }
}

#[test]
fn the_owner_takes_the_row_of_what_can_wait() {
    let mut world = world(Config { rows_max: 2, ..roomy() });
    for id in 0..2 {
        world.arrive(at(Priority::Background, ask(id, &text(0, 8), 200))).unwrap();
    }
    for _ in 0..3 {
        world.step();
    }
    world.arrive(from(2, at(Priority::Owner, ask(9, &text(1, 8), 4)))).unwrap();
    world.plan();
    assert_eq!(world.batch.rows.iter().filter(|row| row.id == SequenceId(9)).count(), 1);
    assert_eq!(world.scheduler.stats().parked_total, 1);
    world.finish();
    for _ in 0..8 {
        world.step();
    }
    assert_eq!(world.scheduler.stats().running, 2, "what was parked is back");
}

/// Rule 5: with owners coming without end, what can wait still gets one sequence in each
/// `age_steps_max + 1` steps, plus the time until a row is free.
#[test]
fn nobody_starves_behind_the_owner() {
    let config = Config { rows_max: 2, age_steps_max: 20, ..roomy() };
    let (prompt, output) = (8, 6);
    let mut world = world(config);
    for id in 0..5 {
        world.arrive(at(Priority::Background, ask(id, &text(0, prompt), output))).unwrap();
    }
    let mut next_id = 100;
    let mut ended_at = Vec::new();
    for step in 0..400_u32 {
        let owners = world.known.values().filter(|it| it.ask.priority == Priority::Owner);
        for _ in owners.count()..6 {
            let text = text(u32::try_from(next_id).unwrap(), prompt);
            world.arrive(from(2, at(Priority::Owner, ask(next_id, &text, output)))).unwrap();
            next_id += 1;
        }
        world.plan();
        let ended = world.finish();
        ended_at.extend(ended.iter().filter(|it| it.id.0 < 5).map(|_| step));
    }
    // A prompt of one chunk and its output is at most `output + 1` steps in a row.
    let (age, life) = (config.age_steps_max + 1, output + 1);
    assert_eq!(ended_at.len(), 5, "all of them ended");
    for (number, step) in (1..).zip(ended_at) {
        let bound = number * (age + life) + life;
        assert!(step <= bound, "number {number} ended at {step}, later than {bound}");
    }
}

/// A long prompt gets a chunk in every step, and the answers do not wait for it.
#[test]
fn a_long_prompt_and_the_answers_go_on_together() {
    let mut world = world(Config { batch_tokens_max: 10, chunk_len_max: 8, ..roomy() });
    for id in 0..4 {
        world.arrive(ask(id, &text(u32::try_from(id).unwrap(), 2), 40)).unwrap();
    }
    for _ in 0..4 {
        world.step();
    }
    world.arrive(from(2, ask(9, &text(9, 60), 2))).unwrap();
    for chunk in 0..10 {
        world.plan();
        assert_eq!(world.batch.tokens().len(), 10, "the budget is used");
        let row = world.batch.rows.iter().find(|row| row.id == SequenceId(9)).unwrap();
        assert_eq!(row.start, chunk * 6);
        world.finish();
    }
    assert_eq!(world.known[&SequenceId(9)].tokens.len(), 61);
}

#[test]
fn a_score_and_an_embedding_are_charged_as_prompts() {
    for work in [Work::Score { from: 3 }, Work::Embed] {
        let mut world = world(roomy());
        world.arrive(Ask { work, ..ask(1, &text(0, 20), 0) }).unwrap();
        world.arrive(ask(2, &text(1, 4), 30)).unwrap();
        let others = |world: &World| {
            let said = world.known.get(&SequenceId(2)).map_or(0, |it| it.tokens.len() - 4);
            4 + DECODE_WEIGHT * said as u64
        };
        while world.scheduler.contains(SequenceId(1)) {
            world.step();
        }
        assert_eq!(world.scheduler.service_of(caller(1)), Some(20 + others(&world)));
    }
}
