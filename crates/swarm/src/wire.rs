//! What two members say on a stream that carries blobs: `/commons/<mesh>/blobs/1`.
//!
//! ```text
//! frame      length of the message u32, big-endian | message, strict DAG-CBOR | raw bytes
//! fetcher -> WhoHas   Follow   Unfollow   Ask   Cancel
//! seeder  -> Has      Holdings, Held ...   Data + raw bytes   Refused
//! ```
//!
//! The one who opens the stream asks, the other one answers. Only [`Data`](ToFetcher::Data) has raw
//! bytes behind it, as many as it says. A seeder that is itself still fetching goes on to say what
//! it holds for as long as it is followed.
//!
//! # Invariants
//!
//! * Every message has one encoding, and every other byte string is refused (Rule S9).
//! * What a message can make its reader hold is bounded before it is read (Rule S10).
//!
//! Not here: whether what was sent is right (`tree`), who may ask (`policy`), who is served next
//! (`upload.rs`).

use commons_port::blobs::{BLOB_LEN_MAX, GROUP_PIECES, PIECE_LEN, pieces_of};
use commons_record::codec::{self, DecodeError};
use commons_record::{Hash, Millis};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::fetch::Part;

/// Bytes of the longest message without its raw bytes: a stretch of holdings and its frame.
pub const MESSAGE_LEN_MAX: usize = 40 * 1024;

/// Bytes of the length that begins a frame.
pub const FRAME_HEAD_LEN: usize = 4;

/// Blobs that one [`ToSeeder::WhoHas`] names at most: 8 KiB of names.
pub const WHO_HAS_MAX: usize = 256;

/// Pieces that one [`ToFetcher::Held`] speaks of: 32 KiB of bits, 256 GiB of blob.
pub const STRETCH_PIECES: u64 = 1 << 18;

/// Pieces that one [`ToFetcher::Have`] names at most.
pub const HAVE_MAX: usize = 1024;

/// Characters of a refusal's sentence; what is longer is cut.
const SENTENCE_LEN_MAX: usize = 300;

/// Names one ask among those that are open on a stream. The asker chooses it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct AskId(pub u32);

/// From the one who fetches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToSeeder {
    /// Which of these blobs are held, in whole or in part?
    WhoHas {
        /// Names the question.
        ask: AskId,
        /// 1 to [`WHO_HAS_MAX`] blobs.
        blobs: Vec<Hash>,
    },
    /// What is held of this blob, now and from now on?
    Follow {
        /// The blob.
        blob: Hash,
    },
    /// No more of that.
    Unfollow {
        /// The blob.
        blob: Hash,
    },
    /// Bytes of a blob, or hashes of its tree.
    Ask {
        /// Names the ask in the answer.
        ask: AskId,
        /// The blob.
        blob: Hash,
        /// What of it.
        part: Part,
    },
    /// The answer is not wanted any more; it may be on its way.
    Cancel {
        /// The ask.
        ask: AskId,
    },
}

/// From the one who seeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToFetcher {
    /// The answer to [`ToSeeder::WhoHas`].
    Has {
        /// The question.
        ask: AskId,
        /// For each blob, in the order of the question.
        holdings: Vec<Holding>,
    },
    /// What is held of a blob. If it is a part, stretches of bits follow.
    Holdings {
        /// The blob.
        blob: Hash,
        /// Its size; 0 where nothing is known of it.
        size: u64,
        /// How much of it.
        holding: Holding,
    },
    /// Pieces of one stretch of a blob. Stretches without any piece are left out.
    Held {
        /// The blob.
        blob: Hash,
        /// The stretch begins at piece `stretch` times [`STRETCH_PIECES`].
        stretch: u32,
        /// Bit `i % 8` of byte `i / 8` is piece `i` of the stretch; no zero bytes at the end.
        bits: ByteBuf,
    },
    /// Pieces that came since.
    Have {
        /// The blob.
        blob: Hash,
        /// 1 to [`HAVE_MAX`] pieces, ascending.
        pieces: Vec<u64>,
    },
    /// What was asked for: so many raw bytes follow the message.
    Data {
        /// The ask.
        ask: AskId,
        /// How many.
        len: u32,
    },
    /// What was asked for is not sent.
    Refused {
        /// The ask.
        ask: AskId,
        /// Why.
        refusal: Refusal,
    },
}

/// How much of a blob is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holding {
    /// Nothing, or nothing that is given.
    Nothing,
    /// Some pieces, and no more are on their way.
    Part,
    /// Some pieces, and it is fetching the others.
    Fetching,
    /// All.
    Whole,
}

/// Why an ask is refused: a stable code and a sentence (Rule N1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The code.
    pub code: RefuseCode,
    /// The sentence.
    pub message: String,
    /// When asking again makes sense, if it does.
    pub retry_after_ms: Option<Millis>,
}

/// What an asker can decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RefuseCode {
    /// Nothing of the blob is held here.
    NotHeld,
    /// The blob is held in part, without this.
    NotYet,
    /// The blob ends before this.
    OutOfRange,
    /// Too much of this peer waits here.
    Busy,
    /// The asker is no member of the mesh.
    NotAMember,
    /// This node's policy does not give it; the sentence says which rule.
    Policy,
    /// What is held could not be read.
    Broken,
    /// The node is shutting down.
    ShuttingDown,
}

impl Refusal {
    /// A refusal with nothing to wait for.
    pub fn new(code: RefuseCode, message: impl AsRef<str>) -> Self {
        Self { code, message: sentence(message.as_ref()), retry_after_ms: None }
    }

    /// Says when to ask again.
    #[must_use]
    pub fn retry_after(self, after: Millis) -> Self {
        Self { retry_after_ms: Some(after), ..self }
    }
}

