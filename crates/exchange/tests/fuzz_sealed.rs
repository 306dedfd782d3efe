//! Fuzz targets: no bytes crash the sealed side of a stream, and none open that were not sealed.

use std::sync::LazyLock;

use commons_exchange::sealed::{Channel, HpkeSecret, OPENING_LEN, frame_body_len};
use commons_record::Hash;

const MESH: Hash = Hash::from_bytes([0x21; 32]);

static SECRET: LazyLock<HpkeSecret> = LazyLock::new(|| HpkeSecret::from_seed(&[0x77; 32]));

/// An opening that begins as it should and goes on as it likes, then a frame.
#[test]
fn accept() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let mut opening = [0; OPENING_LEN];
        opening[0] = 1;
        opening[1..33].copy_from_slice(MESH.as_bytes());
        let rest = bytes.iter().chain(std::iter::repeat(&0x5c));
        opening[33..].iter_mut().zip(rest).for_each(|(at, byte)| *at = *byte);
        let Ok(mut channel) = Channel::accept(&SECRET, &MESH, &opening) else { return };
        let frame = bytes.get(32..).unwrap_or_default();
        assert!(channel.opener.open(8, frame).is_err());
    });
}

#[test]
fn any_opening() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let Some(opening) = bytes.first_chunk::<OPENING_LEN>() else { return };
        let _ = Channel::accept(&SECRET, &MESH, opening);
    });
}

#[test]
fn open() {
    static OPENING: LazyLock<[u8; OPENING_LEN]> = LazyLock::new(|| {
        let (_, opening) = Channel::connect([0x42; 32], &MESH, &SECRET.public()).expect("good");
        opening.as_slice().try_into().expect("an opening has one length")
    });
    bolero::check!().for_each(|bytes: &[u8]| {
        let Some((class, body)) = bytes.split_first() else { return };
        let mut channel = Channel::accept(&SECRET, &MESH, &OPENING).expect("it opens");
        let _ = frame_body_len(*class);
        assert!(channel.opener.open(*class, body).is_err(), "nobody sealed this");
    });
}
