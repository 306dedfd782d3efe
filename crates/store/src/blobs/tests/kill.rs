//! A process that is killed with -9 at random changes of its files: while it writes pieces, while
//! it collects, and while a file arrives.

use std::collections::BTreeSet;

use super::*;

/// How many kills, in all.
const KILLS: &str = "COMMONS_STORE_KILLS";

fn kills() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "how long a test runs is its caller's choice")]
    let asked = std::env::var(KILLS).ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(200)
}

/// A number that looks random and only depends on its arguments.
fn draw(seed: u64, step: u64, below: u64) -> u64 {
    let hash = blake3::hash(&[seed.to_le_bytes(), step.to_le_bytes()].concat());
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight")) % below
}

/// Blobs of the first kind are pinned, those of the second may be collected.
fn samples(generation: u64) -> (Vec<Sample>, Vec<Sample>) {
    let lens = [3 * PIECE + 7, 2 * PIECE, 100];
    let new =
        |seed| move |(at, len): (u64, &usize)| Sample::new(generation * 100 + seed + at, *len);
    let pinned = (0..).zip(&lens).map(new(0)).collect();
    let loose = (0..).zip(&lens).map(new(50)).collect();
    (pinned, loose)
}

/// Room for all that is pinned and one or two of the others.
const BUDGET: u64 = 9 * PIECE as u64;

/// How long one set of blobs is worked on before the next takes its place.
const GENERATION: u64 = 20;

/// Not a test of its own: writes pieces and collects until it is killed or done.
#[test]
fn child_that_writes_pieces() {
    let Some(task) = fault::task() else { return };
    let [_, generation, seed] = &task[..] else { return };
    let (generation, seed) = (generation.parse().expect("one"), seed.parse().expect("one"));
    let store = open(fault::folder_of(&task), Some(BUDGET));
    let (pinned, loose) = samples(generation);
    for sample in &pinned {
        block_on(store.pin(sample.blob(), "kept".to_owned(), true)).expect("pins");
    }
    for step in 0..60 {
        let at = usize::try_from(draw(seed, 3 * step, 3)).expect("small");
        let is_pinned = draw(seed, 3 * step + 1, 3) > 0;
        let sample = if is_pinned { &pinned[at] } else { &loose[at] };
        match draw(seed, 3 * step + 2, 12) {
            0 => {
                block_on(store.collect()).expect("collects");
                println!("collected");
            }
            1 if !is_pinned => match block_on(store.remove(sample.blob())) {
                Ok(()) | Err(BlobError::NotHeld { .. }) => {}
                Err(error) => panic!("{error}"),
            },
            other => {
                sample.begin(&store).expect("there is room");
                let piece = other % sample.pieces();
                sample.put(&store, piece).expect("is right");
                if is_pinned {
                    println!("put {at} {piece}");
                }
            }
        }
    }
    println!("done");
}

/// T91 for pieces and collection.
#[test]
fn pieces_that_were_confirmed_survive_a_kill_at_any_change() {
    let folder = folder();
    let rounds = kills() * 2 / 3;
    let mut confirmed = BTreeSet::new();
    let (mut killed, mut longest) = (0, 0);
    for round in 0..rounds {
        let generation = round / GENERATION;
        if round % GENERATION == 0 {
            confirmed.clear();
            forget_all(&folder, generation);
        }
        // Early points are the interesting ones: opening and repairing.
        let at = draw(7, round, if round % 3 == 0 { 30 } else { 250 }) + 1;
        let path = folder.path().to_str().expect("plain");
        let task = [path, &generation.to_string(), &round.to_string()];
        let mut child =
            fault::child("kill::child_that_writes_pieces", &format!("kill:{at}"), &task);
        let lines = fault::lines(child.spawn().expect("runs again"));
        killed += u64::from(!lines.iter().any(|line| line == "done"));
        longest = longest.max(lines.len());
        for line in &lines {
            let words: Vec<&str> = line.split(' ').collect();
            if let ["put", at, piece] = words[..] {
                let key: (usize, u64) = (at.parse().expect("one"), piece.parse().expect("one"));
                confirmed.insert(key);
            }
        }
        let store = open(folder.path(), Some(BUDGET));
        let (pinned, loose) = samples(generation);
        for (index, sample) in pinned.iter().enumerate() {
            sample.check(&store);
            for piece in 0..sample.pieces() {
                if confirmed.contains(&(index, piece)) {
                    let held = block_on(store.held(sample.blob())).expect("is known");
                    assert!(held.has(piece), "round {round}: piece {piece} of {index} is lost");
                }
            }
        }
        for sample in &loose {
            sample.check(&store);
        }
        check_files(folder.path(), &store);
        let all = block_on(store.list(None, 100)).expect("lists");
        let sum: u64 = all.iter().map(|it| it.size).sum();
        assert!(sum <= BUDGET, "round {round}: {sum} bytes");
    }
    assert!(killed * 2 > rounds, "only {killed} of {rounds} were killed");
    assert!(longest > 5, "no child got anywhere");
}

