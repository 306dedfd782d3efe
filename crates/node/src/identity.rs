//! Who this node is: its keys, its mesh, and what the mesh says of it.
//!
//! A fresh data folder founds a private mesh of one, so that everything works alone. Joining
//! replaces that mesh, unless others have joined it (Rule M6).

use std::sync::Arc;

use commons_exchange::Standing;
use commons_exchange::entry::record_change;
use commons_exchange::sealed::HpkeSecret;
use commons_port::journal::{Change, Journal, Table};
use commons_port::net::Protocol;
use commons_port::time::{Clock, Entropy, draw};
use commons_record::envelope::{Author, Certified, Expect, Record, Unverified, Verified};
use commons_record::mesh::{
    Membership, MeshGenesis, NO_MESH, NodeCertificate, Policy, Prices, ProtocolTerm,
};
use commons_record::{Credits, Epoch, Hash, Millis, OwnerId, SecretKey};

use crate::ledger::LedgerError;
use crate::start::NodeConfig;

/// Six hours: clocks that are an hour apart disagree by at most one step (Rule R7).
const EPOCH: Millis = Millis::from_secs(6 * 3_600);

/// A voucher after every 32 tokens: one leaf of the transcript.
const VOUCHER_STEP: u32 = 32;

/// Certificates and memberships hold for about a year of six-hour epochs.
const TERM_EPOCHS: u64 = 4 * 365;

/// The prices of a fresh mesh. Reading a token costs less work than writing one.
const PRICES: Prices = Prices {
    prompt: Credits::from_micro(1),
    cached: Credits::ZERO,
    completion: Credits::from_micro(2),
};

/// The protocols of this version.
pub(crate) const PROTOCOLS: [&str; 6] =
    ["catalogue/1", "hello/1", "infer/1", "join/1", "load/1", "settle/1"];

/// Where a ledger's sequence numbers begin: those below are the founding records' own, which are
/// signed before there is a ledger.
pub(crate) const FIRST_SEQUENCE: u64 = 16;

/// Keys that a node holds.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) owner: SecretKey,
    pub(crate) node: SecretKey,
    pub(crate) hpke: HpkeSecret,
}

impl Keys {
    pub(crate) fn of(config: &NodeConfig) -> Self {
        Self {
            owner: config.owner.clone(),
            node: config.node.clone(),
            hpke: HpkeSecret::from_seed(&config.hpke_seed),
        }
    }

    pub(crate) fn owner_id(&self) -> OwnerId {
        OwnerId::from_key(self.owner.public())
    }
}

/// The node's place in one mesh. Its epoch is of the moment when it was asked for.
#[derive(Clone)]
pub(crate) struct Place {
    standing: Standing,
}

const GENESIS_KEY: &[u8] = b"genesis";
const POLICY_KEY: &[u8] = b"policy";
const MEMBERSHIP_KEY: &[u8] = b"membership";
const CERTIFICATE_KEY: &[u8] = b"certificate";

impl Place {
    /// The standing at a moment of the calendar.
    pub(crate) fn at(&self, unix: Millis) -> Standing {
        self.standing.at(self.standing.genesis.body().epoch_at(unix))
    }

    pub(crate) fn mesh(&self) -> Hash {
        self.standing.mesh()
    }

    pub(crate) fn genesis(&self) -> &Verified<MeshGenesis> {
        &self.standing.genesis
    }

    /// Whether `owner` may sign memberships, policies and invites.
    pub(crate) fn is_authority(&self, owner: &OwnerId) -> bool {
        self.standing.genesis.body().authorities.contains(owner)
    }

    /// A protocol of this mesh. `name` is one of [`PROTOCOLS`].
    pub(crate) fn protocol(&self, name: &str) -> Vec<Protocol> {
        // A list, best first: a second version of a protocol stands before the first.
        Protocol::new(format!("/commons/{}/{name}", self.scope())).into_iter().collect()
    }

    /// The topic of presence records.
    pub(crate) fn presence_topic(&self) -> String {
        format!("/commons/{}/presence/1", self.scope())
    }

    /// The topic of what is published.
    pub(crate) fn catalogue_topic(&self) -> String {
        format!("/commons/{}/catalogue/1", self.scope())
    }

    /// Enough of the mesh id that two meshes do not meet by accident.
    fn scope(&self) -> String {
        self.mesh().to_string()[..16].to_owned()
    }

    /// Reads the stored place, or none if this data folder has none yet.
    pub(crate) async fn load(
        journal: &Arc<dyn Journal>,
        keys: &Keys,
    ) -> Result<Option<Self>, LedgerError> {
        let Some(genesis) = state(journal, GENESIS_KEY, &Expect::mesh(NO_MESH)).await? else {
            return Ok(None);
        };
        let genesis: Verified<MeshGenesis> = genesis;
        let expect = Expect::mesh(genesis.id());
        let missing = |what| LedgerError::Damaged { what, detail: "it is missing".to_owned() };
        let policy: Option<Verified<Policy>> = state(journal, POLICY_KEY, &expect).await?;
        let membership: Option<Verified<Membership>> =
            state(journal, MEMBERSHIP_KEY, &expect).await?;
        let certificate: Option<Verified<NodeCertificate>> =
            state(journal, CERTIFICATE_KEY, &expect).await?;
        let certificate = certificate.ok_or_else(|| missing("certificate"))?;
        if certificate.body().node.as_bytes() != keys.node.public().as_bytes() {
            let detail = "it is for another node key than the one in the data folder".to_owned();
            return Err(LedgerError::Damaged { what: "certificate", detail });
        }
        Ok(Some(Self {
            standing: Standing {
                policy: policy.ok_or_else(|| missing("policy"))?,
                membership: membership.ok_or_else(|| missing("membership"))?.encode(),
                author: author(keys, genesis.id(), Some(&certificate)),
                genesis,
            },
        }))
    }

