//! Bytes of the hub: whole, in part, in crowds, and when they fail to come.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use commons_gateway::{GatewayConfig, ServeLimits, bind_tcp, router, serve_tcp};
use commons_port::hub::{Hub, HubError, Repo, RepoFile, RepoKind};
use commons_port::{BoxFuture, BoxStream};
use futures::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::fake::{FakeNode, state};
use crate::hub::{shelf, with_hub};
use crate::shelf::{Sha, Shelf};

const MODEL: &str = "/org/stories/resolve/main/model.safetensors";

/// How a read goes.
#[derive(Clone)]
enum Script {
    /// An error, after these bytes.
    Fail(u64, HubError),
    /// The end, after these bytes.
    End(u64),
    /// Nothing for ever, after these bytes.
    Hang(u64),
    /// More than was asked for.
    Long,
    /// All of it, once a permit is there.
    Wait(Arc<Semaphore>),
    /// A catalogue that never answers.
    Silent,
}

/// A shelf that reads as its script says, and counts the bytes that were taken.
struct Odd {
    shelf: Shelf,
    script: Mutex<Script>,
    taken: Arc<AtomicU64>,
}

impl Odd {
    fn new(shelf: Shelf, script: Script) -> Arc<Self> {
        Arc::new(Self { shelf, script: Mutex::new(script), taken: Arc::default() })
    }

    fn app(self: &Arc<Self>, config: GatewayConfig) -> Router {
        router(state(&FakeNode::new([]), config).with_hub(Arc::clone(self) as Arc<dyn Hub>))
    }
}

impl Hub for Odd {
    fn repo(
        &self,
        kind: RepoKind,
        id: String,
        revision: String,
    ) -> BoxFuture<'static, Result<Repo, HubError>> {
        if matches!(*self.script.lock().unwrap(), Script::Silent) {
            return Box::pin(std::future::pending());
        }
        self.shelf.repo(kind, id, revision)
    }

    fn search(
        &self,
        kind: RepoKind,
        query: String,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Repo>, HubError>> {
        self.shelf.search(kind, query, limit)
    }

    fn read(
        &self,
        file: RepoFile,
        offset: u64,
        len: u64,
    ) -> BoxStream<'static, Result<Bytes, HubError>> {
        let read = |len| self.shelf.read(file.clone(), offset, len);
        let taken = Arc::clone(&self.taken);
        let chunks = match self.script.lock().unwrap().clone() {
            Script::Fail(after, error) => read(after).chain(stream::iter([Err(error)])).boxed(),
            Script::End(after) => read(after),
            Script::Hang(after) => read(after).chain(stream::pending()).boxed(),
            Script::Long => stream::iter([Ok(Bytes::from(vec![0; 1_000_000]))]).boxed(),
            Script::Wait(permits) => {
                let all = read(len);
                let gate = async move { permits.acquire().await.unwrap().forget() };
                stream::once(gate).flat_map(move |()| stream::empty()).chain(all).boxed()
            }
            Script::Silent => stream::pending().boxed(),
        };
        let count = move |chunk: &Result<Bytes, HubError>| {
            let size = chunk.as_ref().map_or(0, Bytes::len);
            taken.fetch_add(u64::try_from(size).unwrap(), Ordering::SeqCst);
        };
        chunks.inspect(count).boxed()
    }
}

