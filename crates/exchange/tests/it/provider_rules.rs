//! A requester that breaks the protocol: the provider says so, and claims the last valid voucher.

use commons_exchange::message::{ToProvider, ToRequester, WireCode};
use commons_exchange::provider::Input;
use commons_record::envelope::Author;
use commons_record::evidence::amount_due;
use commons_record::merkle::Transcript;
use commons_record::mesh::Usage;
use commons_record::settlement::{EndReason, Receipt, Voucher};
use commons_record::{Credits, Hash, Nonce};
use serde_bytes::ByteBuf;

use crate::sample;
use crate::world::{Setup, World};

/// Twelve tokens are out and a voucher over four of them is in.
fn serving() -> World {
    let mut world = World::begin(Setup::answer(48));
    world.deliver_up();
    world.deliver_down();
    world.deliver_up();
    (0..=12).for_each(|_| assert!(world.run_engine()));
    (0..=12).for_each(|_| assert!(world.deliver_down()));
    assert!(world.deliver_up());
    world
}

fn usage(completion_tokens: u32) -> Usage {
    Usage { prompt_tokens: 5, cached_tokens: 2, completion_tokens }
}

/// An honest voucher over so many of the tokens that were sent.
fn voucher(world: &World, completion_tokens: u32) -> Voucher {
    let mut transcript = Transcript::new(sample::SALT);
    (1..=completion_tokens).for_each(|index| transcript.push(sample::token(index).id));
    let usage = usage(completion_tokens);
    let policy = world.asker.standing.policy.body();
    let amount = amount_due(world.order.body(), policy, usage).expect("small");
    Voucher { order: world.order_id(), usage, root: transcript.root(), amount }
}

fn signed(author: &Author, body: Voucher) -> ToProvider {
    ToProvider::Voucher { record: ByteBuf::from(author.sign(7_000, body).encode()) }
}

/// A voucher that is honest but for one change.
fn changed(world: &World, change: impl FnOnce(&mut Voucher)) -> ToProvider {
    let mut body = voucher(world, 8);
    change(&mut body);
    signed(&world.asker.standing.author, body)
}

