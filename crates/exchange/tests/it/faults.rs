//! Bugs that were found here, each as the story of what went wrong.

use commons_exchange::entry::Side;
use commons_exchange::message::{ToProvider, ToRequester, WireCode};
use commons_exchange::requester::{self, Event};
use commons_exchange::{provider, settle};
use commons_record::envelope::Verified;
use commons_record::settlement::{EndReason, Receipt, Voucher};
use commons_record::{Hash, Millis};
use serde_bytes::ByteBuf;

use crate::sample;
use crate::settled::{self, done};
use crate::settling::check_agreement;
use crate::world::{Setup, World};

/// What the user was told at the end, if it was bad.
fn failure(world: &World) -> WireCode {
    match world.asker.told.last() {
        Some(Event::Failed(refusal)) => refusal.code,
        other => panic!("it did not fail: {other:?}"),
    }
}

/// A world in which the provider has said everything up to `tokens` and heard nothing back but
/// the order and the nonce.
fn spoken(setup: Setup) -> World {
    let mut world = World::begin(setup);
    world.deliver_up();
    world.deliver_down();
    world.deliver_up();
    while world.run_engine() {}
    world
}

fn last_voucher(world: &World) -> Verified<Voucher> {
    let held = world.disk_of_asker().held(Side::Requester, &world.order_id()).expect("held");
    held.voucher.expect("a voucher was signed")
}

/// An answer as long as a whole number of voucher steps had two vouchers over the same tokens:
/// one at the step and one at the end. The provider was content with the first, and the requester
/// then refused the receipt because it did not name the second. Rule E11.
#[test]
fn an_answer_that_ends_on_a_voucher_step_has_one_last_voucher() {
    let mut world = spoken(Setup::answer(8));
    while world.deliver_down() {}
    world.settle_down();
    settled::check(&world, 8);
    assert_eq!(world.disk_of_asker().all::<Voucher>().len(), 2);
}

/// A requester could keep a provider's engine slot until the deadline, and make it write without
/// end, by sending one voucher again and again under new sequence numbers. Rule E13.
#[test]
fn vouchers_that_say_nothing_new_neither_write_nor_postpone_a_stall() {
    let mut world = spoken(Setup::answer(40));
    while world.deliver_down() {}
    while world.deliver_up() {}
    while world.run_engine() {}
    world.crash_asker();
    let author = world.asker.standing.author.clone();
    let body = last_voucher(&world).into_body();
    let (commits, mut sequence) = (world.disk_of_server().commits, 10_000);
    let began = world.now;
    while !world.down.sent.iter().any(|it| matches!(it, ToRequester::Receipt { .. })) {
        world.wait(Millis(500));
        let record = ByteBuf::from(author.sign(sequence, body.clone()).encode());
        world.step_server(provider::Input::Message(ToProvider::Voucher { record }));
        sequence += 1;
        assert!(world.now.since(began) <= Millis::from_secs(17), "the slot is held");
    }
    assert_eq!(world.disk_of_server().commits, commits + 1, "the receipt and nothing else");
    let receipt = &world.disk_of_server().all::<Receipt>()[0];
    assert_eq!(receipt.body().end, EndReason::Vanished);
}

/// The seed and the prompt's hash came to the provider's disk with the first voucher only. After
/// a crash before it, the requester's own voucher could be taken and the receipt over it was
/// refused by everybody: tokens without a recorded seed. Rules E3 and E14.
#[test]
fn a_provider_that_crashed_before_the_first_voucher_is_paid_for_what_arrived() {
    let mut world = spoken(Setup::answer(3));
    while world.deliver_down() {}
    world.crash_server();
    world.run_to_the_end();
    world.settle(true);
    check_agreement(&world);
    let held = world.disk_of_asker().held(Side::Requester, &world.order_id()).expect("held");
    let receipt = held.receipt.expect("Rule E14: the receipt was taken").into_body();
    assert_eq!(receipt.usage.completion_tokens, 3);
    assert!(receipt.seed.is_some());
}

/// When the requester's disk was full as the receipt came, the answer's stream ended without a
/// word: the end stood behind the write that failed. Rule E13.
#[test]
fn a_full_disk_at_the_receipt_still_ends_the_answer() {
    let mut world = spoken(Setup::answer(3));
    while world.deliver_down() {}
    while world.deliver_up() {}
    world.asker_disk().is_full = true;
    while world.deliver_down() {}
    assert!(done(&world).receipt.is_none(), "it is not durable, so it is not shown");
    world.run_to_the_end();
    world.settle(false);
    check_agreement(&world);
}

