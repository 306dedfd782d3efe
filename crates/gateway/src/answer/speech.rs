//! What an answer says: text for people, and calls of functions.
//!
//! Without tools it is text and nothing else. With them, the provider's node said how its model writes
//! calls, and the text is read accordingly; what is no call stays text.
//!
//! A call's id follows from the request and the call's place: the same answer told again has the
//! same ids, and no two answers share one.
//!
//! Not here: how calls are read (`commons_port::tools`), how they are told (`wire.rs`).

use commons_port::tools::{CallParser, Piece};
use commons_record::constraint::ToolFormat;
use commons_record::{Hash, RequestId};

/// Hexadecimal digits of a call's id: 96 bits.
const ID_LEN: usize = 24;

/// Reads one answer.
#[derive(Debug)]
pub(super) struct Speech {
    request: RequestId,
    has_tools: bool,
    parser: Option<CallParser>,
    call_count: u32,
}

/// Something that was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Text(String),
    /// A call begins.
    Call {
        index: u32,
        id: String,
        name: String,
    },
    /// More of a call's arguments.
    Arguments {
        index: u32,
        text: String,
    },
}

impl Speech {
    /// Of an answer that was asked with functions to call, or without.
    pub(super) fn new(request: RequestId, has_tools: bool) -> Self {
        Self { request, has_tools, parser: None, call_count: 0 }
    }

    /// The provider said how calls are written. Where there were no functions there are no calls,
    /// whatever a peer says.
    pub(super) fn learn(&mut self, format: Option<ToolFormat>) {
        if self.has_tools && self.parser.is_none() {
            self.parser = format.map(CallParser::new);
        }
    }

    /// Takes more of the text.
    pub(super) fn hear(&mut self, text: &str) -> Vec<Said> {
        match &mut self.parser {
            Some(parser) => {
                let pieces = parser.push(text);
                self.say(pieces)
            }
            None if text.is_empty() => Vec::new(),
            None => vec![Said::Text(text.to_owned())],
        }
    }

    /// The answer is over.
    pub(super) fn finish(&mut self) -> Vec<Said> {
        let pieces = self.parser.take().map(CallParser::finish).unwrap_or_default();
        self.say(pieces)
    }

    /// Whether any function was called.
    pub(super) fn has_calls(&self) -> bool {
        self.call_count > 0
    }

    fn say(&mut self, pieces: Vec<Piece>) -> Vec<Said> {
        pieces.into_iter().filter_map(|piece| self.said(piece)).collect()
    }

    fn said(&mut self, piece: Piece) -> Option<Said> {
        match piece {
            Piece::Text(text) => Some(Said::Text(text)),
            Piece::Begins { name } => {
                let index = self.call_count;
                self.call_count += 1;
                Some(Said::Call { index, id: self.id(index), name })
            }
            Piece::Arguments(text) => {
                Some(Said::Arguments { index: self.call_count.saturating_sub(1), text })
            }
            Piece::Ends => None,
        }
    }

    fn id(&self, index: u32) -> String {
        let fields = [self.request.as_bytes().as_slice(), &index.to_be_bytes()];
        let hash = Hash::of_fields("commons/tool-call/1", &fields).to_string();
        format!("call_{}", &hash[..ID_LEN])
    }
}

/// The published reason of an answer that called functions and is complete.
pub(super) fn reason_of(finish_reason: &'static str, speech: &Speech) -> &'static str {
    if speech.has_calls() && finish_reason == "stop" { "tool_calls" } else { finish_reason }
}
