//! Bytes to text as they come: a character is given out when its last byte is there.

/// Holds back the bytes of a character that is not complete, at most three.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextStream {
    pending: Vec<u8>,
}

impl TextStream {
    /// A stream with nothing held back.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and returns the text that is complete; what can never become a
    /// character is U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut kept = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            kept = 0;
            if !invalid.is_empty() {
                kept = invalid.len();
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        if kept > 0 && is_beginning(&self.pending[self.pending.len() - kept..]) {
            text.pop();
        } else {
            kept = 0;
        }
        self.pending.drain(..self.pending.len() - kept);
        text
    }

    /// Ends the stream: what was held back can no longer be completed and is U+FFFD.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        text
    }
}

/// Whether more bytes could make these a character.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}
