//! Records that are offered after the end, by honest peers and by others. Rule E14.

use commons_exchange::SequenceRange;
use commons_exchange::entry::Side;
use commons_exchange::message::{WireCode, WireRefusal};
use commons_exchange::settle::Held;
use commons_record::envelope::{Author, Record, Verified};
use commons_record::mesh::Usage;
use commons_record::settlement::{PairPosition, Receipt, Voucher};
use commons_record::{Credits, Hash};

use crate::sample;
use crate::world::{Setup, World};

/// The provider went down after six tokens, of which four were acknowledged; the requester holds
/// a voucher over all six.
fn broken() -> World {
    let mut world = World::begin(Setup::answer(40));
    world.deliver_up();
    world.deliver_down();
    world.deliver_up();
    (0..=6).for_each(|_| assert!(world.run_engine()));
    while world.deliver_down() {}
    while world.deliver_up() {}
    world.crash_server();
    world.run_to_the_end();
    world
}

fn provider_side(world: &World) -> Held {
    world.disk_of_server().held(Side::Provider, &world.order_id()).expect("held")
}

fn requester_side(world: &World) -> Held {
    world.disk_of_asker().held(Side::Requester, &world.order_id()).expect("held")
}

fn last_voucher(world: &World) -> Verified<Voucher> {
    requester_side(world).voucher.expect("signed")
}

fn refused<T: std::fmt::Debug>(result: Result<T, WireRefusal>, name: &str) {
    match result {
        Ok(_) => panic!("{name} was taken"),
        Err(refusal) => assert_eq!(refusal.code, WireCode::InvalidOrder, "{name}"),
    }
}

fn mesh() -> Hash {
    sample::genesis().id()
}

#[test]
fn a_later_voucher_is_taken_once_and_the_receipt_claims_it() {
    let mut world = broken();
    assert_eq!(provider_side(&world).voucher.expect("four").body().usage.completion_tokens, 4);
    let voucher = last_voucher(&world).encode();
    let mut held = provider_side(&world);
    assert_eq!(held.take_voucher(mesh(), &voucher).expect("it is valid").len(), 2);
    assert!(held.take_voucher(mesh(), &voucher).expect("known").is_empty());
    world.settle(true);
    crate::settling::check_agreement(&world);
    let receipt = provider_side(&world).receipt.expect("settled").into_body();
    assert_eq!(receipt.usage.completion_tokens, 6);
    assert!(!receipt.acknowledged, "what else was sent went down with the crash");
}

/// After the receipt a longer voucher comes too late, and the requester owes the shorter one.
#[test]
fn a_voucher_after_the_receipt_changes_nothing() {
    let mut world = broken();
    world.settle(false);
    crate::settling::check_agreement(&world);
    let mut held = provider_side(&world);
    assert_eq!(held.receipt.as_ref().expect("settled").body().usage.completion_tokens, 4);
    let voucher = world.disk_of_asker().all::<Voucher>();
    let voucher = voucher.iter().find(|it| it.body().usage.completion_tokens == 6);
    refused(held.take_voucher(mesh(), &voucher.expect("signed").encode()), "a late voucher");
}

#[test]
fn an_offered_voucher_is_checked_like_one_that_came_in_time() {
    let world = broken();
    let honest = last_voucher(&world).into_body();
    let asker = world.asker.standing.author.clone();
    let stranger = sample::node(sample::STRANGER, sample::OWNER);
    let sign = |author: &Author, change: &dyn Fn(&mut Voucher)| {
        let mut body = honest.clone();
        change(&mut body);
        author.sign(7_000, body).encode()
    };
    let usage = Usage { prompt_tokens: 5, cached_tokens: 2, completion_tokens: 40 };
    let offers = [
        ("garbage", vec![1, 2, 3]),
        ("an order", world.order.encode()),
        ("another's (Rule E7)", sign(&stranger, &|_| {})),
        ("another order's (Rule E6)", sign(&asker, &|it| it.order = Hash::from_bytes([9; 32]))),
        ("less money (Rule E8)", sign(&asker, &|it| it.amount = Credits::ZERO)),
        ("more work for the same money", sign(&asker, &|it| it.usage = usage)),
    ];
    for (name, record) in offers {
        let mut held = provider_side(&world);
        refused(held.take_voucher(mesh(), &record), name);
        assert_eq!(held.voucher.expect("four").body().usage.completion_tokens, 4, "{name}");
    }
}

/// The receipt that an honest provider would have written, but for one change.
fn receipt(world: &World, author: &Author, change: &dyn Fn(&mut Receipt)) -> Vec<u8> {
    let mut held = provider_side(world);
    let pair = PairPosition { sequence: 1, cumulative: Credits::from_micro(2_000) };
    let standing = &world.server.standing;
    let closed = held.close(standing, &mut SequenceRange::new(900, 901), pair);
    let mut body = closed.expect("it was open").0.into_body();
    change(&mut body);
    author.sign(901, body).encode()
}

