//! Members that break the rules, as requesters of an honest provider and the other way round.
//!
//! After any of them the honest side is well: it holds no task, slot or stream for them, serves
//! others as before, and its records claim nothing that is not so (an invariant of every run).

use std::pin::pin;

use commons_exchange::message::{ToRequester, WireCode};
use commons_record::settlement::Receipt;
use commons_record::{Hash, Millis};
use commons_sim::engine::SimModel;
use commons_sim::mocks::flooder::{self, Excess};
use commons_sim::mocks::garbage_sender::{self, Garbage};
use commons_sim::mocks::nonce_swapper;
use commons_sim::mocks::peer::RawPeer;
use commons_sim::mocks::replayer;
use commons_sim::mocks::staller::{self, Point};
use commons_sim::mocks::wrong_key_signer::{self, Forged};
use commons_sim::seeds::for_each_seed;
use commons_sim::user::{Ending, Heard, question};
use commons_sim::world::NodeSpec;
use commons_sim::{Cluster, NodeId};
use futures::future::{self, Either};

const FOUNDER: NodeId = NodeId(0);
const HONEST: NodeId = NodeId(1);
const MOCK: NodeId = NodeId(2);

const SEEDS: [u64; 3] = [1, 2, 3];

/// Longer than any patience of a node with a peer.
const LONG: Millis = Millis::from_secs(60);

fn model() -> SimModel {
    SimModel { stops_after: 200, ..SimModel::named("story") }
}

fn hash() -> Hash {
    model().loaded.model
}

