//! Streams: opened, negotiated, and never faster than their reader.

use std::pin::Pin;
use std::task::Poll;

use commons_port::net::{Net as _, NetError};
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use futures::{AsyncWrite as _, StreamExt as _};

use crate::world::{QUIC, TCP, ask, echo, introduce, node_on, open, ping_pong, protocol, within};

async fn two_nodes_echo(transport: &str) {
    let (one, other) = (node_on(1, &[transport]), node_on(2, &[transport]));
    let _echo = echo(&other, &["/t/echo/1"]);
    introduce(&one, &other).await;
    let (_, stream) = open(&one, other.local_peer(), &["/t/echo/1"]).await.unwrap();
    let said: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    assert!(ask(stream, &said).await.unwrap() == said, "4 MB came back changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_open_a_stream_and_echo_over_quic() {
    two_nodes_echo(QUIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_open_a_stream_and_echo_over_tcp() {
    two_nodes_echo(TCP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_acceptor_learns_who_opened_and_which_version() {
    let (one, other) = (node_on(1, &[QUIC]), node_on(2, &[QUIC]));
    let mut incoming = other.accept(vec![protocol("/t/ask/1"), protocol("/t/ask/2")]);
    introduce(&one, &other).await;
    let (agreed, _stream) = open(&one, other.local_peer(), &["/t/ask/2"]).await.unwrap();
    assert_eq!(agreed, protocol("/t/ask/2"));
    let got = within("the stream", incoming.next()).await.unwrap();
    assert_eq!((got.peer, got.protocol), (one.local_peer(), protocol("/t/ask/2")));
}

// Rule N2
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_common_version_is_chosen() {
    let (one, other) = (node_on(1, &[QUIC, TCP]), node_on(2, &[QUIC, TCP]));
    let _echo = echo(&other, &["/t/echo/1", "/t/echo/2", "/t/echo/4"]);
    introduce(&one, &other).await;
    let offers = [
        (&["/t/echo/3", "/t/echo/2", "/t/echo/1"][..], "/t/echo/2"),
        (&["/t/echo/4", "/t/echo/2"][..], "/t/echo/4"),
        (&["/t/echo/9", "/t/echo/8", "/t/echo/1"][..], "/t/echo/1"),
    ];
    for (offered, expected) in offers {
        let (agreed, stream) = open(&one, other.local_peer(), offered).await.unwrap();
        assert_eq!(agreed, protocol(expected));
        assert_eq!(ask(stream, b"hello").await.unwrap(), b"hello");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_common_version_is_an_error_of_its_own() {
    let (one, other) = (node_on(1, &[QUIC]), node_on(2, &[QUIC]));
    let echo = echo(&other, &["/t/echo/1"]);
    introduce(&one, &other).await;
    let none = NetError::NoCommonProtocol { peer: other.local_peer() };
    let asked = open(&one, other.local_peer(), &["/t/echo/3", "/t/echo/2"]).await.map(|it| it.0);
    assert_eq!(asked, Err(none.clone()));
    let (_, stream) = open(&one, other.local_peer(), &["/t/echo/1"]).await.unwrap();
    assert_eq!(ask(stream, b"still here").await.unwrap(), b"still here");

    echo.abort(); // Nobody accepts any more: the version is no longer spoken.
    assert!(within("the end of the task", echo).await.unwrap_err().is_cancelled());
    let asked = open(&one, other.local_peer(), &["/t/echo/1"]).await.map(|it| it.0);
    assert_eq!(asked, Err(none));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_streams_is_answered_in_full() {
    let (one, other) = (node_on(1, &[QUIC]), node_on(2, &[QUIC]));
    let _echo = echo(&other, &["/t/echo/1"]);
    introduce(&one, &other).await;
    let (one, peer) = (&one, other.local_peer());
    let asked = (0..60_u8).map(|number| async move {
        let (_, stream) = open(one, peer, &["/t/echo/1"]).await.unwrap();
        assert_eq!(ask(stream, &[number; 1000]).await.unwrap(), [number; 1000]);
    });
    futures::future::join_all(asked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_nobody_takes_are_reset_beyond_the_bound() {
    let (one, other) = (node_on(1, &[QUIC]), node_on(2, &[QUIC]));
    let mut incoming = other.accept(vec![protocol("/t/ask/1")]);
    introduce(&one, &other).await;
    let mut held = Vec::new();
    for _ in 0..80 {
        held.push(open(&one, other.local_peer(), &["/t/ask/1"]).await.unwrap().1);
    }
    let mut reset = 0;
    for mut stream in held.split_off(64) {
        let mut byte = [0];
        // Over QUIC a reset that follows no data reads as an end.
        let read = within("a reset", stream.read(&mut byte)).await;
        reset += usize::from(matches!(read, Ok(0) | Err(_)));
    }
    assert_eq!(reset, 16);
    for _ in 0..64 {
        within("a waiting stream", incoming.next()).await.unwrap();
    }
}

/// Writes until the writer has to wait, and goes on waiting while another stream of the same
/// connection is used; then reads all that was written.
async fn a_writer_waits_for_its_reader(transport: &str, written_max: usize) {
    let (one, other) = (node_on(1, &[transport]), node_on(2, &[transport]));
    let _echo = echo(&other, &["/t/echo/1"]);
    let mut incoming = other.accept(vec![protocol("/t/sink/1")]);
    introduce(&one, &other).await;
    let (_, mut sink) = open(&one, other.local_peer(), &["/t/sink/1"]).await.unwrap();
    let (_, mut witness) = open(&one, other.local_peer(), &["/t/echo/1"]).await.unwrap();
    let mut source = within("the stream", incoming.next()).await.unwrap().stream;

    let chunk = vec![7_u8; 64 * 1024];
    let mut written = 0;
    let mut stalled = 0;
    while stalled < 100 {
        let wrote = std::future::poll_fn(|cx| match Pin::new(&mut sink).poll_write(cx, &chunk) {
            Poll::Ready(result) => Poll::Ready(Some(result.unwrap())),
            Poll::Pending => Poll::Ready(None),
        });
        match wrote.await {
            Some(count) => (written, stalled) = (written + count, 0),
            None => stalled += 1,
        }
        assert!(written <= written_max, "{written} bytes were taken and nobody read");
        if stalled > 0 {
            ping_pong(&mut witness).await; // Time passes, and the connection is alive.
        }
    }
    let close = async move { sink.close().await };
    let read = async {
        let mut all = Vec::new();
        source.read_to_end(&mut all).await.map(|count| (count, all.iter().all(|it| *it == 7)))
    };
    let (closed, read) = within("the rest", futures::future::join(close, read)).await;
    closed.unwrap();
    assert_eq!(read.unwrap(), (written, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_waits_for_its_reader_over_quic() {
    // The reader's stream window and the writer's own send buffer.
    a_writer_waits_for_its_reader(QUIC, 24 << 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_waits_for_its_reader_over_tcp() {
    // A Yamux window and the sockets' buffers.
    a_writer_waits_for_its_reader(TCP, 24 << 20).await;
}
