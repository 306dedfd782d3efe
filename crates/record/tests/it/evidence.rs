//! Evidence: what a stranger believes, and which rule each lie breaks.

use commons_record::evidence::{
    EVIDENCE_FORMAT, Evidence, EvidenceError, Opening, check_receipt, check_voucher,
};
use commons_record::manifest::ModelManifest;
use commons_record::mesh::Policy;
use commons_record::order::{Job, Order};
use commons_record::seed::{SeedMode, SeedTranscript};
use commons_record::settlement::{
    EndReason, PairPosition, RanAdapter, Receipt, Scope, TokenRange, Voucher,
};
use commons_record::{Author, Credits, Epoch, Hash, Nonce, Record as _, Salt, VerifyError};
use serde_bytes::ByteBuf;

use crate::sample::{self, AUTHORITY, OWNER, PROVIDER, hash, node, owner, provider, requester};

/// Stands for the id of the record that is signed first, until a lie puts another there.
const LINK: Hash = Hash::from_bytes([0xee; 32]);

/// What an honest pair would sign, open to lies.
struct Parts {
    policy: Policy,
    policy_by: Author,
    order: Order,
    order_by: Author,
    voucher: Option<Voucher>,
    voucher_by: Author,
    receipt: Receipt,
    receipt_by: Author,
    manifest: Option<ModelManifest>,
    manifest_by: Author,
    opening: Option<Opening>,
}

impl Parts {
    fn mesh() -> Self {
        let order = Order { policy: LINK, ..sample::order(sample::joint_mode()) };
        Self {
            policy: sample::policy(),
            policy_by: owner(AUTHORITY),
            order,
            order_by: requester(),
            voucher: Some(sample::voucher(LINK)),
            voucher_by: requester(),
            receipt: sample::receipt(LINK, LINK),
            receipt_by: provider(),
            manifest: Some(sample::manifest()),
            manifest_by: provider(),
            opening: Some(Opening {
                salt: sample::SALT,
                prompt: Some(sample::PROMPT_TOKENS.to_vec()),
                tokens: sample::answer(),
            }),
        }
    }

    /// The same with one node as both parties.
    fn local() -> Self {
        let mut parts = Self::mesh();
        parts.receipt.scope = Scope::Local;
        parts.order.provider = sample::peer_id(&sample::key(sample::REQUESTER));
        for author in [&mut parts.receipt_by, &mut parts.manifest_by] {
            *author = requester();
        }
        parts
    }

    /// The rest of an answer of which another provider gave the first eight tokens.
    fn resumed() -> Self {
        let mut parts = Self::mesh();
        parts.order = Order { policy: LINK, ..sample::resumed_order() };
        parts.receipt.range = TokenRange { start: 8, end: 48 };
        parts
    }

    fn sign(mut self) -> Evidence {
        let link = |field: &mut Hash, id: Hash| {
            if *field == LINK {
                *field = id;
            }
        };
        let policy = self.policy_by.sign(4, self.policy);
        link(&mut self.order.policy, policy.id());
        let order = self.order_by.sign(11, self.order);
        if let Some(voucher) = &mut self.voucher {
            link(&mut voucher.order, order.id());
        }
        let voucher = self.voucher.map(|voucher| self.voucher_by.sign(12, voucher));
        link(&mut self.receipt.order, order.id());
        if let (Some(named), Some(voucher)) = (&mut self.receipt.voucher, &voucher) {
            link(named, voucher.id());
        }
        let receipt = self.receipt_by.sign(20, self.receipt);
        let manifest = self.manifest.map(|manifest| self.manifest_by.sign(3, manifest));
        Evidence {
            format: EVIDENCE_FORMAT.into(),
            genesis: ByteBuf::from(sample::genesis().encode()),
            policy: ByteBuf::from(policy.encode()),
            order: ByteBuf::from(order.encode()),
            voucher: voucher.map(|it| ByteBuf::from(it.encode())),
            receipt: ByteBuf::from(receipt.encode()),
            manifest: manifest.map(|it| ByteBuf::from(it.encode())),
            opening: self.opening,
        }
    }
}