/// An honest provider, an honest requester, and a requester that is a mock.
fn against_a_provider(scenario: &impl AsyncFn(&Cluster, &RawPeer<'_>)) {
    for_each_seed(&SEEDS, |seed| {
        let specs = vec![NodeSpec::with_model(model()), NodeSpec::default(), NodeSpec::default()];
        Cluster::play(seed, specs, async |cluster| {
            cluster.sleep(LONG).await;
            let tasks = cluster.executor().task_count(FOUNDER);
            let mock = RawPeer::take_over(cluster, MOCK);
            cluster.sleep(Millis::from_secs(3)).await;
            scenario(cluster, &mock).await;
            is_well(cluster, tasks).await;
        });
    });
}

/// The provider holds nothing for the mock any more, and serves others.
async fn is_well(cluster: &Cluster, tasks_before: usize) {
    let tasks = cluster.executor().task_count(FOUNDER);
    assert!(tasks <= tasks_before + 3, "{tasks} tasks where there were {tasks_before}");
    let heard = cluster.ask(HONEST, question("story", 40)).ended().await;
    assert!(matches!(heard.ending, Some(Ending::Done(_))), "{:?}", heard.ending);
    cluster.sleep(Millis::from_secs(5)).await;
    assert_eq!(cluster.engine(FOUNDER).busy(), 0, "the engine works for nobody");
}

/// Runs mischief for as long as it likes, but no longer than a minute.
async fn for_a_minute<T>(cluster: &Cluster, mischief: impl Future<Output = T>) -> Option<T> {
    match future::select(pin!(mischief), pin!(cluster.sleep(LONG))).await {
        Either::Left((value, rest)) => {
            rest.await;
            Some(value)
        }
        Either::Right(((), _)) => None,
    }
}

fn code(message: Option<&ToRequester>) -> Option<WireCode> {
    match message {
        Some(ToRequester::Refused(refusal) | ToRequester::Failed(refusal)) => Some(refusal.code),
        _ => None,
    }
}

#[test]
fn a_requester_that_sends_garbage_is_dropped_or_refused() {
    against_a_provider(&async |cluster, mock| {
        for layer in Garbage::ALL {
            let said = garbage_sender::ask(mock, FOUNDER, hash(), layer);
            let said = for_a_minute(cluster, said).await.expect("the provider hangs up");
            let said = said.expect("it connects");
            assert!(!said.iter().any(|it| matches!(it, ToRequester::Accepted { .. })), "{said:?}");
        }
        for protocol in ["hello/1", "join/1"] {
            for length in [400, 0, 64 * 1024, u32::MAX] {
                let talk = garbage_sender::talk(mock, FOUNDER, protocol, length);
                let talked = for_a_minute(cluster, talk).await.expect("the provider hangs up");
                assert_eq!(talked, Ok(()));
            }
        }
    });
}

#[test]
fn a_requester_that_floods_is_bounded() {
    against_a_provider(&async |cluster, mock| {
        let held = flooder::open_streams(mock, FOUNDER, "infer/1", 200).await;
        let heard = cluster.ask(HONEST, question("story", 10)).ended().await;
        assert!(matches!(heard.ending, Some(Ending::Done(_))), "{:?}", heard.ending);
        let orders = flooder::order(mock, FOUNDER, hash(), 100).await.expect("some open");
        let loads = flooder::load(mock, FOUNDER, hash(), 200).await;
        let mut others = Vec::new();
        for protocol in ["hello/1", "settle/1", "join/1"] {
            others.extend(flooder::open_streams(mock, FOUNDER, protocol, 200).await);
        }
        let topic = format!("/commons/{}/presence/1", &mock.mesh().to_string()[..16]);
        flooder::gossip(mock, &topic, 2_000).await;
        // The mock holds every stream, and the provider has let go of all of them.
        cluster.sleep(Millis::from_secs(120)).await;
        let tasks = cluster.executor().task_count(FOUNDER);
        assert!(tasks < 20, "{tasks} tasks are still there");
        drop((held, orders, loads, others));
        cluster.sleep(LONG).await;
    });
}

#[test]
fn a_requester_that_repeats_itself_is_told_off_or_ignored() {
    against_a_provider(&async |cluster, mock| {
        let said = flooder::repeat(mock, FOUNDER, hash(), 5_000);
        let said = for_a_minute(cluster, said).await;
        assert!(said.is_some(), "the provider went on for a minute");
    });
}

#[test]
fn a_requester_that_stalls_is_given_up() {
    for point in Point::ALL {
        against_a_provider(&async |cluster, mock| {
            // Ten streams, held for longer than the provider is asked to be well after.
            let stall = || staller::ask(mock, FOUNDER, hash(), point, Millis::from_secs(600));
            let stalls = future::join_all((0..10).map(|_| stall()));
            let tasks = cluster.executor().task_count(FOUNDER);
            let watch = async {
                cluster.sleep(LONG).await;
                let held = cluster.executor().task_count(FOUNDER);
                assert!(held <= tasks + 3, "{point:?}: {held} tasks where there were {tasks}");
            };
            future::select(pin!(stalls), pin!(watch)).await;
        });
    }
}

#[test]
fn a_requester_that_reveals_another_nonce_gets_no_token() {
    against_a_provider(&async |cluster, mock| {
        let said = nonce_swapper::ask(mock, FOUNDER, hash());
        let said = for_a_minute(cluster, said).await.expect("it ends").expect("it connects");
        assert!(!said.iter().any(|it| matches!(it, ToRequester::Tokens(_))), "{said:?}");
        let failed = said.iter().find(|it| matches!(it, ToRequester::Failed(_)));
        assert_eq!(code(failed), Some(WireCode::ProtocolViolation), "{said:?}");
    });
}

#[test]
fn a_requester_that_signs_with_another_key_is_refused() {
    against_a_provider(&async |cluster, mock| {
        let said = wrong_key_signer::ask(mock, FOUNDER, hash(), Forged::First);
        let said = for_a_minute(cluster, said).await.expect("it ends").expect("it connects");
        assert_eq!(code(said.first()), Some(WireCode::InvalidOrder), "{said:?}");

        let said = wrong_key_signer::ask(mock, FOUNDER, hash(), Forged::Last);
        let said = for_a_minute(cluster, said).await.expect("it ends").expect("it connects");
        let failed = said.iter().find(|it| matches!(it, ToRequester::Failed(_)));
        assert_eq!(code(failed), Some(WireCode::ProtocolViolation), "{said:?}");
    });
}

/// An honest requester, and a provider that is a mock. What the user heard.
fn against_a_requester(
    question_tokens: u32,
    serve: &impl AsyncFn(&RawPeer<'_>),
    check: impl Fn(&Cluster, &Heard, &str),
    about: &str,
) {
    for_each_seed(&SEEDS, |seed| {
        let specs = vec![NodeSpec::default(), NodeSpec::default(), NodeSpec::with_model(model())];
        Cluster::play(seed, specs, async |cluster| {
            let mock = RawPeer::take_over(cluster, MOCK);
            cluster.sleep(Millis::from_secs(3)).await;
            let asking = async {
                cluster.sleep(Millis(100)).await;
                let user = cluster.ask(HONEST, question("story", question_tokens));
                user.ended().await
            };
            let heard = match future::select(pin!(serve(&mock)), pin!(asking)).await {
                Either::Left(((), asking)) => asking.await,
                Either::Right((heard, _)) => heard,
            };
            check(cluster, &heard, about);
            let receipts = cluster.book(HONEST).expect("it is readable");
            let held = receipts.of_type::<Receipt>().count();
            assert_eq!(held, 0, "{about}: a receipt of such a provider is not taken");
        });
    });
}

fn is_told(_: &Cluster, heard: &Heard, about: &str) {
    let silent = heard.last_at.since(heard.asked_at);
    assert!(heard.refusal().is_some(), "{about}: {:?}", heard.ending);
    assert!(silent <= Millis::from_secs(20), "{about}: told after {silent}");
}

#[test]
fn a_provider_that_sends_garbage_is_told_on() {
    for layer in [Garbage::LengthClass, Garbage::Unsealed, Garbage::Sealed] {
        for after in [None, Some(40)] {
            let serve = async |mock: &RawPeer<'_>| {
                let _ = garbage_sender::serve(mock, model(), layer, after).await;
            };
            against_a_requester(100, &serve, is_told, &format!("{layer:?} after {after:?}"));
        }
    }
}

#[test]
fn a_provider_that_sends_too_much_is_told_on_and_paid_for_what_was_ordered() {
    for excess in [Excess::Tokens, Excess::Batches, Excess::Text] {
        let serve = async |mock: &RawPeer<'_>| {
            let _ = flooder::serve(mock, model(), excess).await;
        };
        let check = |cluster: &Cluster, heard: &Heard, about: &str| {
            is_told(cluster, heard, about);
            assert!(heard.tokens.len() <= 100, "{about}: {} tokens", heard.tokens.len());
        };
        against_a_requester(100, &serve, check, &format!("{excess:?}"));
    }
}

