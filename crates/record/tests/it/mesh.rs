//! Bodies about the mesh: bounds, and what follows from the numbers.

use commons_record::manifest::{FileEntry, ModelManifest};
use commons_record::mesh::{
    Invite, MeshGenesis, PRESENCE_ADDRS_MAX, PRESENCE_MODELS_MAX, Policy, Presence, Prices,
    ProtocolTerm, Usage,
};
use commons_record::{Credits, Epoch, Millis, Record};

use crate::sample::{genesis, hash, invite, key, manifest, owner_id, policy, presence};

/// The field that is refused after a change, or none.
fn check<T: Record>(what: &str, body: T, change: impl FnOnce(&mut T), want: Option<&str>) {
    let mut body = body;
    change(&mut body);
    assert_eq!(body.check().err().map(|it| it.field), want, "{what}");
}

#[test]
fn a_genesis_is_bounded() {
    let check = |what: &str, change: &dyn Fn(&mut MeshGenesis), want| {
        check(what, genesis().into_body(), change, want);
    };
    check("honest", &|_| {}, None);
    check("no name", &|it| it.name.clear(), Some("name"));
    check("a name of 128 bytes", &|it| it.name = "n".repeat(128), None);
    check("a name of 129 bytes", &|it| it.name = "n".repeat(129), Some("name"));
    check("a name that clears the screen", &|it| it.name = "\x1b[2J".into(), Some("name"));
    check("no authority", &|it| it.authorities.clear(), Some("authorities"));
    let authorities = |count| vec![owner_id(&key(1)); count];
    check("16 authorities", &|it| it.authorities = authorities(16), None);
    check("17 authorities", &|it| it.authorities = authorities(17), Some("authorities"));
    check("an hour", &|it| it.epoch_ms = Millis(3_600_000), None);
    check("under an hour", &|it| it.epoch_ms = Millis(3_599_999), Some("epoch_ms"));
}

// Rule R7: clocks an hour apart are at most one epoch apart, however short an epoch may be.
#[test]
fn the_epoch_follows_from_the_time() {
    let genesis = MeshGenesis { epoch_ms: Millis(3_600_000), ..genesis().into_body() };
    let start = genesis.start_unix_ms.0;
    for (unix, epoch) in [
        (0, 0),
        (start - 1, 0),
        (start, 0),
        (start + 3_599_999, 0),
        (start + 3_600_000, 1),
        (start + 10 * 3_600_000, 10),
    ] {
        assert_eq!(genesis.epoch_at(Millis(unix)), Epoch(epoch), "at {unix}");
    }
    for minutes in 0..300 {
        let here = start + minutes * 60_000;
        let there = genesis.epoch_at(Millis(here + 3_600_000));
        assert!(there.is_current(genesis.epoch_at(Millis(here))), "minute {minutes}");
    }
    let unchecked = MeshGenesis { epoch_ms: Millis(0), ..genesis };
    assert_eq!(unchecked.epoch_at(Millis(start + 5)), Epoch(5), "and nothing divides by zero");
}

#[test]
fn a_policy_is_bounded() {
    let check =
        |what: &str, change: &dyn Fn(&mut Policy), want| check(what, policy(), change, want);
    check("honest", &|_| {}, None);
    check("a voucher after no token", &|it| it.voucher_step = 0, Some("voucher_step"));
    check("a voucher after each token", &|it| it.voucher_step = 1, None);
    check("a voucher after 4096", &|it| it.voucher_step = 4096, None);
    check("a voucher after 4097", &|it| it.voucher_step = 4097, Some("voucher_step"));
    let terms = |count| vec![ProtocolTerm { id: "infer/1".into(), ends: None }; count];
    check("64 protocols", &|it| it.protocols = terms(64), None);
    check("65 protocols", &|it| it.protocols = terms(65), Some("protocols"));
    check("a protocol without a name", &|it| it.protocols[0].id.clear(), Some("protocols"));
}

#[test]
fn a_price_is_exact_or_none() {
    let of = Credits::from_micro;
    let prices = Prices { prompt: of(10), cached: of(1), completion: of(30) };
    let usage = |prompt_tokens, cached_tokens, completion_tokens| Usage {
        prompt_tokens,
        cached_tokens,
        completion_tokens,
    };
    for (usage, amount) in [
        (usage(0, 0, 0), Some(0)),
        (usage(4, 1, 40), Some(1_231)),
        (usage(4, 4, 0), Some(4)),
        (usage(4, 5, 0), None), // More out of a cache than there was.
        (usage(u32::MAX, 0, u32::MAX), Some(40 * u64::from(u32::MAX))),
    ] {
        assert_eq!(prices.amount(usage), amount.map(of), "{usage:?}");
    }
    for price in [u64::MAX, u64::MAX / 2] {
        let prices = Prices { prompt: of(price), cached: of(price), completion: of(price) };
        assert_eq!(prices.amount(usage(1, 0, 1)).is_some(), price != u64::MAX);
        assert_eq!(prices.amount(usage(2, 1, 1)), None, "a sum that no number holds");
        assert_eq!(prices.amount(usage(3, 0, 0)), None, "a product that no number holds");
    }
}

