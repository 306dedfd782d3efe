//! Secret seeds, one file each: a version, 32 bytes and a checksum, in one line of text.
//!
//! A key that changed by one bit would still be a key, and the node would be somebody else.
//! So a file that is not exactly what was written is refused, and never written over.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use commons_record::Hash;
use zeroize::Zeroizing;

use crate::data_dir::write_atomically;

/// What a key file begins with; the number is its version.
const PREFIX: &str = "commons-key/1";

/// The line has 105 bytes; a little more is read so that a longer file is seen as such.
const FILE_SIZE_MAX: u64 = 128;

/// Hexadecimal digits of the checksum: eight bytes tell any damage from the original.
const CHECK_LEN: usize = 16;

/// A secret seed, wiped when dropped and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretSeed(Zeroizing<[u8; 32]>);

impl SecretSeed {
    /// The bytes, for the key pair that is made of them.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SecretSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretSeed(..)")
    }
}

/// Why a secret key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum KeyError {
    #[error("{name:?} is not a key's name: lower-case letters, digits and dashes, at most 64")]
    Name { name: String },

    #[error("failed to read the key file {}", path.display())]
    Read { path: PathBuf, source: io::Error },

    #[error("failed to write the key file {}", path.display())]
    Write { path: PathBuf, source: io::Error },

    #[error(
        "others can read the key file {path} (mode {mode:03o}): type `chmod 600 '{path}'`, or \
         make a new key if they may have read it",
        path = path.display()
    )]
    Permissions { path: PathBuf, mode: u32 },

    #[error(
        "the key file {} is damaged: restore it from a copy, or move it away and be a new node",
        path.display()
    )]
    Damaged { path: PathBuf },
}

/// Reads the key of that name in the folder, or makes and stores it.
pub(crate) fn open(
    dir: &Path,
    name: &str,
    fresh: impl FnOnce() -> [u8; 32],
) -> Result<SecretSeed, KeyError> {
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !(1..=64).contains(&name.len()) || !name.bytes().all(is_name) {
        return Err(KeyError::Name { name: name.chars().take(80).collect() });
    }
    let path = dir.join(format!("{name}.key"));
    match File::open(&path) {
        Ok(file) => read(file, path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let seed = SecretSeed(Zeroizing::new(fresh()));
            match write_atomically(&path, format(&seed).as_bytes()) {
                Ok(()) => Ok(seed),
                Err(source) => Err(KeyError::Write { path, source }),
            }
        }
        Err(source) => Err(KeyError::Read { path, source }),
    }
}

fn read(file: File, path: PathBuf) -> Result<SecretSeed, KeyError> {
    let metadata = match file.metadata() {
        Ok(metadata) => metadata,
        Err(source) => return Err(KeyError::Read { path, source }),
    };
    if let Some(mode) = lax_mode(&metadata) {
        return Err(KeyError::Permissions { path, mode });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(128));
    if let Err(source) = file.take(FILE_SIZE_MAX).read_to_end(&mut bytes) {
        return Err(KeyError::Read { path, source });
    }
    parse(&bytes).ok_or(KeyError::Damaged { path })
}

/// The permission bits, if they let anybody but the owner in.
fn lax_mode(metadata: &fs::Metadata) -> Option<u32> {
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
        (mode & 0o077 != 0).then_some(mode)
    }
    #[cfg(not(unix))]
    {
        let _ = metadata; // Elsewhere the folder's own rules apply to what is in it.
        None
    }
}

fn format(seed: &SecretSeed) -> Zeroizing<String> {
    let digits = Zeroizing::new(Hash::from_bytes(*seed.as_bytes()).to_string());
    Zeroizing::new(format!("{PREFIX} {} {}\n", *digits, checksum(seed)))
}

fn checksum(seed: &SecretSeed) -> String {
    let hash = Hash::of_fields(PREFIX, &[seed.as_bytes()]);
    hash.to_string().chars().take(CHECK_LEN).collect()
}

/// Only the exact bytes that [`format`] writes are a key.
fn parse(bytes: &[u8]) -> Option<SecretSeed> {
    let text = std::str::from_utf8(bytes).ok()?;
    let digits = text.strip_prefix(PREFIX)?.split_ascii_whitespace().next()?;
    let seed = SecretSeed(Zeroizing::new(*digits.parse::<Hash>().ok()?.as_bytes()));
    (format(&seed).as_bytes() == bytes).then_some(seed)
}
