//! Call by call: what each does, and what it refuses.

use super::*;

#[test]
fn a_blob_arrives_piece_by_piece_and_is_whole_under_its_name() {
    for len in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 77] {
        let (folder, sample) = (folder(), Sample::new(1, len));
        let (blob, pieces) = (sample.blob(), sample.pieces());
        let store = open(folder.path(), None);
        let missing = block_on(store.put_piece(blob, 0, sample.piece(0)));
        assert_eq!(missing, Err(BlobError::NotHeld { blob }));
        sample.begin(&store).expect("there is room");
        // The last first, so that the file is sparse.
        for piece in (0..pieces).rev() {
            let info = block_on(store.info(blob)).expect("looks").expect("is known");
            assert_eq!((info.pieces_held, info.is_whole()), (pieces - 1 - piece, false));
            let want = BlobError::NotYet { blob, piece };
            let size = u32::try_from(sample.piece(piece).len()).expect("a piece");
            let got = block_on(store.read(blob, piece * u64::from(PIECE_LEN), size));
            assert_eq!(got, Err(want));
            let mut wrong = sample.piece(piece).to_vec();
            wrong.push(0);
            let put = block_on(store.put_piece(blob, piece, wrong.into()));
            assert_eq!(put, Err(BlobError::WrongPiece { blob, piece }));
            sample.put(&store, piece).expect("is right");
            sample.put(&store, piece).expect("is held already");
        }
        let mut store = Some(store);
        for _ in 0..2 {
            let now = store.take().unwrap_or_else(|| open(folder.path(), None));
            assert_eq!(sample.check(&now), pieces);
            let path = kill::part_of(folder.path(), blob, "");
            assert_eq!(std::fs::read(path).expect("is whole"), sample.bytes);
            assert_eq!(block_on(now.page(blob, 0)), Ok(Some(page_of(&sample))));
            assert_eq!(block_on(now.verify(blob)), Ok(Vec::new()));
            check_files(folder.path(), &now);
        }
    }
}

fn page_of(sample: &Sample) -> Bytes {
    if sample.pieces() == 1 { Bytes::new() } else { sample.cvs.clone() }
}

#[test]
fn hashes_that_do_not_lead_to_the_name_are_refused() {
    let (folder, sample) = (folder(), Sample::new(2, 2 * PIECE));
    let (store, blob) = (open(folder.path(), None), sample.blob());
    block_on(store.begin(blob, sample.size())).expect("there is room");
    assert_eq!(block_on(store.page(blob, 0)), Ok(None));
    let put = block_on(store.put_piece(blob, 0, sample.piece(0)));
    assert_eq!(put, Err(BlobError::NotYet { blob, piece: 0 }));
    let mut page = sample.cvs.to_vec();
    page[3] ^= 1;
    for (group, page) in [(0, page), (1, sample.cvs.to_vec()), (0, Vec::new())] {
        let put = block_on(store.put_page(blob, group, page.into()));
        assert_eq!(put, Err(BlobError::WrongHashes { blob }));
    }
    let put = block_on(store.put_top(blob, Bytes::from_static(&[0; 64])));
    assert_eq!(put, Err(BlobError::WrongHashes { blob }));
    block_on(store.put_page(blob, 0, sample.cvs.clone())).expect("is right");
    assert_eq!(block_on(store.page(blob, 0)), Ok(Some(sample.cvs)));
}

