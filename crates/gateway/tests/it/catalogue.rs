//! The owner's commands about what is published, over the control socket alone.

use commons_gateway::GatewayConfig;
use commons_gateway::control_router;
use commons_node::api::catalogue::{
    CatalogueApi, DenylistView, Judged, LineageView, NamedBy, PinView, PublishedView, ReleaseDraft,
    ReleaseView, RevocationDraft, Search,
};
use commons_node::api::{Refusal, RefusalCode};
use commons_port::BoxFuture;
use commons_record::catalogue::{DenyEntry, Release, ReleaseFile, ReleaseKind};
use commons_record::{Hash, Millis, OwnerId};
use commons_swarm::policy::{Act, Policy};
use serde_json::json;
use tokio::sync::oneshot;

use crate::fake::{FakeNode, app, get, hash, peer, post, send, state};

/// Knows one release, `acme/stories`, and does what it is told.
#[derive(Default)]
pub(crate) struct FakeCatalogue;

fn owner() -> OwnerId {
    OwnerId::from_bytes([8; 32])
}

fn release() -> ReleaseView {
    let body = Release {
        kind: ReleaseKind::Model,
        name: "acme/stories".parse().unwrap(),
        version: "1".parse().unwrap(),
        files: vec![ReleaseFile {
            path: "model.gguf".parse().unwrap(),
            blob: hash(1),
            size: 10,
            sha256: None,
            recipe: None,
        }],
        licence: "MIT".into(),
        lineage: Vec::new(),
        author: "a person".into(),
        description: String::new(),
        tags: Vec::new(),
        released_unix_ms: Millis(1),
        previous: None,
    };
    ReleaseView {
        release: hash(9),
        commit: Release::commit_of(&hash(9)),
        owner: owner(),
        node: peer(),
        is_named: true,
        by: Some(NamedBy::Authority(owner())),
        revoked: None,
        size: 10,
        body,
    }
}

type Answered<T> = BoxFuture<'static, Result<T, Refusal>>;

fn known<T: Send + 'static>(name: &str, value: T) -> Answered<T> {
    let known = if name == "acme/stories" {
        Ok(value)
    } else {
        Err(Refusal::new(RefusalCode::NotFound, format!("nothing is called {name} here")))
    };
    Box::pin(async { known })
}

fn fine<T: Send + 'static>(value: T) -> Answered<T> {
    Box::pin(async { Ok(value) })
}

impl CatalogueApi for FakeCatalogue {
    fn publish(&self, draft: ReleaseDraft) -> Answered<PublishedView> {
        let ReleaseDraft { name, version, licence, .. } = draft;
        if licence == "NOASSERTION" {
            let refusal = Refusal::new(RefusalCode::Denied, "not published here: no licence");
            return Box::pin(async { Err(refusal) });
        }
        let commit = Release::commit_of(&hash(9));
        fine(PublishedView { release: hash(9), commit, name, version, is_bound: true })
    }

    fn search(&self, search: Search) -> Answered<Vec<ReleaseView>> {
        fine(if search.words == "stories" { vec![release()] } else { Vec::new() })
    }

    fn show(&self, what: String) -> Answered<ReleaseView> {
        known(&what, release())
    }

    fn resolve(&self, name: String) -> Answered<ReleaseView> {
        known(&name, release())
    }

    fn lineage(&self, what: String) -> Answered<LineageView> {
        known(&what, LineageView { root: release(), steps: Vec::new(), is_cut: false })
    }

    fn pin(&self, name: String, release: Hash) -> Answered<PinView> {
        let view = PinView { name: name.clone(), release: Some(release) };
        known(&name, view)
    }

    fn unpin(&self, name: String) -> Answered<PinView> {
        let view = PinView { name: name.clone(), release: None };
        known(&name, view)
    }

    fn pins(&self) -> Answered<Vec<PinView>> {
        fine(vec![PinView { name: "acme/stories".into(), release: Some(hash(9)) }])
    }

    fn bind(&self, name: String, _release: Option<Hash>) -> Answered<Hash> {
        known(&name, hash(10))
    }

