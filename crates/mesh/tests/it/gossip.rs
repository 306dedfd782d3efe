//! Gossip: what is accepted travels on, what is rejected does not.

use commons_port::net::{GOSSIP_SIZE_MAX, Net as _, NetError, PeerEvent};
use futures::{FutureExt as _, StreamExt as _};

use crate::world::{introduce, judge, node, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_reaches_a_third_node_and_a_rejected_one_does_not() {
    let (first, second, third) = (node(1), node(2), node(3));
    let mut at_second = second.subscribe("t".to_owned(), judge());
    // The third would take anything: what it is spared, the second has held back.
    let all = std::sync::Arc::new(|_: &[u8]| commons_port::net::Acceptance::Accept);
    let mut at_third = third.subscribe("t".to_owned(), all);
    let _at_first = first.subscribe("t".to_owned(), judge());
    introduce(&first, &second).await;
    introduce(&third, &second).await;
    // What is said while a peer joins may pass it by. Its subscription comes before its words, so
    // once the second has heard the third, it passes on to it.
    third.publish("t".to_owned(), b"here".to_vec()).await.unwrap();
    assert_eq!(within("the second", at_second.next()).await.unwrap(), b"here");

    for said in ["one", "bad", "old", "two"] {
        first.publish("t".to_owned(), said.into()).await.unwrap();
    }
    for said in ["one", "two"] {
        assert_eq!(within("the second", at_second.next()).await.unwrap(), said.as_bytes());
    }
    let mut heard = Vec::new();
    for _ in 0..2 {
        heard.push(within("the third", at_third.next()).await.unwrap());
    }
    heard.sort();
    assert_eq!(heard, [b"one", b"two"]);

    let mut standing = third.peer_events();
    let known = standing.next().now_or_never().flatten();
    let is_second =
        matches!(known, Some(PeerEvent::Connected { peer, .. }) if peer == second.local_peer());
    assert!(is_second, "{known:?}");
    assert_eq!(standing.next().now_or_never(), None, "the third is not connected to the first");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_before_anybody_came_is_heard_by_the_first_who_does() {
    let (first, second) = (node(1), node(2));
    first.publish("t".to_owned(), b"early".to_vec()).await.unwrap();
    let mut heard = second.subscribe("t".to_owned(), judge());
    introduce(&second, &first).await;
    assert_eq!(within("the message", heard.next()).await.unwrap(), b"early");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_message_is_delivered_once() {
    let (first, second) = (node(1), node(2));
    let mut heard = second.subscribe("t".to_owned(), judge());
    introduce(&first, &second).await;
    for said in ["same", "same", "same", "last"] {
        first.publish("t".to_owned(), said.into()).await.unwrap();
    }
    for said in ["same", "last"] {
        assert_eq!(within("a message", heard.next()).await.unwrap(), said.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_the_largest_size_travels_and_a_larger_one_is_refused() {
    let (first, second) = (node(1), node(2));
    let mut heard = second.subscribe("t".to_owned(), judge());
    introduce(&first, &second).await;
    let largest = vec![7; GOSSIP_SIZE_MAX];
    first.publish("t".to_owned(), largest.clone()).await.unwrap();
    assert!(within("the message", heard.next()).await.unwrap() == largest);
    let larger = first.publish("t".to_owned(), vec![7; GOSSIP_SIZE_MAX + 1]).await;
    let refusal = NetError::TooLarge { size: GOSSIP_SIZE_MAX + 1, max: GOSSIP_SIZE_MAX };
    assert_eq!(larger, Err(refusal));
}
