//! One record of every type, made from fixed keys and numbers.

use commons_record::catalogue::{
    Denied, DenyCode, DenyEntry, Denylist, Derivation, NameBinding, Relation, Release, ReleaseFile,
    ReleaseKind, Revocation,
};
use commons_record::codec::{self, DecodeError};
use commons_record::envelope::{Certified, RECORD_SIZE_MAX};
use commons_record::key::PublicKey;
use commons_record::manifest::{FileEntry, ModelManifest, Provenance};
use commons_record::merkle::{Transcript, prompt_hash};
use commons_record::mesh::{
    Capability, Invite, JoinRequest, Membership, MeshGenesis, NodeCertificate, PRESENCE_LEASE_MAX,
    Policy, Presence, PresentAdapter, PresentModel, Prices, ProtocolTerm, Usage,
};
use commons_record::order::{
    AuditConsent, Infer, Job, Limits, LogitBias, Message, Order, Privacy, PrivacyClass, Prompt,
    PromptInput, Requester, Resume, Sampling,
};
use commons_record::seed::{SeedMode, SeedTranscript, commit};
use commons_record::settlement::{
    EndReason, Energy, EngineClass, Meter, PairPosition, Ran, Receipt, Scope, TokenRange, Voucher,
};
use commons_record::{
    Author, Credits, Envelope, Epoch, Expect, Hash, HpkeKey, Micro, Millis, Nonce, OwnerId, PeerId,
    Record, RequestId, Salt, SecretKey, Unverified, Verified, VerifyError,
};
use serde_bytes::ByteBuf;

pub(crate) const EPOCH: Epoch = Epoch(5);
pub(crate) const SALT: Salt = Salt::from_bytes([0x5a; 32]);
pub(crate) const PROMPT_TOKENS: [u32; 4] = [1, 403, 407, 261];

/// 40 tokens: a full leaf and a short one.
pub(crate) fn answer() -> Vec<u32> {
    (0..40).map(|it| it * 7 + 300).collect()
}

pub(crate) fn key(number: u8) -> SecretKey {
    SecretKey::from_seed(&[number; 32])
}

pub(crate) fn hash(number: u8) -> Hash {
    Hash::from_bytes([number; 32])
}

pub(crate) fn owner_id(key: &SecretKey) -> OwnerId {
    OwnerId::from_key(key.public())
}

pub(crate) fn peer_id(key: &SecretKey) -> PeerId {
    PeerId::from_key(key.public())
}

/// The owner who founded the mesh.
pub(crate) const AUTHORITY: u8 = 1;
pub(crate) const PROVIDER: u8 = 2;
pub(crate) const REQUESTER: u8 = 3;
/// The requester's owner.
pub(crate) const OWNER: u8 = 4;

pub(crate) fn genesis() -> Verified<MeshGenesis> {
    let body = MeshGenesis {
        name: "three friends".into(),
        authorities: vec![owner_id(&key(AUTHORITY))],
        start_unix_ms: Millis(1_760_000_000_000),
        epoch_ms: Millis(86_400_000),
        nonce: hash(0x11),
    };
    let author = Author { key: key(AUTHORITY), mesh: hash(0), epoch: Epoch(0), certificate: None };
    author.sign(0, body)
}

/// An owner in the mesh.
pub(crate) fn owner(number: u8) -> Author {
    Author { key: key(number), mesh: genesis().id(), epoch: EPOCH, certificate: None }
}

pub(crate) fn certificate(node: u8) -> NodeCertificate {
    NodeCertificate {
        node: peer_id(&key(node)),
        hpke: HpkeKey::from_bytes([node ^ 0x80; 32]),
        serial: 1,
        last_epoch: Epoch(400),
    }
}

/// A node in the mesh, under an owner.
pub(crate) fn node(number: u8, of: u8) -> Author {
    let certificate = owner(of).sign(1, certificate(number));
    let certificate = Some(Certified::from_verified(&certificate));
    Author { key: key(number), mesh: genesis().id(), epoch: EPOCH, certificate }
}

pub(crate) fn provider() -> Author {
    node(PROVIDER, AUTHORITY)
}

pub(crate) fn requester() -> Author {
    node(REQUESTER, OWNER)
}

pub(crate) fn membership() -> Membership {
    Membership { owner: owner_id(&key(OWNER)), invite: Some(hash(0x22)), last_epoch: Epoch(400) }
}

