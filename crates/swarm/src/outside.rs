//! Files from outside: from a hub, a registry or a web server that knows no pieces.
//!
//! * [`pull`]: one file by one node: when it is asked for, again, from where, and when it is given
//!   up;
//! * [`turn`]: which of several nodes on one network does that, so that one copy is fetched.
//!
//! A node runs a [`turn::Turn`] for each file that it wants, and a [`pull::Pull`] while it is its
//! turn. What one fetched, the others take from it piece by piece.
//!
//! Not here: requests and bytes (`remote::hub`), the disk, and how members hear of each other.

pub mod pull;
pub mod turn;

use commons_port::hub::{Digest, OriginFile};
use commons_record::Hash;

/// The name under which nodes agree that they want the same file from outside.
///
/// A file with a strong hash is the same wherever it comes from. One without is the one at its
/// address.
pub fn file_key(file: &OriginFile) -> Hash {
    let size = file.size.to_be_bytes();
    let (kind, name): (&str, &[u8]) = match &file.digest {
        Some(Digest::Sha256(bytes)) => ("sha256", bytes),
        Some(Digest::Blake3(hash)) => ("blake3", hash.as_bytes()),
        Some(Digest::GitSha1(_)) | None => ("url", file.url.as_bytes()),
    };
    Hash::of_fields("commons/outside/file/1", &[kind.as_bytes(), name, &size])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(url: &str, size: u64, digest: Option<Digest>) -> OriginFile {
        OriginFile { path: "a".to_owned(), size, digest, url: url.to_owned() }
    }

    #[test]
    fn a_file_is_the_same_wherever_it_comes_from_if_its_hash_is_strong() {
        let check = |digest: Option<Digest>, is_same: bool| {
            let (here, there) = (file("https://a/x", 7, digest), file("https://b/x", 7, digest));
            assert_eq!(file_key(&here) == file_key(&there), is_same, "{digest:?}");
            assert_ne!(file_key(&here), file_key(&file("https://a/x", 8, digest)));
        };
        check(Some(Digest::Sha256([1; 32])), true);
        check(Some(Digest::Blake3(Hash::from_bytes([1; 32]))), true);
        check(Some(Digest::GitSha1([1; 20])), false);
        check(None, false);
        let key = |digest| file_key(&file("https://a/x", 7, Some(digest)));
        assert_ne!(key(Digest::Sha256([1; 32])), key(Digest::Blake3(Hash::from_bytes([1; 32]))));
    }
}
