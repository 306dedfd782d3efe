//! One owner, one format, and keys that are read exactly or refused.

use std::fs;
use std::path::Path;

use commons_port::journal::{Change, Table};
use commons_store::{DataDir, KeyError, OpenError};

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[test]
fn two_nodes_on_one_folder_are_refused_by_name() {
    let folder = dir();
    let path = folder.path().join("data");
    let first = DataDir::open(&path).expect("a new folder");
    let error = DataDir::open(&path).expect_err("the folder is in use");
    let text = error.to_string();
    assert!(matches!(error, OpenError::InUse { pid: Some(pid), .. } if pid == std::process::id()));
    assert!(text.contains(&path.display().to_string()) && text.contains("--data-dir"), "{text}");
    drop(first);
    DataDir::open(&path).expect("nobody uses it any more");
}

#[test]
fn a_folder_is_in_use_as_long_as_its_journal_is() {
    let folder = dir();
    let journal = super::open(folder.path());
    assert!(matches!(DataDir::open(folder.path()), Err(OpenError::InUse { .. })));
    super::commit(&journal, vec![Change::put(Table::State, "key", "value")]);
    drop(journal);
    let journal = super::open(folder.path());
    assert_eq!(super::all(&journal, Table::State), [(b"key".to_vec(), b"value".to_vec())]);
}

#[test]
fn formats_that_are_not_ours_are_refused_with_what_to_do() {
    let check = |content: &str, want: &str| {
        let folder = dir();
        drop(DataDir::open(folder.path()).expect("a new folder"));
        let file = folder.path().join("format");
        assert_eq!(fs::read_to_string(&file).expect("written at once"), "1\n");
        fs::write(&file, content).expect("a writable file");
        let text = DataDir::open(folder.path()).expect_err(content).to_string();
        assert!(text.contains(want), "{content:?}: {text}");
        assert_eq!(fs::read_to_string(&file).expect("still there"), content, "nothing is changed");
    };
    check("2\n", "has format 2 and this version of commons knows format 1: install a newer");
    check("0\n", "does not hold a format version");
    check("", "does not hold a format version");
    check("one\n", "does not hold a format version");
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = dir();
    let file = folder.path().join("file");
    fs::write(&file, "in the way").expect("a writable folder");
    let error = DataDir::open(file.join("data")).expect_err("a file is no folder");
    assert!(matches!(&error, OpenError::Create { path, .. } if *path == file.join("data")));
}

#[test]
fn a_key_is_made_once_and_read_ever_after() {
    let folder = dir();
    let data = DataDir::open(folder.path()).expect("a new folder");
    let made = data.key("node", || [7; 32]).expect("a new key");
    assert_eq!(made.as_bytes(), &[7; 32]);
    assert_eq!(format!("{made:?}"), "SecretSeed(..)");
    let read = data.key("node", || panic!("it is there")).expect("the same key");
    assert_eq!(read, made);
    assert_eq!(data.key("owner", || [8; 32]).expect("another key").as_bytes(), &[8; 32]);
    for name in ["", "../node", "Node", "a.b", "ä", &"a".repeat(65)] {
        assert!(matches!(data.key(name, || [0; 32]), Err(KeyError::Name { .. })), "{name}");
    }
}

/// The disk filled up or the process was killed while a key was written: the key was not used
/// yet, and the next start makes one.
#[test]
fn a_key_that_was_never_finished_is_made_anew() {
    let folder = dir();
    let data = DataDir::open(folder.path()).expect("a new folder");
    fs::write(folder.path().join("keys/node.key.new"), "commons-key/1 0707").expect("a crash");
    assert_eq!(data.key("node", || [9; 32]).expect("a new key").as_bytes(), &[9; 32]);
}

#[test]
fn a_damaged_key_is_refused_and_never_written_over() {
    let folder = dir();
    let data = DataDir::open(folder.path()).expect("a new folder");
    data.key("node", || [7; 32]).expect("a new key");
    let path = folder.path().join("keys/node.key");
    let whole = fs::read(&path).expect("a key file");
    let check = |what: &str, content: &[u8]| {
        fs::write(&path, content).expect("a writable file");
        let error = data.key("node", || panic!("{what}: a new key")).expect_err(what);
        assert!(matches!(&error, KeyError::Damaged { .. }), "{what}: {error:?}");
        assert!(!error.to_string().contains("0707"), "{what}: an error tells no key");
        assert_eq!(fs::read(&path).expect("still there"), content, "{what}");
    };
    for size in 0..whole.len() {
        check(&format!("cut to {size} bytes"), &whole[..size]);
    }
    for bit in 0..whole.len() * 8 {
        let mut changed = whole.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        check(&format!("bit {bit} flipped"), &changed);
    }
    check("a longer file", &[whole.as_slice(), b"\n"].concat());
    check("a huge file", &vec![b'0'; 1 << 20]);
}

#[cfg(unix)]
#[test]
fn others_may_read_nothing_and_a_key_that_they_could_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = |path: &Path| {
        let metadata = fs::metadata(path).expect("it is there");
        metadata.permissions().mode() & 0o777
    };
    let folder = dir();
    let path = folder.path().join("data");
    drop(super::open(&path));
    let data = DataDir::open(&path).expect("a folder of ours");
    data.key("node", || [7; 32]).expect("a new key");
    let key = path.join("keys/node.key");
    for (path, want) in [
        (path.clone(), 0o700),
        (path.join("keys"), 0o700),
        (key.clone(), 0o600),
        (path.join("lock"), 0o600),
        (path.join("format"), 0o600),
        (path.join("journal.redb"), 0o600),
    ] {
        assert_eq!(mode(&path), want, "{}", path.display());
    }
    for lax in [0o640, 0o604, 0o620, 0o777] {
        fs::set_permissions(&key, fs::Permissions::from_mode(lax)).expect("our own file");
        let error = data.key("node", || panic!("it is there")).expect_err("others can read it");
        let text = error.to_string();
        assert!(text.contains(&format!("chmod 600 '{}'", key.display())), "{text}");
        assert_eq!(mode(&key), lax, "only its owner changes it");
    }
}
