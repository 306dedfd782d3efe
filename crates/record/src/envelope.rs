//! The envelope around every signed record, and the two states of trust in it.
//!
//! ```text
//! bytes --decode--> Unverified<T> --verify(Expect)--> Verified<T>
//!       \--decode--> Envelope (a type this version does not know: kept and relayed as bytes)
//! ```
//!
//! A record's id hashes everything that it says (type, mesh, epoch, author, certificate,
//! sequence, body) and the signature is over that id (Rule R5). The signature is not part of the
//! id, so one statement has one name however it was signed.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::amount::Epoch;
use crate::codec::{self, DecodeError};
use crate::hash::Hash;
use crate::key::{HpkeKey, OwnerId, PeerId, PublicKey, SecretKey, Signature};
use crate::mesh::NodeCertificate;

/// No record is larger: the largest (a manifest of many files) stays far below.
pub const RECORD_SIZE_MAX: usize = 64 * 1024;

/// A certificate is two keys and three numbers; its envelope adds as much again.
pub const CERTIFICATE_SIZE_MAX: usize = 1024;

/// `commons/`, a name and a version fit with room to spare.
const TYPE_LEN_MAX: usize = 64;

/// Who signs records of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signer {
    /// An owner's key; no certificate goes with it.
    Owner,
    /// A node's key, under a certificate by its owner.
    Node,
}

/// A type of record body.
pub trait Record: Serialize + DeserializeOwned {
    /// Name and version: `commons/receipt/1`. A new field is a new version.
    const TYPE: &'static str;

    /// Who signs it.
    const SIGNER: Signer;

    /// Checks what the types alone do not: bounds, order, and fields that must agree.
    fn check(&self) -> Result<(), InvalidBody>;
}

/// Why a well-formed body is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {reason}")]
pub struct InvalidBody {
    /// The field, by name.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl InvalidBody {
    /// Refuses `field` unless `holds`.
    pub fn unless(
        holds: bool,
        field: &'static str,
        reason: &'static str,
    ) -> Result<(), InvalidBody> {
        if holds { Ok(()) } else { Err(Self { field, reason }) }
    }
}

/// Why a record is not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum VerifyError {
    #[error("the record is not readable")]
    Decode(#[from] DecodeError),

    #[error("a record of type {found:?} where {expected} was expected")]
    WrongType { expected: &'static str, found: String },

    #[error("the signature is not {author}'s over this record")]
    BadSignature { author: PublicKey },

    #[error("the record belongs to mesh {found}, not to {expected}")]
    WrongMesh { expected: Hash, found: Hash },

    #[error("the record is of epoch {found}, and it is epoch {now} here")]
    WrongEpoch { now: Epoch, found: Epoch },

    #[error("the record carries no certificate, and its type needs one")]
    NoCertificate,

    #[error("the record carries a certificate, and its type has none")]
    NeedlessCertificate,

    #[error("the certificate is not valid")]
    BadCertificate(#[source] Box<VerifyError>),

    #[error("the certificate is for node {node}, but {author} signed")]
    ForeignCertificate { node: PeerId, author: PublicKey },

    #[error("the certificate ended with epoch {last}, and the record is of epoch {found}")]
    ExpiredCertificate { last: Epoch, found: Epoch },

    #[error("the body is not valid")]
    Body(#[from] InvalidBody),
}

/// A signed record on the wire and on disk. The body is opaque here, so that a node can keep
/// and relay types that are newer than itself (Rule R6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// Type and version of the body.
    #[serde(rename = "type")]
    pub kind: String,
    /// The mesh that it belongs to: the id of that mesh's genesis.
    pub mesh: Hash,
    /// The author's epoch when it signed.
    pub epoch: Epoch,
    /// The key that signed.
    pub author: PublicKey,
    /// The encoded envelope of the author's certificate, where the type needs one.
    pub certificate: Option<ByteBuf>,
    /// Strictly increasing for each author; gaps are allowed.
    pub sequence: u64,
    /// The encoded body.
    pub body: ByteBuf,
    /// Over the id.
    pub signature: Signature,
}

impl Envelope {
    /// Decodes an envelope of any type.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let envelope: Self = codec::decode("record", bytes, RECORD_SIZE_MAX)?;
        if envelope.kind.len() > TYPE_LEN_MAX || !envelope.kind.starts_with("commons/") {
            let detail = "its type is not a commons type".to_owned();
            return Err(DecodeError::Malformed { what: "record", detail });
        }
        // The id hashes no certificate as an empty one, so only one of the two may exist.
        if envelope.certificate.as_ref().is_some_and(|it| it.is_empty()) {
            let detail = "its certificate is empty".to_owned();
            return Err(DecodeError::Malformed { what: "record", detail });
        }
        Ok(envelope)
    }

    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// The record's name (Rule R5).
    pub fn id(&self) -> Hash {
        Hash::of_fields(
            &self.kind,
            &[
                self.mesh.as_bytes(),
                &self.epoch.0.to_be_bytes(),
                self.author.as_bytes(),
                self.certificate.as_ref().map_or(&[], |bytes| bytes.as_slice()),
                &self.sequence.to_be_bytes(),
                &self.body,
            ],
        )
    }

    /// Whether the author signed this, whatever it says.
    pub fn is_signed(&self) -> bool {
        self.author.has_signed(self.id().as_bytes(), &self.signature)
    }
}

/// What the reader knows and a record must agree with. A stranger offline knows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expect {
    /// The mesh that the record must belong to.
    pub mesh: Option<Hash>,
    /// The reader's own epoch; the record's may differ by [`Epoch::SKEW_MAX`].
    pub epoch: Option<Epoch>,
}

