//! Random calls, with the store opened again at random points: what holds after each of them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Begin(usize),
    Put(usize, u64),
    PutWrong(usize, u64),
    Pin(usize, bool),
    Remove(usize),
    Verify(usize),
    Add(usize),
    Receive(usize, usize),
    Collect,
    Reopen,
}

fn any_step() -> impl Strategy<Value = Step> {
    let which = 0..4_usize;
    prop_oneof![
        3 => which.clone().prop_map(Step::Begin),
        8 => (which.clone(), 0..3_u64).prop_map(|(at, piece)| Step::Put(at, piece)),
        1 => (which.clone(), 0..3_u64).prop_map(|(at, piece)| Step::PutWrong(at, piece)),
        2 => (which.clone(), any::<bool>()).prop_map(|(at, is_on)| Step::Pin(at, is_on)),
        1 => which.clone().prop_map(Step::Remove),
        1 => which.clone().prop_map(Step::Verify),
        1 => which.clone().prop_map(Step::Add),
        2 => (which, 1..3 * PIECE).prop_map(|(at, len)| Step::Receive(at, len)),
        1 => Just(Step::Collect),
        2 => Just(Step::Reopen),
    ]
}

/// Room for all but one.
const BUDGET: u64 = 6 * PIECE as u64;

struct World {
    folder: tempfile::TempDir,
    store: Option<BlobStore>,
    samples: Vec<Sample>,
    /// Pieces that were confirmed and that nothing since may have taken away.
    confirmed: BTreeMap<usize, BTreeSet<u64>>,
    pinned: BTreeSet<usize>,
}

impl World {
    fn new() -> Self {
        let lens = [0, PIECE, 2 * PIECE + 5, 3 * PIECE];
        let samples = (200..).zip(lens).map(|(seed, len)| Sample::new(seed, len)).collect();
        let folder = folder();
        let store = Some(open(folder.path(), Some(BUDGET)));
        let (confirmed, pinned) = (BTreeMap::new(), BTreeSet::new());
        Self { folder, store, samples, confirmed, pinned }
    }

    fn store(&self) -> &BlobStore {
        self.store.as_ref().expect("is open")
    }

    /// What is not pinned may go whenever room is needed.
    fn room_was_made(&mut self) {
        let pinned = &self.pinned;
        self.confirmed.retain(|at, _| pinned.contains(at));
    }

    fn confirm(&mut self, at: usize, pieces: impl IntoIterator<Item = u64>) {
        self.confirmed.entry(at).or_default().extend(pieces);
    }

    fn play(&mut self, step: &Step) {
        let all = self.samples.clone();
        match *step {
            Step::Begin(at) => {
                if all[at].begin(self.store()).is_ok() {
                    self.room_was_made();
                }
            }
            Step::Put(at, piece) => {
                let piece = piece % all[at].pieces();
                match all[at].put(self.store(), piece) {
                    Ok(()) => self.confirm(at, [piece]),
                    Err(BlobError::NotHeld { .. } | BlobError::NotYet { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            Step::PutWrong(at, piece) => self.put_wrong(&all[at], piece % all[at].pieces()),
            Step::Pin(at, is_on) => {
                let pin = self.store().pin(all[at].blob(), "model".to_owned(), is_on);
                block_on(pin).expect("pins");
                if is_on {
                    self.pinned.insert(at)
                } else {
                    self.pinned.remove(&at)
                };
            }
            Step::Remove(at) => match block_on(self.store().remove(all[at].blob())) {
                Ok(()) => {
                    assert!(!self.pinned.contains(&at));
                    self.confirmed.remove(&at);
                }
                Err(BlobError::Pinned { .. }) => assert!(self.pinned.contains(&at)),
                Err(BlobError::NotHeld { .. }) => assert!(!self.confirmed.contains_key(&at)),
                Err(error) => panic!("{error}"),
            },
            Step::Verify(at) => match block_on(self.store().verify(all[at].blob())) {
                Ok(wrong) => assert!(wrong.is_empty()),
                Err(BlobError::NotHeld { .. }) => assert!(!self.confirmed.contains_key(&at)),
                Err(error) => panic!("{error}"),
            },
            Step::Add(at) => {
                let path = self.folder.path().join("outside");
                std::fs::write(&path, &all[at].bytes).expect("writes");
                let added = add(self.store(), &path, Holding::Copied);
                self.room_was_made();
                self.note(at, added);
            }
            Step::Receive(at, len) => self.receive(&all[at], at, len),
            Step::Collect => {
                block_on(self.store().collect()).expect("collects");
                self.room_was_made();
            }
            Step::Reopen => {
                self.store = None;
                self.store = Some(open(self.folder.path(), Some(BUDGET)));
            }
        }
    }

    fn put_wrong(&self, sample: &Sample, piece: u64) {
        let mut bytes = sample.piece(piece).to_vec();
        bytes.push(1);
        let put = self.store().put_piece(sample.blob(), piece, bytes.into());
        let held = block_on(self.store().held(sample.blob()));
        match block_on(put) {
            Ok(()) => assert!(held.expect("known").has(piece)),
            Err(
                BlobError::NotHeld { .. } | BlobError::NotYet { .. } | BlobError::WrongPiece { .. },
            ) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn receive(&mut self, sample: &Sample, at: usize, len: usize) {
        let received = block_on(self.store().receive(format!("file {at}"), sample.size()));
        self.room_was_made();
        let Ok(mut file) = received else { return };
        let kept = usize::try_from(file.len()).expect("small");
        let to = (kept + len).min(sample.bytes.len());
        block_on(file.append(sample.bytes.slice(kept..to))).expect("appends");
        if to == sample.bytes.len() {
            let held = block_on(file.finish(Some(sample.sha256())));
            self.room_was_made();
            self.note(at, held);
        }
    }

    fn note(&mut self, at: usize, held: Result<AddEvent, BlobError>) {
        let sample = self.samples[at].clone();
        match held {
            Ok(AddEvent::Held { blob, sha256, size, .. }) => {
                assert_eq!((blob, size), (sample.blob(), sample.size()));
                assert_eq!(sha256, sample.sha256());
                let known = block_on(self.store().by_sha256(sha256)).expect("looks");
                assert_eq!(known, Some(blob));
                self.confirm(at, []);
            }
            Ok(event) => panic!("{event:?} is not the last event"),
            Err(BlobError::Full { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn check(&self) {
        let mut sum = 0;
        for info in block_on(self.store().list(None, 100)).expect("lists") {
            sum += info.size;
        }
        assert!(sum <= BUDGET, "{sum} bytes are held");
        for (at, sample) in self.samples.iter().enumerate() {
            sample.check(self.store());
            for &piece in self.confirmed.get(&at).into_iter().flatten() {
                let held = block_on(self.store().held(sample.blob())).expect("is known");
                assert!(held.has(piece), "piece {piece} of sample {at} is lost");
            }
            let pins = block_on(self.store().info(sample.blob())).expect("looks");
            let is_pinned = pins.is_none_or(|it| (it.pins == 1) == self.pinned.contains(&at));
            assert!(is_pinned, "the pin of sample {at}");
        }
        check_files(self.folder.path(), self.store());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever is called in whatever order: what is held is right, what was confirmed and could
    /// not be collected is held, and all fits the budget.
    #[test]
    fn any_calls_leave_what_is_right_and_fits(steps in prop::collection::vec(any_step(), 1..40)) {
        let mut world = World::new();
        for step in &steps {
            world.play(step);
            world.check();
        }
    }
}
