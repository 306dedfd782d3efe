//! How an exchange ends: in good order, in silence, at a deadline, or because somebody has gone.

use commons_exchange::entry::Side;
use commons_exchange::message::{ToProvider, ToRequester, WireCode};
use commons_exchange::requester::{self, Event};
use commons_record::Millis;
use commons_record::settlement::{EndReason, Receipt, Scope};

use crate::engine::{Script, ScriptEnd};
use crate::settled::{self, done};
use crate::settling::check_agreement;
use crate::world::{START, Setup, World};

fn failure(world: &World) -> WireCode {
    match world.asker.told.last() {
        Some(Event::Failed(refusal)) => refusal.code,
        _ => panic!("it did not fail"),
    }
}

fn receipt(world: &World) -> Receipt {
    let receipts = world.disk_of_server().all::<Receipt>();
    receipts.first().expect("a receipt was written").body().clone()
}

/// The provider's process stands still from here on; the requester is left alone with the clock.
fn requester_alone(mut world: World) -> (World, Millis) {
    world.server.machine = None;
    world.server.is_closed = true;
    let before = world.now;
    while let Some(at) = world.wake_at() {
        world.wait(at.since(world.now));
    }
    let took = world.now.since(before);
    (world, took)
}

/// The requester's process stands still from here on, and its connection with it.
fn provider_alone(mut world: World) -> (World, Millis) {
    world.asker.machine = None;
    let before = world.now;
    while let Some(at) = world.wake_at() {
        while world.run_engine() {}
        world.wait(at.since(world.now));
    }
    let took = world.now.since(before);
    (world, took)
}

fn accepted(setup: Setup) -> World {
    let mut world = World::begin(setup);
    world.deliver_up();
    world.deliver_down();
    world
}

fn streaming(tokens: u32) -> World {
    let mut world = accepted(Setup::answer(40));
    world.deliver_up();
    for _ in 0..=tokens {
        assert!(world.run_engine());
        assert!(world.deliver_down());
    }
    world
}

/// Rule S1: nobody can choose the seed, and both sides know the same.
#[test]
fn a_joint_seed_is_the_same_for_the_engine_both_sides_and_the_receipt() {
    let mut world = World::begin(Setup::answer(10));
    world.deliver_up();
    assert_eq!(world.server.seed, None, "the provider commits before it can know");
    world.settle_down();
    settled::check(&world, 10);
    check_agreement(&world);
}

/// Rule S2: the caller's seed and nothing else, known from the first step.
#[test]
fn a_callers_seed_needs_no_nonce() {
    let mut world = World::begin(Setup { seed: Some(-7), ..Setup::answer(10) });
    world.deliver_up();
    assert!(world.server.seed.is_some());
    world.settle_down();
    settled::check(&world, 10);
    let is_reveal = |it: &ToProvider| matches!(it, ToProvider::Reveal { .. });
    assert!(!world.up.sent.iter().any(is_reveal));
}

/// Rule E12: the same machines, a local receipt, nothing to offer, and one voucher at the end.
#[test]
fn a_node_that_serves_itself_writes_a_local_receipt() {
    let mut world = World::begin(Setup { is_local: true, ..Setup::answer(40) });
    world.settle_down();
    settled::check(&world, 40);
    assert_eq!(receipt(&world).scope, Scope::Local);
    let sides = [Side::Requester, Side::Provider];
    let held = sides.map(|side| world.disk_of_server().held(side, &world.order_id()));
    let ids = held.map(|held| held.expect("both sides are kept").receipt.map(|it| it.id()));
    assert!(ids[0].is_some() && ids[0] == ids[1]);
    check_agreement(&world);
}