impl Expect {
    /// Only this mesh, at any time: for records that are read back or shown later.
    pub fn mesh(mesh: Hash) -> Self {
        Self { mesh: Some(mesh), epoch: None }
    }

    /// Only this mesh, about now: for records that arrive.
    pub fn arriving(mesh: Hash, now: Epoch) -> Self {
        Self { mesh: Some(mesh), epoch: Some(now) }
    }
}

/// A record that reads as a `T` and whose claims nobody has checked.
#[derive(Debug, Clone)]
pub struct Unverified<T> {
    envelope: Envelope,
    body: T,
}

impl<T: Record> Unverified<T> {
    /// Decodes envelope and body.
    pub fn decode(bytes: &[u8]) -> Result<Self, VerifyError> {
        Self::from_envelope(Envelope::decode(bytes)?)
    }

    /// Decodes the body of an envelope.
    pub fn from_envelope(envelope: Envelope) -> Result<Self, VerifyError> {
        if envelope.kind != T::TYPE {
            return Err(VerifyError::WrongType { expected: T::TYPE, found: envelope.kind });
        }
        let body = codec::decode(T::TYPE, &envelope.body, RECORD_SIZE_MAX)?;
        Ok(Self { envelope, body })
    }

    /// What the record claims, before it is believed: to say which record was refused.
    pub fn claimed(&self) -> &T {
        &self.body
    }

    /// Checks signature, mesh, epoch, certificate and body.
    pub fn verify(self, expect: &Expect) -> Result<Verified<T>, VerifyError> {
        let Self { envelope, body } = self;
        let id = envelope.id();
        if !envelope.author.has_signed(id.as_bytes(), &envelope.signature) {
            return Err(VerifyError::BadSignature { author: envelope.author });
        }
        if let Some(expected) = expect.mesh.filter(|mesh| *mesh != envelope.mesh) {
            return Err(VerifyError::WrongMesh { expected, found: envelope.mesh });
        }
        if let Some(now) = expect.epoch.filter(|now| !envelope.epoch.is_current(*now)) {
            return Err(VerifyError::WrongEpoch { now, found: envelope.epoch });
        }
        let certificate = verify_certificate(&envelope, T::SIGNER)?;
        body.check()?;
        Ok(Verified { id, envelope, certificate, body })
    }
}

fn verify_certificate(
    envelope: &Envelope,
    signer: Signer,
) -> Result<Option<(OwnerId, NodeCertificate)>, VerifyError> {
    let bytes = match (signer, &envelope.certificate) {
        (Signer::Owner, None) => return Ok(None),
        (Signer::Owner, Some(_)) => return Err(VerifyError::NeedlessCertificate),
        (Signer::Node, None) => return Err(VerifyError::NoCertificate),
        (Signer::Node, Some(bytes)) => bytes,
    };
    if bytes.len() > CERTIFICATE_SIZE_MAX {
        let (what, size, max) = ("certificate", bytes.len(), CERTIFICATE_SIZE_MAX);
        let too_large = DecodeError::TooLarge { what, size, max };
        return Err(VerifyError::BadCertificate(Box::new(too_large.into())));
    }
    let certificate = Envelope::decode(bytes)
        .map_err(VerifyError::from)
        .and_then(Unverified::<NodeCertificate>::from_envelope)
        .and_then(|certificate| certificate.verify(&Expect::mesh(envelope.mesh)))
        .map_err(|error| VerifyError::BadCertificate(Box::new(error)))?;
    let owner = OwnerId::from_key(certificate.author());
    let body = certificate.into_body();
    if PublicKey::from(body.node) != envelope.author {
        let (node, author) = (body.node, envelope.author);
        return Err(VerifyError::ForeignCertificate { node, author });
    }
    if envelope.epoch > body.last_epoch {
        let (last, found) = (body.last_epoch, envelope.epoch);
        return Err(VerifyError::ExpiredCertificate { last, found });
    }
    Ok(Some((owner, body)))
}

