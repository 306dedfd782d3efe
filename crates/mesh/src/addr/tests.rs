//! Which addresses are taken, and what the book forgets.

use commons_record::SecretKey;

use super::*;

fn peer(seed: u8) -> PeerId {
    PeerId::from_key(SecretKey::from_seed(&[seed; 32]).public())
}

fn p2p(seed: u8) -> String {
    format!("/p2p/{}", identity::to_libp2p(peer(seed)).unwrap())
}

/// Reads one address of peer 1; gives what is kept of it, or why it is refused.
fn check(addr: &str) -> Result<String, String> {
    match read(peer(1), &[addr.to_owned()]) {
        Ok(read) => Ok(read.iter().map(ToString::to_string).collect()),
        Err(NetError::BadAddr { detail }) => Err(detail),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn addresses_that_can_be_dialled_are_kept_without_the_peer() {
    let relay = format!("/ip6/fd00::7/tcp/9{}/p2p-circuit", p2p(2));
    let plain = ["/ip4/127.0.0.1/tcp/80", "/ip6/::1/udp/7/quic-v1", relay.as_str()];
    for addr in plain {
        assert_eq!(check(addr).as_deref(), Ok(addr));
        assert_eq!(check(&format!("{addr}{}", p2p(1))).as_deref(), Ok(addr));
    }
}

#[test]
fn addresses_that_cannot_be_dialled_say_why() {
    let refused = [
        ("", "empty"),
        ("127.0.0.1:80", "not a multiaddress"),
        ("/dns4/example.org/tcp/80", "not looked up"),
        ("/ip4/0.0.0.0/tcp/80", "not the address of one machine"),
        ("/ip6/ff02::1/tcp/80", "not the address of one machine"),
        ("/ip4/127.0.0.1/tcp/0", "no port"),
        ("/ip4/127.0.0.1", "neither"),
        ("/ip4/127.0.0.1/udp/80", "neither"),
        ("/ip4/127.0.0.1/tcp/80/ws", "neither"),
        ("/unix/tmp", "no IP address"),
    ];
    for (addr, why) in refused {
        let detail = check(addr).unwrap_err();
        assert!(detail.contains(why), "{addr}: {detail}");
    }
    let other = check(&format!("/ip4/127.0.0.1/tcp/80{}", p2p(2))).unwrap_err();
    assert!(other.contains("another peer"), "{other}");
    let itself = check(&format!("/ip4/127.0.0.1/tcp/80{}/p2p-circuit", p2p(1))).unwrap_err();
    assert!(itself.contains("relays to itself"), "{itself}");
    assert!(check(&format!("/ip4/127.0.0.1/tcp/{}", "9".repeat(300))).is_err());
}

#[test]
fn one_usable_address_among_unknown_kinds_is_enough() {
    let addrs = ["/dns/a.example/tcp/1".to_owned(), "/ip4/10.0.0.1/tcp/1".to_owned()];
    assert_eq!(read(peer(1), &addrs).unwrap().len(), 1);
}

#[test]
fn more_addresses_than_a_presence_may_name_are_refused() {
    let addrs: Vec<_> = (1..=17).map(|port| format!("/ip4/10.0.0.1/tcp/{port}")).collect();
    assert!(read(peer(1), &addrs).is_err());
    assert_eq!(read(peer(1), &addrs[..16]).unwrap().len(), 16);
    assert_eq!(read(peer(1), &[]), Ok(vec![]));
}

fn tcp(port: usize) -> Multiaddr {
    format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap()
}

#[test]
fn the_newest_addresses_come_first_and_the_oldest_fall_out() {
    let book = Book::new(4);
    for port in 1..=20 {
        book.add(peer(1), vec![tcp(port)]);
    }
    let expected: Vec<_> = (5..=20).rev().map(tcp).collect();
    assert_eq!(book.addrs(peer(1)), Some(expected));
    book.add(peer(1), vec![tcp(7)]);
    assert_eq!(book.addrs(peer(1)).unwrap()[..2], [tcp(7), tcp(20)]);
}

#[test]
fn the_peer_unheard_of_for_longest_makes_room() {
    let book = Book::new(2);
    book.add(peer(1), vec![tcp(1)]);
    book.add(peer(2), vec![tcp(2)]);
    book.add(peer(1), vec![tcp(1)]);
    book.add(peer(3), vec![]);
    assert_eq!(book.addrs(peer(2)), None);
    assert_eq!(book.addrs(peer(3)), Some(vec![]));
    assert_eq!(book.take_fresh(), BTreeSet::from([peer(1), peer(3)]));
}

#[test]
fn an_address_that_was_known_is_no_news() {
    let book = Book::new(2);
    book.add(peer(1), vec![tcp(1), tcp(2)]);
    assert_eq!(book.take_fresh(), BTreeSet::from([peer(1)]));
    book.add(peer(1), vec![tcp(2)]);
    assert_eq!(book.take_fresh(), BTreeSet::new());
    book.add(peer(1), vec![tcp(3)]);
    assert_eq!(book.take_fresh(), BTreeSet::from([peer(1)]));
}

#[test]
fn an_address_where_somebody_else_answers_is_forgotten_unless_it_is_the_last() {
    let book = Book::new(2);
    book.add(peer(1), vec![tcp(1), tcp(2)]);
    let dialled = tcp(1).with_p2p(identity::to_libp2p(peer(1)).unwrap()).unwrap();
    assert!(book.discredit(peer(1), &dialled));
    assert!(!book.discredit(peer(1), &dialled));
    assert!(!book.discredit(peer(1), &tcp(2)));
    assert_eq!(book.addrs(peer(1)), Some(vec![tcp(2)]));
}
