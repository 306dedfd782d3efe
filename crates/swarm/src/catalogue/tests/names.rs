//! Who decides what a name means, and whose word does not count.

use super::*;

// Rule C2
#[test]
fn a_name_means_what_was_pinned_else_what_was_bound_and_nothing_else() {
    let mut catalogue = catalogue();
    let good = publish(&mut catalogue, ALICE, 1, release("acme/m", "1"));
    let evil = Release { released_unix_ms: Millis(u64::MAX), ..release("ACME/M", "1") };
    let evil = publish(&mut catalogue, MALLORY, 99, evil);

    let told = unresolved(&catalogue, "acme/m");
    for part in [&good.to_string(), &owner_id(MALLORY).to_string(), "commons pin acme/m RELEASE"] {
        assert!(told.contains(part), "{told} does not say {part}");
    }
    bind(&mut catalogue, 1, binding("acme/m", None, Some(good), 1));
    for name in ["acme/m", "Acme/M", "acme/m@main", "acme/m@HEAD", "acme/m@1"] {
        assert_eq!(resolved(&catalogue, name), good, "{name}");
    }
    let by = catalogue.resolve(&name_ref("acme/m")).expect("it is bound").by;
    assert_eq!(by, By::Authority(owner_id(AUTHORITY)));
    catalogue.pin(&repo("acme/m"), None, evil).expect("the owner may");
    assert_eq!(resolved(&catalogue, "acme/m"), evil);
    assert!(catalogue.unpin(&repo("acme/M"), None));
    assert!(!catalogue.unpin(&repo("acme/m"), None));
    assert_eq!(resolved(&catalogue, "acme/m"), good);
    assert!(unresolved(&catalogue, "acme/other").contains("nothing is called acme/other"));
}

// Rule C2
#[test]
fn a_commit_is_found_by_its_hash_alone() {
    let mut catalogue = catalogue();
    let good = publish(&mut catalogue, ALICE, 1, release("acme/m", "1"));
    let commit = &good.to_string()[..40];
    for name in [format!("acme/m@{commit}"), format!("acme/m@{good}")] {
        assert_eq!(resolved(&catalogue, &name), good, "{name}");
    }
    assert!(unresolved(&catalogue, &format!("acme/n@{commit}")).contains("no release"));
    let other = "0".repeat(40);
    assert!(unresolved(&catalogue, &format!("acme/m@{other}")).contains(&other));
    // A name that means a release of another name: its commit is found under both.
    bind(&mut catalogue, 1, binding("mirror/m", None, Some(good), 1));
    assert_eq!(resolved(&catalogue, &format!("mirror/m@{commit}")), good);
}

#[test]
fn an_older_version_is_believed_where_the_current_one_names_it() {
    let mut catalogue = catalogue();
    let old = publish(&mut catalogue, ALICE, 1, release("acme/m", "1"));
    let new = Release { previous: Some(old), ..release("acme/m", "2") };
    let new = publish(&mut catalogue, ALICE, 2, new);
    publish(&mut catalogue, MALLORY, 1, release("acme/m", "0"));
    assert!(unresolved(&catalogue, "acme/m@1").contains("no release 1"));
    bind(&mut catalogue, 1, binding("acme/m", None, Some(new), 1));
    assert_eq!(resolved(&catalogue, "acme/m@2"), new);
    assert_eq!(resolved(&catalogue, "acme/m@1"), old);
    let by = catalogue.resolve(&name_ref("acme/m@1")).expect("it is named").by;
    assert_eq!(by, By::Predecessor(new));
    let told = unresolved(&catalogue, "acme/m@0");
    assert!(told.contains("no release 0"), "a stranger's version is nobody's predecessor: {told}");
    bind(&mut catalogue, 2, binding("acme/m", Some("1"), None, 1));
    assert!(unresolved(&catalogue, "acme/m@1").contains("withdrew"));
}

