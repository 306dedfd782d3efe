//! One input of every kind, to be given when it cannot matter any more.

use commons_exchange::message::{AskMessage, ToProvider, ToRequester, WireCode, WireRefusal};
use commons_exchange::{provider, requester};
use commons_port::engine::{EngineEvent, EngineRefusalCode};
use commons_record::constraint::ToolFormat;
use commons_record::mesh::Usage;
use commons_record::settlement::{EndReason, PairPosition};
use commons_record::{Credits, Hash, Millis};
use serde_bytes::ByteBuf;

use crate::engine::refusal;
use crate::sample;

fn refused() -> WireRefusal {
    WireRefusal::new(WireCode::Overloaded, "no")
}

/// Every message to a provider; none of its records is valid.
pub(crate) fn messages_to_provider(receipt: Hash) -> Vec<ToProvider> {
    let ask = AskMessage {
        order: ByteBuf::from([1]),
        membership: ByteBuf::from([2, 2]),
        salt: sample::SALT,
        prompt: sample::prompt(),
    };
    vec![
        ToProvider::Ask(Box::new(ask)),
        ToProvider::Reveal { nonce: sample::CLIENT_NONCE },
        ToProvider::Voucher { record: ByteBuf::from([3; 3]) },
        ToProvider::Cancel,
        ToProvider::Stored { receipt },
    ]
}

/// Every message to a requester; none of its records is valid.
pub(crate) fn messages_to_requester() -> Vec<ToRequester> {
    let usage = Usage { prompt_tokens: 5, cached_tokens: 2, completion_tokens: 1 };
    vec![
        ToRequester::Accepted {
            commit: commons_record::seed::commit(&sample::PROVIDER_NONCE),
            manifest: ByteBuf::from([4; 4]),
        },
        ToRequester::Refused(refused()),
        ToRequester::Prefilled {
            prompt_tokens: 5,
            cached_tokens: 2,
            tool_format: Some(ToolFormat::Hermes),
        },
        ToRequester::Tokens(vec![sample::token(1)]),
        ToRequester::Heartbeat,
        ToRequester::Finished { reason: EndReason::Stop, text: "!".into(), usage },
        ToRequester::Receipt { record: ByteBuf::from([5; 5]) },
        ToRequester::Failed(refused()),
    ]
}

pub(crate) fn to_provider(receipt: Hash) -> Vec<provider::Input> {
    let pair = PairPosition { sequence: 1, cumulative: Credits::ZERO };
    let finished = EngineEvent::Finished {
        reason: EndReason::Stop,
        text: String::new(),
        compute_ms: Millis(1),
    };
    let mut inputs = vec![
        provider::Input::Begin,
        provider::Input::EngineRefused(refusal(EngineRefusalCode::TooLong)),
        provider::Input::Engine(None),
        provider::Input::Engine(Some(finished)),
        provider::Input::Engine(Some(EngineEvent::Token(sample::token(1)))),
        provider::Input::Closed,
        provider::Input::Allotted(pair),
        provider::Input::StorageFailed,
        provider::Input::TimerFired,
    ];
    inputs.extend(messages_to_provider(receipt).into_iter().map(provider::Input::Message));
    inputs
}

pub(crate) fn to_requester() -> Vec<requester::Input> {
    let mut inputs = vec![
        requester::Input::Begin,
        requester::Input::Closed(refused()),
        requester::Input::Cancel,
        requester::Input::StorageFailed("the disk is full".into()),
        requester::Input::TimerFired,
    ];
    inputs.extend(messages_to_requester().into_iter().map(requester::Input::Message));
    inputs
}
