//! Names that nobody can take over, shelves that nobody can flood, walks that end.

use commons_record::catalogue::{
    Denied, DenyCode, DenyEntry, Derivation, Relation, ReleaseFile, ReleaseKind,
};
use commons_record::envelope::{Author, Certified, Record as _};
use commons_record::mesh::NodeCertificate;
use commons_record::{HpkeKey, Millis, SecretKey};
use proptest::prelude::*;

use super::*;

mod names;
mod room;

/// Owners: the first is the authority.
const AUTHORITY: u8 = 1;
const ALICE: u8 = 2;
const MALLORY: u8 = 3;

fn hash(byte: u8) -> Hash {
    Hash::from_bytes([byte; 32])
}

fn key(number: u8) -> SecretKey {
    SecretKey::from_seed(&[number; 32])
}

fn owner_id(number: u8) -> OwnerId {
    OwnerId::from_key(key(number).public())
}

fn owner(number: u8) -> Author {
    Author { key: key(number), mesh: hash(0xaa), epoch: Epoch(5), certificate: None }
}

/// The key of an owner's node.
fn node_key(of: u8) -> SecretKey {
    key(of ^ 0x80)
}

fn node(of: u8) -> Author {
    let body = NodeCertificate {
        node: PeerId::from_key(node_key(of).public()),
        hpke: HpkeKey::from_bytes([0; 32]),
        serial: 1,
        last_epoch: Epoch(1_000),
    };
    let certificate = Certified::from_verified(&owner(of).sign(1, body));
    Author { key: node_key(of), certificate: Some(certificate), ..owner(of) }
}

