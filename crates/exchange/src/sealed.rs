//! Frames that only the addressed node can read.
//!
//! The stream opens with a clear envelope: version, mesh and an HPKE encapsulation to the
//! provider's key. Both sides export one key for each direction from it (RFC 9180, base mode,
//! export only; X25519, HKDF-SHA256) and seal frames with ChaCha20-Poly1305 under a counter.
//!
//! ```text
//! opening: version (1) | mesh (32) | encapsulated key (32)
//! frame:   length class c (1) | 2^c bytes: seal(length (4, big-endian) | message | zeros)
//! ```
//!
//! A frame's size is a power of two: an observer learns the class and no more (Rule E2). The
//! requester is authenticated by its signed order, the provider by being able to answer.

use chacha20::ChaCha20Rng;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _};
use commons_record::{Hash, HpkeKey};
use hpke::aead::ExportOnlyAead;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _};
use rand_core::SeedableRng as _;
use zeroize::{Zeroize as _, Zeroizing};

type Kem = X25519HkdfSha256;
type Aead = ExportOnlyAead;

/// The version of this layout.
const VERSION: u8 = 1;

/// Length of the opening in bytes.
pub const OPENING_LEN: usize = 1 + 32 + 32;

/// 256 bytes: a token, a heartbeat and a voucher all look alike.
const CLASS_MIN: u8 = 8;

/// 2 MiB: the longest prompt and an order. A reader allocates no more than this.
const CLASS_MAX: u8 = 21;

const TAG_LEN: usize = 16;
const LENGTH_LEN: usize = 4;

/// The longest message that fits a frame.
pub const MESSAGE_SIZE_MAX: usize = (1 << CLASS_MAX) - TAG_LEN - LENGTH_LEN;

/// Why a frame or an opening is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum SealError {
    #[error("the stream opens with version {found}, and this node speaks {VERSION}")]
    Version { found: u8 },

    #[error("the stream is for mesh {found}")]
    WrongMesh { found: Hash },

    #[error("a key of the opening is not valid")]
    BadKey,

    #[error("length class {found} is not between {CLASS_MIN} and {CLASS_MAX}")]
    LengthClass { found: u8 },

    #[error("a message of {size} bytes does not fit a frame")]
    TooLarge { size: usize },

    #[error("a frame was not sealed to this stream, or was changed, repeated or left out")]
    NotAuthentic,
}

/// A node's private half of its HPKE key.
#[derive(Clone)]
pub struct HpkeSecret(<Kem as hpke::Kem>::PrivateKey);

impl std::fmt::Debug for HpkeSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HpkeSecret(of {})", self.public())
    }
}

impl HpkeSecret {
    /// The key pair of a 32-byte seed (RFC 9180 `DeriveKeyPair`).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Kem::derive_keypair(seed).0)
    }

    /// The public half, as a certificate states it.
    pub fn public(&self) -> HpkeKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(&Kem::sk_to_pk(&self.0).to_bytes());
        HpkeKey::from_bytes(bytes)
    }
}

/// One direction of a stream.
struct Direction {
    cipher: ChaCha20Poly1305,
    counter: u64,
    aad: [u8; 34],
}

impl Direction {
    fn new(key: &[u8; 32], mesh: &Hash) -> Self {
        let mut aad = [0; 34];
        aad[0] = VERSION;
        aad[1..33].copy_from_slice(mesh.as_bytes());
        Self { cipher: ChaCha20Poly1305::new(key.into()), counter: 0, aad }
    }

    /// The nonce of the next frame. A stream of 2^64 frames does not happen.
    fn next_nonce(&mut self) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.counter.to_be_bytes());
        self.counter += 1;
        nonce
    }

    fn seal(&mut self, message: &[u8]) -> Result<Vec<u8>, SealError> {
        let too_large = SealError::TooLarge { size: message.len() };
        let length = u32::try_from(message.len()).map_err(|_| too_large.clone())?;
        let class = class_of(message.len()).ok_or(too_large)?;
        let mut plain = Zeroizing::new(vec![0; frame_len(class) - TAG_LEN]);
        plain[..LENGTH_LEN].copy_from_slice(&length.to_be_bytes());
        plain[LENGTH_LEN..LENGTH_LEN + message.len()].copy_from_slice(message);
        self.aad[33] = class;
        let nonce = self.next_nonce();
        let payload = Payload { msg: &plain, aad: &self.aad };
        let sealed = self.cipher.encrypt(&nonce.into(), payload);
        let sealed = sealed.map_err(|_| SealError::TooLarge { size: message.len() })?;
        Ok([[class].as_slice(), &sealed].concat())
    }

    fn open(&mut self, class: u8, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        self.aad[33] = class;
        let nonce = self.next_nonce();
        let payload = Payload { msg: sealed, aad: &self.aad };
        let opened = self.cipher.decrypt(&nonce.into(), payload);
        let mut plain = opened.map_err(|_| SealError::NotAuthentic)?;
        let (length, rest) = plain.split_first_chunk().ok_or(SealError::NotAuthentic)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let message = rest.get(..length).ok_or(SealError::NotAuthentic)?.to_vec();
        plain.zeroize();
        Ok(message)
    }
}

