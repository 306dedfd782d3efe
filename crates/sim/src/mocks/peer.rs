//! A member's keys and place in the mesh, with nobody behind them who keeps the rules.

use std::sync::Mutex;

use commons_exchange::Standing;
use commons_exchange::message::Message;
use commons_exchange::sealed::{Channel, HpkeSecret, OPENING_LEN, frame_body_len};
use commons_node::Ports;
use commons_port::journal::Table;
use commons_port::net::{BoxDuplex, Incoming, Path, Protocol};
use commons_port::time::draw;
use commons_record::envelope::{Author, Certified, Expect, Record, Unverified, Verified};
use commons_record::mesh::{MeshGenesis, NodeCertificate, Policy};
use commons_record::{Hash, Millis, PeerId, SecretKey};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};

use crate::cluster::Cluster;
use crate::life::NodeId;
use crate::lock;
use crate::net::Crash;

/// What a mock could not do, in words.
pub type Trouble = String;

/// A member whose machine a mock has taken over.
#[derive(Debug)]
pub struct RawPeer<'a> {
    /// The world that it is in.
    pub cluster: &'a Cluster,
    /// Whose machine it is.
    pub node: NodeId,
    /// The ports of the present run.
    pub ports: Ports,
    sequence: Mutex<u64>,
}

impl<'a> RawPeer<'a> {
    /// Kills a node and takes its place.
    pub fn take_over(cluster: &'a Cluster, node: NodeId) -> Self {
        cluster.kill(node, Crash::Killed);
        cluster.set_mock(node);
        let ports = cluster.boot(node);
        for other in cluster.nodes().into_iter().filter(|it| *it != node) {
            cluster.net().introduce(node, other);
        }
        // Far beyond what the node that was here has used.
        Self { cluster, node, ports, sequence: Mutex::new(1 << 40) }
    }

    /// The peer's name.
    pub fn peer(&self) -> PeerId {
        self.cluster.peer(self.node)
    }

    fn stored<T: Record>(&self, key: &[u8], expect: &Expect) -> Verified<T> {
        let table = self.cluster.disk(self.node).table(Table::State);
        let row = table.iter().find(|(found, _)| found == key);
        let bytes = row.map(|(_, value)| value.as_slice()).unwrap_or_default();
        let record = Unverified::decode(bytes).and_then(|it| it.verify(expect));
        record.unwrap_or_else(|error| panic!("{} was no member: {error}", self.node))
    }

    /// Its place in the mesh at this moment.
    pub fn standing(&self) -> Standing {
        let genesis: Verified<MeshGenesis> = self.stored(b"genesis", &Expect::default());
        let expect = Expect::mesh(genesis.id());
        let policy: Verified<Policy> = self.stored(b"policy", &expect);
        let certificate: Verified<NodeCertificate> = self.stored(b"certificate", &expect);
        let membership: Verified<commons_record::mesh::Membership> =
            self.stored(b"membership", &expect);
        let author = Author {
            key: self.cluster.secret(self.node),
            mesh: genesis.id(),
            epoch: genesis.body().epoch_at(self.ports.clock.unix()),
            certificate: Some(Certified::from_verified(&certificate)),
        };
        Standing { genesis, policy, author, membership: membership.encode() }
    }

    /// The same place, with a foreign key behind the signatures.
    pub fn forged_standing(&self) -> Standing {
        let mut standing = self.standing();
        standing.author.key = SecretKey::from_seed(&[0x66; 32]);
        standing
    }

    /// The mesh.
    pub fn mesh(&self) -> Hash {
        self.standing().mesh()
    }

    /// A protocol of the mesh: `infer/1`.
    pub fn protocol(&self, name: &str) -> Vec<Protocol> {
        let id = format!("/commons/{}/{name}", &self.mesh().to_string()[..16]);
        Protocol::new(id).into_iter().collect()
    }