/// A gibibyte and a piece, of which only the piece after the group boundary is ever here.
#[test]
fn a_piece_of_the_second_group_is_checked_by_itself() {
    let (folder, piece) = (folder(), Sample::new(3, PIECE));
    let (mut builder, mut cvs) = (TreeBuilder::new(), Vec::new());
    for _ in 0..=GROUP_PIECES {
        builder.update(&piece.bytes, |cv| cvs.extend_from_slice(&cv));
    }
    let tree = builder.finish(|cv| cvs.extend_from_slice(&cv)).expect("not too long");
    let (blob, size) = (tree.blob, tree.shape.size());
    let group = usize::try_from(GROUP_PIECES).expect("small") * CV_LEN;
    let (first, second) = cvs.split_at(group);
    {
        let store = open(folder.path(), None);
        block_on(store.begin(blob, size)).expect("there is room");
        let early = block_on(store.put_page(blob, 1, Bytes::copy_from_slice(second)));
        assert_eq!(early, Err(BlobError::NotYet { blob, piece: GROUP_PIECES }));
        block_on(store.put_top(blob, tree.top.clone())).expect("is right");
        let swapped = block_on(store.put_page(blob, 0, Bytes::copy_from_slice(second)));
        assert_eq!(swapped, Err(BlobError::WrongHashes { blob }));
        block_on(store.put_page(blob, 1, Bytes::copy_from_slice(second))).expect("is right");
        let put = block_on(store.put_piece(blob, GROUP_PIECES, piece.bytes.clone()));
        put.expect("is right");
    }
    let store = open(folder.path(), None);
    assert_eq!(block_on(store.top(blob)), Ok(Some(tree.top)));
    assert_eq!(block_on(store.page(blob, 0)), Ok(None));
    assert_eq!(block_on(store.page(blob, 1)), Ok(Some(Bytes::copy_from_slice(second))));
    let read = block_on(store.read(blob, size - 5, 5)).expect("is held");
    assert_eq!(read, piece.bytes.slice(PIECE - 5..));
    block_on(store.put_page(blob, 0, Bytes::copy_from_slice(first))).expect("is right");
    for piece_index in [0, GROUP_PIECES - 1] {
        let put = block_on(store.put_piece(blob, piece_index, piece.bytes.clone()));
        put.expect("is right");
    }
    let across = block_on(store.read(blob, size - 2 * piece.size() + 100, PIECE_LEN));
    let want = [&piece.bytes[100..], &piece.bytes[..100]].concat();
    assert_eq!(across.expect("both are held"), want);
}

#[test]
fn reads_outside_a_blob_are_refused() {
    let (folder, sample) = (folder(), Sample::new(4, PIECE + 10));
    let store = open(folder.path(), None);
    sample.put_all(&store).expect("there is room");
    let (blob, size) = (sample.blob(), sample.size());
    let end = size - 10;
    assert_eq!(block_on(store.read(blob, end, 10)).map(|it| it.len()), Ok(10));
    assert_eq!(block_on(store.read(blob, size, 0)).map(|it| it.len()), Ok(0));
    for (from, len) in [(end, 11), (size, 1), (u64::MAX, 1), (0, PIECE_LEN + 1), (size + 1, 0)] {
        let to = from.saturating_add(len.into());
        let want = BlobError::OutOfRange { blob, size, from, to };
        assert_eq!(block_on(store.read(blob, from, len)), Err(want));
    }
}

/// T92: sizes that a peer or a hub declares are refused before a byte is written.
#[test]
fn what_does_not_fit_is_refused_when_it_is_begun() {
    let (folder, blob) = (folder(), Hash::of_content(b"large"));
    let ten_tb = 10_000_000_000_000;
    {
        let store = open(folder.path(), None);
        let begun = block_on(store.begin(blob, ten_tb));
        assert!(matches!(begun, Err(BlobError::Full { need, .. }) if need == ten_tb), "{begun:?}");
        let begun = block_on(store.begin(blob, u64::MAX));
        assert!(matches!(begun, Err(BlobError::TooLarge { .. })), "{begun:?}");
        let received = block_on(store.receive("key".to_owned(), ten_tb)).map(|it| it.len());
        assert!(matches!(received, Err(BlobError::Full { .. })), "{received:?}");
        assert_eq!(block_on(store.list(None, 10)), Ok(Vec::new()));
    }
    let store = open(folder.path(), Some(100));
    block_on(store.begin(blob, 60)).expect("fits");
    block_on(store.pin(blob, "kept".to_owned(), true)).expect("pins");
    let other = Hash::of_content(b"other");
    let begun = block_on(store.begin(other, 41));
    assert_eq!(begun, Err(BlobError::Full { need: 41, free: 40 }));
    block_on(store.begin(other, 40)).expect("fits");
    block_on(store.begin(other, 40)).expect("is known");
}

