//! A peer's key in our type and in libp2p's, both ways.
//!
//! libp2p's id of an Ed25519 key is the key itself, in an identity multihash. Other kinds of
//! key exist there; nobody in a mesh has one, so they convert to nothing and are refused.

use commons_record::{PeerId, SecretKey};
use libp2p::identity;

/// The key pair that transports prove who we are with.
///
/// `None` cannot happen for a key that signs: libp2p refuses only a wrong length.
pub(crate) fn keypair(key: &SecretKey) -> Option<identity::Keypair> {
    let mut seed = key.to_seed(); // Wiped by libp2p, and again when it is dropped.
    identity::Keypair::ed25519_from_bytes(seed.as_mut_slice()).ok()
}

/// libp2p's id of a peer; `None` if the bytes are no point on the curve.
pub(crate) fn to_libp2p(peer: PeerId) -> Option<libp2p::PeerId> {
    let key = identity::ed25519::PublicKey::try_from_bytes(peer.as_bytes()).ok()?;
    Some(identity::PublicKey::from(key).to_peer_id())
}

/// Our id of a peer; `None` unless it is an Ed25519 key in its one canonical form.
pub(crate) fn from_libp2p(peer: &libp2p::PeerId) -> Option<PeerId> {
    let hash = peer.as_ref();
    if hash.code() != IDENTITY_HASH {
        return None;
    }
    let key = identity::PublicKey::try_decode_protobuf(hash.digest()).ok()?;
    if key.to_peer_id() != *peer {
        return None;
    }
    Some(PeerId::from_bytes(key.try_into_ed25519().ok()?.to_bytes()))
}

/// The multihash code of a digest that is its own input.
const IDENTITY_HASH: u64 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_id_survives_the_way_there_and_back() {
        for seed in 0..32 {
            let key = SecretKey::from_seed(&[seed; 32]);
            let peer = PeerId::from_key(key.public());
            let theirs = to_libp2p(peer).unwrap();
            assert_eq!(keypair(&key).unwrap().public().to_peer_id(), theirs);
            assert_eq!(from_libp2p(&theirs), Some(peer));
        }
    }

    #[test]
    fn an_id_that_is_no_ed25519_key_is_nobody() {
        let hashed = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"; // SHA-256 of an RSA key.
        assert_eq!(from_libp2p(&hashed.parse().unwrap()), None);
        let secp256k1 = "16Uiu2HAmPLe7Mzm8TsYUubgCAW1aJoeFScxrLj8ppHFivPo97bUZ";
        assert_eq!(from_libp2p(&secp256k1.parse().unwrap()), None);
    }
}