/// Rule E13: every second, also while the prompt is read and while the window is full.
#[test]
fn a_provider_at_work_is_heard_every_second() {
    let mut world = accepted(Setup::answer(40));
    for second in 1..=3 {
        world.wait(Millis(1_000));
        while world.deliver_down() {}
        assert!(!world.asker.is_closed, "given up after {second} s");
    }
    let beats = world.asker.told.iter().filter(|it| matches!(it, Event::Heartbeat)).count();
    assert_eq!(beats, 3);
    let mut world = streaming(0);
    while world.run_engine() {}
    let sent = world.down.sent.len();
    world.wait(Millis(2_000));
    assert_eq!(world.down.sent.len(), sent + 2);
}

/// Rule E13: in every state of the requester.
#[test]
fn a_silent_provider_is_given_up() {
    let (world, took) = requester_alone(World::begin(Setup::answer(10)));
    assert_eq!((failure(&world), took), (WireCode::Silent, requester::ACCEPT_MAX));

    let (world, took) = requester_alone(accepted(Setup::answer(10)));
    assert_eq!((failure(&world), took), (WireCode::Silent, requester::SILENCE_MAX));

    let (world, took) = requester_alone(streaming(6));
    assert_eq!((failure(&world), took), (WireCode::Silent, requester::SILENCE_MAX));
    let held = world.disk_of_asker().held(Side::Requester, &world.order_id()).expect("held");
    assert_eq!(held.voucher.expect("it signs for them").body().usage.completion_tokens, 6);
    assert_eq!(world.disk_of_asker().outbox(&world.provider()).len(), 1, "Rule E14");
}

/// Rule E14: the answer is whole, and the receipt comes when the two meet again.
#[test]
fn an_answer_without_its_receipt_is_complete_and_settled_later() {
    let mut world = streaming(0);
    while !matches!(world.up.sent.last(), Some(ToProvider::Voucher { .. }))
        || !matches!(world.down.sent.last(), Some(ToRequester::Finished { .. }))
    {
        assert!(world.deliver_up() || world.run_engine() || world.deliver_down());
    }
    while world.deliver_down() {}
    let (mut world, took) = requester_alone(world);
    assert_eq!(took, requester::RECEIPT_MAX);
    assert!(done(&world).receipt.is_none());
    assert_eq!(done(&world).usage.completion_tokens, 40);
    world.settle(true);
    check_agreement(&world);
    assert_eq!(receipt(&world).usage.completion_tokens, 40);
}

/// Rule E13: in every state of the provider.
#[test]
fn a_silent_requester_is_given_up() {
    // The nonce never comes.
    let mut world = World::begin(Setup::answer(10));
    world.deliver_up();
    let (world, took) = provider_alone(world);
    assert_eq!(receipt(&world).end, EndReason::Vanished);
    assert!(took <= Millis::from_secs(15 + 3 + 1), "{took}");
    assert_eq!(receipt(&world).seed, None);

    // No voucher comes: a window of tokens, then fifteen seconds.
    let (world, took) = provider_alone(streaming(2));
    assert_eq!(receipt(&world).end, EndReason::Vanished);
    assert!(took <= Millis::from_secs(15 + 3 + 1), "{took}");
    assert_eq!(receipt(&world).voucher, None, "Rule E11: it claims nothing");

    // The last voucher does not come.
    let mut world = accepted(Setup::answer(3));
    world.deliver_up();
    while world.run_engine() {}
    let (world, took) = provider_alone(world);
    assert_eq!(took, Millis::from_secs(5 + 3));
    assert_eq!(receipt(&world).end, EndReason::Stop);
    assert!(!receipt(&world).acknowledged);
}

/// Rule E14: the receipt waits until its acknowledgement was heard.
#[test]
fn a_receipt_that_nobody_acknowledged_waits() {
    let mut world = streaming(0);
    while world.disk_of_server().all::<Receipt>().is_empty() {
        assert!(world.deliver_down() || world.run_engine() || world.deliver_up());
    }
    let (world, took) = provider_alone(world);
    assert_eq!(took, Millis::from_secs(3));
    assert_eq!(world.disk_of_server().outbox(&world.requester()).len(), 1);
}

