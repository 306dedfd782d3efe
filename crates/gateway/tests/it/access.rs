//! Who may use the public routes, and which addresses they may stand on.

use axum::body::Body;
use axum::http::Request;
use commons_gateway::{
    ApiKey, ApiKeyError, BindError, GatewayConfig, bind_tcp, check_bind, router,
};

use crate::fake::{FakeNode, app, get, send, state};

const KEY: &str = "0123456789abcdef";

#[tokio::test]
async fn without_a_key_only_loopback_names_are_served() {
    let app = app(&FakeNode::new([]));
    let good = [
        "localhost",
        "LocalHost:8080",
        "127.0.0.1",
        "127.0.0.1:80",
        "127.1.2.3",
        "[::1]",
        "[::1]:9",
    ];
    for host in good {
        let request = Request::get("/v1/models").header("host", host).body(Body::empty());
        assert_eq!(send(&app, request.unwrap()).await.status, 200, "{host}");
    }
    let bad = [
        "evil.example",
        "localhost.evil.example",
        "192.168.1.2",
        "0.0.0.0",
        "user@localhost",
        "localhost@evil.example",
        "",
        "localhost:x",
        "[::2]",
        "127.0.0.1.evil.example",
    ];
    for host in bad {
        let request = Request::get("/v1/models").header("host", host).body(Body::empty());
        let expected = (403, "host_not_allowed".to_owned(), None);
        assert_eq!(send(&app, request.unwrap()).await.error(), expected, "{host}");
    }
    let none = Request::get("/v1/models").body(Body::empty()).unwrap();
    assert_eq!(send(&app, none).await.error().1, "host_not_allowed");
    let mut two = get("/v1/models");
    two.headers_mut().append("host", "evil.example".parse().unwrap());
    assert_eq!(send(&app, two).await.error().1, "host_not_allowed");
}

#[tokio::test]
async fn without_a_key_pages_of_other_origins_are_refused() {
    let app = app(&FakeNode::new([]));
    for (origin, status) in [
        ("http://localhost:3000", 200),
        ("http://127.0.0.1", 200),
        ("https://[::1]:8443", 200),
        ("null", 403),
        ("https://evil.example", 403),
        ("http://localhost.evil.example", 403),
        ("chrome-extension://abc", 403),
        ("", 403),
    ] {
        let mut request = get("/v1/models");
        request.headers_mut().insert("origin", origin.parse().unwrap());
        let reply = send(&app, request).await;
        assert_eq!(reply.status, status, "{origin}");
        let allows = reply.headers.keys().any(|name| name.as_str().starts_with("access-control"));
        assert!(!allows, "no CORS header is ever sent");
        if status == 403 {
            assert_eq!(reply.error().1, "origin_not_allowed");
        }
    }
}

#[tokio::test]
async fn with_a_key_nothing_but_health_is_told_without_it() {
    let config =
        GatewayConfig { api_key: Some(ApiKey::new(KEY).unwrap()), ..GatewayConfig::default() };
    let app = router(state(&FakeNode::new([]), config));
    let ask = async |path: &str, authorization: Option<&str>| {
        let mut request = Request::get(path).header("host", "node.example");
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        send(&app, request.body(Body::empty()).unwrap()).await
    };
    assert_eq!(ask("/healthz", None).await.body, "ok");
    for path in ["/v1/models", "/metrics", "/nowhere"] {
        let reply = ask(path, None).await;
        assert_eq!(reply.error(), (401, "invalid_api_key".into(), None), "{path}");
        assert_eq!(reply.headers["www-authenticate"], "Bearer");
    }
    let wrong = ["Bearer", "Bearer ", "Bearer 0123456789abcdeF", KEY, "Basic 0123456789abcdef"];
    for value in wrong {
        assert_eq!(ask("/v1/models", Some(value)).await.status, 401, "{value}");
    }
    for value in ["Bearer 0123456789abcdef", "bearer 0123456789abcdef"] {
        assert_eq!(ask("/v1/models", Some(value)).await.status, 200, "{value}");
    }
}

#[test]
fn a_key_is_long_printable_and_never_printed() {
    assert_eq!(ApiKey::new("short"), Err(ApiKeyError::TooShort { len: 5, min: 16 }));
    assert_eq!(ApiKey::new("0123456789 abcdef"), Err(ApiKeyError::NotPrintable));
    assert_eq!(ApiKey::new("0123456789abcd\u{e9}"), Err(ApiKeyError::NotPrintable));
    assert_eq!(format!("{:?}", ApiKey::new(KEY).unwrap()), "ApiKey");
}

#[test]
fn an_address_beyond_loopback_needs_a_key() {
    let loopback = ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"];
    for addr in loopback {
        assert!(check_bind(addr.parse().unwrap(), false).is_ok(), "{addr}");
    }
    for addr in ["0.0.0.0:1", "[::]:1", "192.168.0.1:1", "[fe80::1]:1", "[::ffff:10.0.0.1]:1"] {
        let refusal = check_bind(addr.parse().unwrap(), false).unwrap_err();
        assert!(refusal.to_string().contains("set an API key"), "{refusal}");
        assert!(check_bind(addr.parse().unwrap(), true).is_ok(), "{addr}");
    }
}

#[tokio::test]
async fn a_taken_port_is_named_with_what_to_do() {
    let first = bind_tcp("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
    let addr = first.local_addr().unwrap();
    let error = bind_tcp(addr, false).await.unwrap_err();
    assert!(matches!(error, BindError::PortTaken { addr: taken, .. } if taken == addr));
    assert!(error.to_string().starts_with(&addr.to_string()), "{error}");
    assert!(error.to_string().contains("--api ADDR:PORT"), "{error}");
    let open = bind_tcp("0.0.0.0:0".parse().unwrap(), false).await.unwrap_err();
    assert!(matches!(open, BindError::Refused(_)));
    let foreign = bind_tcp("192.0.2.1:0".parse().unwrap(), true).await.unwrap_err();
    assert!(matches!(foreign, BindError::NotOurs { .. }), "{foreign:?}");
}
