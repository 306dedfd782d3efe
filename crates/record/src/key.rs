//! Keys, signatures and the other fixed-size byte values.
//!
//! Every id is its own type. In text a hash, nonce or request id is lower-case hexadecimal and
//! a signing key is a `did:key` name; in records all of them are byte strings.
//!
//! Verification is Ed25519 `verify_strict`, one signature at a time: batch verification skips
//! the checks against small-order keys.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

/// Why a text is not the id that it was read as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct ParseIdError {
    /// The text, cut to a printable length.
    pub text: String,
    /// What was expected, as words.
    pub expected: &'static str,
}

impl ParseIdError {
    pub(crate) fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.chars().take(80).collect(), expected }
    }
}

/// Declares a fixed-size byte string with hexadecimal text and strict serde.
macro_rules! byte_type {
    ($(#[$doc:meta])* $name:ident, $size:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $size]);

        crate::key::byte_type_base!($name, $size);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::key::ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let wrong = || crate::key::ParseIdError::new(
                    text,
                    concat!(stringify!($size), " bytes in hexadecimal"),
                );
                crate::key::from_hex(text).map(Self).ok_or_else(wrong)
            }
        }
    };
}

/// The part of [`byte_type`] that does not decide how the value looks as text.
macro_rules! byte_type_base {
    ($name:ident, $size:literal) => {
        impl $name {
            /// Wraps the bytes as they are.
            pub const fn from_bytes(bytes: [u8; $size]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $size] {
                &self.0
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                if from.is_human_readable() {
                    let text = String::deserialize(from)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    let bytes = serde_bytes::ByteArray::<$size>::deserialize(from)?;
                    Ok(Self(bytes.into_array()))
                }
            }
        }
    };
}

pub(crate) use {byte_type, byte_type_base};

/// Exactly `N` bytes of hexadecimal, lower or upper case; `None` for anything else.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    Some(bytes)
}

byte_type! {
    /// The public half of an HPKE key pair (X25519): request bodies are sealed to it.
    HpkeKey, 32
}

byte_type! {
    /// 32 bytes that nobody could guess before they were revealed.
    Nonce, 32
}

byte_type! {
    /// 32 secret bytes, known to both parties, that keep published hashes from leaking text.
    Salt, 32
}

byte_type! {
    /// One request of a user; hedges and resumes of it share the id.
    RequestId, 16
}

byte_type! {
    /// An Ed25519 signature.
    Signature, 64
}

/// The multicodec prefix of an Ed25519 public key in a `did:key` name.
const DID_KEY_ED25519: [u8; 2] = [0xed, 0x01];

/// `did:key:z` and 34 bytes in base58: longer texts are refused before they are decoded.
const DID_KEY_LEN_MAX: usize = 64;

/// Declares a signing key's public half under a name of its own, written as `did:key`.
macro_rules! key_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        byte_type_base!($name, 32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let bytes = [DID_KEY_ED25519.as_slice(), &self.0].concat();
                write!(f, "did:key:z{}", bs58::encode(bytes).into_string())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let wrong = || ParseIdError::new(text, "a did:key name of an Ed25519 key");
                let encoded = text.strip_prefix("did:key:z").ok_or_else(wrong)?;
                if text.len() > DID_KEY_LEN_MAX {
                    return Err(wrong());
                }
                let bytes = bs58::decode(encoded).into_vec().map_err(|_| wrong())?;
                let key = bytes.strip_prefix(DID_KEY_ED25519.as_slice()).ok_or_else(wrong)?;
                key.try_into().map(Self).map_err(|_| wrong())
            }
        }
    };
}

key_type! {
    /// Any Ed25519 public key that signs records.
    PublicKey
}

key_type! {
    /// A node: the public key that it signs and is reached with.
    PeerId
}

key_type! {
    /// An owner: the public key behind which all devices of a person or a lab stand.
    OwnerId
}

impl From<PeerId> for PublicKey {
    fn from(peer: PeerId) -> Self {
        Self(peer.0)
    }
}

impl From<OwnerId> for PublicKey {
    fn from(owner: OwnerId) -> Self {
        Self(owner.0)
    }
}

impl PeerId {
    /// The node that signs with this key.
    pub fn from_key(key: PublicKey) -> Self {
        Self(key.0)
    }
}

impl OwnerId {
    /// The owner that signs with this key.
    pub fn from_key(key: PublicKey) -> Self {
        Self(key.0)
    }
}

impl PublicKey {
    /// Whether `signature` is this key's over `message`, by the strict rules of Rule R5.
    pub fn has_signed(&self, message: &[u8], signature: &Signature) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(&self.0) else { return false };
        let signature = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
        key.verify_strict(message, &signature).is_ok()
    }
}

/// An Ed25519 secret key. It is wiped when dropped, and neither printed nor serialised.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// The key pair of a 32-byte seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The seed, for the key file.
    pub fn to_seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs a message. Ed25519 is deterministic: the same message gives the same signature.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature::from_bytes(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public())
    }
}
