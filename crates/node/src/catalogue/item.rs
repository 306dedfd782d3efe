//! A record of the catalogue as it travels: with the membership by which its author counts.

use commons_exchange::Standing;
use commons_exchange::standing::MembershipError;
use commons_record::catalogue::{Denylist, NameBinding, Release, Revocation};
use commons_record::codec::{self, DecodeError};
use commons_record::envelope::{Envelope, Expect, Record, Unverified, Verified, VerifyError};
use commons_record::{Epoch, Hash, OwnerId};
use commons_swarm::catalogue::{Admission, Catalogue};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// A body of 56 KiB, its envelope, a certificate and a membership fit into one gossip message.
pub(crate) const ITEM_SIZE_MAX: usize = commons_port::net::GOSSIP_SIZE_MAX;

/// A record on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Item {
    /// The encoded membership of the record's owner. An authority needs none.
    pub(crate) membership: Option<ByteBuf>,
    /// The encoded record.
    pub(crate) record: ByteBuf,
}

/// A record of the catalogue whose author counts.
#[derive(Debug, Clone)]
pub(crate) enum Checked {
    Binding(Verified<NameBinding>),
    Release(Verified<Release>),
    Denylist(Verified<Denylist>),
    Revocation(Verified<Revocation>),
}

/// Why what was sent is not looked at any further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unwanted {
    #[error(transparent)]
    Decode(#[from] DecodeError),

    #[error(transparent)]
    Record(#[from] VerifyError),

    #[error("records of type {kind:?} do not belong into a catalogue of this version")]
    OtherKind { kind: String },

    #[error("the record is of epoch {found}, and it is epoch {now} here")]
    Future { found: Epoch, now: Epoch },

    #[error("{owner} sent no membership, and is no authority of the mesh")]
    NoMembership { owner: OwnerId },

    #[error("{owner} is no member of the mesh")]
    NoMember { owner: OwnerId, source: MembershipError },

    #[error("{owner} is no authority of the mesh, and only an authority binds names")]
    NoAuthority { owner: OwnerId },
}

impl Unwanted {
    /// Whether a newer version of the program, or another clock, may see it otherwise: then the one
    /// who sent it is not to blame.
    pub(crate) const fn is_blameless(&self) -> bool {
        matches!(self, Self::OtherKind { .. } | Self::Future { .. })
    }
}

impl Item {
    pub(crate) fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode("catalogue item", bytes, ITEM_SIZE_MAX)
    }

    /// Checks a record that is kept already: whenever it was signed.
    pub(crate) fn check(&self, standing: &Standing) -> Result<Checked, Unwanted> {
        let envelope = Envelope::decode(&self.record)?;
        let checked = match envelope.kind.as_str() {
            Release::TYPE => Checked::Release(verified(standing, envelope)?),
            NameBinding::TYPE => Checked::Binding(verified(standing, envelope)?),
            Revocation::TYPE => Checked::Revocation(verified(standing, envelope)?),
            Denylist::TYPE => Checked::Denylist(verified(standing, envelope)?),
            other => return Err(Unwanted::OtherKind { kind: other.chars().take(80).collect() }),
        };
        self.check_author(standing, &checked)?;
        Ok(checked)
    }

    /// Checks a record that arrives: it cannot be of an epoch that has not come.
    pub(crate) fn check_now(&self, standing: &Standing) -> Result<Checked, Unwanted> {
        let checked = self.check(standing)?;
        let (found, now) = (checked.epoch(), standing.author.epoch);
        if found > now && !found.is_current(now) {
            return Err(Unwanted::Future { found, now });
        }
        Ok(checked)
    }

    /// Rule C5: an authority, or a member in the epoch in which it signed.
    fn check_author(&self, standing: &Standing, checked: &Checked) -> Result<(), Unwanted> {
        let owner = checked.owner();
        if standing.genesis.body().authorities.contains(&owner) {
            return Ok(());
        }
        if matches!(checked, Checked::Binding(_)) {
            return Err(Unwanted::NoAuthority { owner });
        }
        let Some(membership) = &self.membership else {
            return Err(Unwanted::NoMembership { owner });
        };
        let then = standing.at(checked.epoch());
        let is_member = then.check_membership(membership, owner);
        is_member.map_err(|source| Unwanted::NoMember { owner, source })
    }
}

fn verified<T: Record>(standing: &Standing, envelope: Envelope) -> Result<Verified<T>, Unwanted> {
    let record = Unverified::<T>::from_envelope(envelope)?;
    Ok(record.verify(&Expect::mesh(standing.mesh()))?)
}

/// Calls one method of whichever record it is.
macro_rules! of_each {
    ($checked:expr, $record:ident => $value:expr) => {
        match $checked {
            Checked::Binding($record) => $value,
            Checked::Release($record) => $value,
            Checked::Denylist($record) => $value,
            Checked::Revocation($record) => $value,
        }
    };
}

impl Checked {
    pub(crate) fn id(&self) -> Hash {
        of_each!(self, it => it.id())
    }

    pub(crate) fn owner(&self) -> OwnerId {
        of_each!(self, it => it.owner())
    }

    pub(crate) fn epoch(&self) -> Epoch {
        of_each!(self, it => it.epoch())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        of_each!(self, it => it.encode())
    }

    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Binding(_) => NameBinding::TYPE,
            Self::Release(_) => Release::TYPE,
            Self::Denylist(_) => Denylist::TYPE,
            Self::Revocation(_) => Revocation::TYPE,
        }
    }

    /// In which order records that were kept together are taken up.
    pub(crate) const fn rank(&self) -> u8 {
        match self {
            Self::Binding(_) => 0,
            Self::Release(_) => 1,
            Self::Denylist(_) => 2,
            Self::Revocation(_) => 3,
        }
    }

    pub(crate) fn admit(&self, catalogue: &mut Catalogue) -> Admission {
        match self {
            Self::Binding(record) => catalogue.admit_binding(record),
            Self::Release(record) => catalogue.admit_release(record),
            Self::Denylist(record) => catalogue.admit_denylist(record),
            Self::Revocation(record) => catalogue.admit_revocation(record),
        }
    }
}
