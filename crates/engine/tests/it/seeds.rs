//! Seeds that come late: the prompt is read, and said to be, before anything is drawn.

use commons_port::engine::{Engine, EngineEvent, EngineRequest, Sequence};
use commons_record::order::PromptInput;
use futures::executor::block_on;
use futures::future::FutureExt;

use crate::support::{ask, config, listen, noise_engine, request, warm};

/// The first event; it must be that the prompt was read.
fn cached(sequence: &mut dyn Sequence) -> (usize, u32) {
    match block_on(sequence.next()) {
        Some(EngineEvent::Prefilled { prompt, cached_tokens, .. }) => (prompt.len(), cached_tokens),
        other => panic!("{other:?} before the prompt was read"),
    }
}

#[test]
fn a_prompt_of_any_length_is_read_before_its_seed_is_known() {
    let (engine, facts) = noise_engine(config());
    for len in [1, 2, 31, 32, 33, 64, 65, 600] {
        // The second time all but the last token is in the cache, and nothing is left to read.
        for round in 0..2 {
            let input = PromptInput::Tokens((0..len).map(|index| 300 + index % 70).collect());
            let early = warm(EngineRequest { input, ..request(&facts, "", 6) }, [5; 32]);
            let late = EngineRequest { seed: None, ..early.clone() };
            let mut sequence = engine.start(late).expect("is taken");
            let (read, cached) = cached(sequence.as_mut());
            assert_eq!(read, len as usize, "round {round}");
            assert!(cached < len, "{cached} of {len}");
            assert!(round == 0 || cached + 32 > len - 1, "{cached} of {len} found again");
            assert_eq!(sequence.next().now_or_never(), None, "nothing is drawn without a seed");
            sequence.reveal([5; 32]);
            let (late, early) = (listen_rest(sequence.as_mut()), ask(&engine, early));
            assert_eq!(late, early.ids(), "{len} tokens, round {round}");
        }
    }
}

fn listen_rest(sequence: &mut dyn Sequence) -> Vec<u32> {
    let mut ids = Vec::new();
    while let Some(event) = block_on(sequence.next()) {
        if let EngineEvent::Token(token) = event {
            ids.push(token.id);
        }
    }
    ids
}

#[test]
fn more_wait_for_their_seeds_than_there_are_rows_and_all_end() {
    let (engine, facts) = noise_engine(commons_engine::WorkerConfig { slots: 2, ..config() });
    let one = |index: u8| {
        let text = "bace ".repeat(usize::from(index) * 5 + 1);
        warm(request(&facts, &text, 5), [index; 32])
    };
    let requests: Vec<_> = (0..8).map(one).collect();
    let start = |request: &EngineRequest| {
        engine.start(EngineRequest { seed: None, ..request.clone() }).expect("is taken")
    };
    let mut sequences: Vec<_> = requests.iter().map(start).collect();
    for sequence in &mut sequences {
        cached(sequence.as_mut());
    }
    for (index, sequence) in sequences.iter_mut().enumerate().rev() {
        sequence.reveal([u8::try_from(index).expect("small"); 32]);
    }
    for (sequence, request) in sequences.iter_mut().zip(requests) {
        assert_eq!(listen_rest(sequence.as_mut()), ask(&engine, request).ids());
    }
}

#[test]
fn a_sequence_dropped_before_its_seed_came_leaves_the_others_alone() {
    let (engine, facts) = noise_engine(config());
    let held = EngineRequest { seed: None, ..request(&facts, "bace difo", 4) };
    let mut dropped = engine.start(held).expect("is taken");
    cached(dropped.as_mut());
    let mut other = engine.start(request(&facts, "difo", 4)).expect("is taken");
    drop(dropped);
    assert_eq!(listen(other.as_mut()).tokens.len(), 4);
}
