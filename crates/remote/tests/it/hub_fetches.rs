//! A file's bytes, when all goes well and when the file is another one.

use commons_port::hub::{Digest, OriginError, OriginFile};
use futures::StreamExt as _;

use crate::hub_support::{
    COMMIT, content, fetch, head_of, header, hubs, pinned, plain, ranged, sha, taken, with_token,
};
use crate::support::{Act, Server};

#[tokio::test]
async fn a_file_comes_whole_and_from_the_middle() {
    let server = Server::start(|request| ranged(request, &content(300_000), "")).await;
    let hubs = hubs(&server);
    for offset in [0_u64, 1, 123_456, 299_999] {
        let fetched = fetch(&hubs, pinned(&server, 300_000), offset).await.expect("it begins");
        let (from, bytes, error) = taken(fetched).await;
        assert_eq!((from, error), (offset, None));
        let offset = usize::try_from(offset).expect("is small");
        assert!(bytes == content(300_000)[offset..], "from {offset}");
    }
    let requests = server.requests();
    assert_eq!(header(&requests[0], "range"), None);
    assert_eq!(header(&requests[1], "range"), Some("bytes=1-"));
    assert_eq!(header(&requests[0], "accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn the_end_of_a_file_is_asked_of_nobody() {
    let server = Server::start(|_| panic!("nothing is asked")).await;
    let hubs = hubs(&server);
    let fetched = fetch(&hubs, pinned(&server, 7), 7).await.expect("it begins");
    assert_eq!(taken(fetched).await, (7, Vec::new(), None));
    let empty = fetch(&hubs, pinned(&server, 0), 0).await.expect("it begins");
    assert_eq!(taken(empty).await, (0, Vec::new(), None));
    let beyond = fetch(&hubs, pinned(&server, 7), 8).await.map(|it| it.offset);
    assert!(matches!(beyond, Err(OriginError::Refused { .. })), "{beyond:?}");
}

#[tokio::test]
async fn a_place_that_ignores_the_range_begins_at_zero() {
    let server = Server::start(|_| {
        vec![head_of(200, "content-length: 1000\r\n"), Act::Send(content(1_000))]
    })
    .await;
    let fetched = fetch(&hubs(&server), pinned(&server, 1_000), 400).await.expect("it begins");
    assert_eq!(taken(fetched).await, (0, content(1_000), None));
}

#[tokio::test]
async fn a_body_without_a_length_is_counted() {
    let check = |sent: usize, want: Option<&'static str>| async move {
        let server = Server::start(move |_| vec![head_of(200, ""), Act::Send(content(sent))]).await;
        let fetched = fetch(&hubs(&server), plain(&server, 1_000), 0).await.expect("it begins");
        let (_, bytes, error) = taken(fetched).await;
        assert!(bytes.len() <= 1_000);
        match (want, error) {
            (None, None) => assert_eq!(bytes, content(1_000)),
            (Some(part), Some(OriginError::Broken { detail, .. })) => {
                assert!(detail.contains(part), "{detail}");
            }
            other => panic!("{other:?}"),
        }
    };
    check(1_000, None).await;
    check(999, Some("1 bytes too early")).await;
    check(1_001, Some("more bytes than the file has")).await;
}

/// One head of a hub for each thing that it may say otherwise than its listing did.
#[tokio::test]
async fn a_file_that_changed_at_its_hub_is_noticed() {
    let check = |headers: String, is_changed: bool| async move {
        let shown = headers.clone();
        let server = Server::start(move |request| ranged(request, &content(1_000), &headers)).await;
        for offset in [0, 10] {
            let fetched = fetch(&hubs(&server), pinned(&server, 1_000), offset).await;
            let is_refused =
                matches!(&fetched, Err(OriginError::Changed { what }) if what == "m.gguf");
            assert_eq!(is_refused, is_changed, "{shown} {:?}", fetched.map(|it| it.offset));
        }
    };
    let other = "cd".repeat(32);
    check(format!("x-repo-commit: {COMMIT}\r\nx-linked-size: 1000\r\n"), false).await;
    check(format!("x-linked-etag: \"{}\"\r\netag: \"{other}\"\r\n", sha()), false).await;
    check(format!("etag: \"{}\"\r\n", sha()), false).await;
    check(format!("x-repo-commit: {}\r\n", "f".repeat(40)), true).await;
    check("x-linked-size: 1001\r\n".to_owned(), true).await;
    check(format!("x-linked-etag: \"{other}\"\r\n"), true).await;
    check(format!("etag: W/\"{other}\"\r\n"), true).await;
}

#[tokio::test]
async fn a_file_of_another_length_is_another_file() {
    let server = Server::start(|request| ranged(request, &content(1_000), "")).await;
    for (size, offset) in [(999, 0), (1_001, 0), (999, 10), (1_001, 10), (2_000, 1_500)] {
        let fetched = fetch(&hubs(&server), plain(&server, size), offset).await;
        let error = fetched.map(|it| it.offset).expect_err("is refused");
        assert_eq!(error, OriginError::Changed { what: "m.gguf".to_owned() }, "{size} {offset}");
    }
}

#[tokio::test]
async fn the_second_half_of_a_file_belongs_to_its_first() {
    // The etag is one until somebody asks with it; a server that knows `If-Range` then sends all.
    let server = Server::start(|request| match header(request, "if-range") {
        None => ranged(request, &content(1_000), "etag: \"one\"\r\n"),
        Some("\"one\"") => vec![
            head_of(200, "etag: \"two\"\r\ncontent-length: 1000\r\n"),
            Act::Send(content(1_000)),
        ],
        Some(_) => ranged(request, &content(1_000), "etag: \"three\"\r\n"),
    })
    .await;
    let hubs = hubs(&server);
    let file = || plain(&server, 1_000);
    assert_eq!(fetch(&hubs, file(), 0).await.map(|it| it.offset), Ok(0));
    assert_eq!(fetch(&hubs, file(), 500).await.map(|it| it.offset), Ok(0));
    // It was asked with the second etag and continues a third.
    let third = fetch(&hubs, file(), 500).await.map(|it| it.offset);
    assert!(matches!(third, Err(OriginError::Changed { .. })), "{third:?}");
}

#[tokio::test]
async fn a_small_file_is_compared_by_its_git_hash() {
    let etag = |byte: &str| format!("etag: \"{}\"\r\n", byte.repeat(20));
    for (byte, is_same) in [("cd", true), ("ef", false)] {
        let headers = etag(byte);
        let server = Server::start(move |request| ranged(request, &content(100), &headers)).await;
        let file = OriginFile { digest: Some(Digest::GitSha1([0xcd; 20])), ..pinned(&server, 100) };
        assert_eq!(fetch(&hubs(&server), file, 0).await.is_ok(), is_same, "{byte}");
    }
}

#[tokio::test]
async fn the_token_is_shown_to_its_own_hub_alone() {
    let server = Server::start(|request| ranged(request, &content(100), "")).await;
    let other = Server::start(|request| ranged(request, &content(100), "")).await;
    let hubs = with_token(&server);
    for file in [pinned(&server, 100), pinned(&other, 100)] {
        let fetched = fetch(&hubs, file, 0).await.expect("it begins");
        assert_eq!(taken(fetched).await.1.len(), 100);
    }
    let shown = header(&server.requests()[0], "authorization").map(str::to_owned);
    assert_eq!(shown.as_deref(), Some("Bearer hf_secret_token"));
    assert_eq!(header(&other.requests()[0], "authorization"), None);
}

/// Nothing is read ahead: a file of a gigabyte whose bytes nobody takes stays where it is.
#[tokio::test]
async fn bytes_that_nobody_takes_are_not_read() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::AsyncWriteExt as _;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        crate::support::read(&mut stream).await.expect("a request");
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("it reads the head");
        let piece = vec![7; 64 * 1024];
        while stream.write_all(&piece).await.is_ok() {
            counter.fetch_add(piece.len(), Ordering::Relaxed);
        }
    });
    let quiet = Server::start(|_| Vec::new()).await;
    let url = format!("http://127.0.0.1:{port}/x");
    let file = OriginFile { url, ..pinned(&quiet, 1 << 30) };
    let mut fetched = fetch(&hubs(&quiet), file, 0).await.expect("it begins");
    let first = fetched.bytes.next().await.expect("comes").expect("is well");
    assert!(first.len() <= 256 * 1024, "{}", first.len());
    // The kernels of both sides buffer some megabytes; then the server stands still.
    let mut before = usize::MAX;
    while before != sent.load(Ordering::Relaxed) {
        before = sent.load(Ordering::Relaxed);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert!(before < 64 << 20, "{before} bytes were taken from the server");
    drop(fetched);
    serving.await.expect("the server sees that nobody reads any more");
}