fn repo(text: &str) -> RepoName {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn version(text: &str) -> Version {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn name_ref(text: &str) -> NameRef {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn release(name: &str, label: &str) -> Release {
    let body = Release {
        kind: ReleaseKind::Model,
        name: repo(name),
        version: version(label),
        files: vec![ReleaseFile {
            path: "model.gguf".parse().expect("a path"),
            blob: Hash::of_content(format!("{name}@{label}").as_bytes()),
            size: 10,
            sha256: None,
            recipe: None,
        }],
        licence: "MIT".into(),
        lineage: Vec::new(),
        author: "a person".into(),
        description: String::new(),
        tags: Vec::new(),
        released_unix_ms: Millis(1_000),
        previous: None,
    };
    body.check().expect("a release");
    body
}

fn binding(name: &str, label: Option<&str>, release: Option<Hash>, serial: u64) -> NameBinding {
    NameBinding { name: repo(name), version: label.map(version), release, serial }
}

fn revocation(key: PublicKey) -> Revocation {
    Revocation { key, from: None, kept: Vec::new(), reason: "the machine was stolen".into() }
}

fn denylist(title: &str, serial: u64) -> Denylist {
    let what = Denied::Blob(hash(1));
    let entry = DenyEntry { what, code: DenyCode::Malware, reason: "it opens a shell".into() };
    Denylist { title: title.into(), serial, entries: vec![entry] }
}

fn catalogue() -> Catalogue {
    Catalogue::new([owner_id(AUTHORITY)], Limits::default())
}

/// Has an owner's node publish; the record's id.
fn publish(catalogue: &mut Catalogue, of: u8, sequence: u64, body: Release) -> Hash {
    let record = node(of).sign(sequence, body);
    let admission = catalogue.admit_release(&record);
    assert_eq!(admission, Admission::Kept { gone: Vec::new() });
    record.id()
}

fn bind(catalogue: &mut Catalogue, sequence: u64, body: NameBinding) -> Hash {
    let record = owner(AUTHORITY).sign(sequence, body);
    let admission = catalogue.admit_binding(&record);
    assert!(matches!(admission, Admission::Kept { .. }), "{admission:?}");
    record.id()
}

fn resolved(catalogue: &Catalogue, name: &str) -> Hash {
    let resolved = catalogue.resolve(&name_ref(name));
    resolved.unwrap_or_else(|error| panic!("{name}: {error}")).listed.id
}

fn unresolved(catalogue: &Catalogue, name: &str) -> String {
    match catalogue.resolve(&name_ref(name)) {
        Err(error) => error.to_string(),
        Ok(resolved) => panic!("{name} is {}", resolved.listed.id),
    }
}

#[test]
fn a_search_wants_all_words_and_has_one_order() {
    let mut catalogue = catalogue();
    let tagged = Release {
        tags: vec!["German".into(), "poetry".into()],
        description: "Short poems.".into(),
        ..release("b/poet", "1")
    };
    let poet = publish(&mut catalogue, ALICE, 1, tagged.clone());
    let newer = Release {
        version: version("2"),
        released_unix_ms: Millis(2_000),
        kind: ReleaseKind::Adapter,
        ..tagged
    };
    let newer = publish(&mut catalogue, ALICE, 2, newer);
    let other = publish(&mut catalogue, MALLORY, 3, release("A/poet", "1"));
    let found = |query: &str, kind, limit| -> Vec<Hash> {
        catalogue.search(query, kind, limit).into_iter().map(|it| it.id).collect()
    };
    for (query, kind, limit, want) in [
        ("poet", None, 9, &[other, newer, poet][..]),
        ("POET german", None, 9, &[newer, poet]),
        ("poet german", Some(ReleaseKind::Model), 9, &[poet]),
        ("short POEMS b/", None, 9, &[newer, poet]),
        ("poet french", None, 9, &[]),
        ("", None, 2, &[other, newer]),
        ("poet", None, 0, &[]),
    ] {
        assert_eq!(found(query, kind, limit), want, "{query:?} {kind:?} {limit}");
    }
}

fn from(relation: Relation, release: Option<Hash>, blob: Option<Hash>) -> Derivation {
    Derivation { relation, release, blob, label: None }
}

#[test]
fn a_lineage_tells_every_parent_and_who_says_so() {
    let mut catalogue = catalogue();
    let base = publish(&mut catalogue, ALICE, 1, release("a/base", "1"));
    let blob = catalogue.release(&base).expect("it is here").release.files[0].blob;
    let tuned = Release {
        lineage: vec![
            from(Relation::FineTunedFrom, Some(base), None),
            from(Relation::TrainedOn, None, Some(hash(0x77))),
        ],
        ..release("a/tuned", "1")
    };
    let tuned = publish(&mut catalogue, ALICE, 2, tuned);
    let merged = Release {
        lineage: vec![
            from(Relation::MergedFrom, Some(tuned), None),
            from(Relation::MergedFrom, None, Some(blob)),
            from(Relation::DistilledFrom, Some(hash(0x78)), None),
        ],
        ..release("m/merged", "1")
    };
    let merged = publish(&mut catalogue, MALLORY, 3, merged);
    let lineage = catalogue.lineage(&merged).expect("it is here");
    let told: Vec<_> = lineage
        .steps
        .iter()
        .map(|step| {
            let parent = match step.parent {
                Parent::Known(it) => format!("{}", it.release.name),
                Parent::Again(it) => format!("{} again", it.release.name),
                Parent::Unknown => "unknown".to_owned(),
            };
            let by = if step.by() == owner_id(MALLORY) { "mallory" } else { "alice" };
            format!("{} {} {parent} by {by}", step.depth, step.derivation.relation)
        })
        .collect();
    assert_eq!(
        told,
        [
            "1 merged-from a/tuned by mallory",
            "2 fine-tuned-from a/base by alice",
            "2 trained-on unknown by alice",
            "1 merged-from a/base again by mallory",
            "1 distilled-from unknown by mallory",
        ]
    );
    assert!(!lineage.is_cut);
    assert!(catalogue.lineage(&hash(0x79)).is_none());
}

#[test]
fn a_lineage_in_a_circle_ends() {
    let mut catalogue = catalogue();
    // By file each says to come from the other.
    let mut one = release("a/one", "1");
    let mut other = release("a/other", "1");
    one.lineage = vec![from(Relation::MergedFrom, None, Some(other.files[0].blob)); 3];
    other.lineage = vec![from(Relation::MergedFrom, None, Some(one.files[0].blob)); 3];
    let one = publish(&mut catalogue, ALICE, 1, one);
    publish(&mut catalogue, ALICE, 2, other);
    let lineage = catalogue.lineage(&one).expect("it is here");
    assert_eq!(lineage.steps.len(), 6, "each derivation of each release, once");
    assert!(!lineage.is_cut);
}

#[test]
fn a_lineage_that_is_too_long_says_that_it_was_cut() {
    let mut catalogue = catalogue();
    let mut last = publish(&mut catalogue, ALICE, 1, release("a/m", "v0"));
    for step in 1..=LINEAGE_DEPTH_MAX as u64 + 2 {
        let lineage = vec![from(Relation::FineTunedFrom, Some(last), None)];
        let body = Release { lineage, ..release("a/m", &format!("v{step}")) };
        last = publish(&mut catalogue, ALICE, 1 + step, body);
    }
    let lineage = catalogue.lineage(&last).expect("it is here");
    assert_eq!(lineage.steps.len(), LINEAGE_DEPTH_MAX);
    assert!(lineage.is_cut);
}

// Rule C8
#[test]
fn a_denylist_is_heard_by_those_who_subscribed_and_a_later_one_replaces_it() {
    let mut catalogue = catalogue();
    let first = owner(ALICE).sign(1, denylist("loaders", 1));
    assert_eq!(catalogue.admit_denylist(&first), Admission::Kept { gone: Vec::new() });
    assert_eq!(catalogue.subscribed().count(), 0);
    catalogue.subscribe(owner_id(ALICE), true);
    assert_eq!(catalogue.subscribed().next().expect("one").list, first.body());
    let second = owner(ALICE).sign(2, denylist("loaders", 2));
    assert_eq!(catalogue.admit_denylist(&second), Admission::Kept { gone: vec![first.id()] });
    assert!(matches!(
        catalogue.admit_denylist(&first),
        Admission::Refused(NotKept::Stale { known: 2, found: 1 })
    ));
    assert_eq!(catalogue.subscribed().count(), 1);
    catalogue.subscribe(owner_id(ALICE), false);
    assert_eq!(catalogue.subscribed().count(), 0);
}

#[test]
fn denylists_of_strangers_take_bounded_room_and_subscribed_ones_find_it() {
    let limits = Limits { denylists: 3, denylists_per_author: 2, ..Limits::default() };
    let mut catalogue = Catalogue::new([owner_id(AUTHORITY)], limits);
    let admit = |catalogue: &mut Catalogue, of, title: &str| {
        let record = owner(of).sign(1, denylist(title, 1));
        matches!(catalogue.admit_denylist(&record), Admission::Kept { .. })
    };
    assert!(admit(&mut catalogue, MALLORY, "a") && admit(&mut catalogue, MALLORY, "b"));
    assert!(!admit(&mut catalogue, MALLORY, "c"), "its share is used up");
    assert!(admit(&mut catalogue, 10, "a"));
    assert!(!admit(&mut catalogue, 11, "a"), "there is no room for more");
    catalogue.subscribe(owner_id(ALICE), true);
    assert!(admit(&mut catalogue, ALICE, "a"), "but for one that is wanted");
}
