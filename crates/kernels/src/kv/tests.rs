//! What is stored is what is read, as far as its format holds it.

use super::*;
use crate::testing::{bits, numbers};

const FORMATS: [KvFormat; 3] = [KvFormat::F32, KvFormat::F16, KvFormat::Q8];

fn shape(format: KvFormat) -> KvShape {
    KvShape { kv_heads: 3, key_size: 20, value_size: 12, format }
}

fn read(store: &KvStore, page: u32, slot: usize) -> (Vec<f32>, Vec<f32>) {
    let (mut keys, mut values) = (vec![0.0; 60], vec![0.0; 36]);
    store.read(page, slot, &mut keys, &mut values);
    (keys, values)
}

#[test]
fn every_position_keeps_what_was_written_to_it() {
    for format in FORMATS {
        let mut store = KvStore::new(shape(format), 4).expect("a small store");
        let written = |index: u32| (numbers(2 * index, 60), numbers(2 * index + 1, 36));
        for index in 0..128 {
            let (keys, values) = written(index);
            store.write(index / 32, index as usize % 32, &keys, &values);
        }
        for index in 0..128 {
            let (keys, values) = written(index);
            let (got_keys, got_values) = read(&store, index / 32, index as usize % 32);
            let pairs = got_keys.iter().zip(&keys).chain(got_values.iter().zip(&values));
            for (got, written) in pairs {
                // Half a unit in the last place of 11 bits; half a step of 1 / 127.
                let bound = match format {
                    KvFormat::F32 => 0.0,
                    KvFormat::F16 => 0.5 / 1024.0 * written.abs(),
                    KvFormat::Q8 => 0.501 / 127.0,
                };
                assert!((got - written).abs() <= bound, "{format:?}: {got} for {written}");
            }
        }
    }
}

#[test]
fn a_copied_page_has_the_first_positions_and_keeps_its_others() {
    for format in FORMATS {
        let mut store = KvStore::new(shape(format), 2).expect("a small store");
        for slot in 0..32 {
            let seed = u32::try_from(slot).expect("few");
            store.write(0, slot, &numbers(seed, 60), &numbers(seed + 50, 36));
            store.write(1, slot, &numbers(seed + 100, 60), &numbers(seed + 150, 36));
        }
        let before: Vec<_> = (0..32).map(|slot| read(&store, 1, slot)).collect();
        store.copy_slots(0, 1, 5);
        for (slot, before) in before.into_iter().enumerate() {
            let expected = if slot < 5 { read(&store, 0, slot) } else { before };
            assert_eq!(read(&store, 1, slot), expected, "{format:?} {slot}");
        }
    }
}

#[test]
fn numbers_that_a_format_cannot_hold_are_shown_as_such() {
    let mut store = KvStore::new(shape(KvFormat::F16), 1).expect("a small store");
    store.write(0, 0, &[1e6; 60], &[f32::NAN; 36]);
    let (keys, values) = read(&store, 0, 0);
    assert!(keys.iter().all(|x| *x == f32::INFINITY) && values.iter().all(|x| x.is_nan()));

    let mut store = KvStore::new(shape(KvFormat::Q8), 1).expect("a small store");
    let mut keys = numbers(1, 60);
    keys[25] = f32::INFINITY;
    store.write(0, 3, &keys, &[1e-44; 36]);
    let (keys, values) = read(&store, 0, 3);
    assert!(keys[20..40].iter().all(|x| x.is_nan()), "the head is broken as a whole");
    assert!(keys[..20].iter().chain(&keys[40..]).all(|x| x.is_finite()), "the others are not");
    assert_eq!(bits(&values), vec![0; 36]);
}

#[test]
fn a_page_takes_what_it_says_and_sizes_are_checked() {
    let bytes = FORMATS.map(|format| shape(format).page_bytes().expect("a small page"));
    // Three heads of 32 positions: 20 numbers of keys, 12 of values padded to 16.
    let cells = 3 * 32 * (20 + 16);
    assert_eq!(bytes, [4 * cells, 2 * cells, cells + 3 * 32 * 2 * 4]);

    let empty = KvShape { key_size: 0, ..shape(KvFormat::F16) };
    assert_eq!(KvStore::new(empty, 1).err(), Some(KvError::Empty { shape: empty }));
    let huge = KvShape { kv_heads: usize::MAX / 2, ..shape(KvFormat::F16) };
    assert_eq!(huge.page_bytes(), Err(KvError::TooLarge { shape: huge, pages: 1 }));
    let usual = shape(KvFormat::F16);
    let error = KvStore::new(usual, usize::MAX / 64).err();
    assert_eq!(error, Some(KvError::TooLarge { shape: usual, pages: usize::MAX / 64 }));
    let error = KvStore::new(usual, (isize::MAX as usize) / bytes[1]).err();
    assert!(matches!(error, Some(KvError::Memory { .. })), "{error:?}");
}

#[test]
fn a_clone_has_the_same_numbers() {
    let mut store = KvStore::new(shape(KvFormat::Q8), 2).expect("a small store");
    store.write(1, 9, &numbers(1, 60), &numbers(2, 36));
    assert_eq!(read(&store.clone(), 1, 9), read(&store, 1, 9));
}

#[test]
#[should_panic(expected = "page 2 of 2 does not exist")]
fn a_page_that_does_not_exist_is_refused() {
    let mut store = KvStore::new(shape(KvFormat::F32), 2).expect("a small store");
    store.write(2, 0, &[0.0; 60], &[0.0; 36]);
}