/// A record whose signature, certificate and body were checked. Only the checker makes one.
#[derive(Debug, Clone)]
pub struct Verified<T> {
    id: Hash,
    envelope: Envelope,
    certificate: Option<(OwnerId, NodeCertificate)>,
    body: T,
}

impl<T> Verified<T> {
    /// The record's name.
    pub fn id(&self) -> Hash {
        self.id
    }

    /// The body.
    pub fn body(&self) -> &T {
        &self.body
    }

    /// The body alone.
    pub fn into_body(self) -> T {
        self.body
    }

    /// The key that signed.
    pub fn author(&self) -> PublicKey {
        self.envelope.author
    }

    /// The node that signed; for types that owners sign, a name without a node behind it.
    pub fn node(&self) -> PeerId {
        PeerId::from_key(self.envelope.author)
    }

    /// The owner who answers for it: the certificate's author, or the author itself.
    pub fn owner(&self) -> OwnerId {
        match &self.certificate {
            Some((owner, _)) => *owner,
            None => OwnerId::from_key(self.envelope.author),
        }
    }

    /// The key that bodies for the signing node are sealed to, where a node signed.
    pub fn hpke_key(&self) -> Option<HpkeKey> {
        self.certificate.as_ref().map(|(_, certificate)| certificate.hpke)
    }

    /// The mesh that it belongs to.
    pub fn mesh(&self) -> Hash {
        self.envelope.mesh
    }

    /// The author's epoch when it signed.
    pub fn epoch(&self) -> Epoch {
        self.envelope.epoch
    }

    /// The author's sequence number.
    pub fn sequence(&self) -> u64 {
        self.envelope.sequence
    }

    /// The canonical bytes of the whole record.
    pub fn encode(&self) -> Vec<u8> {
        self.envelope.encode()
    }
}

/// One who signs: a key, in a mesh, in an epoch, with the certificate that vouches for it.
#[derive(Debug, Clone)]
pub struct Author {
    /// The signing key.
    pub key: SecretKey,
    /// The mesh.
    pub mesh: Hash,
    /// The epoch at the time of signing.
    pub epoch: Epoch,
    /// The owner and the certificate by which it speaks for a node, with its encoded envelope.
    pub certificate: Option<Certified>,
}

/// A certificate that was verified, with the bytes that travel with every record.
#[derive(Debug, Clone)]
pub struct Certified {
    /// The owner.
    pub owner: OwnerId,
    /// What the owner certified.
    pub certificate: NodeCertificate,
    /// The encoded envelope.
    pub bytes: Vec<u8>,
}

impl Certified {
    /// Takes the bytes of a verified certificate along.
    pub fn from_verified(certificate: &Verified<NodeCertificate>) -> Self {
        Self {
            owner: certificate.owner(),
            certificate: certificate.body().clone(),
            bytes: certificate.encode(),
        }
    }
}

impl Author {
    /// Signs a record. What one signs oneself needs no further check.
    pub fn sign<T: Record>(&self, sequence: u64, body: T) -> Verified<T> {
        let mut envelope = Envelope {
            kind: T::TYPE.to_owned(),
            mesh: self.mesh,
            epoch: self.epoch,
            author: self.key.public(),
            certificate: self.certificate.as_ref().map(|it| ByteBuf::from(it.bytes.clone())),
            sequence,
            body: ByteBuf::from(codec::encode(&body)),
            signature: Signature::from_bytes([0; 64]),
        };
        let id = envelope.id();
        envelope.signature = self.key.sign(id.as_bytes());
        debug_assert!(body.check().is_ok(), "own records are valid: {:?}", body.check());
        let certificate = self.certificate.as_ref();
        let certificate = certificate.map(|it| (it.owner, it.certificate.clone()));
        Verified { id, envelope, certificate, body }
    }
}
