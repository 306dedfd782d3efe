//! Frames between a node and its engine process: a length and a CBOR value.
//!
//! CBOR because these messages hold floats that are infinite (the margin of a token that cannot be
//! drawn), which the encoding of records refuses, and because it names its fields: a message does
//! not change its meaning when a type of the engine's gains one.

use cbor4ii::core::dec::Read as _;
use cbor4ii::core::utils::SliceReader;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest message. Scores of 32768 tokens with 5 alternatives each are 8 MiB; what is longer
/// is refused where it is made.
pub const FRAME_SIZE_MAX: usize = 32 << 20;

/// The length before each message.
const HEAD_SIZE: usize = 4;

/// What a reader keeps of its buffer when it is empty.
const KEPT_SIZE_MAX: usize = 256 << 10;

/// Why bytes are no message, or a message is no bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum FrameError {
    #[error("a message of {size} bytes is more than the {FRAME_SIZE_MAX} that a frame may have")]
    TooLong { size: usize },

    #[error("not a message: {detail}")]
    Malformed { detail: String },

    #[error("{left} bytes stand behind a message in its frame")]
    Trailing { left: usize },

    #[error("a message cannot be written down: {detail}")]
    Unwritable { detail: String },
}

/// A message as a frame.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let frame = cbor4ii::serde::to_vec(vec![0; HEAD_SIZE], message)
        .map_err(|error| FrameError::Unwritable { detail: error.to_string() })?;
    let size = frame.len() - HEAD_SIZE;
    match u32::try_from(size) {
        Ok(head) if size <= FRAME_SIZE_MAX => {
            let mut frame = frame;
            frame[..HEAD_SIZE].copy_from_slice(&head.to_be_bytes());
            Ok(frame)
        }
        Ok(_) | Err(_) => Err(FrameError::TooLong { size }),
    }
}

/// Bytes as they come, and the messages in them.
///
/// It holds what was pushed and not yet taken: at most one frame and one push, if every push is
/// followed by [`Self::read`] until there is nothing.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
    /// Where the next frame begins.
    start: usize,
}

impl Frames {
    /// Takes in bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, if all of it is there. After an error nothing that follows can be read.
    pub fn read<M: DeserializeOwned>(&mut self) -> Result<Option<M>, FrameError> {
        let rest = &self.buffer[self.start..];
        let Some((head, body)) = rest.split_first_chunk::<HEAD_SIZE>() else {
            self.tidy();
            return Ok(None);
        };
        let size = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if size > FRAME_SIZE_MAX {
            return Err(FrameError::TooLong { size });
        }
        let Some(body) = body.get(..size) else {
            self.tidy();
            return Ok(None);
        };
        let message = decode(body)?;
        self.start += HEAD_SIZE + size;
        Ok(Some(message))
    }

    /// Moves what is left to the front, and gives back what a long message took.
    fn tidy(&mut self) {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_SIZE_MAX {
            self.buffer = Vec::new();
        }
    }
}

fn decode<M: DeserializeOwned>(body: &[u8]) -> Result<M, FrameError> {
    let mut deserializer = cbor4ii::serde::Deserializer::new(SliceReader::new(body));
    let message = M::deserialize(&mut deserializer).map_err(|error| {
        // Bounded: the text can quote what the other end wrote.
        FrameError::Malformed { detail: error.to_string().chars().take(200).collect() }
    })?;
    // Reading from memory does not fail.
    let left = deserializer.into_inner().fill(1).map_or(0, |rest| rest.as_ref().len());
    if left > 0 {
        return Err(FrameError::Trailing { left });
    }
    Ok(message)
}

#[cfg(test)]
mod tests;