/// The same when the exchange broke off and the last voucher could not be written. Rule E13.
#[test]
fn a_full_disk_at_a_break_still_tells_the_user() {
    let mut world = spoken(Setup::answer(30));
    world.deliver_down();
    world.deliver_down();
    world.asker_disk().is_full = true;
    world.cut(0, 0);
    world.deliver_down();
    assert_eq!(failure(&world), WireCode::Disconnected);
    world.run_to_the_end();
}

/// A write that failed when the deadline had passed was taken for the deadline's own case, which
/// signed again on the same full disk and then fell silent. Rules E3 and E13.
#[test]
fn a_full_disk_at_the_deadline_still_tells_the_user() {
    let mut world = World::begin_on(Setup::answer(3), |world| {
        world.asker_disk().is_full = true;
        world.now = world.now.saturating_add(Millis::from_secs(60));
    });
    assert!(matches!(failure(&world), WireCode::Deadline | WireCode::StorageFailed));
    world.run_to_the_end();
}

/// A provider that could not store its receipt said so, and the requester told the user that a
/// complete answer had failed. The receipt comes later, like one that was lost. Rule E14.
#[test]
fn a_provider_that_cannot_store_its_receipt_does_not_spoil_the_answer() {
    let mut world = spoken(Setup::answer(3));
    while world.deliver_down() {}
    world.server_disk().is_full = true;
    world.settle_down();
    assert_eq!(done(&world).usage.completion_tokens, 3);
    assert!(done(&world).receipt.is_none());
    world.settle(false);
    check_agreement(&world);
}

/// If everything was acknowledged when the link broke, the last voucher did not wait in the
/// outbox. Had it been lost with the link, nobody would have offered it again. Rule E14.
#[test]
fn a_voucher_that_was_lost_with_the_link_waits_to_be_offered() {
    let mut world = spoken(Setup::answer(30));
    (0..=4).for_each(|_| assert!(world.deliver_down()));
    let voucher = last_voucher(&world).id();
    world.cut(0, 0);
    world.deliver_down();
    assert_eq!(world.disk_of_asker().outbox(&world.provider()), [voucher]);
    world.deliver_up();
    world.run_to_the_end();
    world.settle(false);
    check_agreement(&world);
}

/// Tokens that came in one message with the one too many were acknowledged in memory and then
/// forgotten: no voucher on disk, none sent, and the user did not see them. Rules E3 and E4.
#[test]
fn what_came_before_a_violation_is_told_and_acknowledged() {
    let mut world = spoken(Setup::answer(0));
    world.deliver_down();
    let mut tokens: Vec<_> = (1..=8).map(sample::token).collect();
    tokens.last_mut().expect("eight").top = vec![tokens[0].top[0].clone(); 2];
    world.asker.received.extend(tokens[..7].iter().map(|token| token.id));
    world.step_asker(requester::Input::Message(ToRequester::Tokens(tokens)));
    assert_eq!(failure(&world), WireCode::ProtocolViolation);
    let told = world.asker.told.iter().filter(|event| matches!(event, Event::Token(_))).count();
    assert_eq!(told, 7);
    assert_eq!(last_voucher(&world).body().usage.completion_tokens, 7);
    let sent = |it: &&ToProvider| matches!(it, ToProvider::Voucher { .. });
    assert_eq!(world.up.sent.iter().filter(sent).count(), 2);
}

/// A user who went away before the order was accepted: the requester reveals its nonce all the
/// same, and the provider, which had ended by then, called that a violation. Rule E13.
#[test]
fn a_request_that_is_cancelled_before_it_is_accepted_ends_in_good_order() {
    let mut world = World::begin(Setup::answer(9));
    world.step_asker(requester::Input::Cancel);
    world.settle_down();
    assert_eq!(done(&world).reason, EndReason::Cancelled);
    assert!(done(&world).receipt.is_some());
    check_agreement(&world);
}

/// Anything out of turn after the receipt made the provider close the exchange a second time,
/// with a second position of the pair; only the numbers that had run out kept it from signing a
/// second receipt. Rules E1 and E9.
#[test]
fn what_comes_out_of_turn_after_the_receipt_makes_no_second_one() {
    for message in crate::inputs::messages_to_provider(Hash::from_bytes([0; 32])) {
        let mut world = spoken(Setup::answer(3));
        while world.deliver_down() {}
        while world.deliver_up() {}
        assert_eq!(world.disk_of_server().all::<Receipt>().len(), 1);
        let mut machine = world.server.machine.take().expect("it waits for the last word");
        let outputs = machine.step(world.now, provider::Input::Message(message));
        let is_allotting = |it: &provider::Output| matches!(it, provider::Output::AllotPair(_));
        assert!(!outputs.iter().any(is_allotting), "{outputs:?}");
    }
}