struct Got {
    status: StatusCode,
    headers: HeaderMap,
    /// None: it broke off.
    body: Option<Bytes>,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

async fn fetch(app: &Router, path: &str, headers: &[(&'static str, &str)]) -> Got {
    let mut request = Request::get(path).header("host", "localhost").body(Body::empty()).unwrap();
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    let (parts, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    let body = to_bytes(body, usize::MAX).await.ok();
    Got { status: parts.status, headers: parts.headers, body }
}

fn unavailable() -> HubError {
    HubError::Unavailable { what: "model.safetensors".into(), detail: "no peer has it".into() }
}

fn denied() -> HubError {
    let rule = "the denylist of the house names it".into();
    HubError::Denied { what: "model.safetensors".into(), rule }
}

#[tokio::test]
async fn a_file_comes_with_what_tools_insist_on() {
    let app = with_hub(shelf());
    let sha256 = "\"84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882\"";
    let got = fetch(&app, MODEL, &[]).await;
    assert_eq!((got.status, got.body.as_deref()), (StatusCode::OK, Some(&b"0123456789"[..])));
    let expected = [
        ("etag", sha256),
        ("x-linked-etag", sha256),
        ("x-linked-size", "10"),
        ("content-length", "10"),
        ("accept-ranges", "bytes"),
        ("content-type", "application/octet-stream"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "sandbox; default-src 'none'"),
        ("content-encoding", ""),
        ("location", ""),
        ("x-xet-hash", ""),
        ("link", ""),
    ];
    for (name, value) in expected {
        assert_eq!(got.header(name), value, "{name}");
    }
    assert_eq!(got.header("x-repo-commit").len(), 40);
    let got = fetch(&app, "/org/stories/raw/main/onnx/a%20b.bin", &[]).await;
    assert_eq!(
        got.header("content-disposition"),
        "attachment; filename*=UTF-8''a%20b.bin; filename=\"a_b.bin\";"
    );
    let got = fetch(&app, "/org/stories/resolve/1.0.0/config.json", &[]).await;
    assert_eq!(got.header("etag").len(), 42, "forty digits and two quotes");
    let got = fetch(&app, "/datasets/org/stories/resolve/main/train.jsonl", &[]).await;
    assert_eq!(got.body.as_deref(), Some(&b"[]"[..]));
    let got = fetch(&app, "/org/stories/resolve/main/empty", &[]).await;
    assert_eq!((got.header("content-length"), got.body.as_deref()), ("0", Some(&b""[..])));
}

#[tokio::test]
async fn a_range_is_sent_as_it_was_asked_for() {
    let app = with_hub(shelf());
    let cases = [
        ("bytes=0-0", 206, "bytes 0-0/10", "0"),
        ("bytes=3-5", 206, "bytes 3-5/10", "345"),
        ("bytes=7-", 206, "bytes 7-9/10", "789"),
        ("bytes=-2", 206, "bytes 8-9/10", "89"),
        ("bytes=0-99", 206, "bytes 0-9/10", "0123456789"),
        ("bytes=0-1,3-4", 200, "", "0123456789"),
        ("bytes=9-3", 200, "", "0123456789"),
        ("lines=1-2", 200, "", "0123456789"),
    ];
    for (range, status, content_range, body) in cases {
        let got = fetch(&app, MODEL, &[("range", range)]).await;
        assert_eq!(got.status, status, "{range}");
        assert_eq!(got.header("content-range"), content_range, "{range}");
        assert_eq!(got.body.as_deref(), Some(body.as_bytes()), "{range}");
        assert_eq!(got.header("content-length"), body.len().to_string(), "{range}");
        assert_eq!(got.header("x-linked-size"), "10");
    }
    for range in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999-"] {
        let got = fetch(&app, MODEL, &[("range", range)]).await;
        assert_eq!(
            (got.status.as_u16(), got.header("content-range")),
            (416, "bytes */10"),
            "{range}"
        );
    }
    let etag = fetch(&app, MODEL, &[]).await.header("etag").to_owned();
    let got = fetch(&app, MODEL, &[("range", "bytes=1-2"), ("if-range", &etag)]).await;
    assert_eq!(got.status, 206);
    let got = fetch(&app, MODEL, &[("range", "bytes=1-2"), ("if-range", "\"other\"")]).await;
    assert_eq!((got.status.as_u16(), got.body.unwrap().len()), (200, 10));
    let got = fetch(&app, MODEL, &[("if-none-match", &etag)]).await;
    assert_eq!((got.status.as_u16(), got.body.as_ref().unwrap().len()), (304, 0));
    assert_eq!(got.header("etag"), etag);
}

#[tokio::test(start_paused = true)]
async fn what_fails_before_the_first_byte_has_a_status() {
    let cases = [
        (Script::Fail(0, denied()), 403, "GatedRepo", ""),
        (Script::Fail(0, unavailable()), 503, "", "5"),
        (Script::End(0), 503, "", "5"),
        (Script::Long, 503, "", "5"),
        (Script::Silent, 503, "", "5"),
    ];
    for (script, status, code, retry_after) in cases {
        let app = Odd::new(shelf(), script).app(GatewayConfig::default());
        let got = fetch(&app, MODEL, &[]).await;
        assert_eq!((got.status.as_u16(), got.header("x-error-code")), (status, code));
        assert_eq!(got.header("retry-after"), retry_after);
        assert!(got.header("x-error-message").len() > 10);
    }
    let app = Odd::new(shelf(), Script::Fail(0, denied())).app(GatewayConfig::default());
    let got = fetch(&app, MODEL, &[]).await;
    assert!(got.header("x-error-message").contains("denylist of the house"));
}

#[tokio::test(start_paused = true)]
async fn what_fails_after_the_first_byte_is_seen_to_be_cut() {
    for script in [Script::Fail(4, unavailable()), Script::End(4), Script::Hang(4), Script::Hang(0)]
    {
        let app = Odd::new(shelf(), script).app(GatewayConfig::default());
        let got = fetch(&app, MODEL, &[]).await;
        assert_eq!((got.status.as_u16(), got.header("content-length")), (200, "10"));
        assert_eq!(got.body, None, "the body is an error");
    }
}

#[tokio::test]
async fn bytes_that_come_late_come_all_the_same() {
    tokio::time::pause();
    let permits = Arc::new(Semaphore::new(0));
    let app = Odd::new(shelf(), Script::Wait(Arc::clone(&permits))).app(GatewayConfig::default());
    let late = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        permits.add_permits(1);
    };
    let (got, ()) = tokio::join!(fetch(&app, MODEL, &[]), late);
    assert_eq!((got.status.as_u16(), got.body.as_deref()), (200, Some(&b"0123456789"[..])));
}

#[tokio::test(start_paused = true)]
async fn of_five_hundred_ranges_some_are_served_and_the_others_told_when_to_come() {
    let permits = Arc::new(Semaphore::new(0));
    let odd = Odd::new(shelf(), Script::Wait(Arc::clone(&permits)));
    let config = GatewayConfig { hub_reads_max: 32, ..GatewayConfig::default() };
    let app = odd.app(config);
    let release = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        permits.add_permits(500);
    };
    let asks = (0..500).map(|_| fetch(&app, MODEL, &[("range", "bytes=2-5")]));
    let (got, ()) = tokio::join!(futures::future::join_all(asks), release);
    let (served, refused): (Vec<_>, Vec<_>) = got.iter().partition(|got| got.status == 206);
    assert_eq!((served.len(), refused.len()), (32, 468));
    assert!(served.iter().all(|got| got.body.as_deref() == Some(b"2345")));
    for got in refused {
        assert_eq!((got.status.as_u16(), got.header("retry-after")), (429, "1"));
    }
    let again = fetch(&app, MODEL, &[("range", "bytes=2-5")]).await;
    assert_eq!(again.status, 206, "every permit came back");
}

/// A file of many chunks, and a server for it.
async fn serve(script: Script) -> (Arc<Odd>, TcpStream) {
    let mut shelf = Shelf::default();
    let bytes = Bytes::from(vec![7; 64 * 1024 * 1024]);
    shelf.add(RepoKind::Model, "org/large", vec![("m".into(), bytes, Sha::Unknown)]);
    let odd = Odd::new(shelf, script);
    let listener = bind_tcp("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let app = odd.app(GatewayConfig::default());
    tokio::spawn(serve_tcp(listener, app, ServeLimits::default(), std::future::pending()));
    let mut client = TcpStream::connect(addr).await.unwrap();
    let request = "GET /org/large/resolve/main/m HTTP/1.1\r\nhost: localhost\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    (odd, client)
}

#[tokio::test]
async fn a_client_that_stops_reading_takes_no_more_than_the_sockets_hold() {
    let (odd, mut client) = serve(Script::End(u64::MAX)).await;
    client.read_exact(&mut [0; 4096]).await.unwrap();
    let (mut last, mut read) = (0, Vec::new());
    // Until nothing moves any more: the sockets' own buffers are full.
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let taken = odd.taken.load(Ordering::SeqCst);
        if taken == last {
            break;
        }
        last = taken;
    }
    assert!(last < 16 * 1024 * 1024, "{last} of 64 MiB were taken for a client that does not read");
    let rest = 64 * 1024 * 1024 - 4096;
    client.take(rest).read_to_end(&mut read).await.unwrap();
    assert_eq!(read.len() as u64, rest, "and it comes when it is read");
}

#[tokio::test]
async fn a_body_that_breaks_off_ends_the_connection_short() {
    let (_odd, mut client) = serve(Script::Fail(3 * 1024 * 1024, unavailable())).await;
    let mut read = Vec::new();
    // A reset is as good as an end: either way the length does not add up.
    let _ = client.read_to_end(&mut read).await;
    let text = String::from_utf8_lossy(&read[..1024]);
    assert!(text.contains("content-length: 67108864"), "{text}");
    assert!(read.len() < 4 * 1024 * 1024, "{}", read.len());
}