#[test]
fn a_size_that_was_declared_wrongly_can_be_corrected_until_the_last_piece_is_held() {
    let (folder, sample) = (folder(), Sample::new(5, PIECE + 5));
    let (store, blob) = (open(folder.path(), None), sample.blob());
    block_on(store.begin(blob, 7 * PIECE as u64)).expect("there is room");
    sample.begin(&store).expect("takes the other size");
    sample.put(&store, 1).expect("is right");
    let begun = block_on(store.begin(blob, 7 * PIECE as u64));
    let (known, size) = (sample.size(), 7 * PIECE as u64);
    assert_eq!(begun, Err(BlobError::OtherSize { blob, known, size }));
    assert_eq!(sample.check(&store), 1);
}

/// T93.
#[test]
fn the_longest_unused_goes_first_and_what_is_pinned_stays() {
    let (folder, samples) = (folder(), [6, 7, 8, 9].map(|seed| Sample::new(seed, PIECE)));
    {
        let store = open(folder.path(), None);
        for sample in &samples {
            sample.put_all(&store).expect("there is room");
        }
        block_on(store.pin(samples[0].blob(), "model".to_owned(), true)).expect("pins");
        // The second was used last.
        block_on(store.read(samples[1].blob(), 0, 5)).expect("is held");
        let none = block_on(store.collect()).expect("collects");
        assert_eq!((none.blobs, none.bytes), (0, 0), "there is no budget");
    }
    let store = open(folder.path(), Some(2 * PIECE as u64 + 10));
    let collected = block_on(store.collect()).expect("collects");
    assert_eq!((collected.blobs, collected.bytes), (2, 2 * PIECE as u64));
    let held = samples.each_ref().map(|sample| sample.check(&store));
    assert_eq!(held, [1, 1, 0, 0]);
    check_files(folder.path(), &store);
    // One more takes the place of the one that is not pinned; two find none.
    let (one, two) = (Sample::new(10, PIECE), Sample::new(11, 2 * PIECE));
    assert!(matches!(two.put_all(&store), Err(BlobError::Full { .. })));
    assert_eq!(samples[1].check(&store), 1, "nothing went for what does not fit");
    one.put_all(&store).expect("there is room");
    assert_eq!((samples[0].check(&store), samples[1].check(&store)), (1, 0));
    let pin = "model".to_owned();
    let blob = samples[0].blob();
    let removed = block_on(store.remove(blob));
    assert_eq!(removed, Err(BlobError::Pinned { blob, pin: pin.clone() }));
    block_on(store.pin(blob, pin, false)).expect("takes it away");
    block_on(store.remove(blob)).expect("nothing holds it");
    assert_eq!(block_on(store.info(blob)), Ok(None));
    let long = "n".repeat(257);
    assert!(block_on(store.pin(blob, long, true)).is_err());
}

#[test]
fn lists_go_on_where_they_ended() {
    let folder = folder();
    let store = open(folder.path(), None);
    let mut blobs: Vec<Hash> = (0..5_u8).map(|byte| Hash::of_content(&[byte])).collect();
    for blob in &blobs {
        block_on(store.begin(*blob, 1)).expect("there is room");
    }
    blobs.sort_unstable();
    let mut found = Vec::new();
    loop {
        let some = block_on(store.list(found.last().copied(), 2)).expect("lists");
        if some.is_empty() {
            break;
        }
        found.extend(some.into_iter().map(|it| it.blob));
    }
    assert_eq!(found, blobs);
}

