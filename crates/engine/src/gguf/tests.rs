//! What is read, and what is refused: each limit and each lie has a case.

use proptest::prelude::*;

use super::*;

/// A file with one of everything that matters.
fn sample() -> GgufWriter {
    let mut writer = GgufWriter::new();
    writer
        .set("general.name", Value::String("sample".into()))
        .set("a.count", Value::U32(7))
        .set("a.flag", Value::Bool(true))
        .set("a.texts", Value::Array(Array::String(vec!["x".into(), String::new()])))
        .set("a.nested", Value::Array(Array::Nested(vec![Array::U8(vec![1]), Array::F64(vec![])])));
    writer.tensor_f32("first", &[2, 3], &[1.0; 6]).expect("fits");
    writer.tensor("second", &[32], TensorType::Q8_0, vec![3; 34]).expect("fits");
    writer
}

/// Bytes of a header: magic, version, tensor count, pair count.
fn header(version: u32, tensors: u64, pairs: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(version.to_le_bytes());
    bytes.extend(tensors.to_le_bytes());
    bytes.extend(pairs.to_le_bytes());
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// The bytes of a tensor's header.
fn tensor(name: &str, dims: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut bytes = text(name);
    bytes.extend(u32::try_from(dims.len()).expect("few").to_le_bytes());
    bytes.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
    bytes.extend(kind.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

/// A file of these tensor headers, and `data_size` bytes of data.
fn with_tensors(tensors: &[Vec<u8>], data_size: usize) -> Vec<u8> {
    let mut bytes = header(3, tensors.len() as u64, 0);
    bytes.extend(tensors.iter().flatten());
    bytes.resize(bytes.len().next_multiple_of(32) + data_size, 0);
    bytes
}

/// A file of one metadata pair.
fn with_pair(key: &str, value: &[u8]) -> Vec<u8> {
    [header(3, 0, 1), text(key), value.to_vec()].concat()
}

fn check(bytes: &[u8], wanted: &str) {
    let error = Gguf::parse(bytes).expect_err("is refused").to_string();
    assert!(error.contains(wanted), "{error:?} does not say {wanted:?}");
}

#[test]
fn what_is_written_is_read_back() {
    let gguf = Gguf::parse(&sample().to_bytes()).expect("is sound");
    assert_eq!((gguf.version(), gguf.alignment()), (3, 32));
    assert_eq!(gguf.text("general.name"), Ok(Some("sample")));
    assert_eq!(gguf.unsigned("a.count"), Ok(Some(7)));
    assert_eq!(gguf.boolean("a.flag"), Ok(Some(true)));
    assert_eq!(gguf.texts("a.texts").expect("texts").map(<[_]>::len), Some(2));
    assert_eq!(gguf.unsigned("absent"), Ok(None));
    assert!(gguf.unsigned("general.name").is_err());
    let first = &gguf.tensors()["first"];
    assert_eq!(
        (first.dims(), first.kind(), first.bytes().len()),
        (&[2, 3][..], TensorType::F32, 24)
    );
    assert_eq!(gguf.tensors()["second"].bytes().len(), 34);
}

#[test]
fn another_magic_version_or_byte_order_is_refused() {
    check(b"GGML\x03\0\0\0", "not a GGUF file");
    check(&header(1, 0, 0), "version 1 is not supported");
    check(&header(4, 0, 0), "version 4 is not supported");
    check(&header(3u32.swap_bytes(), 0, 0), "big-endian");
}

#[test]
fn counts_are_not_believed() {
    check(&header(3, u64::MAX, 0), "tensors declared");
    check(&header(3, 0, u64::MAX), "metadata pairs declared");
    check(&header(3, limits::TENSORS_MAX, 0), "ends inside tensors");
    check(&header(3, 0, limits::METADATA_MAX), "ends inside metadata pairs");
    let huge = [&value::code::STRING.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat();
    check(&with_pair("k", &huge), "text value");
    let array = |kind: u32, count: u64| {
        let prefix = [value::code::ARRAY.to_le_bytes(), kind.to_le_bytes()].concat();
        [&prefix[..], &count.to_le_bytes()].concat()
    };
    check(&with_pair("k", &array(value::code::F64, u64::MAX / 2)), "array elements declared");
    check(&with_pair("k", &array(value::code::STRING, 1 << 20)), "ends inside array elements");
    check(&with_pair("k", &array(99, 1)), "unknown type 99");
}

#[test]
fn arrays_nest_only_so_deep() {
    let nested = (0..limits::ARRAY_DEPTH_MAX)
        .fold(Array::U8(vec![1]), |inner, _| Array::Nested(vec![inner]));
    let mut writer = GgufWriter::new();
    writer.set("deep", Value::Array(nested));
    check(&writer.to_bytes(), "nests arrays deeper");
    // One array of one array of one array ...: without a bound this recursion ends in a crash.
    let level = [value::code::ARRAY.to_le_bytes(), 1u32.to_le_bytes(), [0; 4]].concat();
    let endless = [&value::code::ARRAY.to_le_bytes()[..], &level.repeat(100_000)].concat();
    check(&with_pair("endless", &endless), "nests arrays deeper");
}

#[test]
fn values_that_cannot_be_are_refused() {
    check(&with_pair("k", &99u32.to_le_bytes().repeat(2)), "unknown type 99");
    check(&with_pair("k", &[&7u32.to_le_bytes()[..], &[2]].concat()), "truth value of 2");
    check(&[header(3, 0, 1), 4u64.to_le_bytes().to_vec(), vec![0xff; 9]].concat(), "not UTF-8");
    let twice = [header(3, 0, 2), [text("k"), vec![0, 0, 0, 0, 1]].concat().repeat(2)].concat();
    check(&twice, "metadata key \"k\" appears twice");
    for alignment in [0, 1, 4, 24, 33, 1 << 20] {
        let value = [&value::code::U32.to_le_bytes()[..], &u32::to_le_bytes(alignment)].concat();
        check(&with_pair("general.alignment", &value), "not a power of two");
    }
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let one = |dims: &[u64], kind, offset| with_tensors(&[tensor("t", dims, kind, offset)], 64);
    check(&one(&[], 0, 0), "0 dimensions");
    check(&one(&[1; 5], 0, 0), "5 dimensions");
    check(&one(&[4, 0], 0, 0), "impossible shape");
    check(&one(&[u64::MAX, u64::MAX], 0, 0), "impossible shape");
    check(&one(&[1 << 62, 2], 0, 0), "impossible shape");
    check(&one(&[33], 8, 0), "not a multiple of the 32");
    check(&one(&[16], 0, 4), "not a multiple of the alignment");
    check(&one(&[17], 0, 0), "needs 68 bytes");
    check(&one(&[16], 0, 64), "needs 64 bytes");
    check(&one(&[16], 0, u64::MAX - 31), "needs 64 bytes");
    check(&one(&[256], 10, 0), "type Q2_K, which is not supported; supported: F32, F16");
    check(&one(&[256], 1_000, 0), "type number 1000");
    let pair = |second: &str, offset| {
        with_tensors(&[tensor("t", &[9], 0, 0), tensor(second, &[8], 0, offset)], 96)
    };
    check(&pair("t", 64), "tensor \"t\" appears twice");
    check(&pair("u", 32), "\"t\" and \"u\" overlap");
    assert!(Gguf::parse(&pair("u", 64)).is_ok());
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = sample().to_bytes();
    for size in 0..bytes.len() - 30 {
        assert!(Gguf::parse(&bytes[..size]).is_err(), "{size} of {} bytes", bytes.len());
    }
}

proptest! {
    /// However bytes change, reading ends with a value or an error, and never with a crash.
    #[test]
    fn changed_bytes_never_crash_the_reader(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..16),
    ) {
        let mut bytes = sample().to_bytes();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(gguf) = Gguf::parse(&bytes) {
            for info in gguf.tensors().values() {
                prop_assert!(info.bytes().end <= bytes.len());
            }
        }
    }
}
