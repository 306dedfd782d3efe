//! The hub: repositories, folders and refusals as tools read them.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use commons_gateway::{ApiKey, GatewayConfig, hub_router, router};
use commons_port::hub::RepoKind;
use serde_json::{Value, json};

use crate::fake::{FakeNode, Reply, app, get, send, state};
use crate::shelf::{Sha, Shelf};

/// A model of a few files, a data set, and a model of GGUF files.
pub(crate) fn shelf() -> Shelf {
    let file = |path: &str, bytes: &str, sha| {
        (path.to_owned(), Bytes::copy_from_slice(bytes.as_bytes()), sha)
    };
    let mut shelf = Shelf::default();
    let files = vec![
        file("config.json", "{}", Sha::Unknown),
        file("model.safetensors", "0123456789", Sha::Known),
        file("onnx/a b.bin", "ab", Sha::Known),
        file("onnx/deep/c.bin", "c", Sha::Unknown),
        file("empty", "", Sha::Unknown),
    ];
    shelf.add(RepoKind::Model, "org/stories", files);
    shelf.add(RepoKind::Dataset, "org/stories", vec![file("train.jsonl", "[]", Sha::Known)]);
    let files = vec![file("m-Q4_0.gguf", "q4", Sha::Known), file("m-Q8_0.gguf", "q8", Sha::Known)];
    shelf.add(RepoKind::Model, "other/quants", files);
    shelf
}

pub(crate) fn with_hub(shelf: Shelf) -> Router {
    router(state(&FakeNode::new([]), GatewayConfig::default()).with_hub(Arc::new(shelf)))
}

fn request(method: &str, path: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost:1")
        .body(Body::empty())
        .unwrap()
}

