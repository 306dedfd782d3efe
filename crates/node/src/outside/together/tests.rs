//! Two nodes that want one file, each with a place and a store of its own.

use std::time::Duration;

use super::super::tests::{Act, SHA, World, broken, content};
use super::*;

fn peer(index: u8) -> PeerId {
    PeerId::from_bytes([index; 32])
}

/// A node, how to speak to it, and what it says.
struct Member {
    world: World,
    heard: mpsc::Sender<Heard>,
    words: mpsc::Receiver<Word>,
    run: BoxFuture<'static, Result<Option<Hash>, OutsideError>>,
}

fn member(me: PeerId, acts: &[Act]) -> Member {
    let world = World::new(acts);
    let ((to, words), (heard, from)) = (mpsc::channel(64), mpsc::channel(64));
    let wanted = Wanted {
        me,
        file: World::file(SHA),
        policy: Policy::default(),
        timing: Timing::default(),
        words: to,
        heard: from,
        progress: world.progress.clone(),
    };
    let run = Box::pin(pull_in_turn(world.ports(), wanted));
    Member { world, heard, words, run }
}

/// First and second in the order for the file.
fn in_order() -> [PeerId; 2] {
    let key = file_key(&World::file(SHA));
    let order = commons_swarm::outside::turn::order(&key, [peer(1), peer(2)]);
    [order[0], order[1]]
}

/// Carries the words of one to the other.
async fn carry(peer: PeerId, mut words: mpsc::Receiver<Word>, to: mpsc::Sender<Heard>) {
    while let Some(word) = words.recv().await {
        if to.send(Heard::Word { peer, word }).await.is_err() {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_of_two_fetches_and_the_other_is_told_that_it_is_there() {
    let [first, second] = in_order();
    let (one, other) = (member(first, &[Act::Rest]), member(second, &[]));
    let (there, told) = (other.heard.clone(), other.heard.clone());
    tokio::spawn(carry(first, one.words, there));
    tokio::spawn(carry(second, other.words, one.heard));
    let fetched = async {
        let result = one.run.await;
        told.send(Heard::Have).await.expect("it listens");
        result
    };
    let (fetched, waited) = tokio::join!(fetched, other.run);
    assert_eq!(fetched, Ok(Some(Hash::of_content(&content()))));
    assert_eq!(waited, Ok(None));
    assert_eq!((one.world.offsets().len(), other.world.offsets().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn one_whose_place_hangs_is_replaced() {
    let [first, second] = in_order();
    let (one, other) = (member(first, &[Act::Hangs]), member(second, &[Act::Rest]));
    tokio::spawn(carry(first, one.words, other.heard.clone()));
    tokio::spawn(carry(second, other.words, one.heard));
    let clock = other.world.clock.clone();
    let waiting = tokio::spawn(one.run);
    assert_eq!(other.run.await, Ok(Some(Hash::of_content(&content()))));
    let now = commons_port::time::Clock::now(clock.as_ref());
    assert!(now >= Millis(30_000) && now < Millis(40_000), "{now}");
    assert_eq!(one.world.offsets(), [0]);
    waiting.abort();
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_get_it_says_so() {
    let mut alone = member(peer(1), &vec![Act::Refuses(broken()); 8]);
    let result = alone.run.await;
    assert!(matches!(result, Err(OutsideError::GaveUp { .. })), "{result:?}");
    let mut last = None;
    while let Ok(word) = alone.words.try_recv() {
        last = Some(word);
    }
    assert_eq!(last, Some(Word { kept: 0, is_fetching: false }));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_alone_waits_for_nobody_long() {
    let alone = member(peer(1), &[Act::Rest]);
    drop(alone.heard);
    let fetched = tokio::time::timeout(Duration::from_secs(2), alone.run).await;
    assert_eq!(fetched, Ok(Ok(Some(Hash::of_content(&content())))));
}
