//! Fuzz target: no bytes of a server make the reader of streams panic, and however they are cut,
//! they mean the same.

use commons_remote::sse::{Event, Parser, SseError};

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Event>, Result<(), SseError>) {
    let (mut parser, mut events, mut result) = (Parser::default(), Vec::new(), Ok(()));
    for piece in pieces {
        result = parser.push(piece, &mut events);
    }
    (events, result)
}

#[test]
fn stream() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let whole = read(std::iter::once(bytes));
        assert_eq!(read(bytes.chunks(1)), whole);
        assert_eq!(read(bytes.chunks(7)), whole);
    });
}
