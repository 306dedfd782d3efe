//! What a node brings to every exchange: its keys, its mesh and the rules in force.

use commons_record::envelope::{Author, Expect, Unverified, Verified, VerifyError};
use commons_record::mesh::{Membership, MeshGenesis, Policy};
use commons_record::{Epoch, Hash, OwnerId, PeerId};

/// A node's standing in its mesh.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The mesh.
    pub genesis: Verified<MeshGenesis>,
    /// The policy in force.
    pub policy: Verified<Policy>,
    /// The node's key and certificate.
    pub author: Author,
    /// The encoded membership of the node's owner.
    pub membership: Vec<u8>,
}

/// Why a membership does not count.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum MembershipError {
    #[error("the membership is not valid")]
    Record(#[from] VerifyError),

    #[error("the membership is signed by {owner}, who is no authority of the mesh")]
    NoAuthority { owner: OwnerId },

    #[error("the membership is {found}'s, not {expected}'s")]
    OtherOwner { expected: OwnerId, found: OwnerId },

    #[error("the membership ended with epoch {last}")]
    Ended { last: Epoch },
}

impl Standing {
    /// The mesh id.
    pub fn mesh(&self) -> Hash {
        self.genesis.id()
    }

    /// This node.
    pub fn peer(&self) -> PeerId {
        PeerId::from_key(self.author.key.public())
    }

    /// The same standing in another epoch.
    #[must_use]
    pub fn at(&self, epoch: Epoch) -> Self {
        let mut now = self.clone();
        now.author.epoch = epoch;
        now
    }

    /// Rule M2: an owner is a member by a membership that an authority signed for it and that
    /// has not ended.
    pub fn check_membership(&self, bytes: &[u8], owner: OwnerId) -> Result<(), MembershipError> {
        let membership =
            Unverified::<Membership>::decode(bytes)?.verify(&Expect::mesh(self.mesh()))?;
        let signer = membership.owner();
        if !self.genesis.body().authorities.contains(&signer) {
            return Err(MembershipError::NoAuthority { owner: signer });
        }
        let body = membership.body();
        if body.owner != owner {
            return Err(MembershipError::OtherOwner { expected: owner, found: body.owner });
        }
        if self.author.epoch > body.last_epoch {
            return Err(MembershipError::Ended { last: body.last_epoch });
        }
        Ok(())
    }
}

/// Sequence numbers that were reserved for one exchange. The node reserves durably and in
/// blocks, so that a crash leaves gaps and never repeats a number (Rule R8).
#[derive(Debug)]
pub struct SequenceRange {
    next: u64,
    end: u64,
}

impl SequenceRange {
    /// Numbers from `start` up to but without `end`.
    pub fn new(start: u64, end: u64) -> Self {
        Self { next: start, end }
    }

    /// The next number; none when the reservation is used up.
    pub fn take(&mut self) -> Option<u64> {
        let sequence = self.next;
        (sequence < self.end).then(|| {
            self.next += 1;
            sequence
        })
    }
}