/// The evidence of an answer between two nodes.
pub(crate) fn mesh() -> Evidence {
    Parts::mesh().sign()
}

/// The evidence of an answer that a node gave itself.
pub(crate) fn local() -> Evidence {
    Parts::local().sign()
}

#[test]
fn honest_evidence_holds_and_says_what_it_is() {
    let check = |what: &str, parts: Parts, is_two_sided: bool, is_opened: bool| {
        let bytes = parts.sign().encode();
        let evidence = Evidence::decode(&bytes).expect(what);
        assert_eq!(evidence.encode(), bytes, "{what}");
        let checked = evidence.verify().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(
            (checked.is_two_sided(), checked.is_opened),
            (is_two_sided, is_opened),
            "{what}"
        );
    };
    check("two nodes", Parts::mesh(), true, true);
    check("one node", Parts::local(), false, true); // Rule E12: never evidence between two.
    check("a resumed answer", Parts::resumed(), true, true);
    check("a copy to give away", Parts { opening: None, ..Parts::mesh() }, true, false);
    check("no manifest", Parts { manifest: None, ..Parts::mesh() }, true, true);
    let mut parts = Parts::mesh();
    parts.opening.as_mut().expect("honest").prompt = None;
    check("the requester's copy, without the rendered prompt", parts, true, true);
    check("nothing acknowledged", unacknowledged(), false, false);
    let mut parts = Parts::mesh();
    parts.receipt.acknowledged = false;
    check("more was sent than acknowledged", parts, false, true);
}

fn unacknowledged() -> Parts {
    let mut parts = Parts { voucher: None, opening: None, ..Parts::mesh() };
    let receipt = &mut parts.receipt;
    (receipt.voucher, receipt.amount) = (None, Credits::ZERO);
    (receipt.usage.completion_tokens, receipt.range.end) = (0, 0);
    (receipt.seed, receipt.acknowledged, receipt.end) = (None, false, EndReason::Vanished);
    parts
}

/// Signs the evidence with one lie in it, and the rule that it breaks is named.
fn check(rule: &str, what: &str, lie: impl FnOnce(&mut Parts)) {
    let mut parts = Parts::mesh();
    lie(&mut parts);
    check_parts(rule, what, parts);
}

fn check_parts(rule: &str, what: &str, parts: Parts) {
    match parts.sign().verify() {
        Err(error @ EvidenceError::Broken { .. }) => {
            let EvidenceError::Broken { rule: found, what: why } = error else { return };
            assert_eq!(found, rule, "{what}: {why}");
            assert_eq!(error.code(), "broken_rule");
        }
        Ok(_) => panic!("{what}: believed"),
        Err(other) => panic!("{what}: {other:?}"),
    }
}

// Rule E5
#[test]
fn the_policy_is_the_one_that_was_agreed_on() {
    check("E5", "a policy by a member", |it| it.policy_by = owner(OWNER));
    check("E5", "a policy of another version", |it| it.order.policy = hash(1));
}

// Rule E6
#[test]
fn voucher_and_receipt_are_for_this_order() {
    check("E6", "a receipt for another order", |it| it.receipt.order = hash(1));
    check("E6", "a voucher for another order", |it| {
        it.voucher.as_mut().expect("honest").order = hash(1);
    });
}

// Rule E7
#[test]
fn each_record_is_signed_by_its_party() {
    let stranger = || node(7, OWNER); // Of the requester's own owner, and still another node.
    check("E7", "an order by another node", |it| it.order_by = stranger());
    check("E7", "a receipt by another node", |it| it.receipt_by = stranger());
    check("E7", "a voucher by another node", |it| it.voucher_by = stranger());
    check("E7", "a voucher by the provider", |it| it.voucher_by = provider());
    check("E7", "a manifest by another node", |it| it.manifest_by = stranger());
}