#[test]
fn a_file_that_is_taken_in_is_held_with_all_that_is_known_of_it() {
    for holding in [Holding::Copied, Holding::InPlace] {
        for len in [0, 1, PIECE, 3 * PIECE + 5] {
            let (folder, outside) = (folder(), folder());
            let sample = Sample::new(20, len);
            let path = outside.path().join("a name.gguf");
            std::fs::write(&path, &sample.bytes).expect("writes");
            let store = open(folder.path(), None);
            let text = path.to_str().expect("plain").to_owned();
            let events: Vec<_> = block_on(store.add(text, holding).collect());
            let held = events.last().cloned().expect("a last event").expect("is held");
            let AddEvent::Held { blob, sha256, size, recipe } = held else {
                panic!("{held:?} is not the last event")
            };
            assert_eq!((blob, size), (sample.blob(), sample.size()));
            assert_eq!(sha256, sample.sha256());
            assert_eq!(block_on(store.by_sha256(sha256)), Ok(Some(blob)));
            let info = block_on(store.info(blob)).expect("looks").expect("is known");
            assert_eq!((info.is_whole(), info.is_in_place), (true, holding == Holding::InPlace));
            assert_eq!(sample.check(&store), sample.pieces());
            check_chunks(&store, &sample, recipe);
            check_files(folder.path(), &store);
            // Again is the same.
            assert_eq!(add(&store, &path, holding), Ok(held));
        }
    }
}

/// Every chunk of the recipe is found where the blob has it, until the blob is gone.
fn check_chunks(store: &BlobStore, sample: &Sample, recipe: Hash) {
    let info = block_on(store.info(recipe)).expect("looks").expect("is held");
    let len = u32::try_from(info.size).expect("small");
    let bytes = block_on(store.read(recipe, 0, len)).expect("is held");
    let (_, chunks) = commons_swarm::recipe::decode(&bytes).expect("a recipe");
    assert_eq!(chunks.last().map_or(0, |last| last.end), sample.size());
    let hashes: Vec<Hash> = chunks.iter().map(|chunk| chunk.hash).collect();
    let places = block_on(store.find_chunks(hashes.clone())).expect("looks");
    for (chunk, place) in chunks.iter().zip(places) {
        let place = place.expect("is held");
        let bytes = block_on(store.read(place.blob, place.offset, place.len)).expect("is held");
        assert_eq!(Hash::of_content(&bytes), chunk.hash);
    }
    let unknown = block_on(store.find_chunks(vec![Hash::of_content(b"none")]));
    assert_eq!(unknown, Ok(vec![None]));
}

#[test]
fn chunks_of_a_blob_that_is_gone_are_not_found() {
    let (folder, sample) = (folder(), Sample::new(21, PIECE));
    let path = folder.path().join("outside");
    std::fs::write(&path, &sample.bytes).expect("writes");
    let store = open(folder.path(), Some(4 * PIECE as u64));
    let held = add(&store, &path, Holding::Copied).expect("is held");
    let AddEvent::Held { blob, recipe, .. } = held else { panic!("{held:?}") };
    let bytes = block_on(store.read(recipe, 0, 64 + 40)).expect("is held");
    let chunk = Hash::from_bytes(bytes[64..96].try_into().expect("a hash"));
    assert!(block_on(store.find_chunks(vec![chunk])).expect("looks")[0].is_some());
    block_on(store.remove(blob)).expect("nothing holds it");
    assert_eq!(block_on(store.find_chunks(vec![chunk])), Ok(vec![None]));
    block_on(store.collect()).expect("sweeps");
    assert_eq!(block_on(store.find_chunks(vec![chunk])), Ok(vec![None]));
    sample.put_all(&store).expect("there is room");
    block_on(store.index_chunks(blob, recipe)).expect("its own recipe");
    assert!(block_on(store.find_chunks(vec![chunk])).expect("looks")[0].is_some());
    let other = Sample::new(22, 10);
    other.put_all(&store).expect("there is room");
    let wrong = block_on(store.index_chunks(other.blob(), recipe));
    assert!(matches!(wrong, Err(BlobError::BadFile { .. })), "{wrong:?}");
    let wrong = block_on(store.index_chunks(blob, other.blob()));
    assert!(wrong.is_err(), "that is no recipe");
}

