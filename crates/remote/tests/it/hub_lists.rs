//! What places outside have.

use commons_port::hub::{Digest, Origin as _, OriginError, RepoKind, Source};
use commons_remote::Offline;
use serde_json::{Value, json};

use crate::hub_support::{
    COMMIT, config, content, fetch, head_of, header, hubs, info, large, limits, list, pinned,
    ranged, repo, sha, taken, with,
};
use crate::support::{Act, Server, ok, status};

#[tokio::test]
async fn a_repository_is_listed_at_a_commit() {
    let server = Server::start(|request| match request.path.as_str() {
        "/api/models/org/repo/revision/refs%2Fpr%2F1?blobs=true" => vec![ok(&info(&json!([
            large("model-Q4_K_M.gguf", 7_000_000_000),
            { "rfilename": "a b/config.json", "size": 12, "blobId": "cd".repeat(20) },
        ])))],
        path => panic!("asked for {path}"),
    })
    .await;
    let Source::HuggingFace { kind, repo, file, .. } = repo(None) else { panic!("it is one") };
    let source = Source::HuggingFace { kind, repo, revision: Some("refs/pr/1".to_owned()), file };
    let listing = list(&hubs(&server), source).await.expect("it is listed");
    assert_eq!(listing.revision, COMMIT);
    assert_eq!(listing.licence.as_deref(), Some("Apache-2.0"));
    assert_eq!(listing.base_models, ["org/base"]);
    let [config, model] = listing.files.as_slice() else { panic!("{listing:?}") };
    assert_eq!((config.path.as_str(), config.size), ("a b/config.json", 12));
    assert_eq!(config.digest, Some(Digest::GitSha1([0xcd; 20])));
    let resolve = format!("{}/org/repo/resolve/{COMMIT}", server.url());
    assert_eq!(config.url, format!("{resolve}/a%20b/config.json"));
    assert_eq!((model.path.as_str(), model.size), ("model-Q4_K_M.gguf", 7_000_000_000));
    assert_eq!(model.digest, Some(Digest::Sha256([0xab; 32])));
    assert_eq!(model.url, format!("{resolve}/model-Q4_K_M.gguf"));
}

#[tokio::test]
async fn one_file_is_listed_alone_and_a_missing_one_is_said() {
    let server = Server::start(|request| match request.path.as_str() {
        "/api/datasets/org/repo/revision/main?blobs=true" => {
            vec![ok(&info(&json!([large("a.parquet", 1), large("b.parquet", 2)])))]
        }
        path => panic!("asked for {path}"),
    })
    .await;
    let source = |file: &str| Source::HuggingFace {
        kind: RepoKind::Dataset,
        repo: "org/repo".to_owned(),
        revision: None,
        file: Some(file.to_owned()),
    };
    let listing = list(&hubs(&server), source("b.parquet")).await.expect("it is listed");
    let paths: Vec<&str> = listing.files.iter().map(|it| it.path.as_str()).collect();
    assert_eq!(paths, ["b.parquet"]);
    assert!(listing.files[0].url.contains("/datasets/org/repo/resolve/"));
    let missing = list(&hubs(&server), source("c.parquet")).await;
    assert!(matches!(missing, Err(OriginError::NotFound { what }) if what.contains("c.parquet")));
}

#[tokio::test]
async fn a_hub_that_gives_no_sizes_is_asked_for_its_tree_page_by_page() {
    let server = Server::start(|request| {
        let entry =
            |path: &str| json!({ "type": "file", "oid": "cd".repeat(20), "size": 3, "path": path });
        let base = format!("/api/models/org/repo/tree/{COMMIT}?recursive=true");
        if request.path == "/api/models/org/repo/revision/main?blobs=true" {
            vec![ok(&info(&json!([{ "rfilename": "a" }, { "rfilename": "b/c" }])))]
        } else if request.path == base {
            let host = header(request, "host").expect("has a host");
            let link = format!("link: <http://{host}{base}&cursor=x>; rel=\"next\"\r\n");
            let folder = json!({ "type": "directory", "oid": "x", "size": 0, "path": "b" });
            vec![status(200, &link, &json!([entry("a"), folder]).to_string())]
        } else if request.path == format!("{base}&cursor=x") {
            let lfs = json!({ "oid": sha(), "size": 9, "pointerSize": 1 });
            vec![ok(&json!([{ "type": "file", "oid": "x", "size": 9, "path": "b/c", "lfs": lfs }]))]
        } else {
            panic!("asked for {}", request.path)
        }
    })
    .await;
    let listing = list(&hubs(&server), repo(None)).await.expect("it is listed");
    let files: Vec<_> =
        listing.files.iter().map(|it| (it.path.as_str(), it.size, it.digest)).collect();
    let (git, lfs) = (Digest::GitSha1([0xcd; 20]), Digest::Sha256([0xab; 32]));
    assert_eq!(files, [("a", 3, Some(git)), ("b/c", 9, Some(lfs))]);
}

