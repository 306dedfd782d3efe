//! Sealed streams: what an observer learns, and what nobody in between can do.

use commons_exchange::sealed::{
    Channel, HpkeSecret, MESSAGE_SIZE_MAX, OPENING_LEN, SealError, frame_body_len,
};
use commons_record::{Hash, HpkeKey};

const MESH: Hash = Hash::from_bytes([0x21; 32]);

fn secret() -> HpkeSecret {
    HpkeSecret::from_seed(&[0x77; 32])
}

fn opening_of(bytes: &[u8]) -> [u8; OPENING_LEN] {
    bytes.try_into().expect("an opening has one length")
}

/// The requester's end, the provider's end, and the opening between them.
fn pair() -> (Channel, Channel, Vec<u8>) {
    let (requester, opening) =
        Channel::connect([0x42; 32], &MESH, &secret().public()).expect("a good key");
    let provider = Channel::accept(&secret(), &MESH, &opening_of(&opening)).expect("it opens");
    (requester, provider, opening)
}

/// Opens a whole frame: its length class, then its body.
fn open(end: &mut Channel, frame: &[u8]) -> Result<Vec<u8>, SealError> {
    let (class, body) = frame.split_first().expect("a frame has a class");
    assert_eq!(frame_body_len(*class)?, body.len(), "the class says how much follows");
    end.opener.open(*class, body)
}

#[test]
fn messages_cross_in_both_directions_and_in_order() {
    let (mut requester, mut provider, _) = pair();
    for round in 0..5_u8 {
        let asked = vec![round; usize::from(round) * 300];
        let frame = requester.sealer.seal(&asked).expect("it fits");
        assert_eq!(open(&mut provider, &frame).as_deref(), Ok(asked.as_slice()));
        let answer = vec![!round; usize::from(round) * 700];
        let frame = provider.sealer.seal(&answer).expect("it fits");
        assert_eq!(open(&mut requester, &frame).as_deref(), Ok(answer.as_slice()));
    }
}

/// Rule E2: a power of two from 256 bytes to 2 MiB, and every boundary of it. The tag takes 16
/// bytes and the length 4.
#[test]
fn a_frames_size_is_the_next_power_of_two() {
    let (mut requester, mut provider, _) = pair();
    for class in 8..=21_u8 {
        let room = (1 << class) - 20;
        let smallest = if class == 8 { 0 } else { (1 << (class - 1)) - 20 + 1 };
        for size in [smallest, room] {
            let frame = requester.sealer.seal(&vec![0xab; size]).expect("it fits");
            assert_eq!((frame[0], frame.len()), (class, 1 + (1 << class)), "{size} bytes");
            assert_eq!(open(&mut provider, &frame).expect("it opens").len(), size);
        }
    }
    assert_eq!(MESSAGE_SIZE_MAX, (1 << 21) - 20);
    let too_large = requester.sealer.seal(&vec![0; MESSAGE_SIZE_MAX + 1]);
    assert_eq!(too_large, Err(SealError::TooLarge { size: MESSAGE_SIZE_MAX + 1 }));
    // Nothing was sealed, so no number of the sequence was used.
    let frame = requester.sealer.seal(b"next").expect("it fits");
    assert_eq!(open(&mut provider, &frame).as_deref(), Ok(b"next".as_slice()));
}

/// Rule E2: two messages of one class cannot be told apart by their sizes, nor by their bytes.
#[test]
fn only_the_class_shows() {
    let (mut requester, _, _) = pair();
    let frames = [&b""[..], b"yes", &[0; 200]].map(|it| requester.sealer.seal(it).expect("fits"));
    assert!(frames.iter().all(|frame| frame.len() == frames[0].len() && frame[0] == 8));
    let again = requester.sealer.seal(b"").expect("it fits");
    assert_ne!(frames[0], again, "the same message looks different each time");
}

/// Checked before anything is allocated.
#[test]
fn a_length_class_out_of_range_is_refused() {
    for class in (0..8).chain(22..=u8::MAX) {
        assert_eq!(frame_body_len(class), Err(SealError::LengthClass { found: class }));
    }
    assert_eq!(frame_body_len(8), Ok(256));
    assert_eq!(frame_body_len(21), Ok(2 << 20));
}

