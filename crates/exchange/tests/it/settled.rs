//! What a complete exchange leaves behind.

use commons_exchange::entry::Side;
use commons_exchange::message::ToRequester;
use commons_exchange::requester::{Done, Event};
use commons_record::seed::{SeedTranscript, commit};
use commons_record::settlement::EndReason;

use crate::sample;
use crate::world::World;

/// The end that the user was told, if it was a good one.
pub(crate) fn done(world: &World) -> &Done {
    match world.asker.told.last() {
        Some(Event::Done(done)) => done,
        other => panic!("the answer did not end well: {other:?}"),
    }
}

/// The whole answer was told, acknowledged, claimed and stored on both sides.
pub(crate) fn check(world: &World, tokens: u32) {
    let done = done(world);
    assert_eq!(done.reason, EndReason::Stop);
    assert_eq!(done.text, "!");
    assert_eq!(done.usage.completion_tokens, tokens);
    let told = world.asker.told.iter().filter(|event| matches!(event, Event::Token(_))).count();
    assert_eq!(told, usize::try_from(tokens).expect("small"));
    let receipt = done.receipt.as_ref().expect("the receipt came");
    assert!(receipt.body().acknowledged);
    assert_eq!(receipt.body().usage, done.usage);
    let held = world.disk_of_server().held(Side::Provider, &world.order_id()).expect("held");
    assert_eq!(held.receipt.map(|it| it.id()), Some(receipt.id()));
    // Rule E13: nobody had to say that it failed.
    let is_failed = |message: &ToRequester| matches!(message, ToRequester::Failed(_));
    assert!(!world.down.sent.iter().any(is_failed));
    check_seed(world, done);
}

/// The engine sampled with the seed that both sides and the receipt name.
fn check_seed(world: &World, done: &Done) {
    let transcript = match world.setup.seed {
        Some(seed) => SeedTranscript::Client { seed },
        None => SeedTranscript::Joint {
            client_nonce: sample::CLIENT_NONCE,
            provider_commit: commit(&sample::PROVIDER_NONCE),
        },
    };
    assert_eq!(done.seed, Some(transcript));
    assert_eq!(done.receipt.as_ref().and_then(|it| it.body().seed), Some(transcript));
    assert_eq!(world.server.seed, Some(transcript.seed32(&world.order.body().request)));
}