pub(crate) fn policy() -> Policy {
    Policy {
        version: 1,
        prices: Prices {
            prompt: Credits::from_micro(10),
            cached: Credits::from_micro(1),
            completion: Credits::from_micro(30),
        },
        voucher_step: 16,
        protocols: vec![
            ProtocolTerm { id: "infer/1".into(), ends: None },
            ProtocolTerm { id: "infer/0".into(), ends: Some(Epoch(7)) },
        ],
    }
}

pub(crate) fn invite() -> Invite {
    Invite { key: key(9).public(), uses: 3, last_epoch: Epoch(12) }
}

pub(crate) fn join_request() -> JoinRequest {
    let invite = owner(AUTHORITY).sign(3, invite()).id();
    let message = JoinRequest::proof_message(&invite, &owner_id(&key(OWNER)));
    JoinRequest { invite, proof: key(9).sign(message.as_bytes()) }
}

pub(crate) fn presence() -> Presence {
    Presence {
        addrs: vec!["/ip4/192.0.2.1/udp/4001/quic-v1".into()],
        models: vec![PresentModel {
            model: hash(0x33),
            name: "stories260K".into(),
            quantisation: "F32".into(),
            context_len: 512,
            adapters: vec![PresentAdapter { adapter: hash(0x35), name: "poet".into() }],
        }],
        capability: Capability { device: "cpu".into(), threads: 2, memory_mib: 8_192 },
        lease_ms: PRESENCE_LEASE_MAX,
        membership: ByteBuf::from(owner(AUTHORITY).sign(2, membership()).encode()),
    }
}

pub(crate) fn manifest() -> ModelManifest {
    ModelManifest {
        name: "stories260K".into(),
        files: vec![
            FileEntry { name: "stories260K.gguf".into(), hash: hash(0x33), size: 1_185_376 },
            FileEntry { name: "README.md".into(), hash: hash(0x34), size: 0 },
        ],
        family: "llama".into(),
        quantisation: "F32".into(),
        tokenizer: hash(0x35),
        context_len: 512,
        parameter_count: 260_032,
        licence: "MIT".into(),
        provenance: Provenance {
            base: None,
            author: Some("a person".into()),
            data: Some(hash(0x36)),
            method: Some("pretrained".into()),
        },
    }
}

pub(crate) fn release() -> Release {
    let file = |path: &str, number: u8, size| ReleaseFile {
        path: path.parse().expect("a path"),
        blob: hash(number),
        size,
        sha256: Some(hash(number ^ 0x80)),
        recipe: None,
    };
    let weights = ReleaseFile { recipe: Some(hash(0x3f)), ..file("q4/model.gguf", 0x33, 1 << 20) };
    Release {
        kind: ReleaseKind::Model,
        name: "acme/stories".parse().expect("a name"),
        version: "1.1".parse().expect("a version"),
        files: vec![file("README.md", 0x34, 0), weights],
        licence: "Apache-2.0 OR MIT".into(),
        lineage: vec![
            Derivation {
                relation: Relation::QuantisedFrom,
                release: Some(hash(0x51)),
                blob: Some(hash(0x52)),
                label: Some("acme/stories-f16".into()),
            },
            Derivation {
                relation: Relation::TrainedOn,
                release: None,
                blob: Some(hash(0x53)),
                label: None,
            },
        ],
        author: "a person".into(),
        description: "Small stories, four bits a weight.".into(),
        tags: vec!["gguf".into(), "stories".into()],
        released_unix_ms: Millis(1_760_000_100_000),
        previous: Some(hash(0x54)),
    }
}

pub(crate) fn name_binding() -> NameBinding {
    NameBinding {
        name: release().name,
        version: Some(release().version),
        release: Some(hash(0x55)),
        serial: 2,
    }
}

pub(crate) fn revocation() -> Revocation {
    Revocation {
        key: key(PROVIDER).public(),
        from: Some(Epoch(4)),
        kept: vec![hash(0x55), hash(0x56)],
        reason: "the machine was stolen".into(),
    }
}

pub(crate) fn denylist() -> Denylist {
    let entry = |what, code, reason: &str| DenyEntry { what, code, reason: reason.into() };
    Denylist {
        title: "what we do not carry".into(),
        serial: 7,
        entries: vec![
            entry(Denied::Blob(hash(0x61)), DenyCode::Malware, "its loader opens a shell"),
            entry(Denied::Release(hash(0x62)), DenyCode::Licence, "not for sharing"),
            entry(Denied::Name(release().name), DenyCode::Deception, "it is another model"),
        ],
    }
}

