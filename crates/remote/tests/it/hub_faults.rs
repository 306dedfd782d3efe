//! Hubs that refuse, break off, lie, or never end.

use std::time::Duration;

use commons_port::hub::{Digest, OriginError, Source};
use commons_record::Millis;
use commons_remote::HubLimits;
use serde_json::json;

use crate::hub_support::{
    COMMIT, config, content, fetch, head_of, hubs, info, large, limits, list, pinned, plain,
    ranged, repo, sha, taken, with, with_token,
};
use crate::support::{Act, Server, ok, status};

#[tokio::test]
async fn a_refusal_is_told_by_what_its_caller_can_do() {
    let check = |number: u16, headers: &'static str, want: OriginError| async move {
        let server = Server::start(move |_| {
            vec![status(number, headers, r#"{"error":"no: hf_secret_token"}"#)]
        })
        .await;
        let host = server.addr.to_string();
        let want = match want {
            OriginError::Busy { after_ms, .. } => {
                OriginError::Busy { host: host.clone(), after_ms }
            }
            other => other,
        };
        let hubs = with_token(&server);
        let found = list(&hubs, repo(None)).await.expect_err("is refused");
        let is_same = std::mem::discriminant(&found) == std::mem::discriminant(&want);
        assert!(is_same, "{number} {headers}: {found:?}");
        if matches!(want, OriginError::Busy { .. } | OriginError::NotFound { .. }) {
            assert_eq!(found, want);
        }
        assert!(!found.to_string().contains("hf_secret"), "{found}");
        let fetched = fetch(&hubs, pinned(&server, 10), 0).await.map(|it| it.offset);
        let fetched = fetched.expect_err("is refused");
        assert_eq!(std::mem::discriminant(&fetched), std::mem::discriminant(&want), "{fetched:?}");
    };
    let what = || String::from("hf:org/repo");
    let (host, detail) = (String::new, String::new);
    let busy = |after_ms| OriginError::Busy { host: host(), after_ms };
    let missing = |what: &str| OriginError::NotFound { what: what.to_owned() };
    check(429, "retry-after: 7\r\n", busy(7_000)).await;
    check(429, "ratelimit: \"api\";r=0;t=55\r\n", busy(55_000)).await;
    check(503, "", busy(30_000)).await;
    check(401, "", OriginError::Unauthorised { what: what() }).await;
    check(403, "x-error-code: GatedRepo\r\n", OriginError::Unauthorised { what: what() }).await;
    check(404, "", missing("hf:org/repo")).await;
    check(401, "x-error-code: RepoNotFound\r\n", missing("hf:org/repo, or it is private: it"))
        .await;
    check(404, "x-error-code: RevisionNotFound\r\n", missing("the revision of hf:org/repo")).await;
    check(404, "x-error-code: EntryNotFound\r\n", missing("the file of hf:org/repo")).await;
    check(500, "", OriginError::Broken { host: host(), detail: detail() }).await;
    check(502, "", OriginError::Broken { host: host(), detail: detail() }).await;
    check(418, "", OriginError::Refused { what: what(), detail: detail() }).await;
}

#[tokio::test]
async fn a_place_that_is_not_there_may_be_asked_again() {
    let gone = Server::start(|_| Vec::new()).await;
    let (config, file) = (config(&gone), pinned(&gone, 10));
    drop(gone);
    let hubs = with(config);
    let error = fetch(&hubs, file, 0).await.map(|it| it.offset).expect_err("nobody is there");
    assert!(matches!(error, OriginError::Unreachable { .. }) && error.is_temporary(), "{error:?}");
}

#[tokio::test]
async fn a_body_that_breaks_off_keeps_what_came() {
    let server =
        Server::start(|_| vec![head_of(200, "content-length: 1000\r\n"), Act::Send(content(600))])
            .await;
    let fetched = fetch(&hubs(&server), pinned(&server, 1_000), 0).await.expect("it begins");
    let (_, bytes, error) = taken(fetched).await;
    assert_eq!(bytes, content(600));
    assert!(
        matches!(&error, Some(it @ OriginError::Broken { .. }) if it.is_temporary()),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_range_that_was_not_asked_for_is_refused() {
    let check = |head: &'static str, want: &'static str| async move {
        let server =
            Server::start(move |_| vec![head_of(206, head), Act::Send(content(500))]).await;
        let fetched = fetch(&hubs(&server), plain(&server, 1_000), 500).await;
        let error = fetched.map(|it| it.offset).expect_err(head).to_string();
        assert!(error.contains(want), "{head}: {error}");
    };
    check("content-range: bytes 0-499/1000\r\ncontent-length: 500\r\n", "from 500 on").await;
    check("content-range: bytes 501-999/1000\r\ncontent-length: 499\r\n", "from 500 on").await;
    check("content-range: bytes 500-899/1000\r\ncontent-length: 400\r\n", "all bytes").await;
    check("content-range: bytes 500-998/999\r\ncontent-length: 499\r\n", "changed").await;
    check("content-range: bytes 500-1999/2000\r\ncontent-length: 500\r\n", "changed").await;
    check("content-range: bytes 500-999/1000\r\ncontent-length: 499\r\n", "not that of its").await;
    check("content-range: bytes */1000\r\ncontent-length: 500\r\n", "is none").await;
    check("content-length: 500\r\n", "is none").await;
    check(
        "content-range: bytes 500-999/1000\r\ncontent-encoding: gzip\r\ncontent-length: 500\r\n",
        "packs",
    )
    .await;
    // And one where no range was asked for at all.
    let server = Server::start(|_| vec![head_of(206, "content-length: 0\r\n")]).await;
    let fetched = fetch(&hubs(&server), plain(&server, 1_000), 0).await.map(|it| it.offset);
    assert!(matches!(fetched, Err(OriginError::Refused { .. })), "{fetched:?}");
}

#[tokio::test]
async fn heads_that_are_huge_slow_or_none_end() {
    let quick = HubLimits { head: Millis(300), listing: Millis(600), ..limits() };
    let check = |acts: Vec<Act>| async move {
        let server = Server::start(move |_| acts.clone()).await;
        let hubs = with(config(&server).with_limits(quick));
        let error = fetch(&hubs, pinned(&server, 10), 0).await.map(|it| it.offset);
        assert!(error.as_ref().is_err_and(OriginError::is_temporary), "{error:?}");
        let error = list(&hubs, repo(None)).await;
        assert!(error.as_ref().is_err_and(OriginError::is_temporary), "{error:?}");
    };
    let line = format!("x: {}\r\n", "y".repeat(1_000));
    check(vec![head_of(200, &line.repeat(1_000))]).await;
    check(vec![head_of(200, &"x: y\r\n".repeat(5_000))]).await;
    check(vec![Act::Send(vec![b'x'; 1 << 20])]).await;
    check(Vec::new()).await;
    check(vec![Act::Hang]).await;
    // A byte of the head at a time, for longer than anybody waits.
    let mut drops = vec![Act::Send(b"HTTP/1.1 200 OK\r\nx: ".to_vec())];
    for _ in 0..40 {
        drops.extend([Act::Wait(Duration::from_millis(50)), Act::Send(b"y".to_vec())]);
    }
    check(drops).await;
}

#[tokio::test]
async fn a_body_that_trickles_ends() {
    let server = Server::start(|_| {
        let mut acts = vec![head_of(200, "content-length: 1000000\r\n")];
        for _ in 0..100 {
            acts.extend([Act::Send(vec![7; 10]), Act::Wait(Duration::from_millis(50))]);
        }
        acts
    })
    .await;
    let quick = HubLimits { idle: Millis(500), ..limits() };
    let hubs = with(config(&server).with_limits(quick));
    let fetched = fetch(&hubs, pinned(&server, 1_000_000), 0).await.expect("it begins");
    let (_, bytes, error) = taken(fetched).await;
    assert!(!bytes.is_empty() && bytes.len() < 900, "{}", bytes.len());
    let error = error.expect("it ends");
    assert!(error.to_string().contains("within 500 ms") && error.is_temporary(), "{error}");
}

#[tokio::test]
async fn a_listing_that_is_too_long_or_no_listing_is_refused() {
    let check = |body: String, want: &'static str| async move {
        let server = Server::start(move |_| vec![status(200, "", &body)]).await;
        let small = HubLimits { listing_bytes: 100_000, files: 100, ..limits() };
        let error = list(&with(config(&server).with_limits(small)), repo(None)).await;
        let error = error.expect_err("is refused").to_string();
        assert!(error.contains(want), "{error}");
    };
    let listed = |siblings: serde_json::Value| info(&siblings).to_string();
    check(String::new(), "no JSON").await;
    check("<html>".to_owned(), "no JSON").await;
    check("[".repeat(50_000), "no JSON").await;
    check(r#"{"siblings":[]}"#.to_owned(), "no JSON").await;
    check(json!({ "sha": "main", "siblings": [] }).to_string(), "no commit").await;
    check(json!({ "sha": "F".repeat(40) }).to_string(), "no commit").await;
    check(listed(json!([{ "rfilename": 7 }])), "no JSON").await;
    check(listed(json!([{ "rfilename": "a", "size": -1 }])), "no JSON").await;
    check(listed(json!([{ "rfilename": "a", "size": 1.5 }])), "no JSON").await;
    check(listed(json!([{ "rfilename": "a", "lfs": { "sha256": "x", "size": 1 } }])), "no SHA-256")
        .await;
    check(listed(json!([large("a", 1), large("a", 1)])), "twice").await;
    check(
        listed(json!((0..101).map(|it| large(&it.to_string(), 1)).collect::<Vec<_>>())),
        "more than 100",
    )
    .await;
    check(" ".repeat(100_001), "more than 100000 bytes").await;
}

#[tokio::test]
async fn a_listing_without_end_is_cut_off() {
    let server = Server::start(|_| {
        let mut acts = vec![head_of(200, "content-type: application/json\r\n")];
        acts.extend(vec![Act::Send(vec![b' '; 1 << 20]); 64]);
        acts
    })
    .await;
    let error = list(&hubs(&server), repo(None)).await.expect_err("is refused");
    assert!(matches!(error, OriginError::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn a_path_that_leaves_its_folder_refuses_the_whole_listing() {
    for path in ["../x", "/etc/passwd", "a/../../x", "a\\..\\x", "C:x", "", "a//b", "a\u{0}b", "."]
    {
        let siblings = json!([large("good.gguf", 1), large(path, 1)]);
        let body = info(&siblings);
        let server = Server::start(move |_| vec![ok(&body)]).await;
        let error = list(&hubs(&server), repo(None)).await.expect_err(path);
        assert!(matches!(&error, OriginError::Refused { .. }), "{path:?}: {error:?}");
        assert!(error.to_string().contains("goes down only"), "{error}");
    }
}

#[tokio::test]
async fn a_size_of_ten_terabytes_costs_nothing_until_its_bytes_come() {
    let size = 10_u64 << 40;
    let body = info(&json!([large("m.gguf", size)]));
    let server = Server::start(move |request| match request.path.as_str() {
        "/api/models/org/repo/revision/main?blobs=true" => vec![ok(&body)],
        _ => vec![head_of(200, &format!("content-length: {size}\r\n")), Act::Send(content(5_000))],
    })
    .await;
    let hubs = hubs(&server);
    let listing = list(&hubs, repo(None)).await.expect("it is listed");
    assert_eq!(listing.files[0].size, size);
    let fetched = fetch(&hubs, listing.files[0].clone(), 0).await.expect("it begins");
    let (_, bytes, error) = taken(fetched).await;
    assert_eq!(bytes.len(), 5_000);
    assert!(matches!(error, Some(OriginError::Broken { .. })), "{error:?}");
    // One that no blob can have is refused at once.
    let body = info(&json!([large("m.gguf", u64::MAX)]));
    let server = Server::start(move |_| vec![ok(&body)]).await;
    let error = list(&crate::hub_support::hubs(&server), repo(None)).await;
    assert!(matches!(error, Err(OriginError::Refused { .. })), "{error:?}");
}

#[tokio::test]
async fn a_manifest_that_is_none_is_refused() {
    let check = |body: String, want: &'static str| async move {
        let server = Server::start(move |_| vec![status(200, "", &body)]).await;
        let source = Source::Ollama { name: "a".to_owned(), tag: None };
        let error = list(&hubs(&server), source).await.expect_err("is refused").to_string();
        assert!(error.contains(want), "{error}");
    };
    let layer = |digest: &str, size: u64| {
        json!({ "layers": [{ "mediaType": "x", "digest": digest, "size": size }] }).to_string()
    };
    check("{}".to_owned(), "no manifest").await;
    check("null".to_owned(), "no manifest").await;
    check(layer("sha256:../../x", 1), "no digest").await;
    check(layer(&format!("sha512:{}", sha()), 1), "no digest").await;
    check(layer(&format!("sha256:{}", sha()), u64::MAX), "more than").await;
}

#[tokio::test]
async fn a_hub_that_is_busy_twice_and_breaks_once_gives_the_file_in_the_end() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    let count = AtomicUsize::new(0);
    let server = Server::start(move |request| match count.fetch_add(1, Ordering::Relaxed) {
        0 => vec![status(429, "retry-after: 0\r\n", "")],
        1 => vec![head_of(200, "content-length: 1000\r\n"), Act::Send(content(300))],
        2 => vec![status(503, "retry-after: 0\r\n", "")],
        _ => ranged(request, &content(1_000), &format!("x-repo-commit: {COMMIT}\r\n")),
    })
    .await;
    let (hubs, mut kept, mut asked) = (hubs(&server), Vec::new(), 0);
    while kept.len() < 1_000 {
        asked += 1;
        assert!(asked < 10, "it does not end");
        match fetch(&hubs, pinned(&server, 1_000), kept.len() as u64).await {
            Ok(fetched) => {
                let (offset, bytes, _) = taken(fetched).await;
                assert_eq!(offset, kept.len() as u64);
                kept.extend(bytes);
            }
            Err(error) => assert!(error.is_temporary(), "{error}"),
        }
    }
    assert_eq!((kept, asked), (content(1_000), 4));
}

#[tokio::test]
async fn an_address_that_is_not_safe_is_asked_for_nothing() {
    let server = Server::start(|_| panic!("nothing is asked")).await;
    let hubs = hubs(&server);
    for url in ["http://192.168.1.1/x", "http://example.org/x", "ftp://h/x", "", "https://a b/"] {
        let digest = Digest::Sha256([1; 32]);
        let error = list(&hubs, Source::Url { url: url.to_owned(), digest }).await;
        assert!(matches!(error, Err(OriginError::Refused { .. })), "{url}: {error:?}");
        let mut file = pinned(&server, 10);
        url.clone_into(&mut file.url);
        let error = fetch(&hubs, file, 0).await.map(|it| it.offset);
        assert!(matches!(error, Err(OriginError::Refused { .. })), "{url}: {error:?}");
    }
}