// Rule C3
#[test]
fn a_later_binding_replaces_and_an_earlier_one_does_not_come_back() {
    let mut catalogue = catalogue();
    let one = publish(&mut catalogue, ALICE, 1, release("acme/m", "1"));
    let two = publish(&mut catalogue, ALICE, 2, release("acme/m", "2"));
    let first = owner(AUTHORITY).sign(1, binding("acme/m", None, Some(one), 1));
    assert_eq!(catalogue.next_serial(&repo("acme/m"), None), 1);
    assert_eq!(catalogue.admit_binding(&first), Admission::Kept { gone: Vec::new() });
    assert_eq!(catalogue.admit_binding(&first), Admission::Known);
    assert_eq!(catalogue.next_serial(&repo("Acme/M"), None), 2);
    let second = owner(AUTHORITY).sign(2, binding("Acme/M", None, Some(two), 2));
    assert_eq!(catalogue.admit_binding(&second), Admission::Kept { gone: vec![first.id()] });
    let stale = Admission::Refused(NotKept::Stale { known: 2, found: 1 });
    assert_eq!(catalogue.admit_binding(&first), stale);
    assert_eq!(resolved(&catalogue, "acme/m"), two);
    bind(&mut catalogue, 3, binding("acme/m", None, None, 3));
    assert!(unresolved(&catalogue, "acme/m").contains("withdrew the name acme/m"));
    assert!(!catalogue.is_named(&one) && !catalogue.is_named(&two));
}

// Rule C3
#[test]
fn two_bindings_of_one_serial_are_settled_alike_everywhere() {
    let (one, two) = (hash(1), hash(2));
    let records = [
        owner(AUTHORITY).sign(1, binding("acme/m", None, Some(one), 1)),
        owner(AUTHORITY).sign(2, binding("acme/m", None, Some(two), 1)),
    ];
    let after = |order: [usize; 2]| {
        let mut catalogue = catalogue();
        for at in order {
            catalogue.admit_binding(&records[at]);
        }
        catalogue.resolve(&name_ref("acme/m")).expect_err("neither is here").to_string()
    };
    assert_eq!(after([0, 1]), after([1, 0]));
}

// Rule C2
#[test]
fn only_an_authority_binds() {
    let mut catalogue = catalogue();
    let evil = publish(&mut catalogue, MALLORY, 1, release("acme/m", "1"));
    let record = owner(MALLORY).sign(2, binding("acme/m", None, Some(evil), 9));
    let refused = Admission::Refused(NotKept::NoAuthority { owner: owner_id(MALLORY) });
    assert_eq!(catalogue.admit_binding(&record), refused);
    assert!(unresolved(&catalogue, "acme/m").contains("neither you nor an authority"));
}

#[test]
fn a_pin_is_for_a_release_that_was_seen_and_outlives_a_restart() {
    let mut catalogue = catalogue();
    let record = node(ALICE).sign(1, release("acme/m", "1"));
    let name = repo("acme/m");
    let unknown = catalogue.pin(&name, None, record.id());
    assert_eq!(unknown, Err(PinError::Unknown { release: record.id() }));
    catalogue.restore_pin(&name, None, record.id()).expect("there is room");
    assert!(unresolved(&catalogue, "acme/m").contains("has not come here yet"));
    catalogue.admit_release(&record);
    assert_eq!(resolved(&catalogue, "acme/m"), record.id());
    assert_eq!(catalogue.pins().count(), 1);
    assert_eq!(catalogue.names().collect::<Vec<_>>(), [&name]);
}

// Rule C4
#[test]
fn a_release_of_a_revoked_key_no_longer_resolves_and_says_why() {
    for (signer, key_of, is_out) in [
        (ALICE, node_key(ALICE).public(), true),
        (ALICE, key(ALICE).public(), true),
        (AUTHORITY, node_key(ALICE).public(), true),
        (AUTHORITY, key(ALICE).public(), true),
        (MALLORY, node_key(ALICE).public(), false),
        (MALLORY, key(ALICE).public(), false),
    ] {
        let mut catalogue = catalogue();
        let id = publish(&mut catalogue, ALICE, 1, release("acme/m", "1"));
        catalogue.pin(&repo("acme/m"), None, id).expect("it is here");
        let record = owner(signer).sign(1, revocation(key_of));
        assert_eq!(catalogue.admit_revocation(&record), Admission::Kept { gone: Vec::new() });
        if !is_out {
            assert_eq!(resolved(&catalogue, "acme/m"), id);
            continue;
        }
        for name in ["acme/m".to_owned(), format!("acme/m@{id}")] {
            let told = unresolved(&catalogue, &name);
            for part in [&key_of.to_string(), "the machine was stolen", "revoked by"] {
                assert!(told.contains(part), "{told} does not say {part}");
            }
        }
        assert!(catalogue.search("", None, 9).is_empty());
        let again = catalogue.pin(&repo("acme/n"), None, id);
        assert!(matches!(again, Err(PinError::Revoked { .. })), "{again:?}");
        let next = catalogue.admit_release(&node(ALICE).sign(2, release("acme/m", "2")));
        assert!(matches!(next, Admission::Refused(NotKept::Revoked { .. })), "{next:?}");
    }
}

