//! What a provider refuses before it does any work, and with which code.

use commons_exchange::Standing;
use commons_exchange::message::{AskMessage, WireCode, WireRefusal};
use commons_exchange::provider::{self, Admitted, Served};
use commons_port::engine::EngineRefusalCode;
use commons_record::constraint::Constraint;
use commons_record::envelope::Author;
use commons_record::mesh::Membership;
use commons_record::order::{
    Infer, Job, Message, Order, PrivacyClass, Prompt, PromptInput, Requester, Resume,
};
use commons_record::seed::SeedTranscript;
use commons_record::{Credits, Epoch, Hash, PeerId, Salt};
use serde_bytes::ByteBuf;

use crate::sample;
use crate::world::{Setup, World};

/// An order on its way, and everything about it that can be wrong.
struct Case {
    standing: Standing,
    /// Who the stream is from.
    peer: PeerId,
    /// Who signs the order.
    author: Author,
    order: Order,
    membership: Vec<u8>,
    salt: Salt,
    prompt: Prompt,
    is_served: bool,
    /// Whether a foreign engine has the model.
    is_foreign: bool,
    /// What happens to the order's bytes on the way.
    garble: fn(Vec<u8>) -> Vec<u8>,
}

fn honest() -> Case {
    let world = World::begin(Setup::answer(1));
    Case {
        peer: world.requester(),
        author: world.asker.standing.author.clone(),
        order: world.order.body().clone(),
        membership: world.asker.standing.membership.clone(),
        standing: world.server.standing,
        salt: sample::SALT,
        prompt: sample::prompt(),
        is_served: true,
        is_foreign: false,
        garble: |bytes| bytes,
    }
}

fn admit(case: Case) -> Result<Admitted, WireRefusal> {
    let order = case.author.sign(100, case.order).encode();
    let ask = AskMessage {
        order: ByteBuf::from((case.garble)(order)),
        membership: ByteBuf::from(case.membership),
        salt: case.salt,
        prompt: case.prompt,
    };
    let mut served = sample::served_by(&case.standing.author);
    if case.is_foreign {
        "foreign/vllm".clone_into(&mut served.class.kernels);
    }
    let is_it = |infer: &Infer| case.is_served && infer.model == sample::MODEL;
    let served = |infer: &Infer| {
        let format = infer.adapter.filter(|it| *it == sample::ADAPTER).map(|_| "F16".to_owned());
        is_it(infer).then(|| Served { adapter_format: format, ..served.clone() })
    };
    provider::admit(&case.standing, case.peer, ask, served)
}

/// A change makes an honest order one that is refused with `code`.
fn check(name: &str, code: WireCode, change: impl FnOnce(&mut Case)) {
    let mut case = honest();
    change(&mut case);
    match admit(case) {
        Ok(_) => panic!("{name} was admitted"),
        Err(refusal) => {
            assert_eq!(refusal.code, code, "{name}: {refusal}");
            assert!(!refusal.message.is_empty(), "Rule N1: {name} has no sentence");
        }
    }
}

fn infer(order: &mut Order) -> &mut commons_record::order::Infer {
    let Job::Infer(infer) = &mut order.job;
    infer
}

fn recommit(case: &mut Case) {
    infer(&mut case.order).prompt = case.prompt.commitment(&case.salt);
}

#[test]
fn an_honest_order_is_admitted_also_one_epoch_apart() {
    for epoch in [4, 5, 6] {
        let mut case = honest();
        case.author.epoch = Epoch(epoch);
        let admitted = admit(case).unwrap_or_else(|refusal| panic!("epoch {epoch}: {refusal}"));
        assert_eq!(admitted.order.body().provider, sample::peer(sample::PROVIDER));
    }
}

