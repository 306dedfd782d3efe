//! A file as hubs name it: its entity tag, and its place in listings.
//!
//! A file whose SHA-256 is known stands there as what hubs call an LFS file: its tag is that hash,
//! and tools that check what they fetched check it. Any other is named by the first 40 digits of
//! its BLAKE3, in the place and length of a git object; it must not have 64, which tools would
//! take for a SHA-256.

use commons_port::hub::{Repo, RepoFile};
use serde_json::{Map, Value, json};

use super::date;

/// How long a git object's name is.
const OBJECT_LEN: usize = 40;

/// The pointer that git keeps in place of a large file, without its variable parts. Tools want to
/// know its length.
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:\nsize \n";

/// The object name of a file.
pub(super) fn object_id(file: &RepoFile) -> String {
    short(&file.blob.to_string())
}

/// The object name of a folder that holds these files: the same names and contents, the same name.
pub(super) fn folder_id(hasher: &blake3::Hasher) -> String {
    short(hasher.finalize().to_hex().as_str())
}

fn short(hash: &str) -> String {
    hash.chars().take(OBJECT_LEN).collect()
}

/// What tells versions of a file apart, quoted as the header has it.
pub(super) fn etag(file: &RepoFile) -> String {
    format!("\"{}\"", sha256(file).unwrap_or_else(|| object_id(file)))
}

/// A file among `siblings`.
pub(super) fn sibling(file: &RepoFile, with_blobs: bool) -> Value {
    let mut entry = Map::new();
    entry.insert("rfilename".into(), file.path.clone().into());
    if with_blobs {
        entry.insert("size".into(), file.size.into());
        entry.insert("blobId".into(), object_id(file).into());
        if let Some(sha256) = sha256(file) {
            let pointer_size = pointer_size(file);
            let lfs = json!({ "sha256": sha256, "size": file.size, "pointerSize": pointer_size });
            entry.insert("lfs".into(), lfs);
        }
    }
    entry.into()
}

/// A file in a tree. With `release`, also when and by which release it came.
pub(super) fn in_tree(file: &RepoFile, release: Option<&Repo>) -> Value {
    let mut entry = Map::new();
    entry.insert("type".into(), "file".into());
    entry.insert("oid".into(), object_id(file).into());
    entry.insert("size".into(), file.size.into());
    entry.insert("path".into(), file.path.clone().into());
    if let Some(sha256) = sha256(file) {
        let pointer_size = pointer_size(file);
        let lfs = json!({ "oid": sha256, "size": file.size, "pointerSize": pointer_size });
        entry.insert("lfs".into(), lfs);
    }
    if let Some(repo) = release {
        entry.insert("lastCommit".into(), last_commit(repo));
        // Nobody scans files here. A checked hash says whose they are, not that they are harmless.
        let status = json!({ "status": "unscanned", "avScan": null, "pickleImportScan": null });
        entry.insert("securityFileStatus".into(), status);
    }
    entry.into()
}

/// A folder in a tree.
pub(super) fn folder_in_tree(path: &str, id: &str, release: Option<&Repo>) -> Value {
    let mut entry = Map::new();
    entry.insert("type".into(), "directory".into());
    entry.insert("oid".into(), id.into());
    entry.insert("size".into(), 0.into());
    entry.insert("path".into(), path.into());
    if let Some(repo) = release {
        entry.insert("lastCommit".into(), last_commit(repo));
    }
    entry.into()
}

/// Every file of a release came with it.
fn last_commit(repo: &Repo) -> Value {
    let date = date::text(repo.released_unix_ms);
    json!({ "id": repo.commit, "title": "release", "date": date })
}

fn sha256(file: &RepoFile) -> Option<String> {
    use std::fmt::Write as _;
    let bytes = file.sha256?;
    let mut text = String::with_capacity(64);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes all that is written to it");
    }
    Some(text)
}

fn pointer_size(file: &RepoFile) -> usize {
    POINTER.len() + 64 + file.size.to_string().len()
}

#[cfg(test)]
mod tests {
    use commons_record::Hash;

    use super::*;

    #[test]
    fn a_file_is_named_by_its_sha256_and_else_by_forty_digits() {
        let blob = Hash::of_content(b"x");
        let mut file = RepoFile { path: "a".into(), size: 12, blob, sha256: None };
        let digits = blob.to_string();
        assert_eq!(etag(&file), format!("\"{}\"", &digits[..40]));
        assert_eq!(in_tree(&file, None).get("lfs"), None);
        file.sha256 = Some([0xab; 32]);
        assert_eq!(etag(&file), format!("\"{}\"", "ab".repeat(32)));
        assert_eq!(object_id(&file), digits[..40]);
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:".to_owned()
            + &"ab".repeat(32)
            + "\nsize 12\n";
        assert_eq!(in_tree(&file, None)["lfs"]["pointerSize"], pointer.len());
    }
}