#[test]
fn a_changed_frame_does_not_open() {
    let (mut requester, _, opening) = pair();
    let frame = requester.sealer.seal(b"a message").expect("it fits");
    for at in [1, 2, 100, 240, frame.len() - 1] {
        let mut provider =
            Channel::accept(&secret(), &MESH, &opening_of(&opening)).expect("it opens");
        let mut changed = frame.clone();
        changed[at] ^= 1;
        assert_eq!(open(&mut provider, &changed), Err(SealError::NotAuthentic), "byte {at}");
    }
    // The class is bound too, also where the body's length would fit it.
    let mut provider = Channel::accept(&secret(), &MESH, &opening_of(&opening)).expect("it opens");
    assert_eq!(provider.opener.open(9, &frame[1..]), Err(SealError::NotAuthentic));
    for cut in [0, 1, 15, 16, 255] {
        let mut provider =
            Channel::accept(&secret(), &MESH, &opening_of(&opening)).expect("it opens");
        assert_eq!(provider.opener.open(8, &frame[1..=cut]), Err(SealError::NotAuthentic));
    }
}

#[test]
fn a_repeated_dropped_or_reordered_frame_does_not_open() {
    let (mut requester, mut provider, opening) = pair();
    let frames = [b"one", b"two"].map(|it| requester.sealer.seal(it).expect("it fits"));
    assert!(open(&mut provider, &frames[0]).is_ok());
    assert_eq!(open(&mut provider, &frames[0]), Err(SealError::NotAuthentic), "repeated");
    let mut provider = Channel::accept(&secret(), &MESH, &opening_of(&opening)).expect("it opens");
    assert_eq!(open(&mut provider, &frames[1]), Err(SealError::NotAuthentic), "one was dropped");
    assert_eq!(open(&mut provider, &frames[0]), Err(SealError::NotAuthentic), "too late now");
}

/// The two directions have two keys.
#[test]
fn a_reflected_frame_does_not_open() {
    let (mut requester, mut provider, _) = pair();
    let frame = requester.sealer.seal(b"mirror").expect("it fits");
    assert_eq!(open(&mut requester, &frame), Err(SealError::NotAuthentic));
    let frame = provider.sealer.seal(b"mirror").expect("it fits");
    assert_eq!(open(&mut provider, &frame), Err(SealError::NotAuthentic));
}

#[test]
fn a_frame_of_another_stream_does_not_open() {
    let (_, mut provider, _) = pair();
    let (mut other, _) = Channel::connect([0x43; 32], &MESH, &secret().public()).expect("good");
    let frame = other.sealer.seal(b"a message").expect("it fits");
    assert_eq!(open(&mut provider, &frame), Err(SealError::NotAuthentic));
}

#[test]
fn an_opening_for_somewhere_else_is_refused() {
    let (mut requester, _, opening) = pair();
    let accept = |change: fn(&mut Vec<u8>)| {
        let mut opening = opening.clone();
        change(&mut opening);
        Channel::accept(&secret(), &MESH, &opening_of(&opening))
    };
    let version = accept(|it| it[0] = 2).expect_err("another version");
    assert_eq!(version, SealError::Version { found: 2 });
    let mesh = accept(|it| it[1..33].fill(9)).expect_err("another mesh");
    assert_eq!(mesh, SealError::WrongMesh { found: Hash::from_bytes([9; 32]) });
    // Another encapsulated key, or another node's secret: it opens to nothing.
    let frame = requester.sealer.seal(b"a message").expect("it fits");
    let mut wrong = accept(|it| it[40] ^= 1).expect("any point is a key");
    assert_eq!(open(&mut wrong, &frame), Err(SealError::NotAuthentic));
    let stranger = HpkeSecret::from_seed(&[0x78; 32]);
    let mut wrong = Channel::accept(&stranger, &MESH, &opening_of(&opening)).expect("a key");
    assert_eq!(open(&mut wrong, &frame), Err(SealError::NotAuthentic));
}

/// With a point of low order the shared secret would be known to everybody.
#[test]
fn a_key_of_low_order_is_refused() {
    let mut one = [0; 32];
    one[0] = 1;
    // The prime minus one, and the prime itself, which is zero written another way.
    let mut minus_one = [0xff; 32];
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    let mut prime = minus_one;
    prime[0] = 0xed;
    let (_, _, opening) = pair();
    for point in [[0; 32], one, minus_one, prime] {
        let to = Channel::connect([0x42; 32], &MESH, &HpkeKey::from_bytes(point));
        assert_eq!(to.expect_err("a provider's key"), SealError::BadKey);
        let mut opening = opening_of(&opening);
        opening[33..].copy_from_slice(&point);
        let from = Channel::accept(&secret(), &MESH, &opening);
        assert_eq!(from.expect_err("a requester's key"), SealError::BadKey);
    }
}

/// What is printed of keys and channels holds nothing secret.
#[test]
fn debug_output_shows_no_key() {
    let (requester, _, _) = pair();
    let text = format!("{:?} {requester:?}", secret());
    assert!(text.starts_with(&format!("HpkeSecret(of {})", secret().public())));
    assert!(text.contains("sealed: 0") && text.contains("opened: 0"));
    assert!(text.len() < 250, "{text}");
}