/// Status and code of a refusal, once its shape was checked.
fn refusal(reply: &Reply) -> (u16, String) {
    let body = reply.json();
    let sentence = body["error"].as_str().unwrap_or_else(|| panic!("no sentence: {body}"));
    assert!(!sentence.is_empty() && body.as_object().unwrap().len() == 1, "{body}");
    let header = |name: &str| {
        reply.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    assert!(!header("x-error-message").is_empty(), "{body}");
    (reply.status.as_u16(), header("x-error-code"))
}

#[tokio::test]
async fn a_repository_tells_of_itself() {
    let app = with_hub(shelf());
    let body = send(&app, get("/api/models/org/stories")).await.json();
    assert_eq!(body["id"], "org/stories");
    assert_eq!(body["author"], "org");
    assert_eq!(body["sha"].as_str().unwrap().len(), 40);
    assert_eq!(body["lastModified"], "2023-11-14T22:13:20.999Z");
    assert_eq!(body["private"], false);
    assert_eq!(body["gated"], false);
    assert_eq!(body["cardData"]["license"], "mit");
    let tags = json!(["stories", "safetensors", "base_model:karpathy/tinyllamas", "license:mit"]);
    assert_eq!(body["tags"], tags);
    let paths = ["config.json", "empty", "model.safetensors", "onnx/a b.bin", "onnx/deep/c.bin"];
    let siblings = paths.map(|path| json!({ "rfilename": path }));
    assert_eq!(body["siblings"], json!(siblings));
    for revision in ["main", "HEAD", "refs%2Fheads%2Fmain", "1.0.0", body["sha"].as_str().unwrap()]
    {
        let path = format!("/api/models/org/stories/revision/{revision}");
        assert_eq!(send(&app, get(&path)).await.json(), body, "{revision}");
    }
}

#[tokio::test]
async fn it_tells_as_much_as_it_is_asked_for() {
    let app = with_hub(shelf());
    let ask = async |query: &str| {
        let path = format!("/api/models/org/stories/revision/HEAD?{query}");
        send(&app, get(&path)).await.json()
    };
    let keys = |body: &Value| -> Vec<String> {
        let mut keys: Vec<_> = body.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(&ask("expand=likes&expand=sha").await), ["_id", "id", "likes", "sha"]);
    assert_eq!(keys(&ask("expand[]=downloads").await), ["_id", "downloads", "id"]);
    assert_eq!(keys(&ask("expand=siblings,gguf").await), ["_id", "id", "siblings"]);
    let body = ask("blobs=True&securityStatus=1").await;
    let model = &body["siblings"][2];
    assert_eq!(model["size"], 10);
    let sha256 = "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882";
    assert_eq!(model["lfs"], json!({ "sha256": sha256, "size": 10, "pointerSize": 127 }));
    assert_eq!(body["siblings"][0].get("lfs"), None);
    assert_eq!(body["siblings"][0]["blobId"].as_str().unwrap().len(), 40);
    assert_eq!(body["securityRepoStatus"]["scansDone"], false);
    let body = send(&app, get("/api/datasets/org/stories")).await.json();
    assert_eq!(body["siblings"], json!([{ "rfilename": "train.jsonl" }]));
    let body = send(&app, get("/api/models/org/stories/refs")).await.json();
    assert_eq!(body["branches"][0]["name"], "main");
    assert_eq!(body["branches"][0]["targetCommit"].as_str().unwrap().len(), 40);
}

#[tokio::test]
async fn lists_hold_what_fits() {
    let app = with_hub(shelf());
    let cases: [(&str, &[&str]); 11] = [
        ("models", &["org/stories", "other/quants"]),
        ("models?search=quants", &["other/quants"]),
        ("models?search=stories+org", &["org/stories"]),
        ("models?search=nothing", &[]),
        ("models?author=ORG", &["org/stories"]),
        ("models?filter=gguf", &["other/quants"]),
        ("models?filter=stories,license:mit&filter=safetensors", &["org/stories"]),
        ("models?limit=1", &["org/stories"]),
        ("models?limit=0", &[]),
        ("models?sort=lastModified&direction=-1&full=true", &["org/stories", "other/quants"]),
        ("datasets", &["org/stories"]),
    ];
    for (query, expected) in cases {
        let body = send(&app, get(&format!("/api/{query}"))).await.json();
        let ids: Vec<_> =
            body.as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect();
        assert_eq!(ids, expected, "{query}");
    }
    let long = format!("/api/models?search={}", "a".repeat(1_025));
    for path in ["/api/models?limit=many", "/api/models?limit=-1", &long] {
        assert_eq!(refusal(&send(&app, get(path)).await).0, 400, "{path}");
    }
}

#[tokio::test]
async fn folders_are_the_beginnings_of_paths() {
    let app = with_hub(shelf());
    let cases: [(&str, &[&str]); 6] = [
        ("", &["config.json", "empty", "model.safetensors", "onnx"]),
        ("/onnx", &["onnx/a b.bin", "onnx/deep"]),
        ("/onnx/?recursive=1", &["onnx/a b.bin", "onnx/deep", "onnx/deep/c.bin"]),
        ("/onnx%2Fdeep", &["onnx/deep/c.bin"]),
        (
            "?recursive=True&expand=False",
            &[
                "config.json",
                "empty",
                "model.safetensors",
                "onnx",
                "onnx/a b.bin",
                "onnx/deep",
                "onnx/deep/c.bin",
            ],
        ),
        ("?recursive=true&cursor=onnx%2Fdeep", &["onnx/deep/c.bin"]),
    ];
    for (asked, expected) in cases {
        let reply = send(&app, get(&format!("/api/models/org/stories/tree/main{asked}"))).await;
        let body = reply.json();
        let paths: Vec<_> =
            body.as_array().unwrap().iter().map(|it| it["path"].as_str().unwrap()).collect();
        assert_eq!(paths, expected, "{asked}");
        assert_eq!(reply.headers["x-repo-commit"].len(), 40);
        for entry in body.as_array().unwrap() {
            assert_eq!(entry["oid"].as_str().unwrap().len(), 40, "{entry}");
            assert_eq!(entry.get("lastCommit"), None);
        }
    }
    let body = send(&app, get("/api/models/org/stories/tree/main?expand=true")).await.json();
    assert_eq!(body[3]["type"], "directory");
    assert_eq!(body[2]["lastCommit"]["date"], "2023-11-14T22:13:20.999Z");
    assert_eq!(body[2]["securityFileStatus"]["status"], "unscanned");
    for missing in ["/nothing", "/config.json", "/onnx/dee"] {
        let reply = send(&app, get(&format!("/api/models/org/stories/tree/main{missing}"))).await;
        assert_eq!(refusal(&reply), (404, "EntryNotFound".into()), "{missing}");
        assert_eq!(reply.headers["x-repo-commit"].len(), 40);
    }
}

#[tokio::test]
async fn pages_of_a_tree_hold_every_file_once() {
    let paths: Vec<String> =
        (0..2_500).map(|index| format!("d&{}/ü {index:04}", index % 3)).collect();
    let files = paths.iter().map(|path| (path.clone(), Bytes::new(), Sha::Unknown)).collect();
    let mut shelf = Shelf::default();
    shelf.add(RepoKind::Model, "org/many", files);
    let app = with_hub(shelf);
    let mut next = Some("/api/models/org/many/tree/main?recursive=true".to_owned());
    let mut seen = Vec::new();
    let mut pages = 0;
    while let Some(path) = next {
        let reply = send(&app, get(&path)).await;
        seen.extend(
            reply
                .json()
                .as_array()
                .unwrap()
                .iter()
                .map(|it| it["path"].as_str().unwrap().to_owned()),
        );
        pages += 1;
        next = reply.headers.get("link").map(|link| {
            let link = link.to_str().unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned();
            let path = link.strip_prefix("<http://localhost").unwrap();
            assert!(!path.contains("/tree/main"), "the next page is of the same commit: {path}");
            path.to_owned()
        });
    }
    let mut expected = [paths, vec!["d&0".into(), "d&1".into(), "d&2".into()]].concat();
    expected.sort();
    assert_eq!((pages, seen), (3, expected));
}

#[tokio::test]
async fn paths_are_looked_up_in_json_and_in_a_form() {
    let app = with_hub(shelf());
    let ask = async |kind: &str, body: String| {
        let request = Request::post("/api/models/org/stories/paths-info/HEAD")
            .header("host", "localhost")
            .header("content-type", kind)
            .body(Body::from(body));
        send(&app, request.unwrap()).await
    };
    let json = "application/json; charset=utf-8";
    let form = "application/x-www-form-urlencoded";
    let cases = [
        (json, r#"{"paths":["config.json","onnx/","none"],"expand":true}"#, true),
        (form, "paths=config.json&paths=onnx&paths=..%2Fnone&expand=True", true),
        (form, "paths=config.json&paths=onnx&expand=False", false),
        (json, r#"{"paths":["config.json","onnx"]}"#, false),
    ];
    for (kind, body, is_expanded) in cases {
        let found = ask(kind, body.to_owned()).await.json();
        let shape =
            |it: &Value| (it["path"].clone(), it["type"].clone(), it["lastCommit"].is_object());
        let found: Vec<_> = found.as_array().unwrap().iter().map(shape).collect();
        let expected = [
            (json!("config.json"), json!("file"), is_expanded),
            (json!("onnx"), json!("directory"), is_expanded),
        ];
        assert_eq!(found, expected, "{body}");
    }
    let many = format!("paths={}", vec!["a"; 1_001].join("&paths="));
    let bad = [
        (json, "{"),
        (json, "[]"),
        (json, r#"{"paths":"a"}"#),
        ("text/plain", "a"),
        (form, many.as_str()),
    ];
    for (kind, body) in bad {
        assert_eq!(refusal(&ask(kind, body.to_owned()).await).0, 400, "{body:.20}");
    }
    let large = "a".repeat(3 * 1024 * 1024);
    assert_eq!(refusal(&ask(form, large).await).0, 413);
}

#[tokio::test]
async fn what_is_missing_is_refused_with_the_code_that_tools_know() {
    let app = with_hub(shelf());
    let cases = [
        ("/api/models/org/none", 404, "RepoNotFound"),
        ("/api/models/stories", 404, "RepoNotFound"),
        ("/org/none/resolve/main/config.json", 404, "RepoNotFound"),
        ("/stories/resolve/main/config.json", 404, "RepoNotFound"),
        ("/datasets/other/quants/resolve/main/m-Q4_0.gguf", 404, "RepoNotFound"),
        ("/api/models/org/stories/revision/v2", 404, "RevisionNotFound"),
        ("/org/stories/resolve/v2/config.json", 404, "RevisionNotFound"),
        ("/org/stories/resolve/main/none", 404, "EntryNotFound"),
        ("/org/stories/resolve/main/onnx", 404, "EntryNotFound"),
        ("/org/stories/raw/main/none", 404, "EntryNotFound"),
        ("/v2/org/stories/manifests/latest", 404, "EntryNotFound"),
        ("/org/stories/resolve/main/%2e%2e/%2e%2e/etc/passwd", 400, ""),
        ("/org/stories/resolve/main/a%00b", 400, ""),
        ("/org/stories/resolve/main/%ff", 400, ""),
        ("/api/models/org/stories/commits/main", 404, ""),
        ("/api/whoami-v2", 401, ""),
    ];
    for (path, status, code) in cases {
        let reply = send(&app, get(path)).await;
        assert_eq!(refusal(&reply), (status, code.to_owned()), "{path}");
        let has_commit = reply.headers.contains_key("x-repo-commit");
        assert_eq!(has_commit, code == "EntryNotFound", "{path}");
    }
}

#[tokio::test]
async fn other_methods_are_refused_and_told_which_are_not() {
    let app = with_hub(shelf());
    let paths = "/api/models/org/stories/paths-info/main";
    let cases = [
        ("PUT", "/org/stories/resolve/main/config.json", "GET, HEAD"),
        ("DELETE", "/api/models/org/stories", "GET, HEAD"),
        ("POST", "/api/models/org/stories/tree/main", "GET, HEAD"),
        ("POST", "/api/models", "GET, HEAD"),
        ("OPTIONS", "/api/datasets/org/stories", "GET, HEAD"),
        ("GET", paths, "POST"),
        ("HEAD", paths, "POST"),
        ("PATCH", paths, "POST"),
    ];
    for (method, path, allowed) in cases {
        let reply = send(&app, request(method, path)).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.headers["allow"]),
            (405, &allowed.parse().unwrap()),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body() {
    let app = with_hub(shelf());
    let paths = [
        "/api/models",
        "/api/models/org/stories?blobs=true",
        "/api/models/org/none",
        "/org/stories/resolve/main/model.safetensors",
        "/org/stories/raw/main/config.json",
        "/org/stories/resolve/main/empty",
        "/org/stories/resolve/main/none",
        "/org/stories/resolve/v2/none",
    ];
    for path in paths {
        let whole = send(&app, get(path)).await;
        let head = send(&app, request("HEAD", path)).await;
        assert_eq!((head.status, head.body.as_str()), (whole.status, ""), "{path}");
        let mut headers = whole.headers.clone();
        let size = whole.body.len();
        headers.entry("content-length").or_insert(size.into());
        assert_eq!(head.headers, headers, "{path}");
        assert_eq!(head.headers["content-length"], size.to_string(), "{path}");
    }
    // A range says what to send, and HEAD sends nothing.
    for range in ["bytes=1-2", "bytes=99-"] {
        let mut head = request("HEAD", "/org/stories/resolve/main/model.safetensors");
        head.headers_mut().insert("range", range.parse().unwrap());
        let reply = send(&app, head).await;
        assert_eq!((reply.status.as_u16(), &reply.headers["content-length"]), (200, &10.into()));
    }
}

#[tokio::test]
async fn without_a_hub_the_answer_says_so() {
    let app = app(&FakeNode::new([]));
    for path in ["/api/models", "/api/models/org/stories", "/org/stories/resolve/main/config.json"]
    {
        let reply = send(&app, get(path)).await;
        assert_eq!(refusal(&reply).0, 404, "{path}");
        assert!(reply.body.contains("offers no repositories"), "{}", reply.body);
    }
}

#[tokio::test]
async fn the_access_rules_hold_and_refuse_in_the_shape_of_a_hub() {
    let key = "hf_0123456789abcdef0123456789abcdef0123";
    let config = GatewayConfig { api_key: ApiKey::new(key).ok(), ..GatewayConfig::default() };
    let shelf = Arc::new(shelf());
    let locked = router(state(&FakeNode::new([]), config).with_hub(shelf));
    let open = with_hub(self::shelf());
    for path in ["/api/models/org/stories", "/org/stories/resolve/main/config.json"] {
        let ask = async |app: &Router, name: &str, value: &str| {
            let mut request = Request::get(path).body(Body::empty()).unwrap();
            request.headers_mut().insert("host", "node.example".parse().unwrap());
            request
                .headers_mut()
                .insert(axum::http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
            send(app, request).await
        };
        let reply = ask(&locked, "authorization", "Bearer hf_another").await;
        assert_eq!(refusal(&reply), (401, String::new()));
        assert_eq!(reply.headers["x-error-message"], "Invalid credentials in Authorization header");
        assert_eq!(reply.headers["www-authenticate"], "Bearer");
        assert_eq!(ask(&locked, "authorization", &format!("Bearer {key}")).await.status, 200);
        assert_eq!(refusal(&ask(&open, "host", "evil.example").await), (403, String::new()));
        let mut page = get(path);
        page.headers_mut().insert("origin", "https://evil.example".parse().unwrap());
        assert_eq!(refusal(&send(&open, page).await), (403, String::new()));
    }
}

#[tokio::test]
async fn a_hub_alone_answers_as_one_on_a_node_does() {
    let alone = hub_router(Arc::new(shelf()), GatewayConfig::default());
    let node = with_hub(shelf());
    for path in ["/api/models/org/stories", "/org/stories/resolve/main/none", "/api/models"] {
        let (alone, node) = (send(&alone, get(path)).await, send(&node, get(path)).await);
        assert_eq!(
            (alone.status, alone.headers, alone.body),
            (node.status, node.headers, node.body)
        );
    }
    assert_eq!(refusal(&send(&alone, get("/v1/models")).await), (404, String::new()));
    let mut strange = get("/api/models");
    strange.headers_mut().insert("host", "evil.example".parse().unwrap());
    assert_eq!(refusal(&send(&alone, strange).await), (403, String::new()));
}

#[tokio::test]
async fn a_tag_of_llama_cpp_finds_its_file() {
    let app = with_hub(shelf());
    for (tag, name) in [("latest", "m-Q8_0.gguf"), ("q4_0", "m-Q4_0.gguf")] {
        let body = send(&app, get(&format!("/v2/other/quants/manifests/{tag}"))).await.json();
        assert_eq!(body["ggufFile"]["rfilename"], name);
        assert_eq!(body["ggufFile"]["size"], 2);
    }
}

#[tokio::test]
async fn a_path_that_is_not_plain_is_not_passed_on() {
    let mut shelf = Shelf::default();
    let paths = ["../up", "/etc/passwd", "a/../b", "a\\b", "a\nb", "good"];
    let files = paths.map(|path| (path.to_owned(), Bytes::new(), Sha::Unknown));
    shelf.add(RepoKind::Model, "org/odd", files.into());
    let app = with_hub(shelf);
    let body = send(&app, get("/api/models/org/odd/tree/main?recursive=true")).await.json();
    let paths: Vec<_> = body.as_array().unwrap().iter().map(|it| it["path"].clone()).collect();
    assert_eq!(paths, [json!("good")]);
}
