//! Records of providers: who has what is found through members that know neither side's secrets.

use std::collections::BTreeSet;
use std::time::Duration;

use commons_mesh::Mesh;
use commons_port::net::Net as _;
use commons_record::{Hash, PeerId};
use futures::StreamExt as _;

use crate::world::{connected, introduce, node, within};

/// All that a search finds until it ends.
async fn search(node: &Mesh, key: Hash) -> BTreeSet<PeerId> {
    within("the end of a search", node.providers(key).collect()).await
}

/// Searches until one finds these: a record travels in its own time.
async fn find(node: &Mesh, key: Hash, wanted: &[&Mesh]) {
    let wanted: BTreeSet<PeerId> = wanted.iter().map(|node| node.local_peer()).collect();
    within("the providers", async {
        while search(node, key).await != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Both remember each other and are connected.
async fn acquaint(one: &Mesh, other: &Mesh) {
    let mut events = one.peer_events();
    introduce(one, other).await;
    introduce(other, one).await;
    connected(&mut events, other.local_peer()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_provides_something_is_found_through_a_member_in_between() {
    let (first, middle, last) = (node(41), node(42), node(43));
    acquaint(&first, &middle).await;
    acquaint(&last, &middle).await;
    let (key, other) = (Hash::of_content(b"weights"), Hash::of_content(b"nothing"));
    first.provide(key, true).await.unwrap();
    find(&last, key, &[&first]).await;
    last.provide(key, true).await.unwrap();
    find(&middle, key, &[&first, &last]).await;
    assert!(search(&last, other).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stranger_brings_is_not_kept() {
    let (stranger, member, other) = (node(44), node(45), node(46));
    // The member does not remember the stranger, who remembers the member.
    let mut events = stranger.peer_events();
    introduce(&stranger, &member).await;
    connected(&mut events, member.local_peer()).await;
    acquaint(&other, &member).await;
    let key = Hash::of_content(b"weights");
    stranger.provide(key, true).await.unwrap();
    // What comes after it on the same way arrives, and it does not.
    other.provide(key, true).await.unwrap();
    find(&member, key, &[&other]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_back_is_no_longer_said() {
    let (first, second) = (node(47), node(48));
    acquaint(&first, &second).await;
    let key = Hash::of_content(b"weights");
    first.provide(key, true).await.unwrap();
    first.provide(key, false).await.unwrap();
    // The second may still remember it; the first itself does not say it.
    let found = search(&first, key).await;
    assert!(!found.contains(&first.local_peer()), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_gone_finds_nobody_and_says_so() {
    let first = node(49);
    first.shutdown().await;
    assert!(search(&first, Hash::of_content(b"x")).await.is_empty());
    assert!(first.provide(Hash::of_content(b"x"), true).await.is_err());
}