// Rule E8
#[test]
fn what_is_claimed_is_what_the_policy_charges() {
    let amount = |voucher: u64, receipt: u64| {
        move |it: &mut Parts| {
            it.voucher.as_mut().expect("honest").amount = Credits::from_micro(voucher);
            it.receipt.amount = Credits::from_micro(receipt);
        }
    };
    check("E8", "both sign one credit too many", amount(1_232, 1_232));
    check("E8", "both sign one credit too few", amount(1_230, 1_230));
    check("E8", "the receipt claims one credit more", amount(1_231, 1_232));
    check("E8", "the receipt claims nothing", amount(1_231, 0));
    check("E8", "a price that no number holds", |it| {
        it.policy.prices.completion = Credits::from_micro(u64::MAX);
    });
}

// Rule E8: the ceiling bounds the amount, to the micro-credit.
#[test]
fn nothing_is_owed_beyond_the_ceiling() {
    let priced = |ceiling: u64, amount: u64| {
        let mut parts = Parts::mesh();
        parts.order.price_ceiling = Credits::from_micro(ceiling);
        parts.voucher.as_mut().expect("honest").amount = Credits::from_micro(amount);
        parts.receipt.amount = Credits::from_micro(amount);
        parts
    };
    for (ceiling, amount) in [(0, 0), (1_230, 1_230), (1_231, 1_231), (1_232, 1_231)] {
        priced(ceiling, amount).sign().verify().expect("the ceiling or the price");
    }
    check_parts("E8", "over the ceiling", priced(1_230, 1_231));
}

// Rule E9: positions have no gaps and add up; what cannot be true of a receipt is refused.
#[test]
fn the_next_position_follows_and_adds_up() {
    let first = PairPosition::default().next(Credits::from_micro(5)).expect("small");
    assert_eq!(first, PairPosition { sequence: 1, cumulative: Credits::from_micro(5) });
    let second = first.next(Credits::ZERO).expect("small");
    assert_eq!(second, PairPosition { sequence: 2, cumulative: Credits::from_micro(5) });
    assert_eq!(second.next(Credits::from_micro(u64::MAX)), None, "a sum that no number holds");
    let last = PairPosition { sequence: u64::MAX, cumulative: Credits::ZERO };
    assert_eq!(last.next(Credits::ZERO), None, "a count that no number holds");
    let with = |sequence, cumulative| {
        let cumulative = Credits::from_micro(cumulative);
        let pair = PairPosition { sequence, cumulative };
        Receipt { pair, ..sample::receipt(LINK, LINK) }.check().map_err(|it| it.field)
    };
    assert_eq!(with(1, 1_231), Ok(()));
    assert_eq!(with(0, 1_231), Err("pair"), "positions count from 1");
    assert_eq!(with(1, 1_230), Err("pair"), "the sum holds its last part");
}

// Rule E10
#[test]
fn what_ran_is_what_was_ordered() {
    check("E10", "another model", |it| it.receipt.ran.model = hash(1));
    let adapter = || RanAdapter { adapter: hash(1), format: "F16".into() };
    check("E10", "an adapter that nobody ordered", |it| it.receipt.ran.adapter = Some(adapter()));
    check("E10", "the base instead of the adapter", |it| {
        let Job::Infer(infer) = &mut it.order.job;
        infer.adapter = Some(hash(1));
    });
    check("E10", "more tokens than were ordered", |it| {
        let Job::Infer(infer) = &mut it.order.job;
        infer.limits.completion_tokens_max = 39;
    });
    check("E10", "a longer prompt than was ordered", |it| {
        let Job::Infer(infer) = &mut it.order.job;
        infer.limits.prompt_tokens_max = 0;
    });
    check("E10", "tokens from the middle", |it| {
        it.receipt.range = TokenRange { start: 1, end: 41 }
    });
    check("E10", "a manifest of another model", |it| {
        it.manifest.as_mut().expect("honest").files[0].hash = hash(1);
    });
    check("E10", "a manifest of another quantisation", |it| {
        it.manifest.as_mut().expect("honest").quantisation = "Q4_0".into();
    });
    let mut parts = Parts::resumed();
    parts.receipt.range = TokenRange { start: 0, end: 40 };
    check_parts("E10", "a resumed answer from the start", parts);
}