/// Makes room for the next set of blobs.
fn forget_all(folder: &tempfile::TempDir, generation: u64) {
    let Some(last) = generation.checked_sub(1) else { return };
    let store = open(folder.path(), Some(BUDGET));
    let (pinned, loose) = samples(last);
    for sample in pinned.iter().chain(&loose) {
        block_on(store.pin(sample.blob(), "kept".to_owned(), false)).expect("takes the pin away");
        match block_on(store.remove(sample.blob())) {
            Ok(()) | Err(BlobError::NotHeld { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn arriving(number: u64) -> Sample {
    let lens = [2 * PIECE + 9, PIECE, 0, 5, 4 * PIECE];
    Sample::new(9000 + number, lens[usize::try_from(number % 5).expect("small")])
}

/// Not a test of its own: receives one file after the other.
#[test]
fn child_that_receives() {
    let Some(task) = fault::task() else { return };
    let [_, first] = &task[..] else { return };
    let store = open(fault::folder_of(&task), None);
    let first: u64 = first.parse().expect("one");
    for number in first..first + 3 {
        let sample = arriving(number);
        let file = block_on(store.receive(format!("file {number}"), sample.size()));
        let mut file = file.expect("begins");
        let kept = usize::try_from(file.len()).expect("small");
        for part in sample.bytes[kept..].chunks(300_000) {
            block_on(file.append(Bytes::copy_from_slice(part))).expect("appends");
            println!("kept {number} {}", file.len());
        }
        block_on(file.finish(Some(sample.sha256()))).expect("is right");
        println!("finished {number}");
    }
}

/// T91 for files that arrive.
#[test]
fn a_file_that_arrives_goes_on_after_a_kill_at_any_change() {
    let folder = folder();
    let (mut number, mut kept) = (0, 0);
    for round in 0..kills() / 3 {
        let at = draw(8, round, 70) + 1;
        let path = folder.path().to_str().expect("plain");
        let task = [path, &u64::to_string(&number)];
        let mut child = fault::child("kill::child_that_receives", &format!("kill:{at}"), &task);
        let mut finished = None;
        for line in fault::lines(child.spawn().expect("runs again")) {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["kept", which, len] => {
                    number = which.parse().expect("one");
                    kept = len.parse().expect("one");
                }
                ["finished", which] => finished = Some(which.parse::<u64>().expect("one")),
                _ => {}
            }
        }
        let store = open(folder.path(), None);
        if let Some(last) = finished {
            let sample = arriving(last);
            assert_eq!(sample.check(&store), sample.pieces(), "round {round}: {last} is lost");
            if number <= last {
                (number, kept) = (last + 1, 0);
            }
        }
        let sample = arriving(number);
        let known = block_on(store.by_sha256(sample.sha256())).expect("looks");
        if known == Some(sample.blob()) && sample.check(&store) == sample.pieces() {
            (number, kept) = (number + 1, 0); // It finished, and was killed before it said so.
        } else {
            let name = format!("file {number}");
            let file = block_on(store.receive(name, sample.size())).expect("goes on");
            assert!(file.len() >= kept, "round {round}: {} of {kept} are kept", file.len());
        }
        check_files(folder.path(), &store);
    }
    assert!(number > 2, "no file ever arrived");
    // What was begun is finished now, and is what it was to be.
    let (store, sample) = (open(folder.path(), None), arriving(number));
    let mut file = block_on(store.receive(format!("file {number}"), sample.size())).expect("on");
    let rest = sample.bytes.slice(usize::try_from(file.len()).expect("small")..);
    block_on(file.append(rest)).expect("appends");
    let held = block_on(file.finish(Some(sample.sha256()))).expect("is right");
    assert!(matches!(held, AddEvent::Held { blob, .. } if blob == sample.blob()));
}

/// Not a test of its own: puts two pieces and is killed.
#[test]
fn child_that_puts_two_pieces() {
    let Some(task) = fault::task() else { return };
    let store = open(fault::folder_of(&task), None);
    let sample = Sample::new(77, 3 * PIECE);
    sample.begin(&store).expect("begins");
    sample.put(&store, 0).expect("is right");
    sample.put(&store, 2).expect("is right");
    println!("put");
    std::mem::forget(store);
    fault::end();
}

/// A confirmed piece is not read again after a kill: a byte that changed on the disk meanwhile is
/// not noticed by opening, only by looking.
#[cfg(target_os = "linux")]
#[test]
fn what_was_confirmed_is_not_hashed_again_after_a_kill() {
    let folder = folder();
    let path = folder.path().to_str().expect("plain");
    let mut child = fault::child("kill::child_that_puts_two_pieces", "", &[path]);
    assert!(fault::lines(child.spawn().expect("runs")).iter().any(|line| line == "put"));
    let sample = Sample::new(77, 3 * PIECE);
    let part = part_of(folder.path(), sample.blob(), "part");
    let mut bytes = std::fs::read(&part).expect("is there");
    bytes[5] ^= 1;
    std::fs::write(&part, bytes).expect("writes");
    let store = open(folder.path(), None);
    let info = block_on(store.info(sample.blob())).expect("looks").expect("is known");
    assert_eq!(info.pieces_held, 2);
    assert_eq!(block_on(store.verify(sample.blob())), Ok(vec![0]));
    assert_eq!(sample.check(&store), 1, "the wrong piece is no longer held");
}

pub(super) fn part_of(folder: &Path, blob: Hash, extension: &str) -> std::path::PathBuf {
    let name = blob.to_string();
    folder.join("blobs").join(&name[..2]).join(&name).with_extension(extension)
}
