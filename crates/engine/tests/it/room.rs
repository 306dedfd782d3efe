//! Models and contexts that do not fit: refused with numbers, never cut in silence.

use commons_engine::local::AddError;
use commons_engine::noise::write_noise_model;
use commons_engine::room::{Room, RoomError};
use commons_engine::worker::SpawnError;
use commons_engine::{LocalEngine, WorkerConfig};
use commons_port::engine::Engine;

use crate::support::{ask, config, noise_engine, noise_page, request};

fn refusal(kv_size_max: u64) -> RoomError {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("noise.gguf");
    write_noise_model(&path, 7).expect("writes");
    let config = WorkerConfig { kv_size_max: Some(kv_size_max), ..config() };
    match LocalEngine::new(config).add(&path) {
        Err(AddError::Spawn(SpawnError::Room(error))) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_context_that_finds_no_room_is_refused_with_numbers() {
    let page = noise_page(config().kv_format);
    for size in [0, 1, page, 15 * page] {
        let text = refusal(size).to_string();
        let needed = 16 * page;
        for number in [needed.to_string(), size.to_string(), "512 positions".to_owned()] {
            assert!(text.contains(&number), "{text:?} does not say {number}");
        }
    }
}

#[test]
fn a_context_that_finds_less_room_is_shorter_and_says_so() {
    let page = noise_page(config().kv_format);
    for (pages, context_len) in [(16, 512), (17, 544), (40, 1_280), (64, 2_048), (500, 2_048)] {
        let kv_size_max = Some(pages * page);
        let (engine, facts) = noise_engine(WorkerConfig { kv_size_max, ..config() });
        assert_eq!(facts.context_len, context_len, "{pages} pages");
        assert_eq!(engine.models()[0].context_len, context_len);
        assert_eq!(ask(&engine, request(&facts, "bace", 8)).tokens.len(), 8);
    }
}

#[test]
fn weights_that_do_not_fit_are_refused_before_one_is_read() {
    let refusal = Room::check_weights(u64::MAX).expect_err("no machine has that");
    assert!(matches!(refusal, RoomError::Weights { needed: u64::MAX, .. }), "{refusal:?}");
    let text = refusal.to_string();
    assert!(text.contains(&u64::MAX.to_string()) && text.contains("free"), "{text}");
    Room::check_weights(1).expect("one byte fits");
}
