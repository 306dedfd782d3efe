//! A mesh of two nodes, one model and one question: what every test here begins with.

use std::sync::LazyLock;

use commons_exchange::Standing;
use commons_exchange::provider::Served;
use commons_exchange::requester::{Draft, Secrets};
use commons_port::engine::{Alternative, Token};
use commons_record::constraint::{Constraint, Function, ToolChoice, Tools};
use commons_record::envelope::{Author, Certified, Verified};
use commons_record::manifest::{FileEntry, ModelManifest, Provenance};
use commons_record::mesh::{Membership, MeshGenesis, NodeCertificate, Policy, Prices};
use commons_record::order::{
    AuditConsent, Limits, Message, Privacy, PrivacyClass, Prompt, PromptInput, Sampling,
};
use commons_record::settlement::EngineClass;
use commons_record::{
    Credits, Epoch, Hash, HpkeKey, Millis, Nonce, OwnerId, PeerId, RequestId, Salt, SecretKey,
};

pub(crate) const EPOCH: Epoch = Epoch(5);
pub(crate) const SALT: Salt = Salt::from_bytes([0x5a; 32]);
pub(crate) const CLIENT_NONCE: Nonce = Nonce::from_bytes([0x44; 32]);
pub(crate) const PROVIDER_NONCE: Nonce = Nonce::from_bytes([0x45; 32]);
pub(crate) const MODEL: Hash = Hash::from_bytes([0x33; 32]);
/// An adapter of it that the provider has.
pub(crate) const ADAPTER: Hash = Hash::from_bytes([0x35; 32]);
pub(crate) const CALENDAR: Millis = Millis(1_760_000_000_000);

/// The owner who founded the mesh; the provider is its node.
pub(crate) const AUTHORITY: u8 = 1;
pub(crate) const PROVIDER: u8 = 2;
pub(crate) const REQUESTER: u8 = 3;
/// The requester's owner.
pub(crate) const OWNER: u8 = 4;
/// A node that has nothing to do with the exchange.
pub(crate) const STRANGER: u8 = 6;

pub(crate) fn key(number: u8) -> SecretKey {
    SecretKey::from_seed(&[number; 32])
}

pub(crate) fn peer(number: u8) -> PeerId {
    PeerId::from_key(key(number).public())
}

pub(crate) fn owner_id(number: u8) -> OwnerId {
    OwnerId::from_key(key(number).public())
}

pub(crate) fn genesis() -> Verified<MeshGenesis> {
    static GENESIS: LazyLock<Verified<MeshGenesis>> = LazyLock::new(found_mesh);
    GENESIS.clone()
}

fn found_mesh() -> Verified<MeshGenesis> {
    let body = MeshGenesis {
        name: "three friends".into(),
        authorities: vec![owner_id(AUTHORITY)],
        start_unix_ms: CALENDAR,
        epoch_ms: Millis(86_400_000),
        nonce: Hash::from_bytes([0x11; 32]),
    };
    let author = Author {
        key: key(AUTHORITY),
        mesh: Hash::from_bytes([0; 32]),
        epoch: Epoch(0),
        certificate: None,
    };
    author.sign(0, body)
}

/// An owner in the mesh.
pub(crate) fn owner(number: u8) -> Author {
    Author { key: key(number), mesh: genesis().id(), epoch: EPOCH, certificate: None }
}

/// A node in the mesh, under an owner.
pub(crate) fn node(number: u8, of: u8) -> Author {
    let certificate = NodeCertificate {
        node: peer(number),
        hpke: HpkeKey::from_bytes([number ^ 0x80; 32]),
        serial: 1,
        last_epoch: Epoch(400),
    };
    let certificate = owner(of).sign(1, certificate);
    Author {
        key: key(number),
        certificate: Some(Certified::from_verified(&certificate)),
        ..owner(of)
    }
}

pub(crate) fn policy(voucher_step: u32) -> Verified<Policy> {
    let body = Policy {
        version: 1,
        prices: Prices {
            prompt: Credits::from_micro(10),
            cached: Credits::from_micro(1),
            completion: Credits::from_micro(30),
        },
        voucher_step,
        protocols: Vec::new(),
    };
    owner(AUTHORITY).sign(4, body)
}

pub(crate) fn membership(of: u8, last_epoch: Epoch) -> Vec<u8> {
    let body = Membership { owner: owner_id(of), invite: None, last_epoch };
    owner(AUTHORITY).sign(2, body).encode()
}

pub(crate) fn standing(number: u8, of: u8, voucher_step: u32) -> Standing {
    Standing {
        genesis: genesis(),
        policy: policy(voucher_step),
        author: node(number, of),
        membership: membership(of, Epoch(400)),
    }
}

pub(crate) fn manifest_body() -> ModelManifest {
    ModelManifest {
        name: "stories260K".into(),
        files: vec![FileEntry { name: "stories260K.gguf".into(), hash: MODEL, size: 1_185_376 }],
        family: "llama".into(),
        quantisation: "F32".into(),
        tokenizer: Hash::from_bytes([0x35; 32]),
        context_len: 512,
        parameter_count: 260_032,
        licence: "MIT".into(),
        provenance: Provenance::default(),
    }
}

/// The model as a node serves it.
pub(crate) fn served_by(author: &Author) -> Served {
    let class = EngineClass {
        device: "cpu/x86_64".into(),
        kernels: "candle/tol".into(),
        version: "0.1.0".into(),
    };
    Served { manifest: author.sign(3, manifest_body()), class, adapter_format: None }
}

pub(crate) fn prompt() -> Prompt {
    let message = Message::new("user", "Once upon a time");
    Prompt {
        input: PromptInput::Chat(vec![message]),
        stop: vec!["\n\n".into()],
        constraint: Some(Constraint::JsonSchema(r#"{"type":"object"}"#.into())),
        tools: Some(Tools {
            functions: vec![Function {
                name: "get_weather".into(),
                description: Some("Says how the weather is".into()),
                parameters: Some(
                    r#"{"type":"object","properties":{"city":{"type":"string"}}}"#.into(),
                ),
            }],
            choice: ToolChoice::Auto,
            is_parallel: true,
        }),
    }
}

/// The question, for `provider`; `None` as seed makes it jointly.
pub(crate) fn draft(provider: PeerId, seed: Option<i64>) -> Draft {
    Draft {
        request: RequestId::from_bytes([0x66; 16]),
        attempt: 0,
        provider,
        model: MODEL,
        adapter: None,
        prompt: prompt(),
        sampling: Sampling::greedy(),
        seed,
        limits: Limits { prompt_tokens_max: 64, completion_tokens_max: 48 },
        top_logprobs: 1,
        price_ceiling: Credits::from_micro(64 * 10 + 48 * 30),
        privacy: Privacy {
            class: PrivacyClass::Mesh,
            audit: AuditConsent::None,
            retention_ms: Millis(0),
        },
        deadline_ms: Millis::from_secs(60),
    }
}

pub(crate) fn secrets() -> Secrets {
    Secrets { nonce: CLIENT_NONCE, salt: SALT }
}

pub(crate) fn token(index: u32) -> Token {
    let alternative = Alternative { id: 7, text: "a".into(), logprob_micro: -5 };
    Token {
        id: index * 7 + 300,
        text: format!(" {index}"),
        logprob_micro: -1_000,
        top: vec![alternative],
    }
}
