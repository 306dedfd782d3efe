//! The parts of a call's text: words with white space before them, names, and a value's extent.
//!
//! Not here: the order of the parts (`tools.rs`).

use commons_record::constraint::{FUNCTION_NAME_LEN_MAX, is_function_name};

/// Why reading stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Halt {
    /// The text is too short to tell.
    More,
    /// It is no call.
    NoCall,
}

/// Reads words from a text.
#[derive(Debug)]
pub(super) struct Words<'a> {
    text: &'a str,
    /// Behind what was read.
    pub(super) at: usize,
}

impl<'a> Words<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) -> &'a str {
        let rest = self.rest().trim_start_matches([' ', '\t', '\n', '\r']);
        self.at = self.text.len() - rest.len();
        rest
    }

    /// Reads one of these words, behind white space or not. Which it was.
    pub(super) fn expect<'w>(&mut self, words: &[&'w str]) -> Result<&'w str, Halt> {
        let rest = self.skip_space();
        if let Some(word) = words.iter().find(|word| rest.starts_with(**word)) {
            self.at += word.len();
            return Ok(word);
        }
        let may_be = words.iter().any(|word| word.starts_with(rest));
        Err(if may_be { Halt::More } else { Halt::NoCall })
    }

    /// Reads one of these words if it is there. Whether it was.
    pub(super) fn skip(&mut self, words: &[&str]) -> Result<bool, Halt> {
        match self.expect(words) {
            Ok(_) => Ok(true),
            Err(Halt::More) => Err(Halt::More),
            Err(Halt::NoCall) => Ok(false),
        }
    }

    /// Whether this comes next; it is not read.
    pub(super) fn peek(&mut self, wanted: char) -> Result<(), Halt> {
        match self.skip_space().chars().next() {
            Some(c) if c == wanted => Ok(()),
            Some(_) => Err(Halt::NoCall),
            None => Err(Halt::More),
        }
    }

    /// Reads a function's name, up to what no name has.
    pub(super) fn name(&mut self) -> Result<String, Halt> {
        let rest = self.rest();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let Some(len) = rest.find(|c| !is_part(c)) else {
            let is_open = rest.len() <= FUNCTION_NAME_LEN_MAX;
            return Err(if is_open { Halt::More } else { Halt::NoCall });
        };
        let name = &rest[..len];
        if !is_function_name(name) {
            return Err(Halt::NoCall);
        }
        self.at += len;
        Ok(name.to_owned())
    }
}

/// Finds where a JSON object ends: its braces and brackets are counted outside of strings.
#[derive(Debug, Clone, Default)]
pub(super) struct Scan {
    depth: usize,
    is_string: bool,
    is_escaped: bool,
}

impl Scan {
    /// How many bytes of the text belong to the object, and whether it is over with them.
    pub(super) fn take(&mut self, text: &str) -> (usize, bool) {
        for (at, byte) in text.bytes().enumerate() {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.is_string => self.is_escaped = true,
                b'"' => self.is_string = !self.is_string,
                _ if self.is_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return (at + 1, true);
                    }
                }
                _ => {}
            }
        }
        (text.len(), false)
    }
}