#[test]
fn a_file_in_place_that_changes_is_found_and_forgotten() {
    let (folder, sample) = (folder(), Sample::new(23, 2 * PIECE + 5));
    let path = folder.path().join("outside");
    let store = open(folder.path(), Some(PIECE as u64));
    let blob = sample.blob();
    let mut other = sample.bytes.to_vec();
    other[PIECE + 3] ^= 1;
    for (content, wrong) in [(other, vec![1]), (sample.bytes[..PIECE].to_vec(), vec![0, 1, 2])] {
        std::fs::write(&path, &sample.bytes).expect("writes");
        add(&store, &path, Holding::InPlace).expect("takes no room");
        assert_eq!(sample.check(&store), 3);
        std::fs::write(&path, content).expect("writes");
        let read = block_on(store.read(blob, PIECE as u64, 10));
        let path = path.canonicalize().expect("is there");
        let path = path.to_str().expect("plain").to_owned();
        assert_eq!(read, Err(BlobError::Changed { path }));
        assert_eq!(block_on(store.verify(blob)), Ok(wrong));
        assert_eq!(block_on(store.info(blob)), Ok(None));
    }
    std::fs::write(&path, &sample.bytes).expect("writes");
    add(&store, &path, Holding::InPlace).expect("takes no room");
    std::fs::remove_file(&path).expect("removes");
    let read = block_on(store.read(blob, 0, 10));
    assert!(matches!(read, Err(BlobError::BadFile { .. })), "{read:?}");
    block_on(store.remove(blob)).expect("forgets");
}

#[test]
fn what_is_no_file_is_not_taken_in() {
    let folder = folder();
    let store = open(folder.path(), None);
    for path in [folder.path().to_owned(), folder.path().join("none"), "/dev/null".into()] {
        let added = add(&store, &path, Holding::Copied);
        assert!(matches!(added, Err(BlobError::BadFile { .. })), "{added:?}");
    }
    let path = folder.path().join("large");
    std::fs::File::create(&path).and_then(|file| file.set_len(1 << 47)).expect("sparse");
    let added = add(&store, &path, Holding::Copied);
    assert!(matches!(added, Err(BlobError::TooLarge { .. })), "{added:?}");
    drop(store);
    std::fs::File::create(&path).and_then(|file| file.set_len(1001)).expect("sparse");
    let added = add(&open(folder.path(), Some(1000)), &path, Holding::Copied);
    assert_eq!(added, Err(BlobError::Full { need: 1001, free: 1000 }));
}

#[test]
fn a_bit_that_flips_on_the_disk_costs_its_piece() {
    let (folder, sample) = (folder(), Sample::new(24, 3 * PIECE));
    let (store, blob) = (open(folder.path(), None), sample.blob());
    sample.put_all(&store).expect("there is room");
    let path = kill::part_of(folder.path(), blob, "");
    let mut bytes = sample.bytes.to_vec();
    bytes[PIECE + 9] ^= 4;
    std::fs::write(&path, bytes).expect("writes");
    assert_eq!(block_on(store.verify(blob)), Ok(vec![1]));
    assert!(!path.exists(), "it is whole no longer");
    assert_eq!(sample.check(&store), 2);
    drop(store);
    let store = open(folder.path(), None);
    assert_eq!(sample.check(&store), 2);
    sample.put(&store, 1).expect("is right");
    assert_eq!(std::fs::read(&path).expect("is whole again"), sample.bytes);
    // Hashes that are lost are computed again.
    drop(store);
    std::fs::remove_file(kill::part_of(folder.path(), blob, "tree")).expect("removes");
    let store = open(folder.path(), None);
    assert_eq!(block_on(store.page(blob, 0)), Ok(None));
    assert_eq!(block_on(store.verify(blob)), Ok(Vec::new()));
    assert_eq!(block_on(store.page(blob, 0)), Ok(Some(sample.cvs)));
}