#[test]
fn an_invite_is_bounded() {
    let check = |uses: u32, want| {
        check("uses", invite(), |it: &mut Invite| it.uses = uses, want);
    };
    check(0, Some("uses"));
    check(1, None);
    check(1024, None);
    check(1025, Some("uses"));
}

#[test]
fn a_presence_is_bounded() {
    let check =
        |what: &str, change: &dyn Fn(&mut Presence), want| check(what, presence(), change, want);
    check("honest", &|_| {}, None);
    check("nothing to serve", &|it| it.models.clear(), None);
    check("nowhere", &|it| it.addrs.clear(), None);
    check("many places", &|it| it.addrs = vec!["/a".into(); PRESENCE_ADDRS_MAX], None);
    check(
        "too many places",
        &|it| it.addrs = vec!["/a".into(); PRESENCE_ADDRS_MAX + 1],
        Some("addrs"),
    );
    check("an empty place", &|it| it.addrs[0].clear(), Some("addrs"));
    check("many models", &|it| it.models = vec![it.models[0].clone(); PRESENCE_MODELS_MAX], None);
    check(
        "too many models",
        &|it| {
            it.models = vec![it.models[0].clone(); PRESENCE_MODELS_MAX + 1];
        },
        Some("models"),
    );
    check("a model with a bell in it", &|it| it.models[0].name.push('\x07'), Some("models"));
    check("a model of no quantisation", &|it| it.models[0].quantisation.clear(), Some("models"));
    check("no device", &|it| it.capability.device.clear(), Some("capability"));
    check("ten minutes", &|it| it.lease_ms = Millis(600_000), None);
    check("a moment more", &|it| it.lease_ms = Millis(600_001), Some("lease_ms"));
}

#[test]
fn a_manifest_is_bounded_and_named_by_its_first_file() {
    let check = |what: &str, change: &dyn Fn(&mut ModelManifest), want| {
        check(what, manifest(), change, want);
    };
    assert_eq!(manifest().model(), Some(hash(0x33)));
    check("honest", &|_| {}, None);
    check("no file", &|it| it.files.clear(), Some("files"));
    let files = |count| {
        let name = "n".repeat(128);
        vec![FileEntry { name, hash: hash(1), size: u64::MAX }; count]
    };
    check("256 files", &|it| it.files = files(256), None);
    check("257 files", &|it| it.files = files(257), Some("files"));
    for name in ["", "a/b", "a\\b", "/etc/passwd", "..", ".", "a\0", "a\nb"] {
        check(name, &|it| it.files[0].name = name.into(), Some("files"));
    }
    for name in ["..a", "a..b", ".a", "model-00001-of-00002.safetensors", "ä ö"] {
        check(name, &|it| it.files[0].name = name.into(), None);
    }
    check("no name", &|it| it.name.clear(), Some("labels"));
    check("no family", &|it| it.family.clear(), Some("labels"));
    check("no quantisation", &|it| it.quantisation.clear(), Some("labels"));
    check("no licence", &|it| it.licence.clear(), Some("labels"));
    check("an author of no name", &|it| it.provenance.author = Some(String::new()), Some("labels"));
    check("no author", &|it| it.provenance.author = None, None);
    check("an unprintable method", &|it| it.provenance.method = Some("\r".into()), Some("labels"));
}

/// The largest manifest that is valid still fits in a record.
#[test]
fn the_largest_manifest_fits_in_a_record() {
    let entry = FileEntry { name: "n".repeat(128), hash: hash(1), size: u64::MAX };
    let label = || "l".repeat(128);
    let mut largest = ModelManifest { files: vec![entry; 256], ..manifest() };
    (largest.name, largest.family, largest.quantisation) = (label(), label(), label());
    largest.licence = label();
    let bytes = crate::sample::provider().sign(u64::MAX, largest).encode();
    let size = bytes.len();
    commons_record::Envelope::decode(&bytes).unwrap_or_else(|error| panic!("{size}: {error}"));
}
