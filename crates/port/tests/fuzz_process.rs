//! Fuzz target: what a compromised engine process can send to its node.
//!
//! Random bytes, and messages with bytes changed: nothing panics, nothing but a message comes out,
//! and a reader never holds more than it was given.

use commons_port::process::frame::{FRAME_SIZE_MAX, Frames, encode};
use commons_port::process::{FromEngine, ToEngine};

const GOLDEN: &str = include_str!("golden/process.hex");

/// Reads all that there is.
fn drain(bytes: &[u8], piece: usize) -> usize {
    let (mut frames, mut count) = (Frames::default(), 0);
    for piece in bytes.chunks(piece.max(1)) {
        frames.push(piece);
        loop {
            match frames.read::<FromEngine>() {
                Ok(Some(message)) => {
                    count += 1;
                    // What was read can be written, and reads as itself.
                    let frame = encode(&message).expect("it came out of a frame");
                    assert!(frame.len() <= FRAME_SIZE_MAX + 4);
                }
                Ok(None) => break,
                Err(_) => return count,
            }
        }
    }
    count
}

#[test]
fn bytes_of_any_kind_are_read_or_refused() {
    bolero::check!().with_type::<(Vec<u8>, u8)>().for_each(|(bytes, piece)| {
        drain(bytes, usize::from(*piece));
        // The same inside a frame, so that the decoder sees it all.
        let head = u32::try_from(bytes.len()).expect("short").to_be_bytes();
        assert!(drain(&[&head, &bytes[..]].concat(), usize::MAX) <= 1);
    });
}

#[test]
fn messages_with_bytes_changed_are_read_or_refused() {
    let frames: Vec<Vec<u8>> = GOLDEN.lines().map(bytes).collect();
    bolero::check!().with_type::<(u8, Vec<(u16, u8)>)>().for_each(|(which, changes)| {
        let mut frame = frames[usize::from(*which) % frames.len()].clone();
        for (at, byte) in changes.iter().take(8) {
            let at = usize::from(*at) % frame.len();
            frame[at] = *byte;
        }
        drain(&frame, 5);
        let mut reader = Frames::default();
        reader.push(&frame);
        while let Ok(Some(_)) = reader.read::<ToEngine>() {}
    });
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |it: &[u8]| u8::from_str_radix(std::str::from_utf8(it).expect("text"), 16);
    hex.as_bytes().chunks(2).map(|it| digit(it).expect("hexadecimal")).collect()
}
