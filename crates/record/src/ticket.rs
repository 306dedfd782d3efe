//! An invite ticket: one line of text with which a stranger becomes a member.
//!
//! It carries the mesh's genesis, the signed invite, the invite's secret key and where the
//! inviter can be reached. Whoever holds it can join, so it is shown once and never logged.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::codec;
use crate::envelope::{Expect, Unverified, Verified, VerifyError};
use crate::key::{OwnerId, ParseIdError, PeerId, PublicKey, SecretKey};
use crate::mesh::{Invite, MeshGenesis, NO_MESH, PRESENCE_ADDRS_MAX, is_label};

/// What every ticket begins with; the number is the format's version.
const PREFIX: &str = "commons1";

/// Two small records, a key and a few addresses.
const TICKET_SIZE_MAX: usize = 8 * 1024;

/// A ticket that reads well and whose records were verified.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// The mesh.
    pub genesis: Verified<MeshGenesis>,
    /// The invite.
    pub invite: Verified<Invite>,
    /// The invite's secret key.
    pub key: SecretKey,
    /// The node that answers join requests.
    pub inviter: PeerId,
    /// Where it can be reached, as multiaddresses.
    pub addrs: Vec<String>,
}

/// Why a text is no usable ticket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum TicketError {
    #[error("the ticket is not readable; copy the whole line that `commons invite` printed")]
    Text(#[from] ParseIdError),

    #[error("the ticket's content is not readable")]
    Content(#[from] codec::DecodeError),

    #[error("a record in the ticket is not valid")]
    Record(#[from] VerifyError),

    #[error("the invite was signed by {owner}, who is no authority of the mesh")]
    NoAuthority { owner: OwnerId },

    #[error("the ticket's key is not the one that was invited")]
    WrongKey,

    #[error("the ticket names no usable address of the inviter")]
    NoAddress,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Content {
    #[zeroize(skip)]
    genesis: ByteBuf,
    #[zeroize(skip)]
    invite: ByteBuf,
    key: SecretSeed,
    #[zeroize(skip)]
    inviter: PeerId,
    #[zeroize(skip)]
    addrs: Vec<String>,
}

/// The secret seed inside a ticket, wiped after use.
#[derive(Serialize, Deserialize, Zeroize)]
#[serde(transparent)]
struct SecretSeed(#[serde(with = "serde_bytes")] Vec<u8>);

impl Ticket {
    fn from_content(content: &Content) -> Result<Self, TicketError> {
        let genesis =
            Unverified::<MeshGenesis>::decode(&content.genesis)?.verify(&Expect::mesh(NO_MESH))?;
        let expect = Expect::mesh(genesis.id());
        let invite = Unverified::<Invite>::decode(&content.invite)?.verify(&expect)?;
        if !genesis.body().authorities.contains(&invite.owner()) {
            return Err(TicketError::NoAuthority { owner: invite.owner() });
        }
        let seed = content.key.0.as_slice().try_into().map_err(|_| TicketError::WrongKey)?;
        let key = SecretKey::from_seed(seed);
        if key.public() != invite.body().key {
            return Err(TicketError::WrongKey);
        }
        let addrs = &content.addrs;
        if addrs.is_empty()
            || addrs.len() > PRESENCE_ADDRS_MAX
            || !addrs.iter().all(|it| is_label(it))
        {
            return Err(TicketError::NoAddress);
        }
        Ok(Self { genesis, invite, key, inviter: content.inviter, addrs: addrs.clone() })
    }

    /// The key that the invite was made for.
    pub fn invited(&self) -> PublicKey {
        self.invite.body().key
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = Content {
            genesis: ByteBuf::from(self.genesis.encode()),
            invite: ByteBuf::from(self.invite.encode()),
            key: SecretSeed(self.key.to_seed().to_vec()),
            inviter: self.inviter,
            addrs: self.addrs.clone(),
        };
        write!(f, "{PREFIX}{}", bs58::encode(codec::encode(&content)).into_string())
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The text is a secret: an error must not quote it.
        let unreadable = || ParseIdError::new("(the text)", "a ticket: `commons1...`");
        let encoded = text.trim().strip_prefix(PREFIX).ok_or_else(unreadable)?;
        // Base58 grows by 1.37; decoding is quadratic, so the bound comes first.
        if encoded.len() > TICKET_SIZE_MAX * 3 / 2 {
            return Err(unreadable().into());
        }
        let bytes = bs58::decode(encoded).into_vec().map_err(|_| unreadable())?;
        let content: Content = codec::decode("ticket", &bytes, TICKET_SIZE_MAX)?;
        Self::from_content(&content)
    }
}
