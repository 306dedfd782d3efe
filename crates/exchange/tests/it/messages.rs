//! One value of every message and of every stored state, for their encodings.

use commons_exchange::entry::{Entry, Side, StoredOpening, Work};
use commons_exchange::message::{
    LoadAnswer, LoadQuestion, Message, Offer, OfferAnswer, ToProvider, ToRequester, WireCode,
    WireRefusal,
};
use commons_port::engine::EngineLoad;
use commons_record::codec;
use commons_record::seed::{SeedTranscript, commit};
use commons_record::settlement::Scope;
use commons_record::{Hash, Millis, RequestId};
use serde_bytes::ByteBuf;

use crate::{inputs, sample};

/// A named value, its bytes, and a reader that writes it again.
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) reread: fn(&[u8]) -> Option<Vec<u8>>,
}

fn message<M: Message>(name: impl Into<String>, message: &M) -> Sample {
    let reread = |bytes: &[u8]| M::from_bytes(bytes).ok().map(|it| it.to_bytes());
    Sample { name: name.into(), bytes: message.to_bytes(), reread }
}

fn entry(name: &str, entry: &Entry) -> Sample {
    let change = entry.change();
    let reread = |bytes: &[u8]| Entry::decode(bytes).ok().map(|it| codec::encode(&it));
    Sample { name: name.into(), bytes: change.value.expect("a stored entry"), reread }
}

fn hash(number: u8) -> Hash {
    Hash::from_bytes([number; 32])
}

pub(crate) fn requester_entry() -> Entry {
    Entry {
        side: Side::Requester,
        order: hash(1),
        request: RequestId::from_bytes([2; 16]),
        attempt: 1,
        counterparty: sample::peer(sample::PROVIDER),
        scope: Scope::Mesh,
        policy: hash(3),
        manifest: Some(hash(4)),
        voucher: Some(hash(5)),
        receipt: Some(hash(6)),
        opening: Some(StoredOpening { salt: sample::SALT, tokens: vec![0, 23, 24, 70_000] }),
        work: None,
        opened_unix_ms: sample::CALENDAR,
    }
}

pub(crate) fn provider_entry() -> Entry {
    let seed = SeedTranscript::Joint {
        client_nonce: sample::CLIENT_NONCE,
        provider_commit: commit(&sample::PROVIDER_NONCE),
    };
    let served = sample::served_by(&sample::node(sample::PROVIDER, sample::AUTHORITY));
    Entry {
        side: Side::Provider,
        counterparty: sample::peer(sample::REQUESTER),
        voucher: None,
        receipt: None,
        opening: None,
        work: Some(Work {
            class: served.class,
            adapter_format: None,
            prompt: hash(7),
            seed: Some(seed),
        }),
        ..requester_entry()
    }
}

/// Every variant of everything that crosses the wire or lies on disk.
pub(crate) fn all() -> Vec<Sample> {
    let refusal = WireRefusal {
        code: WireCode::Overloaded,
        message: "two orders wait".into(),
        retry_after_ms: Some(Millis(1_500)),
    };
    let names = ["ask", "reveal", "voucher", "cancel", "stored"];
    let to_provider = names.into_iter().zip(inputs::messages_to_provider(hash(8)));
    let names = [
        "accepted",
        "refused",
        "prefilled",
        "tokens",
        "heartbeat",
        "finished",
        "receipt",
        "failed",
    ];
    let to_requester = names.into_iter().zip(inputs::messages_to_requester());
    let load = EngineLoad { running: 1, queued: 2, slots: 4 };
    let mut all: Vec<_> = Vec::new();
    all.extend(
        to_provider.map(|(name, it)| message::<ToProvider>(format!("to-provider-{name}"), &it)),
    );
    all.extend(
        to_requester.map(|(name, it)| message::<ToRequester>(format!("to-requester-{name}"), &it)),
    );
    all.push(message("load-question", &LoadQuestion { model: sample::MODEL }));
    all.push(message("load-answer", &LoadAnswer { load: Some(load) }));
    all.push(message("load-answer-none", &LoadAnswer { load: None }));
    all.push(message("offer", &Offer { record: ByteBuf::from([9; 9]) }));
    all.push(message("offer-answer-stored", &OfferAnswer::Stored));
    all.push(message("offer-answer-refused", &OfferAnswer::Refused(refusal)));
    all.push(entry("entry-requester", &requester_entry()));
    all.push(entry("entry-provider", &provider_entry()));
    all
}
