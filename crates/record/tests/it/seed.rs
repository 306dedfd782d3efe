//! The seed of an answer, by its derivation.

use commons_record::seed::{SeedMode, SeedTranscript, commit};
use commons_record::{Hash, Nonce, RequestId};

const REQUEST: RequestId = RequestId::from_bytes([0x66; 16]);

fn hex(seed: [u8; 32]) -> String {
    Hash::from_bytes(seed).to_string()
}

fn joint(client: u8, provider: u8) -> SeedTranscript {
    let [client_nonce, nonce] = [client, provider].map(|it| Nonce::from_bytes([it; 32]));
    SeedTranscript::Joint { client_nonce, provider_commit: commit(&nonce) }
}

// Rules S1 and S2: pinned, or nobody could repeat an older answer.
#[test]
fn seeds_are_what_they_were() {
    let check = |transcript: SeedTranscript, want: &str| {
        assert_eq!(hex(transcript.seed32(&REQUEST)), want, "{transcript:?}");
    };
    check(SeedTranscript::Client { seed: 0 }, GOLDEN[0]);
    check(SeedTranscript::Client { seed: 42 }, GOLDEN[1]);
    check(SeedTranscript::Client { seed: -1 }, GOLDEN[2]);
    check(SeedTranscript::Client { seed: i64::MIN }, GOLDEN[3]);
    check(joint(0x44, 0x45), GOLDEN[4]);
    assert_eq!(commit(&Nonce::from_bytes([0x44; 32])).to_string(), GOLDEN[5]);
}

const GOLDEN: [&str; 6] = [
    "440760ad13ddc121e4ee6905acb3a446b54c7d5371bf0c76aba3e1942547c781",
    "a9a1003139ba2daa3bfd9ef8f87c659479cc2ea6bb06d33bdd38b77e6f4159dd",
    "4953813293bbc83af004452bb6bba49a35867549e338bafee2f3735f17edfa6b",
    "fd4e30498ff8ef993d71d3583bd15331525a19a5fe5f959035e3fbc0e3b84281",
    "24c8245b474a439c75c8098a71143c83d26f0ade2e6e1c10866086e02a7dcb3e",
    "3ef53056f5372859d3cced6264e9dcecd2283a57842faff865ad5800f559211c",
];

// Rule S2
#[test]
fn a_client_seed_is_the_hash_of_the_number_and_nothing_else() {
    let bytes =
        [b"\0\0\0\0\0\0\0\x0eseed/client/v1\0\0\0\0\0\0\0\x08".as_slice(), &42_i64.to_le_bytes()];
    let want = Hash::of_content(&bytes.concat());
    let seed = SeedTranscript::Client { seed: 42 };
    assert_eq!(hex(seed.seed32(&REQUEST)), want.to_string());
    let other = RequestId::from_bytes([0; 16]);
    assert_eq!(seed.seed32(&REQUEST), seed.seed32(&other), "whatever the request");
}

// Rule S1
#[test]
fn a_joint_seed_is_the_hash_of_request_nonce_and_commitment() {
    let want = Hash::of_fields(
        "seed/v1",
        &[&[0x66; 16], &[0x44; 32], commit(&Nonce::from_bytes([0x45; 32])).as_bytes()],
    );
    assert_eq!(hex(joint(0x44, 0x45).seed32(&REQUEST)), want.to_string());
    let seeds = [
        joint(0x44, 0x45).seed32(&REQUEST),
        joint(0x43, 0x45).seed32(&REQUEST),
        joint(0x44, 0x46).seed32(&REQUEST),
        joint(0x44, 0x45).seed32(&RequestId::from_bytes([0; 16])),
    ];
    for (at, seed) in seeds.iter().enumerate() {
        assert!(!seeds[at + 1..].contains(seed), "each part decides");
    }
}

// Rule S3
#[test]
fn a_transcript_follows_only_the_mode_that_committed_to_it() {
    let client = |seed| SeedMode::Client { seed };
    let committed =
        |nonce| SeedMode::Joint { client_commit: commit(&Nonce::from_bytes([nonce; 32])) };
    for (transcript, mode, follows) in [
        (SeedTranscript::Client { seed: 1 }, client(1), true),
        (SeedTranscript::Client { seed: 1 }, client(2), false),
        (SeedTranscript::Client { seed: 1 }, committed(0x44), false),
        (joint(0x44, 0x45), committed(0x44), true),
        (joint(0x44, 0x99), committed(0x44), true), // The provider's part is bound by its answer.
        (joint(0x43, 0x45), committed(0x44), false),
        (joint(0x44, 0x45), client(1), false),
    ] {
        assert_eq!(transcript.follows(&mode), follows, "{transcript:?} after {mode:?}");
    }
}