/// The limit is on the whole answer, of which a resumed order serves the rest. It used to be held
/// against the rest alone, so that a resume could claim as many tokens again.
// Rule E10
#[test]
fn a_resumed_answer_ends_where_the_whole_would_have() {
    let limited = |limit| {
        let mut parts = Parts::resumed();
        let Job::Infer(infer) = &mut parts.order.job;
        infer.limits.completion_tokens_max = limit;
        parts
    };
    limited(48).sign().verify().expect("8 tokens before and 40 now");
    check_parts("E10", "one token too many", limited(47));
}

// Rule E10: an opening shows the signed tokens or it is refused.
#[test]
fn an_opening_leads_to_the_signed_roots() {
    let check = |what: &str, lie: &dyn Fn(&mut Opening)| {
        check("E10", what, |it| lie(it.opening.as_mut().expect("honest")));
    };
    check("another salt", &|it| it.salt = Salt::from_bytes([0; 32]));
    check("a token changed", &|it| it.tokens[39] += 1);
    check("a token less", &|it| it.tokens.truncate(39));
    check("a token more", &|it| it.tokens.push(0));
    check("two tokens exchanged", &|it| it.tokens.swap(0, 33));
    check("no tokens", &|it| it.tokens.clear());
    check("a prompt token changed", &|it| it.prompt.as_mut().expect("honest")[0] = 2);
    check("an empty prompt", &|it| it.prompt = Some(Vec::new()));
}

// Rule E11
#[test]
fn a_receipt_claims_what_its_last_voucher_acknowledges() {
    check("E11", "the voucher is left out", |it| it.voucher = None);
    check("E11", "the receipt names no voucher", |it| {
        (it.receipt.voucher, it.receipt.amount) = (None, Credits::ZERO);
    });
    check("E11", "the receipt names another voucher", |it| it.receipt.voucher = Some(hash(1)));
    check("E11", "more tokens than acknowledged", |it| {
        (it.receipt.usage.completion_tokens, it.receipt.range.end) = (41, 41);
    });
    check("E11", "fewer cached tokens than acknowledged", |it| it.receipt.usage.cached_tokens = 0);
    check("E11", "other tokens than acknowledged", |it| it.receipt.root = hash(1));
    let mut parts = unacknowledged();
    (parts.receipt.usage.completion_tokens, parts.receipt.range.end) = (1, 1);
    parts.receipt.seed = Some(sample::joint_transcript());
    check_parts("E11", "tokens that nobody acknowledged", parts);
}

// Rule E12
#[test]
fn local_is_said_if_and_only_if_one_node_was_both() {
    check("E12", "two nodes say local", |it| it.receipt.scope = Scope::Local);
    let mut parts = Parts::local();
    parts.receipt.scope = Scope::Mesh;
    check_parts("E12", "one node says mesh", parts);
}

// Rule S3
#[test]
fn the_seed_is_the_one_that_the_order_committed_to() {
    let follow = |seed: SeedTranscript| move |it: &mut Parts| it.receipt.seed = Some(seed);
    let SeedTranscript::Joint { provider_commit, .. } = sample::joint_transcript() else { return };
    let client_nonce = Nonce::from_bytes([0; 32]);
    let other = SeedTranscript::Joint { client_nonce, provider_commit };
    check("S3", "another nonce", follow(other));
    check("S3", "another mode", follow(SeedTranscript::Client { seed: 0 }));
    check("S3", "no seed", |it| it.receipt.seed = None);
    let by_client = |asked, used| {
        let mut parts = Parts::mesh();
        let Job::Infer(infer) = &mut parts.order.job;
        infer.seed = SeedMode::Client { seed: asked };
        parts.receipt.seed = Some(SeedTranscript::Client { seed: used });
        parts
    };
    by_client(-7, -7).sign().verify().expect("the seed that was asked for");
    check_parts("S3", "another seed", by_client(-7, 7));
}

