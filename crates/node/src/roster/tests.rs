//! What a roster remembers, for how long, and of whom.

use commons_record::envelope::{Author, Certified};
use commons_record::mesh::{Capability, NodeCertificate, PRESENCE_LEASE_MAX};
use commons_record::{Epoch, SecretKey};
use serde_bytes::ByteBuf;

use super::*;

fn presence(node: u8, sequence: u64) -> Verified<Presence> {
    let mesh = Hash::from_bytes([1; 32]);
    let owner = Author {
        key: SecretKey::from_seed(&[100 + node; 32]),
        mesh,
        epoch: Epoch(0),
        certificate: None,
    };
    let key = SecretKey::from_seed(&[node; 32]);
    let certificate = owner.sign(
        0,
        NodeCertificate {
            node: PeerId::from_key(key.public()),
            hpke: HpkeKey::from_bytes([7; 32]),
            serial: 1,
            last_epoch: Epoch(9),
        },
    );
    let certificate = Some(Certified::from_verified(&certificate));
    let author = Author { key, mesh, epoch: Epoch(0), certificate };
    let capability = Capability { device: "cpu".to_owned(), threads: 1, memory_mib: 1 };
    author.sign(
        sequence,
        Presence {
            addrs: Vec::new(),
            models: Vec::new(),
            capability,
            lease_ms: PRESENCE_LEASE_MAX,
            membership: ByteBuf::new(),
        },
    )
}

#[test]
fn a_presence_holds_for_its_lease_from_arrival() {
    // Rule R7
    let (mut roster, record) = (Roster::default(), presence(1, 1));
    let arrival = Millis(5_000);
    assert!(roster.learn(arrival, Millis(0), &record));
    let last = Millis(arrival.0 + PRESENCE_LEASE_MAX.0 - 1);
    assert!(roster.member(last, &record.node()).is_some());
    assert!(roster.member(Millis(last.0 + 1), &record.node()).is_none());
}

#[test]
fn an_older_presence_does_not_replace_a_newer_one() {
    let mut roster = Roster::default();
    assert!(roster.learn(Millis(0), Millis(0), &presence(1, 5)));
    for sequence in [5, 4] {
        assert!(!roster.learn(Millis(1), Millis(0), &presence(1, sequence)), "{sequence}");
    }
    assert!(roster.learn(Millis(1), Millis(0), &presence(1, 6)));
}

#[test]
fn speed_is_what_was_measured_and_a_failure_cools_down() {
    // Rule N6
    let (mut roster, record) = (Roster::default(), presence(1, 1));
    let (peer, model) = (record.node(), Hash::from_bytes([2; 32]));
    assert!(roster.learn(Millis(0), Millis(0), &record));
    assert_eq!(roster.speed(&peer, &model), None, "nothing is believed from a presence");
    roster.learn_speed(peer, model, |it| it.after_success(Millis(80), 40_000_000));
    let speed = roster.speed(&peer, &model).expect("it was measured");
    assert_eq!((speed.first_token, speed.micro_tokens_per_s), (Millis(80), 40_000_000));
    let policy = commons_route::Policy::DEFAULT;
    roster.learn_speed(peer, model, |it| it.after_failure(&policy, Millis(1_000)));
    let speed = roster.speed(&peer, &model).expect("it was measured");
    assert!(speed.cooldown_until.is_some_and(|until| until > Millis(1_000)));
}

#[test]
fn only_private_addresses_are_near() {
    let check = |addr: &str, expected: bool| assert_eq!(is_near(addr), expected, "{addr}");
    check("/ip4/127.0.0.1/tcp/1", true);
    check("/ip4/10.1.2.3/udp/1/quic-v1", true);
    check("/ip4/172.20.0.1/tcp/1", true);
    check("/ip4/192.168.1.9/tcp/1", true);
    check("/ip6/::1/tcp/1", true);
    check("/ip6/fe80::1/tcp/1", true);
    check("/ip4/8.8.8.8/tcp/1", false);
    check("/ip4/172.32.0.1/tcp/1", false);
    check("/ip6/2001:db8::1/tcp/1", false);
    check("/dns4/localhost/tcp/1", false);
    check("", false);
    check("/ip4", false);
}