#[test]
fn whole_blobs_are_found_again_without_their_index() {
    let (folder, sample) = (folder(), Sample::new(25, PIECE + 1));
    sample.put_all(&open(folder.path(), None)).expect("there is room");
    std::fs::remove_file(folder.path().join("blobs/index.redb")).expect("removes");
    assert_eq!(sample.check(&open(folder.path(), None)), 2);
}

#[test]
fn a_file_that_arrives_goes_on_where_it_stood() {
    let (folder, sample) = (folder(), Sample::new(30, 2 * PIECE + 100));
    let (size, key) = (sample.size(), || "https://example.org/a".to_owned());
    for cut in [0, 10, PIECE, PIECE + 10, 2 * PIECE, 2 * PIECE + 99, 2 * PIECE + 100] {
        let store = open(folder.path(), None);
        let mut file = block_on(store.receive(key(), size)).expect("begins");
        assert!(file.is_empty());
        block_on(file.append(sample.bytes.slice(..cut))).expect("appends");
        let again = block_on(store.receive(key(), size)).map(|it| it.len());
        assert_eq!(again, Err(BlobError::Busy { what: key() }));
        drop((file, store));
        let store = open(folder.path(), None);
        let mut file = block_on(store.receive(key(), size)).expect("goes on");
        assert_eq!(file.len(), cut as u64);
        let long = block_on(file.append(vec![0; 3 * PIECE].into()));
        assert!(matches!(long, Err(BlobError::OtherLen { .. })), "{long:?}");
        block_on(file.append(sample.bytes.slice(cut..))).expect("appends");
        let held = block_on(file.finish(Some(sample.sha256()))).expect("is right");
        let AddEvent::Held { blob, sha256, recipe, .. } = held else { panic!("{held:?}") };
        assert_eq!((blob, sha256), (sample.blob(), sample.sha256()));
        assert_eq!(sample.check(&store), sample.pieces());
        check_chunks(&store, &sample, recipe);
        block_on(store.remove(blob)).expect("nothing holds it");
    }
}

#[test]
fn a_file_that_is_not_what_was_promised_is_thrown_away() {
    let (folder, sample) = (folder(), Sample::new(31, PIECE + 100));
    let (size, key) = (sample.size(), || "b".to_owned());
    let store = open(folder.path(), Some(4 * PIECE as u64));
    let mut file = block_on(store.receive(key(), size)).expect("begins");
    block_on(file.append(sample.bytes.slice(..100))).expect("appends");
    let short = block_on(file.finish(None));
    assert_eq!(short, Err(BlobError::OtherLen { key: key(), len: 100, size }));
    let mut file = block_on(store.receive(key(), size)).expect("is still there");
    assert_eq!(file.len(), 100);
    block_on(file.restart()).expect("begins anew");
    assert!(file.is_empty());
    block_on(file.append(sample.bytes.clone())).expect("appends");
    let other = block_on(file.finish(Some([7; 32])));
    assert!(matches!(other, Err(BlobError::WrongDigest { .. })), "{other:?}");
    assert_eq!(block_on(store.info(sample.blob())), Ok(None));
    // Another size is another file, and the room of the first is free again.
    for len in [3 * PIECE, 4 * PIECE] {
        let file = block_on(store.receive(key(), len as u64)).expect("there is room");
        assert!(file.is_empty());
    }
    let mut file = block_on(store.receive(key(), size)).expect("begins");
    block_on(file.append(sample.bytes.clone())).expect("appends");
    block_on(file.finish(None)).expect("is whole");
    assert_eq!(sample.check(&store), sample.pieces());
}