#[test]
fn records_of_another_mesh_are_refused_by_name() {
    let check = |name: &str, change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::mesh();
        change(&mut parts);
        match parts.sign().verify() {
            Err(error @ EvidenceError::Record { .. }) => {
                let EvidenceError::Record { record, source } = &error else { return };
                assert_eq!(*record, name);
                assert!(matches!(source, VerifyError::WrongMesh { .. }), "{name}: {source:?}");
                assert_eq!(error.code(), "invalid_record");
            }
            other => panic!("{name}: {other:?}"),
        }
    };
    let elsewhere = |author: &mut Author| *author = Author { mesh: hash(1), ..author.clone() };
    check("policy", &|it| elsewhere(&mut it.policy_by));
    check("order", &|it| elsewhere(&mut it.order_by));
    check("voucher", &|it| elsewhere(&mut it.voucher_by));
    check("receipt", &|it| elsewhere(&mut it.receipt_by));
    check("manifest", &|it| elsewhere(&mut it.manifest_by));
}

// Rule M1
#[test]
fn the_mesh_is_the_id_of_a_genesis_that_names_none() {
    let checked = mesh().verify().expect("honest");
    assert_eq!(checked.genesis.mesh(), hash(0));
    assert_eq!(checked.order.mesh(), checked.genesis.id());
    let nested = Author { mesh: hash(1), ..owner(AUTHORITY) };
    let nested = nested.sign(0, checked.genesis.into_body());
    let evidence = Evidence { genesis: ByteBuf::from(nested.encode()), ..mesh() };
    let error = evidence.verify().expect_err("a genesis inside a mesh");
    assert!(matches!(error, EvidenceError::Record { record: "genesis", .. }), "{error:?}");
}

#[test]
fn a_changed_byte_anywhere_in_the_file_is_refused() {
    for evidence in [mesh(), unacknowledged().sign()] {
        let whole = evidence.encode();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            let verdict = Evidence::decode(&bytes).and_then(|it| it.verify());
            assert!(verdict.is_err(), "byte {at} is free");
        }
        for size in [0, 1, whole.len() / 2, whole.len() - 1] {
            assert!(Evidence::decode(&whole[..size]).is_err(), "cut to {size} bytes");
        }
    }
}

#[test]
fn a_file_of_another_format_is_refused_by_name() {
    let other = Evidence { format: "commons/evidence/2".into(), ..mesh() };
    let error = Evidence::decode(&other.encode()).expect_err("not ours");
    assert_eq!(error.code(), "unknown_format");
    assert!(error.to_string().contains("commons/evidence/2"), "{error}");
    assert_eq!(Evidence::decode(b"{}").expect_err("not ours").code(), "unreadable");
}

/// The parts that a node checks as they arrive agree with what a stranger checks later.
#[test]
fn the_parts_can_be_checked_one_by_one() {
    let checked = mesh().verify().expect("honest");
    let policy = owner(AUTHORITY).sign(4, sample::policy());
    let voucher = checked.voucher.as_ref().expect("honest");
    check_voucher(&checked.order, voucher, &policy).expect("honest");
    check_receipt(&checked.order, Some(voucher), &checked.receipt, &policy).expect("honest");
    let late = Author { epoch: Epoch(6), ..owner(AUTHORITY) }.sign(4, sample::policy());
    let error = check_receipt(&checked.order, Some(voucher), &checked.receipt, &late);
    assert!(matches!(error, Err(EvidenceError::Broken { rule: "E5", .. })), "{error:?}");
    assert_eq!(checked.receipt.node(), sample::peer_id(&sample::key(PROVIDER)));
}