    fn revoke(&self, _draft: RevocationDraft) -> Answered<Hash> {
        fine(hash(11))
    }

    fn publish_denylist(&self, _title: String, _entries: Vec<DenyEntry>) -> Answered<Hash> {
        fine(hash(12))
    }

    fn subscribe(&self, _author: OwnerId, _is_on: bool) -> Answered<Vec<DenylistView>> {
        self.denylists()
    }

    fn denylists(&self) -> Answered<Vec<DenylistView>> {
        let (author, title) = (owner(), "loaders".to_owned());
        fine(vec![DenylistView { author, title, serial: 1, entry_count: 2, is_subscribed: true }])
    }

    fn policy(&self) -> Answered<Policy> {
        fine(Policy::default())
    }

    fn set_policy(&self, _policy: Policy) -> Answered<()> {
        fine(())
    }

    fn may(&self, _act: Act, _what: Judged) -> Answered<()> {
        fine(())
    }
}

fn draft(licence: &str) -> String {
    let draft = json!({
        "kind": "model",
        "name": "acme/stories",
        "version": "1",
        "files": release().body.files,
        "licence": licence,
    });
    draft.to_string()
}

#[tokio::test]
async fn every_command_about_the_catalogue_has_its_reply() {
    let node = FakeNode::new([]);
    let (shutdown, _is_shutdown) = oneshot::channel();
    let app = control_router(state(&node, GatewayConfig::default()), shutdown);
    let (known, other) = (json!({"name": "acme/stories"}), json!({"name": "acme/other"}));
    let pin = json!({"name": "acme/stories", "release": hash(9)});
    let policy = json!({"hold": {"licences": {"only": ["MIT"]}, "size_max": 10}});
    for (path, body, status, words) in [
        ("publish", draft("MIT"), 200, "\"is_bound\":true"),
        ("publish", draft("NOASSERTION"), 403, "no licence"),
        ("publish", draft("MIT").replace("acme/stories", "../x"), 400, "is no name"),
        ("publish", draft("MIT").replace("model.gguf", "../x"), 400, "is no path of a file"),
        ("publish", "{}".to_owned(), 400, "missing field"),
        ("search", json!({"words": "stories"}).to_string(), 200, "acme/stories"),
        ("search", json!({"words": "x"}).to_string(), 200, "[]"),
        ("search", json!({"wrods": "x"}).to_string(), 400, "unknown field"),
        ("show", known.to_string(), 200, "\"licence\":\"MIT\""),
        ("show", other.to_string(), 404, "nothing is called acme/other here"),
        ("resolve", known.to_string(), 200, "authority"),
        ("lineage", known.to_string(), 200, "\"steps\":[]"),
        ("pin", pin.to_string(), 200, "acme/stories"),
        ("pin", known.to_string(), 400, "missing field"),
        ("unpin", known.to_string(), 200, "\"release\":null"),
        ("bind", pin.to_string(), 200, "record"),
        ("subscribe", json!({"author": owner(), "is_on": true}).to_string(), 200, "loaders"),
        ("policy", policy.to_string(), 200, "\"size_max\":10"),
        ("policy", json!({"hold": {"licences": {"only": ["mit"]}}}).to_string(), 400, "mit"),
    ] {
        let reply = send(&app, post(&format!("/catalogue/{path}"), body.clone())).await;
        assert_eq!(reply.status.as_u16(), status, "{path} {body}: {}", reply.body);
        assert!(reply.body.contains(words), "{path} {body}: {}", reply.body);
    }
    for (path, words) in [("pins", "acme/stories"), ("denylists", "loaders"), ("policy", "hold")] {
        let reply = send(&app, get(&format!("/catalogue/{path}"))).await;
        assert!(reply.status.is_success() && reply.body.contains(words), "{path}: {}", reply.body);
    }
}

#[tokio::test]
async fn the_catalogue_is_the_owners_to_change() {
    let app = app(&FakeNode::new([]));
    let reply = send(&app, post("/catalogue/publish", draft("MIT"))).await;
    assert_eq!(reply.status.as_u16(), 404, "{}", reply.body);
}