type Violation = (&'static str, fn(&World) -> ToProvider);

/// What is said instead of the voucher that was due.
fn violations() -> Vec<Violation> {
    vec![
        ("a voucher that is garbage", |_| ToProvider::Voucher { record: ByteBuf::from([7; 40]) }),
        ("a receipt for a voucher", |world| {
            let record = ByteBuf::from(world.order.encode());
            ToProvider::Voucher { record }
        }),
        ("a voucher for another order (Rule E6)", |world| {
            changed(world, |it| it.order = Hash::from_bytes([9; 32]))
        }),
        ("a voucher by another node (Rule E7)", |world| {
            signed(&sample::node(sample::STRANGER, sample::OWNER), voucher(world, 8))
        }),
        ("a voucher of another mesh", |world| {
            let mut author = world.asker.standing.author.clone();
            author.mesh = Hash::from_bytes([9; 32]);
            author.certificate = None;
            signed(&author, voucher(world, 8))
        }),
        ("a voucher over less money (Rule E8)", |world| {
            changed(world, |it| it.amount = Credits::from_micro(1))
        }),
        ("a voucher over more money (Rule E8)", |world| {
            changed(world, |it| it.amount = Credits::from_micro(2_000))
        }),
        ("a voucher over other tokens (Rule E4)", |world| {
            changed(world, |it| it.root = Hash::from_bytes([9; 32]))
        }),
        ("a voucher over the root of fewer tokens (Rule E4)", |world| {
            let root = voucher(world, 7).root;
            changed(world, |it| it.root = root)
        }),
        ("a voucher over more than was sent (Rule E4)", |world| {
            signed(&world.asker.standing.author, voucher(world, 13))
        }),
        ("a voucher over less than the last", |world| {
            signed(&world.asker.standing.author, voucher(world, 3))
        }),
        ("a voucher that remembers another prompt", |world| {
            changed(world, |it| {
                it.usage.cached_tokens = 5;
                it.amount = Credits::from_micro(5 + 8 * 30);
            })
        }),
        ("the nonce a second time", |_| ToProvider::Reveal { nonce: sample::CLIENT_NONCE }),
        ("another nonce, too late", |_| ToProvider::Reveal { nonce: Nonce::from_bytes([1; 32]) }),
        ("the order a second time", |world| world.up.sent[0].clone()),
        ("a receipt that nobody wrote", |_| ToProvider::Stored {
            receipt: Hash::from_bytes([0; 32]),
        }),
    ]
}

/// The provider says that it was a violation, and its receipt claims four tokens. Rule E11.
fn check_ended(name: &str, world: &World, claimed: u32) {
    let failed = world.down.sent.iter().find_map(|message| match message {
        ToRequester::Failed(refusal) => Some(refusal.code),
        _ => None,
    });
    assert_eq!(failed, Some(WireCode::ProtocolViolation), "{name}");
    let receipts = world.disk_of_server().all::<Receipt>();
    let receipt = receipts.first().unwrap_or_else(|| panic!("{name}: no receipt")).body();
    assert_eq!(receipt.usage.completion_tokens, claimed, "{name}");
    assert_eq!(receipt.end, EndReason::Failed, "{name}");
    assert!(!receipt.acknowledged, "{name}");
    assert!(world.server.engine.is_none(), "{name}: the engine works on");
}

#[test]
fn a_requester_that_breaks_the_protocol_is_left_with_what_it_signed() {
    for (name, message) in violations() {
        let mut world = serving();
        world.step_server(Input::Message(message(&world)));
        check_ended(name, &world, 4);
        world.run_to_the_end();
    }
}

/// The same while the last voucher is awaited.
#[test]
fn the_last_voucher_is_checked_like_any_other() {
    for (name, message) in violations() {
        let mut world = serving();
        world.step_server(Input::Message(ToProvider::Cancel));
        world.step_server(Input::Message(message(&world)));
        check_ended(name, &world, 4);
        world.run_to_the_end();
    }
}

/// Rule S1: the nonce that the order commits to, and no other.
#[test]
fn a_swapped_nonce_is_refused_before_anything_is_sampled() {
    let mut world = World::begin(Setup::answer(8));
    world.deliver_up();
    world.step_server(Input::Message(ToProvider::Reveal { nonce: Nonce::from_bytes([1; 32]) }));
    check_ended("another nonce", &world, 0);
    assert_eq!(world.server.seed, None);
    let mut world = World::begin(Setup { seed: Some(7), ..Setup::answer(8) });
    world.deliver_up();
    world.step_server(Input::Message(ToProvider::Reveal { nonce: sample::CLIENT_NONCE }));
    check_ended("a nonce where the caller gave a seed", &world, 0);
}

/// A voucher before there is anything to acknowledge is over nothing, and pays nothing.
#[test]
fn a_voucher_before_the_prompt_was_read_is_over_nothing() {
    let mut world = World::begin(Setup::answer(8));
    world.deliver_up();
    let body = Voucher { usage: Usage::default(), amount: Credits::ZERO, ..voucher(&world, 0) };
    world.step_server(Input::Message(signed(&world.asker.standing.author, body)));
    world.settle_down();
    crate::settled::check(&world, 8);
}

/// Rule E13: while the window is full the engine is not asked, whatever else is said.
#[test]
fn nothing_is_served_beyond_the_window() {
    let mut world = serving();
    while world.run_engine() {}
    let tokens = |world: &World| {
        let is_token = |it: &&ToRequester| matches!(it, ToRequester::Tokens(_));
        world.down.sent.iter().filter(is_token).count()
    };
    assert_eq!(tokens(&world), 4 + 16);
    world.step_server(Input::Message(signed(&world.asker.standing.author, voucher(&world, 8))));
    while world.run_engine() {}
    assert_eq!(tokens(&world), 8 + 16);
}

/// What a voucher is for is durable before the work goes on: if it cannot be, the work ends.
#[test]
fn a_voucher_that_cannot_be_stored_ends_the_work() {
    let mut world = serving();
    world.server_disk().is_full = true;
    world.step_server(Input::Message(signed(&world.asker.standing.author, voucher(&world, 8))));
    assert!(world.server.is_closed && world.server.engine.is_none());
    assert!(world.disk_of_server().all::<Receipt>().is_empty());
    world.run_to_the_end();
    world.settle(true);
    crate::settling::check_agreement(&world);
}
