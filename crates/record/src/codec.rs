//! The one encoding of records: strict DAG-CBOR.
//!
//! Decoding is strict by construction: a value is accepted only if encoding it again gives the
//! same bytes (Rule R4). So no two byte strings decode to one record, whatever a decoder
//! tolerates.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes are not a value of the expected shape.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum DecodeError {
    #[error("{size} bytes are more than the {max} that a {what} may have")]
    TooLarge { what: &'static str, size: usize, max: usize },

    #[error("not a {what}: {detail}")]
    Malformed { what: &'static str, detail: String },

    #[error("a {what} in an encoding that is not canonical")]
    NotCanonical { what: &'static str },
}

/// Encodes a value canonically.
///
/// # Panics
///
/// Never for the types of this crate: they hold no floats, no non-string map keys, and writing
/// to memory cannot fail. Rule R3 is what this leans on.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    match serde_ipld_dagcbor::to_vec(value) {
        Ok(bytes) => bytes,
        Err(error) => panic!("a value without floats encodes (Rule R3): {error}"),
    }
}

/// Decodes bytes that are the canonical encoding of a `T` and nothing else.
pub fn decode<T: Serialize + DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
    size_max: usize,
) -> Result<T, DecodeError> {
    if bytes.len() > size_max {
        return Err(DecodeError::TooLarge { what, size: bytes.len(), max: size_max });
    }
    let value = serde_ipld_dagcbor::from_slice(bytes).map_err(|error| {
        // Bounded: a decoder's message can quote what a peer wrote.
        DecodeError::Malformed { what, detail: error.to_string().chars().take(200).collect() }
    })?;
    if encode(&value) != bytes {
        return Err(DecodeError::NotCanonical { what });
    }
    Ok(value)
}
