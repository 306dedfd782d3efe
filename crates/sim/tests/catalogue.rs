//! What is published reaches all members, and only what members say counts.

use std::future::Future;
use std::sync::Arc;

use commons_node::api::catalogue::{NamedBy, ReleaseDraft, ReleaseView, RevocationDraft, Search};
use commons_node::api::{NodeApi as _, Refusal, RefusalCode};
use commons_port::hub::{HubError, RepoKind};
use commons_port::net::BoxDuplex;
use commons_record::catalogue::{
    Denied, DenyCode, DenyEntry, NameBinding, Release, ReleaseFile, ReleaseKind,
};
use commons_record::envelope::{Author, Certified, Record};
use commons_record::mesh::{Capability, NodeCertificate, PRESENCE_LEASE_MAX, Presence};
use commons_record::{Epoch, Hash, HpkeKey, Millis, OwnerId, PeerId, SecretKey, Verified, codec};
use commons_sim::mocks::peer::RawPeer;
use commons_sim::net::Crash;
use commons_sim::seeds::for_each_seed;
use commons_sim::world::NodeSpec;
use commons_sim::{Cluster, NodeId};
use commons_swarm::policy::{Act, Block, Policy};
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use futures::{StreamExt as _, stream};
use serde::Serialize;
use serde_bytes::ByteBuf;

const AUTHORITY: NodeId = NodeId(0);
const ALICE: NodeId = NodeId(1);
const BOB: NodeId = NodeId(2);
const CAROL: NodeId = NodeId(3);

const SEEDS: [u64; 4] = [1, 2, 3, 4];

fn specs() -> Vec<NodeSpec> {
    vec![NodeSpec::default(); 4]
}

fn file(path: &str) -> ReleaseFile {
    let blob = Hash::of_content(path.as_bytes());
    let path = path.parse().expect("a path");
    ReleaseFile { path, blob, size: 10, sha256: None, recipe: None }
}

fn draft(name: &str, version: &str) -> ReleaseDraft {
    ReleaseDraft {
        kind: ReleaseKind::Model,
        name: name.parse().expect("a name"),
        version: version.parse().expect("a version"),
        files: vec![file("model.gguf"), file("README.md")],
        licence: "MIT".to_owned(),
        lineage: Vec::new(),
        author: None,
        description: String::new(),
        tags: Vec::new(),
        previous: None,
    }
}

async fn publish(cluster: &Cluster, node: NodeId, name: &str, version: &str) -> Hash {
    let published = cluster.node(node).catalogue().publish(draft(name, version)).await;
    published.unwrap_or_else(|refusal| panic!("{node}: {refusal}")).release
}

async fn resolve(cluster: &Cluster, node: NodeId, name: &str) -> Result<ReleaseView, Refusal> {
    cluster.node(node).catalogue().resolve(name.to_owned()).await
}

async fn knows(cluster: &Cluster, node: NodeId, release: Hash) -> bool {
    cluster.node(node).catalogue().show(release.to_string()).await.is_ok()
}

/// Waits until something asynchronous is so.
async fn until<F: Future<Output = bool>>(
    cluster: &Cluster,
    what: &str,
    patience: Millis,
    is_so: impl Fn() -> F,
) {
    let end = cluster.now().saturating_add(patience);
    while !is_so().await {
        assert!(cluster.now() < end, "not within {patience}: {what}");
        cluster.sleep(Millis(50)).await;
    }
}

// Rule C9
#[test]
fn a_release_reaches_all_members_and_its_name_means_it_for_all() {
    for_each_seed(&SEEDS, |seed| {
        Cluster::play(seed, specs(), async |cluster| {
            let release = publish(cluster, AUTHORITY, "acme/stories", "1").await;
            for node in cluster.nodes() {
                let is_known = || async {
                    let resolved = resolve(cluster, node, "acme/stories@1").await;
                    resolved.is_ok_and(|it| it.release == release)
                };
                until(cluster, "the name means it", Millis::from_secs(240), is_known).await;
                let view = resolve(cluster, node, "Acme/Stories").await.expect("it is bound");
                assert!(matches!(view.by, Some(NamedBy::Authority(_))), "{:?}", view.by);
                let search = Search { words: "STORIES".to_owned(), ..Search::default() };
                let found = cluster.node(node).catalogue().search(search).await;
                assert_eq!(found.expect("it answers").len(), 1);
            }
        });
    });
}

