//! Guesses: where they come from, and when they stop.

use commons_schedule::draft::{PAUSE_MIN, START_LEN};
use commons_schedule::{Ask, Config, Drafting, Outcome, SequenceId, Status};

use crate::world::{World, ask, roomy, text};

const ID: SequenceId = SequenceId(1);

/// A world with one sequence that has drawn its first token.
fn begun(prompt: &[u32], drafting: Drafting) -> World {
    let mut world = World::new(roomy());
    world.is_talkative = true;
    world.vocabulary = 1; // The model repeats one token.
    world.arrive(Ask { drafting, ..ask(1, prompt, 200) }).unwrap();
    world.step();
    world
}

/// Plans a step, and says what was guessed.
fn guesses(world: &mut World) -> Vec<u32> {
    world.scheduler.plan(&mut world.batch);
    let row = &world.batch.rows[0];
    let fed = world.batch.tokens_of(row);
    fed[fed.len() - row.draft_len as usize..].to_vec()
}

/// Reports what was drawn, whatever the model would have said.
fn draw(world: &mut World, drawn: &[u32]) {
    let outcome = Outcome { id: ID, drawn, status: Status::Continues };
    world.scheduler.done(&[outcome]).unwrap();
    world.audit();
}

#[test]
fn what_followed_the_last_tokens_before_is_guessed() {
    // (prompt, first token drawn, guesses)
    let cases: [(&[u32], u32, &[u32]); 6] = [
        (&[1, 2, 3, 4, 5, 6, 1, 2], 3, &[4, 5, 6]),
        (&[9, 2, 3, 4, 5, 6, 1, 2], 3, &[4, 5, 6]),
        (&[1, 2, 3, 8, 9, 2, 3, 4, 1, 2], 3, &[8, 9, 2]),
        (&[1, 2, 3, 8, 1, 2, 3, 4, 1, 2], 3, &[4, 1, 2]),
        (&[5, 6, 5, 6], 5, &[6, 5, 6]),
        (&[1, 2, 3, 4], 5, &[]),
    ];
    for (prompt, first, expected) in cases {
        let mut world = World::new(roomy());
        world.arrive(Ask { drafting: Drafting::Ngram, ..ask(1, prompt, 20) }).unwrap();
        world.scheduler.plan(&mut world.batch);
        draw(&mut world, &[first]);
        assert_eq!(guesses(&mut world), expected, "{prompt:?}");
    }
}

#[test]
fn right_guesses_grow_and_save_steps() {
    let mut world = begun(&[0, 0, 0, 0, 0], Drafting::Ngram);
    for expected in [START_LEN, START_LEN + 1, START_LEN + 1] {
        world.plan();
        assert_eq!(world.batch.rows[0].draft_len as usize, expected);
        world.finish();
    }
    world.drain(60);
    let stats = world.scheduler.stats();
    assert_eq!(stats.drawn_total, 200);
    assert_eq!(stats.guessed_total, stats.guessed_right_total);
    assert!(world.steps < 50, "{} steps for 200 tokens", world.steps);
}

#[test]
fn wrong_guesses_stop_and_are_probed_again() {
    let mut world = begun(&text(0, 4), Drafting::Outside);
    let mut asked = Vec::new();
    for _ in 0..PAUSE_MIN * 4 {
        asked.push(world.scheduler.proposal_len(ID));
        world.scheduler.propose(ID, &[5, 5, 5, 5]);
        let count = guesses(&mut world).len();
        assert_eq!(count, *asked.last().unwrap());
        draw(&mut world, &[0]);
    }
    let probe = 2 + PAUSE_MIN;
    assert_eq!(asked[..3], [3, 1, 0], "halved, halved, stopped");
    assert_eq!(asked[3..probe - 1].iter().sum::<usize>(), 0);
    assert_eq!(asked.iter().filter(|&&len| len > 0).count(), 4, "then longer and longer pauses");
}

#[test]
fn a_proposal_counts_for_the_token_it_follows() {
    let mut world = begun(&text(0, 4), Drafting::Outside);
    assert!(world.scheduler.propose(ID, &[8, 9]));
    assert_eq!(guesses(&mut world), [8, 9]);
    assert_eq!(guesses(&mut world), [8, 9], "the batch was dropped");
    draw(&mut world, &[8, 4]);
    assert_eq!(guesses(&mut world), [0; 0], "it was for another place");
    draw(&mut world, &[4]);
    assert!(!world.scheduler.propose(SequenceId(77), &[1]), "nobody");
    let mut other = begun(&text(0, 4), Drafting::Ngram);
    assert!(!other.scheduler.propose(ID, &[1]), "it guesses itself");
}

