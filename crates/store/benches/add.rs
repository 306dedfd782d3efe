//! Takes in a file of a gibibyte, beside plain hashes of it and a plain copy, in one run.
//!
//! `cargo bench -p commons-store --bench add [-- MIB [FOLDER]]` prints the median of three.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use commons_port::blobs::{AddEvent, Blobs as _, Holding};
use commons_store::{BlobOptions, BlobStore, DataDir};
use futures::TryStreamExt as _;
use futures::executor::block_on;
use sha2::Digest as _;

const ROUNDS: usize = 3;

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn now() -> Instant {
    Instant::now()
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = now();
    work();
    start.elapsed()
}

fn read(path: &Path, mut use_it: impl FnMut(&[u8])) {
    let mut file = File::open(path).expect("opens");
    let mut bytes = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut bytes).expect("reads");
        if read == 0 {
            return;
        }
        use_it(&bytes[..read]);
    }
}

fn add(source: &Path, folder: &Path, holding: Holding) {
    let dir = tempfile::tempdir_in(folder).expect("a folder");
    let data = DataDir::open(dir.path()).expect("opens");
    let store = BlobStore::open(&data, BlobOptions::default()).expect("opens");
    let path = source.to_str().expect("plain").to_owned();
    let events: Vec<AddEvent> = block_on(store.add(path, holding).try_collect()).expect("adds");
    assert!(matches!(events.last(), Some(AddEvent::Held { .. })));
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let mib: usize = words.first().map_or(1024, |word| word.parse().expect("MiB"));
    let folder = words.get(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(&folder).expect("a folder");
    let source = dir.path().join("source");
    let mut out = File::create(&source).expect("creates");
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut piece = vec![0; 1 << 20];
    for _ in 0..mib {
        noise.fill(&mut piece);
        out.write_all(&piece).expect("writes");
    }
    out.sync_all().expect("syncs");

    let mut rows: Vec<(&str, Vec<Duration>)> = [
        "read",
        "blake3, one thread",
        "sha256, one thread",
        "copy and sync",
        "add, in place",
        "add, copied",
    ]
    .map(|name| (name, Vec::new()))
    .into();
    for _ in 0..ROUNDS {
        let times = [
            timed(|| read(&source, |bytes| _ = std::hint::black_box(bytes))),
            timed(|| {
                let mut hasher = blake3::Hasher::new();
                read(&source, |bytes| _ = hasher.update(bytes));
                std::hint::black_box(hasher.finalize());
            }),
            timed(|| {
                let mut hasher = sha2::Sha256::new();
                read(&source, |bytes| hasher.update(bytes));
                std::hint::black_box(hasher.finalize());
            }),
            timed(|| {
                let path = dir.path().join("copy");
                let mut copy = File::create(&path).expect("creates");
                read(&source, |bytes| copy.write_all(bytes).expect("writes"));
                copy.sync_data().expect("syncs");
                std::fs::remove_file(path).expect("removes");
            }),
            timed(|| add(&source, dir.path(), Holding::InPlace)),
            timed(|| add(&source, dir.path(), Holding::Copied)),
        ];
        for ((_, row), time) in rows.iter_mut().zip(times) {
            row.push(time);
        }
    }
    for (name, mut times) in rows {
        times.sort_unstable();
        let median = times[times.len() / 2];
        let rate = f64::from(u32::try_from(mib).expect("MiB")) / median.as_secs_f64();
        let text = format!("{name:20} {:7.3} s {rate:8.0} MiB/s\n", median.as_secs_f64());
        std::io::stdout().write_all(text.as_bytes()).expect("prints");
    }
}