// Rule C9
#[test]
fn a_release_reaches_all_members_after_a_partition_heals() {
    for_each_seed(&SEEDS, |seed| {
        Cluster::play(seed, specs(), async |cluster| {
            cluster.net().split(&[&[AUTHORITY, ALICE], &[BOB, CAROL]]);
            cluster.sleep(Millis::from_secs(10)).await;
            let one = publish(cluster, ALICE, "alice/one", "1").await;
            let other = publish(cluster, CAROL, "carol/other", "1").await;
            cluster.sleep(Millis::from_secs(20)).await;
            assert!(!knows(cluster, BOB, one).await, "the network is split");
            assert!(!knows(cluster, AUTHORITY, other).await, "the network is split");
            cluster.net().heal();
            for node in cluster.nodes() {
                let has_both = || async {
                    knows(cluster, node, one).await && knows(cluster, node, other).await
                };
                until(cluster, "both releases are here", Millis::from_secs(300), has_both).await;
            }
        });
    });
}

// Rule C2
#[test]
fn a_name_that_a_member_claims_means_nothing_until_somebody_chooses() {
    Cluster::play(7, specs(), async |cluster| {
        let release = publish(cluster, ALICE, "acme/stories", "1").await;
        let is_here = || knows(cluster, BOB, release);
        until(cluster, "the release is here", Millis::from_secs(240), is_here).await;
        let mine = resolve(cluster, ALICE, "acme/stories").await.expect("her own word");
        assert_eq!(mine.by, Some(NamedBy::Pin));
        let refusal = resolve(cluster, BOB, "acme/stories").await.expect_err("nobody bound it");
        assert_eq!(refusal.code, RefusalCode::NotFound);
        for part in [release.to_string().as_str(), "commons pin acme/stories", "signed by"] {
            assert!(refusal.message.contains(part), "{refusal} does not say {part}");
        }
        let bob = cluster.node(BOB).catalogue();
        let denied = bob.bind("acme/stories".to_owned(), Some(release)).await;
        assert_eq!(denied.expect_err("no authority").code, RefusalCode::NotAuthority);
        bob.pin("acme/stories".to_owned(), release).await.expect("the owner may");
        assert_eq!(resolve(cluster, BOB, "acme/stories").await.expect("pinned").release, release);
        resolve(cluster, CAROL, "acme/stories").await.expect_err("Bob's pin is Bob's");

        let authority = cluster.node(AUTHORITY).catalogue();
        let bound = authority.bind("acme/stories".to_owned(), Some(release)).await;
        bound.expect("an authority may");
        let is_bound = || async { resolve(cluster, CAROL, "acme/stories").await.is_ok() };
        until(cluster, "it is bound", Millis::from_secs(240), is_bound).await;
        authority.bind("acme/stories".to_owned(), None).await.expect("an authority may");
        let is_gone = || async { resolve(cluster, CAROL, "acme/stories").await.is_err() };
        until(cluster, "it is withdrawn", Millis::from_secs(240), is_gone).await;
        resolve(cluster, BOB, "acme/stories").await.expect("a pin is the owner's own word");
    });
}

#[test]
fn a_catalogue_is_there_again_after_a_crash() {
    for_each_seed(&SEEDS, |seed| {
        Cluster::play(seed, specs(), async |cluster| {
            let release = publish(cluster, ALICE, "alice/one", "1").await;
            let author = OwnerId::from_key(cluster.config(BOB).owner.public());
            let alice = cluster.node(ALICE).catalogue();
            alice.subscribe(author, true).await.expect("the owner may");
            let block = Block { what: Denied::Blob(Hash::of_content(b"x")), reason: "no".into() };
            let policy = Policy { blocks: vec![block], ..Policy::default() };
            alice.set_policy(policy.clone()).await.expect("the owner may");
            drop(alice);
            cluster.net().split(&[&[ALICE]]);
            cluster.kill(ALICE, Crash::Killed);
            cluster.start(ALICE).await;
            let view = resolve(cluster, ALICE, "alice/one").await.expect("it is on its disk");
            assert_eq!((view.release, view.by), (release, Some(NamedBy::Pin)));
            let alice = cluster.node(ALICE).catalogue();
            assert_eq!(alice.policy().await.expect("it is on its disk"), policy);
            // The next version knows which it replaces.
            let next = publish(cluster, ALICE, "alice/one", "2").await;
            let view = resolve(cluster, ALICE, "alice/one").await.expect("her own word");
            assert_eq!((view.release, view.body.previous), (next, Some(release)));
            let old = resolve(cluster, ALICE, "alice/one@1").await.expect("its predecessor");
            assert_eq!((old.release, old.by), (release, Some(NamedBy::Predecessor(next))));
        });
    });
}

