//! Keys, signatures and the text of ids.

use commons_record::{Hash, OwnerId, PeerId, PublicKey, RequestId, SecretKey, Signature};
use ed25519_dalek::{Verifier as _, VerifyingKey};
use proptest::prelude::*;

use crate::sample::{key, parse_key};

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    let digits = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hexadecimal");
    assert_eq!(hex.len(), 2 * N);
    std::array::from_fn(digits)
}

/// The example of the W3C's `did:key` method for Ed25519.
const DID: &str = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp";
const DID_KEY: &str = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";

#[test]
fn a_known_did_key_is_its_known_public_key() {
    let parsed = parse_key(DID);
    assert_eq!(*parsed.as_bytes(), bytes::<32>(DID_KEY));
    assert_eq!(parsed.to_string(), DID);
    // It is the key of the seed of zeros, whose signatures anyone can make.
    let secret = SecretKey::from_seed(&[0; 32]);
    assert_eq!(secret.public(), parsed);
    assert!(parsed.has_signed(b"message", &secret.sign(b"message")));
}

/// RFC 8032, section 7.1, tests 1 and 2.
#[test]
fn signatures_are_those_of_the_standard() {
    for (seed, public, message, signature) in [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            b"".as_slice(),
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            b"\x72".as_slice(),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
    ] {
        let secret = SecretKey::from_seed(&bytes(seed));
        assert_eq!(*secret.public().as_bytes(), bytes::<32>(public));
        assert_eq!(*secret.sign(message).as_bytes(), bytes::<64>(signature));
        assert!(secret.public().has_signed(message, &Signature::from_bytes(bytes(signature))));
        assert_eq!(*secret.to_seed(), bytes::<32>(seed));
    }
}

/// The eight points of small order, and the other encodings of theirs that decoders tolerate.
const SMALL_ORDER: [&str; 14] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
];

// Rule R5: under such a key one signature fits many messages, so no such key signs anything.
#[test]
fn keys_and_signatures_of_small_order_are_refused() {
    let mut would_pass = 0;
    for public in SMALL_ORDER {
        for point in SMALL_ORDER {
            let signature: [u8; 64] = bytes(&[point, &"00".repeat(32)].concat());
            for message in [&b""[..], b"a", b"b", b"c", b"d", b"e", b"f", b"g"] {
                let ours = PublicKey::from_bytes(bytes(public));
                assert!(!ours.has_signed(message, &Signature::from_bytes(signature)), "{public}");
                let lenient = VerifyingKey::from_bytes(&bytes(public)).is_ok_and(|key| {
                    key.verify(message, &ed25519_dalek::Signature::from_bytes(&signature)).is_ok()
                });
                would_pass += u32::from(lenient);
            }
        }
    }
    assert!(would_pass > 50, "the plain check accepts these, {would_pass} times");
}

/// The order of the group: `s` and `s` plus this satisfy the same equation.
const ORDER: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";

// Rule R5
#[test]
fn a_second_form_of_a_signature_is_refused() {
    let (secret, message) = (key(1), b"message");
    let good = *secret.sign(message).as_bytes();
    let mut carry = 0;
    let mut other = good;
    for (byte, add) in other[32..].iter_mut().zip(bytes::<32>(ORDER)) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    assert_eq!(carry, 0, "the sum has 32 bytes");
    assert!(secret.public().has_signed(message, &Signature::from_bytes(good)));
    assert!(!secret.public().has_signed(message, &Signature::from_bytes(other)));
}

// Rule R5
#[test]
fn any_flipped_bit_breaks_a_signature() {
    let (secret, message) = (key(1), b"message");
    let (public, good) = (secret.public(), *secret.sign(message).as_bytes());
    for bit in 0..512 {
        let mut changed = good;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(
            !public.has_signed(message, &Signature::from_bytes(changed)),
            "signature bit {bit}"
        );
    }
    for bit in 0..256 {
        let mut changed = *public.as_bytes();
        changed[bit / 8] ^= 1 << (bit % 8);
        let changed = PublicKey::from_bytes(changed);
        assert!(!changed.has_signed(message, &Signature::from_bytes(good)), "key bit {bit}");
    }
    assert!(!public.has_signed(b"massage", &Signature::from_bytes(good)));
}

