//! A provider that breaks the protocol: the user hears of it, and no more is owed than arrived.

use commons_exchange::entry::Side;
use commons_exchange::message::{ToRequester, WireCode};
use commons_exchange::requester::{Event, Input};
use commons_record::envelope::Author;
use commons_record::manifest::ModelManifest;
use commons_record::mesh::Usage;
use commons_record::seed::{SeedTranscript, commit};
use commons_record::settlement::{EndReason, RanAdapter, Receipt, Scope, TokenRange, Voucher};
use commons_record::{Credits, Hash, Nonce};
use serde_bytes::ByteBuf;

use crate::sample;
use crate::world::{Setup, World};

type Messages = Vec<(&'static str, ToRequester)>;

fn accepted(author: &Author, manifest: ModelManifest) -> ToRequester {
    let manifest = ByteBuf::from(author.sign(3, manifest).encode());
    ToRequester::Accepted { commit: commit(&sample::PROVIDER_NONCE), manifest }
}

fn honest_accepted() -> ToRequester {
    let provider = sample::node(sample::PROVIDER, sample::AUTHORITY);
    accepted(&provider, sample::manifest_body())
}

fn asked() -> World {
    World::begin(Setup::answer(10))
}

/// Accepted, and nothing more.
fn begun() -> World {
    let mut world = asked();
    world.deliver_up();
    world.deliver_down();
    world
}

/// Six tokens arrived, four of them are acknowledged.
fn streaming() -> World {
    let mut world = begun();
    world.deliver_up();
    (0..=6).for_each(|_| assert!(world.run_engine()));
    (0..=6).for_each(|_| assert!(world.deliver_down()));
    world
}

/// All arrived, and the last voucher is out; the provider's receipt is on its own disk.
fn settling() -> World {
    let mut world = streaming();
    while world.run_engine() {}
    while world.deliver_down() {}
    while world.deliver_up() {}
    world
}

fn finished(completion_tokens: u32) -> ToRequester {
    let usage = Usage { prompt_tokens: 5, cached_tokens: 2, completion_tokens };
    ToRequester::Finished { reason: EndReason::Stop, text: String::new(), usage }
}

/// Each message in this state ends the exchange as a violation; `owed` tokens were received.
fn check(state: fn() -> World, owed: u32, messages: Messages) {
    for (name, message) in messages {
        let mut world = state();
        world.step_asker(Input::Message(message));
        match world.asker.told.last() {
            Some(Event::Failed(refusal)) => {
                assert_eq!(refusal.code, WireCode::ProtocolViolation, "{name}: {refusal}");
            }
            _ => panic!("{name}: the user was not told"),
        }
        assert!(world.asker.is_closed, "{name}");
        let held = world.disk_of_asker().held(Side::Requester, &world.order_id()).expect("held");
        let vouched = held.voucher.map_or(0, |it| it.body().usage.completion_tokens);
        assert_eq!(vouched, owed, "{name}: Rule E4");
        assert!(held.receipt.is_none(), "{name}");
        world.run_to_the_end();
        world.settle(true);
        crate::settling::check_agreement(&world);
    }
}

/// The messages of a kind that have no place in a state.
fn out_of_turn(but: &[&str]) -> Messages {
    let names = ["accepted", "refused", "prefilled", "tokens", "heartbeat", "finished", "receipt"];
    let all = names.into_iter().zip(crate::inputs::messages_to_requester());
    all.filter(|(name, _)| !but.contains(name)).collect()
}

#[test]
fn a_message_out_of_turn_ends_the_exchange() {
    check(asked, 0, out_of_turn(&["accepted", "refused"]));
    check(begun, 0, out_of_turn(&["prefilled", "heartbeat", "finished"]));
    check(streaming, 6, out_of_turn(&["tokens", "heartbeat", "finished"]));
    check(settling, 10, out_of_turn(&["receipt"]));
}

/// Rules E7 and E10: a manifest of the provider's own, of the model that was ordered.
#[test]
fn a_manifest_that_is_not_the_providers_own_is_refused() {
    let provider = sample::node(sample::PROVIDER, sample::AUTHORITY);
    let stranger = sample::node(sample::STRANGER, sample::AUTHORITY);
    let mut other_mesh = provider.clone();
    other_mesh.mesh = Hash::from_bytes([9; 32]);
    let mut other_model = sample::manifest_body();
    other_model.files[0].hash = Hash::from_bytes([9; 32]);
    let garbage = ToRequester::Accepted {
        commit: commit(&sample::PROVIDER_NONCE),
        manifest: ByteBuf::from([1, 2]),
    };
    let messages = vec![
        ("garbage", garbage),
        ("another node's", accepted(&stranger, sample::manifest_body())),
        ("another mesh's", accepted(&other_mesh, sample::manifest_body())),
        ("another model's", accepted(&provider, other_model)),
    ];
    check(asked, 0, messages);
    let mut world = asked();
    world.step_asker(Input::Message(honest_accepted()));
    assert!(matches!(world.asker.told.last(), Some(Event::Accepted)));
}

/// Rule E10: within the order's limits.
#[test]
fn a_prompt_beyond_the_limits_is_refused() {
    let prefilled = |prompt_tokens, cached_tokens| ToRequester::Prefilled {
        prompt_tokens,
        cached_tokens,
        tool_format: None,
    };
    let messages = vec![
        ("more than the order allows", prefilled(65, 0)),
        ("more from a cache than there is", prefilled(5, 6)),
        ("all that a number holds", prefilled(u32::MAX, u32::MAX)),
    ];
    check(begun, 0, messages);
}

/// Rule E10: tokens within the limits. What came before the violation is paid.
#[test]
fn tokens_beyond_the_limits_are_refused() {
    let mut twice = sample::token(7);
    twice.top.push(twice.top[0].clone());
    check(streaming, 6, vec![("too many alternatives", ToRequester::Tokens(vec![twice]))]);

    let mut world = streaming();
    let tokens: Vec<_> = (7..=49).map(sample::token).collect();
    world.asker.received.extend(tokens.iter().take(42).map(|token| token.id));
    world.step_asker(Input::Message(ToRequester::Tokens(tokens)));
    let held = world.disk_of_asker().held(Side::Requester, &world.order_id()).expect("held");
    let vouched = held.voucher.expect("signed").body().usage.completion_tokens;
    assert_eq!(vouched, 48, "all that was ordered, and no more");
    assert!(matches!(world.asker.told.last(), Some(Event::Failed(_))));
}

/// Rule E4: the requester counts for itself.
#[test]
fn an_end_over_another_count_is_refused() {
    let mut cached = finished(6);
    if let ToRequester::Finished { usage, .. } = &mut cached {
        usage.cached_tokens = 0;
    }
    let messages = vec![
        ("a token more", finished(7)),
        ("a token less", finished(5)),
        ("nothing out of the cache", cached),
    ];
    check(streaming, 6, messages);
    check(begun, 0, vec![("tokens that never came", finished(3))]);
}

/// The provider's receipt, but for one change, signed again.
fn receipt(author: &Author, change: impl FnOnce(&mut Receipt)) -> ToRequester {
    let world = settling();
    let receipts = world.disk_of_server().all::<Receipt>();
    let mut body = receipts.first().expect("the provider has written it").body().clone();
    change(&mut body);
    ToRequester::Receipt { record: ByteBuf::from(author.sign(501, body).encode()) }
}

fn garbled(at: usize) -> ToRequester {
    let provider = sample::node(sample::PROVIDER, sample::AUTHORITY);
    let ToRequester::Receipt { mut record } = receipt(&provider, |_| {}) else {
        unreachable!("a receipt is a receipt")
    };
    record[at] ^= 1;
    ToRequester::Receipt { record }
}

/// Rules E6 to E12 and S3.
#[test]
fn a_receipt_that_claims_anything_else_is_refused() {
    let provider = sample::node(sample::PROVIDER, sample::AUTHORITY);
    let stranger = sample::node(sample::STRANGER, sample::AUTHORITY);
    let other = Hash::from_bytes([9; 32]);
    let other_seed = SeedTranscript::Joint {
        client_nonce: sample::CLIENT_NONCE,
        provider_commit: commit(&Nonce::from_bytes([9; 32])),
    };
    let messages = vec![
        ("one byte changed", garbled(100)),
        ("another byte changed", garbled(400)),
        ("another signer (Rule E7)", receipt(&stranger, |_| {})),
        ("another order (Rule E6)", receipt(&provider, |it| it.order = other)),
        ("another model (Rule E10)", receipt(&provider, |it| it.ran.model = other)),
        (
            "an adapter (Rule E10)",
            receipt(&provider, |it| {
                it.ran.adapter = Some(RanAdapter { adapter: other, format: "F16".into() });
            }),
        ),
        ("another seed", receipt(&provider, |it| it.seed = Some(other_seed))),
        ("a seed of the other mode (Rule S3)", {
            receipt(&provider, |it| it.seed = Some(SeedTranscript::Client { seed: 1 }))
        }),
        ("no seed (Rule S3)", receipt(&provider, |it| it.seed = None)),
        ("more money (Rule E8)", {
            receipt(&provider, |it| {
                it.amount = Credits::from_micro(2_000);
                it.pair.cumulative = it.amount;
            })
        }),
        ("another token (Rule E11)", receipt(&provider, |it| it.root = other)),
        ("a token more (Rule E11)", {
            receipt(&provider, |it| {
                it.usage.completion_tokens += 1;
                it.range = TokenRange { start: 0, end: it.usage.completion_tokens };
            })
        }),
        ("a later range (Rule E10)", {
            receipt(&provider, |it| it.range = TokenRange { start: 1, end: 11 })
        }),
        ("a local scope (Rule E12)", receipt(&provider, |it| it.scope = Scope::Local)),
    ];
    for (name, message) in messages {
        let mut world = settling();
        world.step_asker(Input::Message(message));
        assert!(
            matches!(
                world.asker.told.last(),
                Some(Event::Failed(refusal)) if refusal.code == WireCode::ProtocolViolation
            ),
            "{name} was taken"
        );
        let held = world.disk_of_asker().held(Side::Requester, &world.order_id()).expect("held");
        assert!(held.receipt.is_none(), "{name}");
        let waiting = world.disk_of_asker().outbox(&world.provider());
        assert_eq!(waiting, [held.voucher.expect("signed").id()], "{name}: Rule E14");
    }
}

/// A provider whose link was slow gave up waiting for the last voucher and claimed the one before.
/// Its receipt was called a broken protocol, and a whole answer an error.
// Rules E11 and E14
#[test]
fn a_receipt_that_names_another_voucher_is_left_for_settlement() {
    let mut world = settling();
    let provider = sample::node(sample::PROVIDER, sample::AUTHORITY);
    let other = Some(Hash::from_bytes([9; 32]));
    world.step_asker(Input::Message(receipt(&provider, |it| it.voucher = other)));
    assert!(matches!(
        world.asker.told.last(),
        Some(Event::Done(done)) if done.receipt.is_none()
    ));
    let held = world.disk_of_asker().held(Side::Requester, &world.order_id()).expect("held");
    assert!(held.receipt.is_none(), "it was not checked against a voucher yet");
    let waiting = world.disk_of_asker().outbox(&world.provider());
    assert_eq!(waiting, [held.voucher.expect("signed").id()]);
}

/// A voucher that the requester never signed can be on nobody's account.
#[test]
fn the_requester_signs_no_voucher_for_a_refused_order() {
    let mut world = asked();
    let refusal = commons_exchange::message::WireRefusal::new(WireCode::Overloaded, "later");
    world.step_asker(Input::Message(ToRequester::Refused(refusal)));
    assert!(world.disk_of_asker().all::<Voucher>().is_empty());
    assert!(world.asker.is_closed);
}