// Rule C4
#[test]
fn a_revocation_spares_what_it_names_and_is_never_loosened() {
    let mut catalogue = catalogue();
    let id = publish(&mut catalogue, ALICE, 1, release("acme/m", "1"));
    let key = node_key(ALICE).public();
    let mild = Revocation { kept: vec![id], ..revocation(key) };
    let mild = owner(ALICE).sign(2, mild);
    assert_eq!(catalogue.admit_revocation(&mild), Admission::Kept { gone: Vec::new() });
    catalogue.pin(&repo("acme/m"), None, id).expect("it still counts");
    let harsh = owner(ALICE).sign(3, revocation(key));
    assert_eq!(catalogue.admit_revocation(&harsh), Admission::Kept { gone: vec![mild.id()] });
    assert!(unresolved(&catalogue, "acme/m").contains("revoked"));
    let late = Revocation { from: Some(Epoch(99)), ..revocation(key) };
    let late = catalogue.admit_revocation(&owner(ALICE).sign(4, late));
    assert!(matches!(late, Admission::Refused(NotKept::Stale { .. })), "{late:?}");
    assert!(unresolved(&catalogue, "acme/m").contains("revoked"));
}

// Rule C4
#[test]
fn what_a_revoked_authority_bound_goes_and_can_be_bound_anew() {
    const SECOND: u8 = 4;
    let authorities = [owner_id(AUTHORITY), owner_id(SECOND)];
    let mut catalogue = Catalogue::new(authorities, Limits::default());
    let good = publish(&mut catalogue, ALICE, 1, release("acme/m", "1"));
    let stolen = owner(AUTHORITY).sign(1, binding("acme/m", None, Some(hash(9)), u64::MAX));
    catalogue.admit_binding(&stolen);
    let list = owner(AUTHORITY).sign(2, denylist("everything", 1));
    catalogue.admit_denylist(&list);
    let record = owner(SECOND).sign(1, revocation(key(AUTHORITY).public()));
    let gone = vec![stolen.id(), list.id()];
    assert_eq!(catalogue.admit_revocation(&record), Admission::Kept { gone });
    assert!(!catalogue.contains(&stolen.id()) && !catalogue.contains(&list.id()));
    let again = catalogue.admit_binding(&stolen);
    assert!(matches!(again, Admission::Refused(NotKept::Revoked { .. })), "{again:?}");
    let anew = owner(SECOND).sign(2, binding("acme/m", None, Some(good), 1));
    assert_eq!(catalogue.admit_binding(&anew), Admission::Kept { gone: Vec::new() });
    assert_eq!(resolved(&catalogue, "acme/m"), good);
}

proptest! {
    /// Rule C2: whatever others publish, in whatever order, a bound name means what it meant.
    #[test]
    fn no_release_of_another_changes_what_a_name_means(
        others in prop::collection::vec((any::<u64>(), "[12]", any::<u64>(), any::<bool>()), 0..12),
    ) {
        let mut catalogue = catalogue();
        let good = publish(&mut catalogue, ALICE, 1, release("acme/m", "1"));
        bind(&mut catalogue, 1, binding("acme/m", None, Some(good), 1));
        for (sequence, label, when, is_successor) in others {
            let previous = is_successor.then_some(good);
            let released_unix_ms = Millis(when);
            let body = Release { previous, released_unix_ms, ..release("acme/m", &label) };
            catalogue.admit_release(&node(MALLORY).sign(sequence, body));
        }
        prop_assert_eq!(resolved(&catalogue, "acme/m"), good);
        prop_assert_eq!(resolved(&catalogue, "acme/m@1"), good);
        prop_assert!(catalogue.resolve(&name_ref("acme/m@2")).is_err());
    }
}