#[test]
fn an_offered_receipt_is_checked_like_one_that_came_in_time() {
    let world = broken();
    let provider = &world.server.standing.author;
    let stranger = sample::node(sample::STRANGER, sample::AUTHORITY);
    let other = Hash::from_bytes([9; 32]);
    let offers = [
        ("garbage", vec![1, 2, 3]),
        ("another's (Rule E7)", receipt(&world, &stranger, &|_| {})),
        ("another order's (Rule E6)", receipt(&world, provider, &|it| it.order = other)),
        ("more money (Rule E8)", {
            receipt(&world, provider, &|it| it.amount = Credits::from_micro(1_999))
        }),
        ("no seed (Rule S3)", receipt(&world, provider, &|it| it.seed = None)),
        ("a voucher nobody signed", receipt(&world, provider, &|it| it.voucher = Some(other))),
        ("more than the voucher (Rule E11)", {
            receipt(&world, provider, &|it| {
                it.usage.completion_tokens = 5;
                it.range.end = 5;
            })
        }),
    ];
    for (name, record) in offers {
        let mut held = requester_side(&world);
        let named = Held::voucher_named_by(&record);
        let named = named.and_then(|id| world.disk_of_asker().find::<Voucher>(&id));
        refused(held.take_receipt(mesh(), &record, named.as_ref()), name);
        assert!(held.is_open(), "{name}");
    }
}

/// Rule E1: a second receipt for an order is refused, and the first stands.
#[test]
fn only_one_receipt_is_taken() {
    let world = broken();
    let provider = &world.server.standing.author;
    let first = receipt(&world, provider, &|_| {});
    let second = receipt(&world, provider, &|it| it.pair.sequence = 2);
    let mut held = requester_side(&world);
    let named = Held::voucher_named_by(&first);
    let named = named.and_then(|id| world.disk_of_asker().find::<Voucher>(&id));
    assert!(!held.take_receipt(mesh(), &first, named.as_ref()).expect("valid").is_empty());
    assert!(held.take_receipt(mesh(), &first, named.as_ref()).expect("known").is_empty());
    refused(held.take_receipt(mesh(), &second, named.as_ref()), "a second receipt");
}

#[test]
fn only_an_open_exchange_of_a_providers_own_is_closed() {
    let mut world = broken();
    let pair = PairPosition { sequence: 1, cumulative: Credits::from_micro(2_000) };
    let close = |mut held: Held, world: &World, mut sequences: SequenceRange| {
        held.close(&world.server.standing, &mut sequences, pair).is_some()
    };
    assert!(!close(requester_side(&world), &world, SequenceRange::new(1, 2)), "not its own");
    assert!(!close(provider_side(&world), &world, SequenceRange::new(1, 1)), "no number is left");
    assert!(close(provider_side(&world), &world, SequenceRange::new(1, 2)));
    world.settle(true);
    assert!(!close(provider_side(&world), &world, SequenceRange::new(1, 2)), "it is settled");
}

#[test]
fn what_is_offered_says_whom_it_is_for() {
    let mut world = broken();
    let voucher = last_voucher(&world);
    assert_eq!(Held::order_of(&voucher.encode()), Ok((Side::Provider, world.order_id())));
    assert_eq!(Held::voucher_named_by(&voucher.encode()), None);
    world.settle(true);
    let receipt = provider_side(&world).receipt.expect("settled");
    assert_eq!(Held::order_of(&receipt.encode()), Ok((Side::Requester, world.order_id())));
    assert_eq!(Held::voucher_named_by(&receipt.encode()), Some(voucher.id()));
    assert_eq!(Receipt::TYPE, "commons/receipt/1");
    refused(Held::order_of(&world.order.encode()), "an order");
    refused(Held::order_of(&[0; 100]), "garbage");
}

/// Opened or not, and nothing while it is open.
#[test]
fn evidence_is_of_settled_exchanges_only() {
    let mut world = broken();
    assert!(requester_side(&world).evidence(&sample::genesis(), true).is_none());
    world.settle(true);
    let held = requester_side(&world);
    let opened = held.evidence(&sample::genesis(), true).expect("settled");
    assert!(opened.verify().expect("it holds").is_opened);
    let closed = held.evidence(&sample::genesis(), false).expect("settled");
    assert!(closed.opening.is_none());
    let other = provider_side(&world).evidence(&sample::genesis(), true).expect("settled");
    assert_eq!(other.receipt, closed.receipt);
    assert_eq!(other.voucher, closed.voucher);
}
