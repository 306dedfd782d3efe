//! What must hold after every step, whatever the two sides, the disks and the wire do.

use commons_exchange::entry::Side;
use commons_exchange::message::{ToProvider, ToRequester};
use commons_exchange::provider::{self, Provider};
use commons_exchange::requester::{self, Event, Requester};
use commons_record::envelope::{Unverified, Verified};
use commons_record::evidence::{amount_due, check_receipt};
use commons_record::manifest::ModelManifest;
use commons_record::merkle::Transcript;
use commons_record::order::{Job, Order};
use commons_record::settlement::{Receipt, Scope, Voucher};
use commons_record::{Credits, Hash};

use crate::sample;
use crate::world::World;

/// All of them.
pub(crate) fn hold(world: &World) {
    if world.has_stored() {
        hold_on_disk(world);
    }
    e10_tokens_stay_within_limits_and_window(world);
    e13_whoever_is_not_over_has_a_timer(world);
    e13_the_user_is_told_one_end(world);
}

/// Those that are about what is stored, which also hold while the two sides settle.
pub(crate) fn hold_on_disk(world: &World) {
    e1_an_order_has_one_receipt(world);
    e4_vouchers_cover_what_was_received(world);
    e8_amounts_are_the_policys_under_the_ceiling(world);
    e9_pair_positions_have_no_gaps(world);
    e11_receipts_claim_their_last_voucher(world);
    e12_scope_is_what_the_parties_are(world);
}

/// Rule E1.
fn e1_an_order_has_one_receipt(world: &World) {
    let receipts = world.disk_of_server().all::<Receipt>();
    assert!(receipts.len() <= 1, "Rule E1: an order is served once, and has {receipts:?}");
}

/// Rule E3, at the moment of sending.
pub(crate) fn e3_requester_persists_before_it_sends(world: &World, message: &ToProvider) {
    let disk = world.disk_of_asker();
    let entry = || disk.held(Side::Requester, &world.order_id()).expect("Rule E3: an entry");
    match message {
        ToProvider::Ask(ask) => {
            assert_eq!(entry().order.encode(), *ask.order, "Rule E3: the order is durable");
        }
        ToProvider::Reveal { .. } => assert!(entry().manifest.is_some(), "Rule E3"),
        ToProvider::Voucher { record } => {
            let voucher = Unverified::<Voucher>::decode(record).expect("an own voucher");
            let held = entry().voucher.expect("Rule E3: the entry names the voucher");
            assert_eq!(held.body(), voucher.claimed(), "Rule E3: the voucher is durable");
        }
        ToProvider::Cancel => {}
        ToProvider::Stored { receipt } => {
            assert_eq!(entry().receipt.map(|it| it.id()), Some(*receipt), "Rule E3");
        }
    }
}

/// Rule E3, at the moment of sending.
pub(crate) fn e3_provider_persists_before_it_sends(world: &World, message: &ToRequester) {
    let disk = world.disk_of_server();
    let entry = || disk.held(Side::Provider, &world.order_id()).expect("Rule E3: an entry");
    match message {
        ToRequester::Accepted { manifest, .. } => {
            let id = entry().manifest.expect("Rule E3: the manifest is durable").id();
            let told = Unverified::<ModelManifest>::decode(manifest).expect("a manifest");
            assert_eq!(disk.needed::<ModelManifest>(&id).body(), told.claimed());
        }
        ToRequester::Tokens(_) => {
            let work = entry().entry.work.expect("a provider keeps its work");
            // With oneself nothing is offered again, so nothing is lost.
            if !world.setup.is_local {
                assert!(work.seed.is_some(), "Rule E3: tokens are sent before their seed is kept");
                let prompt = commons_record::merkle::prompt_hash(
                    &sample::SALT,
                    &world.setup.script.prompt(),
                );
                assert_eq!(work.prompt, prompt, "Rule E3: tokens before their prompt is kept");
            }
        }
        ToRequester::Prefilled { .. } | ToRequester::Heartbeat | ToRequester::Finished { .. } => {
            entry();
        }
        ToRequester::Receipt { record } => {
            let receipt = entry().receipt.expect("Rule E3: the receipt is durable");
            assert_eq!(receipt.encode(), **record);
        }
        ToRequester::Refused(_) | ToRequester::Failed(_) => {}
    }
}