    /// Sequence numbers that nobody has used.
    pub fn sequences(&self, count: u64) -> commons_exchange::SequenceRange {
        let mut next = lock(&self.sequence);
        let start = *next;
        *next += count;
        commons_exchange::SequenceRange::new(start, *next)
    }

    /// One sequence number.
    pub fn sequence(&self) -> u64 {
        self.sequences(1).take().unwrap_or_default()
    }

    /// Lets time pass.
    pub async fn sleep(&self, duration: Millis) {
        self.cluster.sleep(duration).await;
    }

    /// Opens a bare stream.
    pub async fn open(&self, to: NodeId, protocol: &str) -> Result<BoxDuplex, Trouble> {
        let peer = self.cluster.peer(to);
        let opened = self.ports.net.open(peer, self.protocol(protocol), Path::Direct).await;
        opened.map(|opened| opened.stream).map_err(|error| error.to_string())
    }

    /// Opens a sealed stream.
    pub async fn connect(&self, to: NodeId, protocol: &str) -> Result<RawLink, Trouble> {
        let mut stream = self.open(to, protocol).await?;
        let key = HpkeSecret::from_seed(&self.cluster.config(to).hpke_seed).public();
        let entropy = draw(&*self.ports.entropy);
        let (channel, opening) =
            Channel::connect(entropy, &self.mesh(), &key).map_err(|error| error.to_string())?;
        stream.write_all(&opening).await.map_err(|error| error.to_string())?;
        Ok(RawLink { stream, channel })
    }

    /// Streams of a protocol that peers open.
    pub fn accept(&self, protocol: &str) -> commons_port::BoxStream<'static, Incoming> {
        self.ports.net.accept(self.protocol(protocol))
    }

    /// The next sealed stream.
    pub async fn answer(
        &self,
        incoming: &mut commons_port::BoxStream<'static, Incoming>,
    ) -> Result<RawLink, Trouble> {
        let mut stream = incoming.next().await.ok_or("the network is gone")?.stream;
        let mut opening = [0; OPENING_LEN];
        stream.read_exact(&mut opening).await.map_err(|error| error.to_string())?;
        let secret = HpkeSecret::from_seed(&self.cluster.config(self.node).hpke_seed);
        let channel = Channel::accept(&secret, &self.mesh(), &opening);
        Ok(RawLink { stream, channel: channel.map_err(|error| error.to_string())? })
    }
}

/// A sealed stream without a queue, a bound or a clock.
pub struct RawLink {
    /// The stream below.
    pub stream: BoxDuplex,
    channel: Channel,
}

impl std::fmt::Debug for RawLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RawLink")
    }
}

impl RawLink {
    /// Sends a message.
    pub async fn send(&mut self, message: &impl Message) -> Result<(), Trouble> {
        self.send_sealed(&message.to_bytes()).await
    }

    /// Seals and sends bytes that need not be a message.
    pub async fn send_sealed(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        let frame = self.channel.sealer.seal(bytes).map_err(|error| error.to_string())?;
        self.write(&frame).await
    }

    /// Writes bytes as they are.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.stream.write_all(bytes).await.map_err(|error| error.to_string())
    }

    /// The next message; an error when the stream ends or another thing comes.
    pub async fn receive<M: Message>(&mut self) -> Result<M, Trouble> {
        let broken = |error: std::io::Error| error.to_string();
        let mut class = [0];
        self.stream.read_exact(&mut class).await.map_err(broken)?;
        let size = frame_body_len(class[0]).map_err(|error| error.to_string())?;
        let mut body = vec![0; size];
        self.stream.read_exact(&mut body).await.map_err(broken)?;
        let bytes = self.channel.opener.open(class[0], &body).map_err(|error| error.to_string())?;
        M::from_bytes(&bytes).map_err(|error| error.to_string())
    }

    /// Everything that still comes, until the stream ends.
    pub async fn rest<M: Message>(&mut self) -> Vec<M> {
        let mut messages = Vec::new();
        while let Ok(message) = self.receive().await {
            messages.push(message);
        }
        messages
    }
}
