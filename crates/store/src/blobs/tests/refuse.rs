//! A disk that refuses: at any change, or because a file may not grow.

use std::process::Command;

use super::*;

/// Not a test of its own: does everything once while the disk refuses for a while, then again.
#[test]
fn child_on_a_disk_that_refuses() {
    let Some(task) = fault::task() else { return };
    let folder = fault::folder_of(&task);
    // Opening may be refused too, and is tried again.
    let store = (0..100).find_map(|_| {
        let dir = DataDir::open(folder).expect("a folder of ours");
        BlobStore::open(&dir, options(None)).ok()
    });
    let store = store.expect("the disk takes something again");
    let pulled = Sample::new(1, 2 * PIECE + 3);
    let arrives = Sample::new(2, PIECE + 3);
    let added = Sample::new(3, PIECE + 4);
    let path = folder.join("outside");
    std::fs::write(&path, &added.bytes).expect("writes");
    for _ in 0..100 {
        let pull = pulled.put_all(&store);
        let taken = add(&store, &path, Holding::Copied).map(drop);
        let received = receive(&store, &arrives);
        for result in [&pull, &taken, &received] {
            assert!(matches!(result, Ok(()) | Err(BlobError::Full { .. })), "{result:?}");
        }
        if pull.and(taken).and(received).is_ok() {
            fault::stop();
            for sample in [&pulled, &arrives, &added] {
                assert_eq!(sample.check(&store), sample.pieces());
            }
            // What could not be removed is removed at the next start.
            drop(store);
            check_files(folder, &open(folder, None));
            println!("done {}", fault::count());
            return;
        }
    }
}

fn receive(store: &BlobStore, sample: &Sample) -> Result<(), BlobError> {
    if block_on(store.info(sample.blob()))?.is_some_and(|info| info.is_whole()) {
        return Ok(());
    }
    let mut file = block_on(store.receive("key".to_owned(), sample.size()))?;
    let kept = usize::try_from(file.len()).expect("small");
    assert!(kept <= sample.bytes.len());
    for part in sample.bytes[kept..].chunks(200_000) {
        block_on(file.append(Bytes::copy_from_slice(part)))?;
    }
    block_on(file.finish(Some(sample.sha256()))).map(drop)
}

/// T92: wherever the disk is full, the error says so, and what was begun goes on afterwards.
#[test]
fn a_disk_that_refuses_at_any_change_loses_nothing() {
    let mut done = 0;
    for first in (1..100).step_by(3) {
        for width in [0, 4] {
            let folder = folder();
            let path = folder.path().to_str().expect("plain");
            let plan = format!("full:{first}:{}", first + width);
            let mut child = fault::child("refuse::child_on_a_disk_that_refuses", &plan, &[path]);
            let lines = fault::lines(child.spawn().expect("runs again"));
            let count = lines.iter().find_map(|line| line.strip_prefix("done ")?.parse().ok());
            let count: u64 = count.unwrap_or_else(|| panic!("{plan}: {lines:?}"));
            done += u64::from(count > first);
        }
    }
    assert!(done > 40, "the plans came too late: {done}");
}

/// Not a test of its own: puts pieces until the system refuses.
#[test]
fn child_whose_files_may_not_grow() {
    let Some(task) = fault::task() else { return };
    let store = open(fault::folder_of(&task), None);
    let sample = Sample::new(5, 20 * PIECE);
    for piece in 0..20 {
        match sample.put(&store, piece) {
            Ok(()) => println!("put {piece}"),
            Err(BlobError::Full { need, .. }) => {
                assert_eq!(need, PIECE as u64);
                println!("full");
                return;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// The system itself refuses, by the limit on the length of files.
#[cfg(unix)]
#[test]
fn a_blob_that_the_system_cuts_off_goes_on_later() {
    let folder = folder();
    let sample = Sample::new(5, 20 * PIECE);
    sample.begin(&open(folder.path(), None)).expect("begins");
    let path = folder.path().to_str().expect("plain");
    let inner = fault::child("refuse::child_whose_files_may_not_grow", "", &[path]);
    // Half-kibibytes or kibibytes, by the shell: 6 or 12 MiB.
    let script = "trap '' XFSZ; ulimit -f 12288; exec \"$0\" \"$@\"";
    let mut child = Command::new("sh");
    child.arg("-c").arg(script).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        child.env(name, value.expect("is set"));
    }
    child.stdout(std::process::Stdio::piped());
    let lines = fault::lines(child.spawn().expect("there is a shell"));
    assert!(lines.iter().any(|line| line == "full"), "{lines:?}");
    let put = lines.iter().filter(|line| line.starts_with("put ")).count();
    assert!((4..20).contains(&put), "{lines:?}");
    let store = open(folder.path(), None);
    assert_eq!(sample.check(&store), put as u64);
    sample.put_all(&store).expect("there is room now");
    assert_eq!(sample.check(&store), 20);
}