#[test]
fn guesses_take_what_nobody_needs() {
    // 10 tokens a step: while a prompt is computed, nothing is left.
    let config = Config { batch_tokens_max: 10, chunk_len_max: 10, ..roomy() };
    let mut world = World::new(config);
    (world.is_talkative, world.vocabulary) = (true, 1);
    world.arrive(Ask { drafting: Drafting::Ngram, ..ask(1, &[0; 8], 60) }).unwrap();
    world.step();
    world.arrive(ask(2, &text(0, 27), 1)).unwrap();
    let mut guessed = Vec::new();
    for _ in 0..4 {
        world.plan();
        guessed.push(world.batch.rows[0].draft_len);
        world.finish();
    }
    assert_eq!(guessed[..3], [0, 0, 0]);
    assert_eq!(guessed[3], 3);
}

#[test]
fn the_engine_is_asked_where_nothing_was_said_before() {
    let propose = |world: &mut World, tokens: &[u32]| {
        let asked = world.scheduler.proposals();
        if !asked.is_empty() {
            assert!(world.scheduler.propose(ID, tokens));
        }
        asked.iter().map(|it| it.1).sum::<usize>()
    };
    // The second token repeats what was said, the third does not.
    let mut world = World::new(roomy());
    world.arrive(Ask { drafting: Drafting::Both, ..ask(1, &[1, 2, 3, 4, 5, 1, 2], 40) }).unwrap();
    assert_eq!(propose(&mut world, &[]), 0, "its prompt is not read");
    world.scheduler.plan(&mut world.batch);
    draw(&mut world, &[3]);
    assert_eq!(propose(&mut world, &[]), 0, "it is known what follows");
    assert_eq!(guesses(&mut world), [4, 5, 1]);
    draw(&mut world, &[9]);
    assert_eq!(propose(&mut world, &[8, 7, 6, 5, 4]), START_LEN);
    assert_eq!(guesses(&mut world), [8, 7, 6]);
    draw(&mut world, &[8, 7, 6, 0]);
    assert_eq!(propose(&mut world, &[]), START_LEN + 1, "only the other source was wrong");
}

#[test]
fn a_source_that_is_wrong_does_not_silence_the_other() {
    let mut world = begun(&[0; 8], Drafting::Both);
    let mut from_engine = 0;
    for at in 0..40 {
        for (id, len) in world.scheduler.proposals() {
            // Right guesses of the engine, where it is asked at all.
            assert!(world.scheduler.propose(id, &vec![1000 + at; len]));
            from_engine += 1;
        }
        let guessed = guesses(&mut world);
        let is_ours = guessed.first() == Some(&(1000 + at));
        let mut drawn = if is_ours { guessed } else { Vec::new() };
        drawn.push(at % 2);
        draw(&mut world, &drawn);
        if world.scheduler.is_empty() {
            break;
        }
    }
    let stats = world.scheduler.stats();
    assert!(from_engine > 10, "asked {from_engine} times");
    assert!(stats.guessed_right_total * 2 > stats.guessed_total, "{stats:?}");
}

#[test]
fn no_more_is_asked_of_the_engine_than_a_step_takes() {
    let config = Config { draft_tokens_max: 7, ..roomy() };
    let mut world = World::new(config);
    (world.is_talkative, world.vocabulary) = (true, 1000);
    for id in 1..=4 {
        let prompt = text(u32::try_from(id).unwrap(), 4);
        world.arrive(Ask { drafting: Drafting::Outside, ..ask(id, &prompt, 9) }).unwrap();
    }
    world.step();
    let lens = |world: &mut World| -> Vec<usize> {
        world.scheduler.proposals().iter().map(|it| it.1).collect()
    };
    assert_eq!(lens(&mut world), [3, 3, 1]);
    world.stall(SequenceId(1), true);
    assert_eq!(lens(&mut world), [3, 3, 1], "who is not read draws nothing");
    assert_eq!(world.scheduler.tokens(SequenceId(2)).unwrap()[..4], text(2, 4));
    // Of a prompt of 40 tokens a step took 16: with three answers, 5 of a step's 32 are left.
    world.arrive(ask(9, &text(9, 40), 1)).unwrap();
    world.step();
    assert_eq!(lens(&mut world), [3, 2]);
}
