//! Programs that are started, spoken to and ended.

use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// A child that runs this line of a shell.
async fn child(line: &str) -> Spawned {
    let args = ["-c", line, "sh"].map(str::to_owned).to_vec();
    let spawner = ProgramSpawner::new("/bin/sh".into(), args, Vec::new());
    spawner.spawn(vec!["/readable".into()]).await.expect("a shell is there")
}

/// Neither running nor a zombie, where the system shows it.
fn is_gone(id: u32) -> bool {
    !std::path::Path::new(&format!("/proc/{id}")).exists()
}

async fn text(mut spawned: Spawned) -> String {
    let mut text = String::new();
    spawned.reader.read_to_string(&mut text).await.expect("is text");
    text
}

#[tokio::test]
async fn a_child_is_told_and_heard_and_ends_with_its_input() {
    let mut spawned = child("exec cat").await;
    spawned.writer.write_all(b"hello").await.expect("is read");
    let mut heard = [0; 5];
    spawned.reader.read_exact(&mut heard).await.expect("comes back");
    assert_eq!(&heard, b"hello");
    drop(spawned.writer);
    assert_eq!(spawned.process.ended().await, "exit status 0");
    assert!(is_gone(spawned.process.id()), "it leaves no zombie");
}

#[tokio::test]
async fn a_child_is_killed_and_its_remains_are_taken_away() {
    let mut spawned = child("exec sleep 1000").await;
    spawned.process.kill();
    assert_eq!(spawned.process.ended().await, "signal 9");
    assert_eq!(spawned.process.ended().await, "signal 9", "it can be asked again");
    assert!(is_gone(spawned.process.id()));
    spawned.process.kill();
}

#[tokio::test]
async fn a_child_that_is_dropped_is_killed() {
    let Spawned { process, mut reader, .. } = child("exec sleep 1000").await;
    drop(process);
    let end = reader.read(&mut [0; 1]).await.expect("can be read");
    assert_eq!(end, 0, "its output is closed");
}

#[tokio::test]
async fn a_child_is_told_what_it_may_read_and_with_whom_it_dies() {
    let told = text(child("echo \"$@\"").await).await;
    assert_eq!(told.trim(), format!("--parent {} --read /readable", std::process::id()));
    let inherited = text(child("echo ${HOME-none} ${PATH+some} $PWD").await).await;
    assert!(inherited.starts_with("none"), "{inherited}");
    assert!(inherited.trim().ends_with('/'), "{inherited}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told() {
    let spawner = ProgramSpawner::new("/no/such/program".into(), Vec::new(), Vec::new());
    let error = spawner.spawn(Vec::new()).await.map(drop).expect_err("there is none");
    assert!(error.to_string().contains("No such file"), "{error}");
}
