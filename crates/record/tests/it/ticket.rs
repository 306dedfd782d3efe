//! Tickets: one line that lets its bearer in, and that says nothing when it is refused.

use std::error::Error;

use commons_record::ticket::{Ticket, TicketError};
use commons_record::{Author, VerifyError, codec};
use serde::Serialize;
use serde_bytes::ByteBuf;

use crate::sample::{self, AUTHORITY, OWNER, PROVIDER, hash, key, owner, peer_id};

/// The seed of the key that the sample invite was made for.
const SEED: [u8; 32] = [9; 32];

pub(crate) fn ticket() -> Ticket {
    Ticket {
        genesis: sample::genesis(),
        invite: owner(AUTHORITY).sign(3, sample::invite()),
        key: key(9),
        inviter: peer_id(&key(PROVIDER)),
        addrs: vec!["/ip4/192.0.2.1/udp/4001/quic-v1".into()],
    }
}

/// What a ticket holds, open to lies.
#[derive(Serialize)]
struct Content {
    genesis: ByteBuf,
    invite: ByteBuf,
    key: ByteBuf,
    inviter: commons_record::PeerId,
    addrs: Vec<String>,
}

fn text(lie: impl FnOnce(&mut Content)) -> String {
    let mut content = Content {
        genesis: ByteBuf::from(ticket().genesis.encode()),
        invite: ByteBuf::from(ticket().invite.encode()),
        key: ByteBuf::from(SEED),
        inviter: ticket().inviter,
        addrs: ticket().addrs,
    };
    lie(&mut content);
    format!("commons1{}", bs58::encode(codec::encode(&content)).into_string())
}

/// Everything that a person or a log would see of an error.
fn chain(error: &TicketError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text} {error}");
        source = error.source();
    }
    text
}

/// The secret in the forms in which it could slip out.
fn assert_silent(text: &str, ticket: &str) {
    let secret = [
        "0909".into(),
        "9, 9, 9".into(),
        bs58::encode(SEED).into_string(),
        String::from_utf8(vec![9; 4]).expect("tabs"),
        "\\t\\t\\t".into(),
    ];
    for form in secret {
        assert!(!text.contains(&form), "{form:?} in {text}");
    }
    for piece in ticket.as_bytes().windows(24) {
        let piece = std::str::from_utf8(piece).expect("base58");
        assert!(!text.contains(piece), "a piece of the ticket in {text}");
    }
}

#[test]
fn a_ticket_round_trips() {
    let written = ticket().to_string();
    assert_eq!(written, text(|_| {}), "the content is what this test thinks it is");
    let read: Ticket = written.parse().expect("our own");
    assert_eq!(read.to_string(), written);
    assert_eq!(read.key.public(), read.invited());
    assert_eq!(*read.key.to_seed(), SEED);
    assert_eq!(read.genesis.id(), sample::genesis().id());
    assert_eq!((read.inviter, read.addrs), (ticket().inviter, ticket().addrs));
    format!("  {written}\n").parse::<Ticket>().expect("as it is pasted");
    assert!(written.bytes().all(|it| it.is_ascii_alphanumeric()), "one word to double-click");
}

#[test]
fn a_ticket_that_is_printed_keeps_its_secret() {
    let ticket = ticket();
    let text = ticket.to_string();
    assert_silent(&format!("{ticket:?} {ticket:#?}"), &text);
}

#[test]
fn each_refusal_says_why_and_never_what() {
    type Shape = fn(&TicketError) -> bool;
    let record: Shape = |it| matches!(it, TicketError::Record(_));
    let cases: &[(&str, String, Shape)] = &[
        ("nothing", String::new(), |it| matches!(it, TicketError::Text(_))),
        ("another word", "hello".into(), |it| matches!(it, TicketError::Text(_))),
        ("a newer ticket", text(|_| {}).replacen('1', "2", 1), |it| {
            matches!(it, TicketError::Text(_))
        }),
        ("no base58", text(|_| {}) + "0", |it| matches!(it, TicketError::Text(_))),
        ("a megabyte", format!("commons1{}", "z".repeat(1 << 20)), |it| {
            matches!(it, TicketError::Text(_))
        }),
        ("half a line", text(|_| {})[..300].into(), |it| matches!(it, TicketError::Content(_))),
        ("no genesis", text(|it| it.genesis.clear()), record),
        (
            "a genesis inside a mesh",
            text(|it| {
                let author = Author { mesh: hash(1), ..owner(AUTHORITY) };
                let genesis = author.sign(0, sample::genesis().into_body());
                it.genesis = ByteBuf::from(genesis.encode());
            }),
            |it| matches!(it, TicketError::Record(VerifyError::WrongMesh { .. })),
        ),
        ("an invite for a genesis", text(|it| it.genesis = it.invite.clone()), record),
        (
            "an invite of another mesh",
            text(|it| {
                let author = Author { mesh: hash(1), ..owner(AUTHORITY) };
                it.invite = ByteBuf::from(author.sign(3, sample::invite()).encode());
            }),
            |it| matches!(it, TicketError::Record(VerifyError::WrongMesh { .. })),
        ),
        (
            "an invite by a member",
            text(|it| {
                it.invite = ByteBuf::from(owner(OWNER).sign(3, sample::invite()).encode());
            }),
            |it| matches!(it, TicketError::NoAuthority { owner } if *owner == sample::owner_id(&key(OWNER))),
        ),
        ("another key", text(|it| it.key[0] ^= 1), |it| matches!(it, TicketError::WrongKey)),
        ("a short key", text(|it| it.key.truncate(31)), |it| matches!(it, TicketError::WrongKey)),
        ("no address", text(|it| it.addrs.clear()), |it| matches!(it, TicketError::NoAddress)),
        ("17 addresses", text(|it| it.addrs = vec!["/a".into(); 17]), |it| {
            matches!(it, TicketError::NoAddress)
        }),
        ("an unprintable address", text(|it| it.addrs[0].push('\x1b')), |it| {
            matches!(it, TicketError::NoAddress)
        }),
        ("an empty address", text(|it| it.addrs[0].clear()), |it| {
            matches!(it, TicketError::NoAddress)
        }),
    ];
    for (what, text, is_right) in cases {
        let error = text.parse::<Ticket>().expect_err(what);
        assert!(is_right(&error), "{what}: {error:?}");
        let ticket = if text.len() < 10_000 { text.as_str() } else { "" };
        assert_silent(&chain(&error), ticket);
    }
}

#[test]
fn a_ticket_with_any_letter_changed_is_refused_or_differs() {
    let whole = text(|_| {});
    for at in 0..whole.len() {
        let letter = if &whole[at..=at] == "A" { "B" } else { "A" };
        let changed = [&whole[..at], letter, &whole[at + 1..]].concat();
        match changed.parse::<Ticket>() {
            Err(error) => assert_silent(&chain(&error), &whole),
            // Only where to find the inviter is not signed: a wrong guess reaches nobody.
            Ok(read) => {
                assert_eq!(read.genesis.id(), ticket().genesis.id());
                assert_eq!(read.invite.id(), ticket().invite.id());
                assert_eq!(read.to_string(), changed);
            }
        }
    }
}
