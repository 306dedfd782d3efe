//! Server-sent events from bytes: pure, and bounded whatever comes.
//!
//! Of the standard's stream this takes what servers of the OpenAI API send: the data of each
//! event. Lines end with LF, CR or both; several `data:` lines of one event are joined by line
//! breaks; comments and other fields are passed over; what is not ended by an empty line is no
//! event. In contrast to the standard, bytes that are no UTF-8 are an error and not replaced: an
//! answer must not change on its way.
//!
//! It is ours, and not a crate, since the crates that do this have no bound on a line.
//!
//! # Invariants
//!
//! * However the bytes are cut into pieces, the events and the error are the same.
//! * No more than [`EVENT_SIZE_MAX`] bytes are held.

/// The data of one event, and the longest line: the ids of the longest prompt, which one server
/// tells in its first event, are 131 072 numbers of up to seven characters.
pub const EVENT_SIZE_MAX: usize = 2 * 1024 * 1024;

/// Why a stream cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum SseError {
    #[error("an event is longer than {EVENT_SIZE_MAX} bytes")]
    TooLong,

    #[error("an event is not UTF-8")]
    NotText,
}

/// What a stream says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The data of an event.
    Data(String),
    /// A line that is no part of an event: the server lives.
    Comment,
}

/// Reads a stream. After an error it reads nothing more.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    /// Lines so far, up to one: a byte order mark may stand before the first.
    has_line: bool,
    /// The last byte was a CR, and a LF that follows belongs to it.
    is_after_cr: bool,
    error: Option<SseError>,
}

impl Parser {
    /// Reads on. The events go to `out`, those before an error too.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<Event>) -> Result<(), SseError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let result = bytes.iter().try_for_each(|byte| self.byte(*byte, out));
        self.error = result.err();
        result
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<Event>) -> Result<(), SseError> {
        let is_second = std::mem::replace(&mut self.is_after_cr, byte == b'\r');
        match byte {
            b'\n' if is_second => Ok(()),
            b'\n' | b'\r' => self.end_line(out),
            _ => {
                let held = self.line.len() + self.data.as_ref().map_or(0, Vec::len);
                if held >= EVENT_SIZE_MAX {
                    return Err(SseError::TooLong);
                }
                self.line.push(byte);
                Ok(())
            }
        }
    }

    fn end_line(&mut self, out: &mut Vec<Event>) -> Result<(), SseError> {
        let line = std::mem::take(&mut self.line);
        let is_first = !std::mem::replace(&mut self.has_line, true);
        let line = match line.strip_prefix(b"\xef\xbb\xbf") {
            Some(rest) if is_first => rest,
            Some(_) | None => line.as_slice(),
        };
        if line.is_empty() {
            if let Some(data) = self.data.take() {
                let data = String::from_utf8(data).map_err(|_| SseError::NotText)?;
                out.push(Event::Data(data));
            }
            return Ok(());
        }
        let value = match line.strip_prefix(b"data") {
            Some([]) => Some(&[][..]),
            Some([b':', value @ ..]) => Some(value.strip_prefix(b" ").unwrap_or(value)),
            Some(_) | None => None,
        };
        match (value, &mut self.data) {
            (Some(value), Some(data)) => {
                // The bytes of the line were counted, and the line break is one more.
                if data.len() + value.len() >= EVENT_SIZE_MAX {
                    return Err(SseError::TooLong);
                }
                data.push(b'\n');
                data.extend_from_slice(value);
            }
            (Some(value), data @ None) => *data = Some(value.to_vec()),
            (None, _) => out.push(Event::Comment),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> (Vec<Event>, Result<(), SseError>) {
        let (mut parser, mut events, mut result) = (Parser::default(), Vec::new(), Ok(()));
        for piece in pieces {
            result = parser.push(piece, &mut events);
        }
        (events, result)
    }

    fn check(text: &str, want: &[&str]) {
        let (events, result) = read(&[text.as_bytes()]);
        let data = events.into_iter().filter_map(|it| match it {
            Event::Data(data) => Some(data),
            Event::Comment => None,
        });
        assert_eq!(
            (data.collect::<Vec<_>>(), result),
            (want.iter().map(|&it| it.to_owned()).collect(), Ok(())),
            "{text:?}"
        );
    }

    #[test]
    fn an_event_is_its_data() {
        check("data: a\n\n", &["a"]);
        check("data:a\n\ndata:  b\n\n", &["a", " b"]);
        check("data: a\r\n\r\ndata: b\r\rdata: c\n\n", &["a", "b", "c"]);
        check("data: a\ndata: b\ndata\n\n", &["a\nb\n"]);
        check(": hello\nevent: x\nid: 1\ndata: a\nretry: 5\n\n", &["a"]);
        check("\u{feff}data: a\n\n", &["a"]);
        check("data: a\n\n\u{feff}data: b\n\n", &["a"]);
        check("\n\n\ndata\n\n", &[""]);
        check("data: whole\n\ndata: cut off", &["whole"]);
        check("data: cut off\n", &[]);
        check("database: no\n\n", &[]);
    }

    #[test]
    fn a_line_that_says_nothing_shows_that_the_server_lives() {
        let (events, _) = read(&[b": ping\n\n:\n"]);
        assert_eq!(events, [Event::Comment, Event::Comment]);
    }

    #[test]
    fn an_endless_line_and_an_endless_event_are_errors() {
        let line = vec![b'x'; EVENT_SIZE_MAX + 1];
        assert_eq!(
            read(&[b"data: ok\n\n", &line]),
            (vec![Event::Data("ok".into())], Err(SseError::TooLong))
        );
        let lines = b"data: 0123456789\n".repeat(EVENT_SIZE_MAX / 10);
        assert_eq!(read(&[&lines]), (Vec::new(), Err(SseError::TooLong)));
    }

    #[test]
    fn an_empty_line_of_data_is_counted_too() {
        // Each adds a line break: without a bound on them the event would grow for ever.
        let lines = b"data\n".repeat(EVENT_SIZE_MAX + 10);
        assert_eq!(read(&[&lines]).1, Err(SseError::TooLong));
    }

    #[test]
    fn what_is_no_utf_8_is_an_error_and_stays_one() {
        let bytes: [&[u8]; 3] = [b"data: ok\n\n", b"data: \xff\n\n", b"data: more\n\n"];
        assert_eq!(read(&bytes), (vec![Event::Data("ok".into())], Err(SseError::NotText)));
    }

    /// Bytes that mean something to the parser are frequent.
    fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        let token = prop_oneof![
            Just(b"data: ".to_vec()),
            Just(b"data".to_vec()),
            Just(b"\n".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"\r".to_vec()),
            Just(b":".to_vec()),
            Just(b"\xef\xbb\xbf".to_vec()),
            Just("ä€😀".into()),
            vec(any::<u8>(), 0..4),
        ];
        vec(token, 0..40).prop_map(|it| it.concat())
    }

    proptest! {
        /// However the bytes are cut, the events and the error are the same.
        #[test]
        fn any_cut_of_the_bytes_gives_the_same_events(bytes in any_bytes(), cuts in vec(0_usize..200, 0..20)) {
            let mut cuts: Vec<_> = cuts.into_iter().filter(|it| *it < bytes.len()).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|it| &bytes[it[0]..it[1]]).collect();
            prop_assert_eq!(read(&pieces), read(&[&bytes]));
        }
    }
}
