//! Who is believed: every way in which a record is refused, and what is kept all the same.

use commons_record::codec::{self, DecodeError};
use commons_record::envelope::{Certified, RECORD_SIZE_MAX, Record};
use commons_record::mesh::{JoinRequest, Membership, NodeCertificate};
use commons_record::settlement::{Receipt, Voucher};
use commons_record::{Author, Envelope, Epoch, Expect, Unverified, Verified, VerifyError};
use serde_bytes::ByteBuf;

use crate::sample::{
    self, AUTHORITY, EPOCH, OWNER, PROVIDER, REQUESTER, certificate, forge, hash, key, node, owner,
    provider, requester, resign,
};

fn verify<T: Record>(bytes: &[u8], expect: &Expect) -> Result<Verified<T>, VerifyError> {
    Unverified::<T>::decode(bytes)?.verify(expect)
}

fn voucher() -> Envelope {
    let voucher = requester().sign(12, sample::voucher(hash(1)));
    Envelope::decode(&voucher.encode()).expect("our own")
}

/// Decodes and verifies as a voucher; the error that a forger meets.
fn refusal(envelope: &Envelope) -> VerifyError {
    verify::<Voucher>(&envelope.encode(), &Expect::default()).expect_err("a forgery")
}

/// Whether an error is the one of that shape; prints it if not.
macro_rules! assert_refused {
    ($error:expr, $pattern:pat $(if $guard:expr)?) => {
        let error = $error;
        assert!(matches!(&error, $pattern $(if $guard)?), "{error:?}");
    };
}

#[test]
fn a_verified_record_says_who_answers_for_it() {
    let record = requester().sign(12, sample::voucher(hash(1)));
    let read = verify::<Voucher>(&record.encode(), &Expect::arriving(record.mesh(), EPOCH));
    let read = read.expect("our own");
    assert_eq!(read.node(), sample::peer_id(&key(REQUESTER)));
    assert_eq!(read.owner(), sample::owner_id(&key(OWNER)));
    assert_eq!(read.hpke_key(), Some(certificate(REQUESTER).hpke));
    assert_eq!((read.epoch(), read.sequence()), (EPOCH, 12));
    assert_eq!(read.body(), &sample::voucher(hash(1)));
    assert_eq!(read.id(), record.id());
    let by_owner = owner(OWNER).sign(1, certificate(REQUESTER));
    assert_eq!(by_owner.owner(), sample::owner_id(&key(OWNER)));
    assert_eq!(by_owner.hpke_key(), None);
}

// Rule M5
#[test]
fn several_nodes_under_one_owner_are_one_account() {
    let by = |number| node(number, OWNER).sign(1, sample::voucher(hash(1)));
    assert_eq!(by(7).owner(), by(8).owner());
    assert_ne!(by(7).node(), by(8).node());
}

// Rule R5
#[test]
fn only_its_author_signs_a_record() {
    let mut forged = voucher();
    forged.signature = key(PROVIDER).sign(forged.id().as_bytes());
    assert_refused!(refusal(&forged), VerifyError::BadSignature { author } if *author == forged.author);
    let mut forged = voucher();
    forged.sequence += 1;
    assert_refused!(refusal(&forged), VerifyError::BadSignature { .. });
    // Under another key the signature is good, and the certificate is another's.
    let mut forged = voucher();
    resign(&mut forged, &key(PROVIDER));
    assert_refused!(refusal(&forged), VerifyError::ForeignCertificate { author, .. } if *author == forged.author);
}

// Rule R5: the id names the statement, every field of it and nothing else.
#[test]
fn the_id_covers_every_field_but_the_signature() {
    let plain = voucher();
    let check = |what: &str, change: &dyn Fn(&mut Envelope)| {
        let mut changed = plain.clone();
        change(&mut changed);
        assert_ne!(changed.id(), plain.id(), "{what}");
    };
    check("type", &|it| it.kind.push('1'));
    check("mesh", &|it| it.mesh = hash(1));
    check("epoch", &|it| it.epoch = Epoch(6));
    check("author", &|it| it.author = key(1).public());
    check("certificate", &|it| it.certificate = None);
    check("sequence", &|it| it.sequence = 13);
    check("body", &|it| it.body.push(0));
    // A byte that moves from one field to the next.
    check("the border of certificate and sequence", &|it| {
        it.certificate.as_mut().expect("a node signed").pop();
    });
    let mut signed_otherwise = plain.clone();
    signed_otherwise.signature = key(1).sign(b"");
    assert_eq!(signed_otherwise.id(), plain.id());
}

