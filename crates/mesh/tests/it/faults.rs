//! Peers that are absent, that lie, or that talk nonsense.

use std::net::{TcpListener, UdpSocket};

use commons_port::net::{Net as _, NetError};
use commons_record::{PeerId, SecretKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::{TCP, addrs, ask, echo, introduce, node, node_on, open, within};

fn absent() -> PeerId {
    PeerId::from_key(SecretKey::from_seed(&[99; 32]).public())
}

fn detail(result: Result<impl Sized, NetError>) -> String {
    match result.map(|_| ()) {
        Err(NetError::Unreachable { detail, .. }) => detail,
        other => panic!("expected Unreachable, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_was_never_heard_of_is_unreachable() {
    let one = node(1);
    let refused = detail(open(&one, absent(), &["/t/echo/1"]).await);
    assert!(refused.contains("no address"), "{refused}");
    one.add_addrs(absent(), vec![]).unwrap();
    let refused = detail(open(&one, absent(), &["/t/echo/1"]).await);
    assert!(refused.contains("no address"), "{refused}");
    let refused = detail(open(&one, one.local_peer(), &["/t/echo/1"]).await);
    assert!(refused.contains("itself"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_behind_a_closed_port_is_unreachable() {
    let one = node(1);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    one.add_addrs(absent(), vec![format!("/ip4/127.0.0.1/tcp/{port}")]).unwrap();
    for _ in 0..3 {
        let refused = detail(open(&one, absent(), &["/t/echo/1"]).await);
        assert!(refused.contains(&port.to_string()), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_with_another_key_at_the_address_is_refused() {
    let (one, liar) = (node(1), node(2));
    let _echo = echo(&liar, &["/t/echo/1"]);
    one.add_addrs(absent(), addrs(&liar).await).unwrap();
    let refused = detail(open(&one, absent(), &["/t/echo/1"]).await);
    assert!(refused.contains("somebody else"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_where_somebody_else_answers_does_not_hide_the_right_one() {
    let (one, liar, honest) = (node(1), node(2), node(3));
    let _echo = echo(&honest, &["/t/echo/1"]);
    let right = addrs(&honest).await;
    let wrong = addrs(&liar).await;
    one.add_addrs(honest.local_peer(), [wrong, right].concat()).unwrap();
    let (_, stream) = open(&one, honest.local_peer(), &["/t/echo/1"]).await.unwrap();
    assert_eq!(ask(stream, b"it is you").await.unwrap(), b"it is you");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_at_the_ports_does_not_disturb_the_host() {
    let (one, other) = (node(1), node(2));
    let _echo = echo(&other, &["/t/echo/1"]);
    let port = |transport: &str, addrs: &[String]| -> u16 {
        let part = format!("/{transport}/");
        let rest = addrs.iter().find_map(|addr| addr.split_once(&part)).unwrap().1;
        rest.split('/').next().unwrap().parse().unwrap()
    };
    let at = addrs(&other).await;
    let noise: Vec<u8> =
        (0..60_000_u32).map(|it| (it.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    for size in [1, 20, 1200, 40_000] {
        udp.send_to(&noise[..size], ("127.0.0.1", port("udp", &at))).unwrap();
        // Garbage alone; garbage after a sound greeting; and a length that promises too much.
        let openings: [&[u8]; 3] = [b"", b"\x13/multistream/1.0.0\n", b"\xff\xff\xff\xff\x0f"];
        for opening in openings {
            let mut tcp =
                tokio::net::TcpStream::connect(("127.0.0.1", port("tcp", &at))).await.unwrap();
            // The host may hang up at any moment, as it should.
            let _ = tcp.write_all(opening).await;
            let _ = tcp.write_all(&noise[..size]).await;
            let _ = tcp.shutdown().await;
            let mut answer = Vec::new();
            let _ = within("the host to hang up", tcp.read_to_end(&mut answer)).await;
        }
    }
    introduce(&one, &other).await;
    let (_, stream) = open(&one, other.local_peer(), &["/t/echo/1"]).await.unwrap();
    assert_eq!(ask(stream, b"still here").await.unwrap(), b"still here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_the_peers_host_does() {
    let (one, other) = (node_on(1, &[TCP]), node_on(2, &[TCP]));
    let _echo = echo(&other, &["/t/echo/1"]);
    introduce(&one, &other).await;
    let (_, mut stream) = open(&one, other.local_peer(), &["/t/echo/1"]).await.unwrap();
    crate::world::ping_pong(&mut stream).await;
    other.shutdown().await;
    let mut byte = [0];
    let read = futures::AsyncReadExt::read(&mut stream, &mut byte);
    assert!(matches!(within("the end", read).await, Ok(0) | Err(_)));
}
