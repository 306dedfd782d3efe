//! The names of things: BLAKE3 of a file, and a domain-separated hash of everything else.
//!
//! A file's name is its plain BLAKE3 hash, so that `b3sum` checks it (Rule R1). Every other
//! hash begins with a domain and takes its fields one by one, each behind its length as eight
//! big-endian bytes, so that no two field lists share an encoding (Rule R2).

use crate::key::byte_type;

byte_type! {
    /// A BLAKE3-256 hash: the name of a file, a record, a Merkle root or a commitment.
    Hash, 32
}

impl Hash {
    /// The name of a file's content: plain BLAKE3, as `b3sum` prints it.
    pub fn of_content(content: &[u8]) -> Self {
        Self::from_bytes(*blake3::hash(content).as_bytes())
    }

    /// `H(domain, field, ...)`: BLAKE3 over length-prefixed fields, the domain first.
    pub fn of_fields(domain: &str, fields: &[&[u8]]) -> Self {
        let mut hasher = FieldHasher::new(domain);
        for field in fields {
            hasher.field(field);
        }
        hasher.finish()
    }
}

/// Hashes fields as [`Hash::of_fields`] does, one at a time.
#[derive(Debug, Clone)]
pub struct FieldHasher(blake3::Hasher);

impl FieldHasher {
    /// Starts with the domain, itself a length-prefixed field.
    pub fn new(domain: &str) -> Self {
        let mut hasher = Self(blake3::Hasher::new());
        hasher.field(domain.as_bytes());
        hasher
    }

    /// Adds one field behind its length.
    pub fn field(&mut self, field: &[u8]) {
        self.0.update(&(field.len() as u64).to_be_bytes());
        self.0.update(field);
    }

    /// The hash of all fields so far.
    pub fn finish(&self) -> Hash {
        Hash::from_bytes(*self.0.finalize().as_bytes())
    }
}

/// Hashes a file's content piece by piece; the result equals [`Hash::of_content`].
#[derive(Debug, Clone, Default)]
pub struct ContentHasher(blake3::Hasher);

impl ContentHasher {
    /// Adds the next bytes of the content.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The name of the content so far.
    pub fn finish(&self) -> Hash {
        Hash::from_bytes(*self.0.finalize().as_bytes())
    }
}