#[test]
fn a_record_of_another_mesh_is_refused() {
    let record = requester().sign(12, sample::voucher(hash(1)));
    let error = verify::<Voucher>(&record.encode(), &Expect::mesh(hash(9))).expect_err("not here");
    assert_refused!(error, VerifyError::WrongMesh { expected, found }
        if *expected == hash(9) && *found == record.mesh());
    // Signed for another mesh altogether, with a certificate of this one.
    let elsewhere = Author { mesh: hash(9), ..requester() };
    let bytes = elsewhere.sign(12, sample::voucher(hash(1))).encode();
    let error = verify::<Voucher>(&bytes, &Expect::default()).expect_err("two meshes");
    assert_refused!(error, VerifyError::BadCertificate(source)
        if matches!(**source, VerifyError::WrongMesh { .. }));
}

// Rule R7
#[test]
fn one_step_of_skew_is_accepted_and_two_are_not() {
    let record = requester().sign(12, sample::voucher(hash(1)));
    for (now, is_current) in
        [(3, false), (4, true), (5, true), (6, true), (7, false), (u64::MAX, false)]
    {
        let expect = Expect::arriving(record.mesh(), Epoch(now));
        match verify::<Voucher>(&record.encode(), &expect) {
            Ok(_) => assert!(is_current, "epoch {now}"),
            Err(VerifyError::WrongEpoch { found: EPOCH, .. }) => {
                assert!(!is_current, "epoch {now}");
            }
            Err(other) => panic!("epoch {now}: {other:?}"),
        }
    }
    // Read back or shown later, the epoch is only what the author says.
    verify::<Voucher>(&record.encode(), &Expect::mesh(record.mesh())).expect("at any time");
    let ends = [(0, 0, true), (0, 1, true), (0, 2, false), (u64::MAX, u64::MAX - 1, true)];
    for (epoch, now, is_current) in ends {
        assert_eq!(Epoch(epoch).is_current(Epoch(now)), is_current, "{epoch} at {now}");
    }
}

#[test]
fn a_node_needs_a_certificate_and_an_owner_has_none() {
    let mut bare = voucher();
    bare.certificate = None;
    resign(&mut bare, &key(REQUESTER));
    assert_refused!(refusal(&bare), VerifyError::NoCertificate);
    let body = codec::encode(&sample::membership());
    let dressed = forge(&requester(), Membership::TYPE, body);
    let error = verify::<Membership>(&dressed.encode(), &Expect::default()).expect_err("a node");
    assert_refused!(error, VerifyError::NeedlessCertificate);
}

#[test]
fn a_certificate_must_itself_be_believed() {
    let with = |certificate: Vec<u8>| {
        let mut forged = voucher();
        forged.certificate = Some(ByteBuf::from(certificate));
        resign(&mut forged, &key(REQUESTER));
        match refusal(&forged) {
            VerifyError::BadCertificate(source) => *source,
            other => panic!("{other:?}"),
        }
    };
    assert_refused!(with(b"certificate".to_vec()), VerifyError::Decode(_));
    let membership = owner(OWNER).sign(1, sample::membership()).encode();
    assert_refused!(with(membership), VerifyError::WrongType { expected, .. } if *expected == NodeCertificate::TYPE);
    let good = owner(OWNER).sign(1, certificate(REQUESTER));
    let mut unsigned = Envelope::decode(&good.encode()).expect("our own");
    unsigned.signature = key(REQUESTER).sign(unsigned.id().as_bytes());
    assert_refused!(with(unsigned.encode()), VerifyError::BadSignature { .. });
    // Certificates do not chain: one that a node signed for another node is none.
    let chained =
        forge(&requester(), NodeCertificate::TYPE, codec::encode(&certificate(REQUESTER)));
    assert_refused!(with(chained.encode()), VerifyError::NeedlessCertificate);
}

// Rule M5
#[test]
fn a_certificate_holds_for_its_node_and_its_time() {
    let error = refusal(&forge(
        &Author { key: key(7), ..requester() },
        Voucher::TYPE,
        codec::encode(&sample::voucher(hash(1))),
    ));
    let (holder, signer) = (sample::peer_id(&key(REQUESTER)), key(7).public());
    assert_refused!(error, VerifyError::ForeignCertificate { node, author }
        if *node == holder && *author == signer);
    for (last, is_valid) in [(4, false), (5, true)] {
        let last_epoch = Epoch(last);
        let short = NodeCertificate { last_epoch, ..certificate(REQUESTER) };
        let short = Certified::from_verified(&owner(OWNER).sign(2, short));
        let author = Author { certificate: Some(short), ..requester() };
        let bytes = author.sign(1, sample::voucher(hash(1))).encode();
        match verify::<Voucher>(&bytes, &Expect::default()) {
            Ok(_) => assert!(is_valid),
            Err(error) => {
                assert!(!is_valid);
                assert_refused!(error, VerifyError::ExpiredCertificate { found: EPOCH, last }
                    if *last == last_epoch);
            }
        }
    }
}