#[test]
fn a_secret_key_prints_its_public_half_only() {
    let secret = SecretKey::from_seed(&[0xab; 32]);
    let text = format!("{secret:?} {secret:#?}");
    assert!(text.contains(&secret.public().to_string()), "{text}");
    assert!(!text.contains("abab") && !text.contains("171, 171"), "{text}");
}

#[test]
fn texts_that_are_no_did_key_are_refused() {
    let encoded = |bytes: &[u8]| format!("did:key:z{}", bs58::encode(bytes).into_string());
    let with_prefix =
        |prefix: [u8; 2], size: usize| encoded(&[prefix.as_slice(), &vec![7; size]].concat());
    for text in [
        "",
        "did:key:",
        "did:key:z",
        &DID["did:key:".len()..],
        &DID.to_uppercase(),
        &DID.replace("key:z", "key:m"),
        &DID.replace("did:key", "did:web"),
        &format!(" {DID}"),
        &format!("{DID}\n"),
        &format!("{DID}0"), // No letter of base58.
        &DID.replacen('6', "0", 1),
        &with_prefix([0xed, 0x01], 31),
        &with_prefix([0xed, 0x01], 33),
        &with_prefix([0xec, 0x01], 32),  // An X25519 key.
        &with_prefix([0x12, 0x00], 32),  // A P-256 key.
        &DID.replace("key:z", "key:z1"), // A leading zero byte.
        &format!("did:key:z{}", "6".repeat(100_000)),
    ] {
        let error = text.parse::<PublicKey>().expect_err(text);
        assert!(error.to_string().len() < 200, "an error quotes no more than a line: {error}");
    }
}

#[test]
fn hexadecimal_ids_are_exact() {
    let text = "00ff".repeat(8);
    assert_eq!(text.parse::<Hash>().ok().map(|it| it.to_string()), None, "16 bytes are no hash");
    let id: RequestId = text.parse().expect("16 bytes");
    assert_eq!(id.to_string(), text);
    assert_eq!(format!("{id:?}"), format!("RequestId({text})"));
    let upper: RequestId = text.to_uppercase().parse().expect("either case is read");
    assert_eq!(upper, id);
    for wrong in
        ["", "00", &"0g".repeat(16), &"+f".repeat(16), &"é".repeat(16), &format!("{text}0")]
    {
        wrong.parse::<RequestId>().expect_err(wrong);
    }
}

/// In JSON an id is its text, in records it is its bytes.
#[test]
fn an_id_in_json_is_its_text() {
    let peer = PeerId::from_key(parse_key(DID));
    let json = serde_json::to_string(&peer).expect("a string");
    assert_eq!(json, format!("\"{DID}\""));
    assert_eq!(serde_json::from_str::<PeerId>(&json).expect("the same"), peer);
    serde_json::from_str::<PeerId>("\"did:key:z6Mk\"").expect_err("no key");
    serde_json::from_str::<Hash>("[1,2]").expect_err("no text");
}

proptest! {
    /// Every key has one name, and the name leads back to the key.
    #[test]
    fn did_keys_round_trip(key in any::<[u8; 32]>()) {
        let text = PublicKey::from_bytes(key).to_string();
        prop_assert_eq!(parse_key(&text), PublicKey::from_bytes(key));
        prop_assert_eq!(text.parse::<OwnerId>().map(|it| it.to_string()), Ok(text.clone()));
        prop_assert!(text.starts_with("did:key:z6Mk"));
    }

    /// What is read as a key is written as it was.
    #[test]
    fn a_did_key_has_one_form(text in "did:key:z6Mk[1-9A-HJ-NP-Za-km-z]{40,46}") {
        if let Ok(key) = text.parse::<PublicKey>() {
            prop_assert_eq!(key.to_string(), text);
        }
    }
}