fn frame_len(class: u8) -> usize {
    1 << class
}

/// The smallest class that holds a message; none if no class does.
fn class_of(message_len: usize) -> Option<u8> {
    let needed = message_len.checked_add(LENGTH_LEN + TAG_LEN)?;
    (CLASS_MIN..=CLASS_MAX).find(|class| frame_len(*class) >= needed)
}

/// How many bytes follow a length class byte. Checked before anything is allocated.
pub fn frame_body_len(class: u8) -> Result<usize, SealError> {
    if (CLASS_MIN..=CLASS_MAX).contains(&class) {
        Ok(frame_len(class))
    } else {
        Err(SealError::LengthClass { found: class })
    }
}

/// The sending half of one end of a stream.
pub struct Sealer(Direction);

/// The receiving half of one end of a stream.
pub struct Opener(Direction);

impl Sealer {
    /// Seals a message into a whole frame, length class included.
    pub fn seal(&mut self, message: &[u8]) -> Result<Vec<u8>, SealError> {
        self.0.seal(message)
    }
}

impl Opener {
    /// Opens the body of a frame whose length class was `class`.
    pub fn open(&mut self, class: u8, body: &[u8]) -> Result<Vec<u8>, SealError> {
        self.0.open(class, body)
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("sealed", &self.0.counter).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("opened", &self.0.counter).finish_non_exhaustive()
    }
}

/// Both halves of one end of a stream.
#[derive(Debug)]
pub struct Channel {
    /// For what is sent.
    pub sealer: Sealer,
    /// For what is received.
    pub opener: Opener,
}

const REQUEST_KEY: &[u8] = b"commons/sealed/request/1";
const RESPONSE_KEY: &[u8] = b"commons/sealed/response/1";

fn info(mesh: &Hash) -> Vec<u8> {
    [b"commons/sealed/1".as_slice(), mesh.as_bytes()].concat()
}

impl Channel {
    /// Opens a stream to the holder of `provider`. `entropy` must be fresh. The bytes are the
    /// opening, to be sent before any frame.
    pub fn connect(
        entropy: [u8; 32],
        mesh: &Hash,
        provider: &HpkeKey,
    ) -> Result<(Self, Vec<u8>), SealError> {
        let key = <Kem as hpke::Kem>::PublicKey::from_bytes(provider.as_bytes())
            .map_err(|_| SealError::BadKey)?;
        let mut rng = ChaCha20Rng::from_seed(entropy);
        let (encapsulated, context) = hpke::setup_sender_with_rng::<Aead, HkdfSha256, Kem>(
            &OpModeS::Base,
            &key,
            &info(mesh),
            &mut rng,
        )
        .map_err(|_| SealError::BadKey)?;
        let keys = Keys::export(|label, out| context.export(label, out))?;
        let opening =
            [[VERSION].as_slice(), mesh.as_bytes(), encapsulated.to_bytes().as_slice()].concat();
        let channel = Self {
            sealer: Sealer(Direction::new(&keys.request, mesh)),
            opener: Opener(Direction::new(&keys.response, mesh)),
        };
        Ok((channel, opening))
    }

    /// Answers a stream that begins with `opening`.
    pub fn accept(
        secret: &HpkeSecret,
        mesh: &Hash,
        opening: &[u8; OPENING_LEN],
    ) -> Result<Self, SealError> {
        let (version, rest) = (opening[0], &opening[1..]);
        if version != VERSION {
            return Err(SealError::Version { found: version });
        }
        let (named, encapsulated) = rest.split_at(32);
        if named != mesh.as_bytes() {
            let mut found = [0; 32];
            found.copy_from_slice(named);
            return Err(SealError::WrongMesh { found: Hash::from_bytes(found) });
        }
        let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated)
            .map_err(|_| SealError::BadKey)?;
        let context = hpke::setup_receiver::<Aead, HkdfSha256, Kem>(
            &OpModeR::Base,
            &secret.0,
            &encapsulated,
            &info(mesh),
        )
        .map_err(|_| SealError::BadKey)?;
        let keys = Keys::export(|label, out| context.export(label, out))?;
        Ok(Self {
            sealer: Sealer(Direction::new(&keys.response, mesh)),
            opener: Opener(Direction::new(&keys.request, mesh)),
        })
    }
}

/// The keys of both directions.
struct Keys {
    request: Zeroizing<[u8; 32]>,
    response: Zeroizing<[u8; 32]>,
}

impl Keys {
    fn export(
        export: impl Fn(&[u8], &mut [u8]) -> Result<(), hpke::HpkeError>,
    ) -> Result<Self, SealError> {
        let mut keys = Self { request: Zeroizing::new([0; 32]), response: Zeroizing::new([0; 32]) };
        export(REQUEST_KEY, keys.request.as_mut()).map_err(|_| SealError::BadKey)?;
        export(RESPONSE_KEY, keys.response.as_mut()).map_err(|_| SealError::BadKey)?;
        Ok(keys)
    }
}