    /// Founds a private mesh of one. The changes are to be committed before the place is used.
    /// The records take the sequence numbers below [`FIRST_SEQUENCE`].
    pub(crate) fn found(
        name: &str,
        keys: &Keys,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> (Self, Vec<Change>) {
        // The first record of a mesh cannot name it: its own id does.
        let nameless = author(keys, NO_MESH, None).owner(keys);
        let genesis = nameless.sign(
            0,
            MeshGenesis {
                name: name.to_owned(),
                authorities: vec![keys.owner_id()],
                start_unix_ms: clock.unix(),
                epoch_ms: EPOCH,
                nonce: Hash::from_bytes(draw(entropy)),
            },
        );
        let owner = author(keys, genesis.id(), None).owner(keys);
        let policy = owner.sign(
            1,
            Policy {
                version: 1,
                prices: PRICES,
                voucher_step: VOUCHER_STEP,
                protocols: PROTOCOLS
                    .iter()
                    .map(|id| ProtocolTerm { id: (*id).to_owned(), ends: None })
                    .collect(),
            },
        );
        let membership = admit(&owner, 2, keys.owner_id(), None);
        Self::enter(keys, genesis, policy, &membership, 3)
    }

    /// Takes up a place that an authority gave, under a fresh certificate. `sequence` is the
    /// certificate's own.
    pub(crate) fn enter(
        keys: &Keys,
        genesis: Verified<MeshGenesis>,
        policy: Verified<Policy>,
        membership: &Verified<Membership>,
        sequence: u64,
    ) -> (Self, Vec<Change>) {
        let certificate = certify(keys, genesis.id(), membership.epoch(), sequence);
        let changes = vec![
            Change::put(Table::State, GENESIS_KEY, genesis.encode()),
            // Under its own name too: evidence of this mesh needs it after a move to another.
            record_change(&genesis),
            Change::put(Table::State, POLICY_KEY, policy.encode()),
            Change::put(Table::State, MEMBERSHIP_KEY, membership.encode()),
            Change::put(Table::State, CERTIFICATE_KEY, certificate.encode()),
        ];
        let standing = Standing {
            author: author(keys, genesis.id(), Some(&certificate)),
            membership: membership.encode(),
            genesis,
            policy,
        };
        (Self { standing }, changes)
    }
}

/// An owner's certificate for its node in a mesh, from `epoch` on.
pub(crate) fn certify(
    keys: &Keys,
    mesh: Hash,
    epoch: Epoch,
    sequence: u64,
) -> Verified<NodeCertificate> {
    let mut owner = author(keys, mesh, None).owner(keys);
    owner.epoch = epoch;
    owner.sign(
        sequence,
        NodeCertificate {
            node: commons_record::PeerId::from_key(keys.node.public()),
            hpke: keys.hpke.public(),
            serial: 1,
            last_epoch: Epoch(epoch.0.saturating_add(TERM_EPOCHS)),
        },
    )
}

/// An authority admits an owner.
pub(crate) fn admit(
    authority: &Author,
    sequence: u64,
    owner: OwnerId,
    invite: Option<Hash>,
) -> Verified<Membership> {
    let last_epoch = Epoch(authority.epoch.0.saturating_add(TERM_EPOCHS));
    authority.sign(sequence, Membership { owner, invite, last_epoch })
}

/// The node as an author, under its certificate.
pub(crate) fn author(
    keys: &Keys,
    mesh: Hash,
    certificate: Option<&Verified<NodeCertificate>>,
) -> Author {
    Author {
        key: keys.node.clone(),
        mesh,
        epoch: Epoch(0),
        certificate: certificate.map(Certified::from_verified),
    }
}

/// The same author, speaking as the owner.
pub(crate) trait AsOwner {
    fn owner(self, keys: &Keys) -> Author;
}

impl AsOwner for Author {
    fn owner(self, keys: &Keys) -> Author {
        Author { key: keys.owner.clone(), certificate: None, ..self }
    }
}

async fn state<T: Record>(
    journal: &Arc<dyn Journal>,
    key: &[u8],
    expect: &Expect,
) -> Result<Option<Verified<T>>, LedgerError> {
    let Some(bytes) = journal.get(Table::State, key.to_vec()).await? else { return Ok(None) };
    Unverified::<T>::decode(&bytes)
        .and_then(|record| record.verify(expect))
        .map(Some)
        .map_err(|error| LedgerError::Damaged { what: T::TYPE, detail: error.to_string() })
}