/// As the records of the catalogue travel.
#[derive(Serialize)]
struct Item {
    membership: Option<ByteBuf>,
    record: ByteBuf,
}

fn item<T: Record>(record: &Verified<T>, membership: Option<&[u8]>) -> Vec<u8> {
    let record = ByteBuf::from(record.encode());
    codec::encode(&Item { membership: membership.map(ByteBuf::from), record })
}

fn release(name: &str, version: &str) -> Release {
    let mut files = vec![file("README.md"), file("model.gguf")];
    files.sort_by(|one, next| one.path.cmp(&next.path));
    let body = Release {
        kind: ReleaseKind::Model,
        name: name.parse().expect("a name"),
        version: version.parse().expect("a version"),
        files,
        licence: "MIT".to_owned(),
        lineage: Vec::new(),
        author: "somebody".to_owned(),
        description: String::new(),
        tags: Vec::new(),
        released_unix_ms: Millis(1),
        previous: None,
    };
    body.check().expect("a release");
    body
}

/// A node under an owner that no authority admitted.
fn stranger(mock: &RawPeer<'_>) -> Author {
    let honest = mock.standing().author;
    let owner =
        Author { key: SecretKey::from_seed(&[0x77; 32]), certificate: None, ..honest.clone() };
    let body = NodeCertificate {
        node: PeerId::from_key(honest.key.public()),
        hpke: HpkeKey::from_bytes([1; 32]),
        serial: 1,
        last_epoch: Epoch(1_000),
    };
    let certificate = Certified::from_verified(&owner.sign(1, body));
    Author { certificate: Some(certificate), ..honest }
}

// Rule C5
#[test]
fn a_release_by_a_stranger_is_refused_and_one_by_a_member_is_not() {
    for_each_seed(&SEEDS, |seed| {
        Cluster::play(seed, specs(), async |cluster| {
            let mock = RawPeer::take_over(cluster, CAROL);
            cluster.sleep(Millis::from_secs(2)).await;
            let honest = mock.standing();
            let (forged, stranger) = (mock.forged_standing().author, stranger(&mock));
            let topic = format!("/commons/{}/catalogue/1", &mock.mesh().to_string()[..16]);
            let member = Some(honest.membership.as_slice());
            let own = honest.author.sign(mock.sequence(), release("carol/own", "1"));
            let bad = [
                forged.sign(mock.sequence(), release("carol/forged", "1")),
                stranger.sign(mock.sequence(), release("carol/strange", "1")),
            ];
            let alone = honest.author.sign(mock.sequence(), release("carol/alone", "1"));
            let mut late = honest.author.clone();
            late.epoch = Epoch(late.epoch.0 + 10);
            let late = late.sign(mock.sequence(), release("carol/late", "1"));
            let grab = NameBinding {
                name: "carol/own".parse().expect("a name"),
                version: None,
                release: Some(own.id()),
                serial: 1,
            };
            let key = cluster.config(CAROL).owner;
            let owner = Author { key, certificate: None, ..honest.author.clone() };
            let grab = owner.sign(mock.sequence(), grab);
            let mut messages: Vec<Vec<u8>> = bad.iter().map(|it| item(it, member)).collect();
            messages.push(item(&alone, None));
            messages.push(item(&late, member));
            messages.push(item(&grab, member));
            messages.push(b"garbage".to_vec());
            messages.push(item(&own, member));
            for message in messages {
                let _ = mock.ports.net.publish(topic.clone(), message).await;
            }
            for node in [AUTHORITY, ALICE, BOB] {
                let is_here = || knows(cluster, node, own.id());
                until(cluster, "the member's is here", Millis::from_secs(60), is_here).await;
                for id in [bad[0].id(), bad[1].id(), alone.id(), late.id()] {
                    assert!(!knows(cluster, node, id).await, "{node} keeps {id}");
                }
                let refusal = resolve(cluster, node, "carol/own").await.expect_err("unbound");
                assert!(refusal.message.contains("neither you nor an authority"), "{refusal}");
            }
        });
    });
}

