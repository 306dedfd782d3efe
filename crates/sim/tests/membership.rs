//! Who gets in, who is believed, and who asks twice: Rules M4 and N4.

use commons_node::api::NodeApi as _;
use commons_port::net::Path;
use commons_record::mesh::{Capability, JoinRequest, PRESENCE_LEASE_MAX, Presence};
use commons_record::ticket::Ticket;
use commons_record::{Millis, OwnerId};
use commons_sim::mocks::peer::RawPeer;
use commons_sim::seeds::for_each_seed;
use commons_sim::world::NodeSpec;
use commons_sim::{Cluster, NodeId};
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use serde_bytes::ByteBuf;

const INVITER: NodeId = NodeId(0);
const MOCK: NodeId = NodeId(1);

const SEEDS: [u64; 4] = [1, 2, 3, 4];

fn specs() -> Vec<NodeSpec> {
    vec![NodeSpec::default(); 3]
}

/// One clear message each way, as hello and join speak.
async fn talk(mock: &RawPeer<'_>, protocol: &str, message: &[u8]) -> Vec<u8> {
    let mut stream = mock.open(INVITER, protocol).await.expect("the inviter is reachable");
    let length = u32::try_from(message.len()).expect("a small message").to_be_bytes();
    stream.write_all(&length).await.expect("the stream stands");
    stream.write_all(message).await.expect("the stream stands");
    stream.flush().await.expect("the stream stands");
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.expect("an answer comes");
    let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length)).expect("a small answer")];
    stream.read_exact(&mut answer).await.expect("a whole answer comes");
    answer
}

#[test]
fn an_owner_who_asks_again_gets_the_membership_that_it_has() {
    // Rule M4
    for_each_seed(&SEEDS, |seed| {
        Cluster::play(seed, specs(), async |cluster| {
            let ticket: Ticket = cluster.ticket().await.parse().expect("a ticket");
            let mock = RawPeer::take_over(cluster, MOCK);
            let standing = mock.standing();
            let owner = standing.author.certificate.as_ref().expect("a node").owner;
            let invite = ticket.invite.id();
            let message = JoinRequest::proof_message(&invite, &owner);
            let proof = ticket.key.sign(message.as_bytes());
            let mut answers = Vec::new();
            for _ in 0..2 {
                let body = JoinRequest { invite, proof };
                let request = standing.author.sign(mock.sequence(), body).encode();
                answers.push(talk(&mock, "join/1", &request).await);
            }
            assert_eq!(answers[0], answers[1]);
            let known = &standing.membership;
            let is_in = answers[0].windows(known.len()).any(|it| it == known);
            assert!(is_in, "another membership than the one that it has");
        });
    });
}

#[test]
fn a_proof_that_was_overheard_lets_nobody_else_in() {
    // Rule M3
    for_each_seed(&SEEDS, |seed| {
        Cluster::play(seed, specs(), async |cluster| {
            let ticket: Ticket = cluster.ticket().await.parse().expect("a ticket");
            let mock = RawPeer::take_over(cluster, MOCK);
            let standing = mock.standing();
            let invite = ticket.invite.id();
            let another = OwnerId::from_key(cluster.secret(INVITER).public());
            let message = JoinRequest::proof_message(&invite, &another);
            let body = JoinRequest { invite, proof: ticket.key.sign(message.as_bytes()) };
            let request = standing.author.sign(mock.sequence(), body).encode();
            let answer = talk(&mock, "join/1", &request).await;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.contains("the proof is not by the invite's key"), "{answer}");
        });
    });
}

#[test]
fn a_presence_that_nobody_vouches_for_is_not_believed() {
    // Rule N4
    for_each_seed(&SEEDS, |seed| {
        Cluster::play(seed, specs(), async |cluster| {
            let mock = RawPeer::take_over(cluster, MOCK);
            let (honest, forged) = (mock.standing(), mock.forged_standing());
            let before = cluster.node(INVITER).counters().peers;
            let capability = Capability { device: "cpu".to_owned(), threads: 1, memory_mib: 1 };
            let lure = "/ip4/10.66.66.66/tcp/666".to_owned();
            let presence = |membership: Vec<u8>| Presence {
                addrs: vec![lure.clone()],
                models: Vec::new(),
                capability: capability.clone(),
                lease_ms: PRESENCE_LEASE_MAX,
                membership: ByteBuf::from(membership),
            };
            // Signed by a key that no certificate names, and by a member without a membership.
            let records = [
                forged.author.sign(mock.sequence(), presence(forged.membership.clone())).encode(),
                honest.author.sign(mock.sequence(), presence(Vec::new())).encode(),
            ];
            let topic = format!("/commons/{}/presence/1", &mock.mesh().to_string()[..16]);
            for record in records {
                talk(&mock, "hello/1", &record).await;
                let _ = mock.ports.net.publish(topic.clone(), record).await;
            }
            cluster.sleep(Millis::from_secs(3)).await;
            let peers = cluster.node(INVITER).peers().await;
            let stranger = commons_record::PeerId::from_key(forged.author.key.public());
            assert!(peers.iter().all(|it| it.peer != stranger), "{peers:?}");
            assert!(peers.len() as u64 <= before, "{before} members before: {peers:?}");
            let reached = mock.ports.net.open(stranger, mock.protocol("hello/1"), Path::Direct);
            assert!(reached.await.is_err(), "nobody is there");
        });
    });
}
