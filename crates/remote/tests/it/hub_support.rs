//! A hub that does what a script says, and what a node makes of it.
//!
//! The shapes are those of the public services; see the headers of `hub::hugging_face` and
//! `hub::ollama` for the fields that are relied upon.

use commons_port::hub::{
    Digest, Fetched, Listing, Origin as _, OriginError, OriginFile, RepoKind, Source,
};
use commons_record::Millis;
use commons_remote::{HubConfig, HubLimits, Hubs, Key};
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::support::{Act, PATIENCE, Request, Server, ports};

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The SHA-256 that the scripts name, in hexadecimal.
pub(crate) fn sha() -> String {
    "ab".repeat(32)
}

/// Limits that no busy machine reaches.
pub(crate) fn limits() -> HubLimits {
    HubLimits {
        connect: Millis::from_secs(50),
        head: Millis::from_secs(50),
        ..HubLimits::default()
    }
}

pub(crate) fn config(server: &Server) -> HubConfig {
    let address = || server.url().parse().expect("is an address");
    let config = HubConfig::new().expect("the public hubs have addresses");
    config.with_hugging_face(address()).with_ollama(address()).with_limits(limits())
}

pub(crate) fn with(config: HubConfig) -> Hubs {
    Hubs::new(config, ports().clock).expect("TLS is set up")
}

pub(crate) fn hubs(server: &Server) -> Hubs {
    with(config(server))
}

pub(crate) fn with_token(server: &Server) -> Hubs {
    let token = Key::new("hf_secret_token").expect("is a token");
    with(config(server).with_token(token).expect("it stays on this machine"))
}

pub(crate) fn repo(file: Option<&str>) -> Source {
    let (repo, file) = ("org/repo".to_owned(), file.map(str::to_owned));
    Source::HuggingFace { kind: RepoKind::Model, repo, revision: None, file }
}

/// What the hub says of `org/repo`.
pub(crate) fn info(siblings: &Value) -> Value {
    json!({
        "_id": "x", "id": "org/repo", "private": false, "gated": false, "sha": COMMIT,
        "tags": ["gguf"], "cardData": { "license": "apache-2.0", "base_model": "org/base" },
        "siblings": siblings, "usedStorage": 1,
    })
}

pub(crate) fn large(path: &str, size: u64) -> Value {
    json!({
        "rfilename": path, "size": size, "blobId": "cd".repeat(20),
        "lfs": { "sha256": sha(), "size": size, "pointerSize": 134 },
    })
}

pub(crate) async fn list(hubs: &Hubs, source: Source) -> Result<Listing, OriginError> {
    tokio::time::timeout(PATIENCE, hubs.list(source)).await.expect("a listing ends")
}

pub(crate) async fn fetch(
    hubs: &Hubs,
    file: OriginFile,
    offset: u64,
) -> Result<Fetched, OriginError> {
    tokio::time::timeout(PATIENCE, hubs.fetch(file, offset)).await.expect("a fetch begins or fails")
}

/// All bytes, where they begin, and how they ended.
pub(crate) async fn taken(fetched: Fetched) -> (u64, Vec<u8>, Option<OriginError>) {
    let Fetched { offset, bytes: mut stream } = fetched;
    let (mut bytes, mut error) = (Vec::new(), None);
    let reading = async {
        while let Some(next) = stream.next().await {
            match next {
                Ok(next) => bytes.extend_from_slice(&next),
                Err(it) => error = Some(it),
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("a body ends");
    (offset, bytes, error)
}

/// A large file of `org/repo` at the server, pinned.
pub(crate) fn pinned(server: &Server, size: u64) -> OriginFile {
    let url = format!("{}/org/repo/resolve/{COMMIT}/m.gguf", server.url());
    OriginFile { path: "m.gguf".to_owned(), size, digest: Some(Digest::Sha256([0xab; 32])), url }
}

/// A file at an address that nothing is known of but its digest.
pub(crate) fn plain(server: &Server, size: u64) -> OriginFile {
    OriginFile { url: format!("{}/file.bin", server.url()), ..pinned(server, size) }
}

pub(crate) fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.head.lines().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then_some(value)
    })
}

/// A head of a file's bytes.
pub(crate) fn head_of(status: u16, headers: &str) -> Act {
    Act::Send(format!("HTTP/1.1 {status} X\r\n{headers}\r\n").into_bytes())
}

/// What stays the same in every file that is sent here.
pub(crate) fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| u8::try_from(at % 251).expect("is small")).collect()
}

/// Sends the file as a server does that knows ranges.
pub(crate) fn ranged(request: &Request, content: &[u8], headers: &str) -> Vec<Act> {
    let asked = header(request, "range").and_then(|it| it.strip_prefix("bytes=")?.split_once('-'));
    let first = asked.and_then(|(first, _)| first.parse::<usize>().ok());
    let (status, from, range) = match first {
        Some(from) if from < content.len() => {
            let (last, size) = (content.len() - 1, content.len());
            (206, from, format!("content-range: bytes {from}-{last}/{size}\r\n"))
        }
        Some(_) => return vec![head_of(416, "content-length: 0\r\n")],
        None => (200, 0, String::new()),
    };
    let length = content.len() - from;
    let head = format!("{range}{headers}content-length: {length}\r\n");
    vec![head_of(status, &head), Act::Send(content[from..].to_vec())]
}