// Rule C4
#[test]
fn a_release_of_a_revoked_key_is_refused_everywhere_and_says_why() {
    for_each_seed(&SEEDS, |seed| {
        Cluster::play(seed, specs(), async |cluster| {
            let before = publish(cluster, ALICE, "acme/stories", "1").await;
            let authority = cluster.node(AUTHORITY).catalogue();
            let is_here = || knows(cluster, AUTHORITY, before);
            until(cluster, "the release is here", Millis::from_secs(240), is_here).await;
            authority.bind("acme/stories".to_owned(), Some(before)).await.expect("it may");
            let is_bound = || async { resolve(cluster, BOB, "acme/stories").await.is_ok() };
            until(cluster, "it is bound", Millis::from_secs(240), is_bound).await;

            let key = cluster.peer(ALICE).into();
            let reason = "the machine was stolen".to_owned();
            let draft = RevocationDraft { key, from: None, kept: Vec::new(), reason };
            authority.revoke(draft).await.expect("an authority may");
            for node in [AUTHORITY, BOB, CAROL] {
                let is_out = || async {
                    let resolved = resolve(cluster, node, "acme/stories").await;
                    resolved.is_err_and(|it| it.message.contains("the machine was stolen"))
                };
                until(cluster, "it says why", Millis::from_secs(240), is_out).await;
            }
            // Who holds the key goes on signing. Nobody listens.
            let mock = RawPeer::take_over(cluster, ALICE);
            cluster.sleep(Millis::from_secs(2)).await;
            let standing = mock.standing();
            let after = standing.author.sign(mock.sequence(), release("acme/stories", "2"));
            let topic = format!("/commons/{}/catalogue/1", &mock.mesh().to_string()[..16]);
            let message = item(&after, Some(&standing.membership));
            let _ = mock.ports.net.publish(topic, message).await;
            cluster.sleep(Millis::from_secs(5)).await;
            for node in [AUTHORITY, BOB, CAROL] {
                assert!(!knows(cluster, node, after.id()).await, "{node} keeps it");
            }
        });
    });
}

/// One clear message.
async fn write(stream: &mut BoxDuplex, message: &[u8]) {
    let length = u32::try_from(message.len()).expect("a small message").to_be_bytes();
    // A peer that hung up is what some of these messages are for.
    let _ = stream.write_all(&[&length, message].concat()).await;
    let _ = stream.flush().await;
}

async fn read(stream: &mut BoxDuplex) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.ok()?;
    let mut message = vec![0; usize::try_from(u32::from_be_bytes(length)).ok()?];
    stream.read_exact(&mut message).await.ok()?;
    Some(message)
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Lie {
    Digest(Hash),
    Ids { ids: Vec<Hash>, is_all: bool },
    Item(Item),
}

/// Says hello, so that the node asks what there is, and answers with these.
async fn lie(mock: &RawPeer<'_>, answers: Vec<Vec<u8>>) -> usize {
    let mut incoming = mock.accept("catalogue/1");
    let standing = mock.standing();
    let body = Presence {
        addrs: Vec::new(),
        models: Vec::new(),
        capability: Capability { device: "cpu".to_owned(), threads: 1, memory_mib: 1 },
        lease_ms: PRESENCE_LEASE_MAX,
        membership: ByteBuf::from(standing.membership.clone()),
    };
    let presence = standing.author.sign(mock.sequence(), body).encode();
    let mut hello = mock.open(AUTHORITY, "hello/1").await.expect("it is reachable");
    write(&mut hello, &presence).await;
    let _ = read(&mut hello).await;
    let mut stream = incoming.next().await.expect("it asks").stream;
    let mut heard = 0;
    for answer in answers {
        if read(&mut stream).await.is_none() {
            break;
        }
        heard += 1;
        write(&mut stream, &answer).await;
    }
    while read(&mut stream).await.is_some() {
        heard += 1;
    }
    heard
}