/// Rule E13: whatever is being said when the deadline passes.
#[test]
fn the_deadline_ends_what_is_left() {
    // The provider goes on heartbeating; the requester has the shorter patience.
    let mut world = accepted(Setup { seed: Some(1), ..Setup::answer(40) });
    while !world.asker.is_closed {
        world.wait(Millis(500));
        while world.deliver_down() {}
        while world.deliver_up() {}
    }
    assert_eq!(failure(&world), WireCode::Deadline);
    assert_eq!(world.now.since(START), Millis::from_secs(60));
    world.run_to_the_end();
    world.settle(false);
    check_agreement(&world);

    // The requester is slow to ask, so the provider's deadline is the later one: cut off.
    let mut world = accepted(Setup { seed: Some(1), ..Setup::answer(40) });
    world.asker.machine = None;
    world.wait(Millis::from_secs(60));
    let is_end =
        |it: &ToRequester| matches!(it, ToRequester::Finished { reason: EndReason::Deadline, .. });
    assert!(world.down.sent.iter().any(is_end));
    assert!(world.server.engine.is_none());
}

#[test]
fn a_cancelled_answer_is_paid_as_far_as_it_came() {
    let mut world = streaming(6);
    world.step_asker(requester::Input::Cancel);
    world.settle_down();
    assert_eq!(done(&world).reason, EndReason::Cancelled);
    let receipt = receipt(&world);
    assert_eq!((receipt.end, receipt.acknowledged), (EndReason::Cancelled, true));
    assert_eq!(receipt.usage.completion_tokens, done(&world).usage.completion_tokens);
    check_agreement(&world);
    assert_eq!(world.now, START, "nobody waited");
}

/// Rule E11: a connection that was lost, and never found again.
#[test]
fn a_vanished_requester_leaves_a_receipt_over_its_last_voucher() {
    let mut world = streaming(6);
    while world.deliver_up() {}
    world.cut(0, 0);
    world.settle_down();
    let receipt = receipt(&world);
    assert_eq!((receipt.end, receipt.acknowledged), (EndReason::Vanished, false));
    assert_eq!(receipt.usage.completion_tokens, 4);
    world.run_to_the_end();
    world.settle(false);
    check_agreement(&world);
}

#[test]
fn an_engine_that_fails_or_falls_silent_ends_the_answer() {
    for end in [ScriptEnd::Fail, ScriptEnd::Vanish] {
        let mut world =
            World::begin(Setup { script: Script { end, ..Script::answer(6) }, ..Setup::answer(6) });
        world.settle_down();
        assert_eq!(failure(&world), WireCode::EngineFailed, "{end:?}");
        world.run_to_the_end();
        assert_eq!(receipt(&world).end, EndReason::Failed);
        world.settle(true);
        check_agreement(&world);
    }
}

/// Nothing was promised and nothing is kept: the same order may come again. Rule E1.
#[test]
fn an_order_that_the_engine_refuses_leaves_no_trace() {
    let script = Script { end: ScriptEnd::Refuse, ..Script::answer(6) };
    let mut world = World::begin(Setup { script, ..Setup::answer(6) });
    world.settle_down();
    assert_eq!(failure(&world), WireCode::Overloaded);
    assert!(world.disk_of_server().entries().is_empty());
    assert!(world.is_over());
}

/// Rule E3: an order that cannot be stored is not accepted.
#[test]
fn an_order_that_cannot_be_stored_is_not_begun() {
    let mut world = World::begin_on(Setup::answer(6), |world| world.asker_disk().is_full = true);
    assert_eq!(failure(&world), WireCode::StorageFailed);
    assert!(world.up.sent.is_empty());
    world.run_to_the_end();

    let mut world = World::begin(Setup::answer(6));
    world.server_disk().is_full = true;
    world.settle_down();
    assert_eq!(failure(&world), WireCode::StorageFailed);
    assert!(world.server.engine.is_none());
    assert!(world.disk_of_server().entries().is_empty());
}