/// Rules E5 to E7, and R5 to R7.
#[test]
fn an_order_that_is_not_valid_is_refused() {
    let code = WireCode::InvalidOrder;
    check("garbage", code, |case| case.garble = |_| vec![1, 2, 3]);
    check("nothing", code, |case| case.garble = |_| Vec::new());
    check("a flipped bit", code, |case| {
        case.garble = |mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes
        }
    });
    check("a trailing byte", code, |case| case.garble = |bytes| [bytes, vec![0]].concat());
    check("another mesh", code, |case| case.author.mesh = Hash::from_bytes([9; 32]));
    check("an old epoch", code, |case| case.author.epoch = Epoch(3));
    check("a later epoch", code, |case| case.author.epoch = Epoch(7));
    check("no certificate", code, |case| case.author.certificate = None);
    check("another node's certificate", code, |case| {
        case.author.certificate = sample::node(sample::STRANGER, sample::OWNER).certificate;
    });
    check("another prompt than it commits to", code, |case| {
        case.prompt.input = PromptInput::Text("something else".into());
        case.prompt.tools = None;
    });
    check("another salt", code, |case| case.salt = Salt::from_bytes([1; 32]));
}

/// The ceiling caps what is owed, so an order over more work than its ceiling pays for would be
/// served for nothing: with a ceiling of 0, all of it. Rule E8.
#[test]
fn an_order_whose_ceiling_does_not_cover_its_limits_is_refused() {
    let code = WireCode::InvalidOrder;
    check("no ceiling", code, |case| case.order.price_ceiling = Credits::ZERO);
    check("a low ceiling", code, |case| {
        case.order.price_ceiling = Credits::from_micro(64 * 10 + 48 * 30 - 1);
    });
    check("a price beyond all numbers", code, |case| {
        let mut policy = case.standing.policy.body().clone();
        policy.prices.completion = Credits::from_micro(u64::MAX);
        case.standing.policy = sample::owner(sample::AUTHORITY).sign(5, policy);
        case.order.policy = case.standing.policy.id();
        case.order.price_ceiling = Credits::from_micro(u64::MAX);
    });
}

/// Rule M2.
#[test]
fn an_owner_who_is_no_member_is_refused() {
    let code = WireCode::NotAMember;
    check("garbage", code, |case| case.membership = vec![0]);
    check("another owner's membership", code, |case| {
        case.membership = sample::membership(sample::AUTHORITY, Epoch(400));
    });
    check("a membership that ended", code, |case| {
        case.membership = sample::membership(sample::OWNER, Epoch(4));
    });
    check("a membership by oneself", code, |case| {
        let owner = sample::owner_id(sample::OWNER);
        let body = Membership { owner, invite: None, last_epoch: Epoch(400) };
        case.membership = sample::owner(sample::OWNER).sign(2, body).encode();
    });
    check("an owner whom nobody admitted", code, |case| {
        case.author = sample::node(sample::REQUESTER, sample::STRANGER);
    });
}

/// Rule E7.
#[test]
fn an_order_of_another_party_is_refused() {
    let code = WireCode::WrongParty;
    let stranger = sample::peer(sample::STRANGER);
    check("a stream of another node", code, |case| case.peer = stranger);
    check("for another provider", code, |case| case.order.provider = stranger);
    check("in another's name", code, |case| case.order.requester = Requester::Node(stranger));
    check("signed by another of the owner's nodes", code, |case| {
        case.author = sample::node(sample::STRANGER, sample::OWNER);
    });
    check("by a one-time key", code, |case| {
        case.order.requester = Requester::OneTime(case.author.key.public());
    });
}

#[test]
fn an_order_that_cannot_be_served_here_is_refused_by_its_reason() {
    check("another policy (Rule E5)", WireCode::UnknownPolicy, |case| {
        case.order.policy = Hash::from_bytes([9; 32]);
    });
    // Rule P1.
    check("a private order", WireCode::PrivacyClass, |case| {
        case.order.privacy.class = PrivacyClass::LocalOnly;
    });
    check("a resumed order", WireCode::Unsupported, |case| {
        case.order.resume = Some(Resume {
            order: Hash::from_bytes([1; 32]),
            seed: SeedTranscript::Client { seed: 1 },
            prefix_root: Hash::from_bytes([2; 32]),
            prefix_tokens: 1,
        });
    });
    check("an empty prompt", WireCode::InvalidPrompt, |case| {
        case.prompt.input = PromptInput::Text(String::new());
        case.prompt.tools = None;
        recommit(case);
    });
    check("a prompt of too much", WireCode::InvalidPrompt, |case| {
        let message = Message::new("user", String::new());
        case.prompt.input = PromptInput::Chat(vec![message; 4097]);
        recommit(case);
    });
    check("too many stop strings", WireCode::InvalidPrompt, |case| {
        case.prompt.stop = vec!["x".into(); 17];
        recommit(case);
    });
    check("a form without a source", WireCode::InvalidPrompt, |case| {
        case.prompt.constraint = Some(Constraint::Regex(String::new()));
        recommit(case);
    });
    check("a form that the order does not commit to", WireCode::InvalidOrder, |case| {
        case.prompt.constraint = Some(Constraint::JsonObject);
    });
    check("another model", WireCode::UnknownModel, |case| {
        infer(&mut case.order).model = Hash::from_bytes([9; 32]);
    });
    check("a model that went away", WireCode::UnknownModel, |case| case.is_served = false);
}