// Rule C9
#[test]
fn a_peer_that_lies_about_what_it_has_costs_itself_alone() {
    for_each_seed(&SEEDS, |seed| {
        Cluster::play(seed, specs(), async |cluster| {
            let mock = RawPeer::take_over(cluster, CAROL);
            cluster.sleep(Millis::from_secs(2)).await;
            let honest = mock.standing();
            let record = |name: &str| {
                let record = honest.author.sign(mock.sequence(), release(name, "1"));
                let membership = Some(ByteBuf::from(honest.membership.clone()));
                (record.id(), Item { membership, record: ByteBuf::from(record.encode()) })
            };
            let id = |byte| Hash::from_bytes([byte; 32]);
            let digest = || codec::encode(&Lie::Digest(id(1)));
            let ids = |ids: Vec<Hash>, is_all| codec::encode(&Lie::Ids { ids, is_all });
            let (swapped, sent) = record("carol/swapped");
            let many = (0..3_000_u32).map(|at| {
                let mut bytes = [0; 32];
                bytes[..4].copy_from_slice(&at.to_be_bytes());
                Hash::from_bytes(bytes)
            });
            for (answers, heard) in [
                (vec![b"garbage".to_vec()], 1),
                (vec![ids(vec![id(1)], true)], 1),
                (vec![digest(), digest()], 2),
                (vec![digest(), ids(vec![id(2), id(1)], true)], 2),
                (vec![digest(), ids(many.collect(), true)], 2),
                (vec![digest(), ids(vec![id(9)], true), codec::encode(&Lie::Item(sent))], 3),
            ] {
                assert_eq!(lie(&mock, answers).await, heard);
            }
            assert!(!knows(cluster, AUTHORITY, swapped).await, "it was not asked for");
            // What it has is taken from the same peer when it tells the truth.
            let (told, sent) = record("carol/told");
            let answers = vec![digest(), ids(vec![told], true), codec::encode(&Lie::Item(sent))];
            lie(&mock, answers).await;
            assert!(knows(cluster, AUTHORITY, told).await, "it is a member's");
            let own = publish(cluster, AUTHORITY, "acme/stories", "1").await;
            let is_here = || knows(cluster, BOB, own);
            until(cluster, "others go on", Millis::from_secs(240), is_here).await;
        });
    });
}

// Rule C8
#[test]
fn a_denylist_reaches_who_subscribed_and_names_its_entry() {
    Cluster::play(9, specs(), async |cluster| {
        let release = publish(cluster, AUTHORITY, "acme/stories", "1").await;
        let bob = OwnerId::from_key(cluster.config(BOB).owner.public());
        let entry = DenyEntry {
            what: Denied::Blob(file("model.gguf").blob),
            code: DenyCode::Malware,
            reason: "its loader opens a shell".to_owned(),
        };
        let list =
            cluster.node(BOB).catalogue().publish_denylist("loaders".to_owned(), vec![entry]);
        list.await.expect("anyone may");
        let carol = cluster.node(CAROL).catalogue();
        let has_both = || async {
            let lists = carol.denylists().await.expect("it answers");
            !lists.is_empty() && knows(cluster, CAROL, release).await
        };
        until(cluster, "the list is here", Millis::from_secs(240), has_both).await;
        let judged = commons_node::api::catalogue::Judged::Release(release);
        carol.may(Act::Hold, judged).await.expect("she listens to nobody");
        carol.subscribe(bob, true).await.expect("the owner may");
        let refusal = carol.may(Act::Hold, judged).await.expect_err("it is listed");
        assert_eq!(refusal.code, RefusalCode::Denied);
        for part in ["entry 1", "\"loaders\"", &bob.to_string(), "its loader opens a shell"] {
            assert!(refusal.message.contains(part), "{refusal} does not say {part}");
        }
    });
}