/// A provider that ignored a cancellation was paid for every token until the limit, for a user
/// who had long gone. Rule E13.
#[test]
fn a_provider_that_ignores_a_cancellation_is_left() {
    let mut world = spoken(Setup { voucher_step: 8, ..Setup::answer(40) });
    world.deliver_down();
    world.step_asker(requester::Input::Cancel);
    for count in 1..=40 {
        if world.asker.is_closed {
            break;
        }
        assert!(count < 40, "it goes on paying");
        world.asker.received.push(sample::token(count).id);
        world
            .step_asker(requester::Input::Message(ToRequester::Tokens(vec![sample::token(count)])));
        world.now = world.now.saturating_add(Millis(500));
    }
    assert!(world.asker.received.len() <= 9);
}

/// A receipt over an earlier voucher than the last was taken, and the requester's own file of
/// evidence then held more tokens than the receipt claims, so that it did not verify. Rule E10.
#[test]
fn opened_evidence_holds_when_the_receipt_claims_less_than_was_received() {
    let mut world = spoken(Setup::answer(11));
    while world.deliver_down() {}
    world.deliver_up();
    // The first voucher arrives, the rest does not, and the two meet when it is too late.
    world.cut(0, 0);
    world.settle_down();
    world.close_provider();
    world.run_to_the_end();
    world.offer_receipts();
    let held = world.disk_of_asker().held(Side::Requester, &world.order_id()).expect("held");
    assert_eq!(held.receipt.as_ref().expect("taken").body().usage.completion_tokens, 4);
    let evidence = held.evidence(&sample::genesis(), true).expect("it is settled");
    assert!(evidence.verify().expect("Rule E10").is_opened);
}

/// A voucher beyond the order's own limits was taken after a crash, and the provider's receipt
/// over it was refused by every reader. Rule E10.
#[test]
fn a_late_voucher_beyond_the_orders_limits_is_refused() {
    let mut world = spoken(Setup::answer(11));
    world.deliver_down();
    world.crash_server();
    let mut held = world.disk_of_server().held(Side::Provider, &world.order_id()).expect("held");
    for (prompt_tokens, completion_tokens) in [(5, 49), (65, 1)] {
        let usage =
            commons_record::mesh::Usage { prompt_tokens, cached_tokens: 0, completion_tokens };
        let policy = world.server.standing.policy.body();
        let amount = commons_record::evidence::amount_due(world.order.body(), policy, usage);
        let root = Hash::from_bytes([9; 32]);
        let amount = amount.expect("small");
        let body = Voucher { order: world.order_id(), usage, root, amount };
        let voucher = world.asker.standing.author.sign(9_000, body);
        let refused = held.take_voucher(sample::genesis().id(), &voucher.encode());
        assert_eq!(refused.expect_err("Rule E10").code, WireCode::InvalidOrder);
    }
    assert!(held.voucher.is_none());
}

/// The requester compared a receipt with the order but not with the manifest that it had been
/// given: a provider could name another quantisation, and the evidence did not verify. Rule E10.
#[test]
fn a_receipt_that_names_another_quantisation_than_the_manifest_is_refused() {
    let mut world = spoken(Setup::answer(3));
    while world.deliver_down() {}
    while world.deliver_up() {}
    let honest = world.disk_of_server().all::<Receipt>()[0].body().clone();
    let mut other = honest;
    other.ran.quantisation = "Q4_0".into();
    let record = ByteBuf::from(world.server.standing.author.sign(501, other).encode());

    let mut held = world.disk_of_asker().held(Side::Requester, &world.order_id()).expect("held");
    let named = settle::Held::voucher_named_by(&record).map(|id| world.disk_of_asker().needed(&id));
    let late = held.take_receipt(sample::genesis().id(), &record, named.as_ref());
    assert_eq!(late.expect_err("Rule E10").code, WireCode::InvalidOrder);

    world.step_asker(requester::Input::Message(ToRequester::Receipt { record }));
    assert_eq!(failure(&world), WireCode::ProtocolViolation);
}

/// One token's text could fill a whole frame, and a thousand of them wait for a slow user: two
/// gigabytes in the requester's memory. Rule E10.
#[test]
fn a_token_with_a_book_for_its_text_is_refused() {
    let long = "x".repeat(100_000);
    let in_text = {
        let mut it = sample::token(1);
        it.text.clone_from(&long);
        it
    };
    let in_top = {
        let mut it = sample::token(1);
        it.top[0].text = long;
        it
    };
    for token in [in_text, in_top] {
        let mut world = spoken(Setup::answer(0));
        world.deliver_down();
        world.step_asker(requester::Input::Message(ToRequester::Tokens(vec![token])));
        assert_eq!(failure(&world), WireCode::ProtocolViolation);
    }
}
