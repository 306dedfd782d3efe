//! Fuzz targets: no bytes crash a decoder of records, and what decodes has one encoding.

use commons_record::catalogue::{
    Denylist, FilePath, NameBinding, Release, RepoName, Revocation, Version, check_licence,
};
use commons_record::codec;
use commons_record::envelope::{RECORD_SIZE_MAX, Record};
use commons_record::evidence::{EVIDENCE_SIZE_MAX, Evidence};
use commons_record::manifest::ModelManifest;
use commons_record::mesh::{
    Invite, JoinRequest, Membership, MeshGenesis, NodeCertificate, Policy, Presence,
};
use commons_record::order::{Order, PROMPT_SIZE_MAX, Prompt};
use commons_record::settlement::{Receipt, Voucher};
use commons_record::{Envelope, Expect, Unverified};

#[test]
fn envelope() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Ok(envelope) = Envelope::decode(bytes) {
            assert_eq!(envelope.encode(), bytes);
            let _ = envelope.is_signed();
        }
    });
}

/// Bytes as a whole record and as the body of one.
fn check<T: Record>(bytes: &[u8]) {
    if let Ok(record) = Unverified::<T>::decode(bytes) {
        let _ = record.verify(&Expect::default());
    }
    if let Ok(body) = codec::decode::<T>(T::TYPE, bytes, RECORD_SIZE_MAX) {
        assert_eq!(codec::encode(&body), bytes);
        let _ = body.check();
    }
}

macro_rules! targets {
    ($($name:ident: $body:ty),* $(,)?) => {$(
        #[test]
        fn $name() {
            bolero::check!().for_each(|bytes: &[u8]| check::<$body>(bytes));
        }
    )*};
}

targets! {
    mesh_genesis: MeshGenesis,
    membership: Membership,
    node_certificate: NodeCertificate,
    policy: Policy,
    invite: Invite,
    join_request: JoinRequest,
    presence: Presence,
    model_manifest: ModelManifest,
    order: Order,
    voucher: Voucher,
    receipt: Receipt,
    release: Release,
    name_binding: NameBinding,
    revocation: Revocation,
    denylist: Denylist,
}

/// Any text as a licence, a name, a version and a path: read or refused, and what is a path stays
/// below its folder.
#[test]
fn catalogue_texts() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let _ = check_licence(text);
        for it in
            [text.parse::<RepoName>().map(String::from), text.parse::<Version>().map(String::from)]
        {
            assert!(it.is_err() || text.is_ascii());
        }
        if let Ok(path) = text.parse::<FilePath>() {
            let is_plain =
                |it: std::path::Component<'_>| matches!(it, std::path::Component::Normal(_));
            assert!(std::path::Path::new(path.as_str()).components().all(is_plain), "{path}");
        }
    });
}

#[test]
fn prompt() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Ok(prompt) = codec::decode::<Prompt>("prompt", bytes, PROMPT_SIZE_MAX * 2) {
            assert_eq!(codec::encode(&prompt), bytes);
            let _ = prompt.check();
        }
    });
}

#[test]
fn evidence() {
    bolero::check!().for_each(|bytes: &[u8]| {
        assert!(bytes.len() <= EVIDENCE_SIZE_MAX);
        if let Ok(evidence) = Evidence::decode(bytes) {
            assert_eq!(evidence.encode(), bytes);
            let _ = evidence.verify();
        }
    });
}
