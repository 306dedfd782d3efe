//! How an answer's text becomes calls of functions: a parser for each format that models write.
//!
//! ```text
//! pieces of text -> CallParser::push -> Piece* ... CallParser::finish -> Piece*
//! Text* ( Begins Arguments* Ends )* Text*
//! ```
//!
//! The provider's grammar holds an honest model to its format; who parses cannot count on it, since
//! the text may come from a peer. So the parser is total: what is no call, to the letter, stays text,
//! and nothing of it is lost. A call that has begun and breaks off is handed on as far as it came.
//!
//! # Invariants
//!
//! * What comes out does not depend on where the text was cut into pieces.
//! * Held text is bounded: a word that may begin a call, or a call's beginning up to
//!   [`HELD_SIZE_MAX`].
//! * A call is reported to begin only when its name is known.
//!
//! Not here: whether the arguments are what a schema wants (the engine's grammar), ids of calls
//! (the gateway).

mod scan;

use commons_record::constraint::{FUNCTION_NAME_LEN_MAX, ToolFormat};

use self::scan::{Halt, Scan, Words};

/// Bytes from the word that opens a call to its arguments: a name, and what stands around it.
pub const HELD_SIZE_MAX: usize = FUNCTION_NAME_LEN_MAX + 192;

/// Something that an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text that is for people.
    Text(String),
    /// A call begins.
    Begins {
        /// The function.
        name: String,
    },
    /// More of the arguments of the call that began last, as JSON text.
    Arguments(String),
    /// The call is complete.
    Ends,
}

/// Reads one answer.
#[derive(Debug, Clone)]
pub struct CallParser {
    format: ToolFormat,
    state: State,
    /// Text that is not decided yet.
    held: String,
}

#[derive(Debug, Clone)]
enum State {
    /// At the very beginning, where Llama's calls stand.
    Start,
    /// Among text.
    Text,
    /// Behind the word that opens a call, which is held.
    Open,
    /// Among the arguments.
    Arguments(Scan),
    /// Behind the arguments: what closes the call.
    Close,
    /// Between two calls.
    Between,
    /// What follows is text, whatever it looks like.
    Rest,
}

/// What a step came to.
enum Step {
    /// Look again: the state changed.
    Again,
    /// More text is needed.
    Wait,
}

const PYTHON_TAG: &str = "<|python_tag|>";

impl CallParser {
    /// A parser at the beginning of an answer.
    pub fn new(format: ToolFormat) -> Self {
        Self { format, state: State::Start, held: String::new() }
    }