#[test]
fn a_partial_blob_becomes_whole_by_a_file_that_has_its_bytes() {
    let (folder, sample) = (folder(), Sample::new(32, 2 * PIECE));
    let path = folder.path().join("outside");
    std::fs::write(&path, &sample.bytes).expect("writes");
    // Room for the partial one, for the copy, and for the recipe.
    let store = open(folder.path(), Some(4 * PIECE as u64 + 2000));
    sample.begin(&store).expect("there is room");
    sample.put(&store, 1).expect("is right");
    block_on(store.pin(sample.blob(), "pull".to_owned(), true)).expect("pins");
    add(&store, &path, Holding::Copied).expect("there is room");
    assert_eq!(sample.check(&store), 2);
    check_files(folder.path(), &store);
    // What the partial one took is free again.
    let other = Sample::new(33, 2 * PIECE);
    other.put_all(&store).expect("there is room");
    assert_eq!(sample.check(&store), 2);
}

/// T91: after a loss of power, what was not synced is believed only as far as it is right.
#[test]
fn another_run_of_the_machine_checks_what_was_not_synced() {
    use super::super::held::Held;
    let folder = folder();
    let path = folder.path().join("held");
    let open = |boot: u8, right: &[u64]| {
        let is_right = |piece| right.contains(&piece);
        Held::open(&path, 20, Some([boot; 16]), is_right).expect("opens")
    };
    let mut held = open(1, &[]);
    held.set(3, 100).expect("notes");
    let bits = held.begin_sync();
    held.end_sync(&bits).expect("notes");
    for piece in [4, 5, 19] {
        assert!(held.set(piece, 100).expect("notes"));
        assert!(!held.set(piece, 100).expect("is held"));
    }
    drop(held);
    let pieces = |held: &Held| (0..21).filter(|&piece| held.has(piece)).collect::<Vec<_>>();
    let same = open(1, &[]);
    assert_eq!((pieces(&same), same.count()), (vec![3, 4, 5, 19], 4));
    drop(same);
    let next = open(2, &[3, 5, 7]);
    assert_eq!((pieces(&next), next.count()), (vec![3, 5], 2));
    drop(next);
    let mut next = open(2, &[]);
    assert_eq!(pieces(&next), [3, 5]);
    next.forget_unsynced().expect("notes");
    assert_eq!(pieces(&next), [3], "a sync failed");
    std::fs::write(&path, b"something else").expect("writes");
    assert_eq!(open(2, &[]).count(), 0, "not a note of ours");
}

/// T90.
#[test]
fn a_name_that_climbs_out_stays_in_the_folder() {
    let (outer, sample) = (folder(), Sample::new(34, 10));
    let inner = outer.path().join("data");
    let store = open(&inner, None);
    for key in ["../../../escaped", "/dev/shm/escaped", "a/../../b", "", "\0", "."] {
        let mut file = block_on(store.receive(key.to_owned(), 10)).expect("begins");
        block_on(file.append(sample.bytes.slice(..5))).expect("appends");
    }
    let around: Vec<_> = std::fs::read_dir(outer.path()).expect("reads").collect();
    assert_eq!(around.len(), 1, "something lies beside the folder");
    for entry in std::fs::read_dir(inner.join("blobs/arriving")).expect("reads") {
        let name = entry.expect("reads").file_name().into_string().expect("plain");
        assert!(name.parse::<Hash>().is_ok(), "{name}");
    }
}

/// Calls on one blob from many threads at once.
#[test]
fn many_threads_write_and_read_one_blob() {
    let (folder, sample) = (folder(), Sample::new(40, 8 * PIECE));
    let store = open(folder.path(), None);
    sample.begin(&store).expect("there is room");
    std::thread::scope(|scope| {
        for first in 0..4 {
            let (store, sample) = (&store, &sample);
            scope.spawn(move || {
                for piece in (0..8).map(|piece| (piece + 2 * first) % 8) {
                    sample.put(store, piece).expect("is right");
                    // What was confirmed is read, whatever the others write meanwhile.
                    let (from, want) = (piece * PIECE as u64, sample.piece(piece));
                    let len = u32::try_from(want.len()).expect("a piece");
                    let got = block_on(store.read(sample.blob(), from, len));
                    assert!(got.expect("is held") == want, "piece {piece}");
                }
            });
        }
    });
    assert_eq!(sample.check(&store), 8);
    assert!(kill::part_of(folder.path(), sample.blob(), "").exists());
}