fn root(tokens: &[u32]) -> Hash {
    let mut transcript = Transcript::new(sample::SALT);
    for token in tokens {
        transcript.push(*token);
    }
    transcript.root()
}

/// Rule E4: every voucher on either disk is over a prefix of what reached the requester.
fn e4_vouchers_cover_what_was_received(world: &World) {
    let mut vouchers = world.disk_of_asker().all::<Voucher>();
    vouchers.extend(world.disk_of_server().all::<Voucher>());
    for voucher in vouchers {
        let body = voucher.body();
        let count = usize::try_from(body.usage.completion_tokens).expect("small");
        let received = world.asker.received.get(..count);
        let received = received.expect("Rule E4: a voucher covers more than was received");
        assert_eq!(body.root, root(received), "Rule E4: a voucher is over other tokens");
        assert_eq!(body.order, world.order_id(), "Rule E6");
        assert_eq!(voucher.node(), world.requester(), "Rule E7");
    }
}

fn check_amount(order: &Order, world: &World, usage: commons_record::mesh::Usage, amount: Credits) {
    let policy = world.asker.standing.policy.body();
    assert_eq!(Some(amount), amount_due(order, policy, usage), "Rule E8");
    assert!(amount <= order.price_ceiling, "Rule E8: over the ceiling");
}

/// Rule E8.
fn e8_amounts_are_the_policys_under_the_ceiling(world: &World) {
    let order = world.order.body();
    for voucher in world.disk_of_asker().all::<Voucher>() {
        check_amount(order, world, voucher.body().usage, voucher.body().amount);
    }
    for receipt in world.disk_of_server().all::<Receipt>() {
        match receipt.body().voucher {
            Some(_) => check_amount(order, world, receipt.body().usage, receipt.body().amount),
            None => assert_eq!(receipt.body().amount, Credits::ZERO, "Rule E8"),
        }
    }
}

/// Rule E9: the provider's position is the count and the sum of its receipts.
fn e9_pair_positions_have_no_gaps(world: &World) {
    let receipts = world.disk_of_server().all::<Receipt>();
    let pair = world.disk_of_server().pair(&world.provider(), &world.requester());
    assert_eq!(pair.sequence, receipts.len() as u64, "Rule E9");
    let sum = receipts.iter().map(|it| it.body().amount.as_micro()).sum::<u64>();
    assert_eq!(pair.cumulative.as_micro(), sum, "Rule E9");
    for receipt in receipts {
        assert_eq!(receipt.body().pair, pair, "Rule E9: the one receipt stands there");
    }
}

/// Rule E10, and the window: nobody works on for one who does not acknowledge.
fn e10_tokens_stay_within_limits_and_window(world: &World) {
    let Job::Infer(infer) = &world.order.body().job;
    let tokens = world.down.sent.iter().map(|message| match message {
        ToRequester::Tokens(tokens) => tokens.len(),
        _ => 0,
    });
    let sent = u32::try_from(tokens.sum::<usize>()).expect("small");
    assert!(sent <= infer.limits.completion_tokens_max, "Rule E10: more than was ordered");
    let disk = world.disk_of_server();
    let entry = disk.entry(Side::Provider, &world.order_id());
    let voucher = entry.and_then(|it| it.voucher).map(|id| disk.needed::<Voucher>(&id));
    let acknowledged = voucher.map(|it| it.body().usage.completion_tokens);
    let ahead = sent.saturating_sub(acknowledged.unwrap_or(0));
    let window = 4 * world.setup.voucher_step;
    assert!(world.setup.is_local || ahead <= window, "the window holds {window}, {ahead} are out");
}

