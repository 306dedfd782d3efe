//! Real sockets on loopback: clients that go away, are slow on purpose, or too many.
//!
//! Time is paused: when nothing can move, the clock jumps to the next deadline.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use commons_gateway::{GatewayConfig, ServeLimits, bind_tcp, router, serve_tcp};
use commons_node::api::AnswerEvent;
use commons_record::settlement::EndReason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::fake::{CHAT, FakeNode, Script, chat, done, hello, state, token};

struct Server {
    addr: SocketAddr,
    shutdown: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn serve(node: &Arc<FakeNode>, limits: ServeLimits) -> Server {
    let listener = bind_tcp("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let router = router(state(node, GatewayConfig::default()));
    let (shutdown, is_shutdown) = oneshot::channel();
    let until = async { drop(is_shutdown.await) };
    let task = tokio::spawn(serve_tcp(listener, router, limits, until));
    Server { addr, shutdown, task }
}

/// Sends a request's bytes.
async fn open(addr: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

fn post(body: &str) -> String {
    format!(
        "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Reads until `needle` was seen, or the other side ends; gives back everything.
async fn read_until(stream: &mut TcpStream, needle: &str) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains(needle) {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(size) => seen.extend_from_slice(&buffer[..size]),
        }
    }
    String::from_utf8(seen).unwrap()
}

/// Reads to the end.
async fn read_all(stream: &mut TcpStream) -> String {
    read_until(stream, "\0 never").await
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_cancels_the_answer() {
    let node = FakeNode::new([Script::Hang(hello())]);
    let server = serve(&node, ServeLimits::default()).await;
    let mut client = open(server.addr, &post(&chat(r#","stream":true"#))).await;
    assert!(read_until(&mut client, "Hello").await.contains("assistant"));
    drop(client);
    node.dropped(1).await;
}

#[tokio::test]
async fn a_client_that_leaves_before_its_body_cancels_the_answer() {
    let node = FakeNode::new([Script::Hang(hello()), Script::NeverAccept]);
    let server = serve(&node, ServeLimits::default()).await;
    for count in 1..=2_u8 {
        let client = open(server.addr, &post(&chat(""))).await;
        node.asked(count.into()).await;
        drop(client);
        node.dropped(count.into()).await;
    }
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let server = serve(&FakeNode::new([]), ServeLimits::default()).await;
    let mut client = open(server.addr, HEALTH).await;
    for _ in 0..3 {
        assert!(read_until(&mut client, "\r\n\r\nok").await.starts_with("HTTP/1.1 200"));
        client.write_all(HEALTH.as_bytes()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn headers_that_do_not_end_close_the_connection() {
    let server = serve(&FakeNode::new([]), ServeLimits::default()).await;
    let mut client = open(server.addr, "GET /healthz HTTP/1.1\r\nhost: loc").await;
    let answer = read_all(&mut client).await;
    assert!(!answer.contains("200"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let server = serve(&FakeNode::new([]), ServeLimits::default()).await;
    let mut client = open(server.addr, "").await;
    assert_eq!(read_all(&mut client).await, "");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_end_is_refused() {
    let node = FakeNode::new([]);
    let server = serve(&node, ServeLimits::default()).await;
    let whole = post(&chat(""));
    let mut client = open(server.addr, &whole[..whole.len() - 1]).await;
    let answer = read_until(&mut client, "request_timeout").await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(node.ask_count(), 0);
}

#[tokio::test]
async fn a_client_that_waits_for_leave_is_told_at_once_that_its_body_is_too_large() {
    let server = serve(&FakeNode::new([]), ServeLimits::default()).await;
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: 3000000\r\nexpect: 100-continue\r\n\r\n"
    );
    let mut client = open(server.addr, &head).await;
    let answer = read_until(&mut client, "request_too_large").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn a_client_that_sends_too_much_can_still_read_why_it_is_refused() {
    let server = serve(&FakeNode::new([]), ServeLimits::default()).await;
    let mut client = open(server.addr, &post(&" ".repeat(3_000_000))).await;
    let answer = read_until(&mut client, "request_too_large").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_dropped_and_its_answer_cancelled() {
    let node = FakeNode::new([Script::Endless(token(1, &"x".repeat(65_536)))]);
    let server = serve(&node, ServeLimits::default()).await;
    let client = open(server.addr, &post(&chat(r#","stream":true"#))).await;
    node.dropped(1).await;
    drop(client);
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_their_turn() {
    let node = FakeNode::new([Script::Hang(hello())]);
    let limits = ServeLimits { connections_max: 1, ..ServeLimits::default() };
    let server = serve(&node, limits).await;
    let mut first = open(server.addr, &post(&chat(r#","stream":true"#))).await;
    read_until(&mut first, "Hello").await;
    let mut second = open(server.addr, HEALTH).await;
    let early = tokio::time::timeout(Duration::from_millis(50), second.readable()).await;
    assert!(early.is_err(), "the second was served beside the first");
    drop(first);
    assert!(read_until(&mut second, "ok").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_shutdown_lets_answers_in_work_end_and_accepts_no_more() {
    let (events, script) = mpsc::channel(8);
    let node = FakeNode::new([Script::Live(script)]);
    let server = serve(&node, ServeLimits::default()).await;
    let mut client = open(server.addr, &post(&chat(r#","stream":true"#))).await;
    read_until(&mut client, "assistant").await;
    server.shutdown.send(()).unwrap();
    while TcpStream::connect(server.addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    events.send(AnswerEvent::Token(token(1, "late"))).await.unwrap();
    events.send(done(EndReason::Stop, "")).await.unwrap();
    let rest = read_all(&mut client).await;
    assert!(rest.contains("late") && rest.contains("[DONE]"), "{rest}");
    server.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_ever() {
    let node = FakeNode::new([Script::Hang(hello())]);
    let server = serve(&node, ServeLimits::default()).await;
    let mut client = open(server.addr, &post(&chat(r#","stream":true"#))).await;
    read_until(&mut client, "Hello").await;
    server.shutdown.send(()).unwrap();
    server.task.await.unwrap();
    node.dropped(1).await;
    assert!(!read_all(&mut client).await.contains("[DONE]"));
}

#[tokio::test]
async fn what_is_not_http_is_refused_and_hurts_nobody() {
    let server = serve(&FakeNode::new([]), ServeLimits::default()).await;
    let huge = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    for garbage in ["\u{16}\u{3}\u{1}\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &huge] {
        let mut client = open(server.addr, garbage).await;
        let answer = read_all(&mut client).await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }
    let mut client = open(server.addr, HEALTH).await;
    assert!(read_until(&mut client, "ok").await.starts_with("HTTP/1.1 200"));
}