#[test]
fn a_well_signed_body_must_still_make_sense() {
    let mut body = sample::receipt(hash(1), hash(2));
    body.range.end = 41;
    let forged = forge(&provider(), Receipt::TYPE, codec::encode(&body));
    let error = verify::<Receipt>(&forged.encode(), &Expect::default()).expect_err("41 are not 40");
    assert_refused!(error, VerifyError::Body(invalid) if invalid.field == "range");
}

#[test]
fn bytes_that_are_no_record_are_refused() {
    let error = verify::<Voucher>(b"", &Expect::default()).expect_err("nothing");
    assert_refused!(error, VerifyError::Decode(DecodeError::Malformed { .. }));
    let huge = vec![0; RECORD_SIZE_MAX + 1];
    let error = verify::<Voucher>(&huge, &Expect::default()).expect_err("too much");
    assert_refused!(error, VerifyError::Decode(DecodeError::TooLarge { .. }));
    let error = refusal(&forge(&requester(), Voucher::TYPE, b"body".to_vec()));
    assert_refused!(error, VerifyError::Decode(DecodeError::Malformed { .. }));
    for kind in ["", "receipt/1", "Commons/receipt/1", &format!("commons/{}", "x".repeat(57))] {
        let error = Envelope::decode(&forge(&requester(), kind, Vec::new()).encode());
        assert!(matches!(error, Err(DecodeError::Malformed { .. })), "{kind}: {error:?}");
    }
}

/// The id hashes an absent certificate as an empty one. An envelope that carried an empty one
/// had the id and the signature of the envelope that carries none: two byte strings for one
/// record of a type that is relayed unread.
#[test]
fn an_empty_certificate_is_refused() {
    let mut envelope = forge(&owner(OWNER), "commons/new/1", Vec::new());
    assert!(Envelope::decode(&envelope.encode()).expect("without one").is_signed());
    envelope.certificate = Some(ByteBuf::new());
    assert!(envelope.is_signed(), "the id does not tell them apart");
    Envelope::decode(&envelope.encode()).expect_err("and so one of them is refused");
}

// Rule R6
#[test]
fn a_type_that_nobody_knows_yet_is_kept_and_relayed() {
    let body = b"any bytes at all \xff, not even CBOR".to_vec();
    let bytes = forge(&requester(), "commons/barter/1", body.clone()).encode();
    let kept = Envelope::decode(&bytes).expect("signed bytes of a commons type");
    assert_eq!((kept.body.as_slice(), kept.encode()), (body.as_slice(), bytes));
    assert!(kept.is_signed());
    let mut changed = kept.clone();
    changed.body[0] ^= 1;
    assert!(!changed.is_signed());
    assert_refused!(refusal(&kept), VerifyError::WrongType { found, .. } if found == "commons/barter/1");
}

// Rule R6: a new field is a new version, and a newer version is refused by its name.
#[test]
fn a_record_of_a_future_version_is_refused_by_name_and_kept() {
    let future =
        forge(&provider(), "commons/receipt/2", codec::encode(&sample::receipt(hash(1), hash(2))));
    let error = verify::<Receipt>(&future.encode(), &Expect::default()).expect_err("not ours");
    let text = error.to_string();
    assert!(text.contains("commons/receipt/2") && text.contains("commons/receipt/1"), "{text}");
    assert!(Envelope::decode(&future.encode()).expect("relayed all the same").is_signed());
}

#[test]
fn what_a_record_claims_can_be_read_before_it_is_believed() {
    let mut forged = voucher();
    forged.signature = key(1).sign(b"");
    let unverified = Unverified::<Voucher>::decode(&forged.encode()).expect("well-formed");
    assert_eq!(unverified.claimed().order, hash(1));
    unverified.verify(&Expect::default()).expect_err("and still refused");
}

// Rule M3
#[test]
fn a_join_request_shows_the_invite_key_and_binds_it_to_one_owner() {
    let request: JoinRequest = sample::join_request();
    let of =
        |owner: u8| JoinRequest::proof_message(&request.invite, &sample::owner_id(&key(owner)));
    let invited = key(9).public();
    assert!(invited.has_signed(of(OWNER).as_bytes(), &request.proof));
    assert!(!invited.has_signed(of(AUTHORITY).as_bytes(), &request.proof));
    let other = JoinRequest::proof_message(&hash(1), &sample::owner_id(&key(OWNER)));
    assert!(!invited.has_signed(other.as_bytes(), &request.proof));
}