#[test]
fn a_provider_that_stalls_is_told_on() {
    for point in Point::ALL {
        let serve = async |mock: &RawPeer<'_>| {
            let _ = staller::serve(mock, model(), point, Millis::from_secs(240)).await;
        };
        let check = |cluster: &Cluster, heard: &Heard, about: &str| {
            if point == Point::Finished {
                // The answer is whole; only its receipt is missing.
                let end = heard.done().unwrap_or_else(|| panic!("{about}: {:?}", heard.ending));
                assert_eq!((end.proof.receipt, heard.tokens.len()), (None, 40));
            } else {
                is_told(cluster, heard, about);
            }
        };
        against_a_requester(100, &serve, check, &format!("{point:?}"));
    }
}

#[test]
fn a_provider_whose_receipt_names_another_nonce_is_not_believed() {
    let serve = async |mock: &RawPeer<'_>| {
        let _ = nonce_swapper::serve(mock, model()).await;
    };
    against_a_requester(100, &serve, is_told, "nonce swapper");
}

#[test]
fn a_provider_that_signs_with_another_key_is_not_believed() {
    for forged in [Forged::First, Forged::Last] {
        let serve = async |mock: &RawPeer<'_>| {
            let _ = wrong_key_signer::serve(mock, model(), forged).await;
        };
        against_a_requester(100, &serve, is_told, &format!("{forged:?}"));
    }
}

#[test]
fn a_provider_that_gives_an_old_receipt_again_is_not_believed() {
    for_each_seed(&SEEDS, |seed| {
        let specs = vec![NodeSpec::default(), NodeSpec::default(), NodeSpec::with_model(model())];
        Cluster::play(seed, specs, async |cluster| {
            let mock = RawPeer::take_over(cluster, MOCK);
            cluster.sleep(Millis::from_secs(3)).await;
            let asking = async {
                cluster.sleep(Millis(100)).await;
                let first = cluster.ask(HONEST, question("story", 100)).ended().await;
                let second = cluster.ask(HONEST, question("story", 100)).ended().await;
                (first, second)
            };
            let serving = pin!(replayer::serve(&mock, model()));
            let Either::Left(((first, second), _)) = future::select(pin!(asking), serving).await
            else {
                panic!("the mock gave up");
            };
            assert!(first.done().is_some_and(|end| end.proof.receipt.is_some()), "{first:?}");
            assert!(second.done().is_none_or(|end| end.proof.receipt.is_none()), "{second:?}");
            let book = cluster.book(HONEST).expect("it is readable");
            assert_eq!(book.of_type::<Receipt>().count(), 1);
        });
    });
}
