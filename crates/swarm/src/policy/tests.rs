//! Each rule says no by its own name, and only those who subscribed hear a list.

use commons_record::catalogue::DenyEntry;
use commons_record::{PublicKey, SecretKey};
use proptest::prelude::*;

use super::*;

fn hash(byte: u8) -> Hash {
    Hash::from_bytes([byte; 32])
}

fn author() -> OwnerId {
    let key: PublicKey = SecretKey::from_seed(&[9; 32]).public();
    OwnerId::from_key(key)
}

fn name(text: &str) -> RepoName {
    text.parse().expect("a name")
}

fn only(ids: &[&str]) -> Licences {
    Licences::Only(ids.iter().map(|it| it.parse().expect("a licence")).collect())
}

fn list(what: Denied) -> Denylist {
    let fine = DenyEntry {
        what: Denied::Blob(hash(0xee)),
        code: DenyCode::Other,
        reason: "something else".into(),
    };
    let entry = DenyEntry { what, code: DenyCode::Malware, reason: "it opens a shell".into() };
    Denylist { title: "loaders".into(), serial: 1, entries: vec![fine, entry] }
}

/// What every rule is fine with, judged after a change of the policy and of the subject.
fn check(
    policy: &Policy,
    change: impl FnOnce(&mut Subject<'_>),
    lists: &[Denylist],
) -> Result<(), Denial> {
    let (name, blobs) = (name("acme/stories"), [hash(1), hash(2)]);
    let names = [&name];
    let mut subject = Subject {
        names: &names,
        release: Some(hash(7)),
        kind: ReleaseKind::Model,
        licence: Some("MIT OR Apache-2.0"),
        size: Some(1_000),
        blobs: &blobs,
    };
    change(&mut subject);
    let lists = lists.iter().map(|list| Subscribed { author: author(), list });
    policy.judge(Act::Seed, &subject, lists)
}

// Rule C7
#[test]
fn every_refusal_names_its_rule() {
    let seed = |rules: Rules| Policy { seed: rules, ..Policy::default() };
    let block = |what| {
        let blocks = vec![Block { what, reason: "not in this house".into() }];
        Policy { blocks, ..Policy::default() }
    };
    let none = |_: &mut Subject<'_>| {};
    let rules = Rules::default;
    for (denied, code, words) in [
        (check(&block(Denied::Blob(hash(2))), none, &[]), "blocked", "not in this house"),
        (check(&block(Denied::Release(hash(7))), none, &[]), "blocked", "release 0707"),
        (check(&block(Denied::Name(name("ACME/Stories"))), none, &[]), "blocked", "ACME/Stories"),
        (
            check(&seed(Rules { kinds: Some(BTreeSet::new()), ..rules() }), none, &[]),
            "kind",
            "kind model",
        ),
        (
            check(&seed(Rules { size_max: Some(999), ..rules() }), none, &[]),
            "too_large",
            "1000 bytes are more than the 999",
        ),
        (check(&Policy::default(), |it| it.size = None, &[]), "size_unknown", "not known"),
        (check(&Policy::default(), |it| it.licence = None, &[]), "no_licence", "NOASSERTION"),
        (
            check(&Policy::default(), |it| it.licence = Some("NOASSERTION"), &[]),
            "no_licence",
            "NOASSERTION",
        ),
        (
            check(&Policy::default(), |it| it.licence = Some("Llama-3"), &[]),
            "licence_unreadable",
            "Llama-3",
        ),
        (
            check(&seed(Rules { licences: only(&["ISC"]), ..rules() }), none, &[]),
            "licence_not_listed",
            "MIT OR Apache-2.0",
        ),
    ] {
        let denial = denied.expect_err(code);
        assert_eq!(denial.code(), code, "{denial}");
        let sentence = denial.to_string();
        assert!(sentence.contains(words) && sentence.contains("seeded"), "{sentence}");
    }
}

#[test]
fn what_every_rule_is_fine_with_is_allowed() {
    let rules = Rules {
        licences: only(&["Apache-2.0"]),
        size_max: Some(1_000),
        kinds: Some([ReleaseKind::Model].into()),
        allows_noassertion: false,
    };
    let policy = Policy { seed: rules, ..Policy::default() };
    check(&policy, |_| {}, &[list(Denied::Blob(hash(3)))]).expect("nothing is against it");
    let loose = Rules { allows_noassertion: true, ..Rules::default() };
    let loose = Policy { seed: loose, ..Policy::default() };
    check(&loose, |it| it.licence = None, &[]).expect("the owner said that it may");
    check(&loose, |it| it.licence = Some("Llama-3"), &[]).expect_err("unreadable is not absent");
}

// Rule C8
#[test]
fn a_denylist_acts_on_those_who_subscribed_and_names_its_entry() {
    for what in
        [Denied::Blob(hash(1)), Denied::Release(hash(7)), Denied::Name(name("acme/STORIES"))]
    {
        let denial = check(&Policy::default(), |_| {}, &[list(what)]).expect_err("it is listed");
        let sentence = denial.to_string();
        for part in ["entry 2", "\"loaders\"", &author().to_string(), "malware", "opens a shell"] {
            assert!(sentence.contains(part), "{sentence} does not say {part}");
        }
    }
    check(&Policy::default(), |_| {}, &[]).expect("nobody subscribed");
}

#[test]
fn rules_of_one_act_say_nothing_of_another() {
    let closed = Rules { size_max: Some(0), ..Rules::default() };
    let policy = Policy { seed: closed, ..Policy::default() };
    let blobs = [hash(1)];
    let subject = Subject {
        names: &[],
        release: None,
        kind: ReleaseKind::Other,
        licence: Some("MIT"),
        size: Some(1),
        blobs: &blobs,
    };
    for (act, is_allowed) in [(Act::Hold, true), (Act::Seed, false), (Act::Publish, true)] {
        assert_eq!(policy.judge(act, &subject, []).is_ok(), is_allowed, "{act}");
    }
}

proptest! {
    /// More rules never allow more: a tighter policy refuses all that a looser one refuses.
    #[test]
    fn a_tighter_policy_allows_no_more(
        size: Option<u64>,
        max in prop::option::of(0..4_u64),
        licence in prop::sample::select(vec![None, Some("MIT"), Some("NOASSERTION"), Some("bad licence"), Some("ISC AND MIT")]),
        is_blocked: bool,
        is_listed: bool,
    ) {
        let size = size.map(|it| it % 6);
        let loose = Policy { seed: Rules { size_max: max.map(|it| it + 1), ..Rules::default() }, ..Policy::default() };
        let mut tight = Policy {
            seed: Rules { size_max: max, licences: only(&["MIT"]), ..Rules::default() },
            ..Policy::default()
        };
        if is_blocked {
            tight.blocks.push(Block { what: Denied::Release(hash(7)), reason: "no".into() });
        }
        let lists = if is_listed { vec![list(Denied::Blob(hash(2)))] } else { Vec::new() };
        let change = |it: &mut Subject<'_>| {
            it.size = size;
            it.licence = licence;
        };
        let (in_loose, in_tight) = (check(&loose, change, &[]), check(&tight, change, &lists));
        prop_assert!(in_loose.is_ok() || in_tight.is_err(), "{in_loose:?} {in_tight:?}");
        prop_assert!(!(is_blocked || is_listed) || in_tight.is_err());
    }
}