/// Rule E11, and all that a stranger would check.
fn e11_receipts_claim_their_last_voucher(world: &World) {
    let disk = world.disk_of_server();
    let policy = &world.server.standing.policy;
    for receipt in disk.all::<Receipt>() {
        let named: Option<Verified<Voucher>> = receipt.body().voucher.map(|id| disk.needed(&id));
        check_receipt(&world.order, named.as_ref(), &receipt, policy)
            .unwrap_or_else(|error| panic!("Rule E11: {error}"));
        let last = disk.all::<Voucher>().iter().map(|it| it.body().usage.completion_tokens).max();
        let claimed = named.map(|it| it.body().usage.completion_tokens);
        // In one node the requester's own vouchers lie on the same disk.
        assert!(world.setup.is_local || claimed == last, "Rule E11: not the last voucher");
    }
}

/// Rule E12.
fn e12_scope_is_what_the_parties_are(world: &World) {
    let scope = if world.setup.is_local { Scope::Local } else { Scope::Mesh };
    let mut entries = world.disk_of_server().entries();
    entries.extend(world.disk_of_asker().entries());
    assert!(entries.iter().all(|it| it.scope == scope), "Rule E12");
    let receipts = world.disk_of_server().all::<Receipt>();
    assert!(receipts.iter().all(|it| it.body().scope == scope), "Rule E12");
    if world.setup.is_local {
        let waiting = world.disk_of_server().outbox(&world.provider());
        assert!(waiting.is_empty(), "Rule E12: nothing waits for oneself");
    }
}

/// Rule E13: between steps there is no state without a timer, except the end.
fn e13_whoever_is_not_over_has_a_timer(world: &World) {
    let asker = world.asker.machine.as_ref().filter(|_| !world.asker.is_closed);
    assert!(asker.is_none_or(|it| it.wake_at().is_some()), "Rule E13: the requester hangs");
    let server = world.server.machine.as_ref().filter(|_| !world.server.is_closed);
    assert!(server.is_none_or(|it| it.wake_at().is_some()), "Rule E13: the provider hangs");
    let is_over = |at: Option<_>| at.is_none();
    assert!(
        !world.asker.is_closed
            || world.asker.machine.as_ref().is_none_or(|it| is_over(Requester::wake_at(it))),
        "no timer after the end"
    );
    assert!(
        !world.server.is_closed
            || world.server.machine.as_ref().is_none_or(|it| is_over(Provider::wake_at(it))),
        "no timer after the end"
    );
}

/// Rule E13: the user hears of one end, and of nothing after it.
fn e13_the_user_is_told_one_end(world: &World) {
    let is_end = |event: &Event| matches!(event, Event::Done(_) | Event::Failed(_));
    let ends = world.asker.told.iter().filter(|event| is_end(event)).count();
    let is_over = world.asker.is_closed;
    assert!(ends == usize::from(is_over), "told {ends} ends, closed is {is_over}");
    assert!(ends == 0 || world.asker.told.last().is_some_and(is_end), "told more after the end");
}

/// Late inputs of every kind change nothing and do nothing.
pub(crate) fn late_inputs_are_harmless(world: &mut World) {
    let (now, order) = (world.now, world.order_id());
    if let Some(machine) = world.asker.machine.as_mut().filter(|_| world.asker.is_closed) {
        for input in crate::inputs::to_requester() {
            if matches!(input, requester::Input::StorageFailed(_)) {
                continue; // It answers a `Persist`, and there is none to answer.
            }
            let shown = format!("{input:?}");
            let outputs = machine.step(now, input);
            assert!(outputs.is_empty(), "after {shown} the requester does {outputs:?}");
        }
    }
    if let Some(machine) = world.server.machine.as_mut().filter(|_| world.server.is_closed) {
        for input in crate::inputs::to_provider(order) {
            if matches!(input, provider::Input::StorageFailed) {
                continue;
            }
            let shown = format!("{input:?}");
            let outputs = machine.step(now, input);
            assert!(outputs.is_empty(), "after {shown} the provider does {outputs:?}");
        }
    }
}
