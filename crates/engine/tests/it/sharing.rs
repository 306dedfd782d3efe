//! Whose prefixes are found by whom: a cache must not tell one caller what another asked.

use commons_port::engine::{Caller, Engine, EngineRequest};

use crate::support::{caller, config, listen_with_cached, noise_engine, request};

/// Two callers ask the same, one after the other: how much does the second find?
fn check(first: (u8, bool), second: (u8, bool), finds: bool) {
    let (engine, facts) = noise_engine(config());
    let ask = |(number, shares_prefixes): (u8, bool)| {
        let caller = Caller { shares_prefixes, ..caller(number) };
        let request = request(&facts, &"bace difo ".repeat(20), 8);
        let mut sequence = engine.start(EngineRequest { caller, ..request }).expect("is taken");
        listen_with_cached(sequence.as_mut())
    };
    let (said, cached) = ask(first);
    assert_eq!(cached, Some(0), "nobody asked before");
    let (again, cached) = ask(second);
    assert_eq!(again, said);
    assert_eq!(cached.is_some_and(|cached| cached > 0), finds, "{first:?}, then {second:?}");
}

#[test]
fn a_prefix_is_found_by_its_own_caller_or_if_both_share() {
    for (first, second, finds) in [
        ((1, false), (1, false), true),
        ((1, false), (2, false), false),
        ((1, true), (2, true), true),
        ((1, true), (2, false), false),
        ((1, false), (2, true), false),
        ((1, true), (1, true), true),
        // What a caller keeps to itself is not what it shares.
        ((1, false), (1, true), false),
        ((1, true), (1, false), false),
    ] {
        check(first, second, finds);
    }
}

#[test]
fn what_was_shared_with_others_is_not_what_was_kept() {
    let (engine, facts) = noise_engine(config());
    let text = "bace difo ".repeat(20);
    let cached = |number: u8, shares_prefixes: bool| {
        let caller = Caller { shares_prefixes, ..caller(number) };
        let request = EngineRequest { caller, ..request(&facts, &text, 4) };
        listen_with_cached(engine.start(request).expect("is taken").as_mut()).1
    };
    assert_eq!(cached(1, false), Some(0));
    assert_eq!(cached(2, true), Some(0), "the first kept it");
    assert_eq!(cached(3, false), Some(0), "the third keeps its own");
    assert!(cached(4, true).is_some_and(|cached| cached > 0), "the second shared it");
}