#[tokio::test]
async fn a_list_that_does_not_end_and_one_that_leads_away_are_refused() {
    let check = |link: &'static str, page: Value, want: &'static str| async move {
        let server = Server::start(move |request| {
            if request.path.contains("/revision/") {
                return vec![ok(&info(&json!([{ "rfilename": "a" }])))];
            }
            let link = format!("link: <{link}>; rel=\"next\"\r\n");
            vec![status(200, &link, &page.to_string())]
        })
        .await;
        let config =
            config(&server).with_limits(commons_remote::HubLimits { files: 20, ..limits() });
        let error = list(&with(config), repo(None)).await.expect_err("is refused").to_string();
        assert!(error.contains(want), "{error}");
        assert!(server.requests().len() < 30, "{}", server.requests().len());
    };
    let page = json!([{ "type": "file", "oid": "x", "size": 3, "path": "a" }]);
    check("/api/again", page.clone(), "does not end").await;
    check("/api/again", json!([]), "does not end").await;
    check("https://evil.example/api", page, "another host").await;
}

#[tokio::test]
async fn a_model_of_a_registry_is_listed_by_its_parts() {
    let manifest = || {
        let layer = |part: &str, size: u64| {
            json!({
                "mediaType": format!("application/vnd.ollama.image.{part}"),
                "digest": format!("sha256:{}", sha()), "size": size,
            })
        };
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": format!("sha256:{}", sha()), "size": 483,
            },
            "layers": [layer("model", 2_000), layer("license", 5), layer("license", 6), layer("params", 7)],
        })
    };
    let server = Server::start(move |request| match request.path.as_str() {
        "/v2/library/qwen3/manifests/8b" => {
            let accept = header(request, "accept").expect("says what it takes");
            assert_eq!(accept, "application/vnd.docker.distribution.manifest.v2+json");
            vec![ok(&manifest())]
        }
        "/v2/me/mine/manifests/latest" => vec![ok(&manifest())],
        _ => vec![status(404, "", r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#)],
    })
    .await;
    let hubs = hubs(&server);
    let source = |text: &str| text.parse::<Source>().expect("is a source");
    let listing = list(&hubs, source("ollama:qwen3:8b")).await.expect("it is listed");
    let files: Vec<_> = listing.files.iter().map(|it| (it.path.as_str(), it.size)).collect();
    let want = [
        ("config.json", 483),
        ("license", 5),
        ("license-2", 6),
        ("params.json", 7),
        ("qwen3-8b.gguf", 2_000),
    ];
    assert_eq!(files, want);
    assert!(listing.revision.starts_with("sha256:") && listing.revision.len() == 71);
    let model = &listing.files[4];
    assert_eq!(model.digest, Some(Digest::Sha256([0xab; 32])));
    assert_eq!(model.url, format!("{}/v2/library/qwen3/blobs/sha256:{}", server.url(), sha()));
    let listing = list(&hubs, source("ollama:me/mine")).await.expect("it is listed");
    assert!(listing.files.iter().any(|it| it.path == "mine-latest.gguf"));
    let missing = list(&hubs, source("ollama:nothing")).await;
    assert!(matches!(missing, Err(OriginError::NotFound { what }) if what == "ollama:nothing"));
}

#[tokio::test]
async fn an_address_is_asked_for_its_size_by_head_or_by_its_first_byte() {
    let check = |head_status: u16, ranges: bool| async move {
        let server = Server::start(move |request| {
            let content = content(1_000);
            if request.head.starts_with("HEAD") {
                let length = if head_status == 200 { "content-length: 1000\r\n" } else { "" };
                return vec![head_of(head_status, length)];
            }
            if ranges && header(request, "range") == Some("bytes=0-0") {
                let head = "content-range: bytes 0-0/1000\r\ncontent-length: 1\r\n";
                return vec![head_of(206, head), Act::Send(content[..1].to_vec())];
            }
            vec![head_of(200, "content-length: 1000\r\n"), Act::Send(content)]
        })
        .await;
        let url = format!("{}/some/file%20a.bin?x=1", server.url());
        let source = Source::Url { url: url.clone(), digest: Digest::Sha256([1; 32]) };
        let hubs = hubs(&server);
        let listing = list(&hubs, source).await.expect("it is listed");
        let [file] = listing.files.as_slice() else { panic!("{listing:?}") };
        assert_eq!((file.path.as_str(), file.size, &file.url), ("file a.bin", 1_000, &url));
        assert_eq!(file.digest, Some(Digest::Sha256([1; 32])));
        let fetched = fetch(&hubs, file.clone(), 0).await.expect("it begins");
        assert_eq!(taken(fetched).await, (0, content(1_000), None));
    };
    check(200, true).await;
    check(405, true).await;
    check(403, true).await;
    check(501, false).await;
}

#[tokio::test]
async fn offline_makes_no_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let server = Server::on(listener, |request| ranged(request, &content(10), ""));
    let refused = Offline.list(repo(None)).await;
    assert_eq!(refused, Err(OriginError::Offline));
    let url = format!("{}/x", server.url());
    let digest = Digest::Sha256([1; 32]);
    assert_eq!(Offline.list(Source::Url { url, digest }).await, Err(OriginError::Offline));
    let refused = Offline.fetch(pinned(&server, 10), 0).await.map(|it| it.offset);
    assert_eq!(refused, Err(OriginError::Offline));
    assert!(!OriginError::Offline.is_temporary());
    // Whatever had been sent before this arrives before it.
    let online = fetch(&hubs(&server), pinned(&server, 10), 0).await.expect("it begins");
    assert_eq!(taken(online).await.1, content(10));
    assert_eq!(server.requests().len(), 1);
}