pub(crate) fn prompt() -> Prompt {
    let message = Message::new("user", "Once upon a time");
    Prompt {
        input: PromptInput::Chat(vec![message]),
        stop: vec!["\n\n".into()],
        constraint: None,
        tools: None,
    }
}

pub(crate) const CLIENT_NONCE: Nonce = Nonce::from_bytes([0x44; 32]);

pub(crate) fn joint_mode() -> SeedMode {
    SeedMode::Joint { client_commit: commit(&CLIENT_NONCE) }
}

pub(crate) fn joint_transcript() -> SeedTranscript {
    let provider_commit = commit(&Nonce::from_bytes([0x45; 32]));
    SeedTranscript::Joint { client_nonce: CLIENT_NONCE, provider_commit }
}

pub(crate) fn infer(seed: SeedMode) -> Infer {
    Infer {
        model: hash(0x33),
        adapter: None,
        prompt: prompt().commitment(&SALT),
        sampling: Sampling {
            temperature: Micro::from_millionths(800_000).expect("in range"),
            top_k: 40,
            top_p: Micro::from_millionths(950_000).expect("in range"),
            logit_bias: vec![
                LogitBias { token: 2, bias: Micro::from_millionths(-1_500_000).expect("in range") },
                LogitBias { token: 70_000, bias: Micro::ONE },
            ],
            ..Sampling::greedy()
        },
        seed,
        limits: Limits { prompt_tokens_max: 256, completion_tokens_max: 128 },
        top_logprobs: 2,
    }
}

pub(crate) fn order(seed: SeedMode) -> Order {
    Order {
        request: RequestId::from_bytes([0x66; 16]),
        attempt: 0,
        requester: Requester::Node(peer_id(&key(REQUESTER))),
        provider: peer_id(&key(PROVIDER)),
        job: Job::Infer(infer(seed)),
        policy: owner(AUTHORITY).sign(4, policy()).id(),
        price_ceiling: Credits::from_micro(1_000_000),
        privacy: Privacy {
            class: PrivacyClass::Mesh,
            audit: AuditConsent::Own,
            retention_ms: Millis(0),
        },
        deadline_ms: Millis::from_secs(60),
        resume: None,
    }
}

/// An order that goes on after eight tokens of an earlier one.
pub(crate) fn resumed_order() -> Order {
    let resume = Resume {
        order: hash(0x77),
        seed: joint_transcript(),
        prefix_root: hash(0x78),
        prefix_tokens: 8,
    };
    Order { attempt: 1, resume: Some(resume), ..order(joint_mode()) }
}

pub(crate) fn root(tokens: &[u32]) -> Hash {
    let mut transcript = Transcript::new(SALT);
    for token in tokens {
        transcript.push(*token);
    }
    transcript.root()
}

pub(crate) fn usage() -> Usage {
    Usage { prompt_tokens: 4, cached_tokens: 1, completion_tokens: 40 }
}

pub(crate) fn voucher(order: Hash) -> Voucher {
    // Three fresh prompt tokens, a cached one, forty of the answer.
    let amount = Credits::from_micro(3 * 10 + 1 + 40 * 30);
    Voucher { order, usage: usage(), root: root(&answer()), amount }
}

pub(crate) fn receipt(order: Hash, voucher: Hash) -> Receipt {
    let amount = Credits::from_micro(1_231);
    Receipt {
        order,
        scope: Scope::Mesh,
        ran: Ran {
            model: hash(0x33),
            adapter: None,
            quantisation: "F32".into(),
            engine: EngineClass {
                device: "cpu/x86_64".into(),
                kernels: "candle/tol".into(),
                version: "0.1.0".into(),
            },
        },
        prompt: prompt_hash(&SALT, &PROMPT_TOKENS),
        usage: usage(),
        root: root(&answer()),
        range: TokenRange { start: 0, end: 40 },
        end: EndReason::Length,
        seed: Some(joint_transcript()),
        amount,
        pair: PairPosition { sequence: 3, cumulative: Credits::from_micro(5_000) },
        voucher: Some(voucher),
        acknowledged: true,
        meter: Meter { compute_ms: Millis(812), energy: Some(Energy::Estimated { mj: 9_744 }) },
    }
}

