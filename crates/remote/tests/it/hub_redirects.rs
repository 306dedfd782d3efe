//! Hubs keep large files elsewhere: what is followed, and what goes along.

use std::sync::Arc;

use commons_port::hub::OriginError;

use crate::hub_support::{
    COMMIT, config, content, fetch, head_of, header, hubs, info, large, list, pinned, ranged, repo,
    sha, taken, with, with_token,
};
use crate::support::{Act, Server, ok};

fn to(location: &str, headers: &str) -> Vec<Act> {
    vec![head_of(302, &format!("location: {location}\r\n{headers}content-length: 0\r\n"))]
}

#[tokio::test]
async fn a_file_elsewhere_is_fetched_there_and_the_token_is_not_taken_along() {
    let store =
        Server::start(|request| ranged(request, &content(1_000), "etag: \"x-9\"\r\n")).await;
    let target = format!("{}/blob?Signature=abc", store.url());
    let head = format!(
        "x-repo-commit: {COMMIT}\r\nx-linked-size: 1000\r\nx-linked-etag: \"{}\"\r\n",
        sha()
    );
    let server = Server::start(move |_| to(&target, &head)).await;
    let hubs = with_token(&server);
    for offset in [0, 400] {
        let fetched = fetch(&hubs, pinned(&server, 1_000), offset).await.expect("it begins");
        let (from, bytes, error) = taken(fetched).await;
        assert_eq!((from, error), (offset, None));
        assert_eq!(bytes.len() as u64, 1_000 - offset);
    }
    assert!(server.requests().iter().all(|it| header(it, "authorization").is_some()));
    let there = store.requests();
    assert_eq!(there[1].path, "/blob?Signature=abc");
    assert_eq!(header(&there[1], "range"), Some("bytes=400-"));
    assert!(there.iter().all(|it| header(it, "authorization").is_none()), "{there:?}");
}

#[tokio::test]
async fn what_a_redirect_says_of_the_file_is_checked() {
    let store = Server::start(|request| ranged(request, &content(1_000), "")).await;
    let check = |head: String| {
        let target = format!("{}/blob", store.url());
        async move {
            let server = Server::start(move |_| to(&target, &head)).await;
            let fetched = fetch(&hubs(&server), pinned(&server, 1_000), 0).await;
            fetched.map(|it| it.offset).expect_err("is refused")
        }
    };
    let changed = OriginError::Changed { what: "m.gguf".to_owned() };
    assert_eq!(check("x-linked-size: 5\r\n".to_owned()).await, changed);
    assert_eq!(check(format!("x-linked-etag: \"{}\"\r\n", "0".repeat(64))).await, changed);
    assert_eq!(check(format!("x-repo-commit: {}\r\n", "0".repeat(40))).await, changed);
}

#[tokio::test]
async fn a_repository_that_was_renamed_is_found_with_the_token() {
    let server = Server::start(|request| match request.path.as_str() {
        "/api/models/org/repo/revision/main?blobs=true" => {
            to("/api/models/new/repo/revision/main?blobs=true", "")
        }
        _ => vec![ok(&info(&serde_json::json!([large("a", 1)])))],
    })
    .await;
    let listing = list(&with_token(&server), repo(None)).await.expect("it is listed");
    assert_eq!(listing.files.len(), 1);
    let requests = server.requests();
    assert_eq!(requests[1].path, "/api/models/new/repo/revision/main?blobs=true");
    assert!(requests.iter().all(|it| header(it, "authorization").is_some()));
}

#[tokio::test]
async fn a_token_does_not_come_back_after_a_redirect_led_elsewhere() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let back = format!("http://{}/back", listener.local_addr().expect("it is bound"));
    let elsewhere = Server::start(move |_| to(&back, "")).await;
    let target = format!("{}/elsewhere", elsewhere.url());
    let server = Server::on(listener, move |request| match request.path.as_str() {
        "/back" => ranged(request, &content(10), ""),
        _ => to(&target, ""),
    });
    let fetched = fetch(&with_token(&server), pinned(&server, 10), 0).await.expect("it begins");
    assert_eq!(taken(fetched).await.1, content(10));
    let requests = server.requests();
    assert!(header(&requests[0], "authorization").is_some());
    assert_eq!(requests[1].path, "/back");
    assert_eq!(header(&requests[1], "authorization"), None);
    assert!(elsewhere.requests().iter().all(|it| header(it, "authorization").is_none()));
}

#[tokio::test]
async fn a_ring_of_redirects_ends() {
    let server = Server::start(|_| to("/again", "")).await;
    let error = fetch(&hubs(&server), pinned(&server, 10), 0).await.map(|it| it.offset);
    let error = error.expect_err("is refused");
    assert!(!error.is_temporary(), "{error}");
    assert!(error.to_string().contains("more than 5 times"), "{error}");
    assert_eq!(server.requests().len(), 6);
}

#[tokio::test]
async fn a_redirect_leads_to_https_or_stays_on_this_machine() {
    for location in [
        "http://example.org/x",
        "http://192.168.1.1/x",
        "http://8.8.8.8/x",
        "ftp://example.org/x",
        "file:///etc/passwd",
        "http://",
        "nowhere",
        "",
    ] {
        let server = Server::start(move |_| to(location, "")).await;
        let error = fetch(&hubs(&server), pinned(&server, 10), 0).await.map(|it| it.offset);
        assert!(matches!(error, Err(OriginError::Refused { .. })), "{location:?}: {error:?}");
        assert_eq!(server.requests().len(), 1);
    }
}

/// The hub is behind TLS here, and its certificate is checked like that of an engine.
#[tokio::test]
async fn a_hub_behind_tls_does_not_redirect_into_the_clear() {
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio::io::AsyncWriteExt as _;

    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("is made");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.key_pair.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("has versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("is a certificate");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let clear = Server::start(|request| ranged(request, &content(10), "")).await;
    let target = format!("{}/x", clear.url());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let Some(request) = crate::support::read(&mut stream).await else { continue };
            let acts = if request.path.ends_with("clear") {
                to(&target, "")
            } else {
                ranged(&request, &content(10), "")
            };
            for act in acts {
                let Act::Send(bytes) = act else { continue };
                let _ = stream.write_all(&bytes).await;
            }
            let _ = stream.shutdown().await;
        }
    });
    let trust = |der: Vec<u8>| commons_remote::Trust::Only(vec![der]);
    let believed = with(config(&clear).with_trust(trust(made.cert.der().to_vec())));
    let at = |path: &str| commons_port::hub::OriginFile {
        url: format!("https://localhost:{port}/{path}"),
        ..pinned(&clear, 10)
    };
    let fetched = fetch(&believed, at("file"), 0).await.expect("it begins");
    assert_eq!(taken(fetched).await.1, content(10));
    let error = fetch(&believed, at("clear"), 0).await.map(|it| it.offset);
    assert!(matches!(error, Err(OriginError::Refused { .. })), "{error:?}");
    assert!(clear.requests().is_empty());
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("is made");
    let wary = with(config(&clear).with_trust(trust(other.cert.der().to_vec())));
    let error = fetch(&wary, at("file"), 0).await.map(|it| it.offset);
    assert!(matches!(error, Err(OriginError::Unreachable { .. })), "{error:?}");
}