    /// Takes more of the text.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        while let Step::Again = self.step(&mut pieces) {}
        pieces
    }

    /// The answer is over. What closes a call, or stands between two, says nothing.
    pub fn finish(mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        match self.state {
            State::Close | State::Between if self.is_filler() => {}
            State::Arguments(_) => push_arguments(&mut pieces, self.held),
            _ => push_text(&mut pieces, std::mem::take(&mut self.held)),
        }
        pieces
    }

    fn step(&mut self, pieces: &mut Vec<Piece>) -> Step {
        match &mut self.state {
            State::Start => self.start(),
            State::Text => self.text(pieces),
            State::Open => self.open(pieces),
            State::Arguments(scan) => {
                let (len, is_over) = scan.take(&self.held);
                let rest = self.held.split_off(len);
                push_arguments(pieces, std::mem::replace(&mut self.held, rest));
                if !is_over {
                    return Step::Wait;
                }
                pieces.push(Piece::Ends);
                self.state = State::Close;
                Step::Again
            }
            State::Close => self.close(),
            State::Between => self.between(),
            State::Rest => {
                push_text(pieces, std::mem::take(&mut self.held));
                Step::Wait
            }
        }
    }

    fn start(&mut self) -> Step {
        if self.format != ToolFormat::Llama {
            self.state = State::Text;
            return Step::Again;
        }
        // A call is the whole answer, or the answer is no call.
        let mut words = Words::new(&self.held);
        self.state = match words.expect(&[PYTHON_TAG, "{"]) {
            Ok(_) => State::Open,
            Err(Halt::More) => return Step::Wait,
            Err(Halt::NoCall) => State::Rest,
        };
        Step::Again
    }

    /// Hands on what is before the word that opens a call, and holds what may be its beginning.
    fn text(&mut self, pieces: &mut Vec<Piece>) -> Step {
        let word = self.trigger();
        let (at, step) = match self.held.find(word) {
            Some(at) => (at, Step::Again),
            None => {
                let starts = self.held.char_indices().map(|(at, _)| at);
                let mut open = starts.filter(|&at| word.starts_with(&self.held[at..]));
                (open.next().unwrap_or(self.held.len()), Step::Wait)
            }
        };
        let rest = self.held.split_off(at);
        push_text(pieces, std::mem::replace(&mut self.held, rest));
        if matches!(step, Step::Again) {
            self.state = State::Open;
        }
        step
    }

    fn trigger(&self) -> &'static str {
        match self.format {
            ToolFormat::Hermes => "<tool_call>",
            ToolFormat::Llama => "{",
            ToolFormat::MistralList | ToolFormat::MistralArgs => "[TOOL_CALLS]",
        }
    }

    /// Reads from the opening word to the arguments.
    fn open(&mut self, pieces: &mut Vec<Piece>) -> Step {
        match self.head() {
            Ok((name, len)) => {
                self.held.drain(..len);
                pieces.push(Piece::Begins { name });
                self.state = State::Arguments(Scan::default());
            }
            Err(Halt::More) if self.held.len() <= HELD_SIZE_MAX => return Step::Wait,
            Err(Halt::More | Halt::NoCall) => self.state = State::Rest,
        }
        Step::Again
    }

    /// The name, and where the arguments begin.
    fn head(&self) -> Result<(String, usize), Halt> {
        let mut words = Words::new(&self.held);
        let keys: &[&str] = match self.format {
            ToolFormat::Hermes => {
                words.skip(&["<tool_call>"])?;
                &["\"arguments\""]
            }
            ToolFormat::Llama => {
                words.skip(&[PYTHON_TAG])?;
                &["\"parameters\"", "\"arguments\""]
            }
            ToolFormat::MistralList => {
                if words.skip(&["[TOOL_CALLS]"])? {
                    words.expect(&["["])?;
                }
                &["\"arguments\""]
            }
            ToolFormat::MistralArgs => {
                words.expect(&["[TOOL_CALLS]"])?;
                let name = words.name()?;
                words.expect(&["[ARGS]"])?;
                words.peek('{')?;
                return Ok((name, words.at));
            }
        };
        words.expect(&["{"])?;
        words.expect(&["\"name\""])?;
        words.expect(&[":"])?;
        words.expect(&["\""])?;
        let name = words.name()?;
        words.expect(&["\""])?;
        words.expect(&[","])?;
        words.expect(keys)?;
        words.expect(&[":"])?;
        words.peek('{')?;
        Ok((name, words.at))
    }

    /// What closes a call is dropped; what should close it and is something else is text.
    fn close(&mut self) -> Step {
        let mut words = Words::new(&self.held);
        let closed = match self.format {
            ToolFormat::Hermes => {
                words.expect(&["}"]).and_then(|_| words.expect(&["</tool_call>"]).map(drop))
            }
            ToolFormat::Llama | ToolFormat::MistralList => words.expect(&["}"]).map(drop),
            ToolFormat::MistralArgs => Ok(()),
        };
        let len = words.at;
        self.state = match closed {
            Ok(()) => {
                self.held.drain(..len);
                State::Between
            }
            Err(Halt::More) => return Step::Wait,
            Err(Halt::NoCall) => State::Rest,
        };
        Step::Again
    }

    /// Another call, or text.
    fn between(&mut self) -> Step {
        let mut words = Words::new(&self.held);
        let (separator, next): (&[&str], &[&str]) = match self.format {
            ToolFormat::Hermes => (&[], &["<tool_call>"]),
            ToolFormat::Llama => (&[";"], &["{"]),
            ToolFormat::MistralList => (&[","], &["{", "]"]),
            ToolFormat::MistralArgs => (&[], &["[TOOL_CALLS]"]),
        };
        let found = words.skip(separator).and_then(|_| {
            let before = words.at;
            words.expect(next).map(|word| (word, before))
        });
        match found {
            // The bracket that closes the list: the rest is text.
            Ok(("]", _)) => {
                let len = words.at;
                self.held.drain(..len);
                self.state = State::Rest;
            }
            Ok((_, before)) => {
                self.held.drain(..before);
                self.state = State::Open;
            }
            Err(Halt::More) => return Step::Wait,
            Err(Halt::NoCall) => self.state = State::Rest,
        }
        Step::Again
    }

    /// Whether what is held is part of how a call is written, cut short or not.
    fn is_filler(&self) -> bool {
        let is_punctuation = |c: char| c.is_ascii_whitespace() || "};,]".contains(c);
        let rest = self.held.trim_start_matches(is_punctuation);
        self.format == ToolFormat::Hermes && "</tool_call>".starts_with(rest) || rest.is_empty()
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: String) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
}

fn push_arguments(pieces: &mut Vec<Piece>, text: String) {
    if !text.is_empty() {
        pieces.push(Piece::Arguments(text));
    }
}

#[cfg(test)]
mod tests;