#[test]
fn a_draft_that_cannot_be_a_release_says_what_is_wrong() {
    Cluster::play(11, vec![NodeSpec::default(); 2], async |cluster| {
        let alice = cluster.node(ALICE).catalogue();
        let change = |change: fn(&mut ReleaseDraft)| {
            let mut draft = draft("a/b", "1");
            change(&mut draft);
            draft
        };
        for (draft, code, words) in [
            (change(|it| it.licence = String::new()), RefusalCode::InvalidRequest, "licence"),
            (change(|it| it.licence = "Llama-3".into()), RefusalCode::InvalidRequest, "LicenseRef"),
            (change(|it| it.licence = "NOASSERTION".into()), RefusalCode::Denied, "NOASSERTION"),
            (change(|it| it.files.clear()), RefusalCode::InvalidRequest, "files are none"),
            (
                change(|it| it.files = vec![file("a"), file("a")]),
                RefusalCode::InvalidRequest,
                "order of their paths",
            ),
        ] {
            let refusal = alice.publish(draft).await.expect_err(words);
            assert!(refusal.code == code && refusal.message.contains(words), "{refusal:?}");
        }
        let found = alice.search(Search::default()).await.expect("it answers");
        assert!(found.is_empty(), "nothing was signed: {found:?}");
    });
}

// Rule C7
#[test]
fn a_hub_shows_what_names_mean_and_says_why_it_does_not() {
    Cluster::play(13, vec![NodeSpec::default(); 2], async |cluster| {
        let mut model = draft("acme/stories", "1");
        model.tags = vec!["gguf".to_owned()];
        let authority = cluster.node(AUTHORITY);
        let release = authority.catalogue().publish(model).await.expect("it may").release;
        let mut data = draft("acme/tales", "1");
        data.kind = ReleaseKind::DataSet;
        authority.catalogue().publish(data).await.expect("it may");
        let claimed = publish(cluster, ALICE, "alice/claimed", "1").await;
        let is_here = || knows(cluster, AUTHORITY, claimed);
        until(cluster, "Alice's is here", Millis::from_secs(240), is_here).await;

        let hub = authority.hub_with(Arc::new(|_file, _offset, _len| Box::pin(stream::empty())));
        let repo =
            |kind, id: &str, revision: &str| hub.repo(kind, id.to_owned(), revision.to_owned());
        let commit = Release::commit_of(&release);
        for revision in ["main", "1", &commit] {
            let found = repo(RepoKind::Model, "acme/stories", revision).await.expect(revision);
            let paths: Vec<&str> = found.files.iter().map(|it| it.path.as_str()).collect();
            assert_eq!((&found.commit, paths), (&commit, vec!["README.md", "model.gguf"]));
        }
        let error =
            async |kind, id: &str, revision: &str| repo(kind, id, revision).await.unwrap_err();
        let none = error(RepoKind::Model, "acme/other", "main").await;
        assert!(matches!(none, HubError::NoRepo { .. }), "{none}");
        let none = error(RepoKind::Model, "../etc", "main").await;
        assert!(matches!(none, HubError::NoRepo { .. }), "{none}");
        let none = error(RepoKind::Dataset, "acme/stories", "main").await;
        assert!(matches!(none, HubError::NoRepo { .. }), "{none}");
        let none = error(RepoKind::Model, "acme/stories", "2").await;
        assert!(matches!(none, HubError::NoRevision { .. }), "{none}");
        let claimed = error(RepoKind::Model, "alice/claimed", "main").await.to_string();
        assert!(claimed.contains("commons pin alice/claimed"), "{claimed}");

        let search = async |kind, query: &str| -> Vec<String> {
            let found = hub.search(kind, query.to_owned(), 9).await.expect("it answers");
            found.into_iter().map(|it| it.id).collect()
        };
        assert_eq!(search(RepoKind::Model, "").await, ["acme/stories"]);
        assert_eq!(search(RepoKind::Model, "GGUF acme").await, ["acme/stories"]);
        assert_eq!(search(RepoKind::Model, "tales").await, [""; 0]);
        assert_eq!(search(RepoKind::Dataset, "tales").await, ["acme/tales"]);

        let what = Denied::Name("acme/stories".parse().expect("a name"));
        let block = Block { what, reason: "not in this house".to_owned() };
        let policy = Policy { blocks: vec![block], ..Policy::default() };
        authority.catalogue().set_policy(policy).await.expect("the owner may");
        let denied = error(RepoKind::Model, "acme/stories", "main").await.to_string();
        assert!(denied.contains("not in this house"), "{denied}");
        assert_eq!(search(RepoKind::Model, "").await, [""; 0]);
    });
}
