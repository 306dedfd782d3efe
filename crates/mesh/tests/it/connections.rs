//! Connections: told, held, lost, and made again.

use commons_mesh::{Mesh, StartError};
use commons_port::net::{Net as _, NetError};
use futures::StreamExt as _;

use crate::world::{
    QUIC, TCP, addrs, ask, config, connected, disconnected, echo, introduce, node, node_on, open,
    within,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_named_peer_is_connected_without_being_asked_for() {
    let (one, other) = (node(1), node(2));
    let mut events = one.peer_events();
    introduce(&one, &other).await;
    let addr = connected(&mut events, other.local_peer()).await;
    assert!(addr.starts_with("/ip4/127.0.0.1/"), "{addr}");
    connected(&mut other.peer_events(), one.local_peer()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listen_addresses_are_what_others_can_be_told() {
    let one = node(1);
    let told = addrs(&one).await;
    assert_eq!(told.len(), 2, "{told:?}");
    let other = node(2);
    other.add_addrs(one.local_peer(), told).unwrap();
    connected(&mut other.peer_events(), one.local_peer()).await;
    let itself = one.add_addrs(one.local_peer(), addrs(&one).await);
    assert!(matches!(itself, Err(NetError::BadAddr { .. })), "{itself:?}");
}

/// A peer goes and comes back at the same address: it is told as gone, and found again by a node
/// that does nothing but wait.
async fn a_returning_peer_is_found_again(transport: &str) {
    let one = node_on(1, &[transport]);
    let other = node_on(2, &[transport]);
    let peer = other.local_peer();
    let at = addrs(&other).await;
    let mut events = one.peer_events();
    introduce(&one, &other).await;
    connected(&mut events, peer).await;
    other.shutdown().await;
    disconnected(&mut events, peer).await;

    let back = within("the port", restarted(2, &at)).await;
    connected(&mut events, peer).await;
    let _echo = echo(&back, &["/t/echo/1"]);
    let (_, stream) = open(&one, peer, &["/t/echo/1"]).await.unwrap();
    assert_eq!(ask(stream, b"back").await.unwrap(), b"back");
}

/// Quinn keeps a UDP port for a moment after the host has ended, for late packets. A process that
/// restarts does not see that; two hosts in one process do.
async fn restarted(seed: u8, at: &[String]) -> Mesh {
    let at: Vec<&str> = at.iter().map(String::as_str).collect();
    loop {
        match Mesh::start(config(seed, &at)) {
            Ok(mesh) => return mesh,
            Err(StartError::Listen { .. }) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_returns_on_its_quic_port_is_found_again() {
    a_returning_peer_is_found_again(QUIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_returns_on_its_tcp_port_is_found_again() {
    a_returning_peer_is_found_again(TCP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_returns_elsewhere_is_found_once_it_is_told() {
    let (one, other) = (node(1), node(2));
    let peer = other.local_peer();
    let mut events = one.peer_events();
    introduce(&one, &other).await;
    connected(&mut events, peer).await;
    drop(other);
    disconnected(&mut events, peer).await;
    let back = node(2);
    introduce(&one, &back).await;
    connected(&mut events, peer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_handle_ends_the_host() {
    let (one, other) = (node(1), node(2));
    let (peer, mut events) = (other.local_peer(), one.peer_events());
    let mut its_events = other.peer_events();
    let mut its_streams = other.accept(vec![crate::world::protocol("/t/ask/1")]);
    let its_clone = other.clone();
    introduce(&one, &other).await;
    connected(&mut events, peer).await;
    connected(&mut its_events, one.local_peer()).await;
    drop(other);
    let (_, stream) = open(&one, peer, &["/t/ask/1"]).await.unwrap();
    drop((stream, within("a stream", its_streams.next()).await));

    drop(its_clone);
    disconnected(&mut events, peer).await;
    disconnected(&mut its_events, one.local_peer()).await;
    assert_eq!(within("the end", its_events.next()).await, None);
    assert!(within("the end", its_streams.next()).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_shut_down_says_so() {
    let (one, other) = (node(1), node(2));
    introduce(&one, &other).await;
    one.shutdown().await;
    one.shutdown().await;
    let opened = open(&one, other.local_peer(), &["/t/echo/1"]).await.map(|it| it.0);
    assert_eq!(opened, Err(NetError::Closed));
    assert_eq!(one.publish("t".into(), vec![1]).await, Err(NetError::Closed));
    assert_eq!(one.add_addrs(other.local_peer(), vec![]), Err(NetError::Closed));
    assert_eq!(addrs(&one).await, Vec::<String>::new());
    assert!(within("the end", one.accept(vec![]).next()).await.is_none());
    assert!(
        within("the end", one.subscribe("t".into(), crate::world::judge()).next()).await.is_none()
    );
    assert!(within("the end", one.peer_events().next()).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_listened_on_is_refused_before_anything_starts() {
    let taken = node_on(1, &[TCP]);
    let at = addrs(&taken).await;
    let cases = [
        (config(2, &["/ip4/127.0.0.1/udp/0"]), "BadAddr"),
        (config(2, &["nonsense"]), "BadAddr"),
        (config(2, &[TCP; 33]), "TooManyAddrs"),
        (config(2, &["/ip4/203.0.113.1/tcp/0"]), "Listen "), // Not an address of this machine.
    ];
    for (config, expected) in cases {
        let error = Mesh::start(config).unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{error:?}");
    }
    let mut scope = config(2, &[TCP]);
    scope.scope = "../up".to_owned();
    assert!(matches!(Mesh::start(scope), Err(StartError::Scope { .. })));
    assert_eq!(at.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_cannot_take_more_than_their_share_of_connections() {
    let mut narrow = config(1, &[TCP]);
    narrow.limits.connections_incoming = 1;
    let one = Mesh::start(narrow).unwrap();
    let _echo = echo(&one, &["/t/echo/1"]);
    let (second, third) = (node_on(2, &[TCP]), node_on(3, &[TCP]));
    introduce(&second, &one).await;
    let (_, held) = open(&second, one.local_peer(), &["/t/echo/1"]).await.unwrap();
    introduce(&third, &one).await;
    let refused = open(&third, one.local_peer(), &["/t/echo/1"]).await.map(|it| it.0);
    assert!(matches!(refused, Err(NetError::Unreachable { .. })), "{refused:?}");
    introduce(&one, &third).await; // What the node itself wants has room left.
    connected(&mut one.peer_events(), third.local_peer()).await;
    assert_eq!(ask(held, b"undisturbed").await.unwrap(), b"undisturbed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_be_dialled_is_reached_through_another() {
    let mut relay = node_on(1, &[TCP]);
    let at = addrs(&relay).await;
    relay.shutdown().await;
    // A relay has to know an address that leads to it from outside.
    let mut known = config(1, &at.iter().map(String::as_str).collect::<Vec<_>>());
    known.external.clone_from(&at);
    relay = Mesh::start(known).unwrap();

    // libp2p's own form of the relay's key, as its log would show it.
    let key = libp2p::identity::Keypair::ed25519_from_bytes([1; 32]).unwrap();
    let circuit = format!("{}/p2p/{}/p2p-circuit", at[0], key.public().to_peer_id());
    let hidden = node_on(2, &[&circuit]);
    let _echo = echo(&hidden, &["/t/echo/1"]);
    assert_eq!(addrs(&hidden).await, std::slice::from_ref(&circuit));

    let one = node_on(3, &[TCP]);
    one.add_addrs(hidden.local_peer(), vec![circuit]).unwrap();
    let (_, stream) = open(&one, hidden.local_peer(), &["/t/echo/1"]).await.unwrap();
    let long = vec![5; 1 << 20]; // The default of libp2p would cut this off.
    assert!(ask(stream, &long).await.unwrap() == long);
    drop(relay);
}
