//! Fuzz targets: no bytes crash the readers of messages, and what is one has one encoding.

use commons_swarm::wire::{MESSAGE_LEN_MAX, Message, RAW_LEN_MAX, ToFetcher, ToSeeder};

fn check<M: Message>(bytes: &[u8]) -> Option<M> {
    let message = M::from_bytes(bytes).ok()?;
    assert_eq!(message.to_bytes(), bytes);
    assert!(bytes.len() <= MESSAGE_LEN_MAX);
    Some(message)
}

#[test]
fn to_seeder() {
    bolero::check!().for_each(|bytes: &[u8]| {
        check::<ToSeeder>(bytes);
    });
}

#[test]
fn to_fetcher() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Some(message) = check::<ToFetcher>(bytes) {
            assert!(message.raw_len() <= RAW_LEN_MAX);
        }
    });
}

/// Good messages with one byte changed, so that the checks behind the decoder are reached.
#[test]
fn changed_messages() {
    use commons_record::Hash;
    use commons_swarm::wire::AskId;
    let blob = Hash::from_bytes([1; 32]);
    let good = [
        ToFetcher::Have { blob, pieces: vec![1, 2, 700] }.to_bytes(),
        ToFetcher::Data { ask: AskId(1), len: 4 }.to_bytes(),
        ToFetcher::Held { blob, stretch: 1, bits: serde_bytes::ByteBuf::from([1, 2]) }.to_bytes(),
    ];
    bolero::check!().with_type::<(u8, u16, u8)>().for_each(|&(which, at, byte)| {
        let mut bytes = good[usize::from(which) % good.len()].clone();
        let at = usize::from(at) % bytes.len();
        bytes[at] = byte;
        check::<ToFetcher>(&bytes);
    });
}