type Verify = fn(&[u8]) -> Result<(Hash, Vec<u8>), VerifyError>;

/// A record of some type, and what can be done to it without knowing which.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) id: Hash,
    /// Decodes and verifies; the id and the bytes that it would be sent on as.
    pub(crate) verify: Verify,
    /// Decodes a body alone and encodes it again.
    pub(crate) body: fn(&[u8]) -> Result<Vec<u8>, DecodeError>,
}

fn sample<T: Record>(name: &'static str, record: &Verified<T>) -> Sample {
    Sample {
        name,
        bytes: record.encode(),
        id: record.id(),
        verify: |bytes| {
            let record = Unverified::<T>::decode(bytes)?.verify(&Expect::default())?;
            Ok((record.id(), record.encode()))
        },
        body: |bytes| {
            codec::decode::<T>(T::TYPE, bytes, RECORD_SIZE_MAX).map(|it| codec::encode(&it))
        },
    }
}

/// One record of every type, and the variants whose encodings differ.
pub(crate) fn all() -> Vec<Sample> {
    let authority = owner(AUTHORITY);
    let (asks, serves) = (requester(), provider());
    let client = asks.sign(10, order(SeedMode::Client { seed: -7 }));
    let joint = asks.sign(11, order(joint_mode()));
    let voucher = asks.sign(12, voucher(joint.id()));
    let receipt = serves.sign(20, receipt(joint.id(), voucher.id()));
    let withdrawn = NameBinding { version: None, release: None, ..name_binding() };
    vec![
        sample("genesis", &genesis()),
        sample("membership", &authority.sign(2, membership())),
        sample("node-certificate", &authority.sign(1, certificate(PROVIDER))),
        sample("policy", &authority.sign(4, policy())),
        sample("invite", &authority.sign(3, invite())),
        sample("join-request", &asks.sign(1, join_request())),
        sample("presence", &serves.sign(2, presence())),
        sample("model-manifest", &serves.sign(3, manifest())),
        sample("release", &serves.sign(4, release())),
        sample("name-binding", &authority.sign(5, name_binding())),
        sample("name-withdrawn", &authority.sign(6, withdrawn)),
        sample("revocation", &authority.sign(7, revocation())),
        sample("denylist", &owner(OWNER).sign(8, denylist())),
        sample("order-client", &client),
        sample("order-joint", &joint),
        sample("order-resume", &asks.sign(13, resumed_order())),
        sample("order-one-time", &one_time_order()),
        sample("voucher", &voucher),
        sample("receipt", &receipt),
        sample("receipt-unacknowledged", &serves.sign(21, unacknowledged(joint.id()))),
    ]
}

/// An order by a key that its owner certified for this order only.
fn one_time_order() -> Verified<Order> {
    let requester = Requester::OneTime(key(8).public());
    node(8, OWNER).sign(0, Order { requester, ..order(joint_mode()) })
}

/// A receipt for a requester that vanished before it acknowledged anything.
fn unacknowledged(order: Hash) -> Receipt {
    Receipt {
        scope: Scope::Mesh,
        usage: Usage { completion_tokens: 0, ..usage() },
        root: root(&[]),
        range: TokenRange { start: 0, end: 0 },
        end: EndReason::Vanished,
        seed: None,
        amount: Credits::ZERO,
        voucher: None,
        acknowledged: false,
        meter: Meter { compute_ms: Millis(0), energy: None },
        ..receipt(order, hash(0))
    }
}

/// A signed record that nobody checked: of any type, with any body.
pub(crate) fn forge(author: &Author, kind: &str, body: Vec<u8>) -> Envelope {
    let mut envelope = Envelope {
        kind: kind.to_owned(),
        mesh: author.mesh,
        epoch: author.epoch,
        author: author.key.public(),
        certificate: author.certificate.as_ref().map(|it| ByteBuf::from(it.bytes.clone())),
        sequence: 1,
        body: ByteBuf::from(body),
        signature: commons_record::Signature::from_bytes([0; 64]),
    };
    resign(&mut envelope, &author.key);
    envelope
}

/// Signs an envelope as it is now.
pub(crate) fn resign(envelope: &mut Envelope, key: &SecretKey) {
    envelope.author = key.public();
    envelope.signature = key.sign(envelope.id().as_bytes());
}

/// The key of a `did:key` name in these tests.
pub(crate) fn parse_key(text: &str) -> PublicKey {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}