/// Printable characters, not too many of them.
fn sentence(text: &str) -> String {
    text.chars().filter(|it| !it.is_control()).take(SENTENCE_LEN_MAX).collect()
}

/// Why bytes are not a frame of this protocol.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum WireError {
    #[error("a message of {len} bytes; {max} are allowed, and none has 0")]
    Length { len: usize, max: usize },

    #[error(transparent)]
    Decode(#[from] DecodeError),

    #[error("a {what} of {count}; 1 to {max} are allowed")]
    Count { what: &'static str, count: usize, max: usize },

    #[error("{what} is out of bounds")]
    Bounds { what: &'static str },

    #[error("a {what} in a form that is not canonical")]
    NotCanonical { what: &'static str },
}

/// A message of this protocol.
pub trait Message: Serialize + serde::de::DeserializeOwned {
    /// What it is called in errors.
    const NAME: &'static str;

    /// Refuses what is encoded well and says what cannot be.
    fn check(&self) -> Result<(), WireError>;

    /// The canonical bytes of the message alone.
    fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a message and checks it.
    fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        let message: Self = codec::decode(Self::NAME, bytes, MESSAGE_LEN_MAX)?;
        message.check()?;
        Ok(message)
    }

    /// The frame, up to its raw bytes.
    fn to_frame(&self) -> Vec<u8> {
        let message = self.to_bytes();
        let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let mut frame = Vec::with_capacity(FRAME_HEAD_LEN + message.len());
        frame.extend(len.to_be_bytes());
        frame.extend(message);
        frame
    }
}

/// How many bytes of message follow the head of a frame.
pub fn message_len(head: [u8; FRAME_HEAD_LEN]) -> Result<usize, WireError> {
    let len = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    let max = MESSAGE_LEN_MAX;
    if (1..=max).contains(&len) { Ok(len) } else { Err(WireError::Length { len, max }) }
}

impl Message for ToSeeder {
    const NAME: &'static str = "message to a seeder";

    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::WhoHas { blobs, .. } => count("question", blobs.len(), WHO_HAS_MAX),
            Self::Ask { part, .. } => part.check(),
            Self::Follow { .. } | Self::Unfollow { .. } | Self::Cancel { .. } => Ok(()),
        }
    }
}

impl Message for ToFetcher {
    const NAME: &'static str = "message to a fetcher";

    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Has { holdings, .. } => count("answer", holdings.len(), WHO_HAS_MAX),
            Self::Holdings { size, holding, .. } => {
                let is_known = *holding != Holding::Nothing || *size == 0;
                bounds("the size", *size <= BLOB_LEN_MAX && is_known)
            }
            Self::Held { stretch, bits, .. } => {
                count("stretch", bits.len(), bytes_of(STRETCH_PIECES))?;
                let stretches = pieces_of(BLOB_LEN_MAX).div_ceil(STRETCH_PIECES);
                bounds("the stretch", u64::from(*stretch) < stretches)?;
                canonical("stretch", bits.last() != Some(&0))
            }
            Self::Have { pieces, .. } => {
                count("list of pieces", pieces.len(), HAVE_MAX)?;
                canonical("list of pieces", pieces.is_sorted_by(|a, b| a < b))?;
                bounds("a piece", pieces.iter().all(|it| *it < pieces_of(BLOB_LEN_MAX)))
            }
            Self::Data { len, .. } => bounds("the data", *len <= RAW_LEN_MAX),
            Self::Refused { refusal, .. } => {
                canonical("refusal", sentence(&refusal.message) == refusal.message)
            }
        }
    }
}

impl ToFetcher {
    /// How many raw bytes follow this message, [`RAW_LEN_MAX`] at most.
    pub const fn raw_len(&self) -> u32 {
        match self {
            Self::Data { len, .. } => *len,
            _ => 0,
        }
    }
}

/// Bytes of the largest thing that is asked for: the top of the largest blob.
pub const RAW_LEN_MAX: u32 = 2 << 20;

const fn bytes_of(bits: u64) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "a stretch is 32 KiB")]
    let bytes = bits.div_ceil(8) as usize;
    bytes
}

impl Part {
    /// Refuses what no blob has.
    fn check(self) -> Result<(), WireError> {
        let pieces = pieces_of(BLOB_LEN_MAX);
        match self {
            Self::Top => Ok(()),
            Self::Page { group } => bounds("the group", group < pieces.div_ceil(GROUP_PIECES)),
            Self::Bytes { offset, len } => {
                let is_within = offset <= BLOB_LEN_MAX && len <= PIECE_LEN;
                let piece = u64::from(PIECE_LEN);
                let is_one = || offset / piece == (offset + u64::from(len) - 1) / piece;
                bounds("the range", is_within && len > 0 && is_one())
            }
        }
    }
}

fn count(what: &'static str, count: usize, max: usize) -> Result<(), WireError> {
    if (1..=max).contains(&count) { Ok(()) } else { Err(WireError::Count { what, count, max }) }
}

fn bounds(what: &'static str, is_within: bool) -> Result<(), WireError> {
    if is_within { Ok(()) } else { Err(WireError::Bounds { what }) }
}

fn canonical(what: &'static str, is_canonical: bool) -> Result<(), WireError> {
    if is_canonical { Ok(()) } else { Err(WireError::NotCanonical { what }) }
}

/// What a seeder says of a blob that it holds in part: stretches with pieces, and the bits of each.
/// `bits` are all of the blob's, bit `i % 8` of byte `i / 8`.
pub fn stretches(bits: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    bits.chunks(bytes_of(STRETCH_PIECES)).zip(0_u32..).filter_map(|(bits, stretch)| {
        let last = bits.iter().rposition(|byte| *byte != 0)?;
        Some((stretch, &bits[..=last]))
    })
}

#[cfg(test)]
mod tests;
