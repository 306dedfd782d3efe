//! Frames in pieces of any size, and bytes that are none.

use serde::Deserialize;

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    text: String,
    margin: f64,
}

fn note(text: &str) -> Note {
    Note { text: text.to_owned(), margin: f64::INFINITY }
}

/// Reads everything that `chunks` hold, as they come.
fn read(chunks: &[&[u8]]) -> Result<Vec<Note>, FrameError> {
    let (mut frames, mut notes) = (Frames::default(), Vec::new());
    for chunk in chunks {
        frames.push(chunk);
        while let Some(note) = frames.read()? {
            notes.push(note);
        }
    }
    Ok(notes)
}

#[test]
fn messages_come_out_as_they_went_in_however_they_were_cut() {
    let sent = [note("a"), note(""), note(&"long ".repeat(100_000))];
    let bytes: Vec<u8> = sent.iter().flat_map(|it| encode(it).expect("fits")).collect();
    for size in [1, 3, 4, 5, 64 << 10, bytes.len()] {
        let chunks: Vec<&[u8]> = bytes.chunks(size).collect();
        assert_eq!(read(&chunks).expect("is well-formed"), sent, "in pieces of {size}");
    }
}

#[test]
fn a_frame_that_is_not_there_yet_is_waited_for() {
    let bytes = encode(&note("half")).expect("fits");
    for end in 0..bytes.len() {
        assert_eq!(read(&[&bytes[..end]]), Ok(Vec::new()), "{end} bytes");
    }
}

#[test]
fn a_length_is_believed_only_below_the_limit_and_reserves_nothing() {
    let too_long = u32::try_from(FRAME_SIZE_MAX + 1).expect("fits").to_be_bytes();
    assert_eq!(read(&[&too_long]), Err(FrameError::TooLong { size: FRAME_SIZE_MAX + 1 }));
    assert_eq!(read(&[&[0xff; 4]]), Err(FrameError::TooLong { size: 0xffff_ffff }));
    let mut frames = Frames::default();
    frames.push(&u32::try_from(FRAME_SIZE_MAX).expect("fits").to_be_bytes());
    assert_eq!(frames.read::<Note>(), Ok(None));
    assert!(frames.buffer.capacity() < 1024, "{}", frames.buffer.capacity());
}

#[test]
fn what_is_no_message_is_refused() {
    let framed = |body: &[u8]| {
        let head = u32::try_from(body.len()).expect("small").to_be_bytes();
        [&head, body].concat()
    };
    let check = |body: &[u8]| match read(&[&framed(body)]) {
        Err(FrameError::Malformed { detail }) => assert!(detail.len() <= 800, "{detail}"),
        other => panic!("{body:?}: {other:?}"),
    };
    check(b"");
    check(b"{}");
    check(&[0xa0]); // An empty map: fields are missing.
    check(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]); // A list of 2^64 values.
    check(&vec![0x81; 100_000]); // A list in a list in a list.
    let good = encode(&note("a")).expect("fits");
    let more = framed(&[&good[4..], &[0]].concat());
    assert_eq!(read(&[&more]), Err(FrameError::Trailing { left: 1 }));
}

#[test]
fn a_message_that_fits_no_frame_is_not_made() {
    let error = encode(&note(&"x".repeat(FRAME_SIZE_MAX))).expect_err("is too long");
    assert!(matches!(error, FrameError::TooLong { size } if size > FRAME_SIZE_MAX), "{error}");
}

#[test]
fn a_reader_gives_back_what_a_long_message_took() {
    let mut frames = Frames::default();
    frames.push(&encode(&note(&"x".repeat(1 << 20))).expect("fits"));
    assert!(frames.read::<Note>().is_ok_and(|it| it.is_some()));
    assert_eq!(frames.read::<Note>(), Ok(None));
    assert!(frames.buffer.capacity() <= KEPT_SIZE_MAX, "{}", frames.buffer.capacity());
}
