//! Fuzz targets: no text crashes a parser, and what parses prints as it was read.

use commons_record::ticket::Ticket;
use commons_record::{Hash, Micro, PublicKey, RequestId};

const TICKET: &str = include_str!("golden/ticket.txt");

#[test]
fn ticket() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let content = format!("commons1{}", bs58::encode(bytes).into_string());
        let texts = [String::from_utf8_lossy(bytes).into_owned(), content];
        for text in texts {
            if let Ok(ticket) = text.parse::<Ticket>() {
                assert_eq!(ticket.to_string(), text.trim());
            }
        }
    });
}

#[test]
fn changed_ticket() {
    let prefix = "commons1";
    let whole = bs58::decode(&TICKET.trim()[prefix.len()..]).into_vec().expect("our own");
    bolero::check!().with_type::<(u16, u8)>().for_each(|(at, byte)| {
        let mut bytes = whole.clone();
        bytes[usize::from(*at) % whole.len()] = *byte;
        let text = format!("{prefix}{}", bs58::encode(bytes).into_string());
        if let Ok(ticket) = text.parse::<Ticket>() {
            assert_eq!(ticket.to_string(), text);
        }
    });
}

#[test]
fn micro() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let digits = b"0123456789.-eE+";
        let drawn: Vec<u8> =
            bytes.iter().map(|it| digits[usize::from(*it) % digits.len()]).collect();
        for text in [String::from_utf8_lossy(bytes), String::from_utf8_lossy(&drawn)] {
            if let Ok(number) = text.parse::<Micro>() {
                assert_eq!(number.to_string().parse(), Ok(number));
                assert_eq!(Micro::from_millionths(number.as_millionths()), Some(number));
            }
        }
    });
}

#[test]
fn did_key() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let name = format!("did:key:z{}", bs58::encode(bytes).into_string());
        for text in [String::from_utf8_lossy(bytes).into_owned(), name] {
            if let Ok(key) = text.parse::<PublicKey>() {
                assert_eq!(key.to_string(), text);
            }
        }
    });
}

#[test]
fn hexadecimal() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(hash) = text.parse::<Hash>() {
            assert_eq!(hash.to_string(), text.to_lowercase());
        }
        if let Ok(id) = text.parse::<RequestId>() {
            assert_eq!(id.to_string(), text.to_lowercase());
        }
    });
}
