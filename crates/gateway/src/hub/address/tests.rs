//! Paths as clients send them, and paths that nobody should.

use proptest::prelude::*;

use super::*;

fn at(kind: RepoKind, revision: &str) -> Revised {
    Revised { kind, id: "org/a.b-c_1".into(), revision: revision.into() }
}

fn model(revision: &str) -> Revised {
    at(RepoKind::Model, revision)
}

#[test]
fn each_path_says_what_it_asks_for() {
    let path = |path: &str| path.to_owned();
    let file = |repo, at: &str| Address::File { repo, path: path(at) };
    let cases = [
        ("/api/models", Address::List(RepoKind::Model)),
        ("/api/datasets/", Address::List(RepoKind::Dataset)),
        ("/api/whoami-v2", Address::WhoAmI),
        ("/api/models/org/a.b-c_1", Address::Info(model("main"))),
        ("/api/models/org/a.b-c_1/revision/HEAD", Address::Info(model("main"))),
        ("/api/models/org/a.b-c_1/revision/v1%2F2", Address::Info(model("v1/2"))),
        ("/api/models/org/a.b-c_1/revision/refs%2Fheads%2Fmain", Address::Info(model("main"))),
        ("/api/models/org/a.b-c_1/refs", Address::Refs(model("main"))),
        ("/api/models/org/a.b-c_1/paths-info/v1", Address::Paths(model("v1"))),
        ("/api/models/org/a.b-c_1/tree/v1", Address::Tree { repo: model("v1"), path: path("") }),
        ("/api/models/org/a.b-c_1/tree/v1/", Address::Tree { repo: model("v1"), path: path("") }),
        (
            "/api/datasets/org/a.b-c_1/tree/main/a%20b/c",
            Address::Tree { repo: at(RepoKind::Dataset, "main"), path: path("a b/c") },
        ),
        ("/org/a.b-c_1/resolve/main/config.json", file(model("main"), "config.json")),
        ("/org/a.b-c_1/raw/v1/a/b%2Fc.txt", file(model("v1"), "a/b/c.txt")),
        ("/datasets/org/a.b-c_1/resolve/main/x", file(at(RepoKind::Dataset, "main"), "x")),
        ("/datasets/org/a.b-c_1/raw/main/x", file(at(RepoKind::Dataset, "main"), "x")),
        (
            "/v2/org/a.b-c_1/manifests/Q4_0",
            Address::Manifest { repo: model("main"), tag: path("Q4_0") },
        ),
    ];
    for (path, expected) in cases {
        assert_eq!(Address::parse(path).ok(), Some(expected), "{path}");
    }
}

#[test]
fn what_names_nothing_is_refused_by_what_it_lacks() {
    let long_path = format!("/org/name/resolve/main/{}", "a/".repeat(600));
    let long_name = format!("/org/name/resolve/main/{}", "a".repeat(256));
    let long_id = format!("/api/models/org/{}", "a".repeat(100));
    let long_revision = format!("/api/models/org/name/revision/{}", "a".repeat(257));
    let repo = (404, "RepoNotFound");
    let revision = (404, "RevisionNotFound");
    let path = (400, "");
    let unknown = (404, "");
    let cases = [
        ("/api/models/gpt2", repo),
        ("/api/models/gpt2/revision/main", repo),
        ("/api/models/gpt2/tree/main/a/b", repo),
        ("/gpt2/resolve/main/config.json", repo),
        ("/datasets/squad/resolve/main/x", repo),
        ("/api/models/org/na me", repo),
        ("/api/models/org/%2e%2e", repo),
        ("/api/models/../etc", repo),
        ("/api/models/org/-name", repo),
        ("/api/models/org/name.", repo),
        ("/api/models/org/na..me", repo),
        ("/api/models/org/%00", repo),
        ("/api/models/a%2Fb/c", repo),
        (&long_id, repo),
        ("/api/models/org/name/revision/%00", revision),
        ("/api/models/org/name/revision/a%2F..%2Fb", revision),
        ("/api/models/org/name/revision/", revision),
        (&long_revision, revision),
        ("/org/name/resolve/main/../secret", path),
        ("/org/name/resolve/main/%2e%2e/secret", path),
        ("/org/name/resolve/main/a/%2e%2e%2fsecret", path),
        ("/org/name/resolve/main/..%5csecret", path),
        ("/org/name/resolve/main/%2fetc%2fpasswd", path),
        ("/org/name/resolve/main//etc/passwd", path),
        ("/org/name/resolve/main/a/./b", path),
        ("/org/name/resolve/main/a%00b", path),
        ("/org/name/resolve/main/a%0d%0ab", path),
        ("/org/name/resolve/main/", path),
        ("/org/name/resolve/main/%ff", path),
        ("/api/models/org/name/tree/main/..", path),
        (&long_path, path),
        (&long_name, path),
        ("/api/spaces/org/name", unknown),
        ("/api/models/org/name/commits/main", unknown),
        ("/v2/org/name/blobs/sha256:00", unknown),
        ("/", unknown),
    ];
    for (asked, expected) in cases {
        let refusal = Address::parse(asked).expect_err(asked);
        assert_eq!((refusal.status().as_u16(), refusal.code().unwrap_or("")), expected, "{asked}");
    }
}

proptest! {
    /// Whatever is asked is read or refused, and what is read is plain.
    #[test]
    fn any_path_is_read_or_refused(path in "(/(api|models|org|n|tree|resolve|main|%2e|%00|%ff|\\.|[^/]{0,4})){0,8}") {
        match Address::parse(&path) {
            Ok(Address::File { repo, path }) => {
                prop_assert!(is_plain(&path) && is_id(&repo.id) && is_revision(&repo.revision));
            }
            Ok(Address::Tree { path, .. }) => prop_assert!(path.is_empty() || is_plain(&path)),
            Ok(_) | Err(_) => {}
        }
    }
}