/// Rule E10: what is ordered is what runs.
#[test]
fn an_adapter_that_is_not_here_is_refused_and_never_the_base() {
    let with = |adapter: Hash| {
        move |case: &mut Case| {
            let Job::Infer(infer) = &mut case.order.job;
            infer.adapter = Some(adapter);
        }
    };
    let mut case = honest();
    with(sample::ADAPTER)(&mut case);
    let admitted = admit(case).expect("it is here");
    assert_eq!(admitted.served.adapter_format.as_deref(), Some("F16"));
    check("another adapter", WireCode::UnknownAdapter, with(Hash::of_content(b"another")));
}

/// Rule E15: nobody could check what it draws. Its own node may ask it.
#[test]
fn a_foreign_engine_serves_its_own_node_alone() {
    check("a foreign engine's model", WireCode::Unsupported, |case| case.is_foreign = true);
    let mut case = honest();
    case.is_foreign = true;
    case.author = case.standing.author.clone();
    case.peer = case.standing.peer();
    case.membership = case.standing.membership.clone();
    case.order.requester = Requester::Node(case.peer);
    assert!(admit(case).is_ok());
}

/// Rule E12: with oneself no class is too private.
#[test]
fn a_node_may_ask_itself_for_what_must_not_leave_it() {
    let mut case = honest();
    case.author = case.standing.author.clone();
    case.peer = case.standing.peer();
    case.membership = case.standing.membership.clone();
    case.order.requester = Requester::Node(case.peer);
    case.order.privacy.class = PrivacyClass::LocalOnly;
    assert!(admit(case).is_ok());
}

#[test]
fn an_engines_refusal_keeps_its_meaning() {
    let codes = [
        (EngineRefusalCode::UnknownModel, WireCode::UnknownModel),
        (EngineRefusalCode::UnknownAdapter, WireCode::UnknownAdapter),
        (EngineRefusalCode::InvalidPrompt, WireCode::InvalidPrompt),
        (EngineRefusalCode::InvalidConstraint, WireCode::InvalidConstraint),
        (EngineRefusalCode::TooLong, WireCode::TooLong),
        (EngineRefusalCode::Unsupported, WireCode::Unsupported),
        (EngineRefusalCode::Overloaded, WireCode::Overloaded),
        (EngineRefusalCode::Unavailable, WireCode::Unavailable),
        (EngineRefusalCode::Failed, WireCode::EngineFailed),
    ];
    for (from, to) in codes {
        let refusal = WireRefusal::from(crate::engine::refusal(from));
        assert_eq!(refusal.code, to);
        let comes_back = from == EngineRefusalCode::Unavailable;
        assert_eq!(refusal.retry_after_ms.is_some(), comes_back, "{from:?}");
    }
}

/// What a peer writes as a reason is cut to a printable sentence.
#[test]
fn a_refusal_from_a_peer_is_bounded() {
    let message = format!("\u{1b}[31m{}\n", "é".repeat(2_000));
    let wild = WireRefusal { code: WireCode::Overloaded, message, retry_after_ms: None };
    let tame = wild.bounded().message;
    assert_eq!(tame.chars().count(), 500);
    assert!(!tame.chars().any(char::is_control));
    let own = WireRefusal::new(WireCode::Overloaded, "x".repeat(2_000));
    assert_eq!(own.message.len(), 500);
}
